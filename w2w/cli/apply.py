"""Apply: runs your own stage on the rows of a table that it has not processed yet."""

import re
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import pyarrow as pa

from w2w import ids, plugins, schema
from w2w.engine.job import JobConfig, Run
from w2w.engine.run import run_pending
from w2w.engine.source import pending_rows
from w2w.errors import UsageError
from w2w.models.encoder import check_version
from w2w.results import Summary
from w2w.stage import Pool, Stage, TableStage
from w2w.table import delta
from w2w.table.parts import Output
from w2w.table.pending import rejected_keys, table_keys


@dataclass(frozen=True)
class Config(JobConfig):
    """Run your own stage over the rows it has not seen yet, exactly once. w2w/README.md shows how to write one."""

    PLACES = {"STORE": "store", "STAGE": "stage"}

    stage: str = ""
    """module:attribute, or the name of an installed one."""
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments that the stage is made with."""
    pool: Pool = Pool()
    """Workers that run it."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Of one stage version."""

    stage: str
    stage_version: str
    pending: int


def main(config: Config) -> Result:
    stage = stage_of(config.stage)
    try:
        signature(stage).bind(**config.options)
    except TypeError as e:
        raise UsageError(f"options={config.options}: {config.stage} does not take them: {e}") from e
    run = Run(f"apply-{stage.table.name}", config)
    key, version = stage.of.key[0], _version(config.stage, config.options)
    if delta.open_table(run.store, stage.of) is None:
        raise UsageError(f"there is no table {delta.uri(run.store, stage.of)!r}, which the stage reads: check --store")
    done = [
        table_keys(run.store, stage.table, key, **{schema.STAGE_VERSION: version}),
        rejected_keys(run.store, run.job, version),
    ]
    source = schema.SOURCE_URI if schema.SOURCE_URI in stage.of.schema.names else None
    columns = list(dict.fromkeys([key, *stage.needs, *filter(None, [source])]))
    every = config.full_scan
    work = pending_rows(run.store, stage.of, columns, done, source, config.item_rows, limit=config.limit, full_scan=every)
    told = {"stage": config.stage, "stage_version": version}
    result = run.result(Result, **told, pending=work.num_rows, skipped=work.skipped)
    gives = pa.schema([f for f in stage.table.schema if f.name not in columns])
    made = {"name": config.stage, "options": config.options, "version": version}
    stages = [Stage(run.job, Applied, stage.needs, gives, made)]
    return run_pending(run, result, work, stages, [Output(stage.table)], version, [stage.of], config.pool)


class Applied:
    """The stage running in one worker, of the version that the job started with."""

    def __init__(self, name: str, options: dict[str, Any], version: str):
        check_version(f"stage={name}", version, _version(name, options))
        self._stage, self._version = plugins.find("stage", name, {})(**options), version

    def __call__(self, rows: pa.Table) -> pa.Table:
        result = self._stage(rows)
        return result.append_column(schema.STAGE_VERSION, pa.repeat(pa.scalar(self._version), result.num_rows))


def _version(name: str, options: dict[str, Any]) -> str:
    return ids.digest(*plugins.version_of("stage", name, {}), options)


def stage_of(name: str) -> type[TableStage]:
    """Raises UsageError for anything but a TableStage."""
    stage, where = plugins.find("stage", name, {}), f"stage={name}"
    of, table, needs = (getattr(stage, name, None) for name in ("of", "table", "needs"))
    if not isinstance(of, schema.Table) or not isinstance(table, schema.Table) or not isinstance(needs, tuple):
        raise UsageError(f"{where}: needs `of` and `table`, each a w2w.schema.Table, and `needs`, a tuple of columns")
    if len(of.key) > 1:
        raise UsageError(f"{where}: rows of {of.name!r} are not one per {of.key[0]}: a stage reads tables with one key column")
    if missing := sorted(set(needs) - set(of.schema.names)):
        raise UsageError(f"{where}: table {of.name!r} has no column {missing[0]!r}, only {', '.join(of.schema.names)}")
    if table.name in schema.TABLES or not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", table.name):
        raise UsageError(f"{where}: {table.name!r} is not a valid name for its own table: lower-case letters, digits and _")
    if table.key != of.key or table.partition_by != (schema.STAGE_VERSION,):
        raise UsageError(f"{where}: {table.name!r} must have key {of.key} and partition_by=({schema.STAGE_VERSION!r},)")
    if not {*table.key, *table.partition_by} <= set(table.schema.names):
        raise UsageError(f"{where}: {table.name!r} lacks column {table.key[0]!r} or {schema.STAGE_VERSION!r}")
    return stage
