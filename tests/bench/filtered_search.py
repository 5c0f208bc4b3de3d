"""Recall and time of a search among the rows that a filter lets through, against an exact search of these. Last line: JSON.

python -m tests.bench.filtered_search [--rows 1000000] [--dim 128] [--factory IVF1024,SQ8] [--nprobe 64] [--shards 8] [--quick]

The rows that are let through are drawn at random. Exact: every vector that is let through, by plain NumPy. ``ratio`` is the
least recall@10 of all filters.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa

from tests.bench.index_vectors import build_ours, found_rows, product_rows, progress, recall, upsampled
from w2w.index.spec import IndexConfig

SHARES, QUERIES, TURNS, K = (1.0, 0.5, 0.1, 0.01, 0.001), 200, 5, 10


def milliseconds(search: Callable[[], object]) -> float:
    """A query, median of TURNS."""
    taken = []
    for _ in range(TURNS):
        start = time.perf_counter()
        search()
        taken.append(1000 * (time.perf_counter() - start) / QUERIES)
    return round(statistics.median(taken), 2)


def exact(x: np.ndarray, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Row numbers (queries, K) of the nearest of these rows."""
    scores = queries @ x[rows].T
    near = np.argpartition(-scores, K, axis=1)[:, :K]
    return rows[near]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--factory", default="IVF1024,SQ8")
    parser.add_argument("--nprobe", type=int, default=64)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="50,000 rows")
    args = parser.parse_args()
    num_rows = 50_000 if args.quick else args.rows
    x = upsampled(num_rows + QUERIES, args.dim)
    queries, x = x[:QUERIES], x[QUERIES:]
    cfg = IndexConfig(factory=args.factory, nprobe=args.nprobe, sample_rows=min(num_rows, 100_000))
    cfg = replace(cfg, max_rows_per_shard=-(-num_rows // args.shards))
    found = []
    with tempfile.TemporaryDirectory() as folder:
        index, _ = build_ours(folder, product_rows(num_rows), x, cfg, 2)
        for share in SHARES:
            rows = np.flatnonzero(np.random.default_rng(3).random(num_rows) < share)
            within = None if share == 1 else index.rows_of(pa.array([f"{i:07d}" for i in rows]))
            hits = index.search(queries, K, within=within)
            found.append(
                {
                    "share": share,
                    "recall": round(recall(found_rows(hits, QUERIES, K), exact(x, queries, rows)), 3),
                    "ms": milliseconds(lambda within=within: index.search(queries, K, within=within)),
                    "exact_ms": milliseconds(lambda rows=rows: exact(x, queries, rows)),
                }
            )
            progress(str(found[-1]))
    told = {"name": "filtered_search", "peer": "exact search of the same rows", "rows": num_rows, "machine": "1 thread"}
    print(json.dumps(told | {"ratio": min(f["recall"] for f in found), "unit": "recall@10", "filters": found}))


if __name__ == "__main__":
    main()
