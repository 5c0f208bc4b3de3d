"""The newest row of each key of a table with a history: products, posts, and what else is written again when it changes."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.table.delta import open_table, parts, read_batches
from w2w.table.pending import lookup

_BATCH_ROWS = 16_384


def current_products(store: str, columns: Sequence[str]) -> pa.Table:
    """The newest row of every product, active or not, sorted by product_id.

    Held in memory: about 150 bytes per product for ids and category, so 1.5 GB at 10M products.
    """
    return _current(store, schema.PRODUCTS, columns)


def current_posts(store: str, columns: Sequence[str] = tuple(schema.POSTS.schema.names)) -> pa.Table:
    """The newest row of every post, active or not, sorted by post_id; held in memory as products are."""
    return _current(store, schema.POSTS, columns)


def _current(store: str, table: schema.Table, columns: Sequence[str]) -> pa.Table:
    key = table.key[0]
    read = list(dict.fromkeys([key, *columns]))
    rows = pa.concat_tables([table.empty(read), *CurrentRows(store, table).batches(read)])
    return rows.sort_by(key).select(list(columns))


def in_several(hashes_N: np.ndarray) -> np.ndarray:
    """bool, shape (N,): whether a key's hash occurs more than once. False is certain."""
    known = np.sort(hashes_N)
    twice = np.unique(known[1:][known[1:] == known[:-1]])
    return np.isin(hashes_N, twice) if len(twice) else np.zeros(len(hashes_N), bool)


def newest_of_each(rows: pa.Table, key: str) -> pa.Table:
    """The most recently fetched row of each key, sorted by key."""
    rows = rows.sort_by([(key, "ascending"), (schema.FETCHED_AT, "descending")])
    if rows.num_rows < 2:
        return rows
    keys = rows.column(key)
    first = pc.not_equal(keys.slice(1), keys.slice(0, len(keys) - 1)).combine_chunks()
    return rows.filter(pa.concat_arrays([pa.array([True]), first]))


def newest_rows(store: str, table: schema.Table, keys: Iterable[str | None], columns: Sequence[str]) -> dict[str, dict]:
    """The newest row of each of these keys that the table has, by key."""
    wanted = pa.array(sorted({key for key in keys if key}), pa.string())
    if not len(wanted):
        return {}
    told = list(dict.fromkeys([table.key[0], *columns]))
    rows = newest_of_each(lookup(store, table, wanted, [*told, schema.FETCHED_AT]), table.key[0])
    return {row[table.key[0]]: row for row in rows.select(told).to_pylist()}


class CurrentRows:
    """The newest row of every product or post, readable in batches any number of times.

    Held in memory: a byte per row (16 while it is built), and, while reading, the rows of keys that have several.
    """

    def __init__(self, store: str, table: schema.Table, version: int | None = None):
        self._store, self._table, self._key = store, table, table.key[0]
        self._listed = parts(open_table(store, table, version))
        hashes = [ids.hash_keys(b.column(0)) for b in read_batches(store, table, [self._key], self._listed)]
        self._several = in_several(np.concatenate([np.empty(0, np.uint64), *hashes]))

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Batches in a fixed order: first, in stored order, the keys with a single row."""
        held = []
        for one, several in self._parted(list(dict.fromkeys([self._key, schema.FETCHED_AT, *columns]))):
            held.append(several)
            yield one.select(list(columns))
        if not held:
            return
        yield newest_of_each(pa.concat_tables(held), self._key).select(list(columns))

    def several(self, columns: Sequence[str]) -> pa.Table:
        """All rows of keys that have several, and possibly a few others."""
        return pa.concat_tables([self._table.empty(columns), *(several for _, several in self._parted(columns))])

    def _parted(self, columns: Sequence[str]) -> Iterator[tuple[pa.Table, pa.Table]]:
        start = 0
        for batch in read_batches(self._store, self._table, columns, self._listed, _BATCH_ROWS):
            here = self._several[start : start + batch.num_rows]
            start += batch.num_rows
            # an empty slice would keep the whole batch
            none = batch.schema.empty_table()
            yield (batch.filter(pa.array(~here)), batch.filter(pa.array(here))) if here.any() else (batch, none)
