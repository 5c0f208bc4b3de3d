"""What a feed changes: rows that are new or different, and products that it no longer lists."""

import tempfile
import time
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.ingest.digests import digests, find, sort

CURRENT_COLUMNS = (schema.PRODUCT_ID, schema.ROW_DIGEST, schema.ACTIVE, schema.FEED)
PICTURE_COLUMNS = (schema.PRODUCT_ID, schema.IMAGE_ID, schema.IMAGE_URI, schema.IMAGE_FINGERPRINT, schema.IMAGE_LIST)
LAST_IMAGE_ID, LAST_IMAGE_URI, LAST_FINGERPRINT = "last_image_id", "last_image_uri", "last_fingerprint"
LAST_IMAGE_LIST = "last_images"
LAST_PICTURE = pa.schema(
    [(c, pa.string()) for c in (LAST_IMAGE_ID, LAST_IMAGE_URI, LAST_FINGERPRINT)]
    + [(LAST_IMAGE_LIST, pa.list_(schema.PICTURE))]
)
WITHOUT_PICTURE = "-"  # ends the digest of a row whose product has all its changes, but not yet all its pictures


class CurrentProducts:
    """The current catalog, for comparison with a feed: 38 bytes per active product (380 MB at 10M).

    ``current`` has CURRENT_COLUMNS of every product's newest row; ``feed`` is the feed being read: products of other feeds are
    not its to change.
    """

    def __init__(self, current: pa.Table, feed: str):
        active = current.filter(current.column(schema.ACTIVE)).combine_chunks()
        self._ids, order = sort(digests(_array(active, schema.PRODUCT_ID)))
        self._rows, _ = sort(digests(_array(active, schema.ROW_DIGEST)))
        owners = _array(active, schema.FEED).dictionary_encode()
        self._owners = owners.dictionary
        self._owner = pc.fill_null(owners.indices, -1).to_numpy()[order]
        own = pc.index(self._owners, feed).as_py()
        self._ours = self._owner == (-2 if own < 0 else own)
        self._listed, self._deleted = np.zeros(len(order), bool), np.zeros(len(order), bool)

    def __len__(self) -> int:
        """Active products that belong to this feed or to none yet."""
        return int((self._ours | (self._owner < 0)).sum())

    def unchanged(self, rows: pa.Table) -> pa.Array:
        """bool, shape (n,): True if an active product equals the row. ``rows`` has row_digest, null in rejected rows."""
        return self._says(_array(rows, schema.ROW_DIGEST))

    def kept(self, rows: pa.Table, unchanged: pa.Array) -> pa.Array:
        """bool, shape (n,): True if an active product has this content, but an earlier picture (``with_last_picture``)."""
        if pc.all(unchanged).as_py():  # the usual batch of a quiet night: nothing is hashed again
            return pa.array(np.zeros(rows.num_rows, bool))
        return self._says(_without_picture(_array(rows, schema.ROW_DIGEST)))

    def _says(self, known: pa.Array) -> pa.Array:
        return pa.array(find(self._rows, digests(pc.fill_null(known, ""))) >= 0)

    def others(self, product_ids: pa.Array) -> pa.Array:
        """The feed that owns each of these active products; null if it is this feed or none."""
        if (self._ours | (self._owner < 0)).all():
            return pa.nulls(len(product_ids), pa.string())
        at = find(self._ids, digests(product_ids))
        theirs = (at >= 0) & ~np.append(self._ours, True)[at] & (np.append(self._owner, -1)[at] >= 0)
        return self._owners.take(pa.array(np.append(self._owner, -1)[at], mask=~theirs))

    def unowned(self, product_ids: pa.Array) -> np.ndarray:
        """bool, shape (n,): True if the active product has no owner yet."""
        at = find(self._ids, digests(product_ids))
        return (at >= 0) & (np.append(self._owner, 0)[at] < 0)

    def list(self, product_ids: pa.Array) -> None:
        """Records that the feed lists the products."""
        at = find(self._ids, digests(product_ids))
        self._listed[at[at >= 0]] = True

    def delete(self, product_ids: pa.Array) -> None:
        """Records that the feed says that the products, its own or nobody's, are gone."""
        at = find(self._ids, digests(product_ids))
        self._deleted[at[at >= 0]] = True

    @property
    def num_deleted(self) -> int:
        """Number of active products that the feed says are gone."""
        return int(self._deleted.sum())

    @property
    def num_unlisted(self) -> int:
        """Number of products (of ``len(self)``) that no feed row listed."""
        return int(self._gone.sum())

    @property
    def num_adopted(self) -> int:
        """Number of products without an owner that the feed lists."""
        return int(self._adopted.sum())

    @property
    def _gone(self) -> np.ndarray:
        return ~self._listed & ~self._deleted & (self._ours | (self._owner < 0))

    @property
    def _adopted(self) -> np.ndarray:
        return self._listed & ~self._deleted & (self._owner < 0)

    def deleted(self, current: pa.Table) -> pa.Table:
        """The rows of ``current`` of active products that the feed says are gone."""
        return self._where(current, self._deleted)

    def unlisted(self, current: pa.Table) -> pa.Table:
        """The rows of ``current`` (product_id, active, ...) of active products that no feed row listed."""
        return self._where(current, self._gone)

    def adopted(self, current: pa.Table) -> pa.Table:
        """The active rows of ``current`` without an owner, before and now, that the feed listed."""
        return self._where(current.filter(current.column(schema.FEED).is_null()), self._adopted)

    def _where(self, current: pa.Table, mask: np.ndarray) -> pa.Table:
        active = current.filter(current.column(schema.ACTIVE)).combine_chunks()
        at = find(self._ids, digests(_array(active, schema.PRODUCT_ID)))
        return active.filter(pa.array(np.append(mask, False)[at]))  # -1: added since, so the feed listed it


class LastRows:
    """Columns of every product's newest row, active or not. On disk, except for 20 bytes per product.

    ``batches`` have product_id and ``fields``.
    """

    def __init__(self, batches: Iterable[pa.Table], fields: pa.Schema):
        highs: list[np.ndarray] = []
        lows: list[np.ndarray] = []
        with tempfile.NamedTemporaryFile(prefix="w2w-products-") as file:  # the mapping survives its deletion
            with pa.ipc.new_file(file, fields) as writer:
                for batch in batches:
                    rows = batch.combine_chunks()
                    for held, half in zip((highs, lows), digests(_array(rows, schema.PRODUCT_ID))):
                        held.append(half)
                    writer.write_table(rows.select(fields.names).cast(fields))
            file.flush()
            self._table = pa.ipc.open_file(pa.memory_map(file.name)).read_all()
        none = np.empty(0, np.uint64)
        self._ids, self._order = sort((np.concatenate([none, *highs]), np.concatenate([none, *lows])))

    def of(self, product_ids: pa.Array) -> pa.Table:
        """The columns of each product, shape (n,); nulls if there is none."""
        at = find(self._ids, digests(product_ids))
        rows = np.append(self._order, 0)[at]
        return self._table.take(pa.array(rows, mask=at < 0))


class LastPictures(LastRows):
    """The picture of every product's newest row, active or not. ``batches`` have PICTURE_COLUMNS."""

    def __init__(self, batches: Iterable[pa.Table]):
        fields = pa.schema([(c, f.type) for c, f in zip(PICTURE_COLUMNS[1:], LAST_PICTURE)])
        super().__init__((batch.filter(batch.column(schema.IMAGE_ID).is_valid()) for batch in batches), fields)

    def of(self, product_ids: pa.Array) -> pa.Table:
        """LAST_PICTURE of each product, shape (n,); nulls if it has none."""
        return super().of(product_ids).rename_columns(LAST_PICTURE.names).cast(LAST_PICTURE)


def withdrawn(rows: pa.Table) -> pa.Table:
    """The same products, inactive from now on."""
    return _stamped(_set(rows, schema.ACTIVE, pa.repeat(pa.scalar(False), rows.num_rows)))


def owned(rows: pa.Table, feed: str) -> pa.Table:
    """The same products, owned by this feed from now on."""
    return _stamped(_set(rows, schema.FEED, pa.repeat(pa.scalar(feed), rows.num_rows)))


def with_last_picture(rows: pa.Table) -> pa.Table:
    """Rows of a feed, with LAST_PICTURE, as products with all other changes and the last valid picture."""
    pictures = zip(PICTURE_COLUMNS[1:], LAST_PICTURE.names)
    values = {ours: rows.column(last) for ours, last in pictures}
    values[schema.ROW_DIGEST] = _without_picture(rows.column(schema.ROW_DIGEST))
    values[schema.ACTIVE] = pa.repeat(pa.scalar(True), rows.num_rows)
    values[schema.FETCHED_AT] = pa.nulls(rows.num_rows, schema.TIME)
    columns = [values[f.name] if f.name in values else rows.column(f.name) for f in schema.PRODUCTS.schema]
    return _stamped(pa.table(columns, names=schema.PRODUCTS.schema.names)).cast(schema.PRODUCTS.schema)


def _without_picture(row_digests):
    return pc.binary_join_element_wise(row_digests, WITHOUT_PICTURE, "")


def _stamped(rows: pa.Table) -> pa.Table:
    now = pa.scalar(time.time_ns() // 1000, schema.TIME)
    return _set(rows, schema.FETCHED_AT, pa.repeat(now, rows.num_rows))


def _set(rows: pa.Table, column: str, values: pa.Array) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(column), rows.schema.field(column), values)


def _array(table: pa.Table, column: str) -> pa.Array:
    return table.column(column).combine_chunks()
