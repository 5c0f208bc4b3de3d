"""What w2w-fashion costs beside EfficientNet-Lite0: pictures a second of CPU from encoded bytes to vectors, both in turn in
this process; and size and search time of an index of the real pictures, as the planner makes it. The last line is JSON.

python -m tests.bench.fashion_cost [--rows 256] [--repeat 5] [--folder FOLDER] [--quick]

FOLDER is that of fashion_train.py, which has computed the vectors of the index, or computes them there.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.bench.fashion import Vectors
from tests.bench.fashion_rows import PLAIN, read_real
from tests.bench.index_vectors import build_ours, product_rows
from tests.bench.throughput import DATA, different_files, in_turn
from w2w.images.decode import DecodeLimits, decode_many
from w2w.index.spec import IndexConfig
from w2w.memory import keep_memory
from w2w.models.config import FASHION, LITE0, EncoderConfig
from w2w.models.encoder import load_encoder

BATCH, _QUERIES, _K = 64, 200, 10


def rate(name: str, blobs: list[bytes]) -> float:
    """Pictures a second of CPU."""
    encoder = load_encoder(EncoderConfig(name))
    encoder.encode(np.zeros((BATCH, *[encoder.input.size_px] * 2, 3), np.uint8))
    began = time.process_time()
    for start in range(0, len(blobs), BATCH):
        decoded = decode_many(blobs[start : start + BATCH], DecodeLimits(), encoder.input.resize_px)
        encoder.encode(np.stack([encoder.prepare(image) for image in decoded]))
    return len(blobs) / (time.process_time() - began)


def index(name: str, vectors: Vectors, folder: str, repeat: int) -> dict[str, object]:
    """Of all real pictures: MB that a search maps, what the planner chose, and milliseconds of CPU a query."""
    vectors_ND = np.concatenate([vectors.of(name, rows, PLAIN) for rows in vectors.sets])
    made, _ = build_ours(f"{folder}/{name}", product_rows(len(vectors_ND)), vectors_ND, IndexConfig(), 1)
    asked_ND, took = vectors_ND[:: len(vectors_ND) // _QUERIES][:_QUERIES], []
    for _ in range(repeat):
        began = time.process_time()
        made.search(asked_ND, _K)
        took.append((time.process_time() - began) / len(asked_ND) * 1e3)
    spec = next(iter(made.templates.values())).spec.factory
    size_mb = round(made.manifest.memory_mb(), 2)
    return {"rows": len(vectors_ND), "MB": size_mb, "codes": spec, "ms a query": round(statistics.median(took), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--quick", action="store_true", help="128 rows, once, no index")
    options = parser.parse_args()
    rows, repeat = (128, 1) if options.quick else (options.rows, options.repeat)
    keep_memory()
    files = (
        sorted((DATA / "catalog" / "images").glob("*.jpg"))[:200]
        + sorted((DATA / "user_photos" / "images").glob("*.jpg"))[:200]
    )
    blobs = different_files(files[::2], rows)
    result: dict[str, object] = {"name": "fashion cost", "peer": LITE0, "rows": rows}
    result |= in_turn(lambda: rate(FASHION, blobs), lambda: rate(LITE0, blobs), repeat, LITE0) | {"unit": "images/s of CPU"}
    if not options.quick:
        folder = options.folder or Path(tempfile.mkdtemp())
        folder.mkdir(parents=True, exist_ok=True)
        vectors = Vectors(read_real(folder), folder)
        with tempfile.TemporaryDirectory() as made:
            result["index"] = {name: index(name, vectors, made, repeat) for name in (LITE0, FASHION)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
