"""The products and posts that mining uses: active, in their newest row."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from w2w import schema
from w2w.mining.identity import keys_of, product_keys, refuse_unknown, unknown_attributes
from w2w.mining.tags import PRODUCT_KEY
from w2w.table.current import CurrentRows, current_posts, current_products
from w2w.table.pictures import with_pictures


def active_products(store: str, product_key: Sequence[str]) -> tuple[pa.Table, pa.ChunkedArray]:
    """product_id, image_id and product_key of the active products."""
    columns = [schema.PRODUCT_ID, schema.IMAGE_ID, schema.ACTIVE, *([schema.ATTRIBUTES] if product_key else [])]
    rows = current_products(store, columns)
    rows = rows.filter(rows.column(schema.ACTIVE))
    return rows.select([schema.PRODUCT_ID, schema.IMAGE_ID]), product_keys(rows, product_key)


def active_product_batches(products: CurrentRows, product_key: Sequence[str]) -> Iterator[pa.Table]:
    """product_key, product_id and image_id of the active products' pictures, in batches, always in the same order."""
    columns = [schema.PRODUCT_ID, schema.IMAGE_ID, schema.IMAGE_LIST, schema.ACTIVE]
    columns += [schema.ATTRIBUTES] if product_key else []
    unknown, found = list(product_key), False
    for rows in products.batches(columns):
        rows = rows.filter(rows.column(schema.ACTIVE))
        unknown, found = unknown_attributes(rows, unknown), found or rows.num_rows > 0
        keyed = rows.select([schema.PRODUCT_ID, schema.IMAGE_ID, schema.IMAGE_LIST])
        yield with_pictures(keyed.append_column(PRODUCT_KEY, keys_of(rows, product_key)))
    refuse_unknown(unknown if found else [])


def active_post_batches(posts: CurrentRows) -> Iterator[pa.Table]:
    """post_id, image_id and product_ids of the active posts, in batches, always in the same order."""
    columns = [schema.POST_ID, schema.IMAGE_ID, schema.PRODUCT_IDS]
    for rows in posts.batches([*columns, schema.ACTIVE]):
        yield rows.filter(rows.column(schema.ACTIVE)).select(columns)


def active_posts(store: str) -> pa.Table:
    """post_id, image_id and product_ids of the active posts."""
    columns = [schema.POST_ID, schema.IMAGE_ID, schema.PRODUCT_IDS]
    rows = current_posts(store, [*columns, schema.ACTIVE])
    return rows.filter(rows.column(schema.ACTIVE)).select(columns)
