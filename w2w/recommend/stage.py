"""The stage that answers questions: candidates in, outfits out."""

import time

import pyarrow as pa

from w2w import schema
from w2w.errors import Reject, RejectCode
from w2w.recommend.answers import of_text, stored
from w2w.recommend.rules import Stylist
from w2w.stage import with_rejects

QUESTION = "question"  # JSON; null for a product without a vector
WORK = pa.schema(
    [
        (schema.KEY, pa.string()),  # product and digest
        (schema.PRODUCT_ID, pa.string()),
        (schema.ROW_DIGEST, pa.string()),
        (schema.ACTIVE, pa.bool_()),  # false: no longer sold
        (QUESTION, pa.string()),
    ]
)
GIVES = pa.schema(
    [
        schema.RECOMMENDATIONS.schema.field(c)
        for c in (schema.OUTFITS_LIST, schema.REASON, schema.STAGE_VERSION, schema.RUN_ID, schema.FETCHED_AT)
    ]
)


class Recommend:
    """Adds the outfits of each product. ``stylist`` holds the whole projected catalog: about 1 kB per product in each
    worker."""

    def __init__(self, stylist: Stylist, version: str, run_id: str):
        self._stylist, self._version, self._run_id = stylist, version, run_id

    def __call__(self, rows: pa.Table) -> pa.Table:
        rejects: list[Reject | None] = []
        outfits, details = [], []
        for active, text in zip(rows.column(schema.ACTIVE).to_pylist(), rows.column(QUESTION).to_pylist()):
            lacks = active and text is None
            reject = Reject(RejectCode.NO_VECTOR, "its picture has no vector: run 'w2w embed'") if lacks else None
            found, why = stored(self._stylist, of_text(text)) if active and text else ([], None)
            rejects.append(reject)
            outfits.append(found)
            details.append(why if active else "it is no longer sold, or of no class that the scorer knows")
        n = rows.num_rows
        columns = {
            schema.OUTFITS_LIST: pa.array(outfits, GIVES.field(schema.OUTFITS_LIST).type),
            schema.REASON: pa.array(details, pa.string()),
            schema.STAGE_VERSION: pa.repeat(pa.scalar(self._version), n),
            schema.RUN_ID: pa.repeat(pa.scalar(self._run_id), n),
            schema.FETCHED_AT: pa.repeat(pa.scalar(time.time_ns() // 1000, schema.TIME), n),
        }
        for name, values in columns.items():
            rows = rows.append_column(name, values)
        return with_rejects(rows, rejects)
