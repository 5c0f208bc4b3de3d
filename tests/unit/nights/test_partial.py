"""Feeds of changes whose rows say a part: prices or stock alone, or no picture."""

import pytest

from tests.unit.nights.nights import Clock, Shop, jpeg, night, products
from w2w import schema
from w2w.ingest.feed import FeedConfig, check_feed
from w2w.table import delta

FULL = "product_id,title,brand,price,sale_price,currency,category,link,availability,colour,weave,image,additional_image_link"


@pytest.fixture
def filled(shop: Shop, clock: Clock, store: str) -> Shop:
    """Three products in the store, each with two pictures."""
    for n in range(3):
        (shop.folder / f"back{n}.jpg").write_bytes(jpeg(100 + n))
    rest = "Acme,20.00,15.00,EUR,top,https://x.test/,in stock,red,plain"
    lines = [f"p{n},shirt {n},{rest},{n}.jpg,back{n}.jpg" for n in range(3)]
    said(store, shop, FULL, *lines, full=True, changes=False)
    return shop


def said(store: str, shop: Shop, *lines: str, max_reject_rate: float = 0.5, **feed):
    (shop.folder / "said.csv").write_text("\n".join(lines) + "\n")
    given = {"uri": str(shop.folder / "said.csv"), "full": False, "changes": True}
    return night(store, shop, given | feed, max_reject_rate=max_reject_rate)


def pictures(row: dict) -> list[tuple]:
    return [(one[schema.IMAGE_ID], one[schema.POSITION], one[schema.ROLE]) for one in row[schema.IMAGE_LIST]]


def test_a_price_alone_changes_the_price_alone(filled, store):
    before = products(store)
    result = said(store, filled, "id,price", "p0,18.00", "p1,12.00")
    assert (result.feed_rows, result.counts.out, result.counts.rejected) == (2, 2, 0)
    now = products(store)
    changed = {schema.PRICE, schema.SALE_PRICE, schema.REGULAR_PRICE, schema.ROW_DIGEST, schema.FETCHED_AT}
    for one in ("p0", "p1"):
        assert {c for c in before[one] if before[one][c] != now[one][c]} <= changed
        assert pictures(now[one]) == pictures(before[one])
    prices = [[now[one][c] for c in (schema.PRICE, schema.SALE_PRICE, schema.REGULAR_PRICE)] for one in ("p0", "p1", "p2")]
    assert prices == [[15.0, 15.0, 18.0], [12.0, None, None], [15.0, 15.0, 20.0]]
    again = said(store, filled, "id,price", "p0,18.00", "p1,12.00")
    assert (again.skipped, again.pending) == (2, 0), "the same file changes nothing"


def test_stock_alone_and_a_sale_price_alone(filled, store):
    said(store, filled, "id,availability", "p0,out of stock")
    row = products(store)["p0"]
    assert (row[schema.AVAILABILITY], row[schema.PRICE], row[schema.REGULAR_PRICE]) == ("out_of_stock", 15.0, 20.0)
    said(store, filled, "id,sale_price", "p0,9.00", "p1,", "p2,30.00")
    rows = products(store)
    found = [[rows[one][c] for c in (schema.PRICE, schema.SALE_PRICE, schema.REGULAR_PRICE)] for one in ("p0", "p1", "p2")]
    assert found == [[9.0, 9.0, 20.0], [20.0, None, None], [20.0, None, None]]
    assert rows["p0"][schema.AVAILABILITY] == "out_of_stock"
    assert dict(rows["p0"][schema.ATTRIBUTES])["weave"] == "plain"


def test_an_empty_picture_keeps_all_pictures_and_an_unknown_product_needs_one(filled, store):
    before = products(store)["p0"]
    result = said(store, filled, "id,title,image,price", "p0,new,,30.00", "p9,nine,,5.00")
    assert (result.counts.out, result.counts.rejected) == (1, 1)
    now = products(store)["p0"]
    assert (now[schema.TITLE], now[schema.PRICE], now[schema.REGULAR_PRICE]) == ("new", 15.0, 30.0)
    assert pictures(now) == pictures(before)
    rejects = delta.read(store, schema.REJECTS, [schema.REJECT_CODE, schema.REJECT_DETAIL]).to_pylist()
    assert [tuple(one.values()) for one in rejects] == [("missing_field", "no image, and the store does not know the product")]


def test_a_new_value_of_an_attribute_and_an_emptied_one(filled, store):
    said(store, filled, "id,weave,fit", "p0,,slim", "p1,twill,")
    found = [dict(products(store)[one][schema.ATTRIBUTES]) for one in ("p0", "p1")]
    assert [(one.get("weave"), one.get("fit")) for one in found] == [(None, "slim"), ("twill", None)]
    assert [one["colour"] for one in found] == ["red", "red"]


def test_a_picture_that_is_broken_now_leaves_the_rest_of_a_partial_row(filled, store):
    (filled.folder / "0.jpg").write_bytes(b"no picture")
    before = products(store)["p0"]
    said(store, filled, "id,price", "p0,18.00", max_reject_rate=1.0)
    now = products(store)["p0"]
    assert (now[schema.REGULAR_PRICE], pictures(now)) == (18.0, pictures(before))


def test_only_a_feed_of_changes_may_lack_the_picture(tmp_path):
    (tmp_path / "f.csv").write_text("id,price\np0,1\n")
    check_feed(FeedConfig(uri=str(tmp_path / "f.csv"), changes=True))
    with pytest.raises(ValueError, match="no column 'image'"):
        check_feed(FeedConfig(uri=str(tmp_path / "f.csv")))
