"""How time and memory of `w2w check` grow with the catalog. Last line: JSON.

python -m tests.bench.check_growth [--rows 50000 500000] [--dim 128] [--quick]

Stub products of seven categories with vectors, pictures that were measured, and faults in 3 % of them; each size in a process
of its own. CPU seconds of the job without measuring new pictures, and the process's peak memory; ``ratio`` is the growth of the
seconds over that of the rows.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.bench.mining_growth import LINEAGE
from tests.bench.similar_growth import append_vectors
from w2w import ids, schema
from w2w.check import job, stage
from w2w.images.decode import DecodeLimits
from w2w.table.parts import Output
from w2w.table.sink import append_rows

CATEGORIES = np.array(["top", "bottom", "shoes", "dress", "bag", "hat", "outer"])
_AT_ONCE = 50_000


def write(store: str, table: schema.Table, filled: dict[str, pa.Array], num: int) -> None:
    columns = [filled.get(f.name, pa.nulls(num, f.type) if f.nullable else pa.repeat("x", num)) for f in table.schema]
    append_rows(
        store, Output(table), pa.table([c.cast(f.type) for c, f in zip(columns, table.schema)], schema=table.schema), LINEAGE
    )


def fill(store: str, rows: int, dim: int) -> None:
    for start in range(0, rows, _AT_ONCE):
        numbers = np.arange(start, min(rows, start + _AT_ONCE))
        num, rng = len(numbers), np.random.default_rng(start)
        images = pa.array(np.char.mod("i%09d", np.where(rng.random(num) < 0.01, numbers // 2, numbers)))
        filled = {schema.PRODUCT_ID: pa.array(np.char.mod("p%09d", numbers)), schema.IMAGE_ID: images}
        filled |= {schema.CATEGORY: pa.array(CATEGORIES[numbers % 7]), schema.ACTIVE: pa.repeat(True, num)}
        price = rng.lognormal(4, 0.6, num) * np.where(rng.random(num) < 0.01, 1000, 1)
        filled |= {schema.PRICE: pa.array(price), schema.TITLE: pa.array(np.char.mod("A dress %d", numbers))}
        filled |= {schema.URL: pa.array(np.char.mod("https://shop.example/%d", numbers))}
        filled[schema.FETCHED_AT] = pa.repeat(pa.scalar(0, schema.TIME), num)
        write(store, schema.PRODUCTS, filled, num)
        names = pa.array(np.char.mod("i%09d", numbers))
        sides, hashes = pa.repeat(800, num), pa.array(rng.integers(-(2**62), 2**62, num))
        told = {schema.IMAGE_ID: names, schema.BYTES: pa.repeat(b"", num), schema.WIDTH: sides, schema.HEIGHT: sides}
        told |= {schema.PHASH: hashes, schema.FETCHED_AT: filled[schema.FETCHED_AT]}
        write(store, schema.IMAGES, told, num)
        sharp = pa.array(np.where(rng.random(num) < 0.01, 10.0, 300.0))
        told = {schema.IMAGE_ID: names, schema.SHARPNESS: sharp, schema.CONTRAST: pa.repeat(2000.0, num)}
        told |= {schema.FILLED: pa.repeat(0.4, num), schema.GRID: pa.repeat(bytes(192), num)}
        told[schema.STAGE_VERSION] = pa.repeat(ids.digest(stage.CODE, DecodeLimits()), num)
        write(store, schema.QUALITY, told, num)
    append_vectors(store, np.arange(rows), dim, 0)


def peak_mb() -> int:
    """Of this process; getrusage counts what its parent had when it was forked."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024


def one(store: str) -> dict:
    before, began = peak_mb(), time.process_time()
    result = job.main(job.Config(store=store))
    seconds = round(time.process_time() - began, 1)
    return {"seconds": seconds, "peak_mb": peak_mb(), "before_mb": before, "findings": sum(result.findings.values())}


def alone(store: str) -> dict:
    command = [sys.executable, "-m", "tests.bench.check_growth", "--alone", store]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    where = Path(__file__).parents[2]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=where, env=environment).stdout
    return json.loads(said.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 500_000])
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--quick", action="store_true", help="5,000 and 20,000 rows")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(one(options.alone)))
        return
    sizes, found = [5_000, 20_000] if options.quick else sorted(options.rows), {}
    for rows in sizes:
        with tempfile.TemporaryDirectory() as store:
            fill(store, rows, options.dim)
            found[rows] = alone(store)
        print(f"{rows:,}", found[rows], file=sys.stderr)
    grown = found[sizes[-1]]["seconds"] / found[sizes[0]]["seconds"]
    result = {"name": "check_growth", "ratio": round(grown / (sizes[-1] / sizes[0]), 2), "value": sizes[-1], "unit": "rows"}
    result |= {"peer": "seconds as rows", "dim": options.dim, "machine": f"{os.cpu_count()} cores"}
    print(json.dumps(result | {"sizes": {f"{n:,}": f for n, f in found.items()}}))


if __name__ == "__main__":
    main()
