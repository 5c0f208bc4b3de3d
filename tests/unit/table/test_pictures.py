"""The pictures of the active products, of rows with and without a list."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from w2w import schema
from w2w.mining.owners import active_product_batches
from w2w.mining.representatives import flow as representing
from w2w.mining.splits.rules import SplitRules, deal
from w2w.table.current import CurrentRows
from w2w.table.parts import Output
from w2w.table.pictures import active_pictures, with_pictures
from w2w.table.sink import Lineage, append_rows

LINEAGE = Lineage("ingest", "r1", "ingest", "v", {}, {}, "0")


def product(name: str, *images: str | None, listed: bool = True, active: bool = True, minute: int = 0) -> dict:
    """The front is the first image."""
    empty = {f.name: "" for f in schema.PRODUCTS.schema if not f.nullable}
    pictures = [dict(zip(schema.PICTURE.names, (image, f"{image}.jpg", n, "front", ""))) for n, image in enumerate(images, 1)]
    return empty | {
        schema.PRODUCT_ID: name,
        schema.CATEGORY: "top",
        schema.IMAGE_ID: images[0],
        schema.ACTIVE: active,
        schema.FETCHED_AT: datetime(2026, 1, 1, 0, minute, tzinfo=UTC),
        schema.IMAGE_LIST: pictures if listed else None,
    }


@pytest.fixture
def store(tmp_path) -> str:
    return str(tmp_path / "store")


def write(store: str, *rows: dict) -> None:
    append_rows(store, Output(schema.PRODUCTS), pa.Table.from_pylist(list(rows), schema=schema.PRODUCTS.schema), LINEAGE)


def test_each_picture_of_a_product_once_the_front_first(store):
    write(
        store,
        product("b", "1", "2", "1", "2"),
        product("a", "3", listed=False),
        product("c", "4", "5", active=False),
        product("d", "9", "8"),
        product("d", "2", "7", minute=1),
    )
    found = active_pictures(store, [schema.IMAGE_ID, schema.PRODUCT_ID])
    assert found.column_names == [schema.IMAGE_ID, schema.PRODUCT_ID]
    assert [tuple(r.values()) for r in found.to_pylist()] == [("3", "a"), ("1", "b"), ("2", "b"), ("2", "d"), ("7", "d")]
    assert active_pictures(store + "-none", [schema.PRODUCT_ID, schema.CATEGORY]).num_rows == 0


def test_pictures_of_a_slice(store):
    rows = pa.Table.from_pylist([product(n, n, f"{n}2") for n in "abcd"] + [product("e", None, listed=False)])
    rows = rows.select([schema.PRODUCT_ID, schema.IMAGE_ID, schema.IMAGE_LIST]).cast(
        schema.PRODUCTS.fields([schema.PRODUCT_ID, schema.IMAGE_ID, schema.IMAGE_LIST])
    )
    some = with_pictures(rows.slice(2))
    assert some.column_names == [schema.PRODUCT_ID, schema.IMAGE_ID]
    assert [tuple(r.values()) for r in some.to_pylist()] == [("c", "c"), ("c", "c2"), ("d", "d"), ("d", "d2"), ("e", None)]


def test_products_that_share_any_picture_are_in_one_split(store):
    write(store, *(product(f"p{n}", f"front{n}", f"further{n // 2}") for n in range(40)))
    products = CurrentRows(store, schema.PRODUCTS)
    dealt = deal(lambda: active_product_batches(products, []), lambda: iter(()), [], SplitRules())
    rows = pa.concat_tables(list(dealt.rows)).to_pylist()
    of = {r[schema.OWNER_ID]: (r[schema.COMPONENT_ID], r[schema.COMPONENT_SIZE], r[schema.SPLIT]) for r in rows}
    assert len(rows) == len(of) == 40
    assert all(of[f"p{n}"] == of[f"p{n + 1}"] and of[f"p{n}"][1] == 2 for n in range(0, 40, 2))
    assert len({component for component, *_ in of.values()}) == 20


def test_represent_chooses_among_a_products_pictures(store, monkeypatch):
    write(store, product("a", "worn", "plain"), product("b", "only", listed=False))
    assert sorted(representing.product_images(store).read().to_pylist()) == ["only", "plain", "worn"]
    grounds = pa.table(
        [["worn", "plain", "only"], *(np.float32(c) for c in ([0.2, 1, 1], [0.5, 1, 1], [0.5] * 3)), ["g"] * 3],
        names=[f.name for f in schema.GROUNDS.schema],
    ).cast(schema.GROUNDS.schema)
    append_rows(store, Output(schema.GROUNDS), grounds, LINEAGE)
    written = []
    monkeypatch.setattr(representing.snapshot, "written", lambda store, table, made, lineage: written.append(made.rows))
    representing._represent(store, [], "g", None, None, {}, LINEAGE)
    rows = {r[schema.PRODUCT_ID]: (r[schema.IMAGE_ID], r[schema.NUM_IMAGES]) for r in written[0].to_pylist()}
    assert rows == {"a": ("plain", 2), "b": ("only", 1)}
