"""What the index answers to the gate's queries, kept from night to night (``truth``), so that a night asks only what is new.

Where a row's score, and whether it is scanned, depend on the row, the query and the template alone, the answers of shards that
stay still hold without the rows that were dropped, down to the score where the stored ones ended; those of the layers that a
night built are scanned by the code that serves them. One in _AGAIN of the queries is asked of the whole index all the same: if
that answers any of them otherwise, all are.
"""

import logging
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids
from w2w.index.gate import EXACT, SPARE, search
from w2w.index.search import QUERY, Index
from w2w.index.spec import IndexConfig
from w2w.index.template import nearest_lists, set_threads, unit_vectors
from w2w.index.truth import FOUND, FOUND_BOUND, Known, beginning, flat_of
from w2w.schema import CATEGORY, IMAGE_ID, PRODUCT_ID, SCORE, VECTOR

log = logging.getLogger("w2w")

_AGAIN = 10
_NOISE = 2e-6  # of a score: its last digit depends on how many queries are asked at once


@dataclass(frozen=True)
class Answers:
    """Of Q queries: the first ``hits`` of ``gate.search`` (EXACT, by query and rank); others score at most ``bound_Q``, and
    inf tells nothing."""

    hits: pa.Table
    bound_Q: np.ndarray


def answers(
    index: Index, queries: pa.Table, queries_QD: np.ndarray, known: Known | None, cfg: IndexConfig, num_threads: int = 1
) -> Answers:
    """``known``: of the first of these queries."""
    num, width = queries.num_rows, cfg.recall_at + SPARE
    unit_QD = unit_vectors(queries_QD, index.manifest.dim)
    steady_Q = _steady(index, queries, unit_QD, width)
    kept, bound_Q, good_Q = EXACT.empty_table(), np.full(num, np.inf, np.float32), np.zeros(num, bool)
    if known is not None:
        bound_Q[: len(known.found_bound_Q)] = known.found_bound_Q
        fresh = _scanned(index, queries, unit_QD, known.fresh, width)
        kept, bound_Q = beginning([known.found, *fresh], bound_Q, width)
        kept = kept.filter(pc.greater(kept[SCORE], pa.array(bound_Q[kept[QUERY].to_numpy()])))
        own = queries[IMAGE_ID].take(kept[QUERY])
        others = kept.filter(pc.not_equal(kept[IMAGE_ID], own))[QUERY].to_numpy()
        good_Q = steady_Q & np.isfinite(bound_Q) & (np.bincount(others, minlength=num) >= cfg.recall_at)
    again = _some(index, np.flatnonzero(good_Q))
    asked_Q = ~good_Q
    asked_Q[again] = True
    hits = search(index, queries, queries_QD, cfg, num_threads, np.flatnonzero(asked_Q))
    if not all(_alike(*(_of(table, q) for table in (kept, hits))) for q in again):
        log.warning("index %s answers otherwise than its shards did: all of the gate's queries are asked", index.manifest.name)
        asked_Q[:] = True
        hits = search(index, queries, queries_QD, cfg, num_threads)
    of = hits[QUERY].to_numpy()
    bound_Q[asked_Q] = np.inf
    full = np.flatnonzero((np.bincount(of, minlength=num) == width) & steady_Q)
    bound_Q[full] = hits[SCORE].to_numpy()[np.searchsorted(of, full, "right") - 1]
    there = pa.concat_tables([kept.filter(pa.array(~asked_Q[kept[QUERY].to_numpy()])), hits])
    order = np.argsort(there[QUERY].to_numpy(), kind="stable")
    return Answers(there.take(pa.array(order)).combine_chunks(), bound_Q)


def _some(index: Index, queries: np.ndarray) -> np.ndarray:
    """Others each night."""
    rng = np.random.default_rng(int(ids.digest(index.manifest.version), 16))
    return np.sort(rng.choice(queries, -(-len(queries) // _AGAIN), replace=False))


def _of(hits: pa.Table, query: int) -> list[tuple[str, str, float]]:
    of = hits[QUERY].to_numpy()
    mine = hits.slice(low := int(np.searchsorted(of, query)), int(np.searchsorted(of, query, "right")) - low)
    return list(zip(*(mine[name].to_pylist() for name in (PRODUCT_ID, IMAGE_ID, SCORE))))


def _alike(kept: list[tuple[str, str, float]], hits: list[tuple[str, str, float]]) -> bool:
    """Whether what is kept is the beginning of the hits, where scores differ."""
    if len(hits) < len(kept) or any(abs(one[2] - other[2]) > _NOISE for one, other in zip(kept, hits)):
        return False
    least = kept[-1][2] + 2 * _NOISE  # which of several at the end are there may differ
    return {hit[:2] for hit in kept if hit[2] > least} <= {hit[:2] for hit in hits}


def _steady(index: Index, queries: pa.Table, unit_QD: np.ndarray, width: int) -> np.ndarray:
    """bool (Q,): queries that scan the same rows however many of these are in other shards, or dropped: all rows, or so many
    that no further lists are scanned."""
    steady_Q = np.zeros(queries.num_rows, bool)
    for category in index.manifest.rows_by_category():
        mine = np.flatnonzero(pc.equal(queries[CATEGORY], category).to_numpy(zero_copy_only=False))
        shards = [s for s in index.shards if s.info.category == category and not s.info.layer]
        if not len(mine) or not shards:
            continue
        template = index.templates[shards[0].info.template]
        spec = template.spec
        lists = nearest_lists(template, template.inner(unit_QD[mine]), max(1, spec.nprobe)) if spec.is_steady else None
        if lists is not None:
            sizes_SL = np.array([[s.codes.base.invlists.list_size(i) for i in range(spec.num_lists)] for s in shards])
            dropped = sum(s.info.num_rows - s.info.num_there for s in shards)
            steady_Q[mine] = sizes_SL.sum(axis=0)[lists[1]].sum(axis=1) - dropped >= width
        else:
            steady_Q[mine] = spec.is_steady
    return steady_Q


def _scanned(index: Index, queries: pa.Table, unit_QD: np.ndarray, fresh: frozenset[str], width: int) -> list[pa.Table]:
    """What the queries find (EXACT) in shards that were built tonight."""
    set_threads(1)
    found = []
    for number, shard in enumerate(index.shards):
        mine = np.flatnonzero(pc.equal(queries[CATEGORY], shard.info.category).to_numpy(zero_copy_only=False))
        if shard.info.name not in fresh or not len(mine):
            continue
        scanned = index.scan(unit_QD[mine], width, 1, [(number,)])
        of, at = np.nonzero(np.isfinite(scanned.scores))
        rows = shard.rows.take(pa.array(scanned.rows[of, at]))
        columns = [mine[of], rows[PRODUCT_ID], rows[IMAGE_ID], scanned.scores[of, at]]
        found.append(pa.table(columns, names=EXACT.names).cast(EXACT))
    return found


def kept_for(truth: pa.Table, queries: pa.Table, k: int) -> pa.Table:
    """The first ``k`` products, each with its best picture (EXACT, by query and rank), of those queries (as ``seen.SEEN``) that
    are the gate's, too, and of which so many are known."""
    of_gate = {key: n for n, key in enumerate(zip(*(truth[c].to_pylist() for c in _NAMES)))}
    number = [of_gate.get(key, -1) for key in zip(*(queries[c].to_pylist() for c in _NAMES))]
    vectors = [np.asarray(some[VECTOR].combine_chunks().flatten()) for some in (truth, queries)]
    if not len(vectors[1]) or vectors[0].size * queries.num_rows != vectors[1].size * truth.num_rows:
        return EXACT.empty_table()
    truth_ND, queries_QD = (v.reshape(some.num_rows, -1) for v, some in zip(vectors, (truth, queries)))
    query_N = np.full(truth.num_rows, -1)
    for query, n in enumerate(number):
        if n >= 0 and np.array_equal(truth_ND[n], queries_QD[query]):
            query_N[n] = query
    hits = flat_of(truth, FOUND)
    of = hits[QUERY].to_numpy()
    known = (query_N[of] >= 0) & (hits[SCORE].to_numpy() > truth[FOUND_BOUND].to_numpy()[of])
    hits, of = hits.filter(pa.array(known)), query_N[of[known]]
    product = hits[PRODUCT_ID].combine_chunks().dictionary_encode().indices.to_numpy()
    first = np.sort(np.unique(of * (len(hits) + 1) + product, return_index=True)[1])
    first = first[np.argsort(of[first], kind="stable")]
    of = of[first]
    place = np.arange(len(of)) - np.searchsorted(of, np.arange(queries.num_rows))[of]
    keep = (place < k) & (np.bincount(of, minlength=queries.num_rows) >= k)[of]
    hits = hits.take(pa.array(first[keep]))
    return hits.set_column(0, QUERY, pa.array(of[keep], pa.int32()))


_NAMES = (PRODUCT_ID, IMAGE_ID, CATEGORY)
