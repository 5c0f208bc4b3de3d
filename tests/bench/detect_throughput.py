"""Images a second of `w2w detect` in steady state against a bare loop with the same decoder and model. Last line: JSON.

python -m tests.bench.detect_throughput [--rows 2000] [--repeat 5] [--quick]

The bare loop is as many processes as the job has workers, each with its photos in memory, doing nothing but decode and detect.
The job reads Parquet, cuts a crop a garment and one a person, and writes and commits Delta besides. Both run in turn; steady
state is from the first tenth of the rows on.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.bench.throughput import CORES, DATA, bare_rate, different_files, fill, in_turn, options_of, steady_rate
from w2w.engine.cluster import RayConfig
from w2w.garments import job_detect as detect
from w2w.garments.detector import Detector, DetectorConfig
from w2w.images.decode import DecodeLimits, decode_many
from w2w.images.resize import shrink
from w2w.stage import Pool

BATCH, LONGEST_PX = 8, 1600


def ours(store: str) -> float:
    for table in ("garments", "looks"):
        shutil.rmtree(Path(store) / table, ignore_errors=True)
    pool = Pool(workers=CORES, num_cpus=1, batch_rows=BATCH)
    config = detect.Config(store=store, pool=pool, item_rows=64, longest_px=LONGEST_PX, ray=RayConfig(num_cpus=CORES))
    return steady_rate(partial(detect.main, config))


def bare() -> Callable[[list[bytes]], object]:
    detector = Detector(DetectorConfig())
    return lambda blobs: detector([shrink(image, LONGEST_PX) for image in decode_many(blobs, DecodeLimits(), LONGEST_PX)])


def main() -> None:
    rows, repeat = options_of(__doc__, 2000, 300)
    blobs = different_files(sorted((DATA / "street" / "photos").glob("*.jpg")), rows)
    Detector(DetectorConfig())  # converts the model once
    with tempfile.TemporaryDirectory() as folder:
        fill(folder, blobs, 550, 830)
        result = in_turn(partial(ours, folder), partial(bare_rate, bare, blobs, BATCH), repeat)
    peer = "bare loop: same decoder, model and threads, no crops"
    print(json.dumps({"name": "detect throughput", "peer": peer, "rows": rows} | result))


if __name__ == "__main__":
    main()
