"""Our build and search against plain faiss: the same factory string and vectors, in turn, warmed up. Last line: JSON.

python -m tests.bench.index_vs_faiss [--rows 100000] [--dim 256] [--factory IVF512,SQ8] [--threads 2] [--shards 1] [--quick]

Faiss trains on the same sample. Ours plans, writes shards and ids to disk, reads them back with sha256, and answers with
product ids; plain faiss keeps everything in memory and answers with row numbers. Several shards are merged as the batch search
merges them, which is timed beside the build.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from functools import partial

import faiss
import numpy as np

from tests.bench.index_vectors import build_ours, found_rows, product_rows, progress, recall, upsampled
from w2w.index.merge import merged
from w2w.index.spec import IndexConfig

_SEARCHES = 20  # of a round


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--factory", default="IVF512,SQ8")
    parser.add_argument("--nprobe", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shards", type=int, default=1, help="of ours; plain faiss has one index of all")
    parser.add_argument("--quick", action="store_true", help="20,000 rows, once")
    args = parser.parse_args()
    rows, rounds = (20_000, 1) if args.quick else (args.rows, 5)
    x = upsampled(rows + 1000, args.dim)
    queries, x = x[:1000], x[1000:]
    cfg = IndexConfig(factory=args.factory, nprobe=args.nprobe, sample_rows=min(rows, 50_000))
    cfg = replace(cfg, max_rows_per_shard=-(-rows // args.shards))
    exact = faiss.knn(queries, x, 10, metric=faiss.METRIC_INNER_PRODUCT)[1]
    seconds: dict[str, list[float]] = {
        "build ours": [],
        "merge ours": [],
        "build faiss": [],
        "search ours": [],
        "search faiss": [],
    }

    def timed(name: str, call):
        started = time.perf_counter()
        result = call()
        seconds[name].append(time.perf_counter() - started)
        progress(f"{name}: {seconds[name][-1]:.2f} s")
        return result

    def plain():
        index = faiss.index_factory(args.dim, args.factory, faiss.METRIC_INNER_PRODUCT)
        index.train(x[np.random.default_rng(0).choice(rows, cfg.sample_rows, replace=False)])
        index.add(x)
        return index

    products = product_rows(rows)
    for _ in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            ours, _ = timed("build ours", lambda folder=folder: build_ours(folder, products, x, cfg, args.threads))
            ours = timed("merge ours", partial(merged, ours))
            faiss.omp_set_num_threads(args.threads)
            theirs = timed("build faiss", plain)
            ivf = faiss.try_extract_index_ivf(theirs)
            if ivf is not None:
                ivf.nprobe = args.nprobe
            ours.search(queries, 10, num_threads=args.threads)  # its files are mapped, not read: both are warm now
            theirs.search(queries, 10)
            ask = partial(ours.search, queries, 10, num_threads=args.threads)
            for _ in range(_SEARCHES):  # in turn: one search is shorter than what else this machine does
                hits = timed("search ours", ask)
                faiss.omp_set_num_threads(args.threads)
                found = timed("search faiss", partial(theirs.search, queries, 10))[1]
    warm = {name: s[len(s) // (rounds + 1) :] for name, s in seconds.items()}
    middle = {name: statistics.median(s) for name, s in warm.items()}
    recalls = {"ours": recall(found_rows(hits, 1000, 10), exact), "faiss": recall(found, exact)}
    common = {"peer": f"faiss {faiss.__version__}", "machine": f"{args.threads} shared cores"}
    results = [
        {
            "name": "index build",
            "ratio": middle["build faiss"] / middle["build ours"],
            "value": rows / middle["build ours"],
            **common,
        },
        {
            "name": "index search",
            "ratio": middle["search faiss"] / middle["search ours"],
            "value": 1000 / middle["search ours"],
            **common,
        },
        {
            "name": "index build, then merge",
            "ratio": middle["build faiss"] / (middle["build ours"] + middle["merge ours"]),
            "value": rows / (middle["build ours"] + middle["merge ours"]),
            **common,
        },
        {"name": "index recall@10", "ratio": recalls["ours"] / recalls["faiss"], "value": recalls["ours"], **common},
    ]
    for result, unit in zip(results, ("vectors/s", "queries/s", "vectors/s", "share"), strict=True):
        result.update(unit=unit, ratio=round(result["ratio"], 3), value=round(result["value"], 4))
    print(
        json.dumps(
            {
                "name": "index_vs_faiss",
                **{k: results[0][k] for k in ("ratio", "value", "unit", "peer", "machine")},
                "results": results,
            }
        )
    )


if __name__ == "__main__":
    main()
