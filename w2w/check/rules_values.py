"""Values of the feed that a product's picture contradicts, by the heads of a tagger. NumPy in, findings out."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w.check.kinds import FOUND, of_rows
from w2w.training.tags.heads import Head

IMPROBABLE = 0.002  # one of 15 values, where 3 of 100 products are wrong, is likelier so than right: .97 x .002 < .03 / 14
_OWN_MEANING = 0.1  # of the products of a value are contradicted: then the shop calls something else by this name
_LEAST, _NAMED = 3, 5  # contradicted products that say so; such names that are told
_SHOWN = 60  # characters of a value
_SPELT = {"gray": "grey"}


@dataclass(frozen=True)
class Contradicted:
    """Places of products, what each is seen as, and the probability of that; names that mean something else in this shop."""

    rows: np.ndarray
    seen: list[str]
    scores: np.ndarray
    own_meaning: list[str]


class Compared:
    """What the feed says of one attribute, as places among the values of the head, and what pictures say of it."""

    def __init__(self, head: Head, given: pa.ChunkedArray):
        """``given``: of N products the feed's value, or null."""
        self._head = head
        coded = given.combine_chunks().dictionary_encode()
        self._names = coded.dictionary.to_pylist()
        self._known_UC = known(self._names, head.classifier.labels)
        code_N = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        is_known = np.append(self._known_UC.any(axis=1), False)  # the last is for null, -1
        self._code_N = np.where(is_known[code_N], code_N, -1)
        self._place_N = np.full(len(code_N), -1)
        self._score_N = np.zeros(len(code_N), np.float32)

    @property
    def asked_N(self) -> np.ndarray:
        """bool (N,): the feed's value is one that the head knows."""
        return self._code_N >= 0

    def add(self, rows: np.ndarray, vectors_ND: np.ndarray) -> None:
        """``rows``: places of products with ``asked_N``."""
        own_NC = self._known_UC[self._code_N[rows]]
        chances_NC = self._head.classifier(vectors_ND)
        place_N = chances_NC.argmax(axis=1)
        improbable = (chances_NC * own_NC).sum(axis=1) < IMPROBABLE
        told = improbable & ~own_NC[np.arange(len(rows)), place_N]
        self._place_N[rows[told]] = place_N[told]
        self._score_N[rows[told]] = chances_NC.max(axis=1)[told]

    def contradicted(self) -> Contradicted:
        rows = np.flatnonzero(self._place_N >= 0)
        counts = np.bincount(self._code_N[self.asked_N], minlength=len(self._names))
        wrong = np.bincount(self._code_N[rows], minlength=len(self._names))
        other = (wrong >= _LEAST) & (wrong > _OWN_MEANING * counts)
        rows = rows[~other[self._code_N[rows]]]
        labels = self._head.classifier.labels
        seen = [labels[place] for place in self._place_N[rows]]
        return Contradicted(rows, seen, self._score_N[rows], [self._names[c] for c in np.flatnonzero(other)])


def known(names: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """bool (U, C): which of the labels stand in each name, as whole words: navy and blue in "Navy Blue"."""
    words, wanted = ([f" {_words(text)} " for text in texts] for texts in (names, labels))
    return np.array([[label in name for label in wanted] for name in words], bool).reshape(len(names), len(labels))


def _words(text: str) -> str:
    return " ".join(_SPELT.get(word, word) for word in re.findall(r"\w+", text.casefold()))


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}\u2026"


def findings(goods: pa.Table, attribute: str, given: pa.ChunkedArray, found: Contradicted) -> pa.Table:
    """The surest first."""
    if not len(found.rows):
        return FOUND.empty_table()
    order = np.argsort(-found.scores, kind="stable")
    rows = pa.array(found.rows[order])
    said = given.take(rows).to_pylist()
    seen = [(found.seen[n], found.scores[n]) for n in order]
    details = [
        f"Its {attribute} is given as {_short(a)!r}, and it looks {b!r} ({score:.2f})." for a, (b, score) in zip(said, seen)
    ]
    return of_rows("wrong_value", goods.take(rows), details, [attribute] * len(order))


def own_meaning(names: dict[str, list[str]]) -> str:
    """Why some values are not judged, by attribute; "" if all are."""
    told = [f"{attribute} {_short(name)!r}" for attribute, some in names.items() for name in some]
    if not told:
        return ""
    more = f" and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
    return f"products of {', '.join(told[:_NAMED])}{more} are not judged: over a tenth of them look otherwise"
