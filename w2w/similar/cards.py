"""Which products share a card: those that have a picture, a group or a design in common, directly or through others.

What they may have in common is known by hashes, the keys of a product. A design counts only while no two of its products have
the same colour, so a product that comes or goes can part or join others. All that it can reach is on the cards of those that
share a key with it, before or after: outside of these every card stays as it is.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from w2w import schema
from w2w.ids import Sharing, hash_keys_128
from w2w.mining.components import components
from w2w.report.variants import COLOURS, DESIGN_NEEDS, design_of

NEEDS = (*DESIGN_NEEDS, schema.GROUP_ID)
SHARED = ("picture_N2", "group_N2", "design_N2")


@dataclass(frozen=True)
class Keys:
    """Of N products. ``picture_N2``: of its near-duplicates, ``group_N2`` and ``design_N2``: uint64, zeros where there is none;
    ``colour_N2``: of the design; ``named_N``: uint8, bit i: the product has attribute ``COLOURS[i]``."""

    picture_N2: np.ndarray
    group_N2: np.ndarray
    design_N2: np.ndarray
    colour_N2: np.ndarray
    named_N: np.ndarray

    def __len__(self) -> int:
        return len(self.named_N)

    def each(self, change: Callable[[np.ndarray], np.ndarray]) -> "Keys":
        return Keys(**{name: change(array) for name, array in vars(self).items()})

    @staticmethod
    def joined(several: Sequence["Keys"]) -> "Keys":
        return Keys(**{name: np.concatenate([getattr(one, name) for one in several]) for name in Keys.__annotations__})

    @staticmethod
    def none(num: int) -> "Keys":
        shared = {name: np.zeros((num, 2), np.uint64) for name in (*SHARED, "colour_N2")}
        return Keys(**shared, named_N=np.zeros(num, np.uint8))


def keys_of(rows: Iterable[Mapping[str, Any]], looks: pa.Array, colour: str | None) -> Keys:
    """Of products, rows with NEEDS. ``looks``: what near-duplicates of their pictures share; ``colour``: the attribute that
    tells colours."""
    groups, keys, colours, named = list[str | None](), list[str | None](), list[str | None](), list[int]()
    for row in rows:
        design = design_of(row, colour) if row[schema.TITLE] else None
        keys.append("\0".join(design[0]) if design else None)
        colours.append(design[1] if design else None)
        groups.append(row[schema.GROUP_ID] or None)
        named.append(named_bits(row))
    group, design, its = (_hashed(pa.array(one, pa.string())) for one in (groups, keys, colours))
    return Keys(_hashed(looks), group, design, its, np.array(named, np.uint8))


def named_bits(row: Mapping[str, Any]) -> int:
    """``Keys.named_N`` of a product."""
    there = {name for name, value in row[schema.ATTRIBUTES] or () if value} if row[schema.TITLE] else ()
    return sum(1 << n for n, name in enumerate(COLOURS) if name in there)


def colour_named(named_N: np.ndarray) -> str | None:
    """The attribute that tells colours: the one that most products have."""
    counts = np.bincount(named_N, minlength=256) @ ((np.arange(256)[:, None] >> np.arange(8)) & 1)
    return COLOURS[int(counts.argmax())] if counts.any() else None


def _hashed(column: pa.Array) -> np.ndarray:
    """uint64 (N, 2), zeros for null."""
    found = np.zeros((len(column), 2), np.uint64)
    found[column.is_valid().to_numpy(zero_copy_only=False)] = hash_keys_128(column.drop_null())
    return found


def cards(keys: Keys) -> np.ndarray:
    """int64 (N,): the first product of each one's card."""
    edges = [_linked(keys.picture_N2), _linked(keys.group_N2), _linked(keys.design_N2, keys.colour_N2)]
    return components(len(keys), *(np.concatenate(ends) for ends in zip(*edges)))


def _linked(key_N2: np.ndarray, colour_N2: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Ends of edges that connect all that share a key; unless two of these have one colour."""
    there = np.flatnonzero(key_N2.any(axis=1))
    columns = [key_N2[there, 0], key_N2[there, 1]]
    if colour_N2 is not None:
        columns += [colour_N2[there, 0], colour_N2[there, 1]]
    order = there[np.lexsort(columns[::-1])]
    same = (key_N2[order[1:]] == key_N2[order[:-1]]).all(axis=1)
    if colour_N2 is not None:
        run = np.cumsum(np.append(0, ~same))[: len(order)]
        twice = same & (colour_N2[order[1:]] == colour_N2[order[:-1]]).all(axis=1)
        repeated = np.zeros(len(order), bool)
        repeated[run[1:][twice]] = True
        same &= ~repeated[run[1:]]
    return order[1:][same], order[:-1][same]


@dataclass(frozen=True)
class Known:
    """The keys of all products by place: ``base``, found by ``sharing``, and instead of these those of the places ``at``,
    sorted, ``beside``."""

    base: Keys
    sharing: tuple[Sharing, ...]
    at: np.ndarray
    beside: Keys

    def of(self, places: np.ndarray) -> Keys:
        """None of places that have none yet."""
        rank = np.searchsorted(self.at, places)
        is_beside = np.append(self.at, -1)[rank] == places
        of_base = ~is_beside & (places < len(self.base))
        found = Keys.none(len(places))
        for to, stored, beside in zip(*(vars(keys).values() for keys in (found, self.base, self.beside))):
            to[of_base], to[is_beside] = stored[places[of_base]], beside[rank[is_beside]]
        return found

    def holding(self, keys: Keys) -> np.ndarray:
        """Places of products that share a key with any of these, and perhaps some others."""
        found = [self.at[:0]]
        for name, sharing in zip(SHARED, self.sharing):
            wanted, beside = getattr(keys, name), getattr(self.beside, name)
            of_base = sharing.find(wanted)
            found.append(of_base[~np.isin(of_base, self.at)])
            found.append(self.at[np.isin(beside[:, 0], wanted[wanted.any(axis=1), 0])])
        return np.unique(np.concatenate(found))

    def replaced(self, at: np.ndarray, keys: Keys) -> "Known":
        """With other keys of some places, each once."""
        stays = ~np.isin(self.at, at)
        places = np.concatenate([self.at[stays], at])
        order = np.argsort(places)
        beside = Keys.joined([self.beside.each(lambda a: a[stays]), keys]).each(lambda a: a[order])
        return Known(self.base, self.sharing, places[order], beside)

    def named(self, num: int) -> np.ndarray:
        """``Keys.named_N`` of so many places."""
        named = np.zeros(num, np.uint8)
        named[: len(self.base)] = self.base.named_N
        named[self.at] = self.beside.named_N
        return named
