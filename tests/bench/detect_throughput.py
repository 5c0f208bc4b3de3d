"""Images a second of `w2w detect` in steady state against a bare loop with the same decoder and model. Last line: JSON.

python -m tests.bench.detect_throughput [--rows 2000] [--repeat 5] [--quick]

The bare loop is as many processes as the job has workers, each with its photos in memory, doing nothing but decode and detect.
The job reads Parquet, cuts a crop a garment and one a person, and writes and commits Delta besides. Both run in turn; steady
state is from the first tenth of the rows on.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from jobs import detect
from w2w import ids, schema
from w2w.garments.detector import Detector, DetectorConfig
from w2w.images.decode import DecodeLimits, decode_many
from w2w.images.resize import shrink
from w2w.runtime import run as runner
from w2w.runtime.cluster import RayConfig
from w2w.runtime.memory import keep_memory
from w2w.runtime.stage import Pool
from w2w.table.sink import Lineage, Output, append_rows

DATA = Path(os.environ.get("W2W_DATA", Path(__file__).parents[2] / ".." / "shared" / "data")) / "street"
CORES = os.cpu_count()
BATCH, LONGEST_PX = 8, 1600


def images(num: int) -> list[bytes]:
    """``num`` different files: real photos, each with a comment of its own."""
    files = sorted((DATA / "photos").glob("*.jpg"))
    if not files:
        sys.exit(f"no street photos at {DATA}: set W2W_DATA")
    real = [f.read_bytes() for f in files]
    return [real[i % len(real)][:2] + b"\xff\xfe\x00\x0a" + b"%08d" % i + real[i % len(real)][2:] for i in range(num)]


def fill(store: str, blobs: list[bytes]) -> None:
    for start in range(0, len(blobs), 512):
        part = blobs[start : start + 512]
        n = len(part)
        size = [pa.array([side] * n, pa.int32()) for side in (550, 830)]
        columns = [[ids.image_id(b) for b in part], part, *size, ["jpeg"] * n]
        columns += [pa.array([0] * n, pa.int64()), ["x"] * n, pa.array([0] * n, schema.TIME)]
        rows = pa.table(columns, schema=schema.IMAGES.schema)
        append_rows(
            store, Output(schema.IMAGES, unique=schema.IMAGE_ID), rows, Lineage("fill", "fill", "fill", "1", {}, {}, "x")
        )


def ours(store: str) -> float:
    seen: list[tuple[float, int]] = []

    class Watch(runner.Progress):
        def update(self, done: int, rejected: int) -> None:
            seen.append((time.monotonic(), done))

    kept, runner.Progress = runner.Progress, Watch
    for table in ("garments", "looks"):
        shutil.rmtree(Path(store) / table, ignore_errors=True)
    try:
        pool = Pool(workers=CORES, num_cpus=1, batch_rows=BATCH)
        detect.main(detect.Config(store=store, pool=pool, item_rows=64, longest_px=LONGEST_PX, ray=RayConfig(num_cpus=CORES)))
    finally:
        runner.Progress = kept
    first = next(s for s in seen if s[1] >= seen[-1][1] / 10)
    return (seen[-1][1] - first[1]) / (seen[-1][0] - first[0])


def loop(blobs: list[bytes], results) -> None:
    keep_memory()
    detector = Detector(DetectorConfig())
    start, rows = None, 0
    for i in range(0, len(blobs), BATCH):
        if i >= len(blobs) / 10 and start is None:
            start, rows = time.monotonic(), i
        detector([shrink(image, LONGEST_PX) for image in decode_many(blobs[i : i + BATCH], DecodeLimits(), LONGEST_PX)])
    results.put((len(blobs) - rows) / (time.monotonic() - start))


def bare(blobs: list[bytes]) -> float:
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    workers = [spawn.Process(target=loop, args=(blobs[i::CORES], results)) for i in range(CORES)]
    for worker in workers:
        worker.start()
    rates = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    return sum(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="300 rows, once")
    options = parser.parse_args()
    rows, repeat = (300, 1) if options.quick else (options.rows, options.repeat)
    blobs = images(rows)
    Detector(DetectorConfig())  # converts the model once
    with tempfile.TemporaryDirectory() as folder:
        fill(folder, blobs)
        pairs = []
        for i in range(repeat):
            pairs.append((ours(folder), bare(blobs)))
            print(f"{i}: job {pairs[-1][0]:.1f}/s, bare loop {pairs[-1][1]:.1f}/s", file=sys.stderr)
    result = {
        "name": "detect throughput",
        "ratio": round(statistics.median(a / b for a, b in pairs), 3),
        "value": round(statistics.median(a for a, _ in pairs), 1),
        "unit": "images/s",
        "peer": "bare loop: same decoder, model and threads, no crops",
        "rows": rows,
        "repeat": repeat,
        "machine": f"{CORES} cores",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
