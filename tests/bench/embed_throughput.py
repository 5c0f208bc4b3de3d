"""Images a second of `w2w embed` in steady state against a bare loop with the same decoder, model and threads. Last line: JSON.

python -m tests.bench.embed_throughput [--rows 20000] [--repeat 5] [--quick]

The bare loop is as many processes as the job has workers, each with its images in memory, doing nothing but decode, resize and
encode. The job reads Parquet and writes and commits Delta besides. Both run in turn; steady state is from the first tenth of
the rows on. ``torch_eager`` is the same network in torch as it comes, one process with all cores.
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

import numpy as np
import pyarrow as pa

from jobs import embed
from w2w import ids, schema
from w2w.images.decode import DecodeLimits, decode_many
from w2w.models.encoder import EncoderConfig, load_encoder
from w2w.runtime import run as runner
from w2w.runtime.cluster import RayConfig
from w2w.runtime.memory import keep_memory
from w2w.runtime.stage import Pool
from w2w.table.sink import Lineage, Output, append_rows

DATA = Path(os.environ.get("W2W_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
CORES = os.cpu_count()
BATCH = 64


def images(num: int) -> list[bytes]:
    """``num`` different files: real photos, each with a comment of its own."""
    files = sorted((DATA / "catalog" / "images").glob("*.jpg")) + sorted((DATA / "user_photos" / "images").glob("*.jpg"))
    if not files:
        sys.exit(f"no real images at {DATA}: set W2W_DATA")
    real = [f.read_bytes() for f in files]
    return [real[i % len(real)][:2] + b"\xff\xfe\x00\x0a" + b"%08d" % i + real[i % len(real)][2:] for i in range(num)]


def fill(store: str, blobs: list[bytes]) -> None:
    for start in range(0, len(blobs), 1024):
        part = blobs[start : start + 1024]
        n = len(part)
        columns = [[ids.image_id(b) for b in part], part, *[pa.array([1] * n, pa.int32())] * 2, ["jpeg"] * n]
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
    shutil.rmtree(Path(store) / "embeddings", ignore_errors=True)
    try:
        pool = Pool(workers=CORES, num_cpus=1, batch_rows=BATCH)
        embed.main(embed.Config(store=store, pool=pool, item_rows=256, ray=RayConfig(num_cpus=CORES)))
    finally:
        runner.Progress = kept
    first = next(s for s in seen if s[1] >= seen[-1][1] / 10)
    return (seen[-1][1] - first[1]) / (seen[-1][0] - first[0])


def loop(blobs: list[bytes], results) -> None:
    keep_memory()
    encoder = load_encoder(EncoderConfig())
    start, rows = None, 0
    for i in range(0, len(blobs), BATCH):
        if i >= len(blobs) / 10 and start is None:
            start, rows = time.monotonic(), i
        decoded = decode_many(blobs[i : i + BATCH], DecodeLimits(), encoder.input.resize_px)
        encoder.encode(np.stack([encoder.prepare(image) for image in decoded]))
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


def eager(blobs: list[bytes], results) -> None:
    import torch

    from w2w.models import sources

    torch.set_num_threads(CORES)
    source = sources.find("efficientnet-lite0", None, False)
    network = source.network().eval()
    encoder = load_encoder(EncoderConfig())
    batches = [np.stack([encoder.prepare(i) for i in decode_many(blobs[k : k + BATCH])]) for k in range(0, len(blobs), BATCH)]
    start = None
    for i, batch in enumerate(batches):
        if i == 1:
            start = time.monotonic()
        with torch.inference_mode():
            network((torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous().float() / 255 - 0.5) / 0.5)
    results.put(sum(len(b) for b in batches[1:]) / (time.monotonic() - start))


def in_process(function, *args) -> float:
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    worker = spawn.Process(target=function, args=(*args, results))
    worker.start()
    rate = results.get()
    worker.join()
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="1,000 rows, once")
    options = parser.parse_args()
    rows, repeat = (1000, 1) if options.quick else (options.rows, options.repeat)
    blobs = images(rows)
    load_encoder(EncoderConfig())  # converts the model once
    with tempfile.TemporaryDirectory() as folder:
        fill(folder, blobs)
        pairs = []
        for i in range(repeat):
            pairs.append((ours(folder), bare(blobs)))
            print(f"{i}: job {pairs[-1][0]:.1f}/s, bare loop {pairs[-1][1]:.1f}/s", file=sys.stderr)
    torch_eager = in_process(eager, blobs[: 4 * BATCH])
    job = statistics.median(a for a, _ in pairs)
    result = {
        "name": "embed throughput",
        "ratio": round(statistics.median(a / b for a, b in pairs), 3),
        "value": round(job, 1),
        "unit": "images/s",
        "peer": "bare loop: same decoder, model and threads",
        "rows": rows,
        "repeat": repeat,
        "torch_eager": round(torch_eager, 1),
        "times_torch_eager": round(job / torch_eager, 2),
        "machine": f"{CORES} cores",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
