"""Looks: the outfit of a person as one picture, and the version of their vectors, distinct from any catalog vector's."""

import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.table import delta
from w2w.table.current import current_posts
from w2w.table.delta import need_table, newest_version

LOOK = "look"
CODE = 1  # bump when the same photo would be cropped differently


def detected_by(store: str) -> str | None:
    """The version of the detector that crops looks: the newest in table `looks`. None if no detector ran: looks are then whole
    pictures."""
    return newest_version(store, schema.LOOKS)


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
