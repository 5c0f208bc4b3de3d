"""One answer for each variant group: the best of its products."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.index.search import HITS, QUERY, Index
from w2w.index.spec import GROUP, PRODUCT
from w2w.index.within import Within
from w2w.table.current import CurrentRows

_MORE = 4  # times as many hits as before, while a query lacks groups


@dataclass(frozen=True)
class Groups:
    """The variant groups of active products: those without one are their own. Plain values: they travel to workers."""

    product_ids: pa.Array
    group_ids: pa.Array

    @staticmethod
    def of(store: str, version: int | None = None) -> "Groups":
        """About 100 bytes for each product of a group."""
        columns = [schema.PRODUCT_ID, schema.GROUP_ID, schema.ACTIVE]
        batches = CurrentRows(store, schema.PRODUCTS, version).batches(columns)
        kept = [b.filter(pc.and_(b[schema.ACTIVE], b[schema.GROUP_ID].is_valid())) for b in batches]
        rows = pa.concat_tables([schema.PRODUCTS.empty(columns), *kept]).sort_by(schema.PRODUCT_ID).combine_chunks()
        return Groups(rows[schema.PRODUCT_ID].combine_chunks(), rows[schema.GROUP_ID].combine_chunks())

    @property
    def digest(self) -> str:
        """Of who belongs to which group."""
        return ids.digest(self.product_ids.to_pylist(), self.group_ids.to_pylist())

    @cached_property
    def _group_of(self) -> dict[str, str]:
        return dict(zip(self.product_ids.to_pylist(), self.group_ids.to_pylist()))

    def key(self, product_id: str) -> tuple[str, str]:
        """Equal for the products of one group."""
        group = self._group_of.get(product_id)
        return (PRODUCT, product_id) if group is None else (GROUP, group)

    def first(self, products: Sequence[str]) -> list[int]:
        """Positions of the first product of each group."""
        places: dict[tuple[str, str], int] = {}
        for at, product_id in enumerate(products):
            places.setdefault(self.key(product_id), at)
        return list(places.values())

    def search(
        self,
        index: Index,
        vectors_ND: np.ndarray,
        k: int,
        categories: Sequence[str | None],
        within: Within | None = None,
    ) -> pa.Table:
        """The HITS of every query, of each group its best product: k of them, if the index has so many in scope."""
        parts, left, asked = [HITS.empty_table()], np.arange(len(vectors_ND)), 2 * k
        while len(left):
            scopes = [categories[i] for i in left.tolist()]
            found = index.search(vectors_ND[left], asked, scopes, one_per_product=True, within=within)
            of = found[QUERY].to_numpy()
            starts, ends = (np.searchsorted(of, np.arange(len(left)), side) for side in ("left", "right"))
            again = []
            for number, (start, end) in enumerate(zip(starts.tolist(), ends.tolist())):
                mine = found.slice(start, end - start)
                kept = self.first(mine[schema.PRODUCT_ID].to_pylist())[:k]
                if len(kept) < k and end - start == asked:
                    again.append(number)
                    continue
                parts.append(_ranked(mine.take(pa.array(kept, pa.int64())), int(left[number])))
            left, asked = left[again], asked * _MORE
        return pa.concat_tables(parts).sort_by([(QUERY, "ascending"), (schema.RANK, "ascending")])


def _ranked(hits: pa.Table, query: int) -> pa.Table:
    columns = {QUERY: np.full(hits.num_rows, query), schema.RANK: np.arange(1, hits.num_rows + 1)}
    for name, values in columns.items():
        field = HITS.field(name)
        hits = hits.set_column(HITS.get_field_index(name), field, pa.array(values.astype(np.int32), field.type))
    return hits
