"""Taking rows out of a table for good: out of its rows, the files of its older versions, and its log.

Delta Lake keeps replaced files until they are vacuumed, and its log keeps, of every file there ever was, the least and the
greatest value of key columns (protocol, "Per-file Statistics"). ``rewrite`` makes the newest version free of rows; ``forget``
deletes the old files that still have them, and takes such statistics out of the log, whose entries else stay what they are.
"""

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import unquote

import pyarrow as pa
from deltalake import CommitProperties, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction

from w2w import schema, storage
from w2w.errors import JobFailed, StorageFailed
from w2w.table import delta, lease
from w2w.table.parts import Output, write_part
from w2w.table.sink import FENCE, to_action

_TRIES = 5
_LOG, _CHECKPOINT = re.compile(r"(\d{20})\.json"), re.compile(r"(\d{20})\.checkpoint.*\.parquet")

Change = Callable[[pa.Table], pa.Table | None]  # rows -> what stays of them; None: all, as they are


def rewrite(store: str, table: schema.Table, columns: Sequence[str], change: Change) -> int:
    """Rewrites the parts of which ``change`` changes anything, in one commit; returns how many. It is asked with ``columns``
    of a part, a batch at a time, and where it changes any with the whole part. Raises JobFailed if others keep writing."""

    def actions(run_id: str, listed: Sequence[delta.Part]) -> Iterator[AddAction | RemoveAction]:
        for part in listed:
            if any(change(rows) is not None for rows in delta.read_batches(store, table, columns, [part])):
                rows = pa.concat_tables(delta.read_batches(store, table, table.schema.names, [part]))
                now = change(rows)
                yield from map(to_action, write_part(store, Output(table), rows if now is None else now, run_id))
                yield _remove(part)

    return _commit(store, table, actions)


def replace_partition(store: str, table: schema.Table, within: dict[str, str], rows: pa.Table) -> int:
    """Makes these the rows of a partition; returns how many parts it had."""

    def actions(run_id: str, listed: Sequence[delta.Part]) -> Iterator[AddAction | RemoveAction]:
        yield from map(to_action, write_part(store, Output(table), rows, run_id))
        yield from (_remove(part) for part in listed if dict(part.partition).items() >= within.items())

    return _commit(store, table, actions)


def _remove(part: delta.Part) -> RemoveAction:
    return RemoveAction(part.in_log, True, int(time.time() * 1000), part.size, dict(part.partition))


def _commit(store: str, table: schema.Table, actions: Callable[[str, Sequence[delta.Part]], Iterator]) -> int:
    run_id = f"erase-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:6]}"
    for _ in range(_TRIES):
        opened = delta.open_table(store, table)
        wanted = list(actions(run_id, delta.parts(opened)))
        if opened is None or not wanted:
            return 0
        lease.check(store)
        fence = CommitProperties({delta.OPERATION: "ERASE"}, app_transactions=[Transaction(FENCE, time.time_ns())])
        try:
            opened.create_write_transaction(
                wanted, "append", opened.schema(), partition_by=list(table.partition_by), commit_properties=fence
            )
            return sum(isinstance(one, RemoveAction) for one in wanted)
        except CommitFailedError:
            continue  # another run committed meanwhile: look again
        except (DeltaError, OSError) as e:
            raise StorageFailed(f"cannot write to table {delta.uri(store, table)!r}: {delta.reason(e)}") from e
    raise JobFailed(f"other runs keep writing to table {table.name!r}: run this again when they have ended")


def old_files(store: str, table: schema.Table) -> list[str]:
    """URIs of the Parquet files that the newest version of a table does not have: of older versions, and of killed runs."""
    opened = delta.open_table(store, table)
    if opened is None:
        return []
    where = delta.uri(store, table)
    root, live = storage.filesystem(where)[1], {part.path for part in delta.parts(opened)}
    names = (f.path.removeprefix(root).strip("/") for f in storage.list_files(where))
    parquet = (n for n in names if n.endswith(".parquet") and not n.startswith("_delta_log/"))
    return [storage.join(where, name) for name in parquet if name not in live]


def forget(store: str, table: schema.Table, clean: Callable[[str], str]) -> int:
    """Takes out of the log what it says of the values in files that are gone, and renews the checkpoint; ``clean`` gives each
    other line as it may stay. Returns how many entries were rewritten."""
    opened = delta.open_table(store, table)
    if opened is None:
        return 0
    where = delta.uri(store, table)
    root = storage.filesystem(where)[1]
    there = {f.path.removeprefix(root).strip("/") for f in storage.list_files(where)}
    log = storage.join(where, "_delta_log")
    changed, files = 0, storage.list_files(log, recursive=False)
    for info in files:
        if _LOG.fullmatch(info.base_name):
            uri = storage.join(log, info.base_name)
            text = storage.read_bytes(uri).decode()
            now = "\n".join(_line(line, there, clean) for line in text.split("\n"))
            if now != text:
                storage.write_bytes(uri, now.encode())
                changed += 1
    if any(_CHECKPOINT.fullmatch(info.base_name) for info in files):
        opened = delta.existing(store, table)
        opened.create_checkpoint()
        newest = f"{opened.version():020d}.checkpoint"
        for info in files:
            if _CHECKPOINT.fullmatch(info.base_name) and not info.base_name.startswith(newest):
                storage.delete(storage.join(log, info.base_name))
    return changed


def _line(line: str, there: set[str], clean: Callable[[str], str]) -> str:
    if not line.strip():
        return line
    entry = json.loads(line)
    for name in ("add", "remove"):
        said = entry.get(name)
        if said and said.get("stats") and unquote(said["path"]) not in there:
            records = json.loads(said["stats"]).get("numRecords")
            plain = json.dumps({} if records is None else {"numRecords": records})
            if said["stats"] != plain:
                said["stats"] = plain
                line = json.dumps(entry, separators=(",", ":"))
    return clean(line)
