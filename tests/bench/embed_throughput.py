"""Images a second of `w2w embed` in steady state against a bare loop with the same decoder, model and threads. Last line: JSON.

python -m tests.bench.embed_throughput [--rows 20000] [--repeat 5] [--quick]

The bare loop is as many processes as the job has workers, each with its images in memory, doing nothing but decode, resize and
encode. The job reads Parquet and writes and commits Delta besides. Both run in turn; steady state is from the first tenth of
the rows on. ``torch_eager`` is the same network in torch as it comes, one process with all cores;
``times_lite0`` the job's rate over that of the same job with the default before, in turn, too.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from tests.bench.throughput import (
    CORES,
    DATA,
    bare_rate,
    different_files,
    fill,
    in_processes,
    in_turn,
    options_of,
    steady_rate,
)
from w2w.engine.cluster import RayConfig
from w2w.images.decode import DecodeLimits, decode_many
from w2w.models import job as embed
from w2w.models.config import LITE0, EncoderConfig
from w2w.models.encoder import load_encoder
from w2w.stage import Pool

BATCH = 64


def ours(store: str, encoder: EncoderConfig = EncoderConfig()) -> float:
    shutil.rmtree(Path(store) / "embeddings", ignore_errors=True)
    pool = Pool(workers=CORES, num_cpus=1, batch_rows=BATCH)
    config = embed.Config(store=store, encoder=encoder, pool=pool, item_rows=256, ray=RayConfig(num_cpus=CORES))
    return steady_rate(partial(embed.main, config))


def bare() -> Callable[[list[bytes]], object]:
    encoder = load_encoder(EncoderConfig())

    def encode(blobs: list[bytes]) -> np.ndarray:
        decoded = decode_many(blobs, DecodeLimits(), encoder.input.resize_px)
        return encoder.encode(np.stack([encoder.prepare(image) for image in decoded]))

    return encode


def eager(blobs: list[bytes], results) -> None:
    import torch

    from w2w.models import sources

    torch.set_num_threads(CORES)
    network = sources.of(EncoderConfig()).network().eval()
    encoder = load_encoder(EncoderConfig())
    batches = [np.stack([encoder.prepare(i) for i in decode_many(blobs[k : k + BATCH])]) for k in range(0, len(blobs), BATCH)]
    start = None
    for i, batch in enumerate(batches):
        if i == 1:
            start = time.monotonic()
        with torch.inference_mode():
            network((torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous().float() / 255 - 0.5) / 0.5)
    results.put(sum(len(b) for b in batches[1:]) / (time.monotonic() - start))


def main() -> None:
    rows, repeat = options_of(__doc__, 20_000, 1000)
    files = sorted((DATA / "catalog" / "images").glob("*.jpg")) + sorted((DATA / "user_photos" / "images").glob("*.jpg"))
    blobs = different_files(files, rows)
    before = EncoderConfig(LITE0)
    for config in (EncoderConfig(), before):
        load_encoder(config)  # converts the model once
    with tempfile.TemporaryDirectory() as folder:
        fill(folder, blobs, 1, 1)
        result = in_turn(partial(ours, folder), partial(bare_rate, bare, blobs, BATCH), repeat)
        lite0 = in_turn(partial(ours, folder), partial(ours, folder, before), repeat, LITE0)
    torch_eager = in_processes(eager, [(blobs[: 4 * BATCH],)])
    result |= {"torch_eager": round(torch_eager, 1), "times_torch_eager": round(result["value"] / torch_eager, 2)}
    result["times_lite0"] = lite0["ratio"]
    peer = "bare loop: same decoder, model and threads"
    print(json.dumps({"name": "embed throughput", "peer": peer, "rows": rows} | result))


if __name__ == "__main__":
    main()
