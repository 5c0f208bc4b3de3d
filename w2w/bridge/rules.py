"""The map of a bridge: candidates are fitted to one part of a sample, the best is chosen on a second and measured on a third.

Rows are pictures: unit vectors ``new_ND`` of the new model and ``old_ND`` of the one before, D differing. Two kinds of maps:

- orthogonal: the rotation that brings centred new vectors nearest to the old ones (Schönemann 1966, "A generalized solution of
  the orthogonal Procrustes problem"). Lengths that differ are as if the shorter vectors ended in zeros.
- affine: linear regression with a ridge (Hoerl and Kennard 1970), of full or reduced rank (Izenman 1975); as the low-rank
  affine adapter of Drift-Adapter (arXiv 2509.23471), but solved instead of learnt.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from w2w import ids
from w2w.errors import UsageError
from w2w.metrics.retrieval import bootstrap
from w2w.results import Figure

FIT, VAL, TEST = 0, 1, 2
K = 10  # neighbours
LEAST_PICTURES = 120
_SHARES = (0.5, 0.75)  # of products: fitted to, and those to choose by
_RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # per row
_RANK_PARTS = (1, 2, 8)  # full rank, a half, an eighth
_CLOSE = 1e-6  # cosines that differ by less are ties
_AT_ONCE = 512  # queries
_MOST_ASKED = 2000


@dataclass(frozen=True)
class Map:
    """x -> x @ matrix + bias. ``name``: its kind and settings."""

    name: str
    matrix: np.ndarray = field(repr=False)
    bias: np.ndarray = field(repr=False)

    def __call__(self, new_ND: np.ndarray) -> np.ndarray:
        """float32 (N, D_old) of length 1."""
        mapped_ND = (new_ND @ self.matrix + self.bias).astype(np.float32)
        return mapped_ND / np.maximum(np.linalg.norm(mapped_ND, axis=1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class Fitted:
    """The chosen map, fitted anew to all rows but the test's. ``tried``: the recall by which each candidate was judged."""

    map: Map
    tried: dict[str, float]


def parts_of(products: pa.Array | pa.ChunkedArray, seed: int) -> np.ndarray:
    """FIT, VAL or TEST of each row, int8 (N,): pictures of one product are in one part."""
    share_N = (ids.hash_keys(products) ^ np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)) % np.uint64(10_007) / 10_007
    return np.digitize(share_N, _SHARES).astype(np.int8)


def check_sample(parts_N: np.ndarray) -> None:
    """Raises UsageError for fewer pictures than a map can be fitted to and measured on."""
    if len(parts_N) < LEAST_PICTURES or min(np.bincount(parts_N, minlength=3)) < 2 * K:
        raise UsageError(
            f"a bridge needs at least {LEAST_PICTURES} pictures of different products with vectors of both models; there are "
            f"{len(parts_N):,}"
        )


def fit(new_ND: np.ndarray, old_ND: np.ndarray, parts_N: np.ndarray) -> Fitted:
    """The candidate that keeps most of the old vectors' neighbours on the validation rows; the simpler one of equals."""
    known, asked = parts_N == FIT, np.flatnonzero(parts_N == VAL)
    made = [
        (one.name, _recall(one(new_ND[asked]), old_ND, old_ND, asked).mean())
        for one in _candidates(new_ND[known], old_ND[known])
    ]
    best = max(range(len(made)), key=lambda n: round(made[n][1], 3))
    known = parts_N != TEST
    chosen = next(itertools.islice(_candidates(new_ND[known], old_ND[known]), best, None))  # its rank may be one of more rows
    return Fitted(chosen, {name: float(recall) for name, recall in made})


def _candidates(new_ND: np.ndarray, old_ND: np.ndarray) -> Iterator[Map]:
    """The simplest first."""
    new_ND, old_ND = new_ND.astype(np.float64), old_ND.astype(np.float64)
    new_D, old_D = new_ND.mean(0), old_ND.mean(0)
    a_ND, b_ND = new_ND - new_D, old_ND - old_D
    cross_DD = a_ND.T @ b_ND
    left, _, right = np.linalg.svd(cross_DD, full_matrices=False)
    rotation = left @ right
    yield _map("orthogonal", rotation, old_D - new_D @ rotation)
    spread_D, basis_DD = np.linalg.eigh(a_ND.T @ a_ND)
    spread_D, seen_DD = np.maximum(spread_D, 0), basis_DD.T @ cross_DD
    most = min(*cross_DD.shape, len(new_ND) - 1)
    ranks = [most // part for part in reversed(_RANK_PARTS) if most // part]
    for ridge in reversed(_RIDGES):
        whole_DD = seen_DD / (spread_D + ridge * len(new_ND))[:, None]
        # the best approximation of a lower rank keeps the largest principal axes of what is predicted
        _, _, axes = np.linalg.svd(np.sqrt(spread_D)[:, None] * whole_DD, full_matrices=False)
        for rank in ranks:
            top = axes[:rank]
            matrix = basis_DD @ (whole_DD @ top.T @ top if rank < most else whole_DD)
            yield _map(f"affine, rank {rank}, ridge {ridge:g}", matrix, old_D - new_D @ matrix)


def _map(name: str, matrix: np.ndarray, bias: np.ndarray) -> Map:
    return Map(name, matrix.astype(np.float32), bias.astype(np.float32))


def measure(
    made: Map, new_ND: np.ndarray, old_ND: np.ndarray, parts_N: np.ndarray, products: pa.Array | pa.ChunkedArray, seed: int
) -> dict[str, Figure]:
    """Recall@10 on the test rows, whose products were not fitted to, among the pictures of the whole sample; intervals by
    products.

    - ``of old``: neighbours in the old space, found by the mapped new vector, of those found by the old vector
    - ``of new``: the same, of the exact neighbours in the new space
    - ``old of new``: what the old vector itself finds of those in the new space
    - ``with new products``: neighbours found by old vectors where the test rows' own are mapped ones, of those before
    """
    test = np.flatnonzero(parts_N == TEST)[:_MOST_ASKED]
    others = np.flatnonzero(parts_N != TEST)[:_MOST_ASKED]
    mapped_TD = made(new_ND[test])
    mixed_ND = old_ND.copy()
    mixed_ND[test] = mapped_TD
    found = {
        "of old": (_recall(mapped_TD, old_ND, old_ND, test), test),
        "of new": (_recall(mapped_TD, old_ND, new_ND, test), test),
        "old of new": (_recall(old_ND[test], old_ND, new_ND, test), test),
        "with new products": (_recall(old_ND[others], mixed_ND, old_ND, others), others),
    }
    codes = np.unique(np.asarray(products.to_pylist()), return_inverse=True)[1]
    figures = {}
    for name, (recall_Q, rows) in found.items():
        low, high = bootstrap(recall_Q, np.random.default_rng(seed), codes[rows])
        figures[name] = Figure(float(recall_Q.mean()), low, high, len(rows))
    return figures


def _recall(asked_QD: np.ndarray, gallery_ND: np.ndarray, truth_NE: np.ndarray, rows_Q: np.ndarray) -> np.ndarray:
    """Of each query, the share of its K nearest in the gallery that are among its K nearest by ``truth_NE``, float64 (Q,). The
    queries are the rows ``rows_Q``, which do not find themselves; ties with the last of the K count as found."""
    found = []
    for start in range(0, len(rows_Q), _AT_ONCE):
        mine = rows_Q[start : start + _AT_ONCE]
        itself = np.arange(len(mine)), mine
        scores_QN, true_QN = asked_QD[start : start + _AT_ONCE] @ gallery_ND.T, truth_NE[mine] @ truth_NE.T
        scores_QN[itself] = true_QN[itself] = -np.inf
        nearest = np.argpartition(-scores_QN, K - 1, axis=1)[:, :K]
        last = -np.partition(-true_QN, K - 1, axis=1)[:, K - 1]
        found.append((np.take_along_axis(true_QN, nearest, 1) >= last[:, None] - _CLOSE).mean(1))
    return np.concatenate(found)
