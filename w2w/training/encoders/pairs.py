"""Pairs for training an encoder: batches, and retrieval figures of vectors."""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.images.decode import DecodeLimits
from w2w.metrics.retrieval import recall_at_k, reciprocal_rank
from w2w.training.encoders.config import LearnConfig

KS = (1, 5, 10, 20)
FIGURES = (*(f"Recall@{k}" for k in KS), "MRR")
SHRUNK = DecodeLimits(min_side_px=1)  # a long picture that was shrunk may be a few pixels wide
_RANKS = 1000  # of the gallery considered for the reciprocal rank


@dataclass(frozen=True)
class Listing:
    """Pairs as numbers, sorted by pair_id: products, clusters of near-duplicate pictures and categories are codes from 0,
    indices into their names."""

    rows: pa.Table  # of table `pairs`
    products_N: np.ndarray
    clusters_N: np.ndarray
    categories_N: np.ndarray
    names: tuple[str, ...]  # of the categories
    products: np.ndarray
    clusters: np.ndarray

    def __len__(self) -> int:
        return self.rows.num_rows

    def take(self, chosen_N: np.ndarray) -> "Listing":
        """These pairs, keeping their codes."""
        codes = {k: getattr(self, k)[chosen_N] for k in ("products_N", "clusters_N", "categories_N")}
        return replace(self, rows=self.rows.take(pa.array(chosen_N)), **codes)

    def shares(self) -> np.ndarray:
        """Each category's share of the products."""
        _, first = np.unique(self.products_N, return_index=True)
        counts = np.bincount(self.categories_N[first], minlength=len(self.names))
        return counts / counts.sum()

    def of_rank(self, rank: int, num_workers: int) -> "Listing":
        """The pairs of every ``num_workers``-th product: no product is in two processes."""
        return self.take(np.flatnonzero(self.products_N % num_workers == rank))


def listing(rows: pa.Table, clusters: pa.Table | None = None) -> Listing:
    """From rows of table `pairs`. ``clusters``: image_id and cluster_id of table `duplicates`; other pictures are alone."""
    rows = rows.sort_by(schema.PAIR_ID)
    images = rows.column(schema.IMAGE_ID).combine_chunks()
    if clusters is not None and clusters.num_rows:
        at = pc.index_in(images, value_set=clusters.column(schema.IMAGE_ID).combine_chunks())
        images = pc.coalesce(clusters.column(schema.CLUSTER_ID).combine_chunks().take(at), images)
    names, categories_N = _coded(rows.column(schema.CATEGORY))
    (products, products_N), (clusters, clusters_N) = _coded(rows.column(schema.PRODUCT_ID)), _coded(images)
    return Listing(rows, products_N, clusters_N, categories_N, tuple(names.tolist()), products, clusters)


def _coded(values) -> tuple[np.ndarray, np.ndarray]:
    return np.unique(values.to_numpy(zero_copy_only=False).astype(str), return_inverse=True)


@dataclass(frozen=True)
class Row:
    """A pair: encoded pictures, or vectors. ``negatives``: the mined ones, each with its product and cluster; ``negative`` is
    the one drawn for the batch."""

    anchor: Any
    positive: Any
    product: int
    cluster: int
    negatives: tuple[tuple[Any, int, int], ...] = ()
    negative: Any = None
    negative_product: int = -1
    negative_cluster: int = -1

    def with_negative(self, rng: np.random.Generator) -> "Row":
        """With one of its mined negatives; without any, its own positive, which does not count as a negative of its anchor."""
        mined = self.negatives or ((self.positive, self.product, self.cluster),)
        picture, product, cluster = mined[int(rng.integers(len(mined)))]
        return replace(self, negative=picture, negative_product=product, negative_cluster=cluster)


class PairBatches:
    """Batches of one process: distinct products with a random pair of each, all of one category or of any.

    Whether a batch has one category, and which, is the same in every process, and so is the size.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        categories_N: np.ndarray,
        shares_C: np.ndarray,
        config: LearnConfig,
        num_batches: int,
        seed: int,
        rank: int = 0,
    ):
        self._rows, self._shares, self._config = rows, shares_C, config
        self._num_batches, self._seed, self._rank = num_batches, seed, rank
        self._pairs: dict[int, list[int]] = {}
        pools: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            if row.product not in self._pairs:
                pools.setdefault(int(categories_N[i]), []).append(row.product)
            self._pairs.setdefault(row.product, []).append(i)
        self._everything = np.array(sorted(self._pairs))
        self._pools = {c: np.array(sorted(p)) for c, p in pools.items()}

    def __call__(self, number: int) -> list[Row]:
        together = np.random.default_rng([self._seed, number])
        first, last = self._config.same_category
        share = first + (last - first) * number / max(1, self._num_batches - 1)
        pool = self._everything
        if together.random() < share:
            pool = self._pools.get(int(together.choice(len(self._shares), p=self._shares)), pool)
        own = np.random.default_rng([self._seed, number, self._rank])
        products = _draw(pool, self._everything, self._config.batch_pairs, own)
        rows = [self._rows[self._pairs[p][int(own.integers(len(self._pairs[p])))]] for p in products]
        return [r.with_negative(own) for r in rows] if self._config.negatives else rows


def _draw(pool: np.ndarray, everything: np.ndarray, size: int, rng: np.random.Generator) -> list[int]:
    """``size`` products of the pool; if it has fewer, others as well; if there are too few in all, repeats."""
    found = rng.permutation(pool)[:size]
    if len(found) < size:
        others = rng.permutation(np.setdiff1d(everything, found))
        found = np.concatenate([found, others[: size - len(found)]])
    if len(found) < size:
        found = np.concatenate([found, rng.choice(everything, size - len(found))])
    return found.tolist()


def gallery(rows: Sequence[Row]) -> tuple[list[Any], list[set[int]]]:
    """The distinct positives of these pairs, and the products that each of them shows."""
    pictures = {id(r.positive): r.positive for r in rows}
    shown: dict[int, set[int]] = {p: set() for p in pictures}
    for r in rows:
        shown[id(r.positive)].add(r.product)
    return list(pictures.values()), list(shown.values())


def relevance(
    anchors_QD: np.ndarray, gallery_GD: np.ndarray, products_Q: Sequence[Hashable], shown_G: Sequence[Collection[Hashable]]
) -> np.ndarray:
    """bool (Q, K): as ``ranked``."""
    return ranked(anchors_QD, gallery_GD, products_Q, shown_G)[0]


def ranked(
    anchors_QD: np.ndarray, gallery_GD: np.ndarray, products_Q: Sequence[Hashable], shown_G: Sequence[Collection[Hashable]]
) -> tuple[np.ndarray, np.ndarray]:
    """(bool (Q, K): whether the gallery's k-th nearest picture shows the anchor's product; int (Q, K): which picture that is).
    ``shown_G``: the products of each picture. Exact, by cosine."""
    ranks = min(_RANKS, len(gallery_GD))
    pictures_of: dict[Hashable, list[int]] = {}
    for picture, shown in enumerate(shown_G):
        for product in shown:
            pictures_of.setdefault(product, []).append(picture)
    result = np.zeros((len(anchors_QD), ranks), bool)
    found = np.zeros((len(anchors_QD), ranks), np.int64)
    for start in range(0, len(anchors_QD), 1024):
        scores = anchors_QD[start : start + 1024] @ gallery_GD.T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :ranks]
        found[start : start + 1024] = order
        for row, product in enumerate(products_Q[start : start + 1024]):
            result[start + row] = np.isin(order[row], pictures_of.get(product, []))
    return result, found


def figures(relevant_QK: np.ndarray) -> dict[str, float]:
    """FIGURES: means over the queries."""
    values = [*(recall_at_k(relevant_QK, k) for k in KS), reciprocal_rank(relevant_QK)]
    return {name: float(v.mean()) for name, v in zip(FIGURES, values)}
