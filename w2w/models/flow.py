"""What can be embedded, and the stages that do it, for every job that embeds something."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.engine.source import Source, pending_rows
from w2w.errors import UsageError
from w2w.images.decode import DecodeLimits
from w2w.images.stage import (
    PIXELS,
    SLOT_BETWEEN,
    SLOT_OWNERS,
    SLOT_PIXELS,
    pixels_field,
    slot_pixels_fields,
    slots_to_pixels,
    to_pixels,
)
from w2w.models.config import EncoderConfig
from w2w.models.encoder import encoder_input, model_version
from w2w.models.stage import EMBED_GIVES, EMBED_SLOTS_GIVES, VECTORS, Embed, EmbedSlots
from w2w.stage import Pool, Stage
from w2w.table.delta import need_table, newest_version
from w2w.table.parts import Output
from w2w.table.pending import Keys, rejected_keys, table_keys


@dataclass(frozen=True)
class Pictures:
    """A table with pictures to embed. ``stage`` names the work in `rejects`; ``seen``, if the table keeps several versions: the
    tables whose newest version counts, taken from the first that has any (one without detections has no rows of its own)."""

    table: schema.Table
    column: str  # of the encoded bytes, or of the slots
    owner_kind: str
    stage: str
    made_by: str
    source: str
    seen: tuple[schema.Table, ...] = ()

    @property
    def output(self) -> Output:
        return Output(schema.EMBEDDINGS, nested=VECTORS if self.column == schema.SLOTS else None)


PICTURES = {
    "images": Pictures(schema.IMAGES, schema.BYTES, "image", "embed", "ingest", schema.SOURCE_URI),
    "garments": Pictures(
        schema.GARMENTS, schema.CROP, "garment", "embed-garments", "detect", schema.IMAGE_ID, (schema.LOOKS, schema.GARMENTS)
    ),
    "slots": Pictures(schema.CUTOUTS, schema.SLOTS, "slot", "embed-slots", "segment", schema.IMAGE_ID, (schema.CUTOUTS,)),
}


LOOKS = "looks"  # value of --of: see flow_looks.py


def pictures_of(name: str) -> Pictures:
    """Raises UsageError for an unknown name."""
    if name not in PICTURES:
        raise UsageError(f"--of={name}: must be one of {', '.join([*PICTURES, LOOKS])}")
    return PICTURES[name]


def without_vector(
    store: str,
    pictures: Pictures,
    model_version: str,
    version: str,
    item_rows: int,
    full_scan: bool = False,
    served_by: str | None = None,
) -> Source:
    """The pictures without a vector of this model, or of ``served_by``, one before it. ``version``: of the stage that cut them
    out; auto: the newest."""
    made = table_keys(store, schema.EMBEDDINGS, schema.OWNER_ID, model_version=model_version)
    if pictures.column == schema.SLOTS:
        made = Keys(_photos(made.batches), made.count)
    done = [made, rejected_keys(store, pictures.stage, model_version)]
    if served_by:
        done.append(table_keys(store, schema.EMBEDDINGS, schema.OWNER_ID, model_version=served_by))
    return pictures_without(store, pictures, done, version, item_rows, full_scan)


def pictures_without(
    store: str, pictures: Pictures, done: Sequence[Keys], version: str, item_rows: int, full_scan: bool = False
) -> Source:
    """The pictures that none of ``done`` names. ``version``: as above."""
    need_table(store, pictures.table, pictures.made_by)
    partition: dict[str, Any] = {}
    if pictures.seen:
        newest = next(filter(None, (newest_version(store, t) for t in pictures.seen)), None) if version == "auto" else version
        if not newest or not any(table_keys(store, t, t.key[0], stage_version=newest).count for t in pictures.seen):
            raise UsageError(f"--version={version}: table {pictures.table.name!r} has none: run 'w2w {pictures.made_by}' first")
        partition = {schema.STAGE_VERSION: newest}
    elif version != "auto":
        raise UsageError(f"--version={version}: table {pictures.table.name!r} has no versions")
    columns = list(dict.fromkeys([pictures.table.key[0], pictures.column, pictures.source]))
    how = (pictures.source, item_rows, None, None, full_scan)
    return pending_rows(store, pictures.table, columns, done, *how, **partition)


def _photos(owners) -> Iterator[pa.ChunkedArray]:
    """The photos that these owners (slots) come from."""
    for batch in owners:
        slots = batch.filter(pc.match_substring(batch, SLOT_BETWEEN))
        yield pc.replace_substring_regex(slots, f"{SLOT_BETWEEN}[^{SLOT_BETWEEN}]*$", "")


def picture_stages(
    pictures: Pictures, encoder: EncoderConfig, limits: DecodeLimits, gpu_pool: Pool | None = None
) -> list[Stage]:
    """``embed_stages`` for one of PICTURES."""
    owner = pictures.table.key[0]
    decode, encode = embed_stages(encoder, limits, owner, pictures.owner_kind, gpu_pool)
    if pictures.column != schema.SLOTS:
        return [replace(decode, needs=(pictures.column,), args=decode.args | {"column": pictures.column}), encode]
    fields = slot_pixels_fields(encoder_input(encoder).size_px)
    return [
        replace(decode, run=slots_to_pixels, needs=(schema.IMAGE_ID, schema.SLOTS), gives=fields),
        replace(encode, run=EmbedSlots, needs=(SLOT_OWNERS, SLOT_PIXELS), gives=EMBED_SLOTS_GIVES),
    ]


def embed_stages(
    encoder: EncoderConfig, limits: DecodeLimits, owner_column: str, owner_kind: str, gpu_pool: Pool | None = None
) -> list[Stage]:
    """bytes -> pixels -> vector. ``gpu_pool``: separate workers for the model, fed by the decoding ones."""
    shape = encoder_input(encoder)
    pixels = {k: getattr(shape, k) for k in ("size_px", "resize_px", "mode", "resample")}
    model = {"config": encoder, "owner_column": owner_column, "owner_kind": owner_kind, "version": model_version(encoder)}
    return [
        Stage("decode", to_pixels, (schema.BYTES,), pixels_field(shape.size_px), {"limits": limits} | pixels),
        Stage("encode", Embed, (PIXELS, owner_column), EMBED_GIVES, model, gpu_pool),
    ]
