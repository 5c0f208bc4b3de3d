"""Detectors: photos in, garment boxes out. One interface over our own, transformers' object detection and ultralytics YOLO.

Photos are uint8 arrays of any size; the model's own processor resizes, rescales and normalises them, once. Labels are the
model's own, by its ``id2label``, and are mapped to our classes by name.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from w2w import extras, ids, plugins, storage
from w2w.errors import Reject, RejectCode, UsageError
from w2w.garments import boxes, own
from w2w.garments.batches import Batches
from w2w.garments.found import Found, Model
from w2w.garments.taxonomy import CATEGORIES, IGNORE, PERSON, TaxonomyConfig, mapping_of
from w2w.models import hub, sources, weights
from w2w.models.device import check_options, on_cpu_in_float32, torch_device
from w2w.models.trial import try_open

if TYPE_CHECKING:
    import torch

CODE = 2  # bump when the same weights and config would give other boxes

_THRESHOLD = 0.4


@dataclass(frozen=True)
class DetectorConfig:
    """Which model finds garments, and what counts as found."""

    name: str = own.DEFAULT
    """w2w-lite0 (comes with w2w), hf:ORG/MODEL, yolo:FILE.pt (ultralytics), a folder (a trained one, or the hub's),
    or module:attribute, a detector of your own."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    taxonomy: TaxonomyConfig = field(default_factory=TaxonomyConfig)
    """How the model's labels become our classes."""
    threshold: float | None = None
    """Least score of a box. Default: 0.3 for w2w-lite0 and the like, whose scores combine class and overlap; else 0.4, as on
    the published detector's card."""
    thresholds: dict[str, float] | None = None
    """Least score per class, by name; overrides threshold."""
    max_iou: float = 0.75
    """Of two boxes that overlap more than this, the lower-scoring one is dropped."""
    nms_per_class: bool = False
    """Only boxes of the same class suppress each other. By default all do, so that a coat is not also a top."""
    max_boxes: int = 50
    """Boxes kept per photo, the best first."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda if available."""
    dtype: str = "float32"
    """Precision of the computation: float32, bfloat16 or float16."""
    threads: int = 1
    """CPU threads of one worker; set pool.num_cpus to the same."""
    trust_remote_code: bool = False
    """Run Python code that comes with a hub model. Only for authors whom you trust with your data."""

    def __post_init__(self):
        check_options(self, "detector")
        for name, value in {"threshold": self.threshold, "max_iou": self.max_iou, **(self.thresholds or {})}.items():
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"detector.{name}={value}: a number between 0 and 1")
        strange = set(self.thresholds or {}) - {*CATEGORIES, PERSON}
        if strange:
            raise UsageError(f"detector.thresholds: {sorted(strange)[0]!r} is not one of {', '.join((*CATEGORIES, PERSON))}")
        if self.max_boxes < 1:
            raise UsageError(f"detector.max_boxes={self.max_boxes}: must be at least 1")


class Detector:
    """A loaded model with its classes, thresholds and suppression; survives images that exhaust memory or make it fail."""

    def __init__(self, config: DetectorConfig, model: Model | None = None, batch_images: int = 64):
        self.config = config
        self._model = model or load_model(config)
        self._classes = mapping_of(self._model.labels, config.taxonomy, f"detector.name={config.name}")
        if not set(self._classes.values()) & {*CATEGORIES, PERSON}:
            raise UsageError(f"detector.name={config.name}: none of its labels is a garment")
        usual = getattr(self._model, "threshold", _THRESHOLD)
        self._threshold = usual if config.threshold is None else config.threshold
        self._floor = min([self._threshold, *(config.thresholds or {}).values()])
        self.batches = Batches(lambda images: self._model(images, self._floor), batch_images)

    def __call__(self, images: Sequence[np.ndarray]) -> list[Found | Reject]:
        """The detections in each photo, best first; a Reject for a photo that the model cannot process."""
        found = self.batches(images)
        return [f if isinstance(f, Reject) else self._chosen(f, image) for f, image in zip(found, images)]

    def _chosen(self, found: Found, image: np.ndarray) -> Found | Reject:
        if not (np.isfinite(found.scores_N).all() and np.isfinite(found.boxes_N4).all()):
            return Reject(RejectCode.NOT_FINITE, "the detector gave NaN or infinity")
        categories = [self._classes[label] for label in found.labels]
        height, width = image.shape[:2]
        inside = boxes.clip(found.boxes_N4, width, height)
        found = Found(inside, found.scores_N, found.labels, tuple(c or "" for c in categories), found.pixels)
        limits = self.config.thresholds or {}
        good = [
            i
            for i, c in enumerate(categories)
            if c not in (None, IGNORE)
            and found.scores_N[i] >= limits.get(c, self._threshold)
            and (inside[i, 2:] - inside[i, :2] >= 1).all()
        ]
        found = found.take(good)
        # a person surrounds garments and must not suppress them
        groups = found.categories if self.config.nms_per_class else [str(c == PERSON) for c in found.categories]
        kept = boxes.nms(found.boxes_N4, found.scores_N, self.config.max_iou, groups)
        return found.take(kept[: self.config.max_boxes])


@dataclass(frozen=True)
class Source:
    """What a detector's name refers to. ``files``: its files; ``code``: the version of external code; ``pixels``: whether it
    tells the classes of a photo's pixels."""

    files: list[Path]
    load: Callable[[DetectorConfig], Model]
    threshold: float = _THRESHOLD
    code: tuple[str, ...] = ()
    pixels: bool = False


def find(config: DetectorConfig, option: str = "detector.name") -> Source:
    """Raises UsageError for a model that does not exist."""
    kind, colon, rest = config.name.partition(":")
    if kind + colon in KINDS:
        return KINDS[kind + colon](config, rest, f"{option}={config.name}")
    folder = storage.local(config.name)
    if config.name and os.path.isdir(folder):
        return _of_folder(folder, f"{option}={config.name}")
    if option != "detector.name":
        raise UsageError(f"{option}={config.name}: neither a folder nor {', '.join(_FORMS[:-1])}")
    made = plugins.find("detector", config.name, {}, _FORMS)
    files = [Path(f) for f in getattr(made, "files", ())]
    return Source(files, made, getattr(made, "threshold", _THRESHOLD), plugins.version_of("detector", config.name, {}))


def _of_file(config: DetectorConfig, file: str, option: str) -> Source:
    extras.need("ultralytics", option)
    if not os.path.isfile(storage.local(file)):
        raise UsageError(f"{option}: no such file: {file!r}")
    return Source([storage.local(file)], lambda c: Yolo(storage.local(file), c))


def _of_hub(config: DetectorConfig, repository: str, option: str) -> Source:
    return _of_folder(sources.download(repository, config.revision, option.partition("=")[0]), option)


def _of_folder(folder: Path, option: str) -> Source:
    """Config, preprocessor (except for ours) and weights."""
    is_own = own.is_own(folder)
    needed = [folder / "config.json", *([] if is_own else [folder / "preprocessor_config.json"])]
    for file in needed:
        weights.read_json(file, option)
    files = [*needed, *weights.files_of(folder, option)]
    if is_own:
        return Source(files, partial(_own, folder), own.THRESHOLD, pixels=True)
    return Source(files, partial(Transformers, folder))


# a name, or its prefix up to the colon -> the source of the rest
KINDS: dict[str, Callable[[DetectorConfig, str, str], Source]] = {
    own.DEFAULT: lambda config, rest, option: _of_folder(own.DEFAULT_FOLDER, option),
    "hf:": _of_hub,
    "yolo:": _of_file,
}
_FORMS = (own.DEFAULT, "hf:ORG/MODEL", "yolo:FILE.pt", "a folder")


def detector_version(config: DetectorConfig) -> str:
    """Digest of everything that decides the boxes: our code, weights, preprocessing, classes, thresholds, dtype."""
    source = find(config)
    hashes = [*map(sources.file_sha256, source.files), *source.code]
    settings = {k: v for k, v in asdict(config).items() if k not in ("name", "revision", "device", "threads")}
    return ids.digest(CODE, hashes, settings)


def threshold_of(config: DetectorConfig) -> float:
    """Minimum score of this detector's boxes."""
    return find(config).threshold if config.threshold is None else config.threshold


def tells_pixels(config: DetectorConfig) -> bool:
    """Whether this detector tells the classes of a photo's pixels, so that a garment can be cut out by them."""
    return find(config).pixels


def try_detector(config: DetectorConfig) -> None:
    """Raises UsageError for faults in the model's files and labels, without keeping it in this process."""
    try_open(Detector, config, (own.DEFAULT,), detector_version(config))


def load_model(config: DetectorConfig) -> Model:
    """Loads the weights onto the device. Raises UsageError for a missing model or device."""
    return find(config).load(config)


def _own(folder: Path, config: DetectorConfig) -> Model:
    """By OpenVINO on a CPU in float32, otherwise by torch."""
    settings = own.read_settings(folder, config.name)
    if on_cpu_in_float32(config.device, config.dtype):
        return own.Own(settings, own.openvino_run(folder, config.name, config.threads))
    import torch

    device = torch_device(config.device, config.threads, "detector.device")
    return own.Own(settings, own.torch_run(own.load_network(folder, config.name), device, getattr(torch, config.dtype)))


class Transformers:
    """Any AutoModelForObjectDetection: DETR, Conditional DETR, YOLOS, RT-DETR and similar.

    Photos of several sizes are padded to one batch only if the model takes a padding mask; even then convolutions see beyond
    its edge, and scores move by up to .002 depending on the batch (measured, random weights).
    """

    def __init__(self, folder: Path, config: DetectorConfig, network: "torch.nn.Module | None" = None):
        """``network``: one in training, instead of the folder's weights."""
        import torch
        from transformers import AutoModelForObjectDetection

        option = f"detector.name={config.name}"
        remote: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
        self._torch, self._dtype = torch, getattr(torch, config.dtype)
        self._device = torch_device(config.device, config.threads, "detector.device")
        self._processor = hub.processor("AutoImageProcessor", folder, option, **remote)
        missing: list[str] = []
        if network is None:
            settings = hub.settings(folder, weights.read_json(folder / "config.json", option), option, **remote)
            files = weights.files_of(folder, option)
            where = f"{option}: {files[0]}"
            tensors = weights.read(files, option)
            network, missing = weights.pretrained(AutoModelForObjectDetection, settings, tensors, where, **remote)
        self._model = network.eval()
        self._takes_mask = takes_mask(network)
        if missing:
            weights.need(network, missing, self.probed, where)
        self._model = network.to(self._device)
        names = {int(i): str(label) for i, label in network.config.id2label.items()}
        self._names = names
        self.labels = tuple(names[i] for i in sorted(names))

    def __call__(self, images: Sequence[np.ndarray], floor: float) -> list[Found | Reject]:
        results: dict[int, Found | Reject] = {}
        groups: dict[tuple, list[int]] = {}
        for i, image in enumerate(images):
            groups.setdefault(() if self._takes_mask else image.shape, []).append(i)
        for members in groups.values():
            for i, found in zip(members, self._run([images[i] for i in members], floor)):
                results[i] = found
        return [results[i] for i in range(len(images))]

    def _inputs(self, images: list[np.ndarray]) -> dict:
        images = [np.array(i) for i in images]
        inputs = self._processor(images=images, return_tensors="pt", input_data_format="channels_last")
        return {k: v for k, v in inputs.items() if k != "pixel_mask" or self._takes_mask}

    def probed(self) -> list:
        """The network's output for a picture on the CPU, and the scores by which it selects locations for its second stage."""
        picture = np.random.default_rng(0).integers(0, 256, (96, 64, 3), np.uint8)
        outputs = self._model(**self._inputs([picture]))
        chosen_by = [v for name, v in outputs.items() if name.startswith("enc_outputs")]  # two-stage, as RT-DETR
        return [outputs.logits, outputs.pred_boxes, *chosen_by]

    def _run(self, images: list[np.ndarray], floor: float) -> list[Found | Reject]:
        torch = self._torch
        inputs = {k: v.to(self._device) for k, v in self._inputs(images).items()}
        reduced = torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32)
        with torch.inference_mode(), reduced:
            outputs = self._model(**inputs)
        outputs.logits, outputs.pred_boxes = outputs.logits.float(), outputs.pred_boxes.float()
        finite = torch.isfinite(outputs.logits).flatten(1).all(1) & torch.isfinite(outputs.pred_boxes).flatten(1).all(1)
        sizes = [image.shape[:2] for image in images]
        found = self._processor.post_process_object_detection(outputs, threshold=floor, target_sizes=sizes)
        results: list[Found | Reject] = []
        for ok, f in zip(finite.tolist(), found):
            if not ok:
                results.append(Reject(RejectCode.NOT_FINITE, "the detector gave NaN or infinity"))
                continue
            f = {k: v.cpu().numpy() for k, v in f.items()}
            known = [i for i, number in enumerate(f["labels"].tolist()) if number in self._names]
            labels = tuple(self._names[int(f["labels"][i])] for i in known)
            results.append(Found(f["boxes"][known].astype(np.float32), f["scores"][known].astype(np.float32), labels))
        return [results[i] for i in range(len(images))]


def takes_mask(network: "torch.nn.Module") -> bool:
    """Whether the network is told which pixels are padding. Otherwise it sees them as part of the photo, and its boxes are
    relative to the padded photo."""
    import inspect

    return "pixel_mask" in inspect.signature(network.forward).parameters and network.config.model_type != "yolos"


class Yolo:
    """A detection model of ultralytics, loaded from a .pt file with known classes and tensors only, no other code."""

    def __init__(self, file: Path, config: DetectorConfig):
        os.environ["ULTRALYTICS_SAFE_LOAD"] = "true"  # read when ultralytics is imported: torch.load(weights_only=True)
        os.environ.setdefault("YOLO_OFFLINE", "true")
        from ultralytics import YOLO
        from ultralytics.nn import tasks

        tasks.SAFE_LOAD = True
        self._config, self._device = config, torch_device(config.device, config.threads, "detector.device")
        option = f"detector.name={config.name}"
        try:
            self._model = YOLO(str(file), task="detect")
            names, network = dict(self._model.names), self._model.model
            network.float()
        except Exception as e:  # pickle, zip and torch raise many classes for a file that is not a checkpoint
            raise UsageError(f"{option}: cannot be loaded safely: {weights.line(e)}") from e
        if self._model.task != "detect":
            raise UsageError(f"{option}: is a model for {self._model.task!r}, not for detection")
        weights.check_finite(network, f"{option}: {file}")
        self._finite: list[bool] = []
        network.register_forward_hook(lambda *arguments: self._finite.extend(_finite_rows(arguments[-1])))
        self._names = {int(i): str(label) for i, label in names.items()}
        self.labels = tuple(self._names[i] for i in sorted(self._names))

    def __call__(self, images: Sequence[np.ndarray], floor: float) -> list[Found | Reject]:
        config = self._config
        self._finite.clear()  # filled by the network's hook: its suppression silently drops boxes with NaN
        results = self._model.predict(
            [np.ascontiguousarray(image[..., ::-1]) for image in images],  # ultralytics takes arrays in OpenCV's BGR
            conf=max(floor, 1e-3),
            iou=config.max_iou,
            agnostic_nms=not config.nms_per_class,
            max_det=300,
            half=config.dtype != "float32" and self._device.type == "cuda",
            device=self._device,
            batch=len(images),
            verbose=False,
            save=False,
        )
        found = [r.boxes.cpu().numpy() for r in results]
        return [
            Found(f.xyxy.astype(np.float32), f.conf.astype(np.float32), tuple(self._names[int(c)] for c in f.cls))
            if finite
            else Reject(RejectCode.NOT_FINITE, "the detector gave NaN or infinity")
            for f, finite in zip(found, self._finite[-len(found) :], strict=True)
        ]


def _finite_rows(answers) -> list[bool]:
    """bool per photo of a batch: whether YOLO's output for it is finite. ``answers``: (N, values, locations), or a sequence
    that starts with it."""
    import torch

    first = answers[0] if isinstance(answers, list | tuple) else answers
    return torch.isfinite(first).flatten(1).all(1).tolist()
