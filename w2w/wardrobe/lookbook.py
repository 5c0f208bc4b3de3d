"""The wardrobe in LookBook's layout: a flat folder with each product alone, and cut out of photos of people who wear it."""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from w2w.images.lookbook import file_name
from w2w.wardrobe.garment import Garment, generator, make_garment
from w2w.wardrobe.photo import street_photo, thumbnail
from w2w.wardrobe.rule import outfit

CATEGORIES = ("top", "outer", "dress")  # LookBook has upper garments and dresses
_LEAST_VISIBLE, _PADDING, _LEAST_PX = 0.35, 0.08, 24


def write_lookbook(folder: Path, seed: int, num_products: int, worn_each: int = 10, size_px: int = 200) -> int:
    """Writes ``num_products`` products of the shop with that seed, each alone and ``worn_each`` times worn; returns the number
    of files. A photo that shows little of the product is redrawn."""
    folder.mkdir(parents=True, exist_ok=True)
    products, number = [], 0
    while len(products) < num_products:
        garment = make_garment(seed, number)
        products += [garment] if garment.category in CATEGORIES else []
        number += 1
    others = [make_garment(seed, i) for i in range(max(number, 140))]
    image = 0
    for product, garment in enumerate(products):
        pictures = [(True, thumbnail(garment, size_px)), *((False, crop) for crop in _worn(seed, garment, others, worn_each))]
        for clean, picture in pictures:
            Image.fromarray(np.ascontiguousarray(picture)).save(folder / file_name(product, image, clean=clean), quality=90)
            image += 1
    return image


def _worn(seed: int, garment: Garment, others: list[Garment], count: int) -> list[np.ndarray]:
    found, number = [], 0
    while len(found) < count:
        rng = generator("lookbook", garment.product_id, number)
        covered = {"dress": ("top", "bottom", "dress"), "top": ("top", "dress"), "outer": ("outer",)}[garment.category]
        beside = [g for g in outfit(others, rng) if g.category not in covered]
        photo = street_photo(seed, int(rng.integers(2**31)), [garment, *beside], 240, 360)
        found += [c for item in photo.items if item.product_id == garment.product_id for c in _crop(photo.image, item)]
        number += 1
    return found


def _crop(image: np.ndarray, item) -> list[np.ndarray]:
    x0, y0, x1, y1 = item.box_xyxy
    if item.visible_fraction < _LEAST_VISIBLE or min(x1 - x0, y1 - y0) < _LEAST_PX:
        return []
    dx, dy = int((x1 - x0) * _PADDING) + 2, int((y1 - y0) * _PADDING) + 2
    return [image[max(0, y0 - dy) : y1 + dy, max(0, x0 - dx) : x1 + dx]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m w2w.wardrobe.lookbook", description=write_lookbook.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--products", type=int, default=100)
    parser.add_argument("--worn", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(write_lookbook(options.folder, options.seed, options.products, options.worn))


if __name__ == "__main__":
    main()
