"""Recall and time of a search among the rows that a filter lets through, against an exact search of these. Last line: JSON.

python -m tests.bench.filtered_search [--rows 1000000] [--dim 128] [--factory IVF1024,SQfp16] [--nprobe 64] [--shards 8]

The rows that are let through are drawn at random, or (``unlike``) those that least resemble the queries, as the blue ones do if
red is asked for. Exact: every vector that is let through, by plain NumPy. All queries at once and, one by one, the first
ONE_BY_ONE; medians of TURNS. What is made once for a filter (``prepare_s``; the peer copies vectors) is in none of these.
``ratio`` is the least recall@10.
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

SHARES, QUERIES, ONE_BY_ONE, TURNS, K = (0.5, 0.1, 0.01, 0.001), 200, 20, 5, 10


def milliseconds(search: Callable[[np.ndarray], object], queries: np.ndarray) -> tuple[float, float]:
    """A query of all at once, and of a few one by one: medians of TURNS."""
    together, alone = [], []
    for _ in range(TURNS):
        start = time.perf_counter()
        search(queries)
        together.append(1000 * (time.perf_counter() - start) / len(queries))
        start = time.perf_counter()
        for i in range(ONE_BY_ONE):
            search(queries[i : i + 1])
        alone.append(1000 * (time.perf_counter() - start) / ONE_BY_ONE)
    return round(statistics.median(together), 3), round(statistics.median(alone), 2)


def exact(among: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Places (queries, K) of the nearest vectors."""
    return np.argpartition(-(queries @ among.T), K, axis=1)[:, :K]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--factory", default="IVF1024,SQfp16")
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

        def measure(kind: str, share: float, rows: np.ndarray) -> None:
            start = time.perf_counter()
            within = None if share == 1 else index.rows_of(pa.array([f"{i:07d}" for i in rows]))
            hits = index.search(queries, K, within=within)
            prepare_s = time.perf_counter() - start
            ours = milliseconds(lambda q: index.search(q, K, within=within), queries)
            among = x[rows]
            peer = milliseconds(lambda q: exact(among, q), queries)
            told = {"filter": kind, "share": share, "way": "exact" if within and within.few else "lists"}
            told["recall"] = round(recall(found_rows(hits, QUERIES, K), rows[exact(among, queries)]), 3)
            told |= {"ms": ours[0], "one_ms": ours[1], "exact_ms": peer[0], "exact_one_ms": peer[1]}
            found.append(told | {"prepare_s": round(prepare_s, 2)})
            progress(str(found[-1]))

        measure("none", 1, np.arange(num_rows))
        likeness = x @ queries.mean(axis=0)
        for share in SHARES:
            measure("random", share, np.flatnonzero(np.random.default_rng(3).random(num_rows) < share))
            measure("unlike", share, np.sort(np.argsort(likeness)[: round(share * num_rows)]))
    told = {"name": "filtered_search", "peer": "exact search of the same rows", "rows": num_rows, "machine": "1 thread"}
    told |= {"factory": args.factory, "nprobe": args.nprobe, "dim": args.dim}
    print(json.dumps(told | {"ratio": min(f["recall"] for f in found), "unit": "recall@10", "filters": found}))


if __name__ == "__main__":
    main()
