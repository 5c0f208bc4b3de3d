"""The static site: what it holds, that only what changed is written again, and that nothing hostile gets through."""

import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from tests.unit.gallery import stores
from tests.unit.gallery.conftest import EVIL, NUM, SHOWN
from w2w import schema
from w2w.engine.snapshot import replace_rows
from w2w.errors import UsageError
from w2w.gallery import job
from w2w.gallery.rules import Site, files_of, script
from w2w.report.page import thumbnail


def built(store: str, out: Path, **options) -> job.Result:
    return job.main(job.Config(store=store, out=str(out), side_px=64, **options))


def parts(out: Path) -> dict:
    """The data of every script, as the page gets it."""
    found: dict = {}
    for file in (out / "data").glob("*.js"):
        if call := re.fullmatch(r'w2wGallery\("([\w-]+)",(.*)\)\n', file.read_text(encoding="utf-8"), re.DOTALL):
            found[call[1]] = json.loads(call[2])
    return found


def test_the_site_holds_the_catalog(store, tmp_path):
    result = built(store, tmp_path)
    found = parts(tmp_path)
    shelf, details = found["list-0"], found["detail-0"]
    assert result.products == len(shelf["id"]) == len(details) == NUM - 1
    at = {product: n for n, product in enumerate(shelf["id"])}
    assert "p00005" not in at
    assert shelf["id"][:2] == ["p00002", "p00008"]  # of the newest day, by id
    second = at["p00002"]
    assert [shelf[c][second] for c in ("title", "category", "colour", "cost")] == [
        "Green shoes number 2",
        "shoes",
        "green",
        "12.00 EUR",
    ]
    assert shelf["words"][second] == "green wool"
    assert ["first seen", "2026-05-03"] in details[second]["facts"]
    assert ["feed", "spring"] in details[second]["facts"]
    assert not [text for text in found.values() if "secretsecret" in json.dumps(text)]
    assert (shelf["thumb"][at["p00006"]], shelf["thumb"][at["p00007"]]) == (None, None)
    assert result.unreadable == 1
    for name in filter(None, shelf["thumb"]):
        assert thumbnail((tmp_path / "thumbs" / name[:2] / f"{name}-64.jpg").read_bytes())


def test_similar_products_are_others_of_the_class_and_look_different(store, tmp_path):
    result = built(store, tmp_path, similar=5)
    found = parts(tmp_path)
    shelf, details = found["list-0"], found["detail-0"]
    at = {product: n for n, product in enumerate(shelf["id"])}
    for n, about in enumerate(details):
        others = [m for m, _ in about["similar"]]
        if shelf["id"][n] == "p00006":
            assert others == []
            continue
        assert len(others) == len(set(others)) == 5
        assert {shelf["category"][m] for m in others} == {shelf["category"][n]}
        scores = [score for _, score in about["similar"]]
        assert scores == sorted(scores, reverse=True)
    same = {at[f"p{i:05d}"] for i in (0, 4, 8)}  # one picture, and its near-duplicate
    for n in same:
        assert same.isdisjoint(m for m, _ in details[n]["similar"])
    assert all(len(same & {m for m, _ in about["similar"]}) < 2 for about in details)
    assert result.similar == sum(len(about["similar"]) for about in details)
    colours = [at["p00012"], at["p00016"]]  # of one design: they stand beside it, and are not like it
    assert [details[n]["colours"] for n in colours] == [colours[1:], colours[:1]]
    assert sum(map(bool, (about["colours"] for about in details))) == 2
    for about in details:
        assert len({m for m, _ in about["similar"]} & set(colours)) < 2
    assert not {m for n in colours for m, _ in details[n]["similar"]} & set(colours)


def test_similar_products_are_those_of_their_table_where_it_is(store, tmp_path):
    store = shutil.copytree(store, str(tmp_path / "store"))  # the other tests' store is one without
    kinds = schema.SIMILAR_PRODUCTS.schema
    blank = {f.name: "" if f.type == pa.string() else False if f.type == pa.bool_() else [] for f in kinds if not f.nullable}
    entries = [{"product_id": "p00007", "score": 0.75}, {"product_id": "p99999", "score": 0.5}]
    for name, listed in (("default", entries), ("anywhere", [])):
        row = blank | {"product_id": "p00003", "similar": listed, "source": name}
        replace_rows(store, schema.SIMILAR_PRODUCTS, [pa.Table.from_pylist([row], schema=kinds)], stores.LINEAGE, name)
    result = built(store, tmp_path / "site")
    found = parts(tmp_path / "site")
    at = {product: n for n, product in enumerate(found["list-0"]["id"])}
    assert result.similar == 1
    assert found["detail-0"][at["p00003"]]["similar"] == [[at["p00007"], 0.75]]


def test_prices_are_asked_for_where_there_are_some():
    row = dict.fromkeys(("title", "brand", "currency", "url", "attributes", "image_id", "image_uri", "price"))
    row |= {"product_id": "a", "category": "top", "feed": "", "first": "", "last": ""}
    for price, told in ((None, False), (0.0, True)):
        assert files_of(Site("t", [row | {"price": price}], (), 64), b"")[1]["prices"] is told


def test_outfits_and_looks_lead_to_products_and_back(store, tmp_path):
    built(store, tmp_path)
    found = parts(tmp_path)
    at = {product: n for n, product in enumerate(found["list-0"]["id"])}
    [outfit] = found["outfits"]
    assert [(slot, product) for slot, _, _, product in outfit["pieces"]] == [
        ("top", at["p00008"]),
        ("bottom", at["p00009"]),
        ("shoes", at["p00010"]),
    ]
    assert outfit["says"] == "of polyvore"
    assert found["detail-0"][at["p00009"]]["outfits"] == [0]
    looks = {look["url"]: look for look in found["looks"]}
    assert len(found["looks"]) == 3  # one was withdrawn
    assert looks["https://blog.example/1"]["products"] == sorted([at["p00009"], at["p00010"]])
    assert [look["products"] for url, look in looks.items() if url is None] == [[]]
    number = found["looks"].index(looks["https://blog.example/1"])
    assert found["detail-0"][at["p00010"]]["looks"] == [number]
    assert found["looks"][number]["date"] == "2026-05-01"


def test_what_goes_with_a_product(store, tmp_path):
    result = built(store, tmp_path)
    found = parts(tmp_path)
    at = {product: n for n, product in enumerate(found["list-0"]["id"])}
    [outfit] = found["detail-0"][at["p00008"]]["wear"]
    assert [(slot, product) for slot, _, _, product in outfit["pieces"]] == [
        ("top", at["p00008"]),
        ("bottom", at["p00009"]),
        ("shoes", at["p00010"]),
    ]
    assert outfit["says"] == "goes together: 0.82, shoes with top 0.90"
    assert result.wear == 1
    built(store, tmp_path, wear=0)
    assert parts(tmp_path)["detail-0"][at["p00008"]]["wear"] == []


def test_hostile_rows_are_data(store, tmp_path):
    built(store, tmp_path, title=EVIL)
    found = parts(tmp_path)
    at = found["list-0"]["id"].index("p00001")
    assert found["list-0"]["title"][at] == SHOWN
    assert "\\u202e" in SHOWN
    text = json.dumps(found, ensure_ascii=False)
    assert "\u202e" not in text
    assert r"\u0000" not in text
    assert found["detail-0"][at]["url"] is None
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.count("<script") == 1
    assert "alert(1)</script>" not in page
    assert "default-src 'none'" in page


def test_only_what_changed_is_written_again(store, tmp_path):
    first = built(store, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.jpg")}
    (tmp_path / "thumbs" / "mine.jpg").write_bytes(b"somebody's")
    stale = tmp_path / "data" / "list-7-0123456789abcdef.js"
    stale.write_bytes(b"old")
    again = built(store, tmp_path)
    assert (first.pictures_written, again.pictures_written) == (len(before), 0)
    assert again.pictures_kept == len(before)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert (again.files_removed, stale.exists()) == (1, False)
    assert (tmp_path / "thumbs" / "mine.jpg").exists()
    fewer = built(store, tmp_path, limit=5, looks=0, outfits=0)  # another site: what it has not is removed
    left = [p for p in tmp_path.rglob("*.jpg") if p.name != "mine.jpg"]
    assert len(left) == fewer.pictures_kept <= 5
    assert fewer.products == 5


def test_a_store_that_sells_nothing_is_an_empty_site(tmp_path):
    rows = stores.products(1, stores.pictures(1))
    stores.append(str(tmp_path / "none"), schema.PRODUCTS, [row | {"active": False} for row in rows])
    result = built(str(tmp_path / "none"), tmp_path / "out")
    assert (result.products, result.similar, result.index_version) == (0, None, None)
    assert (
        json.loads(re.search(r'data-told="([^"]*)"', (tmp_path / "out" / "index.html").read_text())[1].replace("&#34;", '"'))[
            "categories"
        ]
        == []
    )


def test_a_dry_run_writes_nothing(store, tmp_path):
    assert built(store, tmp_path / "out", dry_run=True).products == NUM - 1
    assert not (tmp_path / "out").exists()


def test_a_store_that_is_not_there_empties_no_site(store, tmp_path):
    built(store, tmp_path / "out")
    before = sorted(p for p in (tmp_path / "out").rglob("*") if p.is_file())
    for options in ({}, {"dry_run": True}):
        with pytest.raises(UsageError, match=r"there is no table .*products.*: run 'w2w ingest' first, or check --store"):
            built(str(tmp_path / "stroe"), tmp_path / "out", **options)
    assert sorted(p for p in (tmp_path / "out").rglob("*") if p.is_file()) == before


def test_mistakes_are_sentences(store, tmp_path):
    (tmp_path / "index.html").write_text("<h1>My own page</h1>")
    with pytest.raises(UsageError, match=r"--out=.*has an index.html that 'w2w gallery' did not write"):
        built(store, tmp_path)
    (tmp_path / "photos" / "thumbs").mkdir(parents=True)
    (tmp_path / "photos" / "thumbs" / "mine.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"--out=.*has files that 'w2w gallery' did not write"):
        built(store, tmp_path / "photos")
    for option, value in (("similar", -1), ("wear", -1), ("looks", -1), ("outfits", -1), ("threads", 0)):
        with pytest.raises(UsageError, match=f"--{option}={value}"):
            built(store, tmp_path / "x", **{option: value})
    with pytest.raises(UsageError, match="--side_px=4096"):
        job.main(job.Config(store=store, out=str(tmp_path / "x"), side_px=4096))


def test_parts_are_of_a_size_and_named_by_their_content():
    rows = [row | {"first": "2026-01-01", "last": "2026-01-01"} for row in stores.products(2300, stores.pictures(1))]
    site = Site("t", rows, set(), 64)
    files, told = files_of(site, b"app")
    assert [len(json.loads(files[told["files"][f"list-{n}"]].split(b",", 1)[1][:-2])["id"]) for n in range(3)] == [
        1000,
        1000,
        300,
    ]
    assert sum(name.startswith("detail-") for name in told["files"]) == 10
    assert sum(count for _, count in told["categories"]) == sum(count for _, count in told["colours"]) == 2300
    assert files_of(site, b"app")[1] == told
    rows[0]["title"] = "changed"
    other = files_of(site, b"app")[1]["files"]
    assert [name for name in other if other[name] != told["files"][name]] == ["list-0"]


def test_a_script_is_json_that_nothing_ends():
    text = script("list-0", {"title": [EVIL, "\ud800"]}).decode()
    assert json.loads(text[len('w2wGallery("list-0",') : -2]) == {"title": [EVIL, "?"]}
    with pytest.raises(ValueError, match="Out of range"):
        script("x", [float("nan")])
