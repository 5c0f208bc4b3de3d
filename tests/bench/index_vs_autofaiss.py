"""Our planner and build against autofaiss at the same memory budget on the same vectors. Last line: JSON.

python -m tests.bench.index_vs_autofaiss [--rows 200000] [--dim 1280] [--budgets 60 1024] [--cap-s 1800] [--quick]

Both may use all budgets: autofaiss takes the index it thinks best under memory and query time, ours is asked for the highest
recall (target 1). autofaiss runs in its own environment, made at the first run; its parameter tuning is part of its build as
planning is of ours, and both write what they built. A hit that ties with the last exact neighbour counts. ``ratio`` is their
build time over ours; where autofaiss passed the cap, the ratio is a lower bound.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np

from tests.bench.index_vectors import CACHE, build_ours, found_rows, product_rows, progress, upsampled
from w2w.index.spec import IndexConfig

PACKAGES = ("autofaiss==2.18.*", "pyarrow<21", "faiss-cpu==1.10.0")
LATENCY_MS = 10.0
PEER = """
import json, os, sys, time
import faiss, numpy as np
from autofaiss import build_index
folder, budget, latency, threads = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
x, queries = np.load(folder + "/x.npy"), np.load(folder + "/queries.npy")
started = time.perf_counter()
index, infos = build_index(x, index_path=folder + "/peer.faiss", index_infos_path=folder + "/peer.json",
    max_index_memory_usage=budget + "MB", current_memory_available="12GB",
    max_index_query_time_ms=latency, metric_type="ip", nb_cores=threads, verbose=30)
build_s = time.perf_counter() - started
np.save(folder + "/peer.npy", index.search(queries, 20)[1])
faiss.omp_set_num_threads(1)
times = []
for q in queries[:100]:
    t = time.perf_counter(); index.search(q[None], 20); times.append(time.perf_counter() - t)
memory_mb = os.path.getsize(folder + "/peer.faiss") / 2**20
print(json.dumps({"build_s": build_s, "latency_ms": 1e3 * float(np.median(times)), "memory_mb": memory_mb}))
"""


def peer_python() -> str | None:
    """autofaiss's interpreter, None where it cannot be installed."""
    home = CACHE / "autofaiss"
    python = home / "bin" / "python"
    if subprocess.run([python, "-c", "import autofaiss"], capture_output=True).returncode == 0 if python.exists() else False:
        return str(python)
    progress("installing autofaiss into an environment of its own")
    uv = shutil.which("uv")
    make = [uv, "venv", "--clear", "--python", sys.executable, home] if uv else [sys.executable, "-m", "venv", "--clear", home]
    install = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
    for command in (make, [*install, *PACKAGES]):
        if subprocess.run(command, stdout=sys.stderr).returncode:
            return None
    return str(python)


def run_peer(python: str, folder: str, budget: int, threads: int, cap_s: float) -> dict:
    """autofaiss's figures, or only the seconds after which it was stopped."""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [python, "-c", PEER, folder, str(budget), str(LATENCY_MS), str(threads)]
    started = time.perf_counter()
    try:
        done = subprocess.run(command, env=env, timeout=cap_s, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        return {"build_s": time.perf_counter() - started, "stopped": True}
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def run_ours(folder: str, x_ND: np.ndarray, queries: np.ndarray, budget: int, threads: int) -> tuple[dict, np.ndarray]:
    rows = product_rows(len(x_ND))
    cfg = IndexConfig(memory_budget_mb=budget, latency_budget_ms=LATENCY_MS, target_recall=1.0)
    started = time.perf_counter()
    index, plan = build_ours(folder, rows, x_ND, cfg, threads)
    build_s = time.perf_counter() - started
    found = found_rows(index.search(queries, 20, num_threads=threads), len(queries), 20)
    times = []
    for i in range(100):
        started = time.perf_counter()
        index.search(queries[i : i + 1], 20, num_threads=1)
        times.append(time.perf_counter() - started)
    spec = f"{plan.spec.factory} nprobe {plan.spec.nprobe}"
    figures = {"build_s": build_s, "plan_s": plan.plan_s, "planned_recall": plan.recall, "factory": spec}
    return figures | {"latency_ms": 1e3 * statistics.median(times), "memory_mb": index.manifest.memory_mb()}, found


def recalls(x_ND: np.ndarray, queries_QD: np.ndarray, found_QK: np.ndarray, exact_QK: np.ndarray) -> dict[str, float]:
    """recall@10 and @20 by the scores of the rows found and those of the exact neighbours; -1 finds nothing."""
    scores_QK = np.einsum("qkd,qd->qk", x_ND[found_QK], queries_QD)
    scores_QK[found_QK < 0] = -np.inf
    return {f"recall@{k}": round(float((scores_QK[:, :k] >= exact_QK[:, k - 1 : k] - 1e-6).mean()), 5) for k in (10, 20)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--budgets", type=int, nargs="+", default=[60, 1024], help="MB")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cap-s", type=float, default=1800.0, help="autofaiss is stopped after this long")
    parser.add_argument("--quick", action="store_true", help="10,000 x 128, once, 3 MB, capped at 25 s")
    args = parser.parse_args()
    if args.quick:
        args.rows, args.dim, args.budgets, args.rounds, args.cap_s = 10_000, 128, [3], 1, 25.0
    python = peer_python()
    if python is None:
        progress("skipped: autofaiss cannot be installed here")
        print(json.dumps({"name": "index_vs_autofaiss", "skipped": "autofaiss cannot be installed here"}))
        return
    x = upsampled(args.rows + 500, args.dim)
    queries, x = x[:500], x[500:]
    exact = faiss.knn(queries, x, 20, metric=faiss.METRIC_INNER_PRODUCT)[0]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/x.npy", x)
        np.save(f"{folder}/queries.npy", queries)
        build_ours(
            f"{folder}/warm", product_rows(2000), x[:2000], IndexConfig(), args.threads
        )  # lazily loaded libraries: 1.4 s once a process
        for budget in args.budgets:
            ours, theirs = [], []
            for i in range(args.rounds):
                figures, found = run_ours(f"{folder}/{budget}-{i}", x, queries, budget, args.threads)
                shutil.rmtree(f"{folder}/{budget}-{i}")
                ours.append(figures | recalls(x, queries, found, exact))
                progress(f"{budget} MB ours: {ours[-1]}")
                if i and ("stopped" in theirs[0] or "failed" in theirs[0]):
                    continue  # it would only be stopped again
                theirs.append(run_peer(python, folder, budget, args.threads, args.cap_s))
                if "memory_mb" in theirs[-1]:
                    peer_found = np.load(Path(folder, "peer.npy"))
                    theirs[-1] |= recalls(x, queries, peer_found, exact)
                progress(f"{budget} MB autofaiss: {theirs[-1]}")
            build_s = statistics.median(f["build_s"] for f in ours)
            peer_s = statistics.median(f["build_s"] for f in theirs) if "build_s" in theirs[0] else None
            results.append(
                {
                    "name": f"build at {budget} MB",
                    "ratio": round(peer_s / build_s, 2) if peer_s else None,
                    "lower_bound": "stopped" in theirs[0],  # the peer was stopped at the cap: no recall to compare either
                    "value": round(build_s, 2),
                    "unit": "s",
                    "peer": "autofaiss 2.18",
                    "machine": f"{args.threads} shared cores",
                    "ours": ours[-1],
                    "theirs": theirs[-1],
                }
            )
    head = {k: results[0][k] for k in ("ratio", "lower_bound", "value", "unit", "peer", "machine")}
    print(json.dumps({"name": "index_vs_autofaiss", **head, "rows": args.rows, "dim": args.dim, "results": results}))


if __name__ == "__main__":
    main()
