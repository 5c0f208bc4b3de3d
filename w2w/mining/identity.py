"""Product identity: which catalog rows are one product. Mining may know it better than the feed's ids."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.errors import UsageError

_BETWEEN, _ESCAPE = "\x1f", "\x1e"  # ASCII's unit and record separators, which hardly any value contains


def product_keys(products: pa.Table, by: Sequence[str]) -> pa.ChunkedArray:
    """string (N,): the product that each row of ``products`` (product_id, attributes) shows.

    ``by``: attributes that together identify a product (sku, colour), for a feed with a row per picture; none: the feed's
    product_id. A row that lacks one of them is a product of its own. Raises UsageError if no row has an attribute of that name.
    """
    if products.num_rows:
        refuse_unknown(unknown_attributes(products, by))
    return keys_of(products, by)


def keys_of(products: pa.Table, by: Sequence[str]) -> pa.ChunkedArray:
    """The same for part of a table, in which the attributes may be missing altogether."""
    own = products.column(schema.PRODUCT_ID)
    values = [_values(products, name) for name in by]
    values = [pc.if_else(pc.equal(value, ""), pa.scalar(None, pa.string()), value) for value in values]
    return pc.coalesce(ids.joined(values, _BETWEEN, _ESCAPE), own) if by else own


def unknown_attributes(products: pa.Table, by: Sequence[str]) -> list[str]:
    """Those of ``by`` that no row has."""
    return [name for name in by if _values(products, name).null_count == products.num_rows]


def refuse_unknown(names: Sequence[str]) -> None:
    """Raises UsageError if there are any."""
    if names:
        raise UsageError(f"--product_key: no product has an attribute {names[0]!r}; feed.attributes names those that are kept")


def _values(products: pa.Table, name: str) -> pa.ChunkedArray:
    return pc.map_lookup(products.column(schema.ATTRIBUTES), name, "first")
