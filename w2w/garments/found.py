"""Detector output, before and after mapping labels to our classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from w2w.errors import Reject
from w2w.garments.pixels import Pixels


@dataclass(frozen=True)
class Found:
    """Detections in one photo: boxes float32 (N, 4) xyxy in its pixels, scores float32 (N,), labels, our classes; ``pixels``:
    the classes of its pixels, where the model tells."""

    boxes_N4: np.ndarray
    scores_N: np.ndarray
    labels: tuple[str, ...]
    categories: tuple[str, ...] = ()
    pixels: Pixels | None = None

    def take(self, at: Sequence[int] | np.ndarray) -> "Found":
        at = [int(i) for i in at]
        categories = tuple(self.categories[i] for i in at) if self.categories else ()
        return Found(self.boxes_N4[at], self.scores_N[at], tuple(self.labels[i] for i in at), categories, self.pixels)


class Model(Protocol):
    """A loaded network: its labels, and raw detections above ``floor`` (before class mapping and suppression). It may have its
    own default ``threshold``, used if the options give none."""

    labels: tuple[str, ...]

    def __call__(self, images: Sequence[np.ndarray], floor: float) -> list[Found | Reject]: ...
