"""Tables: list a store's tables with rows, versions, history, lineage and rejects; compact and vacuum them."""

from dataclasses import dataclass

from w2w import schema, storage
from w2w.config import nearest
from w2w.engine.job import console
from w2w.errors import UsageError
from w2w.table import delta, maintain
from w2w.table.inventory import history, overview, rejects


@dataclass(frozen=True)
class Config:
    """Without further options: every table of the store, a line each."""

    PLACES = {"STORE": "store", "TABLE": "table"}

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
    """Take out rows that stand twice, and merge small parts into larger ones. Safe while jobs run."""
    vacuum: bool = False
    """Delete files that no version younger than --vacuum_hours needs, left-overs of killed runs among them."""
    vacuum_hours: float = 168.0
    """Younger files stay: they may belong to a running job, or to an older version somebody reads."""
    dry_run: bool = False
    """With --compact and --vacuum: only say what would be done."""


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
            out.print(f"{table.name}: {maintain.compact(store, table, config.dry_run)}")
        if config.vacuum:
            out.print(f"{table.name}: {maintain.vacuum(found, config.vacuum_hours, config.dry_run)}")
    if config.rejects:
        out.print(rejects(store, config.stage, config.examples))
    elif config.table:
        out.print(history(*opened[config.table]))
    else:
        out.print(overview(list(opened.values()), store))
