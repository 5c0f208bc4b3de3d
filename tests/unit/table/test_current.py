"""The newest row of each product: in one piece, a batch at a time, and what of it is held."""

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.table.test_sink import PRODUCTS, lineage, listed, product
from w2w import schema
from w2w.table import current, delta
from w2w.table.current import CurrentRows, current_products, newest_rows
from w2w.table.sink import append_rows


def test_current_products_are_the_newest_rows(tmp_path):
    store = str(tmp_path)
    rows = [product("b", "old", 1), product("a", "only", 5), product("b", "new", 9, False), product("b", "mid", 4)]
    append_rows(store, PRODUCTS, listed(rows), lineage())
    assert current_products(store, ["product_id", "title", "active"]).to_pylist() == [
        {"product_id": "a", "title": "only", "active": True},
        {"product_id": "b", "title": "new", "active": False},
    ]


def test_the_newest_rows_of_some_products(tmp_path):
    store = str(tmp_path)
    rows = [product("a", "old", 1), product("b", "only", 2), product("a", "new", 9), product("c", "not asked", 3)]
    append_rows(store, PRODUCTS, listed(rows), lineage())
    found = newest_rows(store, schema.PRODUCTS, ["b", "a", None, "nowhere"], ["title"])
    assert found == {"a": {"product_id": "a", "title": "new"}, "b": {"product_id": "b", "title": "only"}}
    assert newest_rows(store, schema.PRODUCTS, [None], ["title"]) == {}


@pytest.mark.parametrize("repeats", [0, 1, 3])
def test_current_rows_a_batch_at_a_time(tmp_path, monkeypatch, repeats):
    """Every product once, in its newest row, whether it has one row or several; and read in small pieces."""
    monkeypatch.setattr(current, "_BATCH_ROWS", 7)
    monkeypatch.setattr(delta, "_KEPT_ROWS", 10)
    store, rng = str(tmp_path), np.random.default_rng(repeats)
    rows = [product(f"p{i}", f"{i} at {t}", t) for i in range(40) for t in range(1 + (i % 4 if repeats else 0) * repeats)]
    for part in np.array_split(rng.permutation(len(rows)), 3):
        append_rows(store, PRODUCTS, listed([rows[i] for i in part]), lineage())
    products = CurrentRows(store, schema.PRODUCTS)
    batches = list(products.batches(["title", "product_id"]))
    assert max(b.num_rows for b in batches[:-1]) <= 7
    newest = {r["product_id"]: r["title"] for r in sorted(rows, key=lambda r: r["fetched_at"])}
    got = pa.concat_tables(batches).to_pylist()
    assert len(got) == 40
    assert {r["product_id"]: r["title"] for r in got} == newest
    again = list(products.batches(["title", "product_id"]))
    assert [b.to_pylist() for b in again] == [b.to_pylist() for b in batches]
    several = products.several(["product_id"]).column(0).to_pylist()
    assert sorted(several) == sorted(r["product_id"] for r in rows if repeats and int(r["product_id"][1:]) % 4)
    assert list(CurrentRows(str(tmp_path / "none"), schema.PRODUCTS).batches(["title"])) == []


def test_no_batch_is_kept(tmp_path, monkeypatch):
    """Of 200 kB that are read, the rows of the one key that has two."""
    monkeypatch.setattr(current, "_BATCH_ROWS", 100)
    for start in range(0, 1000, 500):
        rows = [product(f"p{n}", f"{n:0200d}", 0) for n in range(start, start + 500)]
        append_rows(str(tmp_path), PRODUCTS, listed(rows), lineage())
    append_rows(str(tmp_path), PRODUCTS, listed([product("p7", "new", 60_000_000)]), lineage())
    held, newest_of_each = [], current.newest_of_each

    def look(rows: pa.Table, key: str) -> pa.Table:
        held.append(rows.get_total_buffer_size())
        return newest_of_each(rows, key)

    monkeypatch.setattr(current, "newest_of_each", look)
    products = CurrentRows(str(tmp_path), schema.PRODUCTS)
    assert sum(b.num_rows for b in products.batches([schema.PRODUCT_ID, schema.TITLE])) == 1000
    assert len(held) == 1
    assert held[0] < 10_000
    assert products.several([schema.PRODUCT_ID])[schema.PRODUCT_ID].to_pylist() == ["p7", "p7"]
