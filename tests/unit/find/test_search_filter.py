"""`w2w search --filter`, by the same rules as find's: of a table of photos, of one, and of garments; and in the API."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import w2w
from tests.unit.nights.nights import without_ray
from w2w import config as configuration
from w2w.index.filters import texts
from w2w.search import job_search
from w2w.search.job_search import Config

ONE = {"workers": 1}


@pytest.fixture
def ask(shop, tmp_path, monkeypatch):
    """Searches with the photos of a table, three neighbours each: the result and its lines."""
    without_ray(monkeypatch)
    table = tmp_path / "photos.csv"
    for n, photo in enumerate(shop.photos[:3]):
        shutil.copy(photo, tmp_path / f"{n}.jpg")
    table.write_text("product_id,image\nq0,0.jpg\nq1,1.jpg\nq2,2.jpg\n")

    def ask(**options):
        asked = {"store": shop.store, "pool": ONE, "shown": 0, "feed": {"uri": table}, "search": {"k": 3}} | options
        result = w2w.search(out=tmp_path / "out", **asked)
        return result, [json.loads(line) for line in Path(result.neighbours).read_text().splitlines()]

    return ask


def products(shop) -> dict[str, dict]:
    rows = w2w.open(shop.store).table("products").arrow(["product_id", "brand", "price", "category"], current=True)
    return {row["product_id"]: row for row in rows.to_pylist()}


def ids_of(line: dict) -> list[str]:
    return [hit["product_id"] for hit in line["neighbours"]]


def test_only_what_passes_is_found(shop, ask, tmp_path):
    known = products(shop)
    wanted = {"category": ["Shoes", "top"], "price": "20..150"}
    fits = {i for i, p in known.items() if p["category"] in ("shoes", "top") and 20 <= p["price"] <= 150}
    plain, everything = ask(search={"k": len(known)})
    found, lines = ask(filter=wanted)
    assert (found.queries, found.counts.out, found.passing, plain.passing) == (3, 3, len(fits), None)
    assert 3 < len(fits) < len(known) / 2
    for line, whole in zip(lines, everything):
        assert ids_of(line) == [i for i in ids_of(whole) if i in fits][:3]
    assert ask(filter=wanted)[0].pending == 0
    assert ask(filter={"price": "20..150"})[0].pending == 3
    assert len({plain.search_version, found.search_version}) == 2
    (tmp_path / "one.csv").write_text("product_id,image\none,0.jpg\n")
    single, (line,) = ask(feed={"uri": tmp_path / "one.csv"}, filter=wanted, one_per="group")
    assert (single.queries, ids_of(line)) == (1, ids_of(lines[0]))


def test_evaluate_measures_what_a_search_without_a_filter_found(shop, ask, tmp_path):
    asked = {"store": shop.store, "pool": ONE, "feed": {"uri": tmp_path / "photos.csv"}, "match": ["category"]}
    (tmp_path / "photos.csv").write_text("product_id,image,category\nq0,0.jpg,shoes\nq1,1.jpg,top\nq2,2.jpg,dress\n")
    assert w2w.evaluate(**asked, dry_run=True).pending == 3
    measured = w2w.evaluate(**asked, out=tmp_path / "out")
    assert (measured.queries, measured.pending) == (3, 3)
    assert 0 <= measured.figures["recall@1"].value <= 1


def test_a_filter_that_lets_nothing_through(ask):
    found, lines = ask(filter={"price": "..0.001"})
    assert (found.passing, found.counts.out) == (0, 3)
    assert [line["neighbours"] for line in lines] == [[], [], []]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"colur": "red"}, "--filter.colur: no product has it. Did you mean 'colour'?"),
        ({"price": "cheap"}, "--filter.price: 'cheap' is neither a number nor a range"),
        ({"price": "80..20"}, "--filter.price: 80..20 begins above its end"),
        ({"brand": []}, "--filter.brand: name at least one value"),
        ({"seen_colour": "red"}, "run 'w2w tag' first"),
    ],
)
def test_a_mistake_is_told_before_any_work(shop, ask, monkeypatch, wanted, said):
    monkeypatch.setattr(job_search, "queries_of", None)  # nothing is read
    with pytest.raises(w2w.UsageError) as error:
        ask(filter=wanted, dry_run=True)
    assert said in str(error.value)
    with pytest.raises(w2w.UsageError) as error:  # by find before its workers start, too
        w2w.find(photos=shop.photos[:1], store=shop.store, filter=wanted, workers_from=1, dry_run=True)
    assert said in str(error.value)
    with pytest.raises(w2w.UsageError) as error:
        w2w.open(shop.store).index().search(b"<html>", filter=wanted)
    assert said in str(error.value)


def test_of_vectors(shop):
    known, index = products(shop), w2w.open(shop.store).index()
    query = np.random.default_rng(0).standard_normal((2, index.manifest.dim)).astype(np.float32)
    everything = index.search(query, len(known)).to_pylist()
    found = index.search(query, 4, filter={"category": ["shoes", "dress"], "price": "50.."}).to_pylist()
    fits = {i for i, p in known.items() if p["category"] in ("shoes", "dress") and p["price"] >= 50}
    for number in (0, 1):
        ranked = [h["product_id"] for h in everything if h["query"] == number and h["product_id"] in fits]
        assert [h["product_id"] for h in found if h["query"] == number] == ranked[:4]


def test_an_evaluation_is_of_the_whole_catalog(shop):
    for more in ({"match": ["category"]}, {"protocol": "own"}):
        with pytest.raises(w2w.UsageError, match="--filter: an evaluation in a part of the catalog"):
            w2w.evaluate(store=shop.store, filter={"category": "shoes"}, feed={"uri": shop.photos[0]}, **more)


def test_options_are_finds():
    words = ["Q.csv", "--store=S", "--filter.brand", "Fjord & Co", "--filter.price=..50", "--filter.care.wash=30"]
    given = configuration.parse(Config, words, "w2w search")
    assert given.feed.uri == "Q.csv"
    assert texts(given.filter) == {"brand": ["Fjord & Co"], "price": ["..50"], "care.wash": ["30"]}
    many = {"product_id": [f"p{n}" for n in range(100_000)]}  # looked at by filters alone: types, one by one, would take hours
    assert configuration.build(Config, {"store": "S", "filter": many}, "w2w search").filter == many
