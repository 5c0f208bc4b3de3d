"""`w2w check`: each planted fault is found, nothing is found in a clean catalog, and findings stand from night to night."""

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image, ImageFilter

import w2w
from tests.unit.check.stores import NUM, Wardrobe, add_pictures, rows_of, rows_of_pictures
from tests.unit.recommend.stores import append
from w2w import ids, schema
from w2w.check import job
from w2w.check.job import Config, main
from w2w.check.kinds import KINDS
from w2w.check.page import _day
from w2w.errors import JobFailed, UsageError
from w2w.garments.stage import to_jpeg
from w2w.table import delta

LATER = 10**12


@pytest.fixture(scope="module")
def wardrobe() -> Wardrobe:
    return Wardrobe()


def checks(store: str) -> dict[str, dict[str, dict]]:
    """kind -> product -> row."""
    found: dict[str, dict[str, dict]] = {}
    for row in delta.read(store, schema.CHECKS, schema.CHECKS.schema.names).to_pylist():
        found.setdefault(row["kind"], {})[row["product_id"]] = row
    return found


def products(store: str) -> dict[str, list[str]]:
    return {kind: sorted(rows) for kind, rows in checks(store).items()}


def blurred(data: bytes, by: float) -> bytes:
    return to_jpeg(np.asarray(Image.open(io.BytesIO(data)).filter(ImageFilter.GaussianBlur(by))))


def test_a_clean_catalog_has_no_findings(tmp_path, wardrobe):
    result = main(Config(store=wardrobe.write(str(tmp_path))))
    assert (result.products, result.findings, result.new, result.gone) == (NUM, {}, 0, 0)
    assert result.left_out == (
        "broken_link: it asks the shop's servers, politely: --links=N for at most N links a night",
        "wrong_value: it needs vectors of w2w-fashion, which tagger w2w-tags reads: run 'w2w embed' with that encoder, or "
        "teach a tagger on yours with 'w2w tag --learn'",
        "only_worn: it needs to know whom the pictures show: run 'w2w detect'",
        "shared_picture: copies of other sizes: run 'w2w deduplicate'",
    )
    assert "nothing is wrong with the 147 products" in Path(result.report).read_text()
    assert not checks(str(tmp_path))


def test_every_planted_fault_is_found_and_nothing_else(tmp_path, wardrobe):
    store = str(tmp_path)
    flat, soft = to_jpeg(np.full((300, 300, 3), 240, np.uint8)), blurred(wardrobe.pictures[20], 1.5)
    tiny = to_jpeg(np.asarray(Image.open(io.BytesIO(wardrobe.pictures[21])).resize((160, 160))))
    add_pictures(store, rows_of_pictures([flat, soft, tiny]))
    same = [ids.image_id(data) for data in wardrobe.pictures[30:32]]  # as `w2w deduplicate` might find
    append(store, schema.DUPLICATES, [{"image_id": image, "cluster_id": same[0], "cluster_size": 2} for image in same])

    def plant(rows: list[dict]) -> None:
        for n, data in ((10, flat), (20, soft), (21, tiny)):
            rows[n]["image_id"] = ids.image_id(data)
        for n in range(40, 44):  # of several categories
            rows[n]["image_id"] = rows[40]["image_id"]
        for n in (50, 57):  # sizes of one product
            rows[n] |= {"image_id": rows[50]["image_id"], "group_id": "g"}
        for n in (51, 58):
            rows[n] |= {"image_id": rows[51]["image_id"], "size": str(n), **{c: rows[51][c] for c in ("title", "colour")}}
        rows[60]["category"] = "hat" if rows[60]["category"] == "bag" else "bag"
        rows[70]["price"] = 0.0
        rows[71] |= {"price": 30.0, "sale_price": 30.0, "regular_price": 25.0}
        rows[72]["attributes"] = [("Sale Price", "99,00 EUR")]
        rows[73]["price"] = 4500.0
        rows[74] |= {"brand": None, "colour": None}
        rows[75]["category"] = "etc"
        rows[76]["image_id"] = None
        rows[77]["active"] = False
        rows[77]["price"] = -1.0

    wardrobe.write(store, plant)
    warned = {"row_digest": "d", "column": "price", "code": "bad_value", "detail": "not like 12.50: 'ask'", "run_id": "r"}
    said = [warned | {"warning_id": f"{n}", "product_id": p, "warned_at": 0} for n, p in enumerate(["p080", "p080", "gone"])]
    append(store, schema.WARNINGS, [*said, said[0] | {"product_id": "p081", "row_digest": "an earlier one"}])
    result = main(Config(store=store))
    found = products(store)
    assert found == {
        "no_picture": ["p076"],
        "placeholder": ["p010"],
        "zero_price": ["p070"],
        "wrong_category": ["p041", "p042", "p043", "p060"],  # which have the picture of p040
        "sale_price": ["p071", "p072"],
        "price_outlier": ["p073"],
        "shared_picture": ["p030", "p031", "p040", "p041", "p042", "p043"],
        "blurred": ["p020"],
        "tiny": ["p021"],
        "unreadable_value": ["p080"],
        "missing_value": ["p074", "p075"],
    }
    assert result.findings["missing_value"] == 3
    assert sum(result.findings.values()) == result.new
    told = checks(store)
    assert told["price_outlier"]["p073"]["detail"].startswith("It costs 4,500.00 EUR, 96 times the usual 47.00 EUR")
    assert told["sale_price"]["p072"]["detail"] == "Its sale price is 99.00 EUR, its price 32.00 EUR."
    assert told["tiny"]["p021"]["images"] == [ids.image_id(tiny)]
    assert told["blurred"]["p020"]["url"] == "https://shop.example/20"
    lines = [json.loads(line) for line in (Path(result.report).parent / "findings.jsonl").read_text().splitlines()]
    assert (len(lines), {line["kind"] for line in lines}) == (result.new, set(found))


def test_findings_stand_until_they_are_gone(tmp_path, wardrobe):
    store = wardrobe.write(str(tmp_path), lambda rows: [row.update(price=0.0) for row in rows[:3]])
    before = main(Config(store=store))
    since = checks(store)["zero_price"]["p001"]["since"]
    rows = rows_of(wardrobe.garments, wardrobe.pictures)
    night = [rows[0], rows[5] | {"price": 0.0}, rows[1] | {"price": 0.0, "title": "<b>other</b>"}]
    append(store, schema.PRODUCTS, [row | {"fetched_at": LATER} for row in night], "night")
    second = main(Config(store=store))
    assert (before.new, before.gone, second.new, second.gone, second.findings) == (3, 0, 1, 1, {"zero_price": 3})
    told = checks(store)["zero_price"]
    assert told["p001"]["since"] == since < told["p005"]["since"]
    page = BeautifulSoup(Path(second.report).read_text(), "lxml")
    assert page.select_one(".kinds").find_next("h2", string="Not looked for")  # what was found comes first
    assert "3 findings in 147 products, 3 to mend first; 1 new and 1 gone since" in page.select_one(".day").text
    first = page.select(".finding")[0]
    assert (first["data-new"], first.select_one(".name").text) == ("1", rows[5]["title"])
    assert "<b>other</b>" in [name.text for name in page.select(".finding .name")]
    other = main(Config(store=store, only=["tiny"], least_px=300))
    assert (other.findings["zero_price"], other.findings["tiny"], other.gone) == (3, NUM, 0)
    back = main(Config(store=store))
    assert (checks(store)["zero_price"]["p001"]["since"], back.new, back.gone) == (since, 0, NUM)


def test_stores_of_any_stage_are_answered(tmp_path, wardrobe):
    with pytest.raises(UsageError, match="w2w ingest"):
        main(Config(store=str(tmp_path / "none")))
    store = wardrobe.write(str(tmp_path / "early"), vectors=False)
    result = main(Config(store=store))
    assert "wrong_category: it needs vectors: run 'w2w embed'" in result.left_out
    assert "run 'w2w embed'" in Path(result.report).read_text().replace("&#39;", "'")
    withdrawn = [row | {"active": False, "fetched_at": LATER} for row in rows_of(wardrobe.garments, wardrobe.pictures)]
    append(store, schema.PRODUCTS, withdrawn[1:], "night")
    assert main(Config(store=store)).findings == {}
    append(store, schema.PRODUCTS, withdrawn[:1], "later")
    result = main(Config(store=store))
    assert (result.products, result.findings) == (0, {})
    assert "there is no product on sale" in Path(result.report).read_text()
    rows = rows_of(wardrobe.garments, wardrobe.pictures)
    append(store, schema.PRODUCTS, [rows[0] | {"price": 0.0, "fetched_at": 2 * LATER}], "back")
    text = Path(main(Config(store=store)).report).read_text()  # nothing was wrong the last time, but there was one
    assert "1 new and 0 gone since" in text
    empty = str(tmp_path / "empty")
    delta.create_table(empty, schema.PRODUCTS)
    assert main(Config(store=empty, dry_run=True)).products == 0


def test_fail_on_makes_the_exit_code_1_after_everything_is_written(tmp_path, wardrobe):
    store = wardrobe.write(str(tmp_path), lambda rows: rows[0].update(price=0.0))
    config = Config(store=store, fail_on=["blurred"])
    assert main(config).findings == {"zero_price": 1}
    with pytest.raises(JobFailed, match="1 zero_price") as failed:
        main(replace(config, fail_on=["blurred", "zero_price"]))
    assert failed.value.result.findings == {"zero_price": 1}
    for option in ("only", "fail_on"):
        with pytest.raises(UsageError, match="Did you mean 'blurred'"):
            main(Config(store=store, **{option: ["blured"]}))


def test_a_run_that_is_killed_before_its_commit_changes_nothing(tmp_path, wardrobe, monkeypatch):
    store = wardrobe.write(str(tmp_path), lambda rows: rows[0].update(price=0.0))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(job, "replace_rows", killed)
        with pytest.raises(KeyboardInterrupt):
            main(Config(store=store))
    assert not checks(store)
    assert main(Config(store=store)).new == 1


def test_a_dry_run_writes_nothing_and_tells_what_is_to_be_measured(tmp_path, wardrobe):
    store = str(tmp_path)
    append(store, schema.PRODUCTS, rows_of(wardrobe.garments, wardrobe.pictures)[:7])
    result = w2w.check(store=store, dry_run=True)
    assert (result.products, result.pictures, result.to_measure, result.report) == (7, 7, 0, None)
    assert delta.open_table(store, schema.CHECKS) is None


def test_hostile_texts_are_texts(tmp_path, wardrobe):
    evil = '<script>alert(1)</script>"\u202e'

    def plant(rows: list[dict]) -> None:
        rows[0] |= {"title": evil, "price": 0.0, "url": "javascript:alert(1)", "brand": evil, "currency": "<i>"}
        for row in rows[1:3]:
            row["category"] = evil

    wardrobe.write(str(tmp_path), plant)
    text = Path(main(Config(store=str(tmp_path))).report).read_text()
    page = BeautifulSoup(text, "lxml")
    assert not [s for s in page.select("script") if "alert" in s.text]
    assert not page.select("i, a[href^=javascript]")
    assert "\u202e" not in text
    assert [kind for kind in KINDS if page.select(f"#{kind}")] == ["zero_price"]


def test_a_look_of_the_same_day_is_named_by_its_hour():
    now = datetime(2026, 11, 30, 7, 5, tzinfo=UTC)
    days = [_day(now - timedelta(hours=hours), now) for hours in (2, 24, 24 * 365)]
    assert days == ["05:05 UTC", "29 November", "30 November 2025"]
