"""Delta tables of a store: open, create, list their Parquet parts, read columns, history.

Data is read with pyarrow's native filesystems from the parts that the Delta log names: one footer per part and one range per
column chunk, nothing else.
"""

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote
from weakref import WeakSet

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import DeltaError, TableNotFoundError
from pyarrow import fs

from w2w import schema, storage
from w2w.errors import StorageFailed, UsageError
from w2w.memory import give_back_memory

# A commit on S3 is a conditional PUT: two writers can never both create the same log entry.
_S3_OPTIONS = {
    "conditional_put": "etag",
    "allow_http": "true",
    "max_retries": "14",  # as in w2w.clouds: about two minutes
    "retry_timeout": "300s",
    "backoff_config.init_backoff": "500ms",
    "backoff_config.max_backoff": "20s",
}
_CUT, _CUT_TRIES, _CUT_PAUSE_S = "body error", 5, 0.5  # of an answer that ended too early
_ARROWS = re.compile(r"\x1b\[\d+m|↳")  # before each cause of an error
OPERATION = "w2w_operation"  # of a commit, where it is none of those that Delta Lake names
RUN = "w2w_run"  # of a commit without lineage
_MISREAD = re.compile(r"%[0-9A-Fa-f]{2}|[?#\\\x00-\x1f\x7f\ud800-\udfff]")
_READ_BYTES = 1 << 20
_LOG_ENTRY = re.compile(r"\d{20}\.json")
_KEPT_ROWS = 100_000  # rows read before free memory is returned to the system
_NEARLY_ALL = 0.9  # of the rows that an earlier version has


@dataclass(frozen=True, slots=True)
class Part:
    """One Parquet file of a table: ``path`` is relative to the table, ``in_log`` as written in the log; ``rows`` comes from the
    log, as does ``newest``, the greatest fetched_at of a table with a history (microseconds), if recorded."""

    path: str
    rows: int
    size: int
    partition: tuple[tuple[str, str], ...] = ()
    in_log: str = ""
    newest: int | None = None


class FirstSeen(dict[str, int]):
    """Table URI -> the version at which this process first opened it, -1 if it did not exist: commits by others since then have
    not been taken into account."""

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __init__(self, *items: Any):
        super().__init__(*items)
        _watching.add(self)


_watching: WeakSet[FirstSeen] = WeakSet()


def uri(store: str, table: schema.Table) -> str:
    """URI of a table. Raises UsageError for a store whose name delta-rs would misread."""
    if _MISREAD.search(store):
        raise UsageError(
            f"--store={store!r}: Delta Lake misreads a name with a backslash, '?', '#', a control character, or % and two hex "
            f"digits: choose another name"
        )
    return storage.join(store, table.name)


def own_tables(store: str) -> dict[str, schema.Table]:
    """Tables of the store that w2w does not know (of stages written by others), by name, with their columns. The first column
    is taken as the key, which a Delta table does not record."""
    found = {}
    for name in storage.list_folders(store):
        if name not in schema.TABLES and not name.startswith((".", "_")):
            where = storage.join(store, name)
            if asked(where, partial(DeltaTable.is_deltatable, where, options(store))):
                opened = asked(where, partial(DeltaTable, where, storage_options=options(store)))
                columns = pa.schema(pa.schema(opened.schema().to_arrow()))
                by = tuple(opened.metadata().partition_columns)
                found[name] = schema.Table(name, columns, key=(columns.names[0],), partition_by=by)
    return found


def asked(where: str, ask: Callable[[], Any]) -> Any:
    """What deltalake answers of a table, asked again where S3 hung up in the middle of an answer: its own retries end where
    that begins. Raises StorageFailed if it cannot be read, TableNotFoundError if there is none."""
    for tried in range(_CUT_TRIES):
        try:
            return ask()
        except TableNotFoundError:
            raise
        except (DeltaError, OSError) as e:
            if _CUT not in str(e) or tried == _CUT_TRIES - 1:
                raise StorageFailed(f"cannot read table {where!r}: {reason(e)}") from e
        time.sleep(_CUT_PAUSE_S * 2**tried * random.uniform(0.5, 1))
    raise AssertionError("the last try returns or raises")


def reason(error: DeltaError | OSError) -> str:
    """What deltalake says went wrong, and the deepest cause that it names, in one line."""
    lines = [line for part in str(error).splitlines() if (line := _ARROWS.sub("", part).strip())]
    return ": ".join(dict.fromkeys([*lines[:1], *lines[-1:]])) or type(error).__name__


def options(store: str) -> dict[str, str]:
    return dict(_S3_OPTIONS) if storage.is_s3(store) else {}


def open_table(store: str, table: schema.Table, version: int | None = None) -> DeltaTable | None:
    """The table at its newest version or at ``version``; None if it was never created.

    Nullable columns may be missing, as in tables of an older w2w, and read as null. Raises UsageError if the columns differ
    from ``w2w.schema`` in any other way, StorageFailed if the table cannot be read.
    """
    where = uri(store, table)
    try:
        opened = asked(where, partial(DeltaTable, where, version=version, storage_options=options(store)))
    except TableNotFoundError:
        opened = None
    if version is None:
        for seen in list(_watching):
            seen.setdefault(where, -1 if opened is None else opened.version())
    if opened is not None:
        _check_log(where)
        _check_columns(pa.schema(opened.schema().to_arrow()), table, store)
    return opened


def existing(store: str, table: schema.Table, version: int | None = None) -> DeltaTable:
    """As ``open_table``, of a table that is there. Raises StorageFailed if it is gone."""
    opened = open_table(store, table, version)
    if opened is None:
        raise StorageFailed(f"table {uri(store, table)!r} is gone")
    return opened


def open_for_commit(store: str, table: schema.Table, seen: Mapping[str, int]) -> DeltaTable:
    """The table, created if missing, at the version in ``seen`` (``FirstSeen``), so that a commit detects what others have
    committed since."""
    opened = create_table(store, table)
    since = max(0, seen.get(uri(store, table), opened.version()))
    return opened if since >= opened.version() else existing(store, table, since)


def create_table(store: str, table: schema.Table) -> DeltaTable:
    """Opens the table for writing, creating an empty one if missing and adding newer columns."""
    opened = open_table(store, table)
    if opened is not None:
        if later := [f for f in table.schema if f.name not in pa.schema(opened.schema().to_arrow()).names]:
            before = opened.version()
            opened.alter.add_columns(DeltaSchema.from_arrow(pa.schema(later)).fields)
            opened = existing(store, table)
            for seen in list(_watching):  # the rows did not change
                if seen.get(uri(store, table)) == before:
                    seen[uri(store, table)] = before + 1
        return opened
    where = uri(store, table)
    create = partial(
        DeltaTable.create,
        where,
        table.schema,
        mode="ignore",
        partition_by=list(table.partition_by),
        storage_options=options(store),
        # statistics only for columns that readers may filter on: those of bytes and vectors would bloat the log
        configuration={"delta.dataSkippingStatsColumns": ",".join(table.key)},
    )
    asked(where, create)
    return existing(store, table)


def parts(opened: DeltaTable | None, **partition: str) -> list[Part]:
    """The table's parts, or those of the given partition, in path order."""
    if opened is None:
        return []
    actions = pa.table(opened.get_add_actions(flatten=True))
    names = [c for c in actions.column_names if c.startswith("partition.")]
    values = [_as_text(actions.column(name)) for name in names]
    keys = [name[len("partition.") :] for name in names]
    there = np.ones(len(actions), bool)
    for key, wanted in partition.items():  # before a part becomes an object: a table has many partitions
        there &= pc.equal(values[keys.index(key)], wanted).to_numpy() if key in keys else False
    newest = f"max.{schema.FETCHED_AT}"
    stamps = actions.column(newest).cast(pa.int64()) if newest in actions.column_names else pa.nulls(len(actions))
    columns = [*(actions.column(name) for name in ("path", "num_records", "size_bytes")), stamps, *values]
    found, same = [], dict[tuple[str, ...], tuple[tuple[str, str], ...]]()  # parts of a partition share what names it
    for path, rows, size, stamp, *of in zip(*(column.filter(pa.array(there)).to_pylist() for column in columns)):
        found.append(Part(unquote(path), rows, size, same.setdefault(tuple(of), tuple(zip(keys, of))), path, stamp))
    return sorted(found, key=lambda p: p.path)


def _as_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """As Python writes them."""
    return pa.chunked_array([pa.array(map(str, chunk.to_pylist()), pa.string()) for chunk in values.chunks], pa.string())


def in_chunks(listed: Sequence[Part], rows: int) -> list[list[Part]]:
    """Groups the parts, in order; a group is closed once it has at least ``rows`` rows."""
    chunks: list[list[Part]] = []
    num = rows
    for part in listed:
        if num >= rows:
            chunks.append([])
            num = 0
        chunks[-1].append(part)
        num += part.rows
    return chunks


def read_batches(
    store: str, table: schema.Table, columns: Sequence[str], listed: Sequence[Part], batch_rows: int = 65_536
) -> Iterator[pa.Table]:
    """Columns of the parts, in order, at most ``batch_rows`` rows at a time. Memory of dropped batches is released."""
    system, root = storage.filesystem(uri(store, table))
    stored = [c for c in columns if c not in table.partition_by]
    # S3: a row group's columns in few large requests; local disk: page by page
    far, since = storage.is_s3(store), sum(part.rows for part in listed)
    for part in listed:
        with open_part(system, f"{root}/{part.path}", pre_buffer=far, buffer_size=0 if far else _READ_BYTES) as file:
            # one thread, since a task has one core and Arrow's pool keeps the memory of every thread
            for batch in whole(file.iter_batches(batch_rows, columns=stored, use_threads=False), f"{root}/{part.path}"):
                if since >= _KEPT_ROWS:
                    give_back_memory()
                    since = 0
                since += batch.num_rows
                yield with_partition(pa.Table.from_batches([batch]), table, part, columns)


def read_leaves(store: str, table: schema.Table, leaves: Sequence[str], part: Part, batch_rows: int) -> Iterator[pa.Table]:
    """Columns of a part, or of their structs the named leaves alone (``list.list.element.field``), as they are stored."""
    system, root = storage.filesystem(uri(store, table))
    path = f"{root}/{part.path}"
    with open_part(system, path, pre_buffer=storage.is_s3(store)) as file:
        for batch in whole(file.iter_batches(batch_rows, columns=list(leaves), use_threads=False), path):
            yield pa.Table.from_batches([batch])


@contextmanager
def open_part(system: fs.FileSystem, path: str, **options: Any) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file. Raises StorageFailed naming it if it is damaged or missing."""
    with _damage_named(path):
        file = pq.ParquetFile(path, filesystem=system, page_checksum_verification=True, **options)
    with file:
        yield file


def whole(batches: Iterable, path: str) -> Iterator:
    """The batches of a Parquet file; a damaged page raises StorageFailed as in ``open_part``."""
    with _damage_named(path):
        yield from batches


@contextmanager
def _damage_named(path: str) -> Iterator[None]:
    try:
        with storage.named("read", path):
            yield
    except pa.ArrowException as e:
        raise StorageFailed(f"{path} is damaged: {str(e).splitlines()[0]}") from e


def newest_stamp(store: str, table: schema.Table, listed: Sequence[Part]) -> int:
    """The greatest fetched_at of these parts of a table with a history, up to a millisecond too high; -1 if there is none."""
    unknown = [p for p in listed if p.newest is None]
    stamps = [p.newest + 1000 for p in listed if p.newest is not None]  # the log may truncate it to milliseconds
    for batch in read_batches(store, table, [schema.FETCHED_AT], unknown):
        stamps.append(pc.max(batch.column(0)).cast(pa.int64()).as_py())
    return max([-1, *stamps])


def read(store: str, table: schema.Table, columns: Sequence[str], version: int | None = None, **partition: str) -> pa.Table:
    """Columns of the whole table (or of one partition) in memory: for tables known to be small, and for tests."""
    listed = parts(open_table(store, table, version), **partition)
    batches = list(read_batches(store, table, columns, listed))
    return pa.concat_tables([table.empty(columns), *batches])


def with_partition(rows: pa.Table, table: schema.Table, part: Part, columns: Sequence[str]) -> pa.Table:
    """Adds the partition columns, which are in the log and not in the file, and columns newer than the file as nulls; casts to
    the declared types."""
    fields = [table.schema.field(c) for c in columns]
    values = {f.name: None for f in fields if f.nullable and f.name not in rows.column_names} | dict(part.partition)
    arrays = [
        pa.repeat(pa.scalar(values[f.name], f.type), rows.num_rows) if f.name in values else rows.column(f.name).cast(f.type)
        for f in fields
    ]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def count_rows(opened: DeltaTable | None, **partition: str) -> int:
    return sum(p.rows for p in parts(opened, **partition))


def history(opened: DeltaTable, limit: int | None = None) -> list[dict]:
    """Newest commit first: version, timestamp (ms), operation (ERASE for those of ``w2w.table.purge``), ``w2w``, the lineage
    that the job wrote, or None, and ``run``: the run id of one without lineage, or None."""
    entries = []
    for entry in asked(opened.table_uri, partial(opened.history, limit)):
        lineage = entry.get("w2w")
        told = {k: entry.get(k) for k in ("version", "timestamp")} | {"w2w": json.loads(lineage) if lineage else None}
        told["run"] = entry.get(RUN)
        entries.append(told | {"operation": entry.get(OPERATION) or entry.get("operation")})
    return entries


def _check_log(where: str) -> None:
    """Raises StorageFailed for an empty log entry, such as a power failure leaves on disk: it would read as an empty commit,
    and its rows would be lost unnoticed. A temporary file of another process is not an entry."""
    if storage.is_s3(where):
        return  # objects are written whole or not at all
    listed = storage.list_files(storage.join(where, "_delta_log"), recursive=False)
    empty = [f.path for f in listed if f.size == 0 and _LOG_ENTRY.fullmatch(f.base_name)]
    if empty:
        raise StorageFailed(
            f"cannot read table {where!r}: its log entry {empty[0]} is empty. Restore it, or recreate the table."
        )


def _check_columns(found: pa.Schema, table: schema.Table, store: str) -> None:
    for field in table.schema:
        if field.name not in found.names:
            if field.nullable:
                continue
            raise UsageError(
                f"table {uri(store, table)!r} has no column {field.name!r}: it was not written by this version of w2w. "
                f"Use another --store, or move that table away."
            )
        kind = found.field(field.name).type
        if not _same_type(kind, field.type):
            raise UsageError(
                f"table {uri(store, table)!r}: column {field.name!r} is {kind}, and w2w needs {field.type}. "
                f"Use another --store, or move that table away."
            )


def _same_type(a: pa.DataType, b: pa.DataType) -> bool:
    if pa.types.is_list(a) and pa.types.is_list(b):
        return a.value_type == b.value_type
    if pa.types.is_map(a) and pa.types.is_map(b):
        return a.key_type == b.key_type and a.item_type == b.item_type
    return a == b


def newest_version(store: str, table: schema.Table) -> str | None:
    """The stage version last written to the table, or None."""
    opened = open_table(store, table)
    entries = history(opened) if opened is not None else []
    return next((e["w2w"]["stage_version"] for e in entries if e["w2w"] and e["w2w"].get("rows")), None)


def finished_version(store: str, table: schema.Table, stage: str) -> str | None:
    """Of the versions that a stage wrote, which is to be read, or None: the one last written, unless it is only begun, by a run
    that was killed or had a limit, while a run has finished another (``w2w.table.marks``); then the last of those.

    For a stage that always takes all rows of its input: a run over some of them, as of posts alone, leaves no mark.
    """
    opened = open_table(store, table)
    entries = history(opened) if opened is not None else []
    told = [e["w2w"] for e in entries if e["w2w"] and e["w2w"].get("stage") == stage]
    rows = Counter[str]()
    for t in told:
        rows[t["stage_version"]] += t.get("rows") or 0
    finished = [t["stage_version"] for t in told if t.get("mark")]  # also by a run that had nothing left to do: no rows then
    written = [version for version, num in rows.items() if num or version in finished]
    if not finished:
        return next(iter(written), None)
    standing = finished[0]
    if entries[-1]["version"]:  # the log has been cleaned: how many rows it had is not known
        return standing
    least = _NEARLY_ALL * rows[standing]  # no run that ends beside another, or just after it, is told to have finished
    return next(version for version in written if version == standing or rows[version] >= least)


def need_table(store: str, table: schema.Table, made_by: str) -> DeltaTable:
    """Opens the table. Raises UsageError naming the job that writes it if it is missing."""
    opened = open_table(store, table)
    if opened is None:
        raise UsageError(f"there is no table {uri(store, table)!r}: run 'w2w {made_by}' first, or check --store")
    return opened
