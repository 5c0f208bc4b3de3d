"""The products that a filter lets through, in one state of the store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from w2w import ids, schema
from w2w.index.filters import NEEDS, allowed, reads_tags, seen_columns, texts
from w2w.table import delta
from w2w.table.current import CurrentRows


@dataclass(frozen=True)
class Passing:
    """Plain values, found once and before anything else: they travel to workers, which all search the same products.
    ``products_version`` of the table; ``tagger`` of a filter by what pictures show: the newest one, and its table's version."""

    product_ids: pa.Array
    products_version: int
    tagger: tuple[str, int] | None = None

    @staticmethod
    def of(store: str, chosen: Mapping[str, Any]) -> "Passing | None":
        """None without a filter. About 20 bytes for each product that passes; the columns of all products are held meanwhile.
        Raises UsageError for a name that no product has, an impossible value, and a store without products."""
        if not chosen:
            return None
        wanted = texts(chosen)
        products_version = delta.need_table(store, schema.PRODUCTS, "ingest").version()
        tagger = _tagger(store) if reads_tags(wanted) else None
        columns = [*NEEDS, schema.IMAGE_ID]
        newest = CurrentRows(store, schema.PRODUCTS, products_version).batches(columns)
        rows = pa.concat_tables([schema.PRODUCTS.empty(columns), *newest])
        seen = _seen(store, rows, wanted, tagger) if tagger else {}
        passing = rows.column(schema.PRODUCT_ID).filter(pa.array(allowed(rows, wanted, seen)))
        return Passing(passing.combine_chunks(), products_version, tagger)

    @cached_property
    def digest(self) -> str:
        """Of the products alone, in any order."""
        return ids.digest(sorted(self.product_ids.to_pylist()))


def _seen(
    store: str, rows: pa.Table, wanted: Mapping[str, Sequence[str]], tagger: tuple[str, int]
) -> dict[str, pa.ChunkedArray]:
    newest, version = tagger
    listed = delta.parts(delta.open_table(store, schema.TAGGED, version), **{schema.STAGE_VERSION: newest})
    columns = [schema.OWNER_ID, schema.TAGS]
    none = schema.TAGGED.empty(columns)
    tagged = pa.concat_tables([none, *delta.read_batches(store, schema.TAGGED, columns, listed)])
    return seen_columns(rows.column(schema.IMAGE_ID), tagged, list(wanted))


def _tagger(store: str) -> tuple[str, int]:
    """Raises UsageError if there is none."""
    table, newest = delta.need_table(store, schema.TAGGED, "tag"), delta.finished_version(store, schema.TAGGED, "tag")
    return newest or "", table.version()
