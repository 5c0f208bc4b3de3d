"""What a store that runs for years needs at the end of a night: few parts, no files that nothing refers to, no old pages."""

from collections.abc import Callable
from dataclasses import dataclass

from w2w import schema, storage
from w2w.report.keep import KEEP, old_reports
from w2w.table import delta, maintain

SMALL_BYTES = 64 << 20  # of a part that is worth merging


@dataclass(frozen=True)
class Tidy:
    """What is kept, and how often parts are merged."""

    LEAST = {"parts": 2, "reports": 1}

    parts: int = 60
    """A table with so many parts under 64 MB has them merged; each night adds one or more."""
    vacuum_hours: float = 168.0
    """Files that no version younger than this needs are deleted."""
    reports: int = KEEP
    """The pages of so many earlier runs of each job are kept."""


@dataclass(frozen=True)
class Tidied:
    """What was done."""

    merged: dict[str, int]
    """Parts before, by table."""
    files_deleted: int
    pages_deleted: int


def tidy(store: str, config: Tidy, still_ours: Callable[[], None], run_id: str = "") -> Tidied:
    """``still_ours`` is called before each table, and raises if another night has taken over."""
    merged, deleted = {}, 0
    for table in [*schema.TABLES.values(), *delta.own_tables(store).values()]:
        opened = delta.open_table(store, table)
        if opened is None:
            continue
        still_ours()
        listed = delta.parts(opened)
        if sum(part.size < SMALL_BYTES for part in listed) >= config.parts:
            maintain.compact(store, table, run_id=run_id)
            merged[table.name] = len(listed)
        deleted += maintain.vacuum(store, table, config.vacuum_hours, dry_run=False, run_id=run_id)
    pages = list(old_reports(store, config.reports))
    for folder in pages:
        storage.delete(folder)
    return Tidied(merged, deleted, len(pages))
