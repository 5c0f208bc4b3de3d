"""What a store has to hold after each night, worked out from what the supplier said; and what differs from it."""

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from tests.bench.year_shop import BAD_ROWS, PICTURES_DOWN, Night, Ware
from w2w import ids
from w2w.errors import Reject
from w2w.images.decode import DecodeLimits, decode

GRACE_NIGHTS = 2
_CLOSE = 1e-5  # scores of one search that differ by less, as the order of sums does, are equal
_TOLD = 5  # differences of a kind that are told by name

Product = tuple[str, float | None, str, str, tuple[str, ...]]  # title, price, category, availability, pictures
Answers = dict[tuple[int, int], tuple[str, str, float]]  # (query, rank) -> product, picture, score


@dataclass
class Catalog:
    """``active``: the products that are sold, as the store has to have them; ``seen``: pictures by id."""

    active: dict[str, Product] = field(default_factory=dict)
    seen: dict[str, bytes] = field(default_factory=dict)
    _last: dict[str, dict[str, str]] = field(default_factory=dict)  # the last pictures by name, also of products that are gone
    _absent: dict[str, int] = field(default_factory=dict)

    def sleep(self, night: Night) -> None:
        """Reads the feed of a night on which it can be read."""
        for ware in night.listed:
            self._absent.pop(ware.product_id, None)
        if night.fault not in (
            BAD_ROWS,
            PICTURES_DOWN,
        ):  # a row without an id may be any product's; nor does a night that fails
            self._withdraw({ware.product_id for ware in night.listed})
        for n, ware in enumerate(night.listed):
            names = list(dict.fromkeys(ware.pictures))
            now = {name: self._id(night, name) for name in names}
            before = self._last.get(ware.product_id, {})
            if now[names[0]]:
                self._last[ware.product_id] = {name: found for name in names if (found := now[name] or before.get(name))}
            if ware.product_id in self._last:
                self.active[ware.product_id] = self._product(ware, night.fault == BAD_ROWS and n % 100 == 7)

    def _withdraw(self, listed: Set[str]) -> None:
        for product_id in self.active.keys() - listed:
            self._absent[product_id] = self._absent.get(product_id, 0) + 1
            if self._absent[product_id] == GRACE_NIGHTS:
                del self.active[product_id], self._absent[product_id]

    def _product(self, ware: Ware, spoilt: bool) -> Product:
        price, stock = None if spoilt else float(ware.price), ware.stock.replace(" ", "_")
        return re.sub("<[^>]*>", "", ware.title), price, ware.category, stock, tuple(self._last[ware.product_id].values())

    def _id(self, night: Night, name: str) -> str | None:
        """The picture's id; None for one that cannot be fetched or read."""
        data = None if night.is_down(name) else night.files.get(name)
        if data is None:
            return None
        found = ids.image_id(data)
        if found not in self.seen:
            try:
                decode(data, DecodeLimits())
            except Reject:
                return None
            self.seen[found] = data
        return found


@dataclass(frozen=True)
class Held:
    """What a store holds and answers. ``sent``: what the files of its exports come to, one after the other."""

    products: dict[str, Product]
    vectors: dict[str, bytes]  # of the pictures of these
    rows: dict[tuple[str, str], str]  # of the index: (product, picture) -> category
    answers: Answers
    similar: dict[str, tuple[tuple[str, float], ...]]
    sent: dict[str, dict[str, Any]]


def differences(mine: Held, wanted: Held) -> list[str]:
    """One sentence for each row that is in one of them alone or differs."""
    found = []
    for name in (f.name for f in fields(Held)):
        some, others = getattr(mine, name), getattr(wanted, name)
        wrong = [key for key in some.keys() | others.keys() if not _same(some.get(key), others.get(key))]
        found += [f"{name}: {key}: {_short(some.get(key))}, not {_short(others.get(key))}" for key in sorted(wrong)]
    return found


def _same(mine: Any, wanted: Any) -> bool:
    if isinstance(mine, tuple) and isinstance(wanted, tuple) and mine and isinstance(mine[-1], float) and len(mine) == 3:
        return mine[:2] == wanted[:2] and abs(mine[2] - wanted[2]) < _CLOSE
    return mine == wanted


def _short(value: Any) -> str:
    return "nothing" if value is None else str(value)[:300]


def exact(vectors: Mapping[str, np.ndarray], queries_QD: np.ndarray, k: int) -> np.ndarray:
    """The k highest cosines of each query among these unit vectors, float32 (Q, k)."""
    scores_QN = queries_QD @ np.stack(list(vectors.values())).T
    return -np.sort(-scores_QN, axis=1)[:, :k]
