"""The stages of find: encoded photos to pixels, pixels to garments with their products."""

import numpy as np
import pyarrow as pa

from w2w import schema
from w2w.errors import Reject, attempt
from w2w.find.finder import Find, Finder, Plan
from w2w.images.decode import DecodeLimits, ImageInfo, probe
from w2w.images.stage import PHOTO_GIVES, PIXEL_HEIGHT, PIXEL_WIDTH, PIXELS, photos_of, to_photos
from w2w.stage import with_rejects

LOOK_GIVES = pa.schema([*PHOTO_GIVES, *(schema.FOUND.schema.field(c) for c in (schema.WIDTH, schema.HEIGHT))])
FIND_GIVES = schema.FOUND.fields([schema.GARMENTS_LIST, schema.SEARCH_VERSION, schema.INDEX_VERSION, schema.RUN_ID])


def look(rows: pa.Table, *, limits: DecodeLimits, longest_px: int) -> pa.Table:
    """The photo, shrunk to ``longest_px``, and its own upright size; drops the encoded bytes."""
    infos = [attempt(probe, data, limits) for data in rows.column(schema.BYTES).to_pylist()]
    for name in (schema.WIDTH, schema.HEIGHT):
        sizes = [getattr(info, name) if isinstance(info, ImageInfo) else None for info in infos]
        rows = rows.append_column(name, pa.array(sizes, pa.int32()))
    return to_photos(rows, limits=limits, longest_px=longest_px)


def of_table(rows: pa.Table) -> pa.Table:
    """Rows of table `images` as photos, named by their image_id."""
    ids = rows.column(schema.IMAGE_ID)
    for name, values in ((schema.KEY, ids), (schema.QUERY_ID, ids), (schema.IMAGE_URI, rows.column(schema.SOURCE_URI))):
        rows = rows.append_column(name, values)
    return rows


class FindProducts:
    """Loads the models and opens the index once per worker; adds each photo's garments with their products."""

    def __init__(self, plan: Plan, words_D: np.ndarray | None, run_id: str):
        """``words_D``: the vector of ``--text``."""
        self._finder, self._plan, self._run_id, self._words_D = Finder(plan), plan, run_id, words_D

    def __call__(self, rows: pa.Table) -> pa.Table:
        photos = photos_of(rows)
        results = self._finder(photos, self._words_D)
        widths = rows.column(schema.WIDTH).to_pylist()
        found = [
            None if isinstance(r, Reject) else [stored(find, width / photo.shape[1]) for find in r]
            for r, photo, width in zip(results, photos, widths)
        ]
        n = rows.num_rows
        columns = {
            schema.GARMENTS_LIST: pa.array(found, FIND_GIVES.field(schema.GARMENTS_LIST).type),
            schema.SEARCH_VERSION: pa.repeat(pa.scalar(self._plan.search_version), n),
            schema.INDEX_VERSION: pa.repeat(pa.scalar(self._plan.index_version), n),
            schema.RUN_ID: pa.repeat(pa.scalar(self._run_id), n),
        }
        rows = rows.drop_columns([PIXELS, PIXEL_WIDTH, PIXEL_HEIGHT])
        for name, values in columns.items():
            rows = rows.append_column(name, values)
        return with_rejects(rows, [r if isinstance(r, Reject) else None for r in results])


def stored(find: Find, scale: float) -> dict:
    """A value of schema.FOUND_GARMENT; ``scale``: from the detector's pixels to the photo's own."""
    return {
        schema.NUMBER: find.garment.number,
        schema.CATEGORY: find.garment.category,
        schema.SCORE: find.garment.score,
        schema.BOX: [v * scale for v in find.garment.box],
        schema.NEIGHBOUR_LIST: find.hits,
    }
