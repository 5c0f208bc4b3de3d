"""The table of jobs/README.md, what became what in which export, is what the code does."""

import csv
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from w2w import schema
from w2w.ingest import nights
from w2w.ingest.feed import FeedConfig, read_as, read_feed
from w2w.ingest.prices import is_within

ROOT = Path(__file__).parents[3]
PICTURE = "https://x.test/1.jpg"
VALUES = {
    "price": ("12.50", 12.5),
    "sale_price": ("3.50", 3.5),
    "currency": ("EUR", "EUR"),
    "availability": ("in stock", "in_stock"),
    "url": ("https://x.test/a", "https://x.test/a"),
    "category": ("Hats", "hats"),
}
# what a row of each export must have; the plain one is JSON
BASE = {
    "shopify": {"Handle": "1", "Title": "t", "Variant Compare At Price": "20", "Variant Price": "", "Image Src": PICTURE},
    "google": {"id": "1", "title": "t", "image_link": PICTURE, "price": "20"},
    "woocommerce": {"ID": "1", "Type": "simple", "Name": "t", "Categories": "", "Images": PICTURE, "Regular price": "20"},
    "magento": {"sku": "1", "attribute_set_code": "d", "product_type": "simple", "base_image": PICTURE, "price": "20"},
    "bigcommerce": {"Item Type": "Product", "Product ID": "1", "Product Name": "t", "Product Code/SKU": "s", "Category": ""}
    | {"Product Image File - 1": PICTURE, "Price": "20"},
    "plain": {"id": "1", "image": PICTURE, "price": "20"},
}


def table() -> dict[str, dict[str, str]]:
    """Row -> export -> cell."""
    lines = (ROOT / "jobs" / "README.md").read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("| column of `products` |"))
    end = next(n for n in range(start, len(lines)) if not lines[n].startswith("|"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:end]]
    exports = [re.match(r"`(\w+)`", cell)[1] for cell in rows[0][1:]]
    return {row[0].replace("`", ""): dict(zip(exports, row[1:])) for row in rows[2:]}


TABLE = table()
# test_exports.py and test_families.py have these
SAID_BY_EXPORTS = (
    "options called",
    "attributes called",
    "in stock if",
    "of products with",
)


def names(cell: str) -> list[str]:
    """The columns that a cell names."""
    cell = re.sub(r":? the (first|others|deepest)\b| \.\.\.| \(.*\)|, a list or repeated| of the first row", "", cell)
    if cell.startswith(SAID_BY_EXPORTS):
        return []
    return [name for name in re.split(r", else |, ", cell) if name and not name.startswith(("`", "in the"))]


CASES = [
    (export, ours, name, tuple(names(cell)))
    for ours, cells in TABLE.items()
    if ours not in ("told by", "its dates", "rows left out") and not ours.startswith("images")
    for export, cell in cells.items()
    for name in names(cell)
]


def row_of(tmp_path: Path, export: str, said: dict[str, str]) -> dict:
    """The product that one row of an export becomes."""
    values = {name: value for name, value in (BASE[export] | said).items() if value or export != "plain"}
    if export == "plain":
        nested: dict = {}
        for name, value in values.items():
            outer, dot, inner = name.partition(".")
            nested[outer] = {inner: value} if dot else value
        (tmp_path / "feed.jsonl").write_text(json.dumps(nested) + "\n")
        config = FeedConfig(uri=str(tmp_path / "feed.jsonl"))
    else:
        with open(tmp_path / "feed.csv", "w", newline="") as file:
            csv.writer(file).writerows([values.keys(), values.values()])
        config = FeedConfig(uri=str(tmp_path / "feed.csv"))
        assert read_as(config).startswith(export)
    [row] = [r for batch in read_feed(config) for r in batch.rows.to_pylist()]
    return row


@pytest.mark.parametrize(("export", "ours", "name", "all_names"), CASES)
def test_a_column_becomes_what_the_table_says(tmp_path, export, ours, name, all_names):
    text, wanted = VALUES.get(ours, ("abc", "abc"))
    said = dict.fromkeys(all_names, "")
    if name.endswith(" in additional_attributes"):
        said = {"additional_attributes": f"weave=plain, soft,{name.split()[0]}={text},length=10,5"}
    elif ours == "product_id" and export == "plain":
        said = {"id": "", name: text}
    elif ours == "currency":
        said |= {name: text}
    else:
        said |= {name: text}
    assert row_of(tmp_path, export, said)[ours] == wanted


def test_the_table_has_every_export_and_every_column():
    assert set(BASE) == set(TABLE["told by"])
    columns = set(schema.PRODUCTS.schema.names)
    named = {ours.partition(":")[0] for ours in TABLE} - {"told by", "its dates", "rows left out"}
    assert named <= columns
    of_feeds = {*schema.PRODUCTS.schema.names} - {
        schema.ATTRIBUTES,
        schema.IMAGE_ID,
        schema.IMAGE_URI,
        schema.IMAGE_FINGERPRINT,
    }
    of_feeds -= {schema.ACTIVE, schema.ROW_DIGEST, schema.FETCHED_AT, schema.FEED, schema.REGULAR_PRICE}
    assert of_feeds == named
    assert len(CASES) > 55


@pytest.mark.parametrize("export", BASE)
def test_pictures_are_where_the_table_says(tmp_path, export):
    (front, *_), (further, *_) = names(TABLE["images: the front"][export]), names(TABLE["images: further"][export])
    if export == "shopify":
        return  # its pictures are rows: tests/unit/nights/test_exports.py
    said = {front: PICTURE} | (
        {further: "https://x.test/2.jpg"} if further != front else {further: f"{PICTURE}, https://x.test/2.jpg"}
    )
    row = row_of(tmp_path, export, said)
    assert (row["image_uri"], [one["uri"] for one in row["more"]]) == (PICTURE, ["https://x.test/2.jpg"])


@pytest.mark.parametrize("export", [name for name, cell in TABLE["its dates"].items() if cell])
@pytest.mark.parametrize(("day", "price"), [("2026-11-03", 20), ("2026-11-04", 3.5), ("2026-11-20", 3.5), ("2026-11-21", 20)])
def test_a_sale_price_counts_between_its_dates(tmp_path, monkeypatch, export, day, price):
    at = datetime.fromisoformat(f"{day}T12:00+00:00")
    monkeypatch.setattr(nights, "now_us", lambda: int(at.timestamp() * 1e6))
    dates = names(TABLE["its dates"][export])
    between = ("11/4/26", "11/20/2026") if export == "magento" else ("2026-11-04", "2026-11-20")
    said = dict(zip(dates, between)) if len(dates) == 2 else {dates[0]: "/".join(between)}
    sale, price_column = (names(TABLE[ours][export])[0] for ours in ("sale_price", "price"))
    row = row_of(tmp_path, export, said | {sale: "3.50", price_column: "20"})
    assert (row["price"], row["sale_price"]) == (price, 3.5 if price == 3.5 else None)
    odd = row_of(tmp_path, export, dict.fromkeys(dates, "soon") | {sale: "3.50", price_column: "20"})
    assert (odd["price"], [w["column"] for w in odd["warned"]]) == (3.5, ["sale_price_effective_date"])


@pytest.mark.parametrize(
    ("interval", "found"),
    [
        ("2026-11-29T13:00+0100/2026-11-29T14:00+01:00", True),
        ("2026-11-29T12:00Z/2026-11-29T12:01Z", True),
        ("2026-11-29T12:00/2026-11-30", True),
        ("2026-11-29T13:00-0800/2026-12-01T15:30-0800", False),
        ("2026-11-01T08:00Z/2026-11-29T12:00Z", False),  # its end is not in it
        ("/2026-11-29", True),
        ("/2026-11-28", False),
        ("2026-11-30/", False),
        (" 2026-1-2 / 9999-12-31 ", True),
        ("0001-01-01T00:00+14:00/9999-12-31T23:59-12:00", True),
        ("/", None),
        ("", None),
        ("2026-11-29", None),
        ("2026-13-01/2026-12-01", None),
        ("now/then", None),
        ("2026-11-01/2026-11-02/2026-11-03", None),
    ],
)
def test_an_interval_has_a_time_in_it(interval, found):
    assert is_within(interval, datetime(2026, 11, 29, 12, tzinfo=UTC)) is found
