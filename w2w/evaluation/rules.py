"""Ranking a gallery for queries, hits, and the figures of a protocol. Arrow and NumPy in, NumPy and figures out.

Axes: Q queries, G pictures of the gallery, K ranks, D dimensions. A side of a search is a table with a column OWNER (of the
vectors), and the attributes that a protocol uses.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.evaluation.protocols import Hit, Retrieval
from w2w.metrics.retrieval import ALL, METRICS_SCHEMA, by_group, interval, ndcg_at_k, recall_at_k, resampled

OWNER = schema.OWNER_ID
MACRO = "macro"
_SCORES = 1 << 24  # scores computed at once


def nearest(queries_QD: np.ndarray, gallery_GD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the k pictures with the highest inner product, best first, and their scores: (Q, K) each, exact. Ties are in
    gallery order."""
    k, size = min(k, len(gallery_GD)), max(1, _SCORES // max(1, len(gallery_GD)))
    places, scores = np.empty((len(queries_QD), k), np.int64), np.empty((len(queries_QD), k), np.float32)
    for start in range(0, len(queries_QD) if k else 0, size):
        found = queries_QD[start : start + size] @ gallery_GD.T
        least = np.partition(found, found.shape[1] - k, axis=1)[:, found.shape[1] - k]
        for row, (one, edge) in enumerate(zip(found, least), start):
            at = np.flatnonzero(one >= edge)
            order = np.argsort(-one[at], kind="stable")[:k]
            places[row], scores[row] = at[order], one[at][order]
    return places, scores


@dataclass(frozen=True)
class Ranked:
    """The results of a search. ``queries`` and ``gallery``: sides whose rows all have vectors, the gallery grouped;
    ``found_QK``: rows of the gallery, -1 after the last; ``spans_Q2``: start and end row of the query's gallery."""

    queries: pa.Table
    gallery: pa.Table
    found_QK: np.ndarray
    scores_QK: np.ndarray
    groups_Q: np.ndarray
    spans_Q2: np.ndarray

    def __len__(self) -> int:
        return self.queries.num_rows


Vectors = Callable[[pa.Table, str], tuple[pa.Table, np.ndarray]]  # a side, which one -> its rows that have vectors, and these


def rank(protocol: Retrieval, queries: pa.Table, gallery: pa.Table, vectors: Vectors) -> Ranked:
    """Ranks the gallery of every query. Holds the vectors of one gallery at a time."""
    asked, looked, found, scores, groups, spans, start = [], [], [], [], [], [], 0
    for group, mine, others in _galleries(protocol, queries, gallery):
        (mine, queries_QD), (others, gallery_GD) = vectors(mine, "queries"), vectors(others, "gallery")
        places, values = nearest(queries_QD, gallery_GD, protocol.most)
        rest = ((0, 0), (0, protocol.most - places.shape[1]))
        found.append(np.pad(places + start, rest, constant_values=-1))
        scores.append(np.pad(values, rest, constant_values=-np.inf))
        names = mine.column(schema.CATEGORY).to_pylist() if group is None else [group] * mine.num_rows
        groups.append(np.array([name or "" for name in names], dtype=object))
        asked.append(mine)
        looked.append(others)
        spans.append(np.tile([start, start + others.num_rows], (mine.num_rows, 1)))
        start += others.num_rows
    empty = np.empty((0, protocol.most))
    return Ranked(
        pa.concat_tables([queries.slice(0, 0), *asked]),
        pa.concat_tables([gallery.slice(0, 0), *looked]),
        np.concatenate([empty.astype(np.int64), *found]),
        np.concatenate([empty.astype(np.float32), *scores]),
        np.concatenate([np.empty(0, object), *groups]),
        np.concatenate([np.empty((0, 2), np.int64), *spans]),
    )


def _galleries(protocol: Retrieval, queries: pa.Table, gallery: pa.Table) -> Iterator[tuple[str | None, pa.Table, pa.Table]]:
    """(group, its queries, its gallery): a single one if the protocol has no ``within``."""
    if protocol.within is None:
        yield None, queries, gallery
        return
    theirs = gallery.column(protocol.within)
    for group in sorted(set(queries.column(protocol.within).to_pylist()) - {None}):
        mine = queries.filter(pc.equal(queries.column(protocol.within), group))
        yield group, mine, gallery.filter(pc.fill_null(pc.equal(theirs, group), True))


def relevant(ranked: Ranked, hit: Hit) -> tuple[np.ndarray, np.ndarray]:
    """(bool (Q, K): which results are hits; (Q,): number of hits in the query's gallery)."""
    codes: dict[tuple, int] = {}
    asked, there = (_codes(side, hit.same, codes) for side in (ranked.queries, ranked.gallery))
    found = np.where(ranked.found_QK >= 0, there[ranked.found_QK] if len(there) else -1, -1)
    num = np.zeros(len(ranked), np.int64)
    for start, stop in np.unique(ranked.spans_Q2, axis=0):
        inside = there[start:stop]
        counts = np.append(np.bincount(inside[inside >= 0], minlength=len(codes)), 0)  # the last: of code -1
        mine = (ranked.spans_Q2 == (start, stop)).all(axis=1)
        num[mine] = counts[asked[mine]]
    return (found == asked[:, None]) & (found >= 0), num


def sought(ranked: Ranked, hit: Hit) -> np.ndarray:
    """(Q,): the first row of each query's gallery that is a hit, -1 if there is none."""
    codes: dict[tuple, int] = {}
    asked, there = (_codes(side, hit.same, codes) for side in (ranked.queries, ranked.gallery))
    result = np.full(len(ranked), -1, np.int64)
    for start, stop in np.unique(ranked.spans_Q2, axis=0):
        names, first = np.unique(there[start:stop], return_index=True)
        place = dict(zip(names.tolist(), (first + start).tolist()))
        for q in np.flatnonzero((ranked.spans_Q2 == (start, stop)).all(axis=1) & (asked >= 0)):
            result[q] = place.get(int(asked[q]), -1)
    return result


def _codes(side: pa.Table, names: Sequence[str], codes: dict[tuple, int]) -> np.ndarray:
    """(N,): a number for each combination of values, the same in all calls with these ``codes``; -1 if one is unknown."""
    keys = zip(*(side.column(name).to_pylist() for name in names))
    return np.array([-1 if None in key else codes.setdefault(key, len(codes)) for key in keys], np.int64)


def values(protocol: Retrieval, ranked: Ranked) -> dict[tuple[str, int], np.ndarray]:
    """(metric, k) -> a number per query. A query without an answer in the gallery is a miss, as in the published code."""
    result = {}
    for hit in protocol.hits:
        hits_QK, num_Q = relevant(ranked, hit)
        for k in hit.ks:
            ndcg = hit.metric.endswith("nDCG")
            result[hit.metric, k] = ndcg_at_k(hits_QK, num_Q, k) if ndcg else recall_at_k(hits_QK, k)
    return result


def figures(protocol: Retrieval, ranked: Ranked, rng: np.random.Generator) -> pa.Table:
    """METRICS_SCHEMA: means over all queries and over each group, intervals clustered as the protocol says; and with ``macro``
    the means of the groups' means."""
    found = values(protocol, ranked)
    clusters_Q = np.array([c or "" for c in ranked.queries.column(protocol.clusters).to_pylist()], dtype=str)
    table = by_group(found, ranked.groups_Q, rng, clusters_Q)
    names = sorted(set(ranked.groups_Q.tolist()))
    if not protocol.macro or not names:
        return table
    rows = []
    for (metric, k), values_Q in found.items():
        inside = [ranked.groups_Q == name for name in names]
        means = np.mean([resampled(values_Q[i], rng, clusters_Q[i]) for i in inside], axis=0)
        mean = float(np.mean([values_Q[i].mean() for i in inside]))
        rows.append((ALL, f"{MACRO} {metric}", k, mean, *interval(means), len(ranked)))
    more = pa.Table.from_pydict(dict(zip(METRICS_SCHEMA.names, zip(*rows))), schema=METRICS_SCHEMA)
    return pa.concat_tables([table, more])


def data_digest(queries: Sequence[str], gallery: Sequence[str]) -> str:
    """Of queries and gallery: figures with different digests are not comparable."""
    return ids.digest(ids.digest_rows([sorted(queries)]), ids.digest_rows([sorted(gallery)]))


def mean_cosines(vectors_NSD: np.ndarray, there_NS: np.ndarray) -> np.ndarray:
    """(N,): mean cosine of all pairs of an outfit's items, from unit vectors that are zero for missing items; -inf for fewer
    than two items."""
    many_N = there_NS.sum(axis=1)
    pairs_N = many_N * (many_N - 1)
    sums_N = np.square(vectors_NSD.sum(axis=1)).sum(axis=1) - np.square(vectors_NSD).sum(axis=(1, 2))
    return np.where(pairs_N > 0, sums_N / np.maximum(pairs_N, 1), -np.inf)
