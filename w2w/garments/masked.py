"""The interface of segmenters: a photo and prompts in, masks out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Prompt:
    """What to cut out: what is inside this box (xyxy), at these points (x, y)."""

    box: tuple[float, float, float, float]
    points: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Masked:
    """A mask, bool (H, W) of the photo's size; its predicted IoU and its stability, if the model gives them."""

    mask: np.ndarray
    score: float | None = None
    stability: float | None = None


class Segmenter(Protocol):
    """A loaded model. ``needs_box``: it only cuts out what a prompt shows, and finds nobody by itself."""

    needs_box: bool

    def __call__(self, image: np.ndarray, prompts: Sequence[Prompt]) -> list[Masked]:
        """One mask per prompt. Without prompts, a model that needs none returns a single mask of the foreground."""
