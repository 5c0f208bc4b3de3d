"""A small product feed with pictures that differ, made in a moment."""

import csv
from pathlib import Path

import numpy as np
import simplejpeg

CATEGORIES = ("top", "bottom", "shoes")


def picture(rng: np.random.Generator, side_px: int = 96) -> bytes:
    """Blocks of random colours, as a JPEG."""
    blocks = rng.integers(0, 256, (6, 6, 3), np.uint8)
    image = np.kron(blocks, np.ones((side_px // 6, side_px // 6, 1), np.uint8))
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=90)


def write_shop(folder: Path, num_products: int, seed: int = 0) -> Path:
    """products.csv and images/; returns the feed's path."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(num_products):
        (folder / "images" / f"{i}.jpg").write_bytes(picture(rng))
    return write_feed(folder, range(num_products))


def write_feed(folder: Path, numbers) -> Path:
    with open(folder / "products.csv", "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["product_id", "title", "category", "image"])
        writer.writerows([f"p{i:05d}", f"product {i}", CATEGORIES[i % 3], f"images/{i}.jpg"] for i in numbers)
    return folder / "products.csv"
