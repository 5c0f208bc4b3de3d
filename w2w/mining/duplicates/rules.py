"""Near-duplicates: which pictures are the same picture resized, recompressed, mirrored or cropped.

Candidates come from hashes and vectors (`neighbours`), the decision from the pictures (`likeness`); clusters are the connected
components of confirmed pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from w2w import schema
from w2w.errors import UsageError
from w2w.mining.components import components, sizes
from w2w.mining.duplicates.fingerprints import grids_of, looks_of
from w2w.mining.duplicates.likeness import compare, mirrored

RULES_CODE = 3  # bump when the same fingerprints would give other duplicates
_WORTH_TURNING = 6.0  # multiple of the tolerance up to which the reverse direction is tried
HOW = ("copy", "cropped", "flipped", "flipped and cropped")


@dataclass(frozen=True)
class LikenessRules:
    """When two pictures are one. The defaults were set on real catalogs: see README."""

    hash_bits: int = 4
    """Candidates: bits of 64 in which perceptual hashes may differ (also against the mirror image's)."""
    look_levels: float = 10.0
    """Candidates: maximum root mean square difference, in levels of 255, over the lowest 6 x 6 frequencies of two pictures."""
    num_nearest: int = 8
    """Candidates: nearest neighbours of each picture, at most."""
    most_levels: float = 4.5
    """Decision: levels of 255 that a place (an eighth a side) may differ, laid over each other; twice that off plain ground."""


@dataclass(frozen=True)
class Marks:
    """What candidates are found from, for N images: 1,096 bytes per image."""

    hashes_N2: np.ndarray  # int64: of the image and of its mirror image
    looks_NWD: np.ndarray  # float16


@dataclass(frozen=True)
class Confirmed:
    """Pairs that are the same picture: rows (P, 2), how (index into HOW) and distance (0..1)."""

    pairs: np.ndarray
    how_P: np.ndarray
    distance_P: np.ndarray


def check_rules(rules: LikenessRules) -> None:
    """Raises UsageError for invalid rules."""
    if not 0 <= rules.hash_bits <= 10:
        raise UsageError(f"--rules.hash_bits={rules.hash_bits}: 0 to 10; beyond, other pictures are as near")
    if rules.num_nearest < 1:
        raise UsageError(f"--rules.num_nearest={rules.num_nearest}: must be at least 1")
    for field in ("look_levels", "most_levels"):
        if not 0 < getattr(rules, field) <= 64:
            raise UsageError(f"--rules.{field}={getattr(rules, field)}: above 0, at most 64 levels")


def marks_of(fingerprints: pa.Table) -> Marks:
    """Marks of rows with both hashes and the grid, in their order."""
    hashes = [fingerprints.column(c).to_numpy() for c in (schema.PHASH, schema.PHASH_MIRRORED)]
    return Marks(np.stack(hashes, axis=1), looks_of(grids_of(fingerprints.column(schema.GRID))))


def joined(marks: Sequence[Marks]) -> Marks:
    return Marks(*(np.concatenate(c) for c in zip(*((m.hashes_N2, m.looks_NWD) for m in marks))))


def look_alike(a_PD: np.ndarray, b_PD: np.ndarray, rules: LikenessRules) -> np.ndarray:
    """bool (P,): whether two whole pictures that share a hash also look alike in colour, by their looks."""
    return ((a_PD.astype(np.float32) - b_PD.astype(np.float32)) ** 2).sum(1) <= rules.look_levels**2


def confirm(pairs: np.ndarray, rules: LikenessRules, grids_a: np.ndarray, grids_b: np.ndarray) -> Confirmed:
    """The pairs that are the same picture; ``grids_a[i]`` is the grid of ``pairs[i, 0]``. The orientation whose look is nearer,
    plain or mirrored, is tried first, then the other; and both directions, as registration may fail in one."""
    coarse_a, coarse_b = (g.reshape(len(g), 3, 8, 4, 8, 4).mean((3, 5), dtype=np.float32) for g in (grids_a, grids_b))
    straight, turned = (np.abs(coarse_a - b).mean((1, 2, 3)) for b in (coarse_b, mirrored(coarse_b)))
    nearer = turned < straight
    difference, cropped = np.full(len(pairs), np.inf, np.float32), np.zeros(len(pairs), bool)
    flipped = nearer.copy()
    for flip in (nearer, ~nearer):
        reached = np.full(len(pairs), np.inf, np.float32)
        for backwards in (False, True):
            # the reverse direction only for pairs that came near in the first
            todo = np.flatnonzero((difference > 1) & ((reached <= _WORTH_TURNING) if backwards else True))
            b = np.where(flip[todo, None, None, None], mirrored(grids_b[todo]), grids_b[todo])
            sides = (b, grids_a[todo]) if backwards else (grids_a[todo], b)
            found = compare(*sides, rules.most_levels)
            reached[todo] = found.difference_P
            better = found.difference_P < difference[todo]
            at = todo[better]
            difference[at], cropped[at], flipped[at] = found.difference_P[better], found.cropped_P[better], flip[at]
    one = difference <= 1
    how = np.where(flipped, 2, 0) + cropped
    return Confirmed(pairs[one], how[one].astype(np.int8), difference[one])


def all_confirmed(found: list[Confirmed]) -> Confirmed:
    """Merges several, sorted by pair."""
    pairs = np.concatenate([np.empty((0, 2), np.int64), *(f.pairs for f in found)])
    how = np.concatenate([np.empty(0, np.int8), *(f.how_P for f in found)])
    distance = np.concatenate([np.empty(0, np.float32), *(f.distance_P for f in found)])
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return Confirmed(pairs[order], how[order], distance[order])


NO_PAIR = all_confirmed([])


def duplicate_rows(image_ids: pa.Array, confirmed: Confirmed) -> pa.Table:
    """Rows of table `duplicates` for sorted image ids: clusters, and each image's most similar other image (on ties, the
    smallest id)."""
    n = len(image_ids)
    a, b = confirmed.pairs.T
    root = components(n, a, b)
    one, other = np.concatenate([a, b]), np.concatenate([b, a])
    distance, how = np.tile(confirmed.distance_P, 2), np.tile(confirmed.how_P, 2)
    order = np.lexsort((other, distance, one))
    one, other, distance, how = one[order], other[order], distance[order], how[order]
    first = np.ones(len(one), bool)
    first[1:] = one[1:] != one[:-1]
    at = np.full(n, -1)
    at[one[first]] = np.flatnonzero(first)
    best = pa.array(at, mask=at < 0)
    columns = [
        image_ids,
        image_ids.take(pa.array(root)),
        pa.array(sizes(root), pa.int32()),
        image_ids.take(pa.array(other, pa.int64())).take(best),
        pa.array(HOW).take(pa.array(how.astype(np.int64))).take(best),
        pa.array(distance.astype(np.float32)).take(best),
    ]
    return pa.Table.from_arrays(columns, schema=schema.DUPLICATES.schema)
