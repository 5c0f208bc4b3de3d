"""The products and posts that mining counts with: active, in their newest row."""

from collections.abc import Sequence

import pyarrow as pa

from w2w import schema
from w2w.mining.identity import product_keys
from w2w.table import delta


def active_products(store: str, product_key: Sequence[str], version: int | None = None) -> tuple[pa.Table, pa.ChunkedArray]:
    """product_id and image_id of the active products, and the product that each of them is."""
    columns = [schema.PRODUCT_ID, schema.IMAGE_ID, schema.ACTIVE, *([schema.ATTRIBUTES] if product_key else [])]
    rows = delta.current_products(store, columns, version)
    rows = rows.filter(rows.column(schema.ACTIVE))
    return rows.select([schema.PRODUCT_ID, schema.IMAGE_ID]), product_keys(rows, product_key)


def active_posts(store: str, version: int | None = None) -> pa.Table:
    """post_id, image_id and product_ids of the active posts."""
    columns = [schema.POST_ID, schema.IMAGE_ID, schema.PRODUCT_IDS]
    rows = delta.current_posts(store, [*columns, schema.ACTIVE], version)
    return rows.filter(rows.column(schema.ACTIVE)).select(columns)
