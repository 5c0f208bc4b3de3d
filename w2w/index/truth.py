"""The gate's queries and their exact neighbours, kept from night to night.

The exact neighbours of a query are the beginning of the order of all rows. Of a category whose shards stay (``layers``), only
the layer has rows that were not there: what is stored, without the rows that were dropped, and the exact neighbours among the
layer's rows together are again a beginning, down to the score where the stored one ended. So the gate of a night reads the
vectors of the layers, and those of a whole category only where it was built anew or too few neighbours are known. In the same
way what the index found is kept (``answers``).
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import storage
from w2w.index import manifest as m
from w2w.index.gate import EXACT, SPARE, gate_queries
from w2w.index.manifest import Manifest
from w2w.index.rows import Rows
from w2w.index.search import QUERY
from w2w.index.shard import ROWS, ShardTask
from w2w.index.spec import IndexConfig
from w2w.schema import CATEGORY, IMAGE_ID, PRODUCT_ID, SCORE, VECTOR

NEIGHBOURS, BOUND = "neighbours", "bound"
FOUND, FOUND_BOUND = "found", "found_bound"
_ROW = [(PRODUCT_ID, pa.string()), (IMAGE_ID, pa.string())]
_NEIGHBOUR = pa.struct([*_ROW, (SCORE, pa.float32())])
# bound: rows that are not among the neighbours have at most this score; -inf: there are none; found: as the index finds
# them, by scores of its codes; found_bound: theirs; inf: it cannot be told
TRUTH = pa.schema(
    [
        *_ROW,
        (CATEGORY, pa.string()),
        (VECTOR, pa.list_(pa.float32())),
        (NEIGHBOURS, pa.list_(_NEIGHBOUR)),
        (BOUND, pa.float32()),
        (FOUND, pa.list_(_NEIGHBOUR)),
        (FOUND_BOUND, pa.float32()),
    ]
)
_LISTS = (NEIGHBOURS, FOUND)
_LEFT = 8  # neighbours beyond recall_at that must be known
_QUERIES_LEFT = 0.8  # of those that a category would have; with fewer, they are drawn anew


@dataclass(frozen=True)
class Known:
    """Queries (product_id, image_id, category) with their vectors (Q, D), what is known of their neighbours, and the bounds
    (Q,); ``found`` and ``found_bound_Q``: the same of what the index found. ``categories``: those whose neighbours need to be
    sought among the layer's rows alone, in the shards ``fresh``."""

    queries: pa.Table
    vectors_QD: np.ndarray
    exact: pa.Table
    bound_Q: np.ndarray
    found: pa.Table
    found_bound_Q: np.ndarray
    categories: frozenset[str]
    fresh: frozenset[str]


def known_of(stored: pa.Table | None, tasks: Sequence[ShardTask], rows: pa.Table | Rows, cfg: IndexConfig) -> Known | None:
    """What of the stored truth still holds for an index of these shards and rows (product_id, image_id, category). None if
    nothing does."""
    if stored is None or not stored.num_rows:
        return None
    rows, kept, found = Rows.of(rows), [], []
    counts = rows.counts
    for category in sorted(set(stored[CATEGORY].to_pylist()) & counts.keys()):
        mine = [t for t in tasks if t.category == category]
        if any(t.kept is None and not t.layer for t in mine):
            continue
        there = _without(stored, category, mine, rows)
        enough = np.array([n >= min(cfg.recall_at + _LEFT, counts[category]) for n in _lengths(there)])
        whole = np.isneginf(there[BOUND].to_numpy())
        queries = min(counts[category], cfg.gate_queries)
        if there.num_rows >= _QUERIES_LEFT * queries and (enough | whole).all():
            kept.append(there)
            found.append(category)
    if not found:
        return None
    truth = pa.concat_tables(kept).combine_chunks()
    vectors = truth[VECTOR].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(truth.num_rows, -1)
    return Known(
        truth.select([PRODUCT_ID, IMAGE_ID, CATEGORY]),
        vectors,
        flat_of(truth),
        truth[BOUND].to_numpy(),
        flat_of(truth, FOUND),
        truth[FOUND_BOUND].to_numpy(),
        frozenset(found),
        frozenset(t.name for t in tasks if not t.kept and t.category in found),
    )


def _without(stored: pa.Table, category: str, tasks: Sequence[ShardTask], rows: Rows) -> pa.Table:
    """The category's queries that are still rows, and of their neighbours those that are still in a kept shard."""
    mine = stored.filter(pc.equal(stored[CATEGORY], category)).combine_chunks()
    listed = [mine[name].combine_chunks().flatten() for name in _LISTS]
    images = [mine[IMAGE_ID].combine_chunks(), *(pc.struct_field(flat, IMAGE_ID) for flat in listed)]
    there = rows.having(images=pc.unique(pa.concat_arrays(images)))
    there = there.filter(pc.equal(there[CATEGORY], category))
    mine = mine.filter(pc.is_in(_keys(mine), value_set=_keys(there))).combine_chunks()
    fresh = pa.concat_tables([ROWS.empty_table(), *(t.rows for t in tasks if not t.kept)])
    for name in _LISTS:
        lists = mine[name].combine_chunks()
        flat, of = lists.flatten(), pc.list_parent_indices(lists).to_numpy()
        key = pc.binary_join_element_wise(pc.struct_field(flat, IMAGE_ID), pc.struct_field(flat, PRODUCT_ID), " ")
        stays = pc.and_not(pc.is_in(key, value_set=_keys(there)), pc.is_in(key, value_set=_keys(fresh)))
        left = _lists(flat.filter(stays), of[stays.to_numpy(zero_copy_only=False)], mine.num_rows)
        mine = mine.set_column(mine.schema.get_field_index(name), name, left)
    return mine


def _lists(entries: pa.Array, of: np.ndarray, num: int) -> pa.Array:
    """``of``: the list of each entry, ascending, among so many."""
    offsets = np.concatenate([[0], np.cumsum(np.bincount(of, minlength=num))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), entries).cast(pa.list_(_NEIGHBOUR))


def _keys(rows: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(rows[IMAGE_ID], rows[PRODUCT_ID], " ")


def _lengths(truth: pa.Table) -> list[int]:
    return pc.list_value_length(truth[NEIGHBOURS]).to_pylist()


def flat_of(truth: pa.Table, column: str = NEIGHBOURS) -> pa.Table:
    """As EXACT."""
    lists = truth[column].combine_chunks()
    columns = [pc.struct_field(lists.flatten(), name) for name in (PRODUCT_ID, IMAGE_ID, SCORE)]
    return pa.table([pc.list_parent_indices(lists), *columns], names=EXACT.names).cast(EXACT)


def queries_of(rows: pa.Table | Rows, known: Known | None, cfg: IndexConfig) -> pa.Table:
    """The gate's queries: the known ones, and those of the other categories behind them."""
    rows = Rows.of(rows)
    if known is None:
        return gate_queries(rows.all, cfg)
    if not rows.counts.keys() - known.categories:
        return known.queries.combine_chunks()
    others = rows.all.filter(pc.invert(pc.is_in(rows.all[CATEGORY], value_set=pa.array(sorted(known.categories)))))
    more = [gate_queries(others, cfg).cast(known.queries.schema)] if others.num_rows else []
    return pa.concat_tables([known.queries, *more]).combine_chunks()


def truth_of(
    queries: pa.Table, queries_QD: np.ndarray, parts: Iterable[pa.Table], known: Known | None, cfg: IndexConfig
) -> pa.Table:
    """TRUTH of the queries, of which nothing is found yet: from what is known, and the exact neighbours (EXACT) that were found
    in parts of the rows."""
    num = queries.num_rows
    bound_Q = np.full(num, np.nan, np.float32)
    if known is not None:
        bound_Q[: len(known.bound_Q)] = known.bound_Q
        parts = [known.exact, *parts]
    exact, bound_Q = beginning(parts, bound_Q, cfg.recall_at + SPARE)
    dims = np.arange(num + 1, dtype=np.int32) * queries_QD.shape[1]
    vectors = pa.ListArray.from_arrays(pa.array(dims), pa.array(queries_QD.astype(np.float32).ravel()))
    columns = [*(queries[name] for name in (PRODUCT_ID, IMAGE_ID, CATEGORY)), vectors, _structs(exact, num)]
    return _with_none(pa.table([*columns, pa.array(bound_Q, pa.float32())], names=TRUTH.names[:-2]))


def beginning(parts: Iterable[pa.Table], bound_Q: np.ndarray, width: int) -> tuple[pa.Table, np.ndarray]:
    """The beginning of each query's order of rows, at most ``width`` long, and its bound. ``parts``: EXACT; ``bound_Q``: of
    what they have; NaN for a query of which they have all there is, or its first ``width``."""
    num = len(bound_Q)
    exact = pa.concat_tables([EXACT.empty_table(), *parts]).sort_by(
        [(QUERY, "ascending"), (SCORE, "descending"), (PRODUCT_ID, "ascending"), (IMAGE_ID, "ascending")]
    )
    of, score = exact[QUERY].to_numpy(), exact[SCORE].to_numpy()
    place = np.arange(len(of)) - np.searchsorted(of, np.arange(num))[of]
    is_last = place == width - 1
    ends_Q = np.full(num, -np.inf, np.float32)
    ends_Q[of[is_last]] = score[is_last]
    bound_Q = np.where(np.isnan(bound_Q), ends_Q, np.maximum(bound_Q, ends_Q))
    return exact.filter(pa.array((place < width) & (score >= bound_Q[of]))).combine_chunks(), bound_Q


def _structs(exact: pa.Table, num: int) -> pa.Array:
    columns = [exact[name].combine_chunks() for name in (PRODUCT_ID, IMAGE_ID, SCORE)]
    return _lists(pa.StructArray.from_arrays(columns, fields=list(_NEIGHBOUR)), exact[QUERY].to_numpy(), num)


def with_found(truth: pa.Table, found: pa.Table, bound_Q: np.ndarray) -> pa.Table:
    """TRUTH with what the index found (EXACT)."""
    columns = [*truth.select(TRUTH.names[:-2]).columns, _structs(found, truth.num_rows), pa.array(bound_Q, pa.float32())]
    return pa.table(columns, names=TRUTH.names).cast(TRUTH)


def _with_none(truth: pa.Table) -> pa.Table:
    """As TRUTH; as an earlier w2w told it."""
    return with_found(truth, EXACT.empty_table(), np.full(truth.num_rows, np.inf, np.float32))


def to_bytes(truth: pa.Table) -> bytes:
    out = pa.BufferOutputStream()
    with pa.ipc.new_file(out, TRUTH) as writer:
        writer.write_table(truth)
    return out.getvalue().to_pybytes()


def read_truth(uri: str, manifest: Manifest | None) -> pa.Table | None:
    """What a version's gate knew; None if there is nothing, or it is damaged: then it is found anew."""
    if manifest is None or not manifest.truth:
        return None
    try:
        data = storage.read_bytes(m.truth_uri(uri, manifest.version))
    except FileNotFoundError:
        return None
    if hashlib.sha256(data).hexdigest() != manifest.truth:
        return None
    found = pa.ipc.open_file(data).read_all()
    return found if FOUND in found.column_names else _with_none(found)
