"""Stages over encoded images: inspect incoming ones, and turn them into a model's pixels."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.errors import Reject, RejectCode, attempt
from w2w.images.decode import DecodeLimits, decode, decode_many, probe
from w2w.images.phash import phash_many
from w2w.images.resize import fit, shrink
from w2w.stage import with_rejects

PIXELS = "pixels"
SLOT_OWNERS, SLOT_PIXELS, SLOT_BETWEEN = "slot_owners", "slot_pixels", ":"
PIXEL_WIDTH, PIXEL_HEIGHT = "pixel_width", "pixel_height"

# `inspect` needs few pixels: pHash uses 32 x 32, so a JPEG is decoded DCT-scaled
INSPECT_PX = 64

INSPECT_GIVES = schema.IMAGES.fields([schema.WIDTH, schema.HEIGHT, schema.FORMAT, schema.PHASH])


def pixels_field(size_px: int) -> pa.Schema:
    """uint8 RGB pixels of a (size_px, size_px, 3) image, row-major, as fixed-size binary."""
    return pa.schema([pa.field(PIXELS, pa.binary(size_px * size_px * 3))])


def slot_pixels_fields(size_px: int) -> pa.Schema:
    """For each slot of a cut-out, the owner of its vector, image_id:slot, and its pixels."""
    return pa.schema([(SLOT_OWNERS, pa.list_(pa.string())), (SLOT_PIXELS, pa.list_(pa.binary(size_px * size_px * 3)))])


# pixels of photos that keep their shape: uint8 RGB, row-major, PIXEL_HEIGHT x PIXEL_WIDTH x 3
PHOTO_GIVES = pa.schema([(PIXELS, pa.large_binary()), (PIXEL_WIDTH, pa.int32()), (PIXEL_HEIGHT, pa.int32())])


def inspect(rows: pa.Table, *, limits: DecodeLimits) -> pa.Table:
    """Size, format and pHash of every image; an image that does not decode to its last row is rejected here, once. Rows without
    bytes pass."""
    there = rows.column(schema.BYTES).is_valid().to_numpy()
    images = rows.filter(pa.array(there)).select([schema.BYTES])
    found = inspected(images, decode_many(images.column(schema.BYTES).to_pylist(), limits, INSPECT_PX), limits)
    found = found.take(pa.array(np.cumsum(there) - 1, mask=~there))
    for name in (*INSPECT_GIVES.names, schema.REJECT_CODE, schema.REJECT_DETAIL):
        rows = rows.append_column(name, found.column(name))
    return rows


def inspected(rows: pa.Table, images: Sequence[np.ndarray | Reject], limits: DecodeLimits) -> pa.Table:
    """``inspect`` for rows whose images are already decoded, at whatever size; or the Reject of those that could not be."""
    rejects = [i if isinstance(i, Reject) else None for i in images]
    infos = [None if r else probe(b, limits) for b, r in zip(rows.column(schema.BYTES).to_pylist(), rejects)]
    hashes = iter(phash_many([i for i in images if not isinstance(i, Reject)]))
    found = {
        schema.WIDTH: [i and i.width for i in infos],
        schema.HEIGHT: [i and i.height for i in infos],
        schema.FORMAT: [i and i.format for i in infos],
        schema.PHASH: [None if r else int(next(hashes)) for r in rejects],
    }
    for field in INSPECT_GIVES:
        rows = rows.append_column(field.name, pa.array(found[field.name], field.type))
    return with_rejects(rows, rejects)


def to_pixels(
    rows: pa.Table,
    *,
    limits: DecodeLimits,
    size_px: int,
    resize_px: int,
    mode: str,
    resample: str,
    threads: int = 1,
    column: str = schema.BYTES,
) -> pa.Table:
    """Decodes and resizes the images in ``column`` to the model's input (``fit``): adds ``pixels``, drops the encoded bytes."""
    images = decode_many(rows.column(column), limits, resize_px, threads)
    return _fitted(rows.drop_columns([column]), images, size_px, resize_px, mode, resample)


def looks_to_pixels(
    rows: pa.Table, *, limits: DecodeLimits, size_px: int, resize_px: int, mode: str, resample: str
) -> pa.Table:
    """``to_pixels`` of the person_box, in pixels of the photo in table `images`; of the whole photo if there is no box."""
    images: list[np.ndarray | Reject] = []
    columns = (rows.column(c).to_pylist() for c in (schema.BYTES, schema.WIDTH, schema.PERSON_BOX))
    for data, width, box in zip(*columns):
        # a photo may be decoded at a half or a quarter, as long as the person is large enough
        side = resize_px if box is None else math.ceil(resize_px * width / max(1.0, min(box[2] - box[0], box[3] - box[1])))
        image = attempt(decode, data, limits, side)
        images.append(image if isinstance(image, Reject) or box is None else cut(image, box, image.shape[1] / width))
    return _fitted(rows.drop_columns([schema.BYTES]), images, size_px, resize_px, mode, resample)


def cut(image: np.ndarray, box: Sequence[float], scale: float = 1.0) -> np.ndarray:
    """The part of (H, W, 3) inside the box xyxy times ``scale``, in whole pixels, at least one per side; a view."""
    height, width = image.shape[:2]
    x0, y0 = min(max(0, math.floor(box[0] * scale)), width - 1), min(max(0, math.floor(box[1] * scale)), height - 1)
    x1, y1 = max(x0 + 1, min(width, math.ceil(box[2] * scale))), max(y0 + 1, min(height, math.ceil(box[3] * scale)))
    return image[y0:y1, x0:x1]


def _fitted(
    rows: pa.Table, images: Sequence[np.ndarray | Reject], size_px: int, resize_px: int, mode: str, resample: str
) -> pa.Table:
    """Adds ``pixels``."""
    rejects = [i if isinstance(i, Reject) else None for i in images]
    buffer = np.zeros((len(images), size_px, size_px, 3), np.uint8)
    for i, image in enumerate(images):
        if not isinstance(image, Reject):
            buffer[i] = fit(image, size_px, mode, resample, resize_px)
    kind = pixels_field(size_px).field(PIXELS).type
    pixels = pa.Array.from_buffers(kind, len(images), [None, pa.py_buffer(buffer)])
    return with_rejects(rows.append_column(PIXELS, pixels), rejects)


def slots_to_pixels(rows: pa.Table, **settings: Any) -> pa.Table:
    """``to_pixels`` of every slot's crop: adds the lists of ``slot_pixels_fields``, drops the slots.

    A cut-out passes whole or not at all, so that its vectors are committed together: one bad crop rejects the row.
    """
    lists = rows.column(schema.SLOTS).combine_chunks()
    parents = pc.list_parent_indices(lists)
    crops = pa.Table.from_struct_array(lists.flatten())
    owners = pc.binary_join_element_wise(
        rows.column(schema.IMAGE_ID).combine_chunks().take(parents), crops.column(schema.SLOT).combine_chunks(), SLOT_BETWEEN
    )
    done = to_pixels(crops, column=schema.CROP, **settings)
    counts = np.bincount(parents.to_numpy(), minlength=rows.num_rows)
    rejects = [None if n else Reject(RejectCode.MISSING_SLOT, "the cut-out has no slots") for n in counts.tolist()]
    columns = (parents, crops.column(schema.SLOT), done.column(schema.REJECT_CODE), done.column(schema.REJECT_DETAIL))
    for row, slot, code, detail in zip(*(c.to_pylist() for c in columns)):
        if code:
            rejects[row] = Reject(RejectCode(code), f"slot {slot}: {detail}")
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    rows = rows.drop_columns([schema.SLOTS])
    for name, values in ((SLOT_OWNERS, owners), (SLOT_PIXELS, done.column(PIXELS).combine_chunks())):
        rows = rows.append_column(name, pa.ListArray.from_arrays(offsets, values))
    return with_rejects(rows, rejects)


def to_photos(rows: pa.Table, *, limits: DecodeLimits, longest_px: int, threads: int = 1) -> pa.Table:
    """Decodes every image whole, shrunk to ``longest_px`` on its longer side: adds PHOTO_GIVES, drops the encoded bytes."""
    images = decode_many(rows.column(schema.BYTES), limits, longest_px, threads)
    rejects = [i if isinstance(i, Reject) else None for i in images]
    photos = [None if isinstance(i, Reject) else shrink(i, longest_px) for i in images]
    columns = (
        _packed(photos),
        pa.array([None if p is None else p.shape[1] for p in photos], pa.int32()),
        pa.array([None if p is None else p.shape[0] for p in photos], pa.int32()),
    )
    rows = rows.drop_columns([schema.BYTES])
    for name, values in zip(PHOTO_GIVES.names, columns):
        rows = rows.append_column(name, values)
    return with_rejects(rows, rejects)


def _packed(photos: Sequence[np.ndarray | None]) -> pa.Array:
    """The photos' pixels as large_binary, copied once; null if there is none."""
    ends = np.cumsum([0, *(0 if p is None else p.size for p in photos)], dtype=np.int64)
    pixels = np.empty(ends[-1], np.uint8)
    for photo, start, end in zip(photos, ends, ends[1:]):
        if photo is not None:
            pixels[start:end] = photo.reshape(-1)
    there = pa.array([p is not None for p in photos], pa.bool_()).buffers()[1]
    return pa.Array.from_buffers(pa.large_binary(), len(photos), [there, pa.py_buffer(ends), pa.py_buffer(pixels)])


def photos_of(rows: pa.Table) -> list[np.ndarray]:
    """The photos in PHOTO_GIVES as uint8 (H, W, 3), views of the rows: copy before writing."""
    sizes = zip(rows.column(PIXEL_HEIGHT).to_pylist(), rows.column(PIXEL_WIDTH).to_pylist())
    return [np.frombuffer(v.as_buffer(), np.uint8).reshape(h, w, 3) for v, (h, w) in zip(rows.column(PIXELS), sizes)]
