"""What the driver of `w2w recommend` holds for a whole catalog: its peak memory at 10k and 100k products. Last line: JSON.

python -m tests.bench.recommend_memory [--products 100000] [--dim 1280] [--quick]

Each size runs in a process of its own, up to the point where workers would start (a dry run): synthetic vectors, 2,000 posts
that tag five products each. Anonymous memory is sampled, since pages of a mapped file are given back when others need room; the
process's own before the job is taken off. ``bytes_a_product`` is the growth from the small size to the large one; ``ratio`` is
the memory of the vectors alone over that growth: above 1, the driver does not hold them.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from w2w import ids, schema
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version
from w2w.recommend import job
from w2w.table.parts import Output, write_part
from w2w.table.sink import RECEIPT_SCHEMA, Committer, Lineage

CLASSES = ("top", "bottom", "shoes", "dress", "bag")
POSTS, PART = 2000, 10_000


def write(store: str, table: schema.Table, parts: Iterator[list[dict]]) -> None:
    committer = Committer(store, [Output(table)], Lineage("bench", "bench", "bench", "v", {}, {}, "x"))
    for rows in parts:
        receipts = write_part(store, Output(table), pa.Table.from_pylist(rows, schema=table.schema), "bench")
        committer.add(pa.Table.from_pylist(receipts, schema=RECEIPT_SCHEMA))
    committer.commit()


def fill(store: str, products: int, dim: int) -> None:
    """Products in turn of each class, vectors of ten styles."""
    rng = np.random.default_rng(0)
    styles_SD = rng.normal(size=(10, dim))
    images = [ids.image_id(b"%d" % n) for n in range(products)]
    version = model_version(EncoderConfig())

    def sold(start: int) -> list[dict]:
        told = {"brand": "b", "currency": "EUR", "feed": "main", "image_uri": "u", "image_fingerprint": "f", "row_digest": "d"}
        told |= {"active": True, "fetched_at": 0, "attributes": [("colour", "red")]}
        return [
            told
            | {"product_id": f"p{n:07d}", "title": f"A product of the catalog, number {n}", "price": float(n % 90)}
            | {"category": CLASSES[n % 5], "image_id": images[n], "url": f"https://shop.example/products/{n}"}
            for n in range(start, min(start + PART, products))
        ]

    def embedded(start: int) -> list[dict]:
        told = {"owner_kind": "image", "model_version": version}
        some = range(start, min(start + PART, products))
        vectors_ND = (styles_SD[[n // 5 % 10 for n in some]] + rng.normal(size=(len(some), dim))).astype(np.float32)
        vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        return [told | {"owner_id": images[n], "vector": v} for n, v in zip(some, vectors_ND)]

    write(store, schema.PRODUCTS, map(sold, range(0, products, PART)))
    write(store, schema.EMBEDDINGS, map(embedded, range(0, products, PART)))
    posts = {"url": None, "image_id": "none", "image_uri": "u", "product_urls": [], "active": True, "row_digest": "d"}
    tags = [
        [f"p{int(n) * 50 % (products - 50) + 5 * int(k) + c:07d}" for c in range(5)]
        for n, k in rng.integers(10, size=(POSTS, 2))
    ]
    write(
        store,
        schema.POSTS,
        iter([[posts | {"fetched_at": 0, "post_id": f"{n}", "product_ids": t} for n, t in enumerate(tags)]]),
    )


def anonymous_mb() -> float:
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


@contextmanager
def peak() -> Iterator[list[float]]:
    """The most that is held within, in MB."""
    most, done = [anonymous_mb()], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            most[0] = max(most[0], anonymous_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()


def measure(products: int, dim: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/store"
        made = [
            sys.executable,
            "-m",
            "tests.bench.recommend_memory",
            "--fill",
            store,
            "--products",
            str(products),
            "--dim",
            str(dim),
        ]
        subprocess.run(made, check=True)
        small = f"{folder}/small"
        fill(small, 200, dim)
        job.main(job.Config(store=small, dry_run=True))  # whatever is loaded late
        before_mb, start = anonymous_mb(), time.process_time()
        with peak() as most:
            found = job.main(job.Config(store=store, dry_run=True))
        seconds = time.process_time() - start
    assert found.pending == products
    return {
        "products": products,
        "seconds": round(seconds, 1),
        "before_mb": round(before_mb),
        "memory_mb": round(most[0] - before_mb, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--products", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--quick", action="store_true", help="2,000 and 10,000 products")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--fill", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fill:
        fill(args.fill, args.products, args.dim)
        return
    if args.one:
        print(json.dumps(measure(args.one, args.dim)))
        return
    sizes = (2000, 10_000) if args.quick else (args.products // 10, args.products)
    command = [sys.executable, "-m", "tests.bench.recommend_memory", "--dim", str(args.dim), "--one"]
    found = [json.loads(subprocess.run([*command, str(n)], check=True, capture_output=True, text=True).stdout) for n in sizes]
    for one in found:
        print(one)
    grown = (found[1]["memory_mb"] - found[0]["memory_mb"]) * 2**20 / (sizes[1] - sizes[0])
    print(
        json.dumps({"bytes_a_product": round(grown), "ratio": round(args.dim * 4 / grown, 2), "dim": args.dim, "sizes": found})
    )


if __name__ == "__main__":
    main()
