"""Snapshot tables, computed bucket by bucket on Ray and committed whole."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from w2w import schema
from w2w.engine.exchange import Side, by_key
from w2w.engine.run import reject_rows
from w2w.stage import REJECTED_SCHEMA, Counts, count
from w2w.table import snapshot
from w2w.table.parts import Output, write_part
from w2w.table.sink import Lineage
from w2w.table.tolerance import Tolerance

_ROWS_PER_PART = 250_000


@dataclass(frozen=True)
class Made:
    """The outcome of a bucket: of ``read`` rows, each ends in ``rows`` or in ``rejected`` (``REJECTED_SCHEMA``). If ``rows`` do
    not correspond one to one, ``read`` is None and nothing is rejected."""

    rows: pa.Table
    rejected: pa.Table = field(default_factory=REJECTED_SCHEMA.empty_table)
    read: int | None = None


def make_snapshot(
    store: str,
    table: schema.Table,
    sides: Sequence[Side],
    make: Callable[..., Made],
    arguments: tuple,
    lineage: Lineage,
    *,
    tolerance: Tolerance = Tolerance(),
    num_buckets: int | None = None,
) -> tuple[Counts, dict[str, int]]:
    """Replaces the table's content by what ``make(tables, *arguments)`` returns for every bucket of the sides.

    Raises JobFailed and leaves the table unchanged if more rows are rejected than ``tolerance`` allows.
    """
    made = by_key(store, sides, _write, (store, table, make, arguments, lineage), num_buckets=num_buckets, title=lineage.job)
    return commit_snapshot(store, table, [r for bucket in made for r in bucket], lineage, tolerance)


def commit_snapshot(
    store: str,
    table: schema.Table,
    receipts: Sequence[dict],
    lineage: Lineage,
    tolerance: Tolerance,
    source: str = schema.OWN,
) -> tuple[Counts, dict[str, int]]:
    """Makes the parts the table's content (that of ``source`` in a table with several).

    Raises JobFailed and leaves the table unchanged if more rows are rejected than ``tolerance`` allows.
    """
    counts = Counts()
    for receipt in receipts:
        counts.add(Counts.from_json(receipt["counts"]) if receipt["counts"] else Counts())
    tolerance.check(counts.rejects, counts.read)
    counts, version = snapshot.replace(store, table, receipts, lineage, source)
    return counts, {table.name: version}


def replace_rows(
    store: str, table: schema.Table, batches: Iterable[pa.Table], lineage: Lineage, source: str = schema.OWN
) -> tuple[Counts, dict[str, int]]:
    """The same for rows made in this process, one batch at a time; it holds one part in memory."""
    receipts: list[dict] = []
    held: list[pa.Table] = []
    for batch in batches:
        held.append(batch)
        if sum(b.num_rows for b in held) >= _ROWS_PER_PART:
            receipts += written(store, table, Made(pa.concat_tables(held)), lineage)
            held = []
    if held or not receipts:
        receipts += written(store, table, Made(pa.concat_tables([table.schema.empty_table(), *held])), lineage)
    counts, version = snapshot.replace(store, table, receipts, lineage, source)
    return counts, {table.name: version}


def add_rows(store: str, table: schema.Table, rows: pa.Table, lineage: Lineage, source: str, at: int) -> dict[str, int]:
    """Adds rows to the content of ``source``, in a table in layers (``w2w.table.layered``) as it was at version ``at``."""
    receipts = write_part(store, Output(table), rows, lineage.run_id)
    return {table.name: snapshot.add_layer(store, table, receipts, lineage, source, at)}


def _write(tables: list[pa.Table], store: str, table: schema.Table, make: Callable, arguments: tuple, lineage: Lineage):
    return written(store, table, make(tables, *arguments), lineage)


def written(store: str, table: schema.Table, made: Made, lineage: Lineage) -> list[dict]:
    """Writes the rows as parts; returns their receipts, with the counts on the first."""
    receipts = write_part(store, Output(table), made.rows, lineage.run_id)
    if made.rejected.num_rows:
        receipts += write_part(store, Output(schema.REJECTS), reject_rows(made.rejected, lineage), lineage.run_id)
    receipts = receipts or [{"table": table.name, "path": None}]
    read = made.rows.num_rows if made.read is None else made.read
    receipts[0] |= {"counts": count(read, made.rows, made.rejected, [lineage.stage]).to_json()}
    return receipts
