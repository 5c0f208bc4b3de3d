"""Tables: list a store's tables, versions, lineage and rejects; compact and vacuum them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from w2w import plugins, schema, storage
from w2w.cli.apply import stage_of
from w2w.config import nearest
from w2w.engine.job import new_run_id
from w2w.errors import UsageError
from w2w.report.keep import KEEP, old_reports
from w2w.results import Summary
from w2w.table import delta, maintain
from w2w.table.inventory import Commit, Held, Rejected, held, history, rejects
from w2w.table.migrate import Migrated, migrate
from w2w.table.permitted import Said, counted


@dataclass(frozen=True)
class Config:
    """Without further options: one line for every table of the store."""

    PLACES = {"STORE": "store", "TABLE": "table"}

    store: str
    """Where the tables live: a local path or an s3:// prefix."""
    table: str | None = None
    """Only this table (or your own stage's, by the stage's name), with its history: who wrote which version, from what, with
    which config. Of `permissions` also what pictures may be used for, and why."""
    rejects: bool = False
    """Rejected rows, counted by stage and code, with examples."""
    stage: str | None = None
    """With --rejects: of this stage only."""
    examples: int = 3
    """With --rejects: how many rows of each code to show."""
    compact: bool = False
    """Remove duplicate rows and warnings about rows that products no longer have, and merge small files. Safe while jobs
    run."""
    vacuum: bool = False
    """Delete files that no version younger than --vacuum_hours needs, left-overs of killed runs, and the pages of old runs."""
    vacuum_hours: float = 168.0
    """Younger files are kept: a running job or a reader of an older version may need them."""
    keep_reports: int = KEEP
    """With --vacuum: the pages of so many runs of each job stay, and those of older runs are deleted."""
    migrate: bool = False
    """Bring tables that an earlier w2w wrote to today's columns, and give products their list of pictures; the rows of every
    table are counted before and after."""
    dry_run: bool = False
    """With --migrate, --compact and --vacuum: only say what would be done."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """What was asked for: the tables, the history of one, or rejects; and what was done to them."""

    store: str
    tables: tuple[Held, ...] = ()
    history: tuple[Commit, ...] = ()
    rejects: tuple[Rejected, ...] = ()
    verdicts: tuple[Said, ...] = ()
    """With --table=permissions: what pictures may be used for, and why, by number of places."""
    migrated: dict[str, Migrated] = field(default_factory=dict)
    compacted: dict[str, maintain.Compacted] = field(default_factory=dict)
    vacuumed: dict[str, int] = field(default_factory=dict)
    """Files deleted, by table."""
    reports: tuple[str, ...] = ()
    """Folders of pages that were deleted."""

    def __rich__(self) -> Group:
        would = "would be " if self.dry_run else ""
        shown: list[RenderableType] = []
        shown += [f"{name}: {told.words(would)}" for name, told in self.migrated.items()]
        for name, done in self.compacted.items():
            parts = f"{done.parts_before} parts" + ("" if done.parts_after is None else f" became {done.parts_after}")
            old = f" and {done.rows_outdated:,} outdated" if done.rows_outdated else ""
            shown.append(f"{name}: {done.rows_twice:,} duplicate{old} rows {would}removed, {parts} {would}merged")
        shown += [f"{name}: {n:,} files {would}deleted" for name, n in self.vacuumed.items()]
        shown += [f"pages: those of {len(self.reports):,} runs {would}deleted"] if self.reports else []
        if self.history:
            shown.append(_history(self.history, self.tables[0].table))
            shown += [_verdicts(self.verdicts)] if self.verdicts else []
        elif self.tables:
            shown.append(_overview(self.tables, self.store))
        else:
            shown.append(_rejects(self.rejects))
        return Group(*shown)


def main(config: Config) -> Result:
    store = storage.absolute(config.store)
    if config.keep_reports < 1:
        raise UsageError(f"--keep_reports={config.keep_reports}: must be at least 1")
    tables = [_table(store, config.table)] if config.table else [*schema.TABLES.values(), *delta.own_tables(store).values()]
    opened = {t.name: (t, found) for t in tables if (found := delta.open_table(store, t)) is not None}
    if not opened:
        raise UsageError(f"there are no tables at {store!r}: run 'w2w ingest' first, or check --store")
    migrated = {n: migrate(store, t, config.dry_run) for n, (t, _) in opened.items() if config.migrate}
    run_id = new_run_id("tables")
    compacted = {n: maintain.compact(store, t, config.dry_run, run_id) for n, (t, _) in opened.items() if config.compact}
    hours, dry_run = config.vacuum_hours, config.dry_run
    vacuumed = {n: maintain.vacuum(store, t, hours, dry_run, run_id) for n, (t, _) in opened.items() if config.vacuum}
    pages = tuple(old_reports(store, config.keep_reports)) if config.vacuum and not config.table else ()
    for folder in () if dry_run else pages:
        storage.delete(folder)
    if compacted or migrated:
        opened = {name: (table, delta.existing(store, table)) for name, (table, _) in opened.items()}
    told: dict[str, Any] = {"rejects": tuple(rejects(store, config.stage, config.examples))} if config.rejects else {}
    if not config.rejects:
        told["tables"] = tuple(held(*found) for found in opened.values())
        told["history"] = tuple(history(opened[tables[0].name][1])) if config.table else ()
        told["verdicts"] = tuple(counted(store)) if config.table == schema.PERMISSIONS.name else ()
    told |= {
        "store": store,
        "dry_run": dry_run,
        "migrated": migrated,
        "compacted": compacted,
        "vacuumed": vacuumed,
        "reports": pages,
    }
    return Result(job="tables", run_id=run_id, **told)


def _table(store: str, name: str) -> schema.Table:
    if name in schema.TABLES:
        return schema.TABLES[name]
    own = delta.own_tables(store)
    if name not in own and (":" in name or name in plugins.installed("stage")):
        return stage_of(name).table
    if name not in own:
        raise UsageError(f"--table={name}: there is no such table.{nearest(name, [*schema.TABLES, *own])}")
    return own[name]


def _overview(tables: Sequence[Held], store: str) -> Table:
    shown = Table(title=store, title_justify="left")
    for name in ("table", "rows", "parts", "MB", "version", "last written", "by"):
        shown.add_column(name, overflow="fold")
    for t in tables:
        written = f"{t.written_at.astimezone():%Y-%m-%d %H:%M}"
        shown.add_row(t.table, f"{t.rows:,}", str(t.parts), f"{t.num_bytes / 1e6:,.1f}", str(t.version), written, t.by)
    return shown


def _history(commits: Sequence[Commit], name: str) -> Table:
    shown = Table("version", "time", "operation", "run", "rows", "read from", "stage version", title=name)
    for c in commits:
        when, rows = f"{c.written_at.astimezone():%Y-%m-%d %H:%M:%S}", "" if c.rows is None else f"{c.rows:,}"
        inputs = ", ".join(f"{name}@{version}" for name, version in c.read_from.items())
        shown.add_row(str(c.version), when, c.operation, c.run_id or "", rows, inputs, c.stage_version or "")
    return shown


def _verdicts(found: Sequence[Said]) -> Table:
    shown = Table("pictures", "search", "training", "reason", title="what they may be used for", title_justify="left")
    for said in found:
        shown.add_row(f"{said.rows:,}", *("yes" if may else "no" for may in (said.search, said.training)), said.reason)
    return shown


def _rejects(found: Sequence[Rejected]) -> Table:
    shown = Table("stage", "code", "rows", "for example", title="rejects", title_justify="left")
    for r in found:
        again = "" if r.times == r.rows else f", {r.times:,} times in all"
        shown.add_row(r.stage, r.code, f"{r.rows:,}{again}", Group(*(f"{what}: {why}" for what, why in r.examples)))
    return shown
