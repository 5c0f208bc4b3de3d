"""The stage that answers questions: candidates in, outfits out."""

import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from w2w import schema
from w2w.errors import Reject, RejectCode
from w2w.garments.taxonomy import CATEGORIES
from w2w.recommend.answers import digest_of, stored
from w2w.recommend.rules import Question, Stylist
from w2w.stage import with_rejects

AT, BEFORE, NEW = "at", "before", "new"
WORK = pa.schema(
    [
        (schema.KEY, pa.string()),
        (schema.PRODUCT_ID, pa.string()),
        (schema.ACTIVE, pa.bool_()),  # false: it is no longer sold
        (AT, pa.int64()),  # its row of the shelf; null if it is not there
        (BEFORE, pa.string()),  # the digest of its newest row; of a product that is not on the shelf, that of the new one
    ]
)
GIVES = pa.schema(
    [
        schema.RECOMMENDATIONS.schema.field(c)
        for c in schema.RECOMMENDATIONS.schema.names
        if c not in (schema.PRODUCT_ID, schema.ACTIVE)
    ]
    + [(NEW, pa.bool_())]  # null: what decides its outfits is as before, and no row is written
)


class Recommend:
    """Adds the outfits of each product. ``stylist`` holds the whole catalog, placed: about 1 kB a product in each worker;
    ``mark_N`` as in ``answers.marks``."""

    def __init__(self, stylist: Stylist, mark_N: np.ndarray, version: str, run_id: str):
        self._stylist, self._mark_N, self._version, self._run_id = stylist, mark_N, version, run_id

    def __call__(self, rows: pa.Table) -> pa.Table:
        places = rows.column(AT).to_pylist()
        asked = self._asked([at for at in places if at is not None])
        made, rejects = [], list[Reject | None]()
        for at, active, before in zip(places, *(rows.column(c).to_pylist() for c in (schema.ACTIVE, BEFORE))):
            lacks = active and at is None
            rejects.append(Reject(RejectCode.NO_VECTOR, "its picture has no vector: run 'w2w embed'") if lacks else None)
            made.append(self._gone(before) if at is None else self._row(asked[at], before))
        now = {schema.STAGE_VERSION: self._version, schema.RUN_ID: self._run_id, schema.FETCHED_AT: time.time_ns() // 1000}
        found = pa.Table.from_pylist([row | now for row in made], schema=pa.schema([f.with_nullable(True) for f in GIVES]))
        for column in GIVES:
            rows = rows.append_column(column.name, found.column(column.name))
        return with_rejects(rows, rejects)

    def _asked(self, places: Sequence[int]) -> dict[int, Question]:
        by_class: dict[str, list[int]] = {}
        for at in places:
            by_class.setdefault(self._stylist.category(at), []).append(at)
        return {at: q for some in by_class.values() for at, q in zip(some, self._stylist.questions([(at,) for at in some]))}

    def _row(self, question: Question, before: str | None) -> dict:
        digest = digest_of(question, self._mark_N, self._version)
        if digest == before:
            return {schema.OUTFITS_LIST: [], schema.ROW_DIGEST: digest}
        outfits, why = stored(self._stylist, question)
        floors = [question.floors.get(c, np.nan) for c in CATEGORIES]
        return {
            schema.OUTFITS_LIST: outfits,
            schema.REASON: why,
            schema.ROW_DIGEST: digest,
            schema.FLOORS: floors,
            NEW: True,
        }

    def _gone(self, digest: str) -> dict:
        why = "it is no longer sold, or of no class that the scorer knows"
        return {schema.OUTFITS_LIST: [], schema.REASON: why, schema.ROW_DIGEST: digest, NEW: True}
