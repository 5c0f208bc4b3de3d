"""Faults of pictures: which are the same, flat, shared by many, or worn in all."""

import numpy as np
import pyarrow as pa
import pytest

from w2w import schema
from w2w.check.rules_pictures import GROUP, is_flat, only_worn, same_pictures, shared_pictures
from w2w.check.stage import clearness


def pictures(rows: list[tuple[str | None, int, bytes | None]]) -> pa.Table:
    columns = zip(*rows)
    kinds = (schema.DUPLICATES, schema.CLUSTER_ID), (schema.IMAGES, schema.PHASH), (schema.QUALITY, schema.GRID)
    fields = [table.schema.field(c).with_nullable(True) for table, c in kinds]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, fields)], schema=pa.schema(fields))


def test_pictures_are_the_same_by_cluster_or_by_hash_and_look():
    red, near, blue, hashed = b"\xc8\x0a\x0a", b"\xcc\x0c\x0e", b"\x0a\x0a\xc8", 0x1234567812345678
    rows = [("a", 1, red), ("a", 2, red), (None, hashed, red), (None, hashed, near), (None, hashed, blue)]
    rows += [("a", hashed, None), (None, hashed, None), (None, 0, red), (None, 0, red), (None, hashed, blue)]
    assert same_pictures(pictures(rows)).tolist() == [0, 0, 2, 2, 4, 0, 6, 7, 8, 4]
    assert same_pictures(pictures(rows)[:0]).tolist() == []


def test_only_products_whose_pictures_are_all_known_are_only_worn():
    rows = pa.table({"product_id": list("aabbcdeeff"), "image_id": [f"{n}" for n in range(10)]})
    looked = pa.chunked_array([[str(n) for n in (0, 1, 2, 3, 4, 5, 6, 7, 8)]])
    found, share = only_worn(rows, looked, pa.array(["0", "1", "2", "8"]))
    assert found.column("product_id").to_pylist() == ["a"]  # f has a picture that nobody has looked at
    assert share == pytest.approx(1 / 5)
    found, share = only_worn(rows, looked, pa.array([str(n) for n in range(6)]))
    assert (found.num_rows, share) == (0, pytest.approx(4 / 5))
    assert only_worn(rows.slice(0, 0), looked, pa.array([], pa.string()))[1] == 0


def test_a_white_picture_is_flat_and_a_white_shirt_is_not():
    flat = np.full((300, 200, 3), 250, np.uint8)
    noisy = flat + np.random.default_rng(0).integers(-4, 5, flat.shape).astype(np.uint8)
    shirt = flat.copy()
    shirt[60:200, 50:150] = 215
    one = shirt[:1, :1]
    told = [clearness(image) for image in (flat, noisy, shirt, one)]
    columns = [[row[i] for row in told] for i in (1, 2)]
    measured = pa.table(columns, names=[schema.CONTRAST, schema.FILLED])
    assert is_flat(measured).tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("num", "categories", "plain", "kind"),
    [
        (4, 2, False, "shared_picture"),
        (4, 2, True, "placeholder"),
        (3, 1, True, "shared_picture"),
        (5, 2, False, "shared_picture"),
        (5, 3, False, "placeholder"),
        (4, 3, False, "shared_picture"),
        (9, 1, False, "shared_picture"),
        (10, 1, False, "placeholder"),
        (2, 2, True, "shared_picture"),
    ],
)
def test_a_shared_picture_is_a_placeholder_on_strong_evidence(num, categories, plain, kind):
    names = [str(n) for n in range(num)]
    goods = pa.table({"product_id": names, "image_id": ["i"] * num, GROUP: names})
    goods = goods.append_column("category", pa.array([f"c{n % categories}" for n in range(num)]))
    told = shared_pictures(goods, np.zeros(num, int), np.zeros(num, bool), np.full(num, plain))
    assert told.column("kind").to_pylist() == [kind] * num
