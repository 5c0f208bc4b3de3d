"""What a store holds: rejects by rows and times, and tables that w2w does not know."""

import pyarrow as pa
import pytest
from deltalake import write_deltalake

import w2w
from w2w import schema
from w2w.cli.tables import Config, main
from w2w.errors import UsageError
from w2w.table.inventory import rejects


@pytest.fixture
def store(tmp_path):
    """Two nights that miss the same picture, one of which misses another; and a table of somebody's own stage."""
    empty = {f.name: None for f in schema.REJECTS.schema}
    rows = [
        empty | {schema.STAGE: "ingest", schema.KEY: key, schema.REJECT_CODE: "not_found", schema.REJECT_DETAIL: night}
        for night, key in [("first", "a"), ("first", "b"), ("second", "a")]
    ]
    nullable = pa.schema([f.with_nullable(True) for f in schema.REJECTS.schema])
    rejected = pa.Table.from_pylist(rows, schema=nullable)
    write_deltalake(str(tmp_path / "rejects"), rejected, partition_by=list(schema.REJECTS.partition_by))
    write_deltalake(str(tmp_path / "colours"), pa.table({"image_id": ["x", "y"], "rgb": [[1.0], [2.0]]}))
    (tmp_path / "index").mkdir()
    return str(tmp_path)


def test_a_row_that_is_rejected_every_night_is_one_row(store):
    (found,) = rejects(store, None, 3)
    assert (found.stage, found.code, found.rows, found.times) == ("ingest", "not_found", 2, 3)
    assert [key for key, _ in found.examples] == ["a", "b"]


def test_tables_of_own_stages_are_listed_and_read_by_name(store):
    assert [t.table for t in main(Config(store=store)).tables] == ["rejects", "colours"]
    assert main(Config(store=store, table="colours")).tables[0].rows == 2
    opened = w2w.open(store)
    assert opened.tables() == ["rejects", "colours"]
    assert opened.table("colours").arrow(["image_id"]).column(0).to_pylist() == ["x", "y"]
    with pytest.raises(UsageError, match="no table 'index'"):
        opened.table("index")
    with pytest.raises(UsageError, match="no such table"):
        main(Config(store=store, table="colour"))


def test_who_merged_parts_and_deleted_files_stands_in_the_history(store):
    for other in ("a", "b"):  # what is there twice would be taken out first
        write_deltalake(f"{store}/colours", pa.table({"image_id": [other], "rgb": [[1.0]]}), mode="append")
    done = main(Config(store=store, compact=True, vacuum=True, vacuum_hours=0))
    commits = w2w.open(store).table("colours").history()
    assert [c.operation for c in commits[:3]] == ["VACUUM END", "VACUUM START", "OPTIMIZE"]
    assert [(c.run_id, c.lineage) for c in commits[:3]] == 3 * [(done.run_id, None)]
    assert main(Config(store=store)).tables[1].by == done.run_id
