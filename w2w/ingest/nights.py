"""Nights: how long a product has been missing from its feed, and when pictures are fetched again.

A night is not a date: a run repeated within hours, before or after midnight, belongs to the same night, and a clock set back
must not stop the count for weeks. So two times belong to one night if they are less than half a day apart.
"""

import time

import numpy as np
import pyarrow as pa

from w2w import schema

_HALF_DAY_US = 12 * 3600 * 1_000_000


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def count_absences(before: pa.Table, missing: pa.Array, feed: str, now: int) -> pa.Table:
    """The rows of ABSENCES of a feed after a night in which it did not list ``missing``. ``before``: its earlier rows; products
    that are listed again lose theirs."""
    times = before.column(schema.COUNTED_AT).cast(pa.int64()).to_pylist()
    counted = zip(before.column(schema.PRODUCT_ID).to_pylist(), before.column(schema.NIGHTS).to_pylist(), times)
    known = {product: (nights, at) for product, nights, at in counted}
    rows = []
    for product in missing.to_pylist():
        nights, at = known.get(product, (0, None))
        if at is None or abs(now - at) >= _HALF_DAY_US:
            nights, at = nights + 1, now
        rows.append({schema.SOURCE: feed, schema.PRODUCT_ID: product, schema.NIGHTS: nights, schema.COUNTED_AT: at})
    return pa.Table.from_pylist(rows, schema=schema.ABSENCES.schema)


def recheck_is_due(checked_at_us: np.ndarray, now: int, every_nights: int) -> bool:
    """Whether this many nights have passed since each of these times; never if ``every_nights`` is 0."""
    least_us = (2 * every_nights - 1) * _HALF_DAY_US
    return every_nights > 0 and not (np.abs(checked_at_us - now) < least_us).any()
