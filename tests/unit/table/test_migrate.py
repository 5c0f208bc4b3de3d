"""Stores written before products had several pictures: brought to today's columns, row for row."""

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from tests.unit.nights.nights import Clock, Shop, night, num_rows, products, without_ray
from w2w import schema
from w2w.cli import tables
from w2w.errors import JobFailed
from w2w.table import delta, maintain
from w2w.table.pictures import active_pictures

LATER = ("images", "group_id", "availability", "sale_price", "regular_price", "gender", "colour", "size")


@pytest.fixture
def old(tmp_path, monkeypatch) -> tuple[str, Shop]:
    """A store whose products have two versions each, without today's columns."""
    without_ray(monkeypatch)
    clock = Clock(monkeypatch)
    (tmp_path / "shop").mkdir()
    shop, store = Shop(tmp_path / "shop"), str(tmp_path / "store")
    shop.stock(6)
    night(store, shop)
    shop.say("p1", price="11.00")
    shop.items.pop("p5")
    clock.sleep()
    night(store, shop, {"grace_nights": 1}, withdraw_missing=1)
    rows = delta.existing(store, schema.PRODUCTS).to_pyarrow_table().drop_columns(list(LATER))
    write_deltalake(delta.uri(store, schema.PRODUCTS), rows, mode="overwrite", schema_mode="overwrite")
    return store, shop


def test_every_row_stays_and_gets_its_list_of_pictures(old):
    store, shop = old
    before, seen = num_rows(store), active_pictures(store, ["product_id", "image_id"]).to_pylist()
    rows = sorted(delta.existing(store, schema.PRODUCTS).to_pyarrow_table().to_pylist(), key=str)
    would = tables.main(tables.Config(store, migrate=True, dry_run=True)).migrated
    assert would["products"] == tables.Migrated(8, 8, LATER, 8)
    assert set(delta.existing(store, schema.PRODUCTS).to_pyarrow_table().column_names).isdisjoint(LATER)
    done = tables.main(tables.Config(store, migrate=True))
    assert done.migrated["products"] == tables.Migrated(8, 8, LATER, 8)
    others = {name: one for name, one in done.migrated.items() if name != "products"}
    assert all((one.rows_before, one.filled) == (one.rows_after, 0) for one in others.values())
    assert {name: others[name].rows_after for name in ("images", "rejects")} == {n: before[n] for n in ("images", "rejects")}
    now = delta.existing(store, schema.PRODUCTS).to_pyarrow_table()
    assert sorted(now.drop_columns(list(LATER)).to_pylist(), key=str) == rows
    for row in now.to_pylist():
        front = {"image_id": row["image_id"], "uri": row["image_uri"], "position": 1, "role": "front"}
        assert row["images"] == [front | {"fingerprint": row["image_fingerprint"]}]
    assert (num_rows(store), active_pictures(store, ["product_id", "image_id"]).to_pylist()) == (before, seen)
    assert night(store, shop).versions == {}  # nothing has changed for a feed
    again = tables.main(tables.Config(store, migrate=True)).migrated
    assert again["products"] == tables.Migrated(8, 8)
    shop.draw("more.jpg", 77)
    shop.say("p2", more=("more.jpg",))
    night(store, shop)
    assert [len(products(store)[p]["images"]) for p in ("p1", "p2")] == [1, 2]
    assert tables.main(tables.Config(store, migrate=True)).migrated["products"] == tables.Migrated(9, 9)


def test_a_row_too_many_is_told(old, monkeypatch):
    store, _ = old
    monkeypatch.setattr(maintain, "rewrite", lambda *_: write_more(store))
    with pytest.raises(JobFailed, match="table 'products' had 8 rows and has 9: another run writes to it"):
        tables.main(tables.Config(store, migrate=True, table="products"))


def write_more(store: str) -> int:
    rows = delta.existing(store, schema.PRODUCTS).to_pyarrow_table().slice(0, 1)
    write_deltalake(delta.uri(store, schema.PRODUCTS), pa.table(rows), mode="append")
    return 0
