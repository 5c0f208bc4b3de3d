"""What a dry run shows: a few products as they would be stored, and what the whole feed would come to."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.errors import RejectCode
from w2w.ingest.archives import MEMBER
from w2w.ingest.cells import is_cell
from w2w.ingest.changes import LAST_IMAGE_ID
from w2w.ingest.images import is_web
from w2w.ingest.outlook import Outlook
from w2w.ingest.permits import PERMITS
from w2w.ingest.pictures import MORE
from w2w.ingest.raw import WARNED
from w2w.ingest.stage import KEPT, NEWS, STANDING, WORK_SCHEMA
from w2w.ingest.warnings import WARNINGS_LIST
from w2w.shown import line
from w2w.stage import Chain, Stage, leaving

PRODUCTS, EXAMPLES = 10, 3
_HIDDEN = {schema.PRODUCT_ID, schema.ROW_DIGEST, schema.FETCHED_AT, schema.ACTIVE, schema.IMAGE_URI, schema.IMAGE_FINGERPRINT}
_GONE = str(RejectCode.NOT_FOUND)


class Trial:
    """Takes the rows that a run would work on; ten of them, the same every time, are tried."""

    def __init__(self, outlook: Outlook):
        self.outlook = outlook
        self.rejects, self.broken = Counter[str](), Counter[str]()  # rows, and pictures beside the front, by code
        self._some = WORK_SCHEMA.empty_table()
        self._examples: dict[str, str] = {}  # by code of a reject, one row of it

    @property
    def examples(self) -> list[str]:
        """Of each code how many rejects and one of them, the commonest first."""
        return [f"{c} ({n:,}), such as {self._examples[c]}" for c, n in self.rejects.most_common() if c in self._examples]

    def add(self, rows: pa.Table) -> None:
        """``rows``: WORK_SCHEMA."""
        codes = rows.column(schema.REJECT_CODE)
        bad, good = rows.filter(codes.is_valid()), rows.filter(codes.is_null())
        self.rejects.update(codes.drop_null().to_pylist())
        for key, code, why in zip(*(bad.column(c).to_pylist() for c in (schema.KEY, schema.REJECT_CODE, schema.REJECT_DETAIL))):
            self._examples.setdefault(code, line(f"{key.rpartition('@')[0] or key}: {why}"))
        gone = _gone(good)
        changed = pc.and_(good.column(STANDING).is_null(), pa.array([not is_gone for is_gone in gone], pa.bool_()))
        self.outlook.add(good.filter(changed))
        self.rejects.update(_GONE for is_gone in gone if is_gone)
        if any(gone) and _GONE not in self._examples:
            product_id, uri = (good.column(c)[gone.index(True)].as_py() for c in (schema.PRODUCT_ID, schema.IMAGE_URI))
            self._examples[_GONE] = line(f"{product_id}: no file {uri} (feed.image_root says where pictures are)")
        for more, warned, gone, standing, last in zip(*(good.column(c).to_pylist() for c in (MORE, WARNED)), *_states(good)):
            if standing == KEPT or (gone and not last):  # told in an earlier night, or nothing of it is stored
                continue
            listed = [] if gone else more or []
            self.broken.update(_GONE for one in listed if _is_gone(one[schema.URI], one[schema.FINGERPRINT]))
            self.broken.update(w[schema.REJECT_CODE] for w in warned or [] if w[schema.COLUMN] == schema.IMAGE_LIST)
        both = pa.concat_tables([self._some, good.select(WORK_SCHEMA.names).cast(WORK_SCHEMA)])
        order = np.argsort(ids.hash_keys(both.column(schema.KEY)), kind="stable")[:PRODUCTS]
        self._some = both.take(pa.array(np.sort(order)))

    def told(self, stages: Sequence[Stage]) -> dict[str, Any]:
        """Fields of the job's result: runs the stages on the ten products, in this process."""
        wanted = [*schema.PRODUCTS.schema.names, NEWS, STANDING, WARNINGS_LIST, PERMITS]
        [leaves] = leaving([stages], WORK_SCHEMA, wanted, [])
        found = list(Chain(stages, schema.KEY, schema.SOURCE, leaves).flow(iter([self._some]))) if self._some.num_rows else []
        good = [row for rows, _ in found for row in rows.to_pylist()]
        bad = [row for _, rows in found for row in rows.to_pylist()]
        self.outlook.tried(self._some, good)
        faults = [f"{row[schema.KEY].rpartition('@')[0]}: {row[schema.REJECT_CODE]}" for row in bad]
        faults += [
            f"{w[schema.PRODUCT_ID]}: {w[schema.REJECT_CODE]}, beside the front"
            for row in good
            for w in row[WARNINGS_LIST] or []
            if w[schema.COLUMN] == schema.IMAGE_LIST
        ]
        good.sort(key=lambda row: row[schema.PRODUCT_ID])
        return {
            "would_be_rejected": dict(self.rejects),
            "of_those_rejected": self.examples,
            "broken_pictures_beside_the_front": dict(self.broken),
            "products_tried": len(good) + len(bad),
            "pictures_tried": len(bad) + sum(len(row[schema.IMAGE_LIST]) for row in good),
            "broken_of_those_tried": faults,
            "examples": {row[schema.PRODUCT_ID]: _shown(row) for row in good[:EXAMPLES]},
        }


def _gone(rows: pa.Table) -> list[bool]:
    """Whether each row's front picture is a file that the listing of the image root lacks."""
    return [_is_gone(*one) for one in zip(*(rows.column(c).to_pylist() for c in (schema.IMAGE_URI, schema.IMAGE_FINGERPRINT)))]


def _states(rows: pa.Table) -> tuple[list, list, list]:
    """Of each row: whether its front picture is gone, its standing, and the picture that its product has."""
    return _gone(rows), rows.column(STANDING).to_pylist(), rows.column(LAST_IMAGE_ID).to_pylist()


def _is_gone(uri: str, fingerprint: str) -> bool:
    return not (fingerprint or is_web(uri) or is_cell(uri) or MEMBER in uri)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of a product that say something, in words."""
    shown = {c: row[c] for c in schema.PRODUCTS.schema.names if c not in _HIDDEN and row[c] not in (None, [])}
    shown[schema.IMAGE_LIST] = [one[schema.URI] for one in row[schema.IMAGE_LIST]]
    if schema.ATTRIBUTES in shown:
        shown[schema.ATTRIBUTES] = dict(shown[schema.ATTRIBUTES])
    return shown
