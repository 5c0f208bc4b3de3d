"""A synthetic shop in a folder: feed, thumbnails, street posts with their ground truth, and queries cropped from them.

``python -m w2w.wardrobe.shop FOLDER --posts 600`` writes one.
"""

import argparse
import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from w2w.wardrobe.garment import Garment, generator, make_garment
from w2w.wardrobe.photo import StreetPhoto, street_photo, thumbnail
from w2w.wardrobe.rule import outfit

_BRANDS = ("Nordlicht", "Fjord & Co", "Avenida", "O'Hara", "東風", "Plain Goods", 'The "Loom"')
_PADDING = 0.08  # of a query's box on each side
_LEAST_VISIBLE = 0.35
_PRODUCTS_AT_ONCE, _POSTS_AT_ONCE = 25, 5
_FEED_COLUMNS = (
    "product_id",
    "title",
    "brand",
    "price",
    "currency",
    "category",
    "colour",
    "pattern",
    "style",
    "sku",
    "url",
    "image",
)


@dataclass(frozen=True)
class Shop:
    """What was written; paths as text."""

    feed: str
    queries: str
    num_products: int
    num_posts: int
    num_queries: int


def title(garment: Garment) -> str:
    words = [garment.colour_name, garment.pattern if garment.pattern != "solid" else "", garment.kind]
    if garment.print != "none":
        words.append(f"with {garment.print}")
    text = " ".join(w for w in words if w).capitalize()
    number = int(garment.product_id.rpartition("-")[2])
    return {13: f"{text} <b>NEW</b>", 29: f'{text} "édition limitée" & more'}.get(number % 97, text)


def write_shop(
    folder: Path, seed: int, num_products: int, num_posts: int, size_px: int = 320, num_broken: int = 0, each: Callable = map
) -> Shop:
    """Writes products.csv and images/, posts.jsonl and posts/, queries.csv and queries/.

    ``num_broken`` further products have an unreadable image: empty, HTML, truncated. Existing files are overwritten.
    ``each(function, chunks)`` returns the function's result for every chunk, in order; it may use workers.
    """
    for name in ("images", "posts", "queries"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    drawn = each(partial(_draw_products, folder, seed, size_px), _chunks(num_products, _PRODUCTS_AT_ONCE))
    rows = [row for part in drawn for row in part]
    for i in range(num_broken):
        garment = replace(make_garment(seed, i), product_id=f"w{seed}-broken-{i}")
        whole = (folder / rows[i % num_products]["image"]).read_bytes()
        bad = (b"", b"<!doctype html><title>404</title>", whole[: len(whole) // 2])[i % 3]
        image = f"images/{garment.product_id}.jpg"
        (folder / image).write_bytes(bad)
        rows.append(_feed_row(garment, image))
    _write_csv(folder / "products.csv", _FEED_COLUMNS, rows)
    worn = list(each(partial(_draw_posts, folder, seed, num_products), _chunks(num_posts, _POSTS_AT_ONCE)))
    posts, queries = ([row for part in worn for row in part[side]] for side in (0, 1))
    (folder / "posts.jsonl").write_text("".join(json.dumps(post) + "\n" for post in posts), encoding="utf-8")
    _write_csv(folder / "queries.csv", ("query_id", "category", "sku", "image"), queries)
    return Shop(str(folder / "products.csv"), str(folder / "queries.csv"), len(rows), num_posts, len(queries))


def _chunks(num: int, size: int) -> list[range]:
    return [range(i, min(i + size, num)) for i in range(0, num, size)]


def _draw_products(folder: Path, seed: int, size_px: int, numbers: Sequence[int]) -> list[dict]:
    rows = []
    for number in numbers:
        garment = make_garment(seed, number)
        image = f"images/{garment.product_id}.jpg"
        (folder / image).write_bytes(_jpeg(thumbnail(garment, size_px)))
        rows.append(_feed_row(garment, image))
    return rows


def _draw_posts(folder: Path, seed: int, num_products: int, numbers: Sequence[int]) -> tuple[list[dict], list[dict]]:
    """Rows of posts.jsonl and of queries.csv."""
    garments = [make_garment(seed, i) for i in range(num_products)]
    posts, queries = [], []
    for number in numbers:
        rng = generator("outfit", seed, number)
        photo = street_photo(seed, number, outfit(garments, rng))
        image = f"posts/{number:06d}.jpg"
        (folder / image).write_bytes(_jpeg(photo.image, int(rng.integers(70, 93))))
        posts.append(_post_row(number, image, photo))
        queries += _write_queries(folder, number, photo)
    return posts, queries


def change_shop(folder: Path, seed: int, num_products: int, share: float, round_number: int, size_px: int = 320) -> list[str]:
    """Gives exactly ceil(share x num_products) products a new picture, in another colour; returns their ids. The feed stays."""
    rng = generator("change", seed, round_number)
    chosen = sorted(rng.choice(num_products, math.ceil(share * num_products), replace=False).tolist())
    for i in chosen:
        garment = make_garment(seed, i)
        red, green, blue = rng.integers(0, 256, 3).tolist()
        (folder / "images" / f"{garment.product_id}.jpg").write_bytes(
            _jpeg(thumbnail(replace(garment, colour=(red, green, blue)), size_px))
        )
    return [make_garment(seed, i).product_id for i in chosen]


def _feed_row(garment: Garment, image: str) -> dict:
    rng = generator("price", garment.product_id)
    return {
        "product_id": garment.product_id,
        "title": title(garment),
        "brand": str(rng.choice(_BRANDS)),
        "price": f"{rng.uniform(9, 199):.2f}",
        "currency": "EUR",
        "category": garment.category,
        "colour": garment.colour_name,
        "pattern": garment.pattern,
        "style": garment.style,
        "sku": garment.product_id,
        "url": f"https://shop.example/p/{garment.product_id}",
        "image": image,
    }


def _post_row(number: int, image: str, photo: StreetPhoto) -> dict:
    items = [
        {
            "product_id": i.product_id,
            "category": i.category,
            "box_xyxy": i.box_xyxy,
            "visible_fraction": round(i.visible_fraction, 3),
            "mask_rle": rle(i.mask),
        }
        for i in photo.items
    ]
    return {"post_id": f"post-{number:06d}", "image": image, "items": items, "person_rle": rle(photo.person_mask)}


def _write_queries(folder: Path, number: int, photo: StreetPhoto) -> list[dict]:
    rows = []
    for item in photo.items:
        if item.visible_fraction < _LEAST_VISIBLE:
            continue
        x0, y0, x1, y1 = item.box_xyxy
        dx, dy = int((x1 - x0) * _PADDING) + 2, int((y1 - y0) * _PADDING) + 2
        crop = photo.image[max(0, y0 - dy) : y1 + dy, max(0, x0 - dx) : x1 + dx]
        if min(crop.shape[:2]) < 16:
            continue
        image = f"queries/{number:06d}-{item.category}.jpg"
        (folder / image).write_bytes(_jpeg(crop))
        rows.append(
            {"query_id": f"q{number:06d}-{item.category}", "category": item.category, "sku": item.product_id, "image": image}
        )
    return rows


def rle(mask: np.ndarray) -> dict:
    """COCO's uncompressed run lengths of a bool (H, W) mask: column by column, starting with the zeros."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate([[0], changes, [flat.size]])
    counts = np.diff(bounds).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat.size and flat[0] else counts}


def _jpeg(image: np.ndarray, quality: int = 90) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(out, "JPEG", quality=quality)
    return out.getvalue()


def _write_csv(path: Path, columns: Sequence[str], rows: list[dict]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, columns)
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m w2w.wardrobe.shop", description=write_shop.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--products", type=int, default=300)
    parser.add_argument("--posts", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(write_shop(options.folder, options.seed, options.products, options.posts))


if __name__ == "__main__":
    main()
