"""Keeping tables small, quick and right: take out rows that stand twice, merge small parts, delete files that nobody needs."""

import json
import time
import uuid

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable, WriterProperties
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import RemoveAction

import w2w
from w2w import schema
from w2w.errors import JobFailed, StorageFailed
from w2w.table import delta, doubles
from w2w.table.sink import Counts, Lineage, Output, commit_parts, write_part

_TARGET_BYTES = 256 << 20
_TRIES = 5


def compact(store: str, table: schema.Table, dry_run: bool = False) -> str:
    """Takes out rows that stand twice, and merges parts under 256 MB. All other rows and their values stay as they are;
    concurrent appends are not disturbed. Returns what it did in words."""
    opened = delta.open_table(store, table)
    before = len(delta.parts(opened))
    twice = mend(store, table, dry_run)
    said = f"{twice:,} rows that stood twice {'would be' if dry_run else 'were'} taken out, " if twice else ""
    if dry_run:
        return f"{said}{before} parts would be merged"
    opened = delta.open_table(store, table)
    # encoded images do not compress: only time would be lost
    properties = WriterProperties(compression="UNCOMPRESSED" if schema.BYTES in table.schema.names else "ZSTD")
    try:
        opened.optimize.compact(target_size=_TARGET_BYTES, writer_properties=properties)
    except CommitFailedError as e:
        raise JobFailed(f"another run wrote to table {table.name!r} at the same time: run this again") from e
    except (DeltaError, OSError) as e:
        raise StorageFailed(f"cannot compact table {delta.uri(store, table)!r}: {str(e).splitlines()[0]}") from e
    opened = delta.open_table(store, table)
    return f"{said}{before} parts became {len(delta.parts(opened))}"


def mend(store: str, table: schema.Table, dry_run: bool = False) -> int:
    """Takes out rows that stand twice, in one commit; how many there were. Not of `rejects`: what may come back is tried, and
    rejected, again."""
    if table is schema.REJECTS:
        return 0
    opened = delta.open_table(store, table)
    run_id = f"compact-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:6]}"
    lineage = Lineage("tables", run_id, "compact", "", {}, {table.name: opened.version()}, w2w.__version__)
    twice = 0

    def written(now: DeltaTable) -> tuple[list[dict], list[RemoveAction]]:
        nonlocal twice
        listed = delta.parts(now)
        repeated = doubles.find(store, table, listed)
        twice = int(repeated.sum())
        ends = np.cumsum([p.rows for p in listed])
        receipts, removed = [], []
        for part, mask in zip(listed, np.split(repeated, ends[:-1]) if listed else []):
            if not dry_run and mask.any():
                rows = pa.concat_tables(delta.read_batches(store, table, table.schema.names, [part]))
                receipts += write_part(store, Output(table), rows.filter(pa.array(~mask)), run_id)
                partition = {name: value for name, value in part.partition}
                removed.append(RemoveAction(part.in_log, True, int(time.time() * 1000), part.size, partition))
        return receipts, removed

    receipts, removed = written(opened)
    if removed:
        commit_parts(store, table, opened, receipts, lineage, Counts(), lambda before, now, left: written(now), removed=removed)
    return twice


def vacuum(opened: DeltaTable, hours: float, dry_run: bool) -> str:
    """Deletes files older than ``hours`` that the table's current version does not name."""
    try:
        deleted = opened.vacuum(retention_hours=int(hours), dry_run=dry_run, enforce_retention_duration=False, full=True)
    except (DeltaError, OSError) as e:
        raise StorageFailed(f"cannot vacuum {opened.table_uri}: {str(e).splitlines()[0]}") from e
    return f"{len(deleted)} files {'would be' if dry_run else 'were'} deleted"
