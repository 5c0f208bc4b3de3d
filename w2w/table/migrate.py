"""Tables that an earlier w2w wrote, brought to today's columns."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.errors import JobFailed
from w2w.table import delta, maintain


@dataclass(frozen=True)
class Migrated:
    """``columns`` were added, null in rows of before; ``filled`` rows of `products` got their list of pictures, of one."""

    rows_before: int
    rows_after: int
    columns: tuple[str, ...] = ()
    filled: int = 0

    def words(self, would: str = "") -> str:
        said = f"{self.rows_before:,} rows before, {self.rows_after:,} after"
        said += f"; columns {would}added: {', '.join(self.columns)}" if self.columns else ""
        return said + (f"; {self.filled:,} rows {would}given their list of pictures" if self.filled else "")


def migrate(store: str, table: schema.Table, dry_run: bool = False) -> Migrated:
    """Adds the columns that the table lacks, and fills ``products.images`` where it is null. No row comes or goes: raises
    JobFailed if one has, which only another run can have done. A run that dies is repeated."""
    opened = delta.existing(store, table)
    before = delta.count_rows(opened)
    known = pa.schema(opened.schema().to_arrow()).names
    later = tuple(f.name for f in table.schema if f.name not in known)
    if later and not dry_run:
        delta.create_table(store, table)
    filled = 0
    if table is schema.PRODUCTS:
        filled = maintain.rewrite(store, table, lambda listed: _without_list(store, listed), _with_list, "migrate", dry_run)
    after = delta.count_rows(delta.existing(store, table))
    if after != before:
        raise JobFailed(f"table {table.name!r} had {before:,} rows and has {after:,}: another run writes to it; run this again")
    return Migrated(before, after, later, filled)


def _without_list(store: str, listed: Sequence[delta.Part]) -> np.ndarray:
    """bool: for each row of the parts, whether it has a picture and no list of pictures."""
    columns = [schema.IMAGE_ID, schema.IMAGE_LIST]
    found = [np.empty(0, bool)]
    for rows in delta.read_batches(store, schema.PRODUCTS, columns, listed):
        found.append(pc.and_(rows.column(0).is_valid(), rows.column(1).is_null()).to_numpy())
    return np.concatenate(found)


def _with_list(rows: pa.Table, mask: np.ndarray) -> pa.Table:
    """The rows, those of ``mask`` with a list of their one picture."""
    n = rows.num_rows
    values = {
        schema.IMAGE_ID: rows.column(schema.IMAGE_ID).combine_chunks(),
        schema.URI: rows.column(schema.IMAGE_URI).combine_chunks(),
        schema.POSITION: pa.repeat(pa.scalar(1, pa.int32()), n),
        schema.ROLE: pa.repeat(pa.scalar(schema.FRONT), n),
        schema.FINGERPRINT: rows.column(schema.IMAGE_FINGERPRINT).combine_chunks(),
    }
    fronts = pa.StructArray.from_arrays([values[f.name] for f in schema.PICTURE], fields=list(schema.PICTURE))
    lists = pa.ListArray.from_arrays(pa.array(np.arange(n + 1), pa.int32()), fronts)
    at = rows.schema.get_field_index(schema.IMAGE_LIST)
    both = pc.if_else(pa.array(mask), lists, rows.column(schema.IMAGE_LIST).combine_chunks().cast(lists.type))
    return rows.set_column(at, rows.schema.field(at), both)
