"""Annotated photos in a common form for all data sets: rows for table ``detections``."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema, storage
from w2w.errors import Reject, RejectCode, UsageError
from w2w.garments import boxes
from w2w.garments.taxonomy import CATEGORIES, IGNORE, PERSON
from w2w.stage import with_rejects

RELATIVE = "relative"  # boxes as fractions of the photo's size, known only once it is opened

# An annotated photo before it is opened. Objects hold (box, target, original label, ignore, mask).
ANNOTATED_SCHEMA = pa.schema(
    [
        pa.field(schema.KEY, pa.string()),
        pa.field(schema.SOURCE, pa.string()),
        pa.field(schema.SPLIT, pa.string()),
        pa.field(schema.IMAGE_URI, pa.string()),
        pa.field(RELATIVE, pa.bool_()),
        pa.field(schema.OBJECTS, pa.list_(schema.OBJECT)),
        pa.field(schema.LABELLED, pa.list_(pa.string())),
        pa.field(schema.ROW_DIGEST, pa.string()),
    ]
)
SETTLE_GIVES = schema.DETECTIONS.fields([schema.OBJECTS, schema.STAGE_VERSION])
TRAIN, TEST = "train", "test"

_BUCKETS = 10_000  # resolution of a split's share


@dataclass(frozen=True)
class Object:
    """An annotated object: its box as in the file (converted to xyxy), its label, and the class it maps to."""

    box: tuple[float, float, float, float]
    label: str
    target: str  # one of CATEGORIES, or IGNORE
    mask: dict | None = None  # COCO's run lengths, if the file has masks


@dataclass(frozen=True)
class Photo:
    """One annotated photo. ``group``: what must stay on one side of the split (a product, a photo)."""

    name: str
    image_uri: str
    objects: tuple[Object, ...]
    group: str
    split: str | None = None  # if the data set gives one
    relative: bool = False


def split_of(groups: Sequence[str], test_share: float) -> list[str]:
    """train or test for each group, by its hash: stable across machines, time and other contents of the data set.

    Applied to whole photos before any crop is made: crops of one photo can then never be on both sides.
    """
    buckets = ids.hash_bucket(pa.array(groups, pa.string()), _BUCKETS)
    return [TEST if bucket < test_share * _BUCKETS else TRAIN for bucket in buckets.tolist()]


def annotated_rows(photos: Iterable[Photo], source: str, labelled: Sequence[str], test_share: float) -> pa.Table:
    """The photos in ANNOTATED_SCHEMA; those without a split get one by hash. Keys are unique."""
    photos = list(photos)
    for photo in photos:
        if not (storage.is_text(photo.name) and storage.is_text(photo.image_uri)):
            raise UsageError(f"{photo.image_uri!r}: its name is not UTF-8")
    drawn = split_of([f"{source}/{p.group}" for p in photos], test_share)
    rows = [
        {
            schema.KEY: f"{source}/{photo.name}",
            schema.SOURCE: source,
            schema.SPLIT: photo.split or split,
            schema.IMAGE_URI: photo.image_uri,
            RELATIVE: photo.relative,
            schema.OBJECTS: [
                {
                    schema.BOX: list(o.box),
                    schema.CATEGORY: None if o.target == IGNORE else o.target,
                    schema.ORIGINAL_LABEL: o.label,
                    schema.IGNORE: o.target == IGNORE,
                    schema.MASK_RLE: o.mask,
                }
                for o in photo.objects
                if o.target != PERSON
            ],
            schema.LABELLED: [c for c in CATEGORIES if c in set(labelled)],
        }
        for photo, split in zip(photos, drawn)
    ]
    said = (schema.SPLIT, RELATIVE, schema.OBJECTS, schema.LABELLED)  # a photo that was moved is still the same
    rows = [row | {schema.ROW_DIGEST: ids.digest([row[name] for name in said])} for row in rows]
    table = pa.Table.from_pylist(rows, schema=ANNOTATED_SCHEMA)
    counted = pc.value_counts(table.column(schema.KEY)).to_pylist()
    doubles = [c["values"] for c in counted if c["counts"] > 1]
    if doubles:
        raise UsageError(f"{source}: {len(doubles)} photos are listed twice, {doubles[0]!r} among them")
    return table


def targets_of(mapping: dict[str, str | None]) -> list[str]:
    """The classes that a label mapping can produce."""
    return sorted({target for target in mapping.values() if target} - {IGNORE, PERSON})


def settle(rows: pa.Table, *, stage_version: str) -> pa.Table:
    """Boxes in pixels, inside the opened photo; a row with a box that covers no pixel of it is rejected (BAD_BOX).

    Boxes that stick out by rounding are clipped; in the seed, one such box dropped the photo. A mask of another size than the
    photo's is dropped.
    """
    rejects: list[Reject | None] = []
    settled = []
    columns = (schema.OBJECTS, RELATIVE, schema.WIDTH, schema.HEIGHT)
    for objects, relative, width, height in zip(*(rows.column(c).to_pylist() for c in columns)):
        found = np.array([o[schema.BOX] for o in objects], np.float32).reshape(-1, 4)
        found = found * np.array([width, height, width, height], np.float32) if relative else found
        inside = boxes.clip(found, width, height)
        bad = np.flatnonzero(~((inside[:, 2:] - inside[:, :2]) >= 1).all(axis=1))
        if len(bad):
            o = objects[bad[0]]
            shown = ", ".join(f"{v:g}" for v in found[bad[0]])
            rejects.append(
                Reject(RejectCode.BAD_BOX, f"{o[schema.ORIGINAL_LABEL]!r} at ({shown}) in a photo of {width} x {height}")
            )
        else:
            rejects.append(None)
        for o, box in zip(objects, inside.tolist()):
            mask = o[schema.MASK_RLE]
            fits = mask and list(mask["size"]) == [height, width]
            o |= {schema.BOX: box, schema.MASK_RLE: mask if fits else None}
        settled.append(objects)
    n = rows.num_rows
    result = rows.drop_columns([schema.OBJECTS]).append_column(schema.OBJECTS, pa.array(settled, pa.list_(schema.OBJECT)))
    result = result.append_column(schema.STAGE_VERSION, pa.repeat(pa.scalar(stage_version), n))
    return with_rejects(result, rejects)
