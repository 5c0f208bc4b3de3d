"""What a job reads: the rows of a table, or of work files, whose result is not there yet."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq

from w2w import schema, storage
from w2w.table import delta, pending


@dataclass(frozen=True)
class Source:
    """Rows to work on: items over Parquet files below ``root``, the columns to read, the key, and what a person looks at."""

    root: str
    items: list[pa.Table]
    num_rows: int
    schema: pa.Schema
    key: str
    source: str | None = None
    skipped: int = 0  # rows that were done before

    def first(self, limit: int | None) -> "Source":
        """At most ``limit`` rows of it."""
        if limit is None or limit >= self.num_rows:
            return self
        kept, left = [], limit
        for item in self.items:
            if left == 0:
                break
            rows = item.column("rows")[0].as_py() or list(range(item.column("num_rows")[0].as_py()))
            rows = rows[:left]
            left -= len(rows)
            kept.append(pa.table([item.column("path"), item.column("row_group"), [rows], [len(rows)]], schema=item.schema))
        return replace(self, items=kept, num_rows=limit - left)


def pending_rows(
    store: str,
    table: schema.Table,
    columns: Sequence[str],
    done: Sequence[pending.Keys],
    source: str | None,
    item_rows: int,
) -> Source:
    """The table's rows whose key (its first key column) is in none of ``done``, in items of ``item_rows``. Reads keys only."""
    key = table.key[0]
    opened = delta.open_table(store, table)
    listed = delta.parts(opened)
    mask = pending.pending_mask(pending.table_keys(store, table, key), done)
    items = list(pending.table_items(store, table, listed, mask, item_rows))
    fields = pa.schema([table.schema.field(c) for c in columns])
    num_rows = int(mask.sum())
    return Source(delta.uri(store, table), items, num_rows, fields, key, source, len(mask) - num_rows)


def file_rows(folder: str, key: str, source: str | None, item_rows: int) -> Source:
    """Every row of the Parquet files in ``folder``, in items of ``item_rows``."""
    system, root = storage.filesystem(folder)
    items, fields = [], None
    for info in storage.list_files(folder, recursive=False):
        if info.path.endswith(".parquet"):
            fields = fields or pq.read_schema(info.path, filesystem=system)
            name = info.path.removeprefix(root).lstrip("/")
            items += pending.file_items(system, info.path, name, None, item_rows)
    num_rows = sum(i.column("num_rows")[0].as_py() for i in items)
    return Source(folder, items, num_rows, fields or pa.schema([]), key, source)
