"""A table's parts: those of a partition, in order, in groups."""

import pyarrow as pa
import pytest

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
