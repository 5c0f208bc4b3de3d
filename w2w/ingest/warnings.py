"""What could not be read of a feed, as rows of table `warnings`."""

import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.ingest.raw import WARNED
from w2w.table.parts import Output

WARNINGS_LIST = "warnings"
WARN_NEEDS = (schema.PRODUCT_ID, schema.ROW_DIGEST, schema.SOURCE, schema.FEED, WARNED)
WARN_GIVES = pa.schema([(WARNINGS_LIST, pa.list_(pa.struct(list(schema.WARNINGS.schema))))])
WARNINGS = Output(schema.WARNINGS, unique=schema.WARNING_ID, nested=WARNINGS_LIST)


def warn(rows: pa.Table, *, run_id: str) -> pa.Table:
    """Adds WARN_GIVES. A row that is read again, unchanged, gives the same ids."""
    lists = rows.column(WARNED).combine_chunks()
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    said = pa.Table.from_struct_array(lists.flatten())
    of = rows.select([c for c in WARN_NEEDS if c != WARNED]).take(pa.array(np.repeat(np.arange(rows.num_rows), counts)))
    values = {name: of.column(name).combine_chunks() for name in of.column_names}
    values |= {name: said.column(name).combine_chunks() for name in said.column_names}
    named = (schema.PRODUCT_ID, schema.ROW_DIGEST, schema.COLUMN, schema.REJECT_DETAIL)
    values[schema.WARNING_ID] = pa.array(
        [ids.digest(*one, length=32) for one in zip(*(values[c].to_pylist() for c in named))], pa.string()
    )
    values[schema.WARNED_AT] = pa.repeat(pa.scalar(time.time_ns() // 1000, schema.TIME), said.num_rows)
    values[schema.RUN_ID] = pa.repeat(pa.scalar(run_id), said.num_rows)
    structs = pa.StructArray.from_arrays([values[f.name] for f in schema.WARNINGS.schema], fields=list(schema.WARNINGS.schema))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    return rows.append_column(WARNINGS_LIST, pa.ListArray.from_arrays(offsets, structs))
