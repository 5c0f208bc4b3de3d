"""Augmentation of photos for detectors: placed on a canvas, mirrored, relit; boxes and pixels are transformed alike."""

from dataclasses import dataclass

import cv2
import numpy as np

from w2w.garments import boxes
from w2w.garments.own import GROUND
from w2w.training.light import lit

UNKNOWN = 255  # a pixel of unknown class


@dataclass(frozen=True)
class AugmentConfig:
    """How far a training photo may differ from the stored one."""

    smaller: float = 0.6
    """Smallest scale on the canvas, relative to the whole photo."""
    larger: float = 1.7
    """Largest scale; what sticks out is cropped."""
    stretch: float = 0.1
    """Width over height changes by up to this share."""
    flip: float = 0.5
    """Share of photos that are mirrored."""
    colour: float = 1.0
    """Strength of changes in light and colour; 0 leaves them alone."""
    blur: float = 0.1
    """Share of photos that are blurred."""
    erase: float = 0.2
    """Share of photos with a rectangle erased (Zhong et al. 2017, "Random Erasing")."""
    least_visible: float = 0.4
    """A garment with less of its box left becomes an ignored region."""


@dataclass(frozen=True)
class Sample:
    """A photo with its ground truth. Boxes are float32 xyxy in pixels; ``classes_HW`` 0 for nothing, class + 1, or UNKNOWN."""

    image: np.ndarray  # uint8 (H, W, 3)
    boxes_N4: np.ndarray
    labels_N: np.ndarray  # int64, indices into CATEGORIES
    ignore_M4: np.ndarray
    classes_HW: np.ndarray  # uint8
    labelled: np.ndarray  # bool (7,): classes that the photo's source labels


def place(
    sample: Sample, height: int, width: int, scale: tuple[float, float], shift: tuple[float, float], flip: bool
) -> Sample:
    """The photo scaled by (x, y), optionally mirrored, shifted by (x, y) pixels, on a canvas; boxes are clipped at its edge."""
    sx, sy = scale
    dx, dy = shift
    across = np.array([[-sx, 0, sample.image.shape[1] * sx + dx], [0, sy, dy]] if flip else [[sx, 0, dx], [0, sy, dy]], float)
    # OpenCV's integer coordinates are pixel centres, those of boxes are pixel corners
    centred = across.copy()
    centred[:, 2] += across[:, :2] @ [0.5, 0.5] - 0.5
    image, classes = sample.image, sample.classes_HW
    size = (width, height)
    shrinks = max(sx, sy) < 0.5  # bilinear interpolation reads 2 x 2 pixels: halve first to avoid aliasing
    if shrinks:
        half = (image.shape[1] // 2, image.shape[0] // 2)
        image = cv2.resize(image, half, interpolation=cv2.INTER_AREA)
        grow = np.array([sample.image.shape[1] / half[0], sample.image.shape[0] / half[1]])
        centred = across.copy()
        centred[:, :2] *= grow
        centred[:, 2] += centred[:, :2] @ [0.5, 0.5] - 0.5
    image = cv2.warpAffine(image, centred, size, flags=cv2.INTER_LINEAR, borderValue=(GROUND,) * 3)
    plain = across.copy()
    plain[:, 2] += across[:, :2] @ [0.5, 0.5] - 0.5
    classes = cv2.warpAffine(classes, plain, size, flags=cv2.INTER_NEAREST, borderValue=0)

    def moved(boxes_N4: np.ndarray) -> np.ndarray:
        xs, ys = boxes_N4[:, ::2] * across[0, 0] + across[0, 2], boxes_N4[:, 1::2] * sy + dy
        return np.stack([xs.min(1), ys.min(1), xs.max(1), ys.max(1)], 1).astype(np.float32)

    whole = moved(sample.boxes_N4) if len(sample.boxes_N4) else sample.boxes_N4
    ignore = moved(sample.ignore_M4) if len(sample.ignore_M4) else sample.ignore_M4
    return Sample(image, whole, sample.labels_N, ignore, classes, sample.labelled)


def cut(sample: Sample, least_visible: float) -> Sample:
    """Boxes clipped to the canvas; those with too little left are ignored, those outside are dropped."""
    height, width = sample.image.shape[:2]
    inside = boxes.clip(sample.boxes_N4, width, height)
    left = boxes.area(inside) / np.maximum(boxes.area(sample.boxes_N4), 1e-6)
    seen = (inside[:, 2:] - inside[:, :2] >= 2).all(1)
    good = seen & (left >= least_visible)
    ignore = boxes.clip(np.concatenate([sample.ignore_M4, inside[seen & ~good]]), width, height)
    ignore = ignore[(ignore[:, 2:] - ignore[:, :2] >= 1).all(1)]
    return Sample(sample.image, inside[good], sample.labels_N[good], ignore, sample.classes_HW, sample.labelled)


def augment(sample: Sample, height: int, width: int, config: AugmentConfig, rng: np.random.Generator) -> Sample:
    """The photo as placed and lit by ``rng``, on a canvas of (height, width)."""
    h, w = sample.image.shape[:2]
    scale = min(height / h, width / w) * np.exp(rng.uniform(np.log(config.smaller), np.log(config.larger)))
    stretch = np.exp(rng.uniform(-config.stretch, config.stretch) / 2)
    sx, sy = scale * stretch, scale / stretch
    dx, dy = rng.uniform(0, 1) * (width - w * sx), rng.uniform(0, 1) * (height - h * sy)
    flip = rng.random() < config.flip
    placed = cut(place(sample, height, width, (sx, sy), (dx, dy), flip), config.least_visible)
    image = lit(placed.image, config.colour, rng) if config.colour else placed.image
    if rng.random() < config.blur:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6))
    if rng.random() < config.erase:
        image = image.copy()
        eh, ew = (int(side * rng.uniform(0.08, 0.3)) for side in (height, width))
        y, x = int(rng.integers(0, height - eh)), int(rng.integers(0, width - ew))
        image[y : y + eh, x : x + ew] = rng.integers(0, 256, 3)
    return Sample(image, placed.boxes_N4, placed.labels_N, placed.ignore_M4, placed.classes_HW, placed.labelled)
