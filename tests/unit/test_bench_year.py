"""The year of nights: its script, what a store has to hold after each night, and that what differs is noticed."""

import json
import random
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tests.bench import year, year_page, year_peers
from tests.bench.year_encoder import FIRST, SECOND, Grid, load
from tests.bench.year_model import Catalog, Held, differences
from tests.bench.year_shop import (
    BAD_ROWS,
    CHANGES,
    FAULTS,
    HALF,
    PICTURES_DOWN,
    REFUSED,
    SOME_DOWN,
    Faults,
    Night,
    Ware,
    Year,
    weight,
)
from tests.unit.nights.nights import jpeg
from w2w import ids

GOOD = {f"{n}.jpg": jpeg(n) for n in range(4)}


def ware(number: int, *pictures: str, price: str = "5.00") -> Ware:
    return Ware(f"p{number}", "coat", "a <b>coat</b>", price, "outer", "in stock", pictures or (f"{number}.jpg",))


def night(number: int, *wares: Ware, fault: str = "", files: dict[str, bytes] | None = None) -> Night:
    files = GOOD if files is None else files
    return Night(number, Counter(), fault, None, b"", wares, files, files)


def nights(seed: int, products: int = 50, num: int = 90) -> list[Night]:
    return list(Year(products, seed).nights(num))


@pytest.fixture(scope="module")
def some() -> list[Night]:
    return nights(0)


def test_a_year_is_told_by_its_seed(some):
    again = nights(0, num=12)
    assert again == some[:12]
    assert [n.feed for n in nights(1, num=3)] != [n.feed for n in some[:3]]


def test_everything_happens_in_it(some):
    changes = sum((n.changes for n in some), Counter())
    assert set(changes) == set(CHANGES)
    assert {n.fault for n in some} == {"", *FAULTS}
    assert [n.number for n in some if n.crash] == list(range(2, len(some), 3))
    assert len({n.crash for n in some}) > 25
    assert any(n.files != n.meant for n in some)
    assert all(n.feed is None or n.feed.count(b"\n") > 10 or n.is_refused for n in some)
    assert all(len({w.product_id for w in n.listed}) == len(n.listed) for n in some)


def test_faults_come_in_turn_and_some_last():
    faults = Faults(random.Random(3), 4)
    found = [faults.of(n) for n in range(300)]
    assert min(Counter(filter(None, found)).values()) > 4
    assert any(a == b == PICTURES_DOWN for a, b in pairwise(found))
    assert found[:4] == [""] * 4


def test_seasons():
    assert weight("coat", 1) == weight("shorts", 27) == 1
    assert weight("coat", 27) == weight("shorts", 1) == 0.2
    assert weight("jeans", 1) == weight("jeans", 30)


def test_half_a_feed_is_half_and_bad_rows_are_bad():
    shop = Year(50)
    (first,) = shop.nights(1)
    assert shop._feed(first.listed, HALF).count(b"\n") == 1 + len(first.listed) // 2
    spoilt = shop._feed(first.listed, BAD_ROWS)
    assert spoilt.count(b"ask us") == 1
    assert spoilt.count(b"\n") == 3 + len(first.listed)
    assert all(night(0, fault=fault).is_refused == (fault in REFUSED) for fault in FAULTS)


def test_a_catalog_withdraws_after_two_good_nights_in_a_row():
    catalog = Catalog()
    catalog.sleep(night(0, ware(0), ware(1)))
    for number, fault, listed, left in [
        (1, "", (ware(0),), 2), (2, BAD_ROWS, (ware(0),), 2), (3, PICTURES_DOWN, (ware(0), ware(1)), 2), (4, "", (ware(0),), 2),
        (5, "", (ware(0),), 1), (6, "", (ware(0), ware(1)), 2),
    ]:  # fmt: skip
        catalog.sleep(night(number, *listed, fault=fault))
        assert len(catalog.active) == left, number
    assert catalog.active["p1"] == ("a coat", 5.0, "outer", "in_stock", (ids.image_id(GOOD["1.jpg"]),))


def test_a_catalog_keeps_the_last_good_picture():
    catalog, first = Catalog(), [ids.image_id(GOOD[f"{n}.jpg"]) for n in range(4)]
    catalog.sleep(night(0, ware(0, "0.jpg", "1.jpg"), ware(2, "none.jpg")))
    assert {p: row[-1] for p, row in catalog.active.items()} == {"p0": tuple(first[:2])}
    torn = GOOD | {"0.jpg": GOOD["0.jpg"][:200]}
    catalog.sleep(night(1, ware(0, "0.jpg", "3.jpg", price="6.00"), files=torn))
    assert catalog.active["p0"][1:] == (6.0, "outer", "in_stock", tuple(first[:2])), "a broken front keeps all"
    catalog.sleep(night(2, ware(0, "2.jpg", "1.jpg", "3.jpg"), files={k: v for k, v in GOOD.items() if k != "1.jpg"}))
    assert catalog.active["p0"][-1] == (first[2], first[1], first[3])
    down = night(3, ware(0, "3.jpg"), ware(1), fault=PICTURES_DOWN)
    catalog.sleep(down)
    assert set(catalog.active) == {"p0"}
    assert down.is_down("3.jpg")
    assert 0 < sum(night(4, fault=SOME_DOWN).is_down(f"{n}.jpg") for n in range(900)) < 30


HELD = Held(
    {"p0": ("a", 1.0, "top", "in_stock", ("i0",))},
    {"i0": b"v"},
    {("p0", "i0"): "top"},
    {(0, 1): ("p0", "i0", 0.5), (0, 2): ("p1", "i1", 0.4)},
    {"p0": (("p1", 0.9), ("p2", 0.8))},
    {"p0": {"title": "a", "similar": ["p1"]}},
)


@pytest.mark.parametrize(
    ("what", "planted"),
    [
        ("products", {"p0": ("a", 2.0, "top", "in_stock", ("i0",))}),
        ("products", {"p0": ("a", None, "top", "in_stock", ("i0",))}),
        ("products", HELD.products | {"p1": ("a", 1.0, "top", "in_stock", ("i0",))}),
        ("vectors", {"i0": b"w"}),
        ("rows", {}),
        ("rows", {("p0", "i0"): "bottom"}),
        ("answers", HELD.answers | {(0, 2): ("p2", "i1", 0.4)}),
        ("answers", HELD.answers | {(0, 2): ("p1", "i1", 0.41)}),
        ("answers", {(0, 1): ("p1", "i1", 0.4), (0, 2): ("p0", "i0", 0.5)}),
        ("similar", {"p0": (("p2", 0.8), ("p1", 0.9))}),
        ("similar", {"p0": (("p1", 0.9),)}),
        ("sent", {"p0": {"title": "b", "similar": ["p1"]}}),
        ("sent", {}),
    ],
)
def test_a_planted_row_or_neighbour_is_noticed(what, planted):
    assert differences(HELD, HELD) == []
    found = differences(replace(HELD, **{what: planted}), HELD)
    assert found
    assert all(one.startswith(f"{what}: ") for one in found)


def test_scores_may_differ_in_the_last_bits():
    assert differences(replace(HELD, answers=HELD.answers | {(0, 2): ("p1", "i1", 0.4 + 1e-6)}), HELD) == []


def test_encoders_do_not_depend_on_the_batch():
    pictures = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8)
    for name, config in (("first", FIRST), ("second", SECOND)):
        whole = Grid(name)(pictures)
        assert (whole == np.concatenate([Grid(name)(pictures[n : n + 1]) for n in range(9)])).all()
        assert load(config).encode(pictures).shape == (9, Grid(name).dim)
    assert load(FIRST).model_version != load(SECOND).model_version


def test_recall_counts_what_is_there_and_ties():
    rows = {("p0", "a"): np.float32([1, 0]), ("p1", "b"): np.float32([0.6, 0.8]), ("p2", "c"): np.float32([0.6, 0.8])}
    asked = np.float32([[1, 0]])
    hits = {(0, "p0", "a"), (0, "p2", "c"), (0, "gone", "d")}
    assert year._recall(hits, rows, asked, np.float32([0.6])) == pytest.approx(0.2)
    assert year._recall(hits, rows, asked, np.float32([0.7])) == pytest.approx(0.1)


class Ended:
    def __init__(self, code: int):
        self.wait = lambda _: code


@pytest.mark.parametrize(
    ("answered", "failed", "code", "bad"),
    [
        ({"v1": ["a"], "v2": ["b"]}, [], 0, (0, 0)),
        ({"v1": ["x"]}, [], 0, (0, 1)),
        ({"v1": ["a", "b"]}, [], 0, (0, 1)),
        ({"between": ["a"]}, [], 0, (0, 0)),
        ({"between": ["a", "b"]}, [], 0, (0, 1)),
        ({"v1": ["a"]}, ["JobFailed: damaged"], 0, (1, 0)),
        ({"v1": ["a"]}, [], -9, (1, 0)),
    ],
)
def test_what_the_reader_met_is_judged(tmp_path, answered, failed, code, bad):
    (tmp_path / "read.json").write_text(json.dumps({"searches": 9, "answered": answered, "failed": failed}))
    reader = year.Reader.__new__(year.Reader)
    reader._folder, reader._process = tmp_path, Ended(code)
    told = reader.end({"v1": "a", "v2": "b"})
    assert (len(told["errors"]), len(told["wrong"])) == bad


def rows() -> list[year.Row]:
    made = [year.Row(n, "", n % 3 == 2, "", "", {"price": n}, 9, 12, 2.0, 0.5, 10**6, 10**5, 1.0, 0.9) for n in range(9)]
    made[4] = replace(made[4], fault="feed down", error="HTTP 503", index_seconds=0.0, approximate=None)
    made[5] = replace(made[5], upgrade="bridge", differences=["products: <script>alert(1)</script>"])
    return made


def test_a_page_shows_what_differed(tmp_path):
    peers = {"lancedb": [{"number": n, "seconds": 0.1, "bytes": 1000, "recall": 1.0, "stale": 0} for n in range(8)]}
    peers |= {"autofaiss": "skipped: it cannot be installed here"}
    result = {"value": 1, "crashes": 3, "reader": {"searches": 5, "errors": 0, "wrong": 0}}
    year_page.write(tmp_path / "page.html", rows(), peers, result)
    text = (tmp_path / "page.html").read_text()
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert" not in text
    for said in ("night 4: feed down", "night 2: the driver died", "autofaiss: skipped", "lancedb", "Recall@10"):
        assert said in text
    assert "nan" not in text.lower().partition("<main>")[2]


def test_figures_of_a_year():
    told = year.middles([{"s": 1.0}, {"s": 5.0}, {"s": 2.0}, {"s": None}], ("s", "none"))
    assert told == {"s": [2.0, 1.0, 5.0]}


def test_what_a_peer_gets_and_that_one_that_fails_is_told(tmp_path, monkeypatch):
    vectors = {("p0", "a"): np.float32([1, 0]), ("p0", "b"): np.float32([0, 1]), ("p1", "a"): np.float32([1, 0])}
    year_peers.write(tmp_path / "000.npz", vectors, np.float32([[1, 0]]))
    written = np.load(tmp_path / "000.npz")
    assert written["ids"].tolist() == ["p0 1", "p0 2", "p1 1"]
    assert written["x"].shape == (3, 2)
    monkeypatch.setattr(year_peers, "_SCRIPTS", {"lancedb": "raise ValueError('no')", "autofaiss": ""})
    monkeypatch.setattr(year_peers, "_python", {"lancedb": sys.executable, "autofaiss": None}.get)
    told = year_peers.measure(tmp_path)
    assert told == {"lancedb": "failed: ValueError: no", "autofaiss": "skipped: it cannot be installed here"}
