"""Pair scores from a trained outfit scorer: vectors are projected once, after which millions of pairs are a matrix product in
NumPy."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize

from w2w.memory import empty_on_disk
from w2w.models.compatibility import SLOT_PAIRS, Pairs, What2Wear, load_scorer, outfit_scores
from w2w.models.folder import CONFIG
from w2w.models.sources import file_sha256
from w2w.models.weights import WEIGHTS

_PLACED_AT_ONCE, _SETS_AT_ONCE = 16_384, 2048


@dataclass(frozen=True)
class ByCosine:
    """For networks that compare cosines. ``placed_SND``: unit vectors of all items in each slot's space (one space if the slots
    share it); ``scale_SS`` and ``bias_SS`` per pair of slots, None if the cosine itself is the score.

    Once items are projected, only plain arrays remain, which travel to workers that never import torch.
    """

    placed_SND: np.ndarray
    scale_SS: np.ndarray | None
    bias_SS: np.ndarray | None

    def __call__(self, a: np.ndarray, i: int, b: np.ndarray, j: int) -> np.ndarray:
        """float32 (A, B): of items ``a`` in slot i with items ``b`` in slot j."""
        placed = self.placed_SND
        cosines_AB = placed[i % len(placed)][a] @ placed[j % len(placed)][b].T
        if self.scale_SS is None or self.bias_SS is None:
            return cosines_AB
        logits_AB = cosines_AB * self.scale_SS[i, j] + self.bias_SS[i, j]
        return -np.logaddexp(np.float32(0), -logits_AB)


@dataclass(frozen=True)
class BySet:
    """For a transformer: its score of an outfit of the two alone. One forward pass per pair, so thousands of times slower."""

    folder: Path
    vectors_ND: np.ndarray

    @cached_property
    def _network(self) -> nn.Module:
        return load_scorer(self.folder)[0]

    def __getstate__(self) -> dict[str, Any]:  # each worker loads its own
        return {"folder": self.folder, "vectors_ND": self.vectors_ND}

    def __call__(self, a: np.ndarray, i: int, b: np.ndarray, j: int) -> np.ndarray:
        """As ``ByCosine``."""
        rows_P2 = np.stack([np.repeat(a, len(b)), np.tile(b, len(a))], 1)
        slots_2 = np.array([[i, j]], np.int64)
        found = [np.empty(0, np.float32)]
        for start in range(0, len(rows_P2), _SETS_AT_ONCE):
            chosen = rows_P2[start : start + _SETS_AT_ONCE]
            found.append(outfit_scores(self._network, self.vectors_ND[chosen], np.repeat(slots_2, len(chosen), 0)))
        return np.concatenate(found).reshape(len(a), len(b))


class TrainedPairs:
    """The scorer in a folder. ``slots``: those it knows; ``is_log``: its scores are log probabilities, otherwise cosines;
    ``version``: sha256 of its files."""

    def __init__(self, folder: Path):
        """Raises UsageError if the folder has none."""
        self.folder = folder
        self._network, self.slots = load_scorer(folder)
        self.kind = {Pairs: "pairs", What2Wear: "what2wear"}.get(type(self._network), "set")
        self.is_log = self.kind != "what2wear"
        self.version = [file_sha256(folder / name) for name in (CONFIG, WEIGHTS)]

    def place(self, vectors_ND: np.ndarray) -> Callable[[np.ndarray, int, np.ndarray, int], np.ndarray]:
        """The scores of pairs of these items, as in ``ByCosine``. Raises ValueError for vectors of another length."""
        network = self._network
        if isinstance(network, What2Wear):
            return ByCosine(_placed([lambda v: v @ network.W], vectors_ND), None, None)
        if not isinstance(network, Pairs):
            return BySet(self.folder, vectors_ND)
        scale_SS, bias_SS = np.zeros((2, 3, 3), np.float32)
        scales, biases = network.log_scale.exp().tolist(), network.bias.tolist()
        for (i, j), scale, bias in zip(SLOT_PAIRS, scales, biases):
            scale_SS[[i, j], [j, i]], bias_SS[[i, j], [j, i]] = scale, bias
        return ByCosine(_placed(list(network.spaces), vectors_ND), scale_SS, bias_SS)

    @property
    def temperature(self) -> float:
        """Of What2Wear."""
        return float(self._network.temperature)


@torch.inference_mode()
def _placed(spaces: list[Callable], vectors_ND: np.ndarray) -> np.ndarray:
    """float32 (spaces, N, D')."""
    placed = np.zeros((len(spaces), 0, 0), np.float32)
    for n, space in enumerate(spaces):
        for start in range(0, max(1, len(vectors_ND)), _PLACED_AT_ONCE):
            part = normalize(space(torch.from_numpy(vectors_ND[start : start + _PLACED_AT_ONCE])), dim=-1).numpy()
            placed = placed if placed.size else empty_on_disk((len(spaces), len(vectors_ND), part.shape[1]))
            placed[n, start : start + len(part)] = part
    return placed
