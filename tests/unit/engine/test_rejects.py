"""Whatever is rejected, and wherever rows are cut into items, batches, blocks and operators: the jobs' real stages give the
same rows of the same types. Models are small fakes; their schemas are the real ones."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.engine.lines import Line, all_lines, operators_over
from w2w import schema, storage
from w2w.stage import Pool, Stage
from w2w.table.pending import read_item

_PASSING = (schema.FETCHED_AT, schema.REJECTED_AT)  # the time of day
LINES = {"ingest", "detect", "segment", "segment, no guide", "embed images", "embed garments", "embed slots", "classify"}
LINES |= {
    "fingerprint",
    "represent",
    "search feed",
    "search garments",
    "annotate",
    "convert products",
    "convert posts",
    "crawl",
}


@pytest.fixture(scope="module")
def lines(tmp_path_factory) -> Iterator[dict[str, Line]]:
    with all_lines(tmp_path_factory.mktemp("lines")) as made:
        yield made


def test_every_job_that_runs_stages_is_here(lines):
    assert set(lines) == LINES


def rejecting(stage: Stage, doomed: set[str], key: str) -> Stage:
    """The stage, which rejects these keys beside those that it rejects itself."""
    call = stage.start()

    def judged(rows: pa.Table) -> pa.Table:
        n = rows.num_rows
        codes, details = (
            rows.column(c).to_pylist() if c in rows.column_names else [None] * n
            for c in (schema.REJECT_CODE, schema.REJECT_DETAIL)
        )
        bad = [key in doomed for key in rows.column(key).to_pylist()]
        codes = pa.array([c or ("corrupt" if b else None) for c, b in zip(codes, bad)], pa.string())
        details = pa.array([d or ("doomed" if b else None) for d, b in zip(details, bad)], pa.string())
        kept = [c for c in rows.column_names if c not in (schema.REJECT_CODE, schema.REJECT_DETAIL)]
        return rows.select(kept).append_column(schema.REJECT_CODE, codes).append_column(schema.REJECT_DETAIL, details)

    run: Callable = (lambda tables: map(judged, call(tables))) if stage.streams else (lambda rows: judged(call(rows)))
    return replace(stage, run=run, args={})


def cut(table: pa.Table, sizes: list[int]) -> list[pa.Table]:
    """In pieces of these sizes, over and over."""
    pieces, at = [], 0
    while at < table.num_rows:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(table.slice(at, size))
        at += size
    return pieces


def single_rows(line: Line) -> list[pa.Table]:
    """Items of one row each, in order."""
    found = []
    for item in line.items.to_pylist():
        rows = item["rows"] or range(item["num_rows"])
        found += [pa.table([[item["path"]], [item["row_group"]], [[r]], [1]], schema=line.items.schema) for r in rows]
    return found


def keys_of(line: Line) -> list[str]:
    system, root = storage.filesystem(line.plan.root)
    kept = [read_item(system, root, item.to_pylist()[0], [line.plan.key], 64) for item in single_rows(line)]
    return [t.column(line.plan.key)[0].as_py() for tables in kept for t in tables]


def written(line: Line, receipts: list[pa.Table]) -> tuple[list, set, Counter]:
    """Rows in the parts as (table, text, numbers), the parts' schemas as (table, schema), and rejects as (key, code)."""
    rows, kinds, rejects = [], set(), Counter()
    for receipt in [r for t in receipts for r in t.to_pylist() if r["path"]]:
        part = pq.ParquetFile(f"{line.plan.store}/{receipt['table']}/{receipt['path']}").read()
        if receipt["table"] == schema.REJECTS.name:
            rejects.update(zip(part.column(schema.KEY).to_pylist(), part.column(schema.REJECT_CODE).to_pylist()))
            continue
        kinds.add((receipt["table"], part.schema.to_string()))
        for row in part.drop_columns([c for c in _PASSING if c in part.column_names]).to_pylist():
            numbers: list[float] = []
            text = json.dumps(without_floats(row, numbers), default=repr, sort_keys=True)
            rows.append((receipt["table"], text, numbers))
    return rows, kinds, rejects


def without_floats(value, numbers: list[float]):
    """The value with its floats moved to ``numbers``: they differ in the last bits from batch to batch."""
    if isinstance(value, float):
        return numbers.append(value)
    if isinstance(value, dict):
        return {k: without_floats(v, numbers) for k, v in value.items()}
    return [without_floats(v, numbers) for v in value] if isinstance(value, list | tuple) else value


@pytest.fixture(scope="module")
def alone(lines) -> dict[str, tuple]:
    """What becomes of every row alone: its key, its rows, its parts' schemas, its rejects."""
    return {
        line.name: [
            (key, *written(line, operators_over(line, line.stages, Pool(workers=1), [item], list)))
            for key, item in zip(keys_of(line), single_rows(line), strict=True)
        ]
        for line in lines.values()
    }


@pytest.mark.parametrize("name", sorted(LINES))
def test_what_leaves_does_not_depend_on_what_was_rejected(lines, alone, name):
    line, known = lines[name], alone[name]
    keys = [key for key, *_ in known]
    assert any(rows for _, rows, _, _ in known), "no row passes: nothing is tested"
    sizes = st.lists(st.integers(1, len(keys)), min_size=1, max_size=3)
    some = st.one_of(
        st.just(set(keys)),
        st.builds(lambda a, b: set(keys[min(a, b) : max(a, b) + 1]), *[st.integers(0, len(keys) - 1)] * 2),
        st.sets(st.sampled_from(keys)),
    )
    groups = [
        pa.concat_tables(list(of)) for _, of in groupby(single_rows(line), lambda t: [c[0].as_py() for c in t.columns[:2]])
    ]
    # a visit is never rejected: what came of it is its row
    doomed = st.dictionaries(st.integers(0, len(line.stages) - 1), some, max_size=0 if name == "crawl" else 2)
    cuts = st.sets(st.integers(1, len(line.stages) - 1)) if len(line.stages) > 1 else st.just(set())

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(doomed, cuts, sizes, sizes, sizes, st.integers(1, len(keys)), st.sampled_from([1, 3, 4096]))
    def check(doomed, cuts, items, blocks, between, batch_rows, rows_per_part):
        pool = Pool(workers=1, batch_rows=batch_rows)
        here = replace(line, plan=replace(line.plan, rows_per_part=rows_per_part))
        stages = [
            replace(rejecting(s, doomed[i], line.plan.key) if i in doomed else s, pool=pool if i in cuts else None)
            for i, s in enumerate(line.stages)
        ]
        taken = [item for group in groups for item in cut(group, items)]
        made = [
            pa.table(
                [t.column(0)[:1], t.column(1)[:1], [[r[0] for r in t.column(2).to_pylist()]], [t.num_rows]], schema=t.schema
            )
            for t in taken
        ]
        receipts = operators_over(
            here, stages, pool, cut(pa.concat_tables(made), blocks), lambda tables: cut(pa.concat_tables(tables[::-1]), between)
        )
        rows, kinds, rejects = written(here, receipts)
        gone = set().union(*doomed.values())
        expected = sorted(row for key, own, _, _ in known if key not in gone for row in own)
        assert [row[:2] for row in sorted(rows)] == [row[:2] for row in expected]
        assert [row[2] for row in sorted(rows)] == [pytest.approx(row[2], abs=1e-3) for row in expected]
        assert kinds <= set().union(*(k for _, _, k, _ in known))
        ours = {key for key, r, _, own in known if not own and key in gone}
        assert ours <= {key for key, _ in rejects}
        passed = sum(1 for key, _, _, own in known if not own and key not in gone)
        assert sum(rejects.values()) == len(keys) - passed

    check()
