"""What happens to rows inside one worker."""

import pyarrow as pa
import pytest

from w2w import schema
from w2w.stage import Chain, Pool, Stage, batches, check_plan, conformed, count, leaving, segments

ROWS = pa.table({"key": ["a", "b", "c", "d"], "x": [1, 2, 3, 4]})


def add(rows: pa.Table, *, reject: dict[int, str]) -> pa.Table:
    x = rows.column("x").to_pylist()
    return (
        rows.append_column("y", pa.array([v * 10 for v in x]))
        .append_column(schema.REJECT_CODE, pa.array([reject.get(v) for v in x], pa.string()))
        .append_column(schema.REJECT_DETAIL, pa.array([f"x is {v}" if v in reject else None for v in x], pa.string()))
    )


def last(rows: pa.Table) -> pa.Table:
    return rows.append_column("z", rows.column("y"))


FIRST = Stage("first", add, ("x",), pa.schema([("y", pa.int64())]), {"reject": {2: "empty"}})
LAST = Stage("last", last, ("y",), pa.schema([("z", pa.int64())]))


XYZ = pa.schema([("key", pa.string()), ("x", pa.int64()), ("y", pa.int64()), ("z", pa.int64())])


def test_rejected_rows_leave_with_code_detail_and_stage():
    good, bad = Chain([FIRST, LAST], "key", "key", XYZ)(ROWS)
    assert good.column("z").to_pylist() == [10, 30, 40]
    assert bad.to_pylist() == [{"key": "b", "source": "b", "code": "empty", "detail": "x is 2", "rejected_by": "first"}]
    counted = count(4, good, bad, ["first", "last"])
    assert (counted.read, counted.out, counted.rejects, counted.stages) == (4, 3, {"empty": 1}, {"first": 4, "last": 3})


def test_a_batch_of_rejects_alone_still_has_every_column():
    everything = Stage("first", add, ("x",), FIRST.gives, {"reject": dict.fromkeys(range(5), "corrupt")})
    good, bad = Chain([everything, LAST], "key", None, XYZ)(ROWS)
    assert (good.num_rows, good.schema, bad.num_rows) == (0, XYZ, 4)


def test_what_leaves_follows_from_declarations():
    """Columns that nobody needs any more stay behind, also the form of one that a later stage replaces."""
    read = pa.schema(
        [pa.field("key", pa.string(), nullable=False), ("x", pa.int64()), ("other", pa.binary()), ("z", pa.list_(pa.string()))]
    )
    own = Stage("own", last, ("y",), LAST.gives, pool=Pool())
    assert leaving([[FIRST], [own]], read, ["z"], ["key"]) == [
        pa.schema([("key", pa.string()), ("y", pa.int64())]),
        pa.schema([("z", pa.int64())]),
    ]
    assert leaving([[FIRST, LAST]], read, ["other", "z"], ["key"]) == [pa.schema([("other", pa.binary()), ("z", pa.int64())])]


def test_rows_have_the_very_types_that_were_declared():
    fields = pa.schema([("name", pa.string()), ("box", pa.list_(pa.float32())), ("sure", pa.bool_())])
    rows = pa.table(
        {
            "more": [1, 2],
            "box": pa.array([[1.0], None], pa.large_list(pa.field("element", pa.float32()))),
            "name": pa.array(["a", "b"]).dictionary_encode(),
            "sure": [True, False],
        }
    )
    required = pa.schema([f.with_nullable(f.name != "sure") for f in rows.schema])
    for given in (rows, rows.cast(required)):
        assert conformed(given, fields).schema.equals(fields, check_metadata=True)
        assert conformed(given, fields).to_pylist() == rows.select(fields.names).to_pylist()
    assert conformed(rows.select(["more"]).slice(0, 0), fields).schema == fields


def test_a_stage_that_loses_rows_or_columns_is_a_bug():
    with pytest.raises(AssertionError, match="loser: 4 rows in, 3 out"):
        Chain([Stage("loser", lambda rows: rows.slice(1), ("x",), pa.schema([]))], "key", None, XYZ)(ROWS)
    with pytest.raises(AssertionError, match="y must be string"):
        Chain([Stage("first", add, ("x",), pa.schema([("y", pa.string())]), {"reject": {}})], "key", None, XYZ)(ROWS)
    with pytest.raises(AssertionError, match="4 rows in, 3 out, 0 rejected"):
        count(4, ROWS.slice(1), Chain([], "key", None, ROWS.schema)(ROWS)[1], [])


def test_a_first_stage_that_streams_regroups_rows():
    def by_three(tables, *, reject):
        for rows in batches(iter([pa.concat_tables(list(tables))]), 3):
            yield add(rows, reject=reject)

    first = Stage("first", by_three, FIRST.needs, FIRST.gives, FIRST.args, streams=True)
    chain = Chain([first, LAST], "key", "key", XYZ)
    results = list(chain.flow(iter([ROWS.slice(0, 2), ROWS.slice(2)])))
    assert [good.column("z").to_pylist() for good, _ in results] == [[10, 30], [40]]
    assert [bad.column("key").to_pylist() for _, bad in results] == [["b"], []]
    whole = list(Chain([FIRST, LAST], "key", "key", XYZ).flow(iter([ROWS])))
    assert [good.column("z").to_pylist() for good, _ in whole] == [[10, 30, 40]]
    with pytest.raises(AssertionError):
        check_plan([LAST, first], ["key", "x", "y"], [])


def test_plans_are_checked_before_anything_starts():
    check_plan([FIRST, LAST], ["key", "x"], ["y", "z"])
    with pytest.raises(AssertionError, match=r"stage 'last' needs \['y'\]"):
        check_plan([LAST], ["key", "x"], [])
    with pytest.raises(AssertionError, match=r"no stage gives \['w'\]"):
        check_plan([FIRST], ["x"], ["w"])


def test_stages_share_workers_until_one_has_its_own_pool():
    gpu = Stage("gpu", last, ("y",), LAST.gives, pool=Pool(num_gpus=1))
    assert [[s.name for s in group] for group in segments([FIRST, LAST])] == [["first", "last"]]
    assert [[s.name for s in group] for group in segments([FIRST, gpu, LAST])] == [["first"], ["gpu", "last"]]
    assert [t.num_rows for t in batches(iter([ROWS]), 3)] == [3, 1]
