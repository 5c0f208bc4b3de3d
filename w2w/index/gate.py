"""The gate: an index is compared with exact search over the same rows, using the serving code."""

from collections.abc import Iterable

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w.index.manifest import GateResult
from w2w.index.order import category_codes, row_order
from w2w.index.search import QUERY, Index
from w2w.index.spec import IndexConfig
from w2w.index.template import set_threads, unit_vectors
from w2w.schema import CATEGORY, IMAGE_ID, PRODUCT_ID, SCORE

EXACT = pa.schema([(QUERY, pa.int32()), (PRODUCT_ID, pa.string()), (IMAGE_ID, pa.string()), (SCORE, pa.float32())])
SPARE = 32  # neighbours beyond recall_at: the query's own image and ties at the end
_TIE = 1e-6
_MIN_QUERIES = 30  # fewer give no usable standard error


def gate_queries(rows: pa.Table, cfg: IndexConfig) -> pa.Table:
    """At most ``gate_queries`` rows of each category, in a stable order; the caller loads their vectors in this order."""
    order = row_order(rows)
    rng = np.random.default_rng(cfg.seed)
    taken, start = [], 0
    for count in np.bincount(category_codes(rows)[0]).tolist():
        taken.append(start + np.sort(rng.choice(count, min(count, cfg.gate_queries), replace=False)))
        start += count
    return rows.select([PRODUCT_ID, IMAGE_ID, CATEGORY]).take(pa.array(order[np.concatenate(taken)])).combine_chunks()


def exact_part(
    queries: pa.Table,
    queries_ND: np.ndarray,
    category: str,
    rows: pa.Table,
    vectors_MD: np.ndarray,
    cfg: IndexConfig,
    num_threads: int = 1,
) -> pa.Table:
    """``EXACT`` neighbours, among one shard's rows (or any part of them), of the gate's queries of that category."""
    set_threads(num_threads)
    mine = np.flatnonzero(pc.equal(queries[CATEGORY], category).to_numpy(zero_copy_only=False))
    if not len(mine) or not rows.num_rows:
        return EXACT.empty_table()
    k = min(cfg.recall_at + SPARE, rows.num_rows)
    scores, found = faiss.knn(unit_vectors(queries_ND[mine]), unit_vectors(vectors_MD), k, metric=faiss.METRIC_INNER_PRODUCT)
    hits = rows.take(pa.array(found.ravel()))
    return pa.table([np.repeat(mine, k), hits[PRODUCT_ID], hits[IMAGE_ID], scores.ravel()], names=EXACT.names).cast(EXACT)


def search(
    index: Index,
    queries: pa.Table,
    queries_ND: np.ndarray,
    cfg: IndexConfig,
    num_threads: int = 1,
    some: np.ndarray | None = None,
) -> pa.Table:
    """The first ``recall_at`` + SPARE answers of the index (EXACT, by query and rank) to these queries, or some of them, each
    within its category; none where the index has not that."""
    held = index.manifest.rows_by_category()
    categories = queries[CATEGORY].to_pylist()
    asked = np.array([i for i in (range(len(categories)) if some is None else some) if categories[i] in held], np.int64)
    within = [categories[i] for i in asked]
    hits = index.search(queries_ND[asked], cfg.recall_at + SPARE, within, num_threads=num_threads)
    columns = [asked[hits[QUERY].to_numpy()], *(hits[name] for name in EXACT.names[1:])]
    return pa.table(columns, names=EXACT.names).cast(EXACT)


def gate(
    index: Index,
    queries: pa.Table,
    queries_ND: np.ndarray,
    exact_parts: Iterable[pa.Table],
    expected_rows: dict[str, int],
    cfg: IndexConfig,
    num_threads: int = 1,
    found: pa.Table | None = None,
) -> GateResult:
    """Passes if every category holds exactly its expected rows, all scores are finite and recall@``recall_at`` reaches
    ``target_recall`` overall and, within two standard errors, in every category.

    A query's own image does not count; a hit that ties with the last exact neighbour does. ``found``: what the index answers
    (EXACT, by query and rank), if that is known.
    """
    k = cfg.recall_at
    reasons = []
    held = index.manifest.rows_by_category()
    for category in sorted(held.keys() | expected_rows.keys()):
        if held.get(category, 0) != expected_rows.get(category, 0):
            reasons.append(f"category {category!r}: {held.get(category, 0)} rows, expected {expected_rows.get(category, 0)}")
    categories = queries[CATEGORY].to_pylist()
    hits = search(index, queries, queries_ND, cfg, num_threads) if found is None else found
    if not np.isfinite(hits[SCORE].to_numpy()).all():
        reasons.append("some scores are NaN or infinite")
    own = queries[IMAGE_ID].to_pylist()
    exact = _by_query(
        pa.concat_tables([EXACT.empty_table(), *exact_parts]).sort_by([(QUERY, "ascending"), (SCORE, "descending")])
    )
    approximate = _by_query(hits)
    recalls: dict[str, list[float]] = {}
    for q, category in enumerate(categories):
        truth = [(score, key) for score, key in exact.get(q, []) if key[1] != own[q]]
        wanted = min(k, len(truth))
        if wanted:
            allowed = {key for score, key in truth if score >= truth[wanted - 1][0] - _TIE}
            first = [key for _, key in approximate.get(q, []) if key[1] != own[q]][:k]
            recalls.setdefault(category, []).append(min(1.0, len(allowed.intersection(first)) / wanted))
    values = [r for category in recalls.values() for r in category]
    recall = float(np.mean(values)) if values else 1.0
    if recall < cfg.target_recall:
        reasons.append(
            f"recall@{k} is {recall:.4f}, below target_recall={cfg.target_recall}: raise memory_budget_mb or latency_budget_ms"
        )
    for category, several in sorted(recalls.items()):
        error = float(np.std(several) / np.sqrt(len(several)))
        if len(several) >= _MIN_QUERIES and np.mean(several) + 2 * error < cfg.target_recall:
            reasons.append(
                f"category {category!r}: recall@{k} is {np.mean(several):.4f}, below target_recall={cfg.target_recall}"
            )
    for category, least in sorted(cfg.recall_floors.items()):
        if category in recalls and np.mean(recalls[category]) < least:
            reasons.append(
                f"category {category!r}: recall@{k} is {np.mean(recalls[category]):.4f}, below its index.recall_floors, {least}"
            )
    per_category = {
        c: {
            "rows": held.get(c, 0),
            "queries": len(recalls.get(c, [])),
            "recall": float(np.mean(recalls[c])) if c in recalls else 1.0,
        }
        for c in sorted(held)
    }
    return GateResult(not reasons, tuple(reasons), recall, per_category)


def _by_query(table: pa.Table) -> dict[int, list[tuple[float, tuple[str, str]]]]:
    """Query -> its (score, (product, image)), in table order."""
    out: dict[int, list[tuple[float, tuple[str, str]]]] = {}
    columns = (table[name].to_pylist() for name in (QUERY, SCORE, PRODUCT_ID, IMAGE_ID))
    for query, score, product, image in zip(*columns, strict=True):
        out.setdefault(query, []).append((score, (product, image)))
    return out
