"""What an index of many rows costs: seconds and memory of build, opening, single and batch search. Last line: JSON.

python -m tests.bench.index_scale [--rows 100000 1000000] [--dim 128] [--shards 112] [--limit_mb 4096] [--quick]

Stub vectors around a thousand centres, in parts of 20,000 as the embed job writes them; seven categories, image ids of 64
digits. Each step runs in a process of its own, the jobs on a local Ray of 2 CPUs with an object store of ``--object_store_mb``.
All processes of a step are watched, twice a second: ``memory_mb`` is the most that they held at one time, as memory of
their own and in shared memory (the object store), which nothing but an end of the process gives back; ``driver_mb`` and
``worker_mb`` the most that the driver and one worker had of their own; ``with_files_mb`` counts pages of mapped files too, each
once, which the system takes back when it needs room. A step that holds more than ``--limit_mb`` is killed, and the bench fails.
``cold_s``: opening with none of the index's files in the page cache; ``warm_s``: the median of five; ``read_mb``: what opening
reads, and not through mapped files. ``batch``: the job `search` with 10,000 garments by their vectors, each in its category;
``tasks``: the same with ``--over_shards``; ``differences``: queries with other answers there.
``growth_bytes``: memory of the build's driver for each row between the smallest and the largest size.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import pyarrow as pa

from tests.bench.mining_growth import LINEAGE
from w2w import schema
from w2w.engine.cluster import RayConfig, connect
from w2w.index import job
from w2w.index.manifest import index_uri
from w2w.index.search import open_index
from w2w.index.spec import IndexConfig
from w2w.index.stage import SearchConfig
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version
from w2w.search import job_search
from w2w.table import delta
from w2w.table.parts import Output
from w2w.table.sink import append_rows

CATEGORIES = np.array(["top", "bottom", "shoes", "dress", "bag", "hat", "outer"])
CENTRES, SPREAD = 1000, 0.7
PART, PRODUCTS_PART = 20_000, 250_000
QUERIES, SINGLE = 10_000, 300
ROUNDING = 2e-6  # of scores


def image_ids(first: int, count: int) -> pa.Array:
    """64 hexadecimal digits each."""
    raw = np.random.default_rng([7, first]).bytes(32 * count).hex().encode()
    return pa.array(np.frombuffer(raw, "S64")).cast(pa.string())


def vectors_of(centres_CD: np.ndarray, first: int, count: int) -> np.ndarray:
    rng = np.random.default_rng([8, first])
    dim = centres_CD.shape[1]
    return centres_CD[rng.integers(len(centres_CD), size=count)] + SPREAD * rng.standard_normal((count, dim), np.float32)


def append(store: str, table: schema.Table, filled: dict[str, pa.Array], count: int) -> None:
    """Columns that are not given are null, or one value."""
    values = {pa.int32(): 1, pa.int64(): 1, pa.float32(): 1.0, schema.TIME: 0, pa.string(): "x", pa.binary(): b"x"}

    def column(f: pa.Field) -> pa.Array:
        if f.nullable:
            return pa.nulls(count, f.type)
        return pa.repeat(pa.scalar(values.get(f.type, []), f.type), count)

    columns = [filled[f.name].cast(f.type) if f.name in filled else column(f) for f in table.schema]
    append_rows(store, Output(table), pa.table(columns, schema=table.schema), LINEAGE)


def append_vectors(store: str, owners: pa.Array, kind: str, vectors_ND: np.ndarray) -> None:
    offsets = pa.array(np.arange(0, vectors_ND.size + 1, vectors_ND.shape[1], dtype=np.int32))
    filled = {schema.OWNER_ID: owners, schema.OWNER_KIND: pa.repeat(kind, len(owners))}
    filled[schema.MODEL_VERSION] = pa.repeat(model_version(EncoderConfig()), len(owners))
    filled[schema.VECTOR] = pa.ListArray.from_arrays(offsets, pa.array(vectors_ND.ravel()))
    append(store, schema.EMBEDDINGS, filled, len(owners))


def centres(dim: int) -> np.ndarray:
    return np.random.default_rng(9).standard_normal((CENTRES, dim), np.float32)


def fill(store: str, rows: int, dim: int) -> None:
    for first in range(0, rows, PRODUCTS_PART):
        numbers = np.arange(first, min(rows, first + PRODUCTS_PART))
        parts = range(first, first + len(numbers), PART)
        images = pa.concat_arrays([image_ids(at, min(PART, first + len(numbers) - at)) for at in parts])
        filled = {schema.PRODUCT_ID: pa.array(np.char.mod("p%09d", numbers)), schema.IMAGE_ID: images}
        filled |= {schema.CATEGORY: pa.array(CATEGORIES[numbers % 7]), schema.ACTIVE: pa.repeat(True, len(numbers))}
        append(store, schema.PRODUCTS, filled, len(numbers))
        for at in parts:
            count = min(PART, first + len(numbers) - at)
            append_vectors(store, images.slice(at - first, count), "image", vectors_of(centres(dim), at, count))


def fill_queries(store: str, dim: int) -> None:
    """Garments with their vectors."""
    names, which = image_ids(10**9, QUERIES), np.arange(QUERIES)
    filled = {schema.GARMENT_ID: names, schema.IMAGE_ID: names, schema.CATEGORY: pa.array(CATEGORIES[which % 7])}
    append(store, schema.GARMENTS, filled, QUERIES)
    append_vectors(store, names, "garment", vectors_of(centres(dim), 10**9, QUERIES))


class Watch(threading.Thread):
    """The most memory of a process and all that it started, in MB; ends them above a limit."""

    def __init__(self, pid: int, limit_mb: float):
        super().__init__(daemon=True)
        self._process, self._limit_mb, self._over = psutil.Process(pid), limit_mb, threading.Event()
        self.most = dict.fromkeys(("memory_mb", "driver_mb", "worker_mb", "with_files_mb"), 0.0)
        self.killed = False
        self.start()

    def run(self) -> None:
        while not self._over.wait(0.5):
            try:
                everyone = [self._process, *self._process.children(recursive=True)]
            except psutil.Error:
                return
            told = [(process, found) for process in everyone if (found := held(process.pid))]
            now = {"memory_mb": sum(some["Anon"] + some["Shmem"] for _, some in told)}
            now["with_files_mb"] = sum(sum(some.values()) for _, some in told)
            for process, some in told:
                name = "driver_mb" if process == self._process else "worker_mb"
                now[name] = max(now.get(name, 0.0), some["Anon"])
            self.most = {name: max(value, now.get(name, 0.0)) for name, value in self.most.items()}
            if now["memory_mb"] > self._limit_mb:
                self.killed = True
                for process in everyone:
                    process.kill()
                return

    def end(self) -> dict[str, int]:
        self._over.set()
        self.join()
        return {name: round(value) for name, value in self.most.items()}


def held(pid: int) -> dict[str, float]:
    """MB of a process: its own memory, shared memory and pages of files, those shared with others in proportion."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return {}
    return {name: int(kb) / 1024 for name, kb in re.findall(r"Pss_(Anon|Shmem|File):\s+(\d+)", text)}


def build(options: argparse.Namespace) -> dict:
    config = IndexConfig(memory_budget_mb=options.budget_mb, max_rows_per_shard=options.rows_per_shard)
    ray = RayConfig(num_cpus=2, object_store_mb=options.object_store_mb)
    result = job.main(job.Config(store=options.store, index=config, ray=ray))
    manifest = open_index(index_uri(options.store, "default")).manifest
    told = {"s": round(result.seconds, 1), "recall": result.recall and round(result.recall, 4), "unchanged": result.unchanged}
    factories = sorted({t.spec.factory for t in manifest.templates})
    return told | {"shards": len(manifest.shards), "factories": factories, "codes_mb": round(manifest.memory_mb())}


def forget(folder: Path) -> None:
    """Takes the files' pages out of the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_mb() -> float:
    with open("/proc/self/io") as told:
        return int(told.readline().split()[1]) / 2**20


def reader(options: argparse.Namespace) -> dict:
    uri = index_uri(options.store, "default")
    forget(Path(uri))
    seconds = []
    for _ in range(6):
        read, began = read_mb(), time.monotonic()
        index = open_index(uri)
        seconds.append(time.monotonic() - began)
        read = read_mb() - read
    asked_ND = vectors_of(centres(options.dim), 2 * 10**9, SINGLE)
    took = []
    for n, vector_D in enumerate(asked_ND):
        began = time.monotonic()
        assert index.search(vector_D[None], 10, str(CATEGORIES[n % 7])).num_rows == 10
        took.append(time.monotonic() - began)
    first, further = took[:7], took[SINGLE // 2 :]
    told = {"cold_s": round(seconds[0], 3), "warm_s": round(median(seconds[1:]), 3), "read_mb": round(read, 1)}
    return told | {"first_ms": round(1e3 * max(first), 1), "search_ms": round(1e3 * median(further), 2)}


def batch(options: argparse.Namespace) -> dict:
    """Workers that have all shards, or tasks over shards: then one neighbour less, as another search."""
    ray = RayConfig(num_cpus=2, object_store_mb=options.object_store_mb)
    connect(ray)
    tasks = options.step == "tasks"
    by_category = SearchConfig(own_category=True, k=9 if tasks else 10)
    asked = job_search.Config(store=options.store, of="garments", search=by_category, over_shards=tasks, shown=0, ray=ray)
    result = job_search.main(asked)
    assert result.counts.out == QUERIES, result
    return {"s": round(result.seconds, 1), "queries": QUERIES}


def differences(store: str) -> int:
    """Queries of which the tasks found other neighbours than the workers; where two score the same but for float32's rounding,
    which varies with the number of queries in a batch, either may come first."""
    columns = [schema.QUERY_ID, schema.NEIGHBOUR_LIST, schema.SEARCH_VERSION]
    found: dict[str, dict[str, list]] = {}
    for row in delta.read(store, schema.NEIGHBOURS, columns).to_pylist():
        nine = [(hit[schema.PRODUCT_ID], hit[schema.SCORE]) for hit in row[schema.NEIGHBOUR_LIST][:9]]
        found.setdefault(row[schema.SEARCH_VERSION], {})[row[schema.QUERY_ID]] = nine
    one, other = found.values()
    return sum(any(a != c and abs(b - d) > ROUNDING for (a, b), (c, d) in zip(one[q], other[q], strict=True)) for q in one)


STEPS = {"build": build, "unchanged": build, "reader": reader, "batch": batch, "tasks": batch}


def measured(step: str, store: str, options: argparse.Namespace) -> dict:
    """In a process of its own."""
    names = ("dim", "limit_mb", "budget_mb", "object_store_mb", "rows_per_shard")
    further = [f"--{name}={getattr(options, name)}" for name in names]
    command = [sys.executable, "-m", "tests.bench.index_scale", f"--step={step}", f"--store={store}", *further]
    where = Path(__file__).parents[2]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=where)
    watch = Watch(process.pid, options.limit_mb)
    said, _ = process.communicate()
    most = watch.end()
    if process.returncode:
        why = f"held more than {options.limit_mb} MB: {most}" if watch.killed else "failed"
        raise SystemExit(f"{step} {why}")
    told = json.loads(said.strip().splitlines()[-1]) | most
    print(f"{step}: {told}", flush=True)
    return told


def one(rows: int, options: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory(dir=options.within) as folder:
        store = options.store or str(Path(folder, "store"))
        if not Path(store).exists():
            fill(store, rows, options.dim)
        found = {step: measured(step, store, options) for step in ("build", "unchanged", "reader")}
        if delta.open_table(store, schema.GARMENTS) is None:
            fill_queries(store, options.dim)
        found |= {step: measured(step, store, options) for step in ("batch", "tasks")}
        return found | {"differences": differences(store)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--shards", type=int, default=112, help="of the largest size, at least: the size of a shard follows")
    parser.add_argument("--limit_mb", type=float, default=4096)
    parser.add_argument("--budget_mb", type=float, default=2048, help="index.memory_budget_mb")
    parser.add_argument("--object_store_mb", type=int, default=256)
    parser.add_argument("--within", help="folder for the stores")
    parser.add_argument("--quick", action="store_true", help="50,000 rows")
    parser.add_argument("--store", help="a store that an earlier run left, of the same rows")
    parser.add_argument("--fill", action="store_true", help="write --store and end")
    parser.add_argument("--step", choices=[*STEPS], help=argparse.SUPPRESS)
    parser.add_argument("--rows_per_shard", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(STEPS[options.step](options)))
        return
    sizes = [50_000] if options.quick else sorted(options.rows)
    if options.fill:
        fill(options.store, sizes[0], options.dim)
        return
    options.rows_per_shard = max(1000, -(-sizes[-1] // options.shards) * 9 // 8)
    found = {rows: one(rows, options) for rows in sizes}
    result = {"name": "index_scale", "value": sizes[-1], "unit": "rows", "dim": options.dim, "limit_mb": options.limit_mb}
    result |= {"machine": f"{os.cpu_count()} cores", "object_store_mb": options.object_store_mb}
    if len(sizes) > 1:
        grown = found[sizes[-1]]["build"]["driver_mb"] - found[sizes[0]]["build"]["driver_mb"]
        result["growth_bytes"] = round(grown * 2**20 / (sizes[-1] - sizes[0]))
    print(json.dumps(result | {"sizes": {f"{rows:,}": told for rows, told in found.items()}}))


if __name__ == "__main__":
    main()
