"""What a night of similar products costs where 1 % of the catalog changed, against all lists. Last line: JSON.

python -m tests.bench.similar_growth [--rows 20000 50000 100000] [--dim 128] [--quick]

Stub vectors, seven categories, designs in three colours; each size runs in a process of its own, the searches in it too. On the
night a third of a percent each is withdrawn, new, and has another picture. CPU seconds of the whole job with its tables;
``ratio`` is the night's over those of all lists at the largest size (medians of ``--turns`` nights), ``growth`` how much more
the largest size costs than the smallest, for ``rows`` times the rows.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa

from tests.bench.mining_growth import LINEAGE
from w2w import schema
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version
from w2w.similar import flow_search, job
from w2w.table.parts import Output
from w2w.table.sink import append_rows

CATEGORIES = np.array(["top", "bottom", "shoes", "dress", "bag", "hat", "outer"])
COLOURS = np.array(["red", "green", "blue"])
NIGHT = 0.01
_AT_ONCE = 20_000


def append_products(store: str, numbers: np.ndarray, images: np.ndarray, active: bool, at: int) -> None:
    n = len(numbers)
    filled = {
        schema.PRODUCT_ID: pa.array(np.char.mod("p%09d", numbers)),
        schema.IMAGE_ID: pa.array(np.char.mod("i%09d", images)),
    }
    filled |= {schema.CATEGORY: pa.array(CATEGORIES[numbers % 7]), schema.ACTIVE: pa.repeat(active, n)}
    filled[schema.TITLE] = pa.array(np.char.mod("Long linen dress %d", numbers // 21 * 7 + numbers % 7))
    colours = pa.array(COLOURS[numbers // 7 % 3])
    filled[schema.ATTRIBUTES] = pa.MapArray.from_arrays(np.arange(n + 1, dtype=np.int32), pa.repeat("colour", n), colours)
    filled[schema.FETCHED_AT] = pa.repeat(pa.scalar(at, schema.TIME), n)
    columns = [filled.get(f.name, pa.nulls(n, f.type) if f.nullable else pa.repeat("x", n)) for f in schema.PRODUCTS.schema]
    append_rows(store, Output(schema.PRODUCTS), pa.table(columns, schema=schema.PRODUCTS.schema), LINEAGE)


def append_vectors(store: str, images: np.ndarray, dim: int, seed: int) -> None:
    rng, version = np.random.default_rng(seed), model_version(EncoderConfig())
    for start in range(0, len(images), _AT_ONCE):
        names = pa.array(np.char.mod("i%09d", images[start : start + _AT_ONCE]))
        vectors = rng.standard_normal((len(names), dim)).astype(np.float32)
        offsets = pa.array(np.arange(0, vectors.size + 1, dim, dtype=np.int32))
        columns = [names, pa.repeat("image", len(names)), pa.repeat(version, len(names))]
        columns.append(pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel())))
        append_rows(store, Output(schema.EMBEDDINGS), pa.table(columns, schema=schema.EMBEDDINGS.schema), LINEAGE)


def measured(rows: int, dim: int, turns: int) -> dict:
    """CPU seconds of all lists and of each night."""
    flow_search._PAIRS_HERE = rows * rows
    with tempfile.TemporaryDirectory() as store:
        numbers, third = np.arange(rows), max(1, round(rows * NIGHT / 3))
        append_products(store, numbers, numbers, True, 0)
        append_vectors(store, numbers, dim, 0)
        found: dict[str, list] = {"whole_s": [], "night_s": [], "computed": []}
        for night in range(turns + 1):
            if night:
                gone, moved = numbers[:third], numbers[third : 2 * third]
                new = np.arange(third) + 10 * rows * night
                images = np.concatenate([moved + 5 * rows * night, new])
                append_products(store, gone, gone, False, night)
                append_products(store, np.concatenate([moved, new]), images, True, night)
                append_vectors(store, images, dim, night)
                numbers = np.concatenate([numbers[2 * third :], moved, new])
            began = time.process_time()
            result = job.main(job.Config(store=store))
            took = time.process_time() - began
            assert result.products == rows
            assert result.whole == (night == 0)
            found["night_s" if night else "whole_s"].append(took)
            found["computed"].append(result.computed)
        return found


def one(rows: int, dim: int, turns: int) -> dict:
    """In a process of its own."""
    command = [
        sys.executable,
        "-m",
        "tests.bench.similar_growth",
        "--alone",
        str(rows),
        "--dim",
        str(dim),
        "--turns",
        str(turns),
    ]
    alone = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # as a worker: threads that wait for each other spin
    where = Path(__file__).parents[2]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=where, env=alone).stdout
    found = json.loads(said.strip().splitlines()[-1])
    whole, night = median(found["whole_s"]), median(found["night_s"])
    print(f"{rows:,} rows: all {whole:.1f} s, a night {night:.2f} s, lists computed {found['computed']}", file=sys.stderr)
    return {
        "whole_s": round(whole, 2),
        "night_s": round(night, 2),
        "share": round(night / whole, 4),
        "computed": found["computed"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 50_000, 100_000])
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--turns", type=int, default=5, help="nights")
    parser.add_argument("--quick", action="store_true", help="5,000 and 10,000 rows, two nights")
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(measured(options.alone, options.dim, options.turns)))
        return
    sizes, turns = ([5_000, 10_000], 2) if options.quick else (sorted(options.rows), options.turns)
    found = {rows: one(rows, options.dim, turns) for rows in sizes}
    first, last = found[sizes[0]], found[sizes[-1]]
    growth = {part: round(last[part] / first[part], 1) for part in ("whole_s", "night_s")}
    result = {
        "name": "similar_growth",
        "ratio": last["share"],
        "value": sizes[-1],
        "unit": "rows",
        "peer": "all lists computed",
    }
    result |= {"rows": round(sizes[-1] / sizes[0], 1), "growth": growth, "dim": options.dim}
    print(json.dumps(result | {"machine": f"{os.cpu_count()} cores", "sizes": {f"{n:,}": f for n, f in found.items()}}))


if __name__ == "__main__":
    main()
