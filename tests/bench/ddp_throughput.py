"""Pairs a second of `w2w train`'s loop under Ray Train, with 1 and 2 processes, against a bare torch loop. Last line: JSON.

python -m tests.bench.ddp_throughput [--steps 40] [--pairs 8] [--repeat 3] [--quick]

Both train the default encoder on the same pictures with the same batches, augmentation and loss, one thread a process, batches
made ahead in a thread; the bare loop is spawned processes under torch.distributed with AdamW and nothing else: no Ray, running
average, clipping, schedule, checkpoint or figures. Steady state: from the first tenth of the steps on. ``waits``: share of that
time in which the loop stood for its next batch.
"""

import argparse
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from tests.bench.throughput import CORES, in_processes
from tests.cluster.paired import Shot, fill, jpeg
from w2w.engine.cluster import RayConfig, connect
from w2w.engine.train import train
from w2w.engine.training import Workers
from w2w.memory import keep_memory
from w2w.models.config import EncoderConfig
from w2w.training.config import LoopConfig
from w2w.training.encoders.config import LearnConfig
from w2w.training.encoders.flow import make_training, pair_table
from w2w.wardrobe.garment import make_garment
from w2w.wardrobe.photo import thumbnail

NUM_PRODUCTS, SIZE_PX = 64, 300


def shots() -> Iterator[Shot]:
    """Rendered garments, and the same with noise on them for those that are worn."""
    rng = np.random.default_rng(0)
    for i in range(NUM_PRODUCTS):
        plain = np.asarray(thumbnail(make_garment(1, i), SIZE_PX))
        worn = np.clip(plain + rng.normal(0, 12, plain.shape), 0, 255).astype(np.uint8)
        split = "val" if i < 2 else "train"
        yield Shot(f"p{i}", "top", split, jpeg(worn), jpeg(plain))


def rate_of(times: list[float], waits: list[float], pairs: int) -> dict:
    """Of one process: ``times`` at which batches came, seconds that were waited for each."""
    first = max(1, len(times) // 10)
    seconds = times[-1] - times[first]
    return {"rate": pairs * (len(times) - 1 - first) / seconds, "waits": sum(waits[first + 1 :]) / seconds}


def make_watched(folder: str, pairs: int, make: Callable, rank: int, num_workers: int):
    """The same training; at its end each process writes how fast it was."""
    from w2w.training import loop

    ahead = loop._ahead

    def watched(*args) -> Iterator:
        batches, times, waits = ahead(*args), [], []
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            times.append(time.monotonic())
            waits.append(times[-1] - asked)
            if len(times) == steps:
                Path(folder, f"{rank}.json").write_text(json.dumps(rate_of(times, waits, pairs)))
            yield batch

    training = make(rank, num_workers)
    steps = training.config.steps
    loop._ahead = watched
    return training


def ours(make: Callable, pairs: int, num_workers: int) -> tuple[float, float]:
    """Pairs a second of all processes, and the share of the time that the slowest waited."""
    with tempfile.TemporaryDirectory() as folder:
        watched = partial(make_watched, folder, pairs, make)
        train(watched, Workers(num_workers=num_workers), f"{folder}/place", Path(folder, "out"))
        found = [json.loads(p.read_text()) for p in Path(folder).glob("*.json")]
    return sum(f["rate"] for f in found), max(f["waits"] for f in found)


def bare(make: Callable, pairs: int, num_workers: int) -> float:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return in_processes(_bare, [(make, pairs, rank, num_workers, port) for rank in range(num_workers)])


def _bare(make: Callable, pairs: int, rank: int, num_workers: int, port: int, results) -> None:
    import torch
    from torch import distributed, nn

    keep_memory()
    torch.set_num_threads(1)
    training = make(rank, num_workers)
    recipe, config = training.recipe, training.config
    network = recipe.network
    if num_workers > 1:
        distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=num_workers)
        network = nn.parallel.DistributedDataParallel(network, find_unused_parameters=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    recipe.train_mode(recipe.network)

    def batch(number: int):
        rows = training.batches(number)
        return recipe.prepare(rows, [np.random.default_rng([rank, number, i]) for i in range(len(rows))])

    times, waits = [], []
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(batch, 0)
        for step in range(config.steps):
            asked = time.monotonic()
            ready = coming.result()
            times.append(time.monotonic())
            waits.append(times[-1] - asked)
            if step + 1 < config.steps:
                coming = thread.submit(batch, step + 1)
            optimizer.zero_grad(set_to_none=True)
            sum(recipe.losses(network, ready).values()).backward()
            optimizer.step()
    results.put(rate_of(times, waits, pairs)["rate"])
    if num_workers > 1:
        distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=8, help="of a batch of one process")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="12 steps, once")
    options = parser.parse_args()
    steps, repeat = (12, 1) if options.quick else (options.steps, options.repeat)
    os.environ["OMP_NUM_THREADS"] = "1"
    root = str(Path(__file__).parents[2])  # workers import what this file defines
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    loop = LoopConfig(steps=steps, measure_every=steps, checkpoint_every=steps, warmup_steps=1)
    result: dict[str, object] = {"pairs": options.pairs, "steps": steps, "repeat": repeat, "machine": f"{CORES} cores"}
    with tempfile.TemporaryDirectory() as folder:
        table = pair_table(fill(f"{folder}/store", shots()), None, None)
        learn = LearnConfig(batch_pairs=options.pairs, val_pairs=2)
        make = partial(make_training, table, "encoder", EncoderConfig(), learn, loop)
        connect(RayConfig(num_cpus=max(2, CORES)))
        for num_workers in (1, 2):
            turns = []
            for i in range(repeat):
                (rate, waits), other = ours(make, options.pairs, num_workers), bare(make, options.pairs, num_workers)
                turns.append((rate, other, waits))
                print(f"{num_workers} processes, {i}: {rate:.2f}/s, bare {other:.2f}/s, waits {waits:.3f}", file=sys.stderr)
            result[f"ratio_{num_workers}"] = round(statistics.median(a / b for a, b, _ in turns), 3)
            result[f"pairs_per_s_{num_workers}"] = round(statistics.median(a for a, _, _ in turns), 2)
            result[f"waits_{num_workers}"] = round(statistics.median(w for _, _, w in turns), 4)
    print(json.dumps({"name": "ddp throughput", "peer": "bare torch loop", **result}))


if __name__ == "__main__":
    main()
