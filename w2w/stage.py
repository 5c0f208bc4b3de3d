"""A stage, and what happens to rows inside one worker. No Ray here: unit tests run this part directly.

A stage takes an Arrow table and returns it with more columns, row for row. A row that cannot go on gets a reject code in column
``code`` (and a sentence in ``detail``); it leaves the table there and is written to the rejects table by the same worker, in
the same pass. Stages never see storage or Ray.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.errors import Reject, UsageError

REJECTED_BY = "rejected_by"  # travels between workers with a rejected row
# in a checkpoint's folder: the run's figures so far, and after the last step the best weights in the recipe's own format
HISTORY, MODEL = "history.json", "model"


@dataclass
class Counts:
    """Row counts, summed over the batches that reached the driver."""

    read: int = 0  # rows taken from the source
    out: int = 0  # rows that passed every stage
    rejects: dict[str, int] = field(default_factory=dict)  # by code
    stages: dict[str, int] = field(default_factory=dict)  # rows that entered each stage
    left_out: dict[str, int] = field(default_factory=dict)  # by table: passed rows that it does not take (Output.only)

    def add(self, other: "Counts") -> None:
        self.read += other.read
        self.out += other.out
        pairs = (self.rejects, other.rejects), (self.stages, other.stages), (self.left_out, other.left_out)
        for mine, theirs in pairs:
            for k, v in theirs.items():
                mine[k] = mine.get(k, 0) + v

    @property
    def rejected(self) -> int:
        return sum(self.rejects.values())

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Counts":
        return Counts(**json.loads(text))


@dataclass(frozen=True)
class Pool:
    """How many workers run a stage, and what each of them gets. Config, never the stage's business."""

    LEAST = {"workers": 1, "batch_rows": 1}

    workers: int | None = None
    """How many. Default: as many as the cluster's CPUs and GPUs allow."""
    num_cpus: float = 1
    """CPUs for each worker."""
    num_gpus: float = 0
    """GPUs for each worker."""
    batch_rows: int = 64
    """Rows per batch."""


@dataclass(frozen=True)
class Budget:
    """What one run may spend. What is done by then is kept, and the next run goes on from there."""

    minutes: float | None = None
    """Minutes, from the start of the job. Nothing is begun that would not be done by then."""
    gpu_hours: float | None = None
    """Hours of one GPU: two GPUs spend it in half the time."""

    def __post_init__(self):
        for name in ("minutes", "gpu_hours"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise UsageError(f"budget.{name}={value}: must be more than 0")


@dataclass(frozen=True)
class Stage:
    """A step: ``run`` is a function of a table, or a class whose instances are (it loads its model in ``__init__``).

    ``args`` are plain values for ``run``. A stage with ``pool=None`` shares the workers of the stage before it, so that rows do
    not travel; give it a pool if it needs other hardware (GPU actors fed by CPU tasks).

    ``streams``: ``run`` takes an iterator of tables and yields tables of the same rows, in any order and sizes. For a first
    stage that waits for each row (on the network): the next stages process what has arrived, and no row waits for the slowest.
    """

    name: str
    run: Callable
    needs: tuple[str, ...]
    gives: pa.Schema
    args: dict = field(default_factory=dict)
    pool: Pool | None = None
    streams: bool = False

    @property
    def loads_model(self) -> bool:
        return isinstance(self.run, type)

    def start(self) -> Callable[[pa.Table], pa.Table]:
        if self.loads_model:
            return self.run(**self.args)
        return lambda rows: self.run(rows, **self.args)


class TableStage(Protocol):
    """A class from outside for `w2w apply`: it reads columns ``needs`` of table ``of`` and adds those of ``table``, which has
    the key of ``of`` and the partition ``stage_version``. Created once per worker."""

    of: schema.Table
    needs: tuple[str, ...]
    table: schema.Table

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Returns row for row; rows that fail carry a reject (``with_rejects``)."""


def check_plan(stages: Sequence[Stage], columns: Sequence[str], wanted: Sequence[str]) -> None:
    """Asserts that every stage finds its columns and that the last one leaves those that the outputs need."""
    have = set(columns)
    for stage in stages:
        missing = set(stage.needs) - have
        assert not missing, f"stage {stage.name!r} needs {sorted(missing)}, and has {sorted(have)}"
        have |= set(stage.gives.names)
    assert not any(stage.streams for stage in stages[1:])
    missing = set(wanted) - have
    assert not missing, f"no stage gives {sorted(missing)}"


def segments(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Groups of consecutive stages that share workers."""
    groups: list[list[Stage]] = []
    for stage in stages:
        if stage.pool is None and groups:
            groups[-1].append(stage)
        else:
            groups.append([stage])
    return groups


def leaving(
    groups: Sequence[Sequence[Stage]], fields: pa.Schema, wanted: Sequence[str], carried: Sequence[str]
) -> list[pa.Schema]:
    """The columns that leave each group of stages: those that later groups or the outputs need (and ``carried``, except from
    the last group), in the types declared last. ``fields``: the columns that enter the first group.

    It follows from declarations alone, so that batches have one schema whatever was rejected in them.
    """
    live, after = set(wanted), []
    for group in reversed(groups):
        after.append(live | set(carried) if after else live)
        for stage in reversed(group):
            live = live - set(stage.gives.names) | set(stage.needs)
    known, schemas = {f.name: f for f in fields}, []
    for group, columns in zip(groups, reversed(after)):
        for stage in group:
            known |= {f.name: f for f in stage.gives}
        schemas.append(pa.schema([f.with_nullable(True) for f in known.values() if f.name in columns]))
    return schemas


def conformed(rows: pa.Table, fields: pa.Schema) -> pa.Table:
    """The given columns in exactly these types: list<item> instead of the list<element> that Parquet returns, no dictionary,
    and the declared nullability. A table without rows may lack them."""
    return rows.select(fields.names).cast(fields) if rows.num_rows else fields.empty_table()


class Chain:
    """Stages chained in one worker. ``leaves``: the columns of the rows that pass (``leaving``)."""

    def __init__(self, stages: Sequence[Stage], key: str, source: str | None, leaves: pa.Schema):
        self._stages = [(stage, stage.start()) for stage in stages]
        self._key, self._source, self._leaves = key, source, leaves

    def __call__(self, rows: pa.Table) -> tuple[pa.Table, pa.Table]:
        """(rows that passed every stage, rejected rows with key, source, code, detail, rejected_by)."""
        return self._run(rows, self._stages)

    def flow(self, tables: Iterator[pa.Table]) -> Iterator[tuple[pa.Table, pa.Table]]:
        """``__call__`` for each table, or for the output of a first stage that streams."""
        (first, call), *others = self._stages
        if not first.streams:
            yield from map(self, tables)
            return
        for result in call(tables):
            rows, bad = self._judged(first, result)
            rows, later = self._run(rows, others)
            yield rows, pa.concat_tables([bad, later])

    def _run(self, rows: pa.Table, stages: Sequence[tuple[Stage, Callable]]) -> tuple[pa.Table, pa.Table]:
        rejected = [REJECTED_SCHEMA.empty_table()]
        for stage, call in stages:
            if rows.num_rows == 0:
                break
            result = call(rows)
            assert result.num_rows == rows.num_rows, f"{stage.name}: {rows.num_rows} rows in, {result.num_rows} out"
            rows, bad = self._judged(stage, result)
            rejected.append(bad)
        return conformed(rows, self._leaves), pa.concat_tables(rejected)

    def _judged(self, stage: Stage, result: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Splits a stage's result into good rows without the reject columns, and rejected rows."""
        for column in stage.gives:
            found = result.schema.field(column.name).type
            assert found == column.type, f"{stage.name}: {column.name} must be {column.type}"
        if schema.REJECT_CODE not in result.column_names:
            return result, REJECTED_SCHEMA.empty_table()
        bad = result.column(schema.REJECT_CODE).is_valid()
        good = result.filter(pc.invert(bad)).drop_columns([schema.REJECT_CODE, schema.REJECT_DETAIL])
        return good, self._reject_rows(result.filter(bad), stage.name)

    def _reject_rows(self, rows: pa.Table, stage: str) -> pa.Table:
        source = rows.column(self._source).cast(pa.string()) if self._source else pa.nulls(rows.num_rows, pa.string())
        return pa.Table.from_arrays(
            [
                rows.column(self._key).cast(pa.string()),
                source,
                rows.column(schema.REJECT_CODE).cast(pa.string()),
                rows.column(schema.REJECT_DETAIL).cast(pa.string()),
                pa.repeat(pa.scalar(stage), rows.num_rows),
            ],
            schema=REJECTED_SCHEMA,
        )


REJECTED_SCHEMA = pa.schema(
    [(c, pa.string()) for c in (schema.KEY, schema.SOURCE, schema.REJECT_CODE, schema.REJECT_DETAIL, REJECTED_BY)]
)


def count(read: int, rows: pa.Table, rejected: pa.Table, stage_names: Sequence[str]) -> Counts:
    """The counts of ``read`` rows: how many entered each stage, how many left. Raises if a row went missing."""
    assert rows.num_rows + rejected.num_rows == read, f"{read} rows in, {rows.num_rows} out, {rejected.num_rows} rejected"
    by_code = {v["values"]: v["counts"] for v in pc.value_counts(rejected.column(schema.REJECT_CODE)).to_pylist()}
    by_stage = {v["values"]: v["counts"] for v in pc.value_counts(rejected.column(REJECTED_BY)).to_pylist()}
    entered, alive = {}, read
    for name in stage_names:
        entered[name] = alive
        alive -= by_stage.get(name, 0)
    return Counts(read, rows.num_rows, by_code, entered)


def batches(tables: Iterator[pa.Table], max_rows: int) -> Iterator[pa.Table]:
    """The same rows in batches of at most ``max_rows``."""
    for table in tables:
        for start in range(0, table.num_rows, max_rows):
            yield table.slice(start, max_rows)


def with_rejects(rows: pa.Table, rejects: Sequence[Reject | None]) -> pa.Table:
    """The rows with the reject columns of a stage's result."""
    codes = pa.array([r.code.value if r else None for r in rejects], pa.string())
    details = pa.array([r.detail if r else None for r in rejects], pa.string())
    return rows.append_column(schema.REJECT_CODE, codes).append_column(schema.REJECT_DETAIL, details)
