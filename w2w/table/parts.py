"""Parquet parts: what a worker writes to a table, and the receipt of each that it sends the driver."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from w2w import schema, storage
from w2w.shown import without_secrets
from w2w.table import delta
from w2w.table.doubles import has_history

_ROW_GROUP_BYTES = 64 << 20

RECEIPT_SCHEMA = pa.schema(
    [
        pa.field("table", pa.string()),
        pa.field("path", pa.string()),
        pa.field("rows", pa.int64()),
        pa.field("size", pa.int64()),
        pa.field("partition", pa.string()),  # JSON
        pa.field("stats", pa.string()),  # JSON, Delta's per-file statistics
        pa.field("unique_ids", pa.list_(pa.string())),
        pa.field("counts", pa.string()),  # JSON, on one receipt per batch: rows read, rows per stage, rejects by code
    ]
)


@dataclass(frozen=True)
class Output:
    """One table that a job writes. ``unique``: a content id that must be unique in the table, whichever run writes it.

    ``nested``: the column whose lists hold the table's rows, for a stage that makes any number of rows from one. ``only``: a
    column; rows in which it is null do not go to this table.
    """

    table: schema.Table
    unique: str | None = None
    nested: str | None = None
    only: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the output takes from a stage's result."""
        if self.nested:
            return (self.nested,)
        return tuple(dict.fromkeys([*self.table.schema.names, *filter(None, [self.only])]))


def write_part(store: str, output: Output, rows: pa.Table, run_id: str) -> list[dict]:
    """Writes the rows as Parquet parts, one per partition, and returns their receipts. Runs in a worker.

    ``rows`` must have the table's columns, but for those that a table of an earlier w2w lacks, which become null; others are
    ignored. Of rows with the same ``unique`` id, the first is kept.
    """
    table = output.table
    if output.nested:
        rows = _unnested(rows.column(output.nested))
    if output.only:
        rows = rows.filter(pc.is_valid(rows.column(output.only)))
    rows = pa.Table.from_arrays([_column(rows, f) for f in table.schema], schema=table.schema)
    if output.unique:
        rows = _first_of_each(rows.filter(pc.is_valid(rows.column(output.unique))), output.unique)
    if rows.num_rows == 0:
        return []
    if table in (schema.REJECTS, schema.WARNINGS):
        rows = _without_secrets(rows, [schema.REJECT_DETAIL, schema.SOURCE])
    if not table.partition_by:
        return [_write(store, output, rows, {}, run_id)]
    (column,) = table.partition_by
    values = pc.unique(rows.column(column)).to_pylist()
    if len(values) == 1:
        return [_write(store, output, rows, {column: values[0]}, run_id)]
    return [_write(store, output, rows.filter(pc.equal(rows.column(column), v)), {column: v}, run_id) for v in values]


def _column(rows: pa.Table, f: pa.Field) -> pa.ChunkedArray:
    if f.name not in rows.column_names and f.nullable:
        return pa.chunked_array([pa.nulls(rows.num_rows, f.type)])
    return rows.column(f.name).cast(f.type)


def _without_secrets(rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    for name in columns:
        texts = pa.array(map(without_secrets, rows.column(name).to_pylist()), pa.string())
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), texts)
    return rows


def _unnested(lists: pa.ChunkedArray) -> pa.Table:
    structs = pc.list_flatten(lists)
    return pa.concat_tables([pa.Table.from_struct_array(c) for c in structs.chunks] or [_no_rows(structs.type)])


def _no_rows(kind: pa.StructType) -> pa.Table:
    return pa.schema(list(kind)).empty_table()


def _first_of_each(rows: pa.Table, column: str) -> pa.Table:
    _, first = np.unique(np.asarray(rows.column(column).to_pylist(), dtype=object).astype(str), return_index=True)
    return rows if len(first) == rows.num_rows else rows.take(pa.array(np.sort(first)))


def _write(store: str, output: Output, rows: pa.Table, partition: dict[str, str], run_id: str) -> dict:
    table = output.table
    folder = "/".join(f"{k}={v}" for k, v in partition.items())
    path = "/".join(filter(None, [folder, f"{run_id}-{uuid.uuid4().hex}.parquet"]))
    system, root = storage.filesystem(delta.uri(store, table))
    with storage.named("write", f"{root}/{path}"):
        if not storage.is_s3(store):
            system.create_dir(f"{root}/{folder}" if folder else root, recursive=True)
    stored = rows.drop_columns(list(partition))
    row_bytes = max(1, stored.nbytes // max(1, stored.num_rows))
    with storage.named("write", f"{root}/{path}"), system.open_output_stream(f"{root}/{path}") as sink:
        pq.write_table(
            stored,
            sink,
            row_group_size=max(1, _ROW_GROUP_BYTES // row_bytes),
            compression={_leaf(f): "none" if f.name == schema.BYTES else "zstd" for f in stored.schema},
            use_dictionary=[c for c in (schema.CATEGORY, schema.OWNER_KIND, schema.FORMAT) if c in stored.column_names],
            column_encoding={_leaf(f): "BYTE_STREAM_SPLIT" for f in stored.schema if f.name == schema.VECTOR} or None,
            write_statistics=[c for c in table.key if c in stored.column_names],
            store_schema=False,
            write_page_checksum=True,
        )
        size = sink.tell()
    return {
        "table": table.name,
        "path": path,
        "rows": rows.num_rows,
        "size": size,
        "partition": json.dumps(partition),
        "stats": json.dumps({"numRecords": rows.num_rows} | _stamps(table, rows)),
        "unique_ids": rows.column(output.unique).to_pylist() if output.unique else None,
        "counts": None,
    }


def _stamps(table: schema.Table, rows: pa.Table) -> dict:
    """Delta's statistics of fetched_at, for a table with a history."""
    if not has_history(table):
        return {}
    ends = pc.min_max(rows.column(schema.FETCHED_AT)).as_py()
    text = {end: at.isoformat(timespec="microseconds").replace("+00:00", "Z") for end, at in ends.items()}
    return {"minValues": {schema.FETCHED_AT: text["min"]}, "maxValues": {schema.FETCHED_AT: text["max"]}}


def _leaf(f: pa.Field) -> str:
    if pa.types.is_list(f.type):
        return f"{f.name}.list.element"
    if pa.types.is_map(f.type):
        return f"{f.name}.key_value.value"
    return f.name
