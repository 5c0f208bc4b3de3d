"""Pairs from 10,000 to a million tags: do seconds a tag stay, and how much memory does it take? Last line: JSON.

python -m tests.bench.pair_growth [--tags 10000 160000 1000000] [--quick]

Every post has a photo, 4 tags and 5 garments of different classes, and there is a product for ten tags. Vectors have 16
dimensions (those of an encoder are read at the disk's speed, 5 KB each, and dwarf the rest). Each size is mined by rule, and
with a gate for all matches, in a process of its own, with Ray up and workers warm. ``ratio`` is the CPU seconds a tag (driver
and workers, which do not depend on what else the machine does) of the second largest size over those of the largest: 1 is
linear, and the bound is 1 / 1.2.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

from w2w import schema
from w2w.engine.cluster import RayConfig, connect
from w2w.mining.pairs.flow import GateConfig
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version
from w2w.table.parts import Output
from w2w.table.sink import Lineage, append_rows

LINEAGE = Lineage("fill", "fill", "fill", "1", {"product_key": []}, {}, "x")
CLASSES = np.array(["top", "bottom", "shoes", "bag", "hat"])
TAGS, DIM, ROWS, CORES = 4, 16, 200_000, 2
BOUND = 1.2


def hexes(numbers: np.ndarray, first: str) -> np.ndarray:
    """Ids of 64 digits, as those of images and garments are."""
    return np.char.add(first, np.char.mod("%063x", numbers))


def write(store: str, table: schema.Table, n: int, **columns: object) -> None:
    """Columns by name: an array of n, or one value for all."""
    for start in range(0, n, ROWS):
        stop = min(n, start + ROWS)
        arrays = []
        for field in table.schema:
            value = columns.get(field.name)
            if isinstance(value, np.ndarray | pa.Array):
                arrays.append(pa.array(value[start:stop]).cast(field.type))
            else:
                arrays.append(pa.array([value] * (stop - start), field.type))
        append_rows(store, Output(table), pa.Table.from_arrays(arrays, schema=table.schema), LINEAGE)


def lists(values: np.ndarray, size: int) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(np.arange(0, len(values) + 1, size, dtype=np.int32)), pa.array(values))


def fill(store: str, tags: int) -> None:
    posts, products = tags // TAGS, max(tags // 10, 100)
    rng = np.random.default_rng(0)
    number, product = np.arange(posts), np.arange(products)
    names, images = np.char.add("c", product.astype(str)), hexes(product, "a")
    photos, ids = hexes(number, "b"), np.char.add("post-", number.astype(str))
    common = {"image_uri": "x", "active": True, "row_digest": "x", "fetched_at": 0}
    kinds = CLASSES[product % 5]
    write(store, schema.PRODUCTS, products, product_id=names, category=kinds, image_id=images, image_fingerprint="x", **common)
    # a post tags a product of each of 4 classes
    tagged = (rng.integers(0, products // 5, (posts, TAGS)) * 5 + np.arange(TAGS)).ravel()
    known = {
        "post_id": ids,
        "image_id": photos,
        "product_ids": lists(names[tagged], TAGS),
        "product_urls": lists(names[tagged], TAGS),
    }
    write(store, schema.POSTS, posts, url=np.char.add("https://shop.example/style/", ids), **known, **common)
    blank = {"bytes": b"x", "width": 300, "height": 300, "format": "x", "phash": 0, "source_uri": "x", "fetched_at": 0}
    write(store, schema.IMAGES, products, image_id=images, **blank)
    garments = hexes(np.arange(posts * 5), "c")
    boxes = np.tile(
        np.array([[0, 0, 9, 9], [9, 0, 18, 9], [0, 9, 9, 18], [9, 9, 18, 18], [0, 18, 9, 27]], np.float32), (posts, 1)
    )
    found = {"garment_id": garments, "image_id": np.repeat(photos, 5), "category": np.tile(CLASSES, posts), "score": 0.5}
    found |= {
        "box_xyxy": lists(boxes.ravel(), 4),
        "crop": b"x",
        "crop_source": "box",
        "original_label": "x",
        "stage_version": "1",
    }
    write(store, schema.GARMENTS, posts * 5, **found)
    write(store, schema.LOOKS, posts, image_id=photos, num_garments=5, crop_source="x", stage_version="1")
    write(store, schema.REPRESENTATIVES, products, product_id=names, image_id=images, score=1.0, reason="x", num_images=1)
    split = {"component_id": "x", "component_size": 1, "split": "train"}
    write(store, schema.SPLITS, products, owner_id=names, owner_kind="product", **split)
    write(store, schema.SPLITS, posts, owner_id=ids, owner_kind="post", **split)
    for kind, owners in (("image", images), ("garment", garments)):
        vectors_ND = rng.normal(size=(len(owners), DIM)).astype(np.float32)
        vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        vectors = lists(vectors_ND.ravel(), DIM)
        version = model_version(EncoderConfig())
        write(store, schema.EMBEDDINGS, len(owners), owner_id=owners, owner_kind=kind, model_version=version, vector=vectors)


def one(store: str) -> None:
    """Mines by rule and with a gate; prints seconds, pairs, and the memory of the driver and the largest worker in MB."""
    import ray

    from w2w.mining.pairs import job as mine

    def warm() -> None:
        import w2w.mining.pairs.flow  # noqa: F401

        time.sleep(2)

    connect(RayConfig(num_cpus=CORES))
    ray.get([ray.remote(num_cpus=1)(warm).remote() for _ in range(CORES)])
    watch, result = Watch(), {}
    for name, gate in (("rule", GateConfig()), ("gate", GateConfig("all", max_share=0.9))):
        start, before, watch.worker_mb, watch.driver_mb = time.monotonic(), watch.cpu_s(), 0.0, 0.0
        summary = mine.main(mine.Config(store=store, gate=gate, ray=RayConfig(num_cpus=CORES), shown=0))
        result[name] = {"seconds": round(time.monotonic() - start, 2), "cpu_s": round(watch.cpu_s() - before, 2)}
        result[name] |= {"tags": summary.counts.read, "pairs": summary.counts.out}
        result[name] |= {"worker_mb": round(watch.worker_mb), "driver_mb": round(watch.driver_mb)}
    watch.over.set()
    print(json.dumps(result))


class Watch(threading.Thread):
    """CPU seconds of driver and workers so far, and the most memory that the driver and one worker had of their own, in MB."""

    def __init__(self):
        super().__init__(daemon=True)
        self.over, self._cpu, self._watching = threading.Event(), {}, 0.0
        self.worker_mb = self.driver_mb = 0.0
        self.start()

    def run(self) -> None:
        while not self.over.wait(0.5):
            self._look()
            self._watching = time.thread_time()

    def cpu_s(self) -> float:
        self._look()
        return sum(self._cpu.values()) - self._watching

    def _look(self) -> None:
        driver = psutil.Process()
        for process in [driver, *driver.children(recursive=True)]:
            try:
                if process == driver or process.name().startswith("ray::"):
                    self._cpu[process.pid] = sum(process.cpu_times()[:2])
                    memory = process.memory_info()
                    own_mb = (memory.rss - memory.shared) / 1e6
                    if process == driver:
                        self.driver_mb = max(self.driver_mb, own_mb)
                    else:
                        self.worker_mb = max(self.worker_mb, own_mb)
            except psutil.Error:
                continue


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tags", type=int, nargs="+", default=[10_000, 160_000, 1_000_000], help="160,000 fill a bucket")
    parser.add_argument("--quick", action="store_true", help="10,000 and 50,000 tags")
    parser.add_argument("--store", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.store:
        one(options.store)
        return
    found = {}
    for tags in sorted([10_000, 50_000] if options.quick else options.tags):
        with tempfile.TemporaryDirectory() as folder:
            fill(folder, tags)
            command = [sys.executable, "-m", "tests.bench.pair_growth", "--store", folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[2])
        found[tags] = json.loads(done.stdout.strip().splitlines()[-1])
        print(tags, found[tags], flush=True)
    *_, before, largest = sorted(found)
    a_tag = {name: [found[n][name]["cpu_s"] / n for n in (before, largest)] for name in ("rule", "gate")}
    ratio = {name: round(small / large, 2) for name, (small, large) in a_tag.items()}
    ok = all(r >= 1 / BOUND for r in ratio.values())
    print(json.dumps({"name": "pair_growth", "sizes": found, "ratio": ratio, "ok": ok}))


if __name__ == "__main__":
    main()
