"""Rows come together by key, whatever the number of buckets, and a snapshot is what its buckets made."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.unit.table.test_sink import lineage
from w2w import schema
from w2w.engine import exchange
from w2w.engine.exchange import Side, by_key
from w2w.engine.snapshot import Made, make_snapshot
from w2w.errors import JobFailed
from w2w.stage import REJECTED_SCHEMA
from w2w.table import delta
from w2w.table.parts import Output
from w2w.table.sink import append_rows
from w2w.table.tolerance import Tolerance

SPLITS = Side(schema.SPLITS, (schema.OWNER_ID, schema.SPLIT), schema.OWNER_ID)


def fill(store: str) -> None:
    for start in range(0, 90, 30):
        n = range(start, start + 30)
        splits = [[f"o{i}" for i in n], ["post"] * 30, ["c"] * 30, [1] * 30, [None] * 30, [f"s{i % 3}" for i in n]]
        append_rows(store, Output(schema.SPLITS), pa.table(splits, schema=schema.SPLITS.schema), lineage("s"))
        names = pa.array([f"o{i % 40}" for i in n])
        columns = [names, names, pa.array([0.5] * 30, pa.float32()), names, pa.array([1] * 30, pa.int32())]
        rows = pa.table(columns, schema=schema.REPRESENTATIVES.schema)
        append_rows(store, Output(schema.REPRESENTATIVES), rows, lineage("r"))


def joined(tables: list[pa.Table], suffix: str) -> list[tuple]:
    left, right = tables
    rows = left.join(right, schema.OWNER_ID, schema.IMAGE_ID, "inner").to_pylist()
    return [(r[schema.OWNER_ID] + suffix, r[schema.SPLIT]) for r in rows]


def of_even_rows(rows: pa.Table) -> pa.Table:
    number = pc.utf8_slice_codeunits(rows.column(schema.IMAGE_ID), 1).cast(pa.int64())
    return rows.filter(pc.equal(pc.bit_wise_and(number, 1), 0))


@pytest.mark.parametrize("num_buckets", [None, 4])
def test_by_key(tmp_path, monkeypatch, num_buckets):
    monkeypatch.setattr(exchange, "_ROWS_PER_MAP", 25)  # several map tasks a table
    store = str(tmp_path)
    fill(store)
    right = Side(schema.REPRESENTATIVES, (schema.IMAGE_ID,), schema.IMAGE_ID, of_even_rows)
    found = by_key(store, [SPLITS, right], joined, ("!",), num_buckets=num_buckets)
    assert len(found) == (num_buckets or 1)
    expected = sorted((f"o{i % 40}!", f"s{i % 40 % 3}") for i in range(90) if i % 40 % 2 == 0)
    assert sorted(row for bucket in found for row in bucket) == expected


def halved(tables: list[pa.Table]) -> Made:
    (rows,) = tables
    good = of_even_rows(rows.rename_columns([schema.IMAGE_ID, schema.SPLIT]))
    ids = good.column(schema.IMAGE_ID)
    bad = rows.filter(pc.invert(pc.is_in(rows.column(schema.OWNER_ID), value_set=ids)))
    n = bad.num_rows
    filled = [bad.column(0), pa.nulls(n, pa.string()), pa.array(["ambiguous"] * n), pa.array(["why"] * n), pa.array(["s"] * n)]
    ones = pa.array([1.0] * len(ids), pa.float32())
    kept = pa.table([ids, ids, ones, ids, ones.cast(pa.int32())], schema=schema.REPRESENTATIVES.schema)
    return Made(kept, pa.table(filled, schema=REJECTED_SCHEMA), rows.num_rows)


@pytest.mark.parametrize("num_buckets", [1, 3])
def test_snapshot_of_buckets(tmp_path, num_buckets):
    store = str(tmp_path)
    fill(store)
    arguments = (store, schema.REPRESENTATIVES, [SPLITS], halved, (), lineage("2"))
    before = delta.read(store, schema.REPRESENTATIVES, [schema.PRODUCT_ID]).num_rows
    with pytest.raises(JobFailed, match="45 of 90 rows were rejected"):
        make_snapshot(*arguments, tolerance=Tolerance(0.4), num_buckets=num_buckets)
    assert delta.read(store, schema.REPRESENTATIVES, [schema.PRODUCT_ID]).num_rows == before
    counts, versions = make_snapshot(*arguments, tolerance=Tolerance(0.5), num_buckets=num_buckets)
    assert (counts.read, counts.out, counts.rejects) == (90, 45, {"ambiguous": 45})
    found = delta.read(store, schema.REPRESENTATIVES, [schema.PRODUCT_ID]).column(0).to_pylist()
    assert sorted(found) == sorted(f"o{i}" for i in range(0, 90, 2))
    assert delta.read(store, schema.REJECTS, [schema.KEY]).num_rows == 45
    assert versions == {"representatives": delta.open_table(store, schema.REPRESENTATIVES).version()}
