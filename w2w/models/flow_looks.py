"""Embedding looks: photos of posts, cropped to the person if a detector found one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.engine.source import Source, pending_rows, with_beside
from w2w.images.decode import DecodeLimits
from w2w.images.stage import looks_to_pixels
from w2w.models.config import EncoderConfig
from w2w.models.flow import embed_stages
from w2w.models.looks import LOOK, look_posts, person_boxes
from w2w.stage import Pool, Stage
from w2w.table import work
from w2w.table.delta import need_table
from w2w.table.pending import Keys, rejected_keys, table_keys

STAGE = "embed-looks"
_COLUMNS = (schema.IMAGE_ID, schema.BYTES, schema.WIDTH, schema.SOURCE_URI)


def looks_without_vector(store: str, version: str, detected: str | None, item_rows: int) -> tuple[Source, int]:
    """The looks without a vector of this ``look_version``; and the number of photos not yet processed by the detector."""
    need_table(store, schema.IMAGES, "crawl")
    photos = pc.unique(look_posts(store, [schema.IMAGE_ID]).column(0).combine_chunks())
    seen = photos
    if detected is not None:
        known = table_keys(store, schema.LOOKS, schema.IMAGE_ID, stage_version=detected).read()
        seen = photos.filter(pc.is_in(photos, value_set=known))
    done = [
        table_keys(store, schema.EMBEDDINGS, schema.OWNER_ID, model_version=version),
        rejected_keys(store, STAGE, version),
    ]
    among = Keys([pa.chunked_array([seen])], len(seen))
    source = pending_rows(store, schema.IMAGES, _COLUMNS, done, schema.SOURCE_URI, item_rows, among)
    return source, len(photos) - len(seen)


@contextmanager
def with_persons(source: Source, store: str, detected: str | None, run_id: str) -> Iterator[Source]:
    """The same rows, joined with the person's box."""
    try:
        yield with_beside(source, store, schema.IMAGES, person_boxes(store, detected), work.folder(store, run_id))
    finally:
        work.clean(store, run_id)


def look_stages(encoder: EncoderConfig, limits: DecodeLimits, version: str, gpu_pool: Pool | None = None) -> Sequence[Stage]:
    """bytes and person_box -> pixels of the person -> vector of that ``look_version``."""
    decode, encode = embed_stages(encoder, limits, schema.IMAGE_ID, LOOK, gpu_pool)
    needs = (schema.BYTES, schema.WIDTH, schema.PERSON_BOX)
    return [
        Stage(decode.name, looks_to_pixels, needs, decode.gives, decode.args),
        Stage(encode.name, encode.run, encode.needs, encode.gives, encode.args | {"written_as": version}, encode.pool),
    ]
