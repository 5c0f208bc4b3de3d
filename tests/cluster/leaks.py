"""A shop with leaks: pictures of it again, flipped, resized, recompressed, cropped by 5 %, and products under a second id."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from tests.unit.table.test_sink import lineage
from w2w import schema
from w2w.table.parts import Output
from w2w.table.sink import append_rows
from w2w.wardrobe.garment import make_garment
from w2w.wardrobe.photo import thumbnail

KINDS = ("flipped", "resized", "recompressed", "cropped", "two ids")


def jpeg(image: np.ndarray, quality: int = 90) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(out, "JPEG", quality=quality)
    return out.getvalue()


def changed(image: np.ndarray, kind: str, number: int) -> bytes:
    """The picture as a leak of that kind would show it; crops differ from number to number."""
    side = image.shape[0]
    cut = round(0.05 * side)
    if kind == "flipped":
        return jpeg(image[:, ::-1], 85)
    if kind == "resized":
        to = side * (2, 3, 5)[number % 3] // 4
        return jpeg(np.asarray(Image.fromarray(image).resize((to, to), Image.Resampling.LANCZOS)))
    if kind == "recompressed":
        return jpeg(image, (30, 50, 70)[number % 3])
    if kind == "cropped":
        left, right, top, bottom = ((cut, cut, cut, cut), (cut, 0, 0, 0), (0, cut, 0, cut), (0, 0, cut, 0))[number % 4]
        return jpeg(image[top : side - bottom, left : side - right])
    return jpeg(image, 88)  # the shop saved it again, for another id


def write_shop(folder: Path, seed: int, num_products: int, num_each: int, size_px: int = 320) -> list[tuple[str, str, str]]:
    """products.csv (product_id, sku, title, category, image) and images; returns (product, its copy, kind) of the leaks."""
    (folder / "images").mkdir(parents=True)
    rows, planted = [], []
    for number in range(num_products):
        garment = make_garment(seed, number)
        picture = Image.open(io.BytesIO(jpeg(thumbnail(garment, size_px))))
        image = np.asarray(picture.convert("RGB"))
        kind = KINDS[number % len(KINDS)] if number < num_each * len(KINDS) else None
        copies = [(garment.product_id, jpeg(image))]
        if kind:
            copies.append((f"{garment.product_id}-again", changed(image, kind, number // len(KINDS))))
            planted.append((garment.product_id, f"{garment.product_id}-again", kind))
        for product_id, data in copies:
            (folder / "images" / f"{product_id}.jpg").write_bytes(data)
            rows.append([product_id, garment.product_id, garment.kind, garment.category, f"images/{product_id}.jpg"])
    with open(folder / "products.csv", "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["product_id", "sku", "title", "category", "image"])
        writer.writerows(rows)
    return planted


def write_splits(store: str, split_of: dict[str, str]) -> None:
    """Table `splits` as somebody else might have written it: products alone, each its own component."""
    n, products = len(split_of), sorted(split_of)
    columns = [products, ["product"] * n, products, pa.array([1] * n, pa.int32()), pa.nulls(n, pa.string())]
    rows = pa.table([*columns, [split_of[p] for p in products]], schema=schema.SPLITS.schema)
    append_rows(store, Output(schema.SPLITS), rows, lineage("splits"))


def write_posts(store: str, posts: Sequence[tuple[str, str, list[str]]]) -> None:
    """Posts (id, image_id, product_ids)."""
    n = len(posts)
    columns = {
        schema.POST_ID: [p[0] for p in posts],
        schema.IMAGE_ID: [p[1] for p in posts],
        schema.IMAGE_URI: ["x"] * n,
        schema.PRODUCT_IDS: [p[2] for p in posts],
        schema.PRODUCT_URLS: pa.array([[]] * n, pa.list_(pa.string())),
        schema.ACTIVE: [True] * n,
        schema.ROW_DIGEST: ["x"] * n,
        schema.FETCHED_AT: pa.array([0] * n, schema.TIME),
    }
    columns |= {f.name: pa.nulls(n, f.type) for f in schema.POSTS.schema if f.name not in columns}
    append_rows(store, Output(schema.POSTS), pa.table(columns, schema=schema.POSTS.schema), lineage("posts"))
