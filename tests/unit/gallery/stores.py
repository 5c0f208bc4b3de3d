"""A store with products, pictures, vectors, a published index, posts, outfits: without Ray, as fast as it can be written."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import simplejpeg

from tests.unit.index.conftest import Catalog, run_job
from w2w import ids, schema
from w2w.index.manifest import index_uri
from w2w.index.spec import IndexConfig
from w2w.table.parts import Output
from w2w.table.sink import Lineage, append_rows

LINEAGE = Lineage("fill", "fill", "fill", "1", {}, {}, "x")
CATEGORIES = ("top", "bottom", "shoes", "dress")
COLOURS = ("red", "blue", "green", "black", "white")
NOW = datetime(2026, 5, 1, tzinfo=UTC)


def append(store: str, table: schema.Table, rows: list[dict]) -> None:
    """Rows with what is not said null or empty."""
    blank = {f.name: None if f.nullable else _empty(f.type) for f in table.schema}
    append_rows(store, Output(table), pa.Table.from_pylist([blank | row for row in rows], schema=table.schema), LINEAGE)


def _empty(kind: pa.DataType) -> object:
    return "" if pa.types.is_string(kind) else [] if pa.types.is_list(kind) else 0


def pictures(num: int, side: int = 96) -> list[bytes]:
    """As many different JPEGs: a block of colour on white ground."""
    made = []
    for i in range(num):
        pixels = np.full((side, side * 3 // 4, 3), 255, np.uint8)
        pixels[side // 8 : -side // 8, side // 8 : -side // 8] = (i % 256, i // 256 % 256, (i * 37) % 256)
        made.append(simplejpeg.encode_jpeg(pixels, 85))
    return made


def products(num: int, images: list[bytes]) -> list[dict]:
    return [
        {
            "product_id": f"p{i:05d}",
            "title": f"{COLOURS[i % 5].title()} {CATEGORIES[i % 4]} number {i}",
            "brand": f"Brand {i % 7}",
            "price": 10.0 + i % 90 if i % 11 else None,
            "currency": "EUR",
            "category": CATEGORIES[i % 4],
            "url": f"https://shop.example/p/{i}",
            "attributes": [("colour", COLOURS[i % 5]), ("material", "wool" if i % 3 else "linen")],
            "image_id": ids.image_id(images[i % len(images)]),
            "image_uri": f"https://cdn.example/{i}.jpg?token=secretsecret",
            "active": True,
            "fetched_at": NOW + timedelta(days=i % 3),
            "row_digest": str(i),
            "feed": "spring",
        }
        for i in range(num)
    ]


def fill(store: str, rows: list[dict], images: list[bytes], dim: int = 16) -> None:
    """Tables products, images and embeddings, and an index of them."""
    by_id = {ids.image_id(data): data for data in images}
    append(store, schema.PRODUCTS, rows)
    append(store, schema.IMAGES, [{"image_id": i, "bytes": data, "fetched_at": NOW} for i, data in by_id.items()])
    rng = np.random.default_rng(0)
    vectors = dict(zip(by_id, rng.standard_normal((len(by_id), dim)).astype(np.float32)))
    owned = [{"owner_id": i, "owner_kind": "image", "model_version": "m1", "vector": v.tolist()} for i, v in vectors.items()]
    append(store, schema.EMBEDDINGS, owned)
    indexed = pa.Table.from_pylist([r for r in rows if r["image_id"]]).select(["product_id", "image_id", "category"])
    run_job(index_uri(store, "default"), Catalog(indexed, vectors), IndexConfig())
