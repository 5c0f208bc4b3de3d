"""Duplicate rows: when two rows are the same, which rows other runs wrote meanwhile, and which rows to remove.

A table with a history (``fetched_at`` in its key) has many rows per product; there, a duplicate repeats the content of the
product's previous row. In any other table, keys are unique.
"""

import json
import time
from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from w2w import ids, schema
from w2w.table import delta
from w2w.table.current import CurrentRows, in_several, newest_of_each

_FRESH_US = 24 * 3600 * 1_000_000
_REJECTS_US = 30 * _FRESH_US
_BETWEEN, _ESCAPE = "\x1f", "\x1b"  # of the parts of a key


def has_history(table: schema.Table) -> bool:
    return schema.FETCHED_AT in table.key


def outdated_warnings(store: str, listed: Sequence[delta.Part]) -> np.ndarray:
    """bool: for each row of these parts of `warnings`, whether its product has another row now, or is withdrawn. Not for a day
    after it was written: its product may still be on its way."""
    columns = [schema.PRODUCT_ID, schema.ROW_DIGEST, schema.WARNED_AT]
    rows = pa.concat_tables([schema.WARNINGS.empty(columns), *delta.read_batches(store, schema.WARNINGS, columns, listed)])
    of = pc.unique(rows.column(0))
    held = [pa.chunked_array([], pa.string())]
    for batch in CurrentRows(store, schema.PRODUCTS).batches([schema.PRODUCT_ID, schema.ROW_DIGEST, schema.ACTIVE]):
        own = batch.filter(pc.and_(batch.column(2), pc.is_in(batch.column(0), value_set=of)))
        held.append(pc.binary_join_element_wise(own.column(0), own.column(1), _BETWEEN))
    now = pa.chunked_array([chunk for some in held for chunk in some.chunks], pa.string())
    there = pc.is_in(pc.binary_join_element_wise(rows.column(0), rows.column(1), _BETWEEN), value_set=now)
    old = pc.less(rows.column(2), pa.scalar(time.time_ns() // 1000 - _FRESH_US, schema.TIME))
    return pc.and_not(old, there).to_numpy()


def repeated_rejects(store: str, listed: Sequence[delta.Part]) -> np.ndarray:
    """bool: for each row of these parts of `rejects`, whether it is older than 30 days and the same stage version has rejected
    its row again since: what is asked for every night leaves one row. Memory as of ``find``."""
    columns = list(schema.REJECTS.key)
    hashes = [ids.hash_keys(_joined(b, columns)) for b in delta.read_batches(store, schema.REJECTS, columns, listed)]
    several, start, held = in_several(np.concatenate([np.empty(0, np.uint64), *hashes])), 0, []
    for batch in delta.read_batches(store, schema.REJECTS, [*columns, schema.REJECTED_AT], listed):
        at = np.flatnonzero(several[start : start + batch.num_rows])
        held.append(batch.take(pa.array(at)).append_column("at", pa.array(at + start)))
        start += batch.num_rows
    repeated = np.zeros(len(several), bool)
    if several.any():
        rows = pl.from_arrow(pa.concat_tables(held)).sort(*columns, schema.REJECTED_AT, "at")
        same = pl.all_horizontal(pl.col(c).eq_missing(pl.col(c).shift(-1)) for c in columns)
        old = pl.col(schema.REJECTED_AT).dt.timestamp("us") < time.time_ns() // 1000 - _REJECTS_US
        repeated[rows.filter(same & old & (pl.int_range(pl.len()) < pl.len() - 1))["at"].to_numpy()] = True
    return repeated


def is_own(path: str, run_id: str) -> bool:
    """Whether the run wrote this part."""
    return path.rpartition("/")[2].startswith(f"{run_id}-")


class Others:
    """Rows that other runs committed to a table since this run first read it. Holds their keys in memory."""

    def __init__(self, store: str, table: schema.Table, unique: str | None, run_id: str):
        self._store, self._table, self._run_id = store, table, run_id
        self._columns = _same(table, unique)
        read = [*self._columns, *([schema.FETCHED_AT] if has_history(table) else [])]
        self._rows = table.empty(read)

    def note(self, before: DeltaTable, now: DeltaTable) -> None:
        """Reads the keys of the parts that others added between these two versions."""
        known = {p.path for p in delta.parts(before)}
        added = [p for p in delta.parts(now) if p.path not in known and not is_own(p.path, self._run_id)]
        batches = delta.read_batches(self._store, self._table, self._rows.schema.names, added)
        self._rows = pa.concat_tables([self._rows, *batches])
        if has_history(self._table):
            self._rows = newest_of_each(self._rows, self._table.key[0])

    def repeated(self, listed: Sequence[delta.Part]) -> np.ndarray:
        """bool: for each row of these parts, whether another run has already written it."""
        if not self._rows.num_rows:
            return np.zeros(sum(p.rows for p in listed), bool)
        there = _joined(self._rows, self._columns)
        batches = delta.read_batches(self._store, self._table, self._columns, listed)
        found = [pc.is_in(_joined(b, self._columns), value_set=there).to_numpy(zero_copy_only=False) for b in batches]
        return np.concatenate([np.empty(0, bool), *found])


def find(store: str, table: schema.Table, listed: Sequence[delta.Part]) -> np.ndarray:
    """bool: for each row of these parts, whether it duplicates an earlier one, which stays: the first of its key or, in a
    history, the older one. Memory: 8 bytes per row, and the rows of keys that occur several times."""
    columns = _same(table, None)
    of_key = [table.key[0]] if has_history(table) else columns
    hashes = [ids.hash_keys(_joined(b, of_key)) for b in delta.read_batches(store, table, of_key, listed)]
    several = in_several(np.concatenate([np.empty(0, np.uint64), *hashes]))
    repeated = np.zeros(len(several), bool)
    if not several.any():
        return repeated
    read = [*columns, *([schema.FETCHED_AT] if has_history(table) else [])]
    held, start = [], 0
    for batch in delta.read_batches(store, table, read, listed):
        at = np.flatnonzero(several[start : start + batch.num_rows])
        some = batch.take(pa.array(at))
        for name in (f.name for f in some.schema if pa.types.is_list(f.type)):
            some = some.set_column(some.schema.get_field_index(name), name, _text(some.column(name)))
        held.append(some.append_column("at", pa.array(at + start)))
        start += batch.num_rows
    rows = pl.from_arrow(pa.concat_tables(held)).sort(*of_key, *read[len(columns) :], "at")
    same = pl.all_horizontal(pl.col(c).eq_missing(pl.col(c).shift()) for c in columns)
    repeated[rows.filter(same & (pl.int_range(pl.len()) > 0))["at"].to_numpy()] = True
    return repeated


def _same(table: schema.Table, unique: str | None) -> list[str]:
    """The columns that are equal in two rows exactly if they are duplicates."""
    if unique:
        return [unique]
    if not has_history(table):
        return list(table.key)
    # the digest covers what the source said, but not the picture or the owner
    said = (
        table.key[0],
        schema.ROW_DIGEST,
        schema.ACTIVE,
        schema.IMAGE_ID,
        schema.IMAGE_FINGERPRINT,
        schema.FEED,
        schema.IMAGE_LIST,
    )
    return [c for c in said if c in table.schema.names]


def _joined(rows: pa.Table, columns: Sequence[str]) -> pa.ChunkedArray:
    return ids.joined([_text(rows.column(c)) for c in columns], _BETWEEN, _ESCAPE, null_counts=True)


def _text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_list(values.type):
        return values.cast(pa.string())
    return pa.chunked_array([[None if v is None else json.dumps(v) for v in values.to_pylist()]], pa.string())
