"""A store of a small shop, written without Ray: products, their vectors and pictures, and posts."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from w2w import ids, schema
from w2w.garments.stage import to_jpeg
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version
from w2w.table.parts import Output
from w2w.table.sink import Lineage, append_rows

DIM = 16
PLACES = ("top", "bottom", "shoes", "dress", "bag")
STYLES = 4


def picture(number: int) -> bytes:
    return to_jpeg(np.random.default_rng(number).integers(0, 255, (40, 32, 3), np.uint8))


def product(number: int, **other) -> dict:
    """Of place number % 5 and style number // 5 % 4; each style has a direction of its own among vectors."""
    row = {"product_id": f"p{number:03d}", "title": f"<b>{number}</b>", "brand": "ab"[number % 2], "price": 10.0 + number}
    row |= {"currency": "EUR", "category": PLACES[number % 5], "url": f"https://shop.example/{number}", "feed": "main"}
    row |= {"attributes": [("colour", "red" if number % 3 else "blue")], "image_uri": "u", "image_fingerprint": "f"}
    row |= {"image_id": ids.image_id(picture(number)), "active": True, "row_digest": "d", "fetched_at": 0}
    return row | other


def vector(number: int) -> np.ndarray:
    found = np.random.default_rng(number).normal(0, 0.3, DIM)
    found[number // 5 % STYLES] += 2
    return (found / np.linalg.norm(found)).astype(np.float32)


def append(store: str, table: schema.Table, rows: Sequence[dict], run: str = "fill") -> None:
    lineage = Lineage(run, run, run, "v", {}, {}, "x")
    append_rows(store, Output(table), pa.Table.from_pylist(list(rows), schema=table.schema), lineage)


def fill(store: str, numbers: Sequence[int], posts: int = 0, pictures: bool = True) -> None:
    """``posts``: each tags a product of every place, all of one style."""
    append(store, schema.PRODUCTS, [product(n) for n in numbers])
    add_vectors(store, numbers)
    if pictures:
        told = {"width": 32, "height": 40, "format": "jpeg", "phash": 0, "source_uri": "u", "fetched_at": 0}
        rows = [told | {"image_id": ids.image_id(picture(n)), "bytes": picture(n)} for n in numbers]
        append(store, schema.IMAGES, rows)
    if posts:
        rng, rows = np.random.default_rng(0), []
        for i in range(posts):
            style = int(rng.integers(STYLES))
            worn = [rng.choice([n for n in numbers if n % 5 == p and n // 5 % STYLES == style]) for p in range(5)]
            row = {"post_id": f"post-{i}", "url": None, "image_id": "none", "image_uri": "u", "product_urls": []}
            row |= {"product_ids": [f"p{n:03d}" for n in worn], "active": True, "row_digest": "d", "fetched_at": 0}
            rows.append(row)
        append(store, schema.POSTS, rows)


def add_vectors(store: str, numbers: Sequence[int]) -> None:
    version = model_version(EncoderConfig())
    told = {"owner_kind": "image", "model_version": version}
    rows = [told | {"owner_id": ids.image_id(picture(n)), "vector": vector(n).tolist()} for n in numbers]
    append(store, schema.EMBEDDINGS, rows)
