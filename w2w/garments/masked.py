"""What any segmenter takes and gives: a photo and prompts in, masks out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Prompt:
    """What to cut out: inside this box (xyxy), where these points (x, y) are on it."""

    box: tuple[float, float, float, float]
    points: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Masked:
    """A mask, bool (H, W) of the photo's size; the IoU that the model expects of it, and its stability, where it says them."""

    mask: np.ndarray
    score: float | None = None
    stability: float | None = None


class Segmenter(Protocol):
    """A loaded model. ``needs_box``: it cuts out what a prompt shows, and finds nobody by itself."""

    needs_box: bool

    def __call__(self, image: np.ndarray, prompts: Sequence[Prompt]) -> list[Masked]:
        """One mask a prompt. Without prompts, a model that needs none gives the one mask of the foreground."""
