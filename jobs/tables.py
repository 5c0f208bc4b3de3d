"""Tables: list a store's tables with rows, versions, history, lineage and rejects; compact and vacuum them."""

import time
from dataclasses import dataclass

from rich.table import Table as RichTable

from w2w import schema, storage
from w2w.config import nearest
from w2w.errors import UsageError
from w2w.runtime.job import console, start
from w2w.table import delta, maintain


@dataclass(frozen=True)
class Config:
    """Without further options: every table of the store, a line each."""

    store: str
    """Where the tables lie: a local path or an s3:// prefix."""
    table: str | None = None
    """Only this table, with its history: who wrote which version, from what, with which config."""
    rejects: bool = False
    """Rejected rows, counted by stage and code, with examples."""
    stage: str | None = None
    """With --rejects: of this stage only."""
    examples: int = 3
    """With --rejects: how many rows of each code to show."""
    compact: bool = False
    """Merge small parts into larger ones. Safe while jobs run."""
    vacuum: bool = False
    """Delete files that no version younger than --vacuum_hours needs, left-overs of killed runs among them."""
    vacuum_hours: float = 168.0
    """Younger files stay: they may belong to a running job, or to an older version somebody reads."""
    dry_run: bool = False
    """With --vacuum: only count the files."""


def main(config: Config) -> None:
    store, out = storage.absolute(config.store), console()
    if config.table is not None and config.table not in schema.TABLES:
        raise UsageError(f"--table={config.table}: there is no such table.{nearest(config.table, list(schema.TABLES))}")
    tables = [schema.TABLES[config.table]] if config.table else list(schema.TABLES.values())
    opened = {t.name: (t, found) for t in tables if (found := delta.open_table(store, t)) is not None}
    if not opened:
        raise UsageError(f"there are no tables at {store!r}: run 'w2w ingest' first, or check --store")
    for table, found in opened.values():
        if config.compact:
            out.print(f"{table.name}: {maintain.compact(store, table)}")
        if config.vacuum:
            out.print(f"{table.name}: {maintain.vacuum(found, config.vacuum_hours, config.dry_run)}")
    if config.rejects:
        out.print(_rejects(store, config))
    elif config.table:
        out.print(_history(*opened[config.table]))
    else:
        out.print(_overview(list(opened.values()), store))


def _overview(opened: list, store: str) -> RichTable:
    shown = RichTable("table", "rows", "parts", "MB", "version", "last written", "by", title=store, title_justify="left")
    for table, found in opened:
        parts, newest = delta.parts(found), delta.history(found, 1)[0]
        size = sum(p.size for p in parts) / 1e6
        written = time.strftime("%Y-%m-%d %H:%M", time.localtime(newest["timestamp"] / 1000))
        by = (newest["w2w"] or {}).get("run_id", newest["operation"])
        shown.add_row(
            table.name, f"{sum(p.rows for p in parts):,}", str(len(parts)), f"{size:,.1f}", str(found.version()), written, by
        )
    return shown


def _history(table: schema.Table, found) -> RichTable:
    shown = RichTable("version", "time", "operation", "run", "rows", "read from", "stage version", title=table.name)
    for entry in delta.history(found):
        lineage = entry["w2w"] or {}
        inputs = ", ".join(f"{name}@{version}" for name, version in lineage.get("inputs", {}).items())
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["timestamp"] / 1000))
        rows = f"{lineage['rows']:,}" if "rows" in lineage else ""
        shown.add_row(
            str(entry["version"]),
            when,
            entry["operation"],
            lineage.get("run_id", ""),
            rows,
            inputs,
            lineage.get("stage_version", ""),
        )
    return shown


def _rejects(store: str, config: Config) -> RichTable:
    columns = [schema.STAGE, schema.REJECT_CODE, schema.KEY, schema.REJECT_DETAIL, schema.SOURCE]
    where = {schema.STAGE: config.stage} if config.stage else {}
    counts: dict[tuple[str, str], int] = {}
    examples: dict[tuple[str, str], list[dict]] = {}
    listed = delta.parts(delta.open_table(store, schema.REJECTS), **where)
    for batch in delta.read_batches(store, schema.REJECTS, columns, listed):
        for row in batch.to_pylist():
            group = (row[schema.STAGE], row[schema.REJECT_CODE])
            counts[group] = counts.get(group, 0) + 1
            if len(examples.setdefault(group, [])) < config.examples:
                examples[group].append(row)
    shown = RichTable("stage", "code", "rows", "for example", title="rejects", title_justify="left")
    for group, n in sorted(counts.items(), key=lambda kv: -kv[1]):
        lines = [f"{r[schema.SOURCE] or r[schema.KEY]}: {r[schema.REJECT_DETAIL]}" for r in examples[group]]
        shown.add_row(group[0], group[1], f"{n:,}", "\n".join(lines))
    return shown


if __name__ == "__main__":
    start(main, Config)
