"""Rules of `w2w check`, and the regression against one that leaves each product out in earnest."""

import numpy as np
import pyarrow as pa
import pytest

from w2w.check import rules
from w2w.check.classes import RIDGE, Classes, Judged


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


def test_one_category_is_almost_another():
    names = ["Tshirts"] * 150 + ["Jeans"] * 60 + ["Tshrts", "Kimonos", "hat"]
    goods = pa.table({"product_id": [str(n) for n in range(len(names))], "category": names, "image_id": names})
    (row,) = rules.rare_categories(goods).to_pylist()
    assert (row["product_id"], row["about"]) == ("210", "Tshrts")
    assert "'Tshirts' has 150" in row["detail"]
    assert not rules.rare_categories(goods.slice(60)).num_rows  # a small catalog has small categories


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


def test_prices_that_are_not_judged_are_told():
    few = pa.table({"price": [5.0] * 22 + [None], "category": ["top"] * 20 + ["hat", "bag", "dress"], "currency": ["EUR"] * 23})
    assert rules.not_judged(few) == "2 products of bag, hat are not judged: fewer than 20 of a category and currency"
    assert rules.not_judged(few.slice(0, 20)) == ""
    other = few.slice(0, 20).set_column(2, "currency", pa.array(["EUR"] * 10 + ["USD"] * 10))
    assert rules.not_judged(other).startswith("20 products of top are not judged")
    many = pa.table({"price": [5.0] * 7, "category": [f"c{n}" for n in range(7)], "currency": ["EUR"] * 7})
    assert rules.not_judged(many).startswith("7 products of c0, c1, c2, c3, c4 and 2 more are not judged")
