"""Detections, photo by photo, for later stages."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.garments.boxes import person_box
from w2w.garments.stage import FOUND
from w2w.garments.taxonomy import PERSON
from w2w.table import delta

_COLUMNS = (schema.CATEGORY, schema.ORIGINAL_LABEL, schema.SCORE, schema.BOX)


def guides_of(store: str, stage_version: str, least_score: float = 0.0) -> pa.Table:
    """One row per photo that this version has processed: image_id, ``found`` (its garments), person_box, crop_source. Garments
    below ``least_score`` are dropped, and a person's box derived from garments is recomputed from the remaining ones.

    In the driver's memory: about 150 bytes per garment and 100 per photo, so 0.85 GB for a million photos of five garments.
    """
    looks = delta.read(
        store, schema.LOOKS, [schema.IMAGE_ID, schema.PERSON_BOX, schema.CROP_SOURCE], stage_version=stage_version
    )
    garments = delta.read(store, schema.GARMENTS, [schema.IMAGE_ID, *_COLUMNS], stage_version=stage_version)
    garments = garments.filter(pc.greater_equal(garments.column(schema.SCORE), least_score))
    garments = garments.sort_by(schema.IMAGE_ID).combine_chunks()
    owners = garments.column(schema.IMAGE_ID).to_numpy(zero_copy_only=False).astype(str)
    wanted = looks.column(schema.IMAGE_ID).to_numpy(zero_copy_only=False).astype(str)
    starts, ends = (np.searchsorted(owners, wanted, side) for side in ("left", "right"))
    counts = ends - starts
    # rows of `garments` in the order of `looks`
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    rows = np.repeat(starts - offsets[:-1], counts) + np.arange(offsets[-1])
    structs = garments.select(list(_COLUMNS)).take(pa.array(rows)).to_struct_array()
    structs = pa.concat_arrays(structs.chunks) if structs.num_chunks else pa.array([], structs.type)
    found = pa.ListArray.from_arrays(pa.array(offsets), structs)
    looks = looks.append_column(FOUND, found)
    return _around_what_is_left(looks) if least_score else looks


def _around_what_is_left(looks: pa.Table) -> pa.Table:
    sources, persons = looks.column(schema.CROP_SOURCE).to_pylist(), looks.column(schema.PERSON_BOX).to_pylist()
    for i, garments in enumerate(looks.column(FOUND).to_pylist()):
        if sources[i] != PERSON:
            person = person_box(np.array([g[schema.BOX] for g in garments]), [g[schema.CATEGORY] for g in garments])
            sources[i], persons[i] = person.source, person.box
    columns = [looks.column(schema.IMAGE_ID), pa.array(persons, schema.XYXY), pa.array(sources, pa.string())]
    return pa.table([*columns, looks.column(FOUND)], names=looks.column_names)
