"""What the throughput benches share: files, a store of them, a job's steady rate, and a bare loop in as many processes."""

import argparse
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from w2w import ids, schema
from w2w.engine import run as runner
from w2w.memory import keep_memory
from w2w.table.parts import Output
from w2w.table.sink import Lineage, append_rows

DATA = Path(os.environ.get("W2W_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
CORES = os.cpu_count()
_FILES_A_PART = 512


def different_files(files: Sequence[Path], num: int) -> list[bytes]:
    """``num`` different JPEGs: these, each with a comment of its own."""
    if not files:
        sys.exit(f"no real images at {DATA}: set W2W_DATA")
    real = [f.read_bytes() for f in files]
    return [real[i % len(real)][:2] + b"\xff\xfe\x00\x0a" + b"%08d" % i + real[i % len(real)][2:] for i in range(num)]


def fill(store: str, blobs: list[bytes], width: int, height: int) -> None:
    """Table `images` as ingest would leave it."""
    for start in range(0, len(blobs), _FILES_A_PART):
        part = blobs[start : start + _FILES_A_PART]
        n = len(part)
        size = [pa.array([side] * n, pa.int32()) for side in (width, height)]
        columns = [[ids.image_id(b) for b in part], part, *size, ["jpeg"] * n]
        columns += [pa.array([0] * n, pa.int64()), ["x"] * n, pa.array([0] * n, schema.TIME)]
        rows = pa.table(columns, schema=schema.IMAGES.schema)
        append_rows(
            store, Output(schema.IMAGES, unique=schema.IMAGE_ID), rows, Lineage("fill", "fill", "fill", "1", {}, {}, "x")
        )


def steady_rate(job: Callable[[], object]) -> float:
    """Rows a second of a job that runs in this process, from the first tenth of its rows on."""
    seen: list[tuple[float, int]] = []

    class Watch(runner.Progress):
        def update(self, done: int, rejected: int) -> None:
            seen.append((time.monotonic(), done))

    kept, runner.Progress = runner.Progress, Watch
    try:
        job()
    finally:
        runner.Progress = kept
    first = next(s for s in seen if s[1] >= seen[-1][1] / 10)
    return (seen[-1][1] - first[1]) / (seen[-1][0] - first[0])


def bare_rate(make: Callable[[], Callable[[list[bytes]], object]], blobs: list[bytes], batch: int) -> float:
    """Files a second of what ``make`` gives, called on ``batch`` files at a time, in as many processes as there are cores."""
    return in_processes(_loop, [(make, blobs[i::CORES], batch) for i in range(CORES)])


def _loop(make: Callable, blobs: list[bytes], batch: int, results) -> None:
    keep_memory()
    call = make()
    start, rows = None, 0
    for i in range(0, len(blobs), batch):
        if i >= len(blobs) / 10 and start is None:
            start, rows = time.monotonic(), i
        call(blobs[i : i + batch])
    results.put((len(blobs) - rows) / (time.monotonic() - start))


def in_processes(function: Callable, arguments: Sequence[tuple]) -> float:
    """Sum of the rates that ``function(*arguments[i], results)`` puts into ``results``, in a new process for each i."""
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    workers = [spawn.Process(target=function, args=(*a, results)) for a in arguments]
    for worker in workers:
        worker.start()
    rates = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    return sum(rates)


def options_of(doc: str, rows: int, quick_rows: int) -> tuple[int, int]:
    """Rows and repetitions, from the command line."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=rows)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help=f"{quick_rows:,} rows, once")
    options = parser.parse_args()
    return (quick_rows, 1) if options.quick else (options.rows, options.repeat)


def in_turn(job: Callable[[], float], bare: Callable[[], float], repeat: int, other: str = "bare loop") -> dict:
    """Both, ``repeat`` times one after the other: the median of the job's rate, and of the ratio to the other's."""
    pairs = []
    for i in range(repeat):
        pairs.append((job(), bare()))
        print(f"{i}: job {pairs[-1][0]:.1f}/s, {other} {pairs[-1][1]:.1f}/s", file=sys.stderr)
    return {
        "ratio": round(statistics.median(a / b for a, b in pairs), 3),
        "value": round(statistics.median(a for a, _ in pairs), 1),
        "unit": "images/s",
        "repeat": repeat,
        "machine": f"{CORES} cores",
    }
