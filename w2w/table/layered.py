"""Tables in layers: a snapshot, and beside it rows that count in place of its own, so that a night writes only what changed.

Of several rows of a key that of the highest ``layer`` counts; one with ``active`` false says that there is none any more. The
snapshot's rows have layer 0 or null. A table with such rows may be compacted: what counts depends on no file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.table import delta


def batches(
    store: str, table: schema.Table, columns: Sequence[str], listed: Sequence[delta.Part], batch_rows: int = 65_536
) -> Iterator[pa.Table]:
    """Columns of the rows that count, in stored order. ``listed``: all parts of the table, or of partitions. Held: the keys of
    the rows beside the snapshot; five bytes a row."""
    for _, some in groupby(listed, lambda part: part.partition):
        of_partition = list(some)
        yield from masked(store, table, columns, of_partition, counting(store, table, of_partition).mask, batch_rows)


def masked(
    store: str,
    table: schema.Table,
    columns: Sequence[str],
    listed: Sequence[delta.Part],
    mask: np.ndarray,
    batch_rows: int = 65_536,
) -> Iterator[pa.Table]:
    """Columns of these rows of the parts."""
    start = 0
    for rows in delta.read_batches(store, table, columns, listed, batch_rows):
        here = mask[start : start + rows.num_rows]
        start += rows.num_rows
        yield rows if here.all() else rows.filter(pa.array(here))


def read(store: str, table: schema.Table, columns: Sequence[str], **partition: str) -> pa.Table:
    """All of them in memory."""
    listed = delta.parts(delta.open_table(store, table), **partition)
    return pa.concat_tables([table.empty(columns), *batches(store, table, columns, listed)])


@dataclass(frozen=True)
class Counting:
    """``mask``: bool, the rows of a partition that count; ``num_beside``: how many rows stand beside the snapshot."""

    mask: np.ndarray
    num_beside: int


def counting(store: str, table: schema.Table, listed: Sequence[delta.Part]) -> Counting:
    """Of these parts, all of one partition."""
    key = table.key[0]
    layer_N, beside, start = np.zeros(sum(p.rows for p in listed), np.int32), [], 0
    for rows in delta.read_batches(store, table, [key, schema.LAYER, schema.ACTIVE], listed):
        layers = pc.fill_null(rows.column(1), 0).to_numpy()
        layer_N[start : start + len(layers)] = layers
        start += len(layers)
        if layers.any():
            beside.append(rows.filter(pa.array(layers > 0)))
    if not beside:
        return Counting(np.ones(len(layer_N), bool), 0)
    some, at = pa.concat_tables(beside).combine_chunks(), np.flatnonzero(layer_N)
    names = some.column(0).combine_chunks().dictionary_encode()
    code = names.indices.to_numpy()
    top = np.zeros(len(names.dictionary), np.int32)
    np.maximum.at(top, code, layer_N[at])
    mask, start = layer_N == 0, 0
    mask[at] = (layer_N[at] == top[code]) & pc.fill_null(some.column(2), True).to_numpy()
    for rows in delta.read_batches(store, table, [key], listed):
        replaced = pc.is_in(rows.column(0), value_set=names.dictionary).to_numpy(zero_copy_only=False)
        mask[start : start + rows.num_rows] &= ~replaced | (layer_N[start : start + rows.num_rows] > 0)
        start += rows.num_rows
    return Counting(mask, len(at))


def newest(rows: pa.Table, table: schema.Table) -> pa.Table:
    """Of all rows of some keys (with key, layer and active) those that count."""
    rows = rows.sort_by([(table.key[0], "ascending"), (schema.LAYER, "descending")])  # nulls last
    keys = rows.column(table.key[0]).to_pylist()
    first = [n for n, key in enumerate(keys) if n == 0 or keys[n - 1] != key]
    rows = rows.take(pa.array(first, pa.int64()))
    return rows.filter(pc.fill_null(rows.column(schema.ACTIVE), True))
