"""A night on which nothing changed, at a million products: seconds and memory of ingest and embed. Last line: JSON.

python -m tests.bench.no_change [--rows 1000000] [--quick]

Keys are synthetic, images are web addresses (so that nothing is listed), vectors have 4 dimensions: neither is read.
``ratio`` is the bound of 60 s over the seconds needed.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from w2w import ids, schema
from w2w.ingest.feed import FeedConfig, read_feed
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version
from w2w.table.parts import Output
from w2w.table.sink import Lineage, append_rows

FEED = "main"
BOUND_S, BOUND_MB = 60.0, 2000.0
LINEAGE = Lineage("fill", "fill", "fill", "1", {}, {}, "x")


def fill(folder: Path, rows: int) -> str:
    """Feed and tables as after a night that computed everything."""
    number = np.arange(rows).astype(str)
    feed = pa.table(
        {
            "product_id": np.char.add("p", number),
            "title": np.char.add("product ", number),
            "category": np.array(["top", "bottom", "shoes"])[np.arange(rows) % 3],
            "image": np.char.add(np.char.add("https://shop.example/i/", number), ".jpg"),
        }
    )
    pyarrow.csv.write_csv(feed, folder / "feed.csv")
    store, version, done = str(folder / "tables"), model_version(EncoderConfig()), 0
    for batch in read_feed(FeedConfig(uri=str(folder / "feed.csv")), 100_000):
        n = batch.rows.num_rows
        image_ids = pa.array([ids.image_id(b"%d" % i) for i in range(done, done + n)])
        done += n
        now = pa.repeat(pa.scalar(0, schema.TIME), n)
        columns = {schema.IMAGE_ID: image_ids, schema.ACTIVE: pa.repeat(True, n), schema.FETCHED_AT: now}
        columns[schema.FEED] = pa.repeat(FEED, n)
        products = batch.rows
        for name, values in columns.items():
            products = products.append_column(name, values)
        append_rows(store, Output(schema.PRODUCTS), products, LINEAGE)
        ones = pa.repeat(pa.scalar(1, pa.int32()), n)
        blank = [
            pa.repeat(pa.scalar(b"x", pa.binary()), n),
            ones,
            ones,
            pa.repeat("jpeg", n),
            pa.repeat(0, n),
            pa.repeat("x", n),
            now,
        ]
        append_rows(store, Output(schema.IMAGES), pa.table([image_ids, *blank], schema=schema.IMAGES.schema), LINEAGE)
        offsets = pa.array(np.arange(0, 4 * n + 1, 4, dtype=np.int32))
        vectors = pa.ListArray.from_arrays(offsets, pa.array(np.full(4 * n, 0.5, np.float32)))
        columns = [image_ids, pa.repeat("image", n), pa.repeat(version, n), vectors]
        append_rows(store, Output(schema.EMBEDDINGS), pa.table(columns, schema=schema.EMBEDDINGS.schema), LINEAGE)
    return store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="100,000 rows")
    options = parser.parse_args()
    rows = 100_000 if options.quick else options.rows
    root, seconds = Path(__file__).parents[2], {}
    with tempfile.TemporaryDirectory() as temporary:
        store = fill(Path(temporary), rows)
        for job, arguments in (("ingest", [f"--feed.uri={temporary}/feed.csv", "--fetch.recheck_nights=0"]), ("embed", [])):
            start = time.monotonic()
            command = [sys.executable, str(root / "jobs" / f"{job}.py"), f"--store={store}", *arguments]
            done = subprocess.run(command, cwd=root, capture_output=True, text=True)
            seconds[job] = time.monotonic() - start
            if done.returncode or f"{rows:,}" not in done.stdout.split("already done")[1].splitlines()[0]:
                sys.exit(f"{job} did not skip {rows:,} rows:\n{done.stdout}{done.stderr}")
            print(f"{job}: {seconds[job]:.1f} s", file=sys.stderr)
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
    total = sum(seconds.values())
    result = {
        "name": "no-change night",
        "ratio": round(BOUND_S / total, 2),
        "value": round(total, 1),
        "unit": "s",
        "peer": f"bound of {BOUND_S:.0f} s and {BOUND_MB:.0f} MB",
        "rows": rows,
        "peak_mb": round(peak_mb),
        "jobs": {k: round(v, 1) for k, v in seconds.items()},
        "machine": f"{os.cpu_count()} cores",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
