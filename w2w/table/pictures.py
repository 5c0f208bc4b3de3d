"""All pictures of the active products: those of products.images, and of rows of an earlier w2w the front picture."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.memory import sorted_on_disk, table_on_disk
from w2w.table.current import CurrentRows


def active_pictures(store: str, columns: Sequence[str], version: int | None = None) -> pa.Table:
    """``columns`` of every active product, among them image_id: a row for each of its pictures, each once, the front first;
    sorted by product_id. Of many rows the texts are on disk (``table_on_disk``); sorting them takes 8 bytes of memory a row."""
    read = list(dict.fromkeys([schema.PRODUCT_ID, *columns, schema.IMAGE_ID, schema.IMAGE_LIST, schema.ACTIVE]))
    kept = list(dict.fromkeys([schema.PRODUCT_ID, *columns]))
    batches = CurrentRows(store, schema.PRODUCTS, version).batches(read)
    found = (with_pictures(b.filter(b.column(schema.ACTIVE))).select(kept) for b in batches)
    rows = table_on_disk(found, schema.PRODUCTS.fields(kept))
    return sorted_on_disk(rows, [(schema.PRODUCT_ID, "ascending")]).select(list(columns))


def feed_pictures(store: str, feed: str, but: pa.ChunkedArray | None = None) -> Iterator[pa.Table]:
    """image_id and uri of the pictures of a feed's active products, without those of the product ids ``but``, in batches; some
    come several times."""
    columns = [schema.PRODUCT_ID, schema.IMAGE_ID, schema.IMAGE_URI, schema.IMAGE_LIST, schema.ACTIVE, schema.FEED]
    fields = [schema.PICTURE.field(schema.IMAGE_ID), schema.PICTURE.field(schema.URI)]
    for rows in CurrentRows(store, schema.PRODUCTS).batches(columns):
        rows = rows.filter(pc.and_(rows.column(schema.ACTIVE), pc.fill_null(pc.equal(rows.column(schema.FEED), feed), False)))
        if but is not None and len(but):
            rows = rows.filter(pc.invert(pc.is_in(rows.column(schema.PRODUCT_ID), value_set=but)))
        listed = pc.list_flatten(rows.column(schema.IMAGE_LIST).combine_chunks())
        fronts = [rows.column(c).combine_chunks() for c in (schema.IMAGE_ID, schema.IMAGE_URI)]
        both = [pa.concat_arrays([front, listed.field(f.name)]) for front, f in zip(fronts, fields)]
        found = pa.table(both, schema=pa.schema(fields))
        yield (
            found.filter(pc.and_(found.column(0).is_valid(), found.column(1).is_valid()))
            .group_by(found.column_names)
            .aggregate([])
        )


def with_pictures(products: pa.Table) -> pa.Table:
    """The rows, with image_id and ``images``, once for each of their pictures; ``images`` is dropped."""
    lists = products.column(schema.IMAGE_LIST).combine_chunks()
    products = products.drop_columns([schema.IMAGE_LIST])
    if lists.null_count == len(lists):
        return products
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    of = np.repeat(np.arange(products.num_rows), counts)
    image_ids = lists.flatten().field(schema.IMAGE_ID)
    fronts = products.column(schema.IMAGE_ID).combine_chunks()
    rows = np.concatenate([np.arange(products.num_rows), of])
    images = pa.concat_arrays([fronts, image_ids])
    order = np.argsort(rows, kind="stable")
    rows, images = rows[order], images.take(pa.array(order))
    first = _first_of_each(rows, images)
    rows, images = rows[first], images.filter(pa.array(first))
    at = products.schema.get_field_index(schema.IMAGE_ID)
    return products.take(pa.array(rows)).set_column(at, products.schema.field(at), images)


def _first_of_each(rows: np.ndarray, images: pa.Array) -> np.ndarray:
    """bool: the first of equal pictures of a row. A row's picture that is null stays, as it is all that the row has."""
    codes = pc.fill_null(images.dictionary_encode().indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    pairs = rows.astype(np.int64) * (codes.max(initial=0) + 2) + codes + 1
    first = np.zeros(len(rows), bool)
    first[np.unique(pairs, return_index=True)[1]] = True
    return first
