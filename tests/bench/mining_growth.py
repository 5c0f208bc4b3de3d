"""How mining grows with the rows: 10,000, 100,000 and 1,000,000 of them. Last line: JSON.

python -m tests.bench.mining_growth [--rows 1000000] [--questions deduplicate split] [--quick]

Rows are synthetic and written straight into tables; no image is decoded. A question is one job, run on what ``FILL`` wrote, in
a process and on a local Ray of its own, which runs already. For every size: seconds (``wall_s``), CPU seconds of driver and
workers (``cpu_s``), and the most memory that the driver and one worker had of their own; what they share lies in Ray's object
store, as large as it was made, and on disk beyond. ``ratio`` of a question is CPU seconds a row at the largest size over those
at the smallest that took half a second: 1 is linear. Where two cores share one, a CPU second is worth less when both work.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.bench.pair_growth import Watch
from w2w import ids, schema
from w2w.engine.cluster import RayConfig, connect
from w2w.images.decode import DecodeLimits
from w2w.mining.duplicates.fingerprints import fingerprint_version
from w2w.table.parts import Output
from w2w.table.sink import Lineage, append_rows

LINEAGE = Lineage("fill", "fill", "fill", "1", {}, {}, "x")
BASE_ROWS = 100
LEAST_CPU_S = 0.5
_AT_ONCE = 50_000
_SHARE_OF_COPIES = 0.05
_DIMS = 6  # cells a side of a picture before it is blown up to a grid


def image_ids(rows: int) -> pa.Array:
    return pa.array([ids.image_id(b"%d" % i) for i in range(rows)])


def fill_fingerprints(store: str, rows: int) -> None:
    """Images and their fingerprints: pictures of 6 x 6 random colours, one in twenty a noisy copy of another."""
    version, names = fingerprint_version(DecodeLimits()), image_ids(rows)
    for start in range(0, rows, _AT_ONCE):
        n = min(_AT_ONCE, rows - start)
        rng = np.random.default_rng([1, start])
        cells = rng.integers(0, 256, (n, 3, _DIMS, _DIMS)).astype(np.float32)
        copies = int(n * _SHARE_OF_COPIES)
        hashes = rng.integers(-(2**63), 2**63 - 1, (2, n))
        hashes[:, :copies] = hashes[:, copies : 2 * copies]
        cells[:copies] = cells[copies : 2 * copies] + rng.normal(0, 1, (copies, 3, _DIMS, _DIMS))
        at = np.clip((np.arange(32) + 0.5) / 32 * _DIMS - 0.5, 0, _DIMS - 1)
        low = np.minimum(at.astype(int), _DIMS - 2)
        blow = np.zeros((32, _DIMS), np.float32)
        blow[np.arange(32), low], blow[np.arange(32), low + 1] = 1 - (at - low), at - low
        grids = np.clip(blow @ cells @ blow.T, 0, 255).astype(np.uint8).reshape(n, -1)
        some = names.slice(start, n)
        offsets = pa.py_buffer((np.arange(n + 1) * grids.shape[1]).astype(np.int32))
        grid = pa.Array.from_buffers(pa.binary(), n, [None, offsets, pa.py_buffer(grids)])
        columns = [some, pa.array(hashes[0]), pa.array(hashes[1]), grid, pa.repeat(version, n)]
        append_rows(store, Output(schema.FINGERPRINTS), pa.table(columns, schema=schema.FINGERPRINTS.schema), LINEAGE)
        one, now = pa.repeat(pa.scalar(1, pa.int32()), n), pa.repeat(pa.scalar(0, schema.TIME), n)
        blank = [pa.repeat(pa.scalar(b"x", pa.binary()), n), one, one, pa.repeat("jpeg", n), pa.array(hashes[0])]
        columns = [some, *blank, pa.repeat("x", n), now]
        append_rows(store, Output(schema.IMAGES), pa.table(columns, schema=schema.IMAGES.schema), LINEAGE)


def fill_shop(store: str, rows: int) -> None:
    """``rows`` owners: half products (one image in ten near another), half posts with 3 tags, popular products more often."""
    num_products, names, rng = rows // 2, image_ids(rows), np.random.default_rng(2)
    cluster = np.arange(rows)
    cluster[: rows // 10] = np.arange(rows // 10) // 2 * 2
    nothing = [pa.array(np.ones(rows, np.int32)), *(pa.nulls(rows, t) for t in (pa.string(), pa.string(), pa.float32()))]
    columns = [names, names.take(pa.array(cluster)), *nothing]
    append_rows(store, Output(schema.DUPLICATES), pa.table(columns, schema=schema.DUPLICATES.schema), LINEAGE)
    product = pa.array(np.char.add("p", np.arange(num_products).astype(str)))
    filled = {schema.PRODUCT_ID: product, schema.IMAGE_ID: names.slice(0, num_products)}
    append_rows(store, Output(schema.PRODUCTS), _rows(schema.PRODUCTS, filled, num_products), LINEAGE)
    num_posts = rows - num_products
    popular = (num_products * rng.random(3 * num_posts) ** 3).astype(np.int64)
    tags = pa.ListArray.from_arrays(
        pa.array(np.arange(0, 3 * num_posts + 1, 3, dtype=np.int32)), product.take(pa.array(popular))
    )
    post = pa.array(np.char.add("x", np.arange(num_posts).astype(str)))
    filled = {schema.POST_ID: post, schema.IMAGE_ID: names.slice(num_products), schema.PRODUCT_IDS: tags}
    append_rows(store, Output(schema.POSTS), _rows(schema.POSTS, filled, num_posts), LINEAGE)


def _rows(table: schema.Table, filled: dict[str, pa.Array], n: int) -> pa.Table:
    """The columns that matter, and the same in every row for the others."""

    def rest(field: pa.Field) -> pa.Array:
        if field.type == pa.string():
            return pa.repeat("x", n)
        if field.type == pa.bool_():
            return pa.repeat(True, n)
        if field.type == schema.TIME:
            return pa.repeat(pa.scalar(0, schema.TIME), n)
        if pa.types.is_list(field.type):
            return pa.array([[]] * n, field.type)
        return pa.nulls(n, field.type)

    return pa.table([filled.get(f.name, rest(f) if f.name not in filled else None) for f in table.schema], schema=table.schema)


# question (a job) -> what its tables are filled with. A new question is one line here and, where it needs one, its filler.
FILL: dict[str, Callable[[str, int], None]] = {
    "deduplicate": fill_fingerprints,
    "split": fill_shop,
}


def measured(job: str, store: str, watch: Watch) -> dict[str, float]:
    """The job in this process, watched."""
    module = importlib.import_module(f"jobs.{job}")
    began, before, watch.worker_mb, watch.driver_mb = time.monotonic(), watch.cpu_s(), 0.0, 0.0
    module.main(module.Config(store=store))
    took = {"wall_s": time.monotonic() - began, "cpu_s": watch.cpu_s() - before}
    return took | {"worker_mb": watch.worker_mb, "driver_mb": watch.driver_mb}


def one(question: str, sizes: list[int]) -> dict:
    """The question at every size, in this process and on a Ray of its own."""
    connect(RayConfig(num_cpus=2))
    watch, found = Watch(), {}
    for rows in [BASE_ROWS, BASE_ROWS, *sizes]:  # the first one starts the workers
        with tempfile.TemporaryDirectory() as store:
            started("--questions", question, "--rows", str(rows), "--fill", store)
            found[rows] = measured(question, store, watch)
        print(f"{question}, {rows:,} rows: {', '.join(f'{k} {v:.1f}' for k, v in found[rows].items())}", file=sys.stderr)
    base = found.pop(BASE_ROWS)  # Ray and its workers at rest
    spent = {rows: f["cpu_s"] - base["cpu_s"] for rows, f in found.items()}
    cost = {rows: s / rows for rows, s in spent.items() if s >= LEAST_CPU_S or rows == sizes[-1]}
    return {
        "ratio": round(cost[sizes[-1]] / cost[min(cost)], 2),
        "ratio_from": min(cost),
        "seconds": {f"{rows:,}": round(f["wall_s"], 1) for rows, f in found.items()},
        "rows_per_s": {f"{rows:,}": round(rows / f["wall_s"], 1) for rows, f in found.items()},
        "rows_per_cpu_s": {f"{rows:,}": round(1 / c, 1) for rows, c in cost.items()},
        "worker_mb": {f"{rows:,}": round(f["worker_mb"]) for rows, f in found.items()},
        "driver_mb": {f"{rows:,}": round(f["driver_mb"]) for rows, f in found.items()},
    }


def started(*arguments: str) -> str:
    """What this bench says in a process of its own, whose memory is not that of another's."""
    command = [sys.executable, "-m", "tests.bench.mining_growth", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[2]).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="the largest size; the others are a tenth and a hundredth")
    parser.add_argument("--questions", nargs="+", choices=sorted(FILL), default=sorted(FILL))
    parser.add_argument("--quick", action="store_true", help="20,000 rows: minutes")
    parser.add_argument("--fill", help=argparse.SUPPRESS)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    most = 20_000 if options.quick else options.rows
    if options.fill:
        FILL[options.questions[0]](options.fill, most)
        return
    if options.alone:
        print(json.dumps(one(options.questions[0], [most // 100, most // 10, most])))
        return
    results = {}
    for question in options.questions:
        said = started("--alone", "--questions", question, "--rows", str(most))
        results[question] = json.loads(said.strip().splitlines()[-1])
    result = {
        "name": "mining_growth",
        "ratio": max(r["ratio"] for r in results.values()),
        "value": most,
        "unit": "rows",
        "peer": "itself at the least rows that can be measured",
        "machine": f"{os.cpu_count()} cores",
        "questions": results,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
