"""Stages over a table on Ray: read -> stages -> write parts -> commit in the driver.

Stages that share workers run inside one operator: a worker takes an item (rows of one Parquet row group), reads it, runs the
stages batch by batch and writes the part, so image bytes never leave the worker on a CPU cluster. A stage with its own pool
starts a new operator, and rows travel to it on Ray Data (CPU decoding feeds GPU actors).
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import ray

from w2w import schema, storage
from w2w.engine.job import R, Run
from w2w.engine.progress import Progress
from w2w.engine.source import Source
from w2w.engine.tasks import raise_user_errors
from w2w.engine.workers import Operator, run_alone
from w2w.errors import JobFailed, UsageError
from w2w.memory import keep_memory
from w2w.stage import (
    REJECTED_BY,
    REJECTED_SCHEMA,
    Budget,
    Chain,
    Counts,
    Pool,
    Stage,
    batches,
    check_plan,
    conformed,
    count,
    leaving,
    segments,
)
from w2w.table.marks import Mark
from w2w.table.parts import RECEIPT_SCHEMA, Output, write_part
from w2w.table.pending import read_beside, read_item
from w2w.table.sink import Committer, Lineage
from w2w.table.tolerance import Tolerance

_BYTES_PER_PART = 64 << 20
_MAX_BLOCKS = 4096  # items handed to Ray: more cost scheduling, fewer cost balance
_STREAMED_BATCHES = 8  # minimum batches per item if the next operator may wait for its last rows
_EARLY_REJECTS = 1000  # rows processed before a hopeless run is stopped early


@dataclass(frozen=True)
class _Plan:
    """Everything a worker needs, as plain values."""

    store: str
    root: str
    fields: pa.Schema
    key: str
    source: str | None
    outputs: tuple[Output, ...]
    lineage: Lineage
    stage_names: tuple[str, ...]
    rows_per_part: int
    beside: str | None


def run_stages(
    store: str,
    source: Source,
    stages: Sequence[Stage],
    outputs: Sequence[Output],
    lineage: Lineage,
    *,
    pool: Pool,
    tolerance: Tolerance,
    commit_every_s: float = 20.0,
    rows_per_part: int = 4096,
    until: float | None = None,
) -> tuple[Counts, dict[str, int]]:
    """Runs the stages over the source and commits. Returns the counts and the version of every table written.

    ``pool`` is for the first stage and those that share its workers. Raises JobFailed if more rows are rejected than
    ``tolerance`` allows, out of all rows of the source and counting rejects of earlier runs: what fails tonight fails tomorrow.
    Work done until then stays committed: it is valid and need not be repeated. ``until``: on ``time.monotonic``; rows that are
    not done by then are left for the next run.
    """
    wanted = [c for o in outputs for c in o.columns]
    check_plan(stages, source.schema.names, wanted)
    committer = Committer(store, outputs, lineage, commit_every_s)
    if source.num_rows:
        least_rows = pool.batch_rows * (_STREAMED_BATCHES if stages[0].streams else 1)
        blocks = _blocks(source.tapered(pool.workers or _workers_that_fit(pool), least_rows).items)
        plan = _Plan(
            store,
            source.root,
            pa.schema([f.with_nullable(True) for f in source.schema]),
            source.key,
            source.source,
            tuple(outputs),
            lineage,
            tuple(s.name for s in stages),
            rows_per_part,
            source.beside,
        )
        with Progress(lineage.job, source.num_rows) as progress:
            for receipts in _stream(plan, stages, pool, blocks, until):
                committer.add(receipts)
                progress.update(committer.counts.read, committer.counts.rejected)
                _stop_if_hopeless(committer, source, tolerance)
        counts = committer.counts
        committer.commit(_mark_of(source, outputs, lineage, counts))
        all_read = counts.read == source.num_rows or (until is not None and counts.read < source.num_rows)
        if not all_read or counts.out + counts.rejected != counts.read:
            raise AssertionError(f"{source.num_rows} rows were to be read: {counts}")
        tolerance.check(counts.rejects, source.listed, source.rejected)
    return committer.counts, {o.table.name: committer.version(o.table) for o in outputs}


def _mark_of(source: Source, outputs: Sequence[Output], lineage: Lineage, counts: Counts) -> Mark | None:
    """The watermark of a run that worked on every row of the source, and has one result or reject of each."""
    last = outputs[-1]
    if source.mark is None or last.table.name != source.mark.made or last.nested or last.only or counts.read != source.num_rows:
        return None
    parts = (path for item in source.items for path in item.column("path").to_pylist())
    return source.mark.after(lineage.run_id, counts, parts)


def run_pending(
    run: Run,
    result: R,
    work: Source,
    stages: Sequence[Stage],
    outputs: Sequence[Output],
    version: str,
    inputs: Sequence[schema.Table],
    pool: Pool,
    budget: Budget | None = None,
) -> R:
    """The end of a job over pending rows: calls ``run_stages`` unless nothing is pending or this is a dry run, with the options
    that all jobs share. ``version`` is the stage's; ``inputs`` are the tables that its rows derive from; what the ``budget``
    does not allow is left for the next run."""
    config, begun = run.config, time.monotonic() - run.seconds
    if work.is_done(config.tolerance) or config.dry_run:
        return result
    run.begin()
    spent_after = _seconds(budget, [pool, *(stage.pool for stage in stages if stage.pool)]) if budget else None
    counts, versions = run_stages(
        run.store,
        work,
        stages,
        outputs,
        run.lineage(version, inputs),
        pool=pool,
        tolerance=config.tolerance,
        commit_every_s=config.commit_every_s,
        until=begun + spent_after if spent_after else None,
    )
    return run.done(result, counts=counts, versions=versions)


def _seconds(budget: Budget, pools: Sequence[Pool]) -> float | None:
    """After which the budget is spent; None for never."""
    limits = [60 * budget.minutes] if budget.minutes else []
    if budget.gpu_hours:
        gpus = sum((pool.workers or _workers_that_fit(pool)) * pool.num_gpus for pool in pools if pool.num_gpus)
        if not gpus:
            raise UsageError("budget.gpu_hours: no worker asks for a GPU (gpu_pool.num_gpus): use budget.minutes")
        limits.append(3600 * budget.gpu_hours / gpus)
    return min(limits, default=None)


def _blocks(items: list[pa.Table]) -> list[pa.Table]:
    per_block = -(-len(items) // _MAX_BLOCKS)
    return [pa.concat_tables(items[i : i + per_block]) for i in range(0, len(items), per_block)]


def _stream(
    plan: _Plan, stages: Sequence[Stage], pool: Pool, blocks: list[pa.Table], until: float | None
) -> Iterator[pa.Table]:
    """Yields receipts as they arrive."""
    operators = _operators(plan, stages, pool, len(blocks))
    with raise_user_errors():
        if len(operators) == 1:
            yield from run_alone(operators[0], blocks, until)
        else:
            from w2w.engine.pipeline import run_together  # imports Ray Data: 3 s of CPU

            for receipts in run_together(operators, blocks):
                yield receipts
                if until is not None and time.monotonic() >= until:
                    return  # what is on its way, such as pictures that are decoded, is computed again by the next run


def _operators(plan: _Plan, stages: Sequence[Stage], pool: Pool, num_blocks: int) -> list[Operator]:
    """One operator per run of stages that share workers."""
    groups = segments(stages)
    carried = [c for c in (plan.key, plan.source) if c]
    leaves = leaving(groups, plan.fields, [c for o in plan.outputs for c in o.columns], carried)
    operators = []
    for i, group in enumerate(groups):
        own, loads_model = group[0].pool or pool, any(stage.loads_model for stage in group)
        workers = own.workers
        if len(groups) == 1 or loads_model:
            # a worker costs seconds of imports: never start more than there are blocks
            workers = min(workers or _workers_that_fit(own), num_blocks)
        arguments = (plan, group, leaves[i], own.batch_rows, i == 0, i == len(groups) - 1)
        operators.append(Operator(_Worker if len(groups) > 1 else _WholeWorker, arguments, own, workers, loads_model))
    return operators


def _workers_that_fit(pool: Pool) -> int:
    have = ray.cluster_resources()
    fits = [have.get("CPU", 0) // pool.num_cpus] if pool.num_cpus else []
    fits += [have.get("GPU", 0) // pool.num_gpus] if pool.num_gpus else []
    if not fits or min(fits) < 1:
        raise UsageError(
            f"a worker asks for {pool.num_cpus:g} CPUs and {pool.num_gpus:g} GPUs, and the cluster has "
            f"{have.get('CPU', 0):g} and {have.get('GPU', 0):g}: lower pool.num_cpus or pool.num_gpus"
        )
    return int(min(fits))


class _Worker:
    """One operator's work in one process: read (first operator), run stages, write (last operator)."""

    def __init__(self, plan: _Plan, group: list[Stage], leaves: pa.Schema, batch_rows: int, first: bool, last: bool):
        self._plan, self._batch_rows, self._first, self._last = plan, batch_rows, first, last
        keep_memory()
        self._chain: Chain | Exception
        try:
            self._chain = Chain(group, plan.key, plan.source, leaves)
        except (UsageError, JobFailed, OSError) as e:
            self._chain = e  # raised by the first call: from a failed constructor Ray keeps only the text

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        if isinstance(self._chain, Exception):
            raise self._chain
        rows, rejected, read, held = [], [], 0, 0
        for good, bad in self._results(self._chain, block):
            if not self._last:
                yield _join(good, bad)
                continue
            read += good.num_rows + bad.num_rows
            rows.append(good)
            rejected.append(bad)
            held += good.nbytes
            if held >= _BYTES_PER_PART or sum(r.num_rows for r in rows) >= self._plan.rows_per_part:
                yield self._write(read, rows, rejected)
                rows, rejected, read, held = [], [], 0, 0
        if read:
            yield self._write(read, rows, rejected)

    def _results(self, chain: Chain, block: pa.Table) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Good rows and all rejects so far, batch by batch."""
        if self._first:
            yield from chain.flow(self._items(block))
            return
        for rows, already_rejected in map(_split, batches(iter([block]), self._batch_rows)):
            good, bad = chain(rows)
            yield good, pa.concat_tables([already_rejected, bad])

    def _items(self, block: pa.Table) -> Iterator[pa.Table]:
        system, root = storage.filesystem(self._plan.root)
        for item in block.to_pylist():
            yield from self._read(system, root, item)

    def _read(self, system, root: str, item: dict) -> Iterator[pa.Table]:
        """The item's rows, joined with those of ``beside``, in batches of the declared types."""
        fields, beside, at = self._plan.fields, pa.table({}), 0
        if self._plan.beside is not None:
            beside = read_beside(*storage.filesystem(self._plan.beside), item)
        own = [c for c in fields.names if c not in beside.column_names]
        for rows in read_item(system, root, item, own, self._batch_rows):
            for name in beside.column_names:
                rows = rows.append_column(name, beside.column(name).slice(at, rows.num_rows))
            at += rows.num_rows
            yield conformed(rows, fields)

    def _write(self, read: int, rows: list[pa.Table], rejected: list[pa.Table]) -> pa.Table:
        good, bad = pa.concat_tables(rows), pa.concat_tables(rejected)
        plan = self._plan
        receipts: list[dict] = [r for output in plan.outputs for r in write_part(plan.store, output, good, plan.lineage.run_id)]
        if bad.num_rows:
            receipts += write_part(plan.store, Output(schema.REJECTS), reject_rows(bad, plan.lineage), plan.lineage.run_id)
        if not receipts:
            receipts = [{"path": None}]
        counts = count(read, good, bad, plan.stage_names)
        counts.left_out = {o.table.name: good.column(o.only).null_count for o in plan.outputs if o.only}
        receipts[0] |= {"counts": counts.to_json()}
        return pa.Table.from_pylist(receipts, schema=RECEIPT_SCHEMA)


class _WholeWorker(_Worker):
    """A worker of the only operator: takes a block and returns all its receipts."""

    def __call__(self, block: pa.Table) -> pa.Table:
        return pa.concat_tables([RECEIPT_SCHEMA.empty_table(), *super().__call__(block)])


def reject_rows(bad: pa.Table, lineage: Lineage) -> pa.Table:
    n = bad.num_rows
    extra = {
        schema.STAGE: lineage.stage,
        schema.STAGE_VERSION: lineage.stage_version,
        schema.RUN_ID: lineage.run_id,
        schema.REJECTED_AT: pa.scalar(time.time_ns() // 1000, schema.TIME),
    }
    for name, value in extra.items():
        bad = bad.append_column(name, pa.repeat(value, n))
    return bad


def _join(good: pa.Table, bad: pa.Table) -> pa.Table:
    """Good and rejected rows in one table, to travel to the next operator: rejected rows have only the reject columns."""
    columns = {f"reject.{c}": pa.nulls(good.num_rows, pa.string()) for c in REJECTED_SCHEMA.names}
    for name, nulls in columns.items():
        good = good.append_column(name, nulls)
    return pa.concat_tables([good, bad.rename_columns(list(columns))], promote_options="default")


def _split(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    columns = [f"reject.{c}" for c in REJECTED_SCHEMA.names]
    gone = rows.column(f"reject.{REJECTED_BY}").is_valid()
    bad = rows.filter(gone).select(columns).rename_columns(REJECTED_SCHEMA.names)
    return rows.filter(rows.column(columns[-1]).is_null()).drop_columns(columns), bad.combine_chunks()


def _stop_if_hopeless(committer: Committer, source: Source, tolerance: Tolerance) -> None:
    counts = committer.counts
    hopeless = tolerance.exceeded(counts.rejected + source.rejected, source.listed)
    if hopeless and counts.read >= min(source.num_rows, _EARLY_REJECTS):
        committer.commit()
        tolerance.check(counts.rejects, source.listed, source.rejected)
