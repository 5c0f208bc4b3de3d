"""Items of work: cut to a limit, and tapered towards the end."""

import pyarrow as pa
import pytest

from w2w import schema
from w2w.errors import JobFailed
from w2w.runtime.source import Source, pending_rows
from w2w.table.pending import ITEM_SCHEMA, Keys, rejected_keys, table_keys
from w2w.table.sink import Lineage, Output, Tolerance, append_rows


def source(*sizes: int) -> Source:
    items = [pa.table([["f"], [i], [None], [n]], schema=ITEM_SCHEMA) for i, n in enumerate(sizes)]
    return Source("root", items, sum(sizes), pa.schema([("key", pa.string())]), "key")


def rows(made: Source) -> list[tuple[int, int]]:
    """(row group, row) of every row of every item, in order."""
    found = []
    for item in made.items:
        [row] = item.to_pylist()
        numbers = row["rows"] or range(row["num_rows"])
        assert len(numbers) == row["num_rows"]
        found += [(row["row_group"], n) for n in numbers]
    return found


def test_tapered_items_hold_the_same_rows_and_shrink():
    whole = source(1024, 1024, 1024, 1000)
    made = whole.tapered(num_workers=2, least_rows=64)
    sizes = [i.column("num_rows")[0].as_py() for i in made.items]
    assert rows(made) == rows(whole)
    assert made.num_rows == whole.num_rows
    left = whole.num_rows
    for size in sizes:
        assert size <= max(64, left // 4)
        left -= size
    assert sizes[0] > 4 * sizes[-1]


def test_small_items_stay_as_they_are():
    whole = source(10, 20, 30)
    assert whole.tapered(num_workers=8, least_rows=64).items == whole.items


def test_first_cuts_at_the_limit():
    made = source(10, 20, 30).first(15)
    assert made.num_rows == 15
    assert rows(made) == [(0, n) for n in range(10)] + [(1, n) for n in range(5)]


def test_rejects_of_earlier_runs_count_as_those_of_now(tmp_path):
    store, lineage = str(tmp_path), Lineage("embed", "run-1", "embed", "v1", {}, {}, "test")
    image = dict.fromkeys(schema.IMAGES.schema.names, 0) | {"bytes": b"x", "format": "jpeg", "source_uri": "u"}
    images = [image | {"image_id": f"i{n}"} for n in range(10)]
    append_rows(store, Output(schema.IMAGES), pa.Table.from_pylist(images, schema=schema.IMAGES.schema), lineage)
    reject = {"stage": "embed", "detail": "", "rejected_at": 0, "run_id": "run-1"}
    said = [("i1", "v1", "corrupt"), ("i2", "v1", "corrupt"), ("i2", "v1", "corrupt"), ("gone", "v1", "corrupt")]
    said += [("i3", "v1", "not_found"), ("i4", "another", "corrupt")]  # for the moment, or by another version
    rejects = [reject | {"key": key, "stage_version": version, "code": code} for key, version, code in said]
    append_rows(store, Output(schema.REJECTS), pa.Table.from_pylist(rejects, schema=schema.REJECTS.schema), lineage)

    def due(among: Keys | None = None) -> Source:
        done = [table_keys(store, schema.EMBEDDINGS, schema.OWNER_ID, model_version="v1"), rejected_keys(store, "embed", "v1")]
        return pending_rows(store, schema.IMAGES, [schema.IMAGE_ID], done, None, 100, among)

    everything = due()
    assert (everything.num_rows, everything.skipped, everything.rejected, everything.listed) == (8, 2, 2, 10)
    assert (everything.first(3).num_rows, everything.first(3).listed) == (3, 10)
    some = due(Keys([pa.chunked_array([["i1", "i5"]])], 2))
    assert (some.num_rows, some.rejected) == (1, 1)
    failed = due(Keys([pa.chunked_array([["i1", "i2"]])], 2))
    with pytest.raises(JobFailed, match=r"2 of 10 rows were rejected \(2 by earlier runs\): more than max_reject_rate=0.1"):
        failed.is_done(Tolerance(0.1, 2))
    assert failed.is_done(Tolerance(0.1, 3))
    assert not everything.is_done(Tolerance(0.0, 1))
