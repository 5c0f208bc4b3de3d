"""A table's parts: those of a partition, in order, in groups."""

import pyarrow as pa
import pytest

from tests.unit.table.test_pictures import product, write
from tests.unit.table.test_sink import EMBEDDINGS, lineage, vectors
from w2w import schema
from w2w.table import delta
from w2w.table.delta import Part
from w2w.table.sink import append_rows


def test_parts_of_a_partition(tmp_path):
    for n in range(3):
        append_rows(str(tmp_path), EMBEDDINGS, vectors([f"a{n}", f"b{n}"], "m1"), lineage())
    append_rows(str(tmp_path), EMBEDDINGS, vectors(["c"], "m 2/é"), lineage())
    opened = delta.open_table(str(tmp_path), schema.EMBEDDINGS)
    every = delta.parts(opened)
    assert [p.path for p in every] == sorted(p.path for p in every)
    assert [p.rows for p in every].count(2) == 3
    [other] = delta.parts(opened, model_version="m 2/é")
    assert other in every
    assert (other.rows, other.partition) == (1, (("model_version", "m 2/é"),))
    assert other.in_log != other.path
    same = delta.parts(opened, model_version="m1")
    assert same == [p for p in every if p != other]
    assert same[0].partition is same[1].partition
    assert delta.parts(opened, model_version="m3") == []
    assert delta.parts(opened, category="x") == []
    assert delta.parts(None) == []


@pytest.mark.parametrize(("rows", "sizes"), [(1, [1] * 5), (20, [2, 2, 1]), (21, [3, 2]), (10**9, [5])])
def test_groups_of_parts(rows, sizes):
    listed = [Part(f"{n}", 10, 1) for n in range(5)]
    chunks = delta.in_chunks(listed, rows)
    assert [len(c) for c in chunks] == sizes
    assert [p for c in chunks for p in c] == listed
    assert delta.in_chunks([], rows) == []


def test_a_partition_that_is_not_text(tmp_path):
    table = schema.Table("own", pa.schema([("key", pa.string()), ("day", pa.int32())]), key=("key",), partition_by=("day",))
    opened = delta.create_table(str(tmp_path), table)
    assert delta.parts(opened, day="3") == []


def test_no_batch_of_the_current_rows_is_kept(tmp_path, monkeypatch):
    """Of 200 kB that are read, the rows of the one key that has two."""
    monkeypatch.setattr(delta, "_CURRENT_ROWS", 100)
    for start in range(0, 1000, 500):
        rows = [product(f"p{n}", "i") | {schema.TITLE: f"{n:0200d}"} for n in range(start, start + 500)]
        write(str(tmp_path), *rows)
    write(str(tmp_path), product("p7", "j", minute=1))
    held, newest_of_each = [], delta.newest_of_each

    def look(rows: pa.Table, key: str) -> pa.Table:
        held.append(rows.get_total_buffer_size())
        return newest_of_each(rows, key)

    monkeypatch.setattr(delta, "newest_of_each", look)
    current = delta.CurrentRows(str(tmp_path), schema.PRODUCTS)
    assert sum(b.num_rows for b in current.batches([schema.PRODUCT_ID, schema.TITLE])) == 1000
    assert len(held) == 1
    assert held[0] < 10_000
    assert current.several([schema.PRODUCT_ID])[schema.PRODUCT_ID].to_pylist() == ["p7", "p7"]
