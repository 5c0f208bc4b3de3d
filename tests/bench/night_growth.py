"""What a night costs where little has changed, by the size of the catalog. Last line: JSON.

python -m tests.bench.night_growth [--rows 10000 100000 1000000] [--changed 0 10 0.001 0.01 0.1] [--dim 32] [--quick]
    [--target_recall 0.95]

Stub vectors, three categories, designs in three colours; the jobs `index` and `similar` as the night runs them, with their
defaults, in a cluster of this machine that is already up, and what `embed` looks at. A change below 1 is a share of the
products: half of them have another picture, a quarter each are new and gone. Each night starts from the same store, in turn
with ``layers`` (the default) and ``anew`` (``index.layer_share=0``); seconds are medians of ``--turns`` nights, ``ratio``
those of the index with layers over those anew at the largest size and share, ``growth`` how much longer its ten changed
products take at the largest size than at the smallest, ``slope`` that of log seconds of index and similar against log rows,
for ten changed products, and ``slope_cpu`` of CPU seconds. ``mb_read``: by this process, and not through mapped files. The
similar lists of the first night are made up, of other products of the category with high scores: all of a million take a
quarter of an hour, and a night does not depend on what they say; `similar` is left out where it would compare more than a few
thousand million. Random vectors have no clusters: ten million need a lower ``--target_recall``. ``due``: ten new images among
so many: seconds, and rows that are looked at, by the watermark and by all keys.
"""

import argparse
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa

from tests.bench import similar_growth
from tests.bench.mining_growth import LINEAGE
from tests.bench.similar_growth import append_products, append_vectors
from w2w import ids, schema
from w2w.engine.cluster import RayConfig, connect
from w2w.engine.source import Source, pending_rows
from w2w.index import job
from w2w.index.spec import IndexConfig
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version
from w2w.similar import flow_search
from w2w.similar import job as similar_job
from w2w.stage import Counts
from w2w.table import mapped
from w2w.table.parts import RECEIPT_SCHEMA, Output, write_part
from w2w.table.pending import rejected_keys, table_keys
from w2w.table.sink import Committer, append_rows

KINDS = {"layers": IndexConfig().layer_share, "anew": 0.0}
TEN = 10
MOST_AT_ONCE = 1_000_000  # rows of a commit: texts of more do not fit into one array
MOST_PAIRS = 2_000_000_000  # for `similar`


def change(store: str, rows: int, changed: int, dim: int, night: int) -> None:
    """Half of the changed products have another picture, a quarter are gone, a quarter new."""
    half, quarter = changed - 2 * (changed // 4), changed // 4
    moved, gone = np.arange(half), np.arange(half, half + quarter)
    new = np.arange(quarter) + 10 * rows * night
    images = np.concatenate([moved + 5 * rows * night, new])
    append_products(store, gone, gone, False, night)
    append_products(store, np.concatenate([moved, new]), images, True, night)
    append_images(store, images)
    append_vectors(store, images, dim, night)


def as_hashed(store: str) -> None:
    """Notes of the copied files that they were hashed, as their originals were."""
    for noted in Path(store).rglob("checked.json"):
        mapped.note(str(noted.parent), set(json.loads(noted.read_bytes())["files"]))


def made_up(searches: flow_search.Searches, k: int) -> int:
    """In place of ``Searches.run``: other products of the scope, with scores that few new ones reach."""
    lists, goods, rng = searches._plan.kept.lists, searches._catalog.goods, np.random.default_rng(0)
    for scope in np.unique(goods.scope_N):
        mine = np.flatnonzero(goods.scope_N == scope)
        lists.member_NW[mine] = rng.choice(mine, (len(mine), lists.member_NW.shape[1]))
    lists.score_NW[:] = np.linspace(0.95, 0.9, lists.score_NW.shape[1], dtype=np.float32)
    searches._plan.kept.complete_N[:] = False
    return len(goods.scope_N)


def append_images(store: str, numbers: np.ndarray) -> None:
    filled = {schema.IMAGE_ID: pa.array(np.char.mod("i%09d", numbers))}
    filled[schema.PHASH] = pa.array((ids.scatter(numbers.astype(np.uint64)) >> np.uint64(1)).astype(np.int64))
    values = {pa.int32(): 1, pa.int64(): 1, schema.TIME: 0, pa.string(): "x", pa.binary(): b"x"}
    columns = [filled.get(f.name, pa.repeat(pa.scalar(values[f.type], f.type), len(numbers))) for f in schema.IMAGES.schema]
    append_rows(store, Output(schema.IMAGES), pa.table(columns, schema=schema.IMAGES.schema), LINEAGE)


def due_images(store: str, full_scan: bool = False) -> Source:
    version = model_version(EncoderConfig())
    made = table_keys(store, schema.EMBEDDINGS, schema.OWNER_ID, model_version=version)
    done = [made, rejected_keys(store, "embed", version)]
    return pending_rows(store, schema.IMAGES, [schema.IMAGE_ID], done, None, 1024, full_scan=full_scan)


def embed_last(store: str, image: int, dim: int) -> None:
    """The commit of a run of `embed` that did all that was due, this image."""
    append_images(store, np.array([image]))
    work = due_images(store)
    assert work.num_rows == 1
    assert work.mark
    version = model_version(EncoderConfig())
    columns = [[f"i{image:09d}"], ["image"], [version], [[1.0] * dim]]
    rows = pa.table([pa.array(c, f.type) for c, f in zip(columns, schema.EMBEDDINGS.schema)], schema=schema.EMBEDDINGS.schema)
    lineage = replace(LINEAGE, job="embed")
    committer = Committer(store, [Output(schema.EMBEDDINGS)], lineage)
    found = write_part(store, Output(schema.EMBEDDINGS), rows, lineage.run_id)
    committer.add(pa.Table.from_pylist(found, schema=RECEIPT_SCHEMA))
    committer.commit(work.mark.after(lineage.run_id, Counts(1, 1), []))


def due(base: str, store: str, rows: int, turns: int) -> dict:
    """What `embed` looks at when ten images came."""
    shutil.copytree(base, store)
    append_images(store, np.arange(TEN) + 20 * rows)
    found = {}
    for name, full_scan in (("watermark", False), ("all_keys", True)):
        seconds = []
        for _ in range(turns):
            began = time.monotonic()
            source = due_images(store, full_scan)
            seconds.append(time.monotonic() - began)
            assert source.num_rows == TEN
        found[name] = {"s": round(median(seconds), 3), "rows": source.num_read}
    shutil.rmtree(store)
    return found


def read_bytes() -> int:
    with open("/proc/self/io") as told:
        return int(told.readline().split()[1])


def timed(main: Callable, config: object) -> tuple[Any, dict]:
    cpu, read = time.process_time(), read_bytes()
    result = main(config)
    told = {"s": result.seconds, "cpu_s": time.process_time() - cpu, "mb_read": (read_bytes() - read) / 2**20}
    return result, told


def middle(several: list[dict]) -> dict:
    return {name: round(median(one[name] for one in several), 2) for name in several[0]}


def measured(rows: int, changes: list[float], dim: int, turns: int, target_recall: float) -> dict:
    """Seconds of the jobs by change and kind."""
    similar_growth.CATEGORIES = np.array(["top", "bottom", "dress"] * 7)[:7]
    found: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        base = str(Path(folder, "base"))
        numbers = np.arange(rows)
        for some in np.split(numbers, range(MOST_AT_ONCE, rows, MOST_AT_ONCE)):
            append_products(base, some, some, True, 0)
            append_images(base, some)
        append_vectors(base, numbers, dim, 0)
        embed_last(base, rows, dim)
        config = job.Config(store=base, ray=RayConfig(num_cpus=2), index=IndexConfig(target_recall=target_recall))
        lists = similar_job.Config(store=base, ray=RayConfig(num_cpus=2))
        whole = job.main(config).seconds
        with mock.patch.object(flow_search.Searches, "run", made_up), mock.patch.object(flow_search, "_PAIRS_HERE", 10**18):
            similar_job.main(lists)
        looked = due(base, str(Path(folder, "due")), rows, turns)
        for share in changes:
            changed = round(rows * share) if share < 1 else int(share)
            told: dict[str, list[dict]] = {"layers": [], "anew": [], "similar": []}
            for turn in range(turns):
                for kind, layer_share in KINDS.items():
                    store = str(Path(folder, kind))
                    shutil.copytree(base, store)
                    as_hashed(store)
                    if changed:
                        change(store, rows, changed, dim, turn + 1)
                    index = replace(config.index, layer_share=layer_share)
                    result, some = timed(job.main, replace(config, store=store, index=index))
                    if rows // 3 >= IndexConfig().layer_from_rows and changed <= 0.05 * rows:
                        assert bool(result.rows_in_layers) == (kind == "layers" and changed > 3)
                    told[kind].append(some)
                    if kind == "layers" and changed * rows <= MOST_PAIRS:
                        result, some = timed(similar_job.main, replace(lists, store=store))
                        assert result.unchanged == (not changed)
                        told["similar"].append(some)
                    shutil.rmtree(store)
            found[f"{changed:,}"] = {kind: middle(some) for kind, some in told.items() if some}
            print(f"{rows:,} rows, {changed:,} changed: {found[f'{changed:,}']}", flush=True)
    return {"whole_s": round(whole, 2), "due": looked, "changed": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--changed", type=float, nargs="+", default=[0, 10, 0.001, 0.01, 0.1])
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--target_recall", type=float, default=IndexConfig().target_recall)
    parser.add_argument("--quick", action="store_true", help="30,000 and 70,000 rows, one night each")
    options = parser.parse_args()
    sizes, turns = ([30_000, 70_000], 1) if options.quick else (sorted(options.rows), options.turns)
    connect(RayConfig(num_cpus=2))
    sizes_found = {rows: measured(rows, options.changed, options.dim, turns, options.target_recall) for rows in sizes}
    first, last = sizes_found[sizes[0]]["changed"], sizes_found[sizes[-1]]["changed"]
    most = list(last)[-1]
    ratio = last[most]["layers"]["s"] / last[most]["anew"]["s"]
    result = {"name": "night_growth", "ratio": round(ratio, 3), "peer": "shards built anew"}
    result |= {"value": sizes[-1], "unit": "rows", "dim": options.dim, "turns": turns, "machine": f"{os.cpu_count()} cores"}
    if "10" in first and "10" in last and len(sizes) > 1:
        result["growth"] = round(last["10"]["layers"]["s"] / first["10"]["layers"]["s"], 2)
        for name, what in (("slope", "s"), ("slope_cpu", "cpu_s")):
            took = [sum(some["10"][step][what] for step in ("layers", "similar")) for some in (first, last)]
            result[name] = round(math.log(took[1] / took[0]) / math.log(sizes[-1] / sizes[0]), 2)
    print(json.dumps(result | {"sizes": {f"{rows:,}": told for rows, told in sizes_found.items()}}))


if __name__ == "__main__":
    main()
