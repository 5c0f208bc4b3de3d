"""Augmentation of garment pictures for encoders: cropped, partly hidden, mirrored, relit."""

from dataclasses import dataclass

import cv2
import numpy as np

from w2w.errors import UsageError
from w2w.training.light import lit

SIDES = ("anchors", "positives", "both", "none")


@dataclass(frozen=True)
class AugmentConfig:
    """How far a training picture may differ from the stored one."""

    of: str = "both"
    """Which pictures are changed: anchors, positives, both, none."""
    flip: float = 0.5
    """Share of pictures that are mirrored."""
    colour: float = 0.4
    """Strength of changes in light and colour; keep it low, because colour distinguishes products."""
    smaller: float = 0.6
    """Smallest random crop, as a share of the area."""
    stretch: float = 0.15
    """Width over height changes by up to this share."""
    partial: float = 0.25
    """Share of anchors that lose up to half on one side, like garments cut off by the photo's edge or covered by another."""
    occlude: float = 0.35
    """Share of anchors with a slanted part covered by another picture of the batch or by a plain colour."""
    erase: float = 0.2
    """Share of pictures with a rectangle erased (Zhong et al. 2017, "Random Erasing")."""

    def __post_init__(self):
        if self.of not in SIDES:
            raise UsageError(f"learn.augment.of={self.of}: must be one of {', '.join(SIDES)}")
        if not 0 < self.smaller <= 1:
            raise UsageError(f"learn.augment.smaller={self.smaller}: above 0, at most 1")
        for name in ("flip", "partial", "occlude", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"learn.augment.{name}={getattr(self, name)}: a share between 0 and 1")

    def changes(self, side: str) -> bool:
        """Whether pictures of that side (anchors, positives) are augmented."""
        return self.of in (side, "both")


def augment(
    image: np.ndarray, config: AugmentConfig, rng: np.random.Generator, worn: bool, other: np.ndarray | None = None
) -> np.ndarray:
    """The picture, uint8 (H, W, 3), as cropped, covered and lit by ``rng``, in another size. ``worn``: as on a person, so parts
    may be hidden, by ``other`` if given."""
    if worn and rng.random() < config.partial:
        image = _without_a_side(image, rng)
    image = _cropped(image, config, rng)
    if worn and rng.random() < config.occlude:
        image = _covered(image, rng, other)
    if rng.random() < config.flip:
        image = image[:, ::-1]
    if config.colour:
        image = lit(np.ascontiguousarray(image), config.colour, rng)
    if rng.random() < config.erase:
        image = image.copy()
        height, width = image.shape[:2]
        h, w = (max(1, int(side * rng.uniform(0.15, 0.4))) for side in (height, width))
        y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
        image[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return np.ascontiguousarray(image)


def _without_a_side(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    side, share = int(rng.integers(4)), rng.uniform(0.15, 0.5)
    y, x = max(1, int(height * share)), max(1, int(width * share))
    cut = (image[y:], image[: height - y], image[:, x:], image[:, : width - x])[side]
    return cut if cut.size else image


def _cropped(image: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """A random crop with at least ``smaller`` of the area, stretched."""
    height, width = image.shape[:2]
    side, stretch = np.sqrt(rng.uniform(config.smaller, 1)), np.exp(rng.uniform(-config.stretch, config.stretch) / 2)
    h, w = (max(1, min(whole, round(whole * part))) for whole, part in ((height, side * stretch), (width, side / stretch)))
    y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    return image[y : y + h, x : x + w]


def _covered(image: np.ndarray, rng: np.random.Generator, other: np.ndarray | None) -> np.ndarray:
    """Replaces what lies beyond a slanted line, a fifth to a half of the picture, by another picture or one colour."""
    height, width = image.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * np.linspace(-1, 1, width)[None, :] + np.sin(angle) * np.linspace(-1, 1, height)[:, None]
    hidden_HW = along > np.quantile(along, 1 - rng.uniform(0.2, 0.5))
    if other is not None and rng.random() < 0.7:
        cover = cv2.resize(np.ascontiguousarray(other), (width, height), interpolation=cv2.INTER_AREA)
    else:
        cover = np.broadcast_to(rng.integers(0, 256, 3).astype(np.uint8), image.shape)
    return np.where(hidden_HW[..., None], cover, image)
