"""Which pictures search or training may use, as table `permissions` says. Every job that indexes, shows, mines or trains on
pictures chooses them through here (tests/unit/test_permitted.py)."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.table import delta

SEARCH, TRAINING = schema.SEARCH, schema.TRAINING
_NONE = pa.array([], pa.string())


@dataclass(frozen=True)
class Permitted:
    """All pictures but ``refused``, image ids in order. A picture that was fetched from several places may be used if none of
    them refuses it; one without a row of `permissions` may."""

    use: str = SEARCH
    refused: pa.Array = field(default_factory=lambda: _NONE)

    def mask(self, image_ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """bool, shape (n,): whether each picture may be used. True for null."""
        if not len(self.refused):
            return np.ones(len(image_ids), bool)
        return ~pc.is_in(image_ids, value_set=self.refused).to_numpy(zero_copy_only=False)

    def of(self, rows: pa.Table, columns: Sequence[str] = (schema.IMAGE_ID,)) -> pa.Table:
        """The rows of which every picture in these columns may be used."""
        if not len(self.refused):
            return rows
        return rows.filter(pa.array(np.logical_and.reduce([self.mask(rows.column(c)) for c in columns])))

    def of_lists(self, rows: pa.Table, column: str) -> pa.Table:
        """The rows of which every picture in a list (of structs with image_id) may be used."""
        if not len(self.refused):
            return rows
        lists = rows.column(column).combine_chunks()
        bad = ~self.mask(pc.list_flatten(lists).field(schema.IMAGE_ID))
        kept = np.ones(rows.num_rows, bool)
        kept[pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)[bad]] = False
        return rows.filter(pa.array(kept))

    @property
    def num(self) -> int | None:
        """Number of refused pictures; None for none, as results leave it out."""
        return len(self.refused) or None

    def allows(self, image_id: str | None) -> bool:
        return image_id not in self._set

    @cached_property
    def _set(self) -> frozenset[str]:
        return frozenset(self.refused.to_pylist())

    @property
    def told(self) -> tuple[str, ...]:
        """For the version of what is made without them; nothing where all may be used, so that nothing is made anew."""
        return (f"without {ids.digest_rows(self.refused.to_pylist())}",) if len(self.refused) else ()


def permitted(store: str, use: str) -> Permitted:
    """``use``: SEARCH or TRAINING. In memory: 70 bytes per refused picture, and a byte per row of `permissions`."""
    assert use in (SEARCH, TRAINING), use
    refused = [pa.chunked_array([], pa.string())]
    now = pa.scalar(time.time_ns() // 1000, schema.TIME)
    for rows in delta.CurrentRows(store, schema.PERMISSIONS).batches([schema.IMAGE_ID, use, schema.UNTIL]):
        no = pc.invert(rows.column(use))
        if use == SEARCH:
            no = pc.or_(no, pc.fill_null(pc.less(rows.column(schema.UNTIL), now), False))
        refused.append(rows.filter(no).column(schema.IMAGE_ID))
    found = pc.unique(pa.chunked_array([chunk for some in refused for chunk in some.chunks], pa.string()))
    return Permitted(use, found.take(pc.array_sort_indices(found)))
