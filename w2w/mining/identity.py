"""Which rows of the catalog are one product: mining may know it better than the feed's ids do."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.errors import UsageError

_BETWEEN = "\x1f"  # ASCII's unit separator: no feed has it inside a value


def product_keys(products: pa.Table, by: Sequence[str]) -> pa.ChunkedArray:
    """string (N,): the product that each row of ``products`` (product_id, attributes) shows.

    ``by``: attributes that together make a product (sku, colour), for a feed with a row for every picture; none: the
    feed's product_id is the product. A row that lacks one of them is a product of its own. Raises UsageError where no row
    has an attribute of that name.
    """
    own = products.column(schema.PRODUCT_ID)
    if not by:
        return own
    values = []
    for name in by:
        value = pc.map_lookup(products.column(schema.ATTRIBUTES), name, "first")
        if products.num_rows and value.null_count == products.num_rows:
            raise UsageError(f"--product_key: no product has an attribute {name!r}; feed.attributes names those that are kept")
        values.append(pc.if_else(pc.equal(value, ""), pa.scalar(None, pa.string()), value))
    return pc.coalesce(pc.binary_join_element_wise(*values, _BETWEEN), own)
