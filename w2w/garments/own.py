"""Running our own detector: photos onto one of three canvases, the network in OpenVINO or torch, its output into boxes.

A folder of config.json and model.safetensors, as `w2w train detector` writes it; the default one is next to this file.
"""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from w2w.errors import Reject, RejectCode, UsageError
from w2w.garments import boxes
from w2w.garments.found import Found
from w2w.garments.grid import STRIDES, places
from w2w.garments.pixels import Pixels
from w2w.garments.taxonomy import CATEGORIES
from w2w.models import engines, sources, weights

if TYPE_CHECKING:
    import torch

DEFAULT = "w2w-lite0"
DEFAULT_FOLDER = Path(__file__).parent / "weights"
MODEL_TYPE = "w2w-dense"
GROUND = 114  # grey around a photo on its canvas
CODE = 2  # bump when the same weights would give other answers

_AGREES = 0.7  # IoU
_MOST_PLACES = 300  # best locations of a photo that are considered
THRESHOLD = 0.3  # on the test photos of street precision .85 and recall .67; weights/MODEL_CARD.md
_AT_ONCE = 8  # photos: more are not faster on a CPU, measured

# uint8 (N, H, W, 3) -> float32: scores (N, A, 7) in 0..1, sides (N, A, 4), classes of pixels (N, 8, H / 8, W / 8) that sum to 1
Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Settings:
    """Settings not contained in the weights."""

    height_px: int = 416
    width_px: int = 288
    channels: int = 96
    max_iou: float = 0.5  # of two overlapping boxes of one class, the worse is dropped
    labels: tuple[str, ...] = CATEGORIES

    def canvases(self) -> list[tuple[int, int]]:
        """(height, width) of a portrait, a square and a landscape canvas, all of about the same area."""
        side = round((self.height_px * self.width_px) ** 0.5 / STRIDES[-1]) * STRIDES[-1]
        return [(self.height_px, self.width_px), (side, side), (self.width_px, self.height_px)]


def is_own(folder: Path) -> bool:
    """Whether the folder holds a detector of ours."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type") == MODEL_TYPE
    except (OSError, ValueError, AttributeError):
        return False


def read_settings(folder: Path, name: str) -> Settings:
    """Reads config.json. Raises UsageError if it is not one of ours."""
    values = weights.read_json(folder / "config.json", f"detector.name={name}")
    known = {k: values[k] for k in asdict(Settings()) if type(values.get(k)) in (int, float, list)}
    sizes = [v for k, v in known.items() if k != "labels"]
    if (
        set(known) != set(asdict(Settings()))
        or sorted(map(str, known["labels"])) != sorted(CATEGORIES)
        or not all(0 < v < 1 << 14 for v in sizes)
    ):
        raise UsageError(f"detector.name={name}: {folder / 'config.json'} is not that of a detector of this version of w2w")
    return Settings(**known | {"labels": tuple(known["labels"])})


def save(folder: Path, settings: Settings, state: dict) -> None:
    """config.json and model.safetensors, in half precision: measured, the same AP to three digits."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": MODEL_TYPE, "backbone": "tf_efficientnet_lite0", **asdict(settings)}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    halved = {k: (v.half() if v.dtype == torch.float32 else v).contiguous() for k, v in state.items()}
    save_file(halved, folder / "model.safetensors", {"format": "pt"})


def load_network(folder: Path, name: str) -> "torch.nn.Module":
    """The torch network with its weights, float32. Raises UsageError for weights of another architecture."""
    from w2w.garments.dense import Dense

    option = f"detector.name={name}"
    where, channels = f"{option}: {folder / weights.WEIGHTS}", read_settings(folder, name).channels
    tensors = weights.read([folder / weights.WEIGHTS], option)
    return weights.fill(weights.built(lambda: Dense(channels), tensors, where), tensors, where)


def torch_run(network: "torch.nn.Module", device: "torch.device", dtype: "torch.dtype") -> Run:
    """The network in eager torch, autocast to ``dtype``."""
    import torch

    network = network.eval().to(device, memory_format=torch.channels_last)

    def run(batch_NHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        pixels = torch.from_numpy(batch_NHWC).to(device).permute(0, 3, 1, 2).float()
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            scores, sides, classes = network(pixels)
        answers = scores.float().sigmoid(), sides.float(), classes.float().softmax(1)
        return answers[0].cpu().numpy(), answers[1].cpu().numpy(), answers[2].cpu().numpy()

    return run


def openvino_run(folder: Path, name: str, threads: int) -> Run:
    """The network compiled for this CPU; converted once, then read from the cache without importing torch."""
    files = [sources.file_sha256(folder / f) for f in ("config.json", "model.safetensors")]
    module = functools.partial(_answers, folder, name)
    compiled = engines.compile_for_cpu(engines.convert_once([CODE, files], module, (2, 128, 96, 3), (-1, -1, -1, 3)), threads)

    def run(batch_NHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        answers = compiled(batch_NHWC)
        return answers[0], answers[1], answers[2]

    return run


def _answers(folder: Path, name: str):
    import torch

    class Answers(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = load_network(folder, name)

        def forward(self, pixels):
            scores, sides, classes = self.network(pixels.permute(0, 3, 1, 2).float())
            return scores.sigmoid(), sides, classes.softmax(1)

    return Answers().eval()


class Own:
    """Photos in, raw boxes out: detector.Model."""

    threshold = THRESHOLD

    def __init__(self, settings: Settings, run: Run):
        self._settings, self._run = settings, run
        self.labels = settings.labels

    def __call__(self, images: Sequence[np.ndarray], floor: float) -> list[Found | Reject]:
        results: dict[int, Found | Reject] = {}
        groups: dict[tuple[int, int], list[int]] = {}
        for i, image in enumerate(images):
            groups.setdefault(best_canvas(image, self._settings.canvases()), []).append(i)
        for (height, width), members in groups.items():
            for k in range(0, len(members), _AT_ONCE):
                part = members[k : k + _AT_ONCE]
                placed = [letterbox(images[i], height, width) for i in part]
                answers = self._run(np.stack([canvas for canvas, _ in placed]))
                for i, (_, scale), scores_A7, sides_A4, classes_CHW in zip(part, placed, *answers):
                    pixels = Pixels(classes_CHW, scale, CATEGORIES)
                    results[i] = self._read(scores_A7, sides_A4, pixels, height, width, floor)
        return [results[i] for i in range(len(images))]

    def _read(
        self, scores_A7: np.ndarray, sides_A4: np.ndarray, pixels: Pixels, height: int, width: int, floor: float
    ) -> Found | Reject:
        if not all(np.isfinite(answers).all() for answers in (scores_A7, sides_A4, pixels.classes_CHW)):
            return Reject(RejectCode.NOT_FINITE, "the detector gave NaN or infinity")
        at, kind = np.nonzero(scores_A7 >= floor)
        best = np.argsort(-scores_A7[at, kind], kind="stable")[:_MOST_PLACES]
        at, kind = at[best], kind[best]
        found_N4 = to_boxes(sides_A4, places(height, width))[at] / pixels.scale
        scores_N = scores_A7[at, kind].astype(np.float32)
        kept = boxes.nms(found_N4, scores_N, self._settings.max_iou, kind.astype(str))
        agreed = voted(found_N4, scores_N, kind, kept)
        return Found(agreed, scores_N[kept], tuple(self.labels[k] for k in kind[kept]), pixels=pixels)


def best_canvas(image: np.ndarray, canvases: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The canvas on which the whole photo is largest."""
    return max(canvases, key=lambda c: min(c[0] / image.shape[0], c[1] / image.shape[1]))


def letterbox(image: np.ndarray, height: int, width: int) -> tuple[np.ndarray, float]:
    """The photo as large as fits a canvas of (height, width), in its upper left corner, and its scale."""
    scale = min(height / image.shape[0], width / image.shape[1])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    canvas = np.full((height, width, 3), GROUND, np.uint8)
    canvas[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return canvas, scale


def voted(found_N4: np.ndarray, scores_N: np.ndarray, kinds_N: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The kept boxes, each as the mean of the boxes of its class around it (IoU >= .7), weighted by their squared scores.

    Gidaris and Komodakis 2015, section 4. Measured on 74 photos held out: AP75 .29 -> .33, mAP .353 -> .362, AP50 .712 -> .700.
    """
    near_KN = (boxes.iou(found_N4[kept], found_N4) >= _AGREES) & (kinds_N[kept][:, None] == kinds_N[None, :])
    weights_KN = near_KN * scores_N.astype(np.float64) ** 2
    return (weights_KN @ found_N4 / weights_KN.sum(1, keepdims=True).clip(1e-12)).astype(np.float32)


def to_boxes(sides_A4: np.ndarray, places_A2: np.ndarray) -> np.ndarray:
    """Boxes xyxy from distances to the left, upper, right and lower side."""
    return np.concatenate([places_A2 - sides_A4[:, :2], places_A2 + sides_A4[:, 2:]], axis=1)
