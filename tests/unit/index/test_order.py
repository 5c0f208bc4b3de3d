"""The order of an index's rows is that of a sort, and takes no copy of them."""

import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2w import memory
from w2w.errors import UsageError
from w2w.index import order, shard
from w2w.index.gate import gate_queries
from w2w.index.order import row_order
from w2w.index.shard import plan_shards, rows_digest, sample, sorted_rows
from w2w.index.spec import IndexConfig, Spec

from .conftest import make_catalog

BY = [(name, "ascending") for name in ("category", "product_id", "image_id")]
ROW = st.tuples(st.sampled_from("abc"), st.sampled_from("pqrs"), st.sampled_from(["x", "y", "z", "é"]))


def table(rows: list[tuple[str, str, str]]) -> pa.Table:
    category, product, image = zip(*rows)
    return pa.table({"product_id": product, "image_id": image, "category": category})


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=20), step=st.integers(1, 5))
def test_any_rows(rows, step):
    given_rows = table(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "_AT_ONCE", step)
        twice = len(rows) - len(set(rows))
        if twice:
            first = next(r for a, r in zip(sorted(rows), sorted(rows)[1:]) if a == r)
            with pytest.raises(UsageError, match=f"{twice} rows to index are duplicates.*'product_id': '{first[1]}'"):
                row_order(given_rows)
        else:
            assert given_rows.take(pa.array(row_order(given_rows))).equals(given_rows.sort_by(BY))


def spread(catalog, monkeypatch) -> pa.Table:
    """The rows on disk, and everything a few rows at a time."""
    for module in (order, shard):
        monkeypatch.setattr(module, "_AT_ONCE", 100)
    monkeypatch.setattr(memory, "_LARGE_ROWS", 100)
    monkeypatch.setattr(memory, "_ROWS_AT_ONCE", 64)
    return memory.table_on_disk([catalog.rows], catalog.rows.schema)


@pytest.mark.parametrize("images", [1, 3])
def test_rows_on_disk_make_the_same_index(monkeypatch, images):
    catalog = make_catalog({"tops": 300, "shoes": 120, "hats": 7}, images=images)
    cfg = IndexConfig(max_rows_per_shard=100, sample_rows=50, gate_queries=20)
    [group] = shard.plan_groups(catalog.rows, cfg)
    spec = {group.name: shard.StoredTemplate("t", "0", group.name, group.categories, Spec("Flat"), 32, 1, "c")}

    def made(rows: pa.Table) -> tuple:
        tasks = plan_shards(rows, spec, "m", cfg)
        named = [(t.name, t.category, t.bucket, t.rows.to_pylist()) for t in tasks]
        return named, rows_digest(rows, "m", cfg), sample(rows, group, cfg), gate_queries(rows, cfg), sorted_rows(rows)

    in_memory, on_disk = made(catalog.rows), made(spread(catalog, monkeypatch))
    assert in_memory == on_disk
    assert len(in_memory[0]) > 6
    assert sorted_rows(catalog.rows).equals(catalog.rows.sort_by(BY).select(["product_id", "image_id", "category"]))


def test_planning_shards_holds_no_rows():
    """Ten times as many rows take ten times the numbers, of 20 bytes, and no texts, of 150."""
    rows = 150_000
    names = pa.array(np.char.mod("%064d", np.arange(rows)))
    many = pa.table({"product_id": names, "image_id": names, "category": pa.repeat("tops", rows)})
    many = memory.table_on_disk([many], many.schema)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        order_N = row_order(many)
        sorted_rows(many)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(order_N) == rows
    assert most < 40 * rows
    assert pa.total_allocated_bytes() - before < 10 * rows
