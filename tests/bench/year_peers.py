"""The vectors of a year of nights in LanceDB and autofaiss, each in an environment of its own, made at the first run.

``write`` keeps what each night has; a peer then goes through the nights: LanceDB merges what is new or changed, deletes what
is gone and optimizes its IVF index; autofaiss, which can do neither, builds its index anew.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.bench.index_vectors import CACHE, progress

PACKAGES = {
    "lancedb": ("lancedb==0.40.*",),
    "autofaiss": ("autofaiss==2.18.*", "pyarrow<21", "faiss-cpu==1.10.0"),
}
_NIGHTS = """
import json, os, shutil, sys, time
from pathlib import Path
import numpy as np
folder = Path(sys.argv[1])

def size(where):
    return sum(f.stat().st_size for f in Path(where).rglob("*") if f.is_file())

def told(night, seconds, where, ids, x, queries, found):
    at = {one: n for n, one in enumerate(ids)}
    scores = queries @ x.T
    least = -np.sort(-scores, axis=1)[:, 9]
    right = sum(one in at and scores[q, at[one]] >= least[q] - 1e-5 for q, some in enumerate(found) for one in some)
    stale = sum(one not in at for some in found for one in some)
    row = {"number": night, "seconds": seconds, "bytes": size(where), "recall": right / (10 * len(queries)), "stale": stale}
    print(json.dumps(row), flush=True)

def nights():
    for file in sorted(folder.glob("*.npz")):
        some = np.load(file)
        yield int(file.stem), some["ids"].tolist(), some["x"], some["queries"]
"""
_SCRIPTS = {
    "lancedb": _NIGHTS
    + """
import lancedb, pyarrow as pa
from datetime import timedelta
where = folder / "lance"
shutil.rmtree(where, ignore_errors=True)
db, dim, before, table = lancedb.connect(where), 0, {}, None
for night, ids, x, queries in nights():
    now = dict(zip(ids, x))
    kind = pa.schema([pa.field("id", pa.string()), pa.field("vector", pa.list_(pa.float32(), x.shape[1]))])
    begun = time.perf_counter()
    anew = x.shape[1] != dim
    if anew:  # another model: vectors of another length
        table, dim, before = db.create_table("products", schema=kind, mode="overwrite"), x.shape[1], {}
    new = [one for one in ids if one not in before or (before[one] != now[one]).any()]
    gone = [one for one in before if one not in now]
    if new:
        rows = pa.table([pa.array(new), pa.array([now[one].tolist() for one in new], kind.field(1).type)], schema=kind)
        table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(rows)
    if gone:
        table.delete("id IN (" + ", ".join(f"'{one}'" for one in gone) + ")")
    if anew:
        lists = {"index_type": "IVF_PQ", "num_partitions": 4, "num_sub_vectors": dim // 8}
        table.create_index(metric="cosine", vector_column_name="vector", **lists)
    elif new or gone:
        table.optimize(cleanup_older_than=timedelta(0))
    seconds = time.perf_counter() - begun
    asked = [table.search(q).distance_type("cosine").nprobes(4).refine_factor(2).limit(10) for q in queries]
    found = [one.to_arrow()["id"].to_pylist() for one in asked]
    told(night, seconds, where, ids, x, queries, found)
    before = now
""",
    "autofaiss": _NIGHTS
    + """
import faiss
from autofaiss import build_index
where, before = folder / "faiss", None
for night, ids, x, queries in nights():
    begun = time.perf_counter()
    if before is None or before != ids or (x != last).any():
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir()
        build_index(np.ascontiguousarray(x), index_path=str(where / "i.faiss"), index_infos_path=str(where / "i.json"),
            max_index_memory_usage="100MB", current_memory_available="1GB", max_index_query_time_ms=2, metric_type="ip",
            nb_cores=1, verbose=50)
    seconds, before, last = time.perf_counter() - begun, ids, x
    index = faiss.read_index(str(where / "i.faiss"))
    found = [[ids[n] for n in some if n >= 0] for some in index.search(queries, 10)[1]]
    told(night, seconds, where, ids, x, queries, found)
""",
}


def write(file: Path, rows: Mapping[tuple[str, str], np.ndarray], queries_QD: np.ndarray) -> None:
    """``rows``: (product, picture) -> vector. A row's id is its product and its place among the product's pictures."""
    places: dict[str, int] = {}
    ids = []
    for product, _ in rows:
        places[product] = places.get(product, 0) + 1
        ids.append(f"{product} {places[product]}")
    np.savez_compressed(file, ids=np.array(ids), x=np.stack(list(rows.values())), queries=queries_QD)


def measure(folder: Path) -> dict[str, list[dict] | str]:
    """Of each peer a row for every night, or why there is none."""
    found: dict[str, list[dict] | str] = {}
    for name, script in _SCRIPTS.items():
        python = _python(name)
        if python is None:
            found[name] = "skipped: it cannot be installed here"
            continue
        progress(f"{name}: the same nights")
        env = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
        done = subprocess.run([python, "-c", script, folder], env=env, capture_output=True, text=True)
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"number"')]
        found[name] = rows if done.returncode == 0 else f"failed: {done.stderr.strip().splitlines()[-1]}"
        if done.returncode:
            progress(done.stderr[-2000:])
    return found


def _python(name: str) -> str | None:
    """The peer's interpreter, None where it cannot be installed."""
    home = CACHE / name
    python = home / "bin" / "python"
    if python.exists() and subprocess.run([python, "-c", f"import {name}"], capture_output=True).returncode == 0:
        return str(python)
    progress(f"installing {name} into an environment of its own")
    uv = shutil.which("uv")
    make = [uv, "venv", "--clear", "--python", sys.executable, home] if uv else [sys.executable, "-m", "venv", "--clear", home]
    install = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
    for command in (make, [*install, *PACKAGES[name]]):
        if subprocess.run(command, stdout=sys.stderr).returncode:
            return None
    return str(python)
