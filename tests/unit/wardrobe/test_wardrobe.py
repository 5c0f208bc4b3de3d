"""The synthetic shop: the same from every process, and truthful about every pixel."""

import csv
import hashlib
import json
import math
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from w2w.errors import Reject
from w2w.images.decode import decode
from w2w.wardrobe import garment
from w2w.wardrobe.garment import CATEGORIES, generator, make_garment
from w2w.wardrobe.photo import street_photo, thumbnail
from w2w.wardrobe.shop import change_shop, outfit, rle, write_shop

GARMENTS = [make_garment(3, i) for i in range(42)]


def test_pictures_are_the_same_in_every_process():
    code = (
        "import hashlib; from w2w.wardrobe.garment import make_garment; from w2w.wardrobe.photo import *;"
        "g = [make_garment(3, i) for i in (1, 5, 6)];"
        "print(hashlib.sha256(thumbnail(g[0], 128).tobytes() + street_photo(3, 4, g).image.tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    chosen = [GARMENTS[i] for i in (1, 5, 6)]
    here = thumbnail(chosen[0], 128).tobytes() + street_photo(3, 4, chosen).image.tobytes()
    assert there == hashlib.sha256(here).hexdigest()


def test_prints_are_what_they_are_called():
    """Each is another picture, and only a letter is drawn by lot."""

    def printed(name: str, seed: int) -> bytes:
        image = Image.new("RGB", (192, 192))
        lot = generator("print", seed)
        place = SimpleNamespace(uniform=lambda low, high: (low + high) / 2, integers=lot.integers)
        garment._draw_print(ImageDraw.Draw(image), replace(GARMENTS[0], print=name, print_colour=(255, 255, 255)), place)
        return image.tobytes()

    drawn = {name: {printed(name, seed) for seed in range(6)} for name in garment.PRINTS}
    assert {name for name, pictures in drawn.items() if len(pictures) > 1} == {"letter"}
    assert len(set().union(*drawn.values())) == len(garment.PRINTS) - 1 + len(drawn["letter"])
    (nothing,) = drawn["none"]
    assert not any(nothing)


def test_masks_boxes_and_fractions_agree():
    for number in range(6):
        chosen = outfit(GARMENTS, generator("test", number))
        photo = street_photo(3, number, chosen)
        seen = np.zeros(photo.image.shape[:2], int)
        for item in photo.items:
            ys, xs = np.nonzero(item.mask)
            assert item.box_xyxy == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            assert 0 < item.visible_fraction <= 1
            assert item.product_id in {g.product_id for g in chosen}
            seen += item.mask
        assert seen.max() <= 1
        assert not (seen.astype(bool) & ~photo.person_mask).any()


def test_an_outfit_keeps_the_planted_rule():
    shared = [len({g.style for g in outfit(GARMENTS * 4, generator("rule", i))}) for i in range(40)]
    assert np.mean(np.array(shared) == 1) > 0.4
    assert {g.category for g in GARMENTS} == set(CATEGORIES)


def test_run_lengths_follow_coco():
    mask = np.array([[0, 1], [1, 1]], bool)
    assert rle(mask) == {"size": [2, 2], "counts": [1, 3]}
    assert rle(~mask) == {"size": [2, 2], "counts": [0, 1, 3]}


def _csv(path: str) -> list[dict]:
    with open(path, encoding="utf-8") as f:
        return list(csv.DictReader(f))


def test_shop_files(tmp_path):
    shop = write_shop(tmp_path, seed=3, num_products=42, num_posts=4, size_px=96, num_broken=3)
    rows = _csv(shop.feed)
    assert (len(rows), shop.num_products) == (45, 45)
    refused = 0
    for row in rows:
        data = (tmp_path / row["image"]).read_bytes()
        try:
            assert decode(data).shape == (96, 96, 3)
        except Reject:
            refused += 1
    assert refused == 3
    queries = _csv(shop.queries)
    assert len(queries) == shop.num_queries > 4
    assert {q["sku"] for q in queries} <= {r["sku"] for r in rows}
    posts = [json.loads(line) for line in (tmp_path / "posts.jsonl").read_text("utf-8").splitlines()]
    assert sum(sum(p["person_rle"]["counts"]) for p in posts) == 4 * 600 * 400


@pytest.mark.parametrize("share", [0.01, 0.1])
def test_exactly_that_share_changes(tmp_path, share):
    write_shop(tmp_path, seed=3, num_products=42, num_posts=0, size_px=64)
    before = {p.name: p.read_bytes() for p in (tmp_path / "images").iterdir()}
    changed = change_shop(tmp_path, 3, 42, share, 1, size_px=64)
    after = {p.name: p.read_bytes() for p in (tmp_path / "images").iterdir()}
    assert sorted(f"{i}.jpg" for i in changed) == sorted(n for n in before if before[n] != after[n])
    assert len(changed) == math.ceil(share * 42)
