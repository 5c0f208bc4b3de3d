"""A job's input: rows of a table, or of work files, that have no result yet."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from w2w import ids, schema, storage
from w2w.table import delta, pending
from w2w.table.marks import Mark, Work
from w2w.table.tolerance import Tolerance

log = logging.getLogger("w2w")


@dataclass(frozen=True)
class Source:
    """Rows to work on: items over Parquet files below ``root``, the columns to read, the key, and the column that a person
    reads."""

    root: str
    items: list[pa.Table]
    num_rows: int
    schema: pa.Schema
    key: str
    source: str | None = None
    skipped: int = 0  # rows done before
    rejected: int = 0  # of these, the rejected ones
    in_all: int | None = None  # pending rows before ``first`` cut them
    beside: str | None = None  # folder of Parquet files with the same row groups, whose columns are joined to these rows
    mark: Mark | None = None  # what holds once all these rows are done
    num_read: int | None = None  # rows whose keys were looked at

    @property
    def listed(self) -> int:
        """All rows: those to work on and those done before."""
        return (self.in_all or self.num_rows) + self.skipped

    def is_done(self, tolerance: Tolerance) -> bool:
        """Whether nothing is left to do. Raises JobFailed if so, and too many rows were rejected before."""
        if self.num_rows == 0:
            tolerance.check({}, self.listed, self.rejected)
        return self.num_rows == 0

    def first(self, limit: int | None) -> "Source":
        """At most the first ``limit`` rows."""
        if limit is None or limit >= self.num_rows:
            return self
        kept, left = [], limit
        for item in self.items:
            if left == 0:
                break
            kept.append(_some(item, _rows(item)[:left]))
            left -= kept[-1].column("num_rows")[0].as_py()
        return replace(self, items=kept, num_rows=limit - left, in_all=self.num_rows, mark=None)

    def tapered(self, num_workers: int, least_rows: int) -> "Source":
        """The same rows in items that shrink towards the end, so that the workers finish together: none is larger than the rows
        left / (2 x workers), down to ``least_rows`` (guided self-scheduling, Polychronopoulos and Kuck 1987)."""
        items, left = [], self.num_rows
        for item in self.items:
            size = item.column("num_rows")[0].as_py()
            most = max(least_rows, left // (2 * num_workers))
            if size <= most:
                items.append(item)
                left -= size
                continue
            rows = _rows(item)
            while rows:
                most = max(least_rows, left // (2 * num_workers))
                items.append(_some(item, rows[:most]))
                left -= len(rows[:most])
                rows = rows[most:]
        return replace(self, items=items)


def _rows(item: pa.Table) -> list[int]:
    """Row numbers of an item within its row group."""
    return item.column("rows")[0].as_py() or list(range(item.column("num_rows")[0].as_py()))


def _some(item: pa.Table, rows: list[int]) -> pa.Table:
    return pa.table([item.column("path"), item.column("row_group"), [rows], [len(rows)]], schema=item.schema)


def pending_rows(
    store: str,
    table: schema.Table,
    columns: Sequence[str],
    done: Sequence[pending.Keys],
    source: str | None,
    item_rows: int,
    among: pending.Keys | None = None,
    limit: int | None = None,
    full_scan: bool = False,
    **partition: str,
) -> Source:
    """The table's rows whose first key column is in none of ``done``, in items of ``item_rows``. Reads only keys: of what came
    since the last run, by its watermark, or of all rows where there is none, with ``full_scan``, and with ``among``.

    ``among``: only rows with one of these keys; ``limit``: at most this many, those with the smallest key hashes, so that the
    choice does not depend on how rows are stored; ``partition``: only that partition of the table.
    """
    key = table.key[0]
    opened = delta.open_table(store, table)
    listed = delta.parts(opened, **partition)
    work = Work.of(store, table, opened, listed, partition, done) if among is None else None
    looked = work.look() if work and not full_scan else ""
    if isinstance(looked, str):
        if looked:
            log.info("all rows are compared: %s", looked)
        mask, num_failed = _all_pending(store, table, listed, done, among)
    else:
        mask, num_failed = looked.pending, looked.rejected
    in_all = int(mask.sum())
    mark = work.mark(num_failed) if work else None
    if limit is not None and limit < in_all:
        hashes = np.concatenate([ids.hash_keys(keys) for keys in _keys(store, table, listed).batches])
        rows = np.flatnonzero(mask)
        mask[rows[np.argsort(hashes[rows], kind="stable")[limit:]]] = False
        mark = None
    items = list(pending.table_items(store, table, listed, mask, item_rows))
    fields = table.fields(columns)
    num_read = len(mask) if isinstance(looked, str) else looked.num_read
    counts = int(mask.sum()), len(mask) - in_all, num_failed, in_all
    return Source(delta.uri(store, table), items, counts[0], fields, key, source, *counts[1:], mark=mark, num_read=num_read)


def _all_pending(
    store: str,
    table: schema.Table,
    listed: Sequence[delta.Part],
    done: Sequence[pending.Keys],
    among: pending.Keys | None,
) -> tuple[np.ndarray, int]:
    """bool: which rows of the parts are pending, and how many were rejected before; by all keys of both sides."""
    rejected = [pending.Keys([k.read()], k.count) for k in done if k.rejected]
    done = [k for k in done if not k.rejected] + rejected

    def without(keys: Sequence[pending.Keys]) -> np.ndarray:
        return pending.pending_mask(_keys(store, table, listed), keys)

    mask = without(done)
    failed = ~without(rejected) if any(len(b) for k in rejected for b in k.batches) else np.zeros(len(mask), bool)
    if among is not None:
        wanted = ~without([among])
        mask, failed = mask & wanted, failed & wanted
    return mask, int(failed.sum())


def _keys(store: str, table: schema.Table, listed: Sequence[delta.Part]) -> pending.Keys:
    batches = (b.column(0) for b in delta.read_batches(store, table, [table.key[0]], listed))
    return pending.Keys(batches, sum(p.rows for p in listed))


def with_beside(source: Source, store: str, table: schema.Table, rows: pa.Table, folder: str) -> Source:
    """Joins the columns of ``rows`` (unique in the source's key) to the source's rows, by ``write_beside``."""
    pending.write_beside(store, table, source.items, source.key, rows, folder)
    others = [f.with_nullable(True) for f in rows.drop_columns([source.key]).schema]  # a row may have no counterpart
    return replace(source, schema=pa.schema([*source.schema, *others]), beside=folder)


def file_rows(folder: str, key: str, source: str | None, item_rows: int, skipped: int = 0, rejected: int = 0) -> Source:
    """Every row of the Parquet files in ``folder``, in items of ``item_rows``. ``skipped`` rows are absent because they were
    done before; ``rejected`` of them failed."""
    system, root = storage.filesystem(folder)
    items, fields = [], None
    for info in storage.list_files(folder, recursive=False):
        if info.path.endswith(".parquet"):
            with delta.open_part(system, info.path) as file:
                fields = fields or file.schema_arrow
            name = info.path.removeprefix(root).lstrip("/")
            items += pending.file_items(system, info.path, name, None, item_rows)
    num_rows = sum(i.column("num_rows")[0].as_py() for i in items)
    return Source(folder, items, num_rows, fields or pa.schema([]), key, source, skipped, rejected)
