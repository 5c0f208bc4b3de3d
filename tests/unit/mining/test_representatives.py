"""The product alone on plain ground wins; the reason says why."""

import numpy as np
import pyarrow as pa
import pytest
import simplejpeg

from w2w import schema
from w2w.images.decode import DecodeLimits
from w2w.mining.representatives.rules import choose, ground_of, look_at_ground, persons_of


def product(ground: int = 255, side: int = 60, size: int = 100) -> np.ndarray:
    image = np.full((size, size, 3), ground, np.uint8)
    start = (size - side) // 2
    image[start : start + side, start : start + side] = (200, 30, 30)
    return image


def test_ground_of_a_thumbnail():
    plain, brightness, foreground = ground_of(product(side=50))
    assert (plain, brightness) == (1.0, 1.0)
    assert foreground == pytest.approx(0.25, abs=0.03)
    assert ground_of(product(ground=51))[1] == pytest.approx(0.2, abs=0.01)


def test_ground_of_a_street():
    street = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    assert ground_of(np.kron(street[:10, :10], np.ones((10, 10, 1), np.uint8)))[0] < 0.3


def test_ground_takes_noise_and_soft_shadows_for_ground():
    noisy = product() - np.random.default_rng(0).integers(0, 25, (100, 100, 1)).astype(np.uint8)
    assert ground_of(noisy)[0] > 0.97


def test_images_that_do_not_decode_are_rejected():
    good = simplejpeg.encode_jpeg(product())
    rows = pa.table([["a", "b"], [good, b"<html>"]], names=[schema.IMAGE_ID, schema.BYTES])
    result = look_at_ground(rows, limits=DecodeLimits(), stage_version="1")
    assert result.column(schema.REJECT_CODE).to_pylist() == [None, "not_an_image"]
    assert result.column(schema.PLAIN)[0].as_py() == 1.0


def grounds(**rows: tuple[float, float, float]) -> pa.Table:
    names = [schema.IMAGE_ID, schema.PLAIN, schema.BRIGHTNESS, schema.FOREGROUND]
    return pa.table([list(rows), *(pa.array(c, pa.float32()) for c in zip(*rows.values()))], names=names)


def products(**images: str) -> pa.Table:
    rows = [(key, image) for key, names in images.items() for image in names.split()]
    return pa.table([list(c) for c in zip(*rows)], names=["product_key", schema.IMAGE_ID])


def images_of(*names: str):
    return persons_of(
        pa.table([pa.array([], pa.string())] * 2 + [pa.array([], schema.XYXY)], names=["image_id", "category", "box_xyxy"]),
        pa.table([list(names), ["person"] * len(names)], names=["image_id", "crop_source"]),
    )


CLEAN, STREET, CLOSE_UP, DARK = (1.0, 0.98, 0.4), (0.4, 0.5, 0.7), (0.9, 0.98, 0.99), (1.0, 0.05, 0.4)


def test_the_cleanest_image_of_a_product():
    got = choose(
        products(k="street clean", m="close dark"), grounds(street=STREET, clean=CLEAN, close=CLOSE_UP, dark=DARK), None, None
    )
    assert got.schema == schema.REPRESENTATIVES.schema
    rows = {r["product_id"]: r for r in got.to_pylist()}
    assert {k: (r["image_id"], r["num_images"]) for k, r in rows.items()} == {"k": ("clean", 2), "m": ("dark", 2)}
    assert rows["k"]["score"] == pytest.approx(1.0 * (0.7 + 0.3 * 0.98), abs=1e-4)
    assert rows["k"]["reason"] == (
        "the best of 2 images, 100 % of the border has one colour, bright, the product fills 40 %, "
        "no detector looked for a person"
    )


def test_a_person_counts_against_it():
    known = grounds(worn=CLEAN, street=STREET, alone=(0.8, 0.9, 0.4))
    got = choose(products(k="worn alone street"), known, images_of("worn"), None).to_pylist()[0]
    assert got["image_id"] == "alone"
    assert got["reason"].endswith("no person")
    only = choose(products(k="worn"), known, images_of("worn"), None).to_pylist()[0]
    assert only["reason"].startswith("its only image")
    assert only["reason"].endswith("a person wears it")
    assert only["score"] == pytest.approx(0.4 * 0.994, abs=1e-3)


def test_a_doubt_of_the_classifier_counts_against_it():
    known = grounds(a=CLEAN, b=(0.9, 0.98, 0.4))
    assert choose(products(k="a b"), known, None, None).to_pylist()[0]["image_id"] == "a"
    doubted = choose(products(k="a b"), known, None, images_of("a")).to_pylist()[0]
    assert doubted["image_id"] == "b"
    assert "another class" not in doubted["reason"]


def test_equal_images_and_images_without_ground():
    known = grounds(b=CLEAN, a=CLEAN)
    for order in ("b a", "a b", "c b a"):
        got = choose(products(k=order, gone="c"), known, None, None)
        assert got.to_pydict()["image_id"] == ["a"]
        assert got.to_pydict()["num_images"] == [2]


def test_persons_are_garments_at_two_places_that_lie_apart():
    rows = [
        ("worn", "top", [0, 0, 10, 10]),
        ("worn", "bottom", [0, 9, 10, 20]),
        ("one", "top", [0, 0, 10, 10]),
        ("one", "outer", [0, 0, 10, 11]),
        ("mistaken", "bag", [0, 0, 10, 10]),
        ("mistaken", "top", [0, 0, 10, 9]),
    ]
    found = pa.table(
        [[r[0] for r in rows], [r[1] for r in rows], pa.array([r[2] for r in rows], schema.XYXY)],
        names=["image_id", "category", "box_xyxy"],
    )
    looks = pa.table([["look", "one"], ["person", "dress"]], names=["image_id", "crop_source"])
    assert sorted(persons_of(found, looks)["image_id"].to_list()) == ["look", "worn"]
