"""Keeping tables small and quick: merge small parts, delete files that nobody needs."""

from deltalake import DeltaTable, WriterProperties

from w2w import schema
from w2w.table import delta

_TARGET_BYTES = 256 << 20


def compact(store: str, table: schema.Table) -> str:
    """Merges parts under 256 MB. Rows and their values stay as they are; concurrent appends are not disturbed."""
    opened = delta.open_table(store, table)
    before = len(delta.parts(opened))
    # encoded images do not compress: only time would be lost
    properties = WriterProperties(compression="UNCOMPRESSED" if schema.BYTES in table.schema.names else "ZSTD")
    opened.optimize.compact(target_size=_TARGET_BYTES, writer_properties=properties)
    opened.update_incremental()
    return f"{before} parts became {len(delta.parts(opened))}"


def vacuum(opened: DeltaTable, hours: float, dry_run: bool) -> str:
    """Deletes files older than ``hours`` that the table's current version does not name."""
    deleted = opened.vacuum(retention_hours=int(hours), dry_run=dry_run, enforce_retention_duration=False, full=True)
    return f"{len(deleted)} files {'would be' if dry_run else 'were'} deleted"
