"""Looks: the outfit of a person as one picture, and the version of their vectors, distinct from any catalog vector's."""

import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.table import delta
from w2w.table.current import current_posts
from w2w.table.delta import need_table, newest_version
from w2w.table.pending import rejected_keys

LOOK = "look"
CODE = 1  # bump when the same photo would be cropped differently
_MEND = "the newest ({}) has not looked at them: run 'w2w detect' with its options, without --limit and --of=posts"


def detected_by(store: str) -> str | None:
    """The version of the detector that crops looks: the newest in table `looks`. None if no detector ran: looks are then whole
    pictures."""
    return newest_version(store, schema.LOOKS)


def left_out(store: str) -> str | None:
    """Says how many photos have garments of earlier detectors alone, as the newest has looked at some only; None for none.
    Where it has looked at all, by its watermark, only logs are read; else keys, of which 8 bytes a photo are held."""
    opened = delta.open_table(store, schema.LOOKS)
    told = [e["w2w"] for e in delta.history(opened) if e["w2w"]] if opened is not None else []
    newest = detected_by(store)
    since = itertools.takewhile(lambda run: run["stage_version"] == newest, told)
    if newest is None or any(run.get("mark") for run in since):
        return None
    listed: dict[bool, list[delta.Part]] = {True: [], False: []}
    for part in delta.parts(opened):
        listed[dict(part.partition)[schema.STAGE_VERSION] == newest].append(part)
    if not listed[False]:
        return None
    refused = ids.hash_keys(rejected_keys(store, "detect", newest).read())
    seen = np.concatenate([_photos(store, listed[True], 0), refused])
    num = len(np.setdiff1d(_photos(store, listed[False], 1), seen))
    return f"photos with garments of an earlier detector alone: {num:,}; {_MEND.format(newest)}" if num else None


def _photos(store: str, listed: Sequence[delta.Part], least: int) -> np.ndarray:
    """uint64: a hash of each photo in these parts that has at least so many garments."""
    found = [np.empty(0, np.uint64)]
    for rows in delta.read_batches(store, schema.LOOKS, [schema.IMAGE_ID, schema.NUM_GARMENTS], listed):
        found.append(ids.hash_keys(rows.column(0).filter(pc.greater_equal(rows.column(1), least))))
    return np.unique(np.concatenate(found))


def look_version(model_version: str, detected: str | None) -> str:
    """The model version of looks' vectors: from the encoder and the detector (``detected_by``)."""
    return ids.digest(LOOK, CODE, model_version, detected)


def look_posts(store: str, columns: list[str]) -> pa.Table:
    """The active posts with a picture, in their newest rows. Raises UsageError if there is no table of posts."""
    need_table(store, schema.POSTS, "crawl")
    posts = current_posts(store, list(dict.fromkeys([*columns, schema.IMAGE_ID, schema.ACTIVE])))
    kept = pc.and_(posts.column(schema.ACTIVE), pc.is_valid(posts.column(schema.IMAGE_ID)))
    return posts.filter(kept).select(columns)


def person_boxes(store: str, detected: str | None) -> pa.Table:
    """image_id and person_box (null if nobody was found) of the photos that the detector has processed; about 100 bytes
    each."""
    columns = [schema.IMAGE_ID, schema.PERSON_BOX]
    if detected is None:
        return schema.LOOKS.empty(columns)
    return delta.read(store, schema.LOOKS, columns, stage_version=detected)
