"""Outfits as arrays: training and test data of outfit scorers."""

from dataclasses import dataclass, replace

import numpy as np

WORN = -1  # in ``modified_of``: not modified


@dataclass(frozen=True)
class Outfits:
    """O outfits of at most S items. The items' vectors are stored once, however many outfits they are in.

    ``vectors_ND`` float32; ``items_OS`` row of each item's vector, ``slots_OS`` number of its slot in ``slots``, both -1 after
    the last; ``modified_of_O`` row of the outfit that it was made of, or WORN.
    """

    vectors_ND: np.ndarray
    items_OS: np.ndarray
    slots_OS: np.ndarray
    modified_of_O: np.ndarray
    slots: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.items_OS)

    @property
    def worn(self) -> np.ndarray:
        """Rows of the worn outfits."""
        return np.flatnonzero(self.modified_of_O == WORN)

    @property
    def modified(self) -> np.ndarray:
        """Rows of the others."""
        return np.flatnonzero(self.modified_of_O != WORN)

    def among(self, kept_O: np.ndarray) -> "Outfits":
        """A subset of the outfits, bool (O,). Modified outfits whose worn one is not in it are dropped too."""
        kept_O = self.kept(kept_O)
        place_O = np.cumsum(kept_O) - 1
        of_O = np.where(self.modified_of_O == WORN, WORN, place_O[self.modified_of_O])
        return replace(self, items_OS=self.items_OS[kept_O], slots_OS=self.slots_OS[kept_O], modified_of_O=of_O[kept_O])

    def kept(self, kept_O: np.ndarray) -> np.ndarray:
        """Which of them ``among`` keeps, bool (O,)."""
        return kept_O & ((self.modified_of_O == WORN) | kept_O[self.modified_of_O])

    def vectors(self, items_NS: np.ndarray) -> np.ndarray:
        """float32 (N, S, D), zeros where there is no item."""
        found = self.vectors_ND[np.maximum(items_NS, 0)]
        found[items_NS < 0] = 0
        return found


def modified_by_worn(outfits: Outfits) -> tuple[np.ndarray, np.ndarray]:
    """(start (O + 1,), rows): the modified outfits of worn outfit o are rows[start[o]:start[o + 1]]."""
    rows = outfits.modified
    rows = rows[np.argsort(outfits.modified_of_O[rows], kind="stable")]
    return np.searchsorted(outfits.modified_of_O[rows], np.arange(len(outfits) + 1)), rows


@dataclass(frozen=True)
class Questions:
    """Q fill-in-the-blank questions with A answers each, written out as outfits: ``items_QAS`` and ``slots_QAS`` as in
    ``Outfits``, ``right_Q`` the position of the right answer. A missing answer has no items at all."""

    items_QAS: np.ndarray
    slots_QAS: np.ndarray
    right_Q: np.ndarray

    def __len__(self) -> int:
        return len(self.right_Q)


def blanks(outfits: Outfits, num_answers: int, rng: np.random.Generator) -> Questions:
    """One question per worn outfit: which item fills its blank. The wrong answers are distinct items of the same slot from
    other worn outfits; the right one is at a random position. Outfits with too few wrong answers make no question."""
    return drawn_blanks(outfits, num_answers, rng)[0]


def drawn_blanks(outfits: Outfits, num_answers: int, rng: np.random.Generator) -> tuple[Questions, np.ndarray]:
    """``blanks``, and the outfit that each is about, int64 (Q,)."""
    items, slots = outfits.items_OS[outfits.worn], outfits.slots_OS[outfits.worn]
    stock = {s: np.unique(items[slots == s]) for s in range(len(outfits.slots))}
    made_items, made_slots, right, of = [], [], [], []
    for outfit, row, slot_row in zip(outfits.worn, items, slots):
        blank = int(rng.integers((row >= 0).sum()))
        others = stock[slot_row[blank]]
        others = others[others != row[blank]]
        if len(others) < num_answers - 1:
            continue
        answers = np.repeat(row[None], num_answers, axis=0)
        place = int(rng.integers(num_answers))
        answers[np.arange(num_answers) != place, blank] = rng.choice(others, num_answers - 1, replace=False)
        made_items.append(answers)
        made_slots.append(np.repeat(slot_row[None], num_answers, axis=0))
        right.append(place)
        of.append(outfit)
    shape = (len(right), num_answers, items.shape[1])
    items_QAS, slots_QAS = (np.array(made, np.int64).reshape(shape) for made in (made_items, made_slots))
    return Questions(items_QAS, slots_QAS, np.array(right, np.int64)), np.array(of, np.int64)
