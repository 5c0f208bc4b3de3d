"""A clean store of the wardrobe's products, and the same with faults, without Ray."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from tests.unit.recommend.stores import append
from w2w import ids, schema
from w2w.check import stage
from w2w.garments.stage import to_jpeg
from w2w.images.decode import DecodeLimits
from w2w.images.stage import inspect
from w2w.wardrobe.garment import CATEGORIES, Garment, make_garment
from w2w.wardrobe.photo import thumbnail
from w2w.wardrobe.shop import title

NUM, DIM = 147, 12
VERSION = ids.digest(stage.CODE, DecodeLimits())


def rows_of(garments: list[Garment], pictures: list[bytes]) -> list[dict]:
    """Products, in order: p000, p001, ..."""
    rows = []
    for n, (garment, data) in enumerate(zip(garments, pictures)):
        row = {"product_id": f"p{n:03d}", "title": title(garment), "brand": "Nordlicht", "price": 20.0 + n % 60}
        row |= {"currency": "EUR", "category": garment.category, "url": f"https://shop.example/{n}", "feed": "main"}
        row |= {"colour": garment.colour_name, "image_uri": "u", "image_fingerprint": "f", "image_id": ids.image_id(data)}
        rows.append(row | {"active": True, "row_digest": "d", "fetched_at": 0, "attributes": []})
    return rows


def vector(category: str, seed: int) -> list[float]:
    found = np.random.default_rng(seed).normal(0, 0.1, DIM)
    found[CATEGORIES.index(category)] += 1
    return (found / np.linalg.norm(found)).astype(np.float32).tolist()


def rows_of_pictures(pictures: list[bytes]) -> tuple[list[dict], list[dict]]:
    """Rows of tables `images` and `quality`."""
    rows = pa.table({"image_id": [ids.image_id(data) for data in pictures], "bytes": pictures})
    seen = inspect(rows, limits=DecodeLimits()).to_pylist()
    told = {"source_uri": "u", "fetched_at": 0}
    looked = stage.look(rows, limits=DecodeLimits(), stage_version=VERSION).to_pylist()
    images = [{k: row[k] for k in row if k in schema.IMAGES.schema.names} | told for row in seen]
    return images, [{k: row[k] for k in schema.QUALITY.schema.names} for row in looked]


def add_pictures(store: str, rows: tuple[list[dict], list[dict]]) -> None:
    append(store, schema.IMAGES, rows[0], "pictures")
    append(store, schema.QUALITY, rows[1], "look")


class Wardrobe:
    """Drawn once; ``write`` makes a store of it, with the rows as ``change`` leaves them."""

    def __init__(self) -> None:
        self.garments = [make_garment(5, n) for n in range(NUM)]
        self.pictures = [to_jpeg(thumbnail(garment, 256)) for garment in self.garments]
        self._pictures = rows_of_pictures(self.pictures)
        of = {"owner_kind": "image", "model_version": "m"}
        owners = enumerate(zip(self.garments, self.pictures))
        self._vectors = [of | {"owner_id": ids.image_id(p), "vector": vector(g.category, n)} for n, (g, p) in owners]

    def write(self, store: str, change: Callable[[list[dict]], object] = lambda rows: None, vectors: bool = True) -> str:
        rows = rows_of(self.garments, self.pictures)
        change(rows)
        append(store, schema.PRODUCTS, rows)
        add_pictures(store, self._pictures)
        if vectors:
            append(store, schema.EMBEDDINGS, self._vectors, "embed")
        return store
