"""Batches into a table of LanceDB, a database in a folder or bucket: merged by product_id."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.errors import JobFailed
from w2w.export.flow import Send
from w2w.export.rules import DELETE, UPSERT

_AT_ONCE = 500  # ids in a condition


def target(uri: str, table: str, dim: int) -> Send:
    """Makes the table if it is missing. ``dim``: length of the vectors; 0 for none. Raises JobFailed for what it refuses."""
    import lancedb

    fields = [f for f in schema.CHANGE if f.name not in (schema.OP, *(() if dim else (schema.MODEL_VERSION, schema.VECTOR)))]
    vector = pa.list_(pa.float32(), dim)
    kinds = pa.schema([pa.field(f.name, vector if f.name == schema.VECTOR else _kind(f.type)) for f in fields])
    with _refusals():
        database = lancedb.connect(uri)
        if table in database.list_tables().tables:
            _check_vectors(database.open_table(table).schema, kinds, table)
        known = database.create_table(table, schema=kinds, exist_ok=True)

    def send(number: int, batch: pa.Table) -> None:
        ops = batch.column(schema.OP)
        rows = batch.filter(pc.equal(ops, UPSERT)).select(kinds.names).cast(kinds)
        gone = batch.filter(pc.equal(ops, DELETE)).column(schema.PRODUCT_ID).to_pylist()
        with _refusals():
            if rows.num_rows:
                merge = known.merge_insert(schema.PRODUCT_ID).when_matched_update_all().when_not_matched_insert_all()
                merge.execute(rows, on_bad_vectors="null")  # one that is null counts as bad
            for start in range(0, len(gone), _AT_ONCE):
                listed = ", ".join("'" + product.replace("'", "''") + "'" for product in gone[start : start + _AT_ONCE])
                known.delete(f"{schema.PRODUCT_ID} IN ({listed})")

    return send


def _check_vectors(there: pa.Schema, kinds: pa.Schema, table: str) -> None:
    """Raises JobFailed for a table whose vectors are of another length, as those of another encoder are."""
    has, sends = (
        f"vectors of length {s.field(schema.VECTOR).type.list_size}" if schema.VECTOR in s.names else "no vectors"
        for s in (there, kinds)
    )
    if has != sends:
        raise JobFailed(
            f"LanceDB: table {table!r} has {has}, and what is sent has {sends}: name another --collection, or drop the table "
            f"and send everything with --again"
        )


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, OSError) as e:
        raise JobFailed(f"LanceDB: {str(e).strip().splitlines()[0]}") from e


def _kind(kind: pa.DataType) -> pa.DataType:
    """Lance has no maps: lists of keys and values."""
    if not pa.types.is_map(kind):
        return kind
    return pa.list_(pa.struct([pa.field("key", pa.string(), nullable=False), pa.field("value", kind.item_type)]))
