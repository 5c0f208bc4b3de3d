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
PICTURE_COLUMNS = (schema.PRODUCT_ID, schema.IMAGE_ID, schema.IMAGE_URI, schema.IMAGE_FINGERPRINT)
LAST_IMAGE_ID, LAST_IMAGE_URI, LAST_FINGERPRINT = "last_image_id", "last_image_uri", "last_fingerprint"
LAST_PICTURE = pa.schema([(c, pa.string()) for c in (LAST_IMAGE_ID, LAST_IMAGE_URI, LAST_FINGERPRINT)])
_WITHOUT_PICTURE = "-"  # at the end of a row's digest: its product has all the news of the row, and an earlier picture


class CurrentProducts:
    """The catalog as it stands, to compare a feed with: 38 bytes an active product (380 MB at 10M).

    ``current`` has CURRENT_COLUMNS of every product's newest row; ``feed`` is who asks: a product that another one brought is
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
        self._listed = np.zeros(len(order), bool)

    def __len__(self) -> int:
        """Active products that are this feed's, or nobody's yet."""
        return int((self._ours | (self._owner < 0)).sum())

    def unchanged(self, rows: pa.Table) -> pa.Array:
        """bool, shape (n,): True where an active product says exactly this. ``rows`` has row_digest, null in rejected rows."""
        return self._says(_array(rows, schema.ROW_DIGEST))

    def kept(self, rows: pa.Table, unchanged: pa.Array) -> pa.Array:
        """bool, shape (n,): True where an active product says this, but has an earlier picture (``with_last_picture``)."""
        if pc.all(unchanged).as_py():  # of a quiet night's batches: nothing is hashed again
            return pa.array(np.zeros(rows.num_rows, bool))
        return self._says(_without_picture(_array(rows, schema.ROW_DIGEST)))

    def _says(self, known: pa.Array) -> pa.Array:
        return pa.array(find(self._rows, digests(pc.fill_null(known, ""))) >= 0)

    def others(self, product_ids: pa.Array) -> pa.Array:
        """The feed that each of these active products belongs to; null where it is ours, or nobody's."""
        if (self._ours | (self._owner < 0)).all():
            return pa.nulls(len(product_ids), pa.string())
        at = find(self._ids, digests(product_ids))
        theirs = (at >= 0) & ~np.append(self._ours, True)[at] & (np.append(self._owner, -1)[at] >= 0)
        return self._owners.take(pa.array(np.append(self._owner, -1)[at], mask=~theirs))

    def unowned(self, product_ids: pa.Array) -> np.ndarray:
        """bool, shape (n,): True where the active product is nobody's yet."""
        at = find(self._ids, digests(product_ids))
        return (at >= 0) & (np.append(self._owner, 0)[at] < 0)

    def list(self, product_ids: pa.Array) -> None:
        """Takes note that the feed names these products."""
        at = find(self._ids, digests(product_ids))
        self._listed[at[at >= 0]] = True

    @property
    def num_unlisted(self) -> int:
        """Of ``len(self)`` products, those that no feed row named."""
        return int(self._gone.sum())

    @property
    def num_adopted(self) -> int:
        """Products that are nobody's yet, and that the feed names."""
        return int((self._listed & (self._owner < 0)).sum())

    @property
    def _gone(self) -> np.ndarray:
        return ~self._listed & (self._ours | (self._owner < 0))

    def unlisted(self, current: pa.Table) -> pa.Table:
        """The rows of ``current`` (product_id, active, ...) whose active product no feed row named."""
        return self._where(current, self._gone)

    def adopted(self, current: pa.Table) -> pa.Table:
        """The active rows of ``current`` that were nobody's before the feed named them, and still are."""
        return self._where(current.filter(current.column(schema.FEED).is_null()), self._listed & (self._owner < 0))

    def _where(self, current: pa.Table, mask: np.ndarray) -> pa.Table:
        active = current.filter(current.column(schema.ACTIVE)).combine_chunks()
        at = find(self._ids, digests(_array(active, schema.PRODUCT_ID)))
        return active.filter(pa.array(np.append(mask, False)[at]))  # -1: new since, so the feed named it


class LastPictures:
    """The picture of every product's newest row, active or not. On disk, but for 20 bytes a product.

    ``batches`` have PICTURE_COLUMNS.
    """

    def __init__(self, batches: Iterable[pa.Table]):
        highs: list[np.ndarray] = []
        lows: list[np.ndarray] = []
        fields = pa.schema([(c, pa.string()) for c in PICTURE_COLUMNS[1:]])
        with tempfile.NamedTemporaryFile(prefix="w2w-pictures-") as file:  # once it is deleted, the mapping stays
            with pa.ipc.new_file(file, fields) as writer:
                for batch in batches:
                    rows = batch.filter(batch.column(schema.IMAGE_ID).is_valid()).combine_chunks()
                    for held, half in zip((highs, lows), digests(_array(rows, schema.PRODUCT_ID))):
                        held.append(half)
                    writer.write_table(rows.select(fields.names).cast(fields))
            file.flush()
            self._table = pa.ipc.open_file(pa.memory_map(file.name)).read_all().rename_columns(LAST_PICTURE.names)
        none = np.empty(0, np.uint64)
        self._ids, self._order = sort((np.concatenate([none, *highs]), np.concatenate([none, *lows])))

    def of(self, product_ids: pa.Array) -> pa.Table:
        """LAST_PICTURE of each product, shape (n,); nulls where it has none."""
        at = find(self._ids, digests(product_ids))
        rows = np.append(self._order, 0)[at]
        return self._table.take(pa.array(rows, mask=at < 0)).cast(LAST_PICTURE)


def withdrawn(rows: pa.Table) -> pa.Table:
    """The same products, inactive from now on."""
    return _stamped(_set(rows, schema.ACTIVE, pa.repeat(pa.scalar(False), rows.num_rows)))


def owned(rows: pa.Table, feed: str) -> pa.Table:
    """The same products, of this feed from now on."""
    return _stamped(_set(rows, schema.FEED, pa.repeat(pa.scalar(feed), rows.num_rows)))


def with_last_picture(rows: pa.Table) -> pa.Table:
    """Rows of a feed, with LAST_PICTURE, as products that have all their news, and the picture that was good last."""
    pictures = zip((schema.IMAGE_ID, schema.IMAGE_URI, schema.IMAGE_FINGERPRINT), LAST_PICTURE.names)
    values = {ours: rows.column(last) for ours, last in pictures}
    values[schema.ROW_DIGEST] = _without_picture(rows.column(schema.ROW_DIGEST))
    values[schema.ACTIVE] = pa.repeat(pa.scalar(True), rows.num_rows)
    values[schema.FETCHED_AT] = pa.nulls(rows.num_rows, schema.TIME)
    columns = [values[f.name] if f.name in values else rows.column(f.name) for f in schema.PRODUCTS.schema]
    return _stamped(pa.table(columns, names=schema.PRODUCTS.schema.names)).cast(schema.PRODUCTS.schema)


def _without_picture(row_digests):
    return pc.binary_join_element_wise(row_digests, _WITHOUT_PICTURE, "")


def _stamped(rows: pa.Table) -> pa.Table:
    now = pa.scalar(time.time_ns() // 1000, schema.TIME)
    return _set(rows, schema.FETCHED_AT, pa.repeat(now, rows.num_rows))


def _set(rows: pa.Table, column: str, values: pa.Array) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(column), rows.schema.field(column), values)


def _array(table: pa.Table, column: str) -> pa.Array:
    return table.column(column).combine_chunks()
