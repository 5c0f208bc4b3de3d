"""Table maintenance: remove duplicate rows, merge small parts, delete unreferenced files."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from deltalake import CommitProperties, Transaction, WriterProperties
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction

from w2w import schema
from w2w.errors import JobFailed, StorageFailed
from w2w.table import delta, doubles
from w2w.table.parts import Output, write_part
from w2w.table.sink import FENCE, to_action

_TARGET_BYTES = 256 << 20
_TRIES = 5
_OUTDATED = {schema.WARNINGS.name: doubles.outdated_warnings, schema.REJECTS.name: doubles.repeated_rejects}


@dataclass(frozen=True)
class Compacted:
    """What was done, or would be in a dry run: duplicate rows removed, and the number of parts before and after."""

    rows_twice: int
    parts_before: int
    parts_after: int | None = None
    rows_outdated: int = 0
    """Removed: of `warnings`, as their product has another row now, or is withdrawn; of `rejects`, as older than 30 days and
    rejected again since."""


def compact(store: str, table: schema.Table, dry_run: bool = False, run_id: str = "") -> Compacted:
    """Removes duplicate rows, warnings that hold no more and rejects that came again, and merges parts under 256 MB. All other
    rows keep their values; concurrent appends are not disturbed. ``run_id``: of the job that does it, for the log."""
    opened, run_id = delta.open_table(store, table), run_id or _run_id("compact")
    before = len(delta.parts(opened))
    twice, outdated = mend(store, table, dry_run, run_id), 0
    if table.name in _OUTDATED:
        outdated = take_out(store, table, partial(_OUTDATED[table.name], store), dry_run, run_id)
    if dry_run:
        return Compacted(twice, before, rows_outdated=outdated)
    opened = delta.existing(store, table)
    # encoded images do not compress
    properties = WriterProperties(compression="UNCOMPRESSED" if schema.BYTES in table.schema.names else "ZSTD")
    try:
        opened.optimize.compact(target_size=_TARGET_BYTES, writer_properties=properties, commit_properties=_by(run_id))
    except CommitFailedError as e:
        raise JobFailed(f"another run wrote to table {table.name!r} at the same time: run this again") from e
    except (DeltaError, OSError) as e:
        raise StorageFailed(f"cannot compact table {delta.uri(store, table)!r}: {delta.reason(e)}") from e
    return Compacted(twice, before, len(delta.parts(delta.open_table(store, table))), outdated)


def mend(store: str, table: schema.Table, dry_run: bool = False, run_id: str = "") -> int:
    """Removes duplicate rows; returns their number. Not from `rejects`: a retried row may be rejected again."""
    if table is schema.REJECTS:
        return 0
    return take_out(store, table, lambda listed: doubles.find(store, table, listed), dry_run, run_id)


def take_out(
    store: str,
    table: schema.Table,
    find: Callable[[Sequence[delta.Part]], np.ndarray],
    dry_run: bool = False,
    run_id: str = "",
) -> int:
    """Removes rows in one commit without lineage; returns their number. ``find`` returns a bool for each row of the parts."""
    return rewrite(store, table, find, lambda rows, mask: rows.filter(pa.array(~mask)), "compact", dry_run, run_id)


def rewrite(
    store: str,
    table: schema.Table,
    find: Callable[[Sequence[delta.Part]], np.ndarray],
    change: Callable[[pa.Table, np.ndarray], pa.Table],
    job: str,
    dry_run: bool = False,
    run_id: str = "",
) -> int:
    """Replaces the parts that have rows of ``find`` by what ``change`` makes of them (rows, and which of them were found), in
    one commit without lineage; returns the number of rows found."""
    run_id = run_id or _run_id(job)
    for _ in range(_TRIES):
        opened = delta.open_table(store, table)
        listed = delta.parts(opened)
        wanted = find(listed)
        if opened is None or dry_run or not wanted.any():
            return int(wanted.sum())
        actions: list[AddAction | RemoveAction] = []
        for part, mask in zip(listed, np.split(wanted, np.cumsum([p.rows for p in listed])[:-1])):
            if mask.any():
                rows = pa.concat_tables(delta.read_batches(store, table, table.schema.names, [part]))
                actions += map(to_action, write_part(store, Output(table), change(rows, mask), run_id))
                actions.append(RemoveAction(part.in_log, True, int(time.time() * 1000), part.size, dict(part.partition)))
        fence = _by(run_id, Transaction(FENCE, time.time_ns()))
        try:
            opened.create_write_transaction(
                actions, "append", opened.schema(), partition_by=list(table.partition_by), commit_properties=fence
            )
            return int(wanted.sum())
        except CommitFailedError:
            continue  # another run committed meanwhile: look again
        except (DeltaError, OSError) as e:
            raise StorageFailed(f"cannot write to table {delta.uri(store, table)!r}: {delta.reason(e)}") from e
    raise JobFailed(f"other runs keep writing to table {table.name!r}: run this again when they have ended")


def _run_id(job: str) -> str:
    return f"{job}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:6]}"


def _by(run_id: str, *transactions: Transaction) -> CommitProperties:
    """Of a commit without lineage, which tells nothing of what its rows were made of: whose it is."""
    return CommitProperties(custom_metadata={delta.RUN: run_id}, app_transactions=list(transactions) or None)


def vacuum(store: str, table: schema.Table, hours: float, dry_run: bool, run_id: str = "") -> int:
    """Deletes files older than ``hours`` that the table's newest version does not reference; returns their number. ``run_id``:
    as in ``compact``."""
    opened = delta.existing(store, table)  # an older snapshot would take files that were written since for ones nothing needs
    try:
        deleted = opened.vacuum(
            retention_hours=int(hours),
            dry_run=dry_run,
            enforce_retention_duration=False,
            full=True,
            commit_properties=_by(run_id or _run_id("vacuum")),
        )
    except (DeltaError, OSError) as e:
        raise StorageFailed(f"cannot vacuum {opened.table_uri}: {delta.reason(e)}") from e
    return len(deleted)
