"""Which rows of a table are still pending, and where they are stored: the heart of resume and of the nightly job.

A row is pending if its key is neither in the output (for this stage version) nor in the rejects. The answer is one bit per
source row, and the work is a list of row groups, so the wide columns (image bytes) of finished rows are never read.

Memory: keys are hashed into buckets on local disk, enough of them for about 200,000 keys of each side per bucket: at 64
characters plus 8 bytes of row number and Arrow offsets, 200,000 x 2 x 80 B = 32 MB, and the same again for the hash set while
one bucket is joined. At most 256 buckets, since their files are open together: beyond 50M keys they grow, to 130 MB at 100M.
The mask costs 1 byte per source row (100 MB). Disk: 100M x 2 x 80 B = 16 GB of temporary files. The join compares the keys
themselves; a hash only chooses the bucket, so a collision cannot lose a row.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from w2w import ids, schema, storage
from w2w.errors import TRANSIENT
from w2w.table import delta

BUCKET_KEYS = 200_000
_MOST_BUCKETS = 256

# One item of work: rows of one row group of one Parquet file; null rows mean all.
ITEM_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("row_group", pa.int32(), nullable=False),
        pa.field("rows", pa.list_(pa.int32())),
        pa.field("num_rows", pa.int32(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Stored:
    """Where keys come from; ``read`` gives those of some parts; ``stage_version``: of rejects."""

    table: schema.Table
    partition: Mapping[str, str]
    read: Callable[[Sequence[delta.Part]], Iterable[pa.ChunkedArray]]
    stage_version: str = ""

    def keys(self, listed: Sequence[delta.Part], rejected: bool = False) -> "Keys":
        """Those of some of the table's parts."""
        return Keys(self.read(listed), sum(p.rows for p in listed), rejected, self)


@dataclass(frozen=True)
class Keys:
    """A stream of keys, and their number (from the table's log, before any is read)."""

    batches: Iterable[pa.ChunkedArray]
    count: int
    rejected: bool = False  # done, but rejected
    stored: Stored | None = None

    def read(self) -> pa.ChunkedArray:
        """All keys, in memory."""
        return pa.chunked_array([c for b in self.batches for c in b.chunks], pa.string())


def table_keys(store: str, table: schema.Table, column: str, **partition: str) -> Keys:
    """The column's values in the table's newest version."""

    def read(listed: Sequence[delta.Part]) -> Iterator[pa.ChunkedArray]:
        return (b.column(column) for b in delta.read_batches(store, table, [column], listed))

    listed = delta.parts(delta.open_table(store, table), **partition)
    return Stored(table, partition, read).keys(listed)


def rejected_keys(store: str, stage: str, stage_version: str) -> Keys:
    """Keys that this stage version rejected permanently: the same bytes would be rejected again."""
    columns = [schema.KEY, schema.STAGE_VERSION, schema.REJECT_CODE]
    transient = pa.array([code.value for code in TRANSIENT])

    def read(listed: Sequence[delta.Part]) -> Iterator[pa.ChunkedArray]:
        for batch in delta.read_batches(store, schema.REJECTS, columns, listed):
            final = pc.invert(pc.is_in(batch.column(schema.REJECT_CODE), value_set=transient))
            same = pc.equal(batch.column(schema.STAGE_VERSION), stage_version)
            yield batch.filter(pc.and_(final, same)).column(schema.KEY)

    partition = {schema.STAGE: stage}
    listed = delta.parts(delta.open_table(store, schema.REJECTS), **partition)
    return Stored(schema.REJECTS, partition, read, stage_version).keys(listed, rejected=True)


def pending_mask(source: Keys, done: Sequence[Keys], bucket_keys: int = BUCKET_KEYS) -> np.ndarray:
    """bool, shape (source.count,): True where the source row's key is in none of ``done``."""
    num_done = sum(d.count for d in done)
    if num_done == 0:
        return np.ones(source.count, bool)
    num_buckets = min(_MOST_BUCKETS, max(1, -(-max(source.count, num_done) // bucket_keys)))
    mask = np.ones(source.count, bool)
    with tempfile.TemporaryDirectory(prefix="w2w-keys-") as folder:
        spilled_done = _Spill(Path(folder, "done"), num_buckets)
        for keys in done:
            for batch in keys.batches:
                spilled_done.add(batch, 0)
        spilled_source = _Spill(Path(folder, "source"), num_buckets)
        offset = 0
        for batch in source.batches:
            spilled_source.add(batch, offset)
            offset += len(batch)
        assert offset == source.count, f"the log promised {source.count} source rows, {offset} were read"
        for bucket in range(num_buckets):
            finished = spilled_done.read(bucket)
            rows = spilled_source.read(bucket)
            hit = pc.is_in(rows.column("key"), value_set=finished.column("key"))
            mask[rows.column("row").filter(hit).to_numpy()] = False
    return mask


class _Spill:
    """Keys with their row numbers, split by hash: in memory for a single bucket, otherwise one Arrow file per bucket."""

    _SCHEMA = pa.schema([("key", pa.string()), ("row", pa.int64())])

    def __init__(self, folder: Path, num_buckets: int):
        self._num_buckets = num_buckets
        self._memory: list[pa.Table] = []
        self._files: list[tuple[Path, pa.OSFile, pa.RecordBatchStreamWriter]] = []
        if num_buckets > 1:
            folder.mkdir()
            for b in range(num_buckets):
                sink = pa.OSFile(str(folder / f"{b}.arrow"), "wb")
                self._files.append((folder / f"{b}.arrow", sink, pa.ipc.new_stream(sink, self._SCHEMA)))

    def add(self, keys: pa.ChunkedArray, offset: int) -> None:
        rows = pa.table([keys.cast(pa.string()), pa.array(np.arange(offset, offset + len(keys)))], schema=self._SCHEMA)
        if self._num_buckets == 1:
            self._memory.append(rows)
            return
        buckets = ids.hash_bucket(keys, self._num_buckets)
        order = np.argsort(buckets, kind="stable")
        bounds = np.searchsorted(buckets[order], np.arange(self._num_buckets + 1))
        rows = rows.take(pa.array(order))
        for b, (_, _, writer) in enumerate(self._files):
            writer.write_table(rows.slice(bounds[b], bounds[b + 1] - bounds[b]))

    def read(self, bucket: int) -> pa.Table:
        if self._num_buckets == 1:
            return pa.concat_tables([self._SCHEMA.empty_table(), *self._memory])
        path, sink, writer = self._files[bucket]
        if not sink.closed:
            writer.close()
            sink.close()
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_stream(source).read_all()


def table_items(
    store: str, table: schema.Table, listed: Sequence[delta.Part], mask: np.ndarray, max_rows: int
) -> Iterator[pa.Table]:
    """Items of work for the True rows of ``mask`` (over ``listed`` in order), at most ``max_rows`` rows each.

    Parts with no pending row are not opened. Paths are relative to the table.
    """
    system, root = storage.filesystem(delta.uri(store, table))
    start = 0
    for part in listed:
        wanted = mask[start : start + part.rows]
        start += part.rows
        if wanted.any():
            yield from file_items(system, f"{root}/{part.path}", part.path, wanted, max_rows)


def lookup(store: str, table: schema.Table, keys: pa.Array, columns: Sequence[str], **partition: Any) -> pa.Table:
    """The rows with these keys (first key column), in any order."""
    return pa.concat_tables([table.empty(columns), *lookup_batches(store, table, keys, columns, **partition)])


def values_by_key(store: str, table: schema.Table, keys: Iterable[str | None], column: str) -> dict[str, Any]:
    """Of these keys, without nulls, those that the table has, each with its value in one column, as pictures and crops."""
    wanted = pa.array(sorted({key for key in keys if key}), pa.string())
    if not len(wanted):
        return {}
    found = lookup(store, table, wanted, [table.key[0], column])
    return dict(zip(*(values.to_pylist() for values in found.columns)))


def lookup_batches(
    store: str,
    table: schema.Table,
    keys: pa.Array,
    columns: Sequence[str],
    version: int | None = None,
    batch_rows: int = 1024,
    **partition: str,
) -> Iterator[pa.Table]:
    """``lookup`` in batches. Reads all keys, and the other columns only of row groups that contain one of these."""
    keys = keys.cast(pa.string())  # of none at all Arrow knows no type
    listed = delta.parts(delta.open_table(store, table, version), **partition)
    batches = delta.read_batches(store, table, [table.key[0]], listed)
    found = [pc.is_in(b.column(0), value_set=keys).to_numpy() for b in batches]
    mask = np.concatenate([np.empty(0, bool), *found])
    system, root = storage.filesystem(delta.uri(store, table))
    kinds = table.fields(columns)
    for item in table_items(store, table, listed, mask, len(mask) or 1):
        for batch in read_item(system, root, item.to_pylist()[0], columns, batch_rows):
            there = {name: batch.column(name) for name in batch.column_names}  # columns newer than the file read as null
            arrays = [there.get(f.name, pa.nulls(batch.num_rows, f.type)) for f in kinds]
            yield pa.table(arrays, names=kinds.names).cast(kinds)


def holding(
    store: str, table: schema.Table, keys: pa.Array, version: int | None = None, **partition: str
) -> tuple[pa.ChunkedArray, list[str]]:
    """Which of the keys (first key column) the table has, and the parts that hold them. Parts are immutable, so a part's name
    identifies everything read from it."""
    found, names = [], []
    for part in delta.parts(delta.open_table(store, table, version), **partition):
        batches = (b.column(0) for b in delta.read_batches(store, table, [table.key[0]], [part]))
        here = [c for b in batches for c in b.filter(pc.is_in(b, value_set=keys)).chunks if len(c)]
        found += here
        names += [part.path] if here else []
    return pa.chunked_array(found, pa.string()), names


def file_items(system: fs.FileSystem, path: str, name: str, wanted: np.ndarray | None, max_rows: int) -> Iterator[pa.Table]:
    """Items of work for one Parquet file, referred to as ``name``; ``wanted`` None means every row."""
    with delta.open_part(system, path) as file:
        metadata = file.metadata
    start = 0
    for group in range(metadata.num_row_groups):
        size = metadata.row_group(group).num_rows
        rows = np.arange(size) if wanted is None else np.flatnonzero(wanted[start : start + size])
        start += size
        for i in range(0, len(rows), max_rows):
            chunk = rows[i : i + max_rows]
            picked = None if len(chunk) == size else chunk.astype(np.int32)
            yield pa.table([[name], [group], [picked], [len(chunk)]], schema=ITEM_SCHEMA)


def read_item(system: fs.FileSystem, root: str, item: dict, columns: Sequence[str], batch_rows: int) -> Iterator[pa.Table]:
    """The item's rows in batches. Reads the needed column chunks of one row group."""
    path = f"{root}/{item['path']}"
    with delta.open_part(system, path, pre_buffer=True) as file:
        rows = item["rows"]
        offset = 0
        for batch in delta.whole(file.iter_batches(batch_rows, row_groups=[item["row_group"]], columns=list(columns)), path):
            table = pa.Table.from_batches([batch])
            if rows is None:
                yield table
            else:
                here = [r - offset for r in rows if offset <= r < offset + table.num_rows]
                if here:
                    yield table.take(pa.array(here))
                if rows[-1] < offset + table.num_rows:
                    return
            offset += table.num_rows


def write_beside(store: str, table: schema.Table, items: Sequence[pa.Table], key: str, rows: pa.Table, folder: str) -> None:
    """Writes, for each part in ``items``, a companion Parquet file with the same row groups; its row i is the row of ``rows``
    that has the key of the table's row i (nulls if there is none). Keys are unique in ``rows``.

    A join whose big side (image bytes) does not move. The driver holds ``rows`` and the keys of one part.
    """
    system, root = storage.filesystem(delta.uri(store, table))
    system_beside, root_beside = storage.filesystem(folder)
    keys, others = rows.column(key), rows.drop_columns([key])
    others = others.cast(pa.schema([f.with_nullable(True) for f in others.schema]))
    for name in sorted({item.column("path")[0].as_py() for item in items}):
        with delta.open_part(system, f"{root}/{name}") as file:
            if not storage.is_s3(folder):
                system_beside.create_dir(f"{root_beside}/{name}".rpartition("/")[0], recursive=True)
            with pq.ParquetWriter(f"{root_beside}/{name}", others.schema, filesystem=system_beside) as writer:
                for group in range(file.metadata.num_row_groups):
                    at = pc.index_in(file.read_row_group(group, [key]).column(0), value_set=keys)
                    writer.write_table(others.take(at), row_group_size=max(1, len(at)))


def read_beside(system: fs.FileSystem, root: str, item: dict) -> pa.Table:
    """The companion rows of an item's rows, in its order."""
    with delta.open_part(system, f"{root}/{item['path']}") as file:
        rows = file.read_row_group(item["row_group"])
    return rows if item["rows"] is None else rows.take(pa.array(item["rows"]))
