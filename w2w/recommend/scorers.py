"""Items projected for a trained scorer: the slots that a class fills, and the score of a pair of classes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from w2w.garments.taxonomy import BOTTOM, CATEGORIES, DRESS, TOP, VOCABULARIES


@dataclass(frozen=True)
class TrainedSpace:
    """``slots_of``: class -> the scorer's slots that it fills: one, or for a dress those of top and bottom. ``scores``: of
    items in slots (``w2w.models.pairing``). ``is_log``: scores are log probabilities; otherwise they are shown unchanged."""

    slots_of: dict[str, tuple[int, ...]]
    scores: Callable[[np.ndarray, int, np.ndarray, int], np.ndarray]
    class_M: np.ndarray
    is_log: bool

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.slots_of)

    def pair(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """float32 (A, B). Items that fill two slots get the mean of both: a dress goes with shoes as top and as bottom."""
        mine, theirs = (self.slots_of[CATEGORIES[self.class_M[rows[0]]]] for rows in (a, b))
        found = [self.scores(a, i, b, j) for i in mine for j in theirs if i != j]
        return (sum(found[1:], found[0]) / np.float32(len(found))).astype(np.float32)

    def shown(self, score: float) -> float:
        return float(np.exp(score)) if self.is_log else float(score)


def slots_of_classes(slots: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Class -> numbers of the slots that it fills. A slot is identified by the class's name, or by a data set's name for it."""
    meant = [class_of_slot(slot) for slot in slots]
    found: dict[str, tuple[int, ...]] = {c: (meant.index(c),) for c in CATEGORIES if c in meant}
    if DRESS not in found and TOP in found and BOTTOM in found:
        found[DRESS] = found[TOP] + found[BOTTOM]
    return found


def class_of_slot(slot: str) -> str | None:
    """One of the seven; None for any other."""
    word = slot.strip().lower()
    return next((words[word] for words in VOCABULARIES.values() if words.get(word) in CATEGORIES), None)
