"""Stages over tables on a real local Ray: counts, rejects, resume, limits, several operators."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from w2w import schema, storage
from w2w.engine.run import run_stages
from w2w.engine.source import Source
from w2w.engine.tasks import collect, raise_user_errors, run_task
from w2w.engine.workers import Operator, run_alone
from w2w.errors import JobFailed, UsageError
from w2w.stage import Pool, Stage
from w2w.table import delta, pending
from w2w.table.parts import Output
from w2w.table.sink import Lineage
from w2w.table.tolerance import Tolerance

VECTOR_OF_2 = pa.list_(pa.float32())


def rejected(number):
    return (number % 7 == 0) | (number // 100 == 3)


def half(rows: pa.Table) -> pa.Table:
    """Halves a number; rejects those divisible by seven, and every row of one item."""
    number = rows.column("number").to_numpy()
    bad = rejected(number)
    return (
        rows.append_column("half", pa.array(number / 2))
        .append_column(schema.REJECT_CODE, pa.array(np.where(bad, "bad_value", None)))
        .append_column(schema.REJECT_DETAIL, pa.array(np.where(bad, "divisible by seven", None)))
    )


class Vector:
    """An embedding of a number, rejects those over ``limit``."""

    def __init__(self, limit: int, error: str | None = None):
        if error:
            raise UsageError(error)
        self._limit = limit

    def __call__(self, rows: pa.Table) -> pa.Table:
        n = rows.num_rows
        bad = rows.column("half").to_numpy() > self._limit
        vectors = np.repeat(rows.column("half").to_numpy(), 2).astype(np.float32)
        columns = {
            schema.OWNER_ID: rows.column("key"),
            schema.OWNER_KIND: ["image"] * n,
            schema.MODEL_VERSION: ["m1"] * n,
            schema.VECTOR: pa.ListArray.from_arrays(np.arange(0, 2 * n + 1, 2, dtype=np.int32), vectors),
            schema.REJECT_CODE: pa.array(np.where(bad, "too_small", None)),
            schema.REJECT_DETAIL: pa.array(np.where(bad, "over the limit", None)),
        }
        rows = rows.select(["key", "half"])
        return pa.table({**{c: rows.column(c) for c in rows.column_names}, **columns})


def stages(limit: int = 10**6, error: str | None = None, second_pool: Pool | None = None) -> list[Stage]:
    gives = schema.EMBEDDINGS.fields(schema.EMBEDDINGS.schema.names)
    return [
        Stage("half", half, ("number",), pa.schema([("half", pa.float64())])),
        Stage("vector", Vector, ("key", "half"), gives, {"limit": limit, "error": error}, second_pool),
    ]


def source(folder, store: str, version: str = "v1") -> Source:
    """The numbers file's rows that have no vector yet."""
    columns = pa.schema([("key", pa.string()), ("number", pa.int64()), (schema.VECTOR, VECTOR_OF_2)])
    file = pq.ParquetFile(folder / "numbers.parquet")
    keys = pending.Keys([file.read(["key"]).column(0)], file.metadata.num_rows)
    done = [
        pending.table_keys(store, schema.EMBEDDINGS, schema.OWNER_ID),
        pending.rejected_keys(store, "numbers", version),
    ]
    mask = pending.pending_mask(keys, done)
    system, root = storage.filesystem(str(folder))
    items = list(pending.file_items(system, f"{root}/numbers.parquet", "numbers.parquet", mask, 100))
    return Source(str(folder), items, int(mask.sum()), columns, "key", "key")


def lineage(run: str) -> Lineage:
    return Lineage("numbers", run, "numbers", "v1", {}, {}, "test")


@pytest.fixture
def numbers(tmp_path):
    n = 1000
    before = pa.array([[0.0]] * n, VECTOR_OF_2)  # Parquet calls its items "element"; the second stage replaces the column
    kinds = pa.schema([("key", pa.string()), ("number", pa.int64()), pa.field(schema.VECTOR, VECTOR_OF_2, nullable=False)])
    table = pa.table([[f"k{i}" for i in range(n)], np.arange(n), before], schema=kinds)
    pq.write_table(table, tmp_path / "numbers.parquet", row_group_size=300, store_schema=False)
    return tmp_path


def check(store: str) -> None:
    vectors = delta.read(store, schema.EMBEDDINGS, [schema.OWNER_ID, schema.VECTOR])
    got = {k: v[0] for k, v in zip(vectors.column(0).to_pylist(), vectors.column(1).to_pylist())}
    assert vectors.num_rows == len(got)
    assert got == {f"k{i}": i / 2 for i in range(1000) if not rejected(i) and i <= 900}
    rejects = delta.read(store, schema.REJECTS, [schema.KEY, schema.REJECT_CODE]).to_pylist()
    assert {(r[schema.KEY], r[schema.REJECT_CODE]) for r in rejects} == {
        (f"k{i}", "bad_value") for i in range(1000) if rejected(i)
    } | {(f"k{i}", "too_small") for i in range(901, 1000) if not rejected(i)}
    assert len(rejects) == 1000 - len(got)


@pytest.mark.parametrize("second_pool", [None, Pool(workers=1, batch_rows=50)])
def test_every_row_is_written_or_rejected_once(numbers, second_pool):
    store = str(numbers / "store")
    work = source(numbers, store)
    counts, _ = run_stages(
        store,
        work,
        stages(450, second_pool=second_pool),
        [Output(schema.EMBEDDINGS)],
        lineage("a"),
        pool=Pool(),
        tolerance=Tolerance(1),
    )
    assert (counts.read, counts.out + counts.rejected) == (1000, 1000)
    assert counts.rejects == {"bad_value": 228, "too_small": 85}
    assert counts.stages == {"half": 1000, "vector": 772}
    check(store)
    assert source(numbers, store).num_rows == 0
    # the last commit says all; where the items that came last are rejected whole, must be one of rejects alone
    last = [delta.history(delta.open_table(store, t), 1)[0]["w2w"] for t in (schema.EMBEDDINGS, schema.REJECTS)]
    assert {entry["run_id"] for entry in last} == {"a"}
    assert counts.rejects in [entry["run_rejects"] for entry in last]


def test_a_limited_run_is_continued_by_the_next(numbers):
    store = str(numbers / "store")
    for run, limit in (("a", 130), ("b", None)):
        work = source(numbers, store).first(limit)
        counts, _ = run_stages(
            store,
            work,
            stages(450),
            [Output(schema.EMBEDDINGS)],
            lineage(run),
            pool=Pool(),
            tolerance=Tolerance(1),
            commit_every_s=0,
        )
        assert counts.read == (limit or 870)
    check(store)


class Slow(Vector):
    """Takes a quarter of a second for a batch."""

    def __call__(self, rows: pa.Table) -> pa.Table:
        time.sleep(0.25)
        return super().__call__(rows)


@pytest.mark.parametrize("second_pool", [None, pytest.param(Pool(workers=1, batch_rows=50), marks=pytest.mark.slow)])
def test_what_a_budget_leaves_is_done_by_the_next_run(numbers, second_pool):
    store, slow = str(numbers / "store"), stages(450, second_pool=second_pool)
    slow[1] = replace(slow[1], run=Slow)
    how = {"pool": Pool(workers=1), "tolerance": Tolerance(1)}
    done = 0
    for run, until in (("over", time.monotonic() - 1), ("short", 0.0), ("rest", None)):
        work = source(numbers, store)
        assert work.num_rows == 1000 - done
        until = until if run != "short" else time.monotonic() + (2.5 if second_pool is None else 4)
        counts, _ = run_stages(store, work, slow, [Output(schema.EMBEDDINGS)], lineage(run), until=until, **how)
        if second_pool is None:  # what several operators have computed comes in larger pieces
            assert run != "over" or counts.read == 0
            assert run != "short" or counts.read < work.num_rows
        done += counts.read
    assert done == 1000
    check(store)


def test_nothing_is_begun_that_would_end_too_late():
    def work():
        return lambda item: time.sleep(0.3) or item

    operator, begun = Operator(work, (), Pool(), 1, False), time.monotonic()
    found = list(run_alone(operator, range(100), until=begun + 2))
    assert sorted(found) == list(range(len(found)))
    assert 1 <= len(found) <= 14, "two at a time, of at least 0.3 s each"


def test_too_many_rejects_fail_with_their_codes(numbers):
    store = str(numbers / "store")
    with pytest.raises(JobFailed, match=r"228 of 1000 rows were rejected \(228 bad_value\)"):
        run_stages(
            store,
            source(numbers, store),
            stages(),
            [Output(schema.EMBEDDINGS)],
            lineage("a"),
            pool=Pool(),
            tolerance=Tolerance(0.1),
        )


def test_an_error_meant_for_the_user_comes_out_of_the_worker(numbers):
    store = str(numbers / "store")
    with pytest.raises(UsageError, match="no such model"):
        run_stages(
            store, source(numbers, store), stages(error="no such model"), [Output(schema.EMBEDDINGS)], lineage("a"),
            pool=Pool(), tolerance=Tolerance(1),
        )  # fmt: skip


class Busy:
    """Fails with the first item, once another worker is busy with the second."""

    def __init__(self, flag: str):
        self._flag = Path(flag)

    def __call__(self, item: int) -> None:
        if item:
            self._flag.touch()
            time.sleep(60)
        while not self._flag.exists():
            time.sleep(0.05)
        raise UsageError("no such model")


def test_busy_workers_are_put_away_without_a_word_of_rays_own(tmp_path, capfd):
    operator = Operator(Busy, (str(tmp_path / "busy"),), Pool(), 2, True)
    with pytest.raises(UsageError, match="no such model"), raise_user_errors():
        list(run_alone(operator, [0, 1]))
    time.sleep(3)  # Ray's words come a second later
    assert "retries remaining" not in "".join(capfd.readouterr())


def test_tasks_keep_order_and_pass_user_errors():
    def square(x):
        if x < 0:
            raise UsageError(f"{x} is negative")
        return x * x

    remote = ray.remote(square)
    assert collect([remote.remote(i) for i in range(8)], "squares") == [i * i for i in range(8)]
    with pytest.raises(UsageError, match="-1 is negative"):
        run_task(square, -1, title="squares")
