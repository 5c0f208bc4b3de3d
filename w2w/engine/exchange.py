"""Joins by key: every table is partitioned by a hash of the key, and one task gets all rows of a bucket.

A single bucket is read directly by one task. Larger inputs are partitioned by map tasks, and the buckets wait in the object
store, which spills to disk: a worker's memory is bounded by one bucket, however many rows there are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import ray

from w2w import ids, schema
from w2w.engine.tasks import collect
from w2w.table import delta

ROWS_PER_BUCKET = 100_000
_ROWS_PER_MAP = 100_000


@dataclass(frozen=True)
class Side:
    """Rows of one table, sent to the bucket of their key ``by``, a column of what ``prepare`` returns."""

    table: schema.Table
    columns: tuple[str, ...]
    by: str
    prepare: Callable[[pa.Table], pa.Table] | None = None
    partition: dict[str, str] = field(default_factory=dict)


def by_key(
    store: str,
    sides: Sequence[Side],
    reduce: Callable,
    arguments: tuple = (),
    *,
    num_buckets: int | None = None,
    title: str = "join",
) -> list:
    """Runs ``reduce(tables, *arguments)`` as one Ray task per bucket, where ``tables`` holds the bucket's rows of every side.
    Results are in bucket order; within a bucket, rows keep the order of their table.

    ``num_buckets``: by default one per ``ROWS_PER_BUCKET`` rows of the largest side.
    """
    listed = [delta.parts(delta.open_table(store, side.table), **side.partition) for side in sides]
    if num_buckets is None:
        num_buckets = max(1, *(-(-sum(p.rows for p in parts) // ROWS_PER_BUCKET) for parts in listed))
    if num_buckets == 1:
        return collect([ray.remote(num_cpus=1)(_whole).remote(store, sides, listed, reduce, arguments)], title)
    split = ray.remote(num_cpus=1, num_returns=num_buckets)(_split)
    pieces: list[list[list]] = [[[] for _ in sides] for _ in range(num_buckets)]
    for s, (side, parts) in enumerate(zip(sides, listed)):
        for chunk in delta.in_chunks(parts, _ROWS_PER_MAP) or [[]]:
            for b, piece in enumerate(split.remote(store, side, chunk, num_buckets)):
                pieces[b][s].append(piece)
    task = ray.remote(num_cpus=1)(_bucket)
    sizes = [len(p) for p in pieces[0]]
    tasks = [task.remote(reduce, arguments, sizes, *(ref for side in bucket for ref in side)) for bucket in pieces]
    return collect(tasks, title)


def _read(store: str, side: Side, parts: Sequence[delta.Part]) -> pa.Table:
    prepare = side.prepare or (lambda rows: rows)
    empty = side.table.empty(side.columns)
    found = [prepare(rows) for rows in delta.read_batches(store, side.table, side.columns, parts)]
    return pa.concat_tables([prepare(empty), *found])


def _whole(store: str, sides: Sequence[Side], listed: Sequence, reduce: Callable, arguments: tuple):
    return reduce([_read(store, side, parts) for side, parts in zip(sides, listed)], *arguments)


def _split(store: str, side: Side, parts: Sequence[delta.Part], num_buckets: int) -> list[pa.Table]:
    rows = _read(store, side, parts)
    buckets = ids.hash_bucket(rows.column(side.by).cast(pa.string()), num_buckets)
    order = np.argsort(buckets, kind="stable")
    bounds = np.searchsorted(buckets[order], np.arange(num_buckets + 1))
    rows = rows.take(pa.array(order)).combine_chunks()
    return [rows.slice(bounds[b], bounds[b + 1] - bounds[b]) for b in range(num_buckets)]


def _bucket(reduce: Callable, arguments: tuple, sizes: Sequence[int], *pieces: pa.Table):
    tables, at = [], 0
    for size in sizes:
        tables.append(pa.concat_tables(pieces[at : at + size]))
        at += size
    return reduce(tables, *arguments)
