"""The order of an index's rows, found without a copy of them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w.errors import UsageError
from w2w.schema import CATEGORY, IMAGE_ID, PRODUCT_ID

_BY = [(PRODUCT_ID, "ascending"), (IMAGE_ID, "ascending")]
_AT_ONCE = 65_536  # rows compared


def row_order(rows: pa.Table) -> np.ndarray:
    """int64 (rows,): the rows (product_id, image_id, category) by category, product and picture. In memory: 20 bytes a row, and
    a copy of the rows of one category at a time whose products are not in order, or have several pictures. Raises UsageError
    for nulls, duplicates and an empty table."""
    if not rows.num_rows:
        raise UsageError("there are no rows to index")
    for name in (PRODUCT_ID, IMAGE_ID, CATEGORY):
        if rows[name].null_count:
            raise UsageError(f"{rows[name].null_count} rows to index have no {name}")
    code_N, num = category_codes(rows)
    order = np.argsort(code_N, kind="stable")
    ends = np.cumsum(np.bincount(code_N, minlength=num))
    duplicates, twice = 0, None
    for start, end in zip([0, *ends[:-1]], ends):
        mine = order[start:end]
        if _ascending(rows[PRODUCT_ID], mine):
            continue
        some = rows.select([PRODUCT_ID, IMAGE_ID]).take(pa.array(mine))
        mine[:] = mine[pc.sort_indices(some, _BY).to_numpy()]
        same = _same_as_before(rows, mine)
        if len(same) and twice is None:
            twice = rows.select([PRODUCT_ID, IMAGE_ID, CATEGORY]).take(pa.array(mine[same[:1]])).to_pylist()[0]
        duplicates += len(same)
    if duplicates:
        raise UsageError(f"{duplicates} rows to index are duplicates, for example {twice}")
    return order


def category_codes(rows: pa.Table) -> tuple[np.ndarray, int]:
    """The number of each row's category in the order of their names, (rows,) of an unsigned type; and how many there are."""
    names = pc.unique(rows[CATEGORY])
    names = names.take(pc.sort_indices(names))
    small = np.uint16 if len(names) < 1 << 16 else np.uint32  # those of 16 bits are sorted in linear time
    codes = [np.empty(0, small), *(_codes(chunk, names, small) for chunk in rows[CATEGORY].chunks)]
    return np.concatenate(codes), len(names)


def _codes(chunk: pa.Array, names: pa.Array, small: type) -> np.ndarray:
    parts = (chunk.slice(i, _AT_ONCE) for i in range(0, len(chunk), _AT_ONCE))
    return np.concatenate([pc.index_in(part, value_set=names).to_numpy(zero_copy_only=False).astype(small) for part in parts])


def _ascending(column: pa.ChunkedArray, order: np.ndarray) -> bool:
    """Whether each value is greater than the one before."""
    for start in range(0, len(order) - 1, _AT_ONCE):
        some = column.take(pa.array(order[start : start + _AT_ONCE + 1]))
        if not pc.all(pc.less(some[:-1], some[1:])).as_py():
            return False
    return True


def _same_as_before(rows: pa.Table, order: np.ndarray) -> np.ndarray:
    """Places in the order (from 1) of rows whose product and picture are those of the row before."""
    found = [np.empty(0, np.int64)]
    for start in range(0, len(order) - 1, _AT_ONCE):
        some = rows.select([PRODUCT_ID, IMAGE_ID]).take(pa.array(order[start : start + _AT_ONCE + 1]))
        same = pc.and_(*(pc.equal(some[name][1:], some[name][:-1]) for name in some.column_names))
        found.append(1 + start + np.flatnonzero(same.to_numpy()))
    return np.concatenate(found)
