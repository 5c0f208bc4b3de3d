"""An exact search of a few rows of an index: their vectors, decoded once, and the nearest of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np

from w2w.index.spec import Spec
from w2w.index.template import Codes

_AT_ONCE = 10_000  # rows decoded, or scored again
_CELLS = 2_000_000  # scores held
_STRIPE = 64  # scores of which the largest one is found first
NOISE = 1.5e-6  # how far rounded scores of a matrix product are from those that are given


@dataclass(frozen=True)
class Few:
    """Rows of some shards: the shard's number and the row in it, (m,) each, and their vectors (m, e)."""

    shard_M: np.ndarray
    row_M: np.ndarray
    vectors_ME: np.ndarray

    @staticmethod
    def of(spec: Spec, codes: dict[int, Codes], rows: dict[int, np.ndarray]) -> "Few":
        """``rows`` of each shard's number; the vectors as their codes have them, those that re-rank where there are some."""
        shards = [np.full(len(rows[number]), number, np.int32) for number in codes]
        vectors = [_decoded(spec, codes[number], rows[number]) for number in codes]
        return Few(np.concatenate(shards), np.concatenate([rows[number] for number in codes]), np.concatenate(vectors))

    def nearest(self, inner_NE: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores and places of the k <= m vectors of the largest inner products, (n, k) each, in any order. A score depends on
        the query and the vector alone; what is left out has at most NOISE more than the least of them."""
        step = max(1, _CELLS // len(self.vectors_ME))
        parts = [_largest(inner_NE[i : i + step] @ self.vectors_ME.T, k) for i in range(0, len(inner_NE), step)]
        places = np.concatenate([np.empty((0, k), np.int64), *parts])
        of, flat = np.repeat(np.arange(len(inner_NE)), k), places.ravel()
        scores = np.empty(len(flat), np.float32)
        for start in range(0, len(flat), _AT_ONCE):  # a matrix product sums in an order that varies with its size
            part = slice(start, start + _AT_ONCE)
            scores[part] = np.einsum("me,me->m", self.vectors_ME[flat[part]], inner_NE[of[part]])
        return scores.reshape(places.shape), places


def _decoded(spec: Spec, codes: Codes, rows_M: np.ndarray) -> np.ndarray:
    if not spec.can_decode:
        raise ValueError(f"{spec.factory} scores estimates, which are not those of a vector")
    fine = codes.base if codes.refine is None else codes.refine
    lists = isinstance(fine, faiss.IndexIVF)
    if lists:
        fine.make_direct_map()
    parts: Sequence[np.ndarray] = [
        fine.reconstruct_batch(np.ascontiguousarray(rows_M[i : i + _AT_ONCE], np.int64))
        for i in range(0, len(rows_M), _AT_ONCE)
    ]
    if lists:
        fine.make_direct_map(False)  # 8 bytes for each row of the shard
    return np.concatenate([np.empty((0, fine.d), np.float32), *parts])


def _largest(scores_NM: np.ndarray, k: int) -> np.ndarray:
    """Columns (n, k) of the k largest scores of each row: they are in the k stripes of the largest maxima."""
    n, m = scores_NM.shape
    if k == m:
        return np.broadcast_to(np.arange(m), (n, m))
    stripes = m // _STRIPE
    if stripes <= 4 * k:
        return np.argpartition(-scores_NM, k - 1, axis=1)[:, :k]
    whole = stripes * _STRIPE
    most = scores_NM[:, :whole].reshape(n, _STRIPE, stripes).max(axis=1)
    best = np.argpartition(-most, k - 1, axis=1)[:, :k]
    columns = (best[:, None, :] + stripes * np.arange(_STRIPE)[:, None]).reshape(n, -1)
    columns = np.concatenate([columns, np.broadcast_to(np.arange(whole, m), (n, m - whole))], axis=1)
    near = np.take_along_axis(scores_NM, columns, axis=1)
    return np.take_along_axis(columns, np.argpartition(-near, k - 1, axis=1)[:, :k], axis=1)
