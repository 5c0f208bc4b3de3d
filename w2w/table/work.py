"""Work files: rows outside any table, stored for one run where every worker can read them."""

import time
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from w2w import storage

_ROWS_PER_FILE = 100_000
_STALE_S = 7 * 24 * 3600.0


def folder(store: str, run_id: str) -> str:
    return storage.join(store, "_work", run_id)


def write(
    store: str, run_id: str, tables: Iterable[pa.Table], schema: pa.Schema, rows_per_group: int, count_only: bool = False
) -> int:
    """Streams the rows into Parquet files below ``folder``; returns their number. No rows, no files."""
    if count_only:
        return sum(table.num_rows for table in tables)
    system, path = storage.filesystem(folder(store, run_id))
    num_rows = 0
    for rows in _gathered(tables, schema):
        with storage.named("write", path):
            if not storage.is_s3(store):
                system.create_dir(path, recursive=True)
            name = f"{path}/{num_rows:012d}.parquet"
            pq.write_table(rows, name, filesystem=system, row_group_size=rows_per_group, compression="zstd")
        num_rows += rows.num_rows
    return num_rows


def _gathered(tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    for table in tables:
        if table.num_rows:
            held.append(table.select(schema.names).cast(schema))
        if sum(t.num_rows for t in held) >= _ROWS_PER_FILE:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def clean(store: str, run_id: str) -> None:
    """Deletes the run's work files, and leftovers of runs killed more than a week ago."""
    storage.delete(folder(store, run_id))
    root = storage.filesystem(store)[1]
    for info in storage.list_files(storage.join(store, "_work")):
        if info.mtime is not None and time.time() - info.mtime.timestamp() > _STALE_S:
            storage.delete(storage.join(store, info.path.removeprefix(root)))
