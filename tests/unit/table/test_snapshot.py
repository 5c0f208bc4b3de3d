from dataclasses import replace

import pyarrow as pa
import pytest

from tests.unit.table.test_sink import lineage
from w2w import schema
from w2w.errors import JobFailed
from w2w.stage import Counts
from w2w.table import delta, maintain, snapshot
from w2w.table.parts import Output, write_part


def rows(*pair_ids: str) -> pa.Table:
    n = len(pair_ids)
    return pa.table([pair_ids, pa.nulls(n, schema.NEGATIVES.schema.field(1).type), ["v"] * n], schema=schema.NEGATIVES.schema)


def rejected(*keys: str) -> pa.Table:
    filled = {schema.KEY: pa.array(keys), schema.REJECTED_AT: pa.array([0] * len(keys), schema.TIME)}
    return pa.table(
        [filled.get(c, pa.array(["x"] * len(keys))) for c in schema.REJECTS.schema.names], schema=schema.REJECTS.schema
    )


def write(store: str, *pair_ids: str, bad: tuple[str, ...] = ()) -> list[dict]:
    receipts = write_part(store, Output(schema.NEGATIVES), rows(*pair_ids), "run")
    receipts += write_part(store, Output(schema.REJECTS), rejected(*bad), "run") if bad else []
    receipts[0] |= {"counts": Counts(len(pair_ids) + len(bad), len(pair_ids), {"ambiguous": len(bad)}).to_json()}
    return receipts


def held(store: str, version: int | None = None) -> list[str]:
    return sorted(delta.read(store, schema.NEGATIVES, [schema.PAIR_ID], version).column(0).to_pylist())


def test_the_newest_snapshot_is_all_that_the_table_holds(tmp_path):
    store = str(tmp_path)
    assert snapshot.current(store, schema.NEGATIVES) is None
    _, first = snapshot.replace(store, schema.NEGATIVES, write(store, "a", "b") + write(store, "c"), lineage("1"))
    counts, second = snapshot.replace(store, schema.NEGATIVES, write(store, "c", "d"), lineage("2"))
    assert held(store) == ["c", "d"]
    assert held(store, first) == ["a", "b", "c"]
    assert (counts.read, counts.out, second) == (2, 2, first + 1)
    assert snapshot.current(store, schema.NEGATIVES)["stage_version"] == "2"


def test_an_empty_snapshot_empties_the_table(tmp_path):
    store = str(tmp_path)
    snapshot.replace(store, schema.NEGATIVES, write(store, "a"), lineage("1"))
    snapshot.replace(store, schema.NEGATIVES, [{"table": "negatives", "path": None, "counts": None}], lineage("2"))
    assert held(store) == []


def test_rejects_of_a_version_are_written_once(tmp_path, monkeypatch):
    store = str(tmp_path)
    receipts = write(store, "a", bad=("p", "q"))
    real = snapshot.commit_parts

    def dies(store, table, *args):
        if table is schema.NEGATIVES:
            raise KeyboardInterrupt
        return real(store, table, *args)

    monkeypatch.setattr(snapshot, "commit_parts", dies)
    with pytest.raises(KeyboardInterrupt):
        snapshot.replace(store, schema.NEGATIVES, receipts, lineage("1"))
    monkeypatch.undo()
    assert held(store) == []
    snapshot.replace(store, schema.NEGATIVES, write(store, "a", bad=("p", "q")), lineage("1"))
    assert held(store) == ["a"]
    assert sorted(delta.read(store, schema.REJECTS, [schema.KEY]).column(0).to_pylist()) == ["p", "q"]


def test_two_runs_at_once_are_noticed(tmp_path):
    store = str(tmp_path)
    snapshot.replace(store, schema.NEGATIVES, write(store, "a"), lineage("1"))
    seen = delta.FirstSeen()
    late = replace(lineage("1", "late"), seen=seen)
    assert snapshot.current(store, schema.NEGATIVES)["run_id"] == "run"  # here the late one looks at what is there
    snapshot.replace(store, schema.NEGATIVES, write(store, "b"), lineage("2", "other"))
    maintain.compact(store, schema.NEGATIVES)
    with pytest.raises(JobFailed, match="another run of 'embed', other, wrote to"):
        snapshot.replace(store, schema.NEGATIVES, write(store, "c"), late)
    assert held(store) == ["b"]


def test_snapshots_of_two_sources_at_once(tmp_path):
    store = str(tmp_path)
    snapshot.replace(store, schema.PAIRS, pairs(store, "own", "a"), lineage("1"))
    late = replace(lineage("2", "late"), seen=delta.FirstSeen())
    assert snapshot.current(store, schema.PAIRS)
    snapshot.replace(store, schema.PAIRS, pairs(store, "lookbook", "l"), lineage("3", "other"), "lookbook")
    snapshot.replace(store, schema.PAIRS, pairs(store, "own", "b"), late)
    assert pairs_held(store) == ["b", "l"]


def pairs(store: str, source: str, *pair_ids: str) -> list[dict]:
    text = {schema.PAIR_ID: pa.array(pair_ids), schema.SOURCE: pa.array([source] * len(pair_ids))}
    filled = [text.get(f.name, pa.array(["0"] * len(pair_ids)).cast(f.type)) for f in schema.PAIRS.schema]
    found = write_part(store, Output(schema.PAIRS), pa.table(filled, schema=schema.PAIRS.schema), "run")
    return found or [{"table": "pairs", "path": None, "counts": None}]


def pairs_held(store: str, **partition: str) -> list[str]:
    return sorted(delta.read(store, schema.PAIRS, [schema.PAIR_ID], **partition).column(0).to_pylist())


def test_each_source_is_a_snapshot_of_its_own(tmp_path):
    store = str(tmp_path)
    snapshot.replace(store, schema.PAIRS, pairs(store, "own", "a", "b"), lineage("1"))
    snapshot.replace(store, schema.PAIRS, pairs(store, "lookbook", "l"), lineage("2"), "lookbook")
    assert pairs_held(store) == ["a", "b", "l"]
    snapshot.replace(store, schema.PAIRS, pairs(store, "own", "c"), lineage("3"))
    assert pairs_held(store) == ["c", "l"]
    assert pairs_held(store, source="lookbook") == ["l"]
    assert snapshot.current(store, schema.PAIRS)["stage_version"] == "3"
    assert snapshot.current(store, schema.PAIRS, "lookbook")["stage_version"] == "2"
    assert snapshot.current(store, schema.PAIRS, "polyvore") is None
    snapshot.replace(store, schema.PAIRS, pairs(store, "lookbook"), lineage("4"), "lookbook")  # the set is empty now
    assert pairs_held(store) == ["c"]


def test_rows_of_another_source_are_a_bug(tmp_path):
    store = str(tmp_path)
    with pytest.raises(AssertionError, match="in a snapshot of"):
        snapshot.replace(store, schema.PAIRS, pairs(store, "lookbook", "l"), lineage("1"))
