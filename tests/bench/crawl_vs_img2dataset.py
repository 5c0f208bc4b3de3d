"""`w2w ingest` of a feed of image URLs against img2dataset, from the same loopback server. Last line: JSON.

python -m tests.bench.crawl_vs_img2dataset [--rows 5000] [--repeat 5] [--quick]

Real JPEGs, stored as they came or made 256 px; from a clean server, or from one where 5 % of the URLs fail (404, 500)
and 2 % drip. Both sides run in turn, as commands, with two worker processes, no retries and a time limit of 5 s a URL. End to
end is from the start of the command to its end. Steady state is from the moment when a tenth of the URLs was asked for (the
server's log knows) until the last output file was written. Memory is the peak sum of PSS over the process tree.
CPU seconds are given too: on a machine with other work they are steadier than the clock.

w2w stores originals; for 256 px the bench adds a stage that pads to 256 x 256 and encodes again, as img2dataset does. w2w also
checks addresses, computes pHashes, and commits to Delta tables.
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.dataset
import simplejpeg

from tests.bench import image_server
from w2w import schema
from w2w.engine.job import start
from w2w.errors import Reject
from w2w.images.decode import DecodeLimits, decode_many
from w2w.images.stage import inspected
from w2w.ingest import flow
from w2w.ingest import job as ingest
from w2w.table import delta

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("W2W_DATA", ROOT / ".." / "shared" / "data")).resolve()
CACHE = Path(os.environ.get("W2W_CACHE", Path.home() / ".cache" / "w2w")) / "bench"
PACKAGES = ("img2dataset==1.47.*",)
SIDE_PX, QUALITY, WORKERS, TIME_LIMIT_S = 256, 95, 2, 5
SAMPLE_EVERY_S = 0.5


def peer_command() -> str | None:
    """img2dataset of its own environment, None where it cannot be installed."""
    home = CACHE / "img2dataset"
    python, command = home / "bin" / "python", home / "bin" / "img2dataset"
    if command.exists() and subprocess.run([python, "-c", "import img2dataset"], capture_output=True).returncode == 0:
        return str(command)
    print("installing img2dataset into an environment of its own", file=sys.stderr)
    uv = shutil.which("uv")
    make = [uv, "venv", "--clear", "--python", sys.executable, home] if uv else [sys.executable, "-m", "venv", "--clear", home]
    install = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
    for step in (make, [*install, *PACKAGES]):
        if subprocess.run(step, stdout=sys.stderr).returncode:
            return None
    return str(command)


class Tree:
    """Peak PSS in MB, and CPU seconds, of a process and all below it, sampled while the block runs."""

    def __init__(self, pid: int):
        self.peak_mb, self._cpu_s, self._pid, self._done = 0.0, {}, pid, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Tree":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def cpu_s(self) -> float:
        """Less what each process used after its last sample."""
        return sum(self._cpu_s.values())

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_EVERY_S):
            try:
                tree = [root := psutil.Process(self._pid), *root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            total = 0
            for process in tree:
                try:
                    total += process.memory_full_info().pss
                    used = process.cpu_times()
                    self._cpu_s[process.pid] = used.user + used.system
                except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has just ended
                    continue
            self.peak_mb = max(self.peak_mb, total / 2**20)


def run(command: list[str], log: Path, output: Path, suffix: str, rows: int) -> dict:
    """Seconds, rates and peak memory of a command that downloads ``rows`` URLs into files below ``output``."""
    asked_before = len(log.read_bytes().splitlines()) if log.exists() else 0
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONWARNINGS": "ignore"}
    began = time.time()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=environment, cwd=ROOT)
        with Tree(process.pid) as tree:
            code = process.wait()
        seconds = time.time() - began
        if code:
            said.seek(0)
            sys.exit(f"{' '.join(map(str, command))}\n{said.read()[-4000:]}")
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()[asked_before:]]
    asked = sorted(line["wall_start"] for line in lines)
    last = max(path.stat().st_mtime for path in output.rglob(f"*{suffix}"))
    return {
        "seconds": seconds,
        "rate": rows / seconds,
        "steady_rate": (rows - rows // 10) / (last - asked[rows // 10]),
        "start_s": asked[0] - began,
        "end_s": began + seconds - last,
        "peak_mb": tree.peak_mb,
        "cpu_s": tree.cpu_s,
        "requests": len(asked),
        "connections": len({line["connection"] for line in lines}),
        "most_in_flight": max(line["in_flight"] for line in lines),
    }


def ours(folder: Path, urls: list[str], log: Path, side_px: int | None) -> dict:
    with open(folder / "feed.csv", "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["product_id", "image"])
        writer.writerows([f"p{i}", url] for i, url in enumerate(urls))
    script = [__file__, "--as-ours"] if side_px else ["jobs/ingest.py"]
    options = [f"--store={folder / 'store'}", f"--feed.uri={folder / 'feed.csv'}", "--max_reject_rate=1"]
    options += ['--fetch.allow_private_hosts=["127.0.0.1"]', f"--fetch.deadline_s={TIME_LIMIT_S}", "--fetch.retries=0"]
    options += [f"--pool.workers={WORKERS}", f"--ray.num_cpus={WORKERS}"]
    figures = run([sys.executable, *script, *options], log, folder / "store" / "images", ".parquet", len(urls))
    stored = delta.open_table(str(folder / "store"), schema.IMAGES).to_pyarrow_table(columns=[schema.IMAGE_ID])
    return figures | {"stored": stored.num_rows}


def theirs(command: str, folder: Path, urls: list[str], log: Path, side_px: int | None) -> dict:
    (folder / "urls.txt").write_text("\n".join(urls) + "\n")
    out = folder / "out"
    options = ["--url_list", folder / "urls.txt", "--input_format", "txt", "--output_folder", out, "--output_format", "parquet"]
    options += ["--processes_count", WORKERS, "--thread_count", 32, "--number_sample_per_shard", min(1000, len(urls) // 5)]
    options += ["--timeout", TIME_LIMIT_S, "--retries", 0]
    if side_px:
        options += ["--image_size", side_px, "--resize_mode", "border", "--encode_quality", QUALITY]
    else:
        options += ["--resize_mode", "no", "--skip_reencode", "True"]
    figures = run([command, *map(str, options)], log, out, ".parquet", len(urls))
    status = pa.dataset.dataset(sorted(map(str, out.glob("*.parquet")))).to_table(columns=["status"])
    return figures | {"stored": status.column("status").to_pylist().count("success")}


def inspect_and_shrink(rows: pa.Table, *, limits: DecodeLimits) -> pa.Table:
    """What ``inspect`` gives, from one decoding, and the images 256 px wide and high in place of the originals, on white."""
    images = decode_many(rows.column(schema.BYTES).to_pylist(), limits, SIDE_PX)
    small = [i if isinstance(i, Reject) else padded(i) for i in images]
    seen = [i if isinstance(i, Reject) else cv2.resize(i, (64, 64), interpolation=cv2.INTER_AREA) for i in small]
    rows = inspected(rows, seen, limits)
    encoded = [None if isinstance(i, Reject) else simplejpeg.encode_jpeg(i, QUALITY) for i in small]
    at = rows.column_names.index(schema.BYTES)
    return rows.set_column(at, rows.schema.field(schema.BYTES), pa.array(encoded, pa.binary()))


def padded(image: np.ndarray) -> np.ndarray:
    """uint8 (256, 256, 3): the whole image, in the middle of white. The decoder has halved it while it could, so that
    linear weights do: on these photos within .5 of 255 levels, on average, of area averaging, which is what img2dataset does,
    in a fifth of its time."""
    scale = SIDE_PX / max(image.shape[:2])
    width, height = (max(1, round(n * scale)) for n in (image.shape[1], image.shape[0]))
    how = cv2.INTER_LANCZOS4 if scale > 1 else cv2.INTER_LINEAR if scale >= 0.5 else cv2.INTER_AREA
    small = cv2.resize(image, (width, height), interpolation=how)
    left, top = (SIDE_PX - width) // 2, (SIDE_PX - height) // 2
    edges = (top, SIDE_PX - height - top, left, SIDE_PX - width - left)
    return cv2.copyMakeBorder(small, *edges, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def medians(figures: list[dict]) -> dict:
    return {name: round(statistics.median(f[name] for f in figures), 2) for name in figures[0]}


def compare(command: str, folder: Path, url: str, log: Path, rows: int, repeat: int, kind: str, side_px: int | None) -> dict:
    urls = [f"{url}/{kind}/{i:06d}.jpg" for i in range(rows)]
    good = sum(kind == "clean" or not image_server.fault(i) for i in range(rows))
    pairs = []
    for i in range(repeat):
        pair = []
        for side in ("ours", "theirs") if i % 2 == 0 else ("theirs", "ours"):
            here = folder / side
            here.mkdir()
            f = ours(here, urls, log, side_px) if side == "ours" else theirs(command, here, urls, log, side_px)
            if f["stored"] != good:
                sys.exit(f"{side} stored {f['stored']} of {good} good images")
            shutil.rmtree(here)
            pair.append((side, f))
            brief = ", ".join(f"{name} {value:.1f}" for name, value in f.items())
            print(f"{kind} {side_px or 'original'} {i} {side}: {brief}", file=sys.stderr)
        pairs.append(dict(pair))
    return {
        "name": f"{kind}, {f'{side_px} px' if side_px else 'original bytes'}",
        "ratio": round(statistics.median(p["ours"]["rate"] / p["theirs"]["rate"] for p in pairs), 3),
        "steady_ratio": round(statistics.median(p["ours"]["steady_rate"] / p["theirs"]["steady_rate"] for p in pairs), 3),
        "memory_ratio": round(statistics.median(p["ours"]["peak_mb"] / p["theirs"]["peak_mb"] for p in pairs), 3),
        "ours": medians([p["ours"] for p in pairs]),
        "theirs": medians([p["theirs"] for p in pairs]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument(
        "--variants", nargs="+", default=["clean:256", "clean:0", "faulty:256", "faulty:0"], help="kind:side_px"
    )
    parser.add_argument("--quick", action="store_true", help="500 rows, once, clean to 256 px: under a minute")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.repeat, options.variants = 500, 1, ["clean:256"]
    if not (DATA / "catalog" / "products.csv").exists():
        sys.exit(f"no real images at {DATA}: set W2W_DATA")
    command = peer_command()
    if command is None:
        print(json.dumps({"name": "crawl_vs_img2dataset", "skipped": "img2dataset cannot be installed here"}))
        return
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "requests.jsonl")
        with image_server.serve(DATA / "catalog", log) as server:
            results = []
            for variant in options.variants:
                kind, _, side = variant.partition(":")
                side_px = int(side) or None
                results.append(compare(command, Path(folder), server.url, log, options.rows, options.repeat, kind, side_px))
    first = results[0]
    result = {
        "name": "crawl_vs_img2dataset",
        "ratio": first["ratio"],
        "value": first["ours"]["rate"],
        "unit": "images/s end to end",
        "peer": "img2dataset 1.47",
        "machine": f"{os.cpu_count()} cores",
        "steady_ratio": first["steady_ratio"],
        "memory_ratio": first["memory_ratio"],
        "rows": options.rows,
        "repeat": options.repeat,
        "results": results,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    if "--as-ours" in sys.argv:
        sys.argv.remove("--as-ours")
        flow.inspect = inspect_and_shrink
        start(ingest.main, ingest.Config)
    else:
        main()
