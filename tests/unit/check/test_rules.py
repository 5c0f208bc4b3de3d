"""Rules of `w2w check`, and the regression against one that leaves each product out in earnest."""

import numpy as np
import pyarrow as pa
import pytest

from w2w import schema
from w2w.check import rules
from w2w.check.classes import RIDGE, Classes, Judged
from w2w.check.stage import clearness


def test_leaving_one_out_is_what_it_says():
    rng = np.random.default_rng(0)
    x, codes = rng.normal(size=(60, 5)).astype(np.float32), rng.integers(0, 3, 60)
    classes = Classes(3)
    for some in np.array_split(np.arange(60), 4):
        classes.add(x[some], codes[some])
    judged, solved = Judged(codes, 3), classes.solve()
    for some in np.array_split(np.arange(50), 3):
        judged.add(solved, some, x[some])
    ones = np.hstack([x, np.ones((60, 1))]).astype(np.float64)
    shrunk = np.diag([*[RIDGE * 60 * x.astype(np.float64).var(0).sum() / 5] * 5, 60e-9])
    beyond = np.zeros((60, 3))
    for n in range(60):
        rest = np.arange(60) != n
        weights = np.linalg.solve(ones[rest].T @ ones[rest] + shrunk, ones[rest].T @ np.eye(3)[codes[rest]])
        scores = ones[n] @ weights
        beyond[n] = scores - scores[codes[n]]
    for n in range(50):
        rivals = np.where(np.arange(3) == codes[n], -np.inf, beyond[n])
        other = rivals.argmax()
        assert (judged.other_N[n], judged.margin_N[n]) == (other, pytest.approx(rivals.max(), abs=1e-6))
        own = beyond[:50][codes[:50] == codes[n], other]
        spread = 1.4826 * np.median(np.abs(own - np.median(own))) + 1e-3
        assert judged.deviations()[n] == pytest.approx((rivals.max() - np.median(own)) / spread, rel=1e-3, abs=1e-5)
    assert np.isneginf(judged.margin_N[50:]).all()  # without a vector


def test_prices_are_compared_within_their_group():
    rng = np.random.default_rng(0)
    low, high = np.log(rng.uniform(8, 30, 50)), np.log(rng.uniform(800, 3000, 50))
    values, codes = np.concatenate([low, high, [np.log(1500)]]), np.repeat([0, 1, 0], [50, 50, 1])
    far, usual = rules.outliers(values, codes)
    assert np.flatnonzero(far).tolist() == [100]
    assert 8 < np.exp(usual[0]) < 30 < 800 < np.exp(usual[60]) < 3000
    few = np.array([1.0] * 18 + [9.0])
    assert not rules.outliers(few, np.zeros(19, int))[0].any()
    same = np.log([10.0] * 40 + [25.0, 31.0, 3.0])  # all alike: a third and three times are the least that is odd
    assert np.flatnonzero(rules.outliers(same, np.zeros(43, int))[0]).tolist() == [41, 42]


def pictures(rows: list[tuple[str | None, int, bytes | None]]) -> pa.Table:
    columns = zip(*rows)
    kinds = (schema.DUPLICATES, schema.CLUSTER_ID), (schema.IMAGES, schema.PHASH), (schema.QUALITY, schema.GRID)
    fields = [table.schema.field(c).with_nullable(True) for table, c in kinds]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, fields)], schema=pa.schema(fields))


def test_pictures_are_the_same_by_cluster_or_by_hash_and_look():
    red, near, blue, hashed = b"\xc8\x0a\x0a", b"\xcc\x0c\x0e", b"\x0a\x0a\xc8", 0x1234567812345678
    rows = [("a", 1, red), ("a", 2, red), (None, hashed, red), (None, hashed, near), (None, hashed, blue)]
    rows += [("a", hashed, None), (None, hashed, None), (None, 0, red), (None, 0, red), (None, hashed, blue)]
    assert rules.same_pictures(pictures(rows)).tolist() == [0, 0, 2, 2, 4, 0, 6, 7, 8, 4]
    assert rules.same_pictures(pictures(rows)[:0]).tolist() == []


def test_one_category_is_almost_another():
    names = ["Tshirts"] * 150 + ["Jeans"] * 60 + ["Tshrts", "Kimonos", "hat"]
    goods = pa.table({"product_id": [str(n) for n in range(len(names))], "category": names, "image_id": names})
    (row,) = rules.rare_categories(goods).to_pylist()
    assert (row["product_id"], row["about"]) == ("210", "Tshrts")
    assert "'Tshirts' has 150" in row["detail"]
    assert not rules.rare_categories(goods.slice(60)).num_rows  # a small catalog has small categories


def test_only_products_whose_pictures_are_all_known_are_only_worn():
    rows = pa.table({"product_id": list("aabbcdeeff"), "image_id": [f"{n}" for n in range(10)]})
    looked = pa.chunked_array([[str(n) for n in (0, 1, 2, 3, 4, 5, 6, 7, 8)]])
    found, share = rules.only_worn(rows, looked, pa.array(["0", "1", "2", "8"]))
    assert found.column("product_id").to_pylist() == ["a"]  # f has a picture that nobody has looked at
    assert share == pytest.approx(1 / 5)
    found, share = rules.only_worn(rows, looked, pa.array([str(n) for n in range(6)]))
    assert (found.num_rows, share) == (0, pytest.approx(4 / 5))
    assert rules.only_worn(rows.slice(0, 0), looked, pa.array([], pa.string()))[1] == 0


def test_a_white_picture_is_flat_and_a_white_shirt_is_not():
    flat = np.full((300, 200, 3), 250, np.uint8)
    noisy = flat + np.random.default_rng(0).integers(-4, 5, flat.shape).astype(np.uint8)
    shirt = flat.copy()
    shirt[60:200, 50:150] = 215
    one = shirt[:1, :1]
    told = [clearness(image) for image in (flat, noisy, shirt, one)]
    columns = [[row[i] for row in told] for i in (1, 2)]
    measured = pa.table(columns, names=[schema.CONTRAST, schema.FILLED])
    assert rules.is_flat(measured).tolist() == [True, True, False, True]


def test_a_category_is_contradicted_where_that_is_odd_among_its_own():
    goods = pa.table({"product_id": list("abcd"), "image_id": list("wxyz"), "category": ["flats", "flats", "heels", "flats"]})
    other, margin = np.array([1, 1, 0, 1]), np.array([0.6, 0.7, 0.9, 0.4])
    found = rules.contradicted(goods, ["flats", "heels"], other, margin, np.array([4.5, 1.0, 5.0, 9.0]))
    assert found.column("product_id").to_pylist() == ["c", "a"]
    assert found.column("about").to_pylist() == ["flats", "heels"]
    assert found.column("detail")[0].as_py() == "It is sold as 'heels', and looks like 'flats' (0.90)."


def test_small_categories_and_a_single_one_are_not_judged():
    def judged(*names: tuple[str, int]) -> list[str]:
        return rules.judged_categories(pa.table({"category": [name for name, num in names for _ in range(num)]}))

    assert judged(("hat", 20), ("top", 19), ("bag", 40), ("etc", 90)) == ["bag", "hat"]
    assert judged(("hat", 50), ("top", 19)) == []


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
    goods = pa.table({"product_id": names, "image_id": ["i"] * num, rules.GROUP: names})
    goods = goods.append_column("category", pa.array([f"c{n % categories}" for n in range(num)]))
    told = rules.shared_pictures(goods, np.zeros(num, int), np.zeros(num, bool), np.full(num, plain))
    assert told.column("kind").to_pylist() == [kind] * num


def test_prices_that_are_not_judged_are_told():
    few = pa.table({"price": [5.0] * 22 + [None], "category": ["top"] * 20 + ["hat", "bag", "dress"], "currency": ["EUR"] * 23})
    assert rules.not_judged(few) == "2 products of bag, hat are not judged: fewer than 20 of a category and currency"
    assert rules.not_judged(few.slice(0, 20)) == ""
    other = few.slice(0, 20).set_column(2, "currency", pa.array(["EUR"] * 10 + ["USD"] * 10))
    assert rules.not_judged(other).startswith("20 products of top are not judged")
    many = pa.table({"price": [5.0] * 7, "category": [f"c{n}" for n in range(7)], "currency": ["EUR"] * 7})
    assert rules.not_judged(many).startswith("7 products of c0, c1, c2, c3, c4 and 2 more are not judged")
