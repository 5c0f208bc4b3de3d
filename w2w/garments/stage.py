"""Stages: photos to garments and looks, photos with garments to cut-outs."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import simplejpeg

from w2w import schema
from w2w.errors import Reject
from w2w.garments import boxes, masks
from w2w.garments.batches import Batches
from w2w.garments.boxes import PersonBox, person_box
from w2w.garments.detector import Detector, DetectorConfig, Found, detector_version
from w2w.garments.masked import Masked
from w2w.garments.masks import MaskRules
from w2w.garments.person import person_mask
from w2w.garments.pixels import masks_of
from w2w.garments.segmenter import SegmenterConfig, load_segmenter, segmenter_version
from w2w.garments.taxonomy import PERSON
from w2w.images.stage import PIXEL_HEIGHT, PIXEL_WIDTH, PIXELS, photos_of
from w2w.models.encoder import check_version
from w2w.stage import with_rejects

FOUND = "found"  # detections in a photo, best first, boxes in the photo's stored size; including persons
ITEMS = "items"  # rows of table `garments`
_JPEG_QUALITY = 90

FOUND_TYPE = pa.list_(
    pa.struct(
        [
            pa.field(schema.CATEGORY, pa.string()),
            pa.field(schema.ORIGINAL_LABEL, pa.string()),
            pa.field(schema.SCORE, pa.float32()),
            pa.field(schema.BOX, schema.XYXY),
        ]
    )
)
# of our own detector with a mask of the photo as it was decoded
DETECTED_TYPE = pa.list_(pa.struct([*FOUND_TYPE.value_type, pa.field(schema.MASK_RLE, schema.RLE)]))
DETECT_GIVES = pa.schema([(FOUND, DETECTED_TYPE)])
GARMENT_GIVES = pa.schema(
    [
        pa.field(ITEMS, pa.list_(pa.struct(list(schema.GARMENTS.schema)))),
        *(schema.LOOKS.schema.field(c) for c in schema.LOOKS.schema.names if c != schema.IMAGE_ID),
    ]
)
# joined to a photo to be cut out, from tables `garments` and `looks`
GUIDE_SCHEMA = pa.schema([(FOUND, FOUND_TYPE), (schema.PERSON_BOX, schema.XYXY), (schema.CROP_SOURCE, pa.string())])
SEGMENT_GIVES = schema.CUTOUTS.fields([schema.MASK_RLE, schema.SCORE, schema.STABILITY])
CUTOUT_GIVES = pa.schema(
    [
        schema.CUTOUTS.schema.field(c)
        for c in (schema.BYTES, schema.WIDTH, schema.HEIGHT, schema.PERSON_BOX, schema.SLOTS, schema.STAGE_VERSION)
    ]
)


def to_jpeg(image: np.ndarray) -> bytes:
    """JPEG, quality 90, chroma at half the resolution."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), _JPEG_QUALITY, colorspace="RGB", colorsubsampling="420")


def garment_id(image_id: str, category: str, box: Sequence[float], stage_version: str) -> str:
    """sha256 over photo, class, box in whole pixels and stage version, 64 hex digits: stable across detections."""
    text = "|".join([image_id, category, *(str(round(v)) for v in box), stage_version])
    return hashlib.sha256(text.encode()).hexdigest()


class Detect:
    """Loads the detector once per worker; adds its detections to rows with pixels (PHOTO_GIVES)."""

    def __init__(self, config: DetectorConfig, version: str = ""):
        """``version``: the detector version that is expected."""
        self._detector = Detector(config)
        if version:
            check_version(f"detector.name={config.name}", version, detector_version(config))

    def __call__(self, rows: pa.Table) -> pa.Table:
        photos = photos_of(rows)
        results = self._detector(photos)
        rejects = [r if isinstance(r, Reject) else None for r in results]
        sizes = zip(rows.column(schema.WIDTH).to_pylist(), rows.column(schema.HEIGHT).to_pylist())
        found = [None if isinstance(r, Reject) else _stored(r, photo, *size) for r, photo, size in zip(results, photos, sizes)]
        return with_rejects(rows.append_column(FOUND, pa.array(found, DETECTED_TYPE)), rejects)


def _stored(found: Found, photo: np.ndarray, width: int, height: int) -> list[dict]:
    scale = np.array([width / photo.shape[1], height / photo.shape[0]] * 2, np.float32)
    kept = zip(found.categories, found.labels, found.scores_N.tolist(), (found.boxes_N4 * scale).tolist(), _masks(found, photo))
    names = (schema.CATEGORY, schema.ORIGINAL_LABEL, schema.SCORE, schema.BOX, schema.MASK_RLE)
    return [dict(zip(names, one)) for one in kept]


def _masks(found: Found, photo: np.ndarray) -> list[dict | None]:
    """Run lengths of each garment; None where hardly a pixel of its box is its own, or if the model does not tell."""
    if found.pixels is None or not len(found.scores_N):
        return [None] * len(found.scores_N)
    own = masks_of(found.pixels, photo, found.boxes_N4, found.labels, found.scores_N)
    return [None if mask is None else masks.to_rle(mask) for mask in own]


def cut_garments(
    rows: pa.Table, *, stage_version: str, crop_px: int, padding: float, on_white: bool = False, feather_px: float = 1.0
) -> pa.Table:
    """A crop of each garment and of the whole person; drops the pixels. A photo without garments is kept. ``on_white``: of a
    garment with a mask, its own pixels alone."""
    items, looks = [], []
    columns = (rows.column(c).to_pylist() for c in (schema.IMAGE_ID, FOUND, schema.WIDTH))
    for photo, image_id, found, width in zip(photos_of(rows), *columns):
        scale = photo.shape[1] / width
        categories = [f[schema.CATEGORY] for f in found]
        person = person_box(np.array([f[schema.BOX] for f in found]).reshape(-1, 4), categories)

        def cut(box: Sequence[float], mask: dict | None = None, photo=photo, scale=scale) -> bytes:
            where = [v * scale for v in box], padding, crop_px
            if mask is None:
                return to_jpeg(boxes.crop(photo, *where))
            return to_jpeg(masks.crop_on_white(photo, masks.from_rle(mask), *where, feather_px))

        mine = [
            f
            | {
                schema.GARMENT_ID: garment_id(image_id, f[schema.CATEGORY], f[schema.BOX], stage_version),
                schema.IMAGE_ID: image_id,
                schema.CROP: cut(f[schema.BOX], f[schema.MASK_RLE] if on_white else None),
                schema.CROP_SOURCE: "mask" if on_white and f[schema.MASK_RLE] else "box",
                schema.STAGE_VERSION: stage_version,
            }
            for f in found
            if f[schema.CATEGORY] != PERSON
        ]
        items.append(mine)
        looks.append(
            {
                schema.NUM_GARMENTS: len(mine),
                schema.PERSON_BOX: person.box,
                schema.CROP: cut(person.box) if person.box else None,
                schema.CROP_SOURCE: person.source,
                schema.STAGE_VERSION: stage_version,
            }
        )
    result = rows.drop_columns([PIXELS, PIXEL_WIDTH, PIXEL_HEIGHT, FOUND])
    for field in GARMENT_GIVES:
        values = items if field.name == ITEMS else [look[field.name] for look in looks]
        result = result.append_column(field.name, pa.array(values, field.type))
    return result


class Segment:
    """Loads the segmenter once per worker; adds the person's mask to rows with pixels and, if a detector ran, a guide."""

    def __init__(self, config: SegmenterConfig, rules: MaskRules, version: str = ""):
        """``version``: the segmenter version that is expected."""
        self._segmenter, self._rules = load_segmenter(config), rules
        if version:
            check_version(f"segmenter.name={config.name}", version, segmenter_version(config))
        blank = np.full((64, 64, 3), 128, np.uint8)
        nothing = np.empty((0, 4), np.float32)
        person = PersonBox((8.0, 8.0, 56.0, 56.0), "person")
        self._batches = Batches(lambda some: [self._mask(*one) for one in some], 1, (blank, nothing, [], person))

    def __call__(self, rows: pa.Table) -> pa.Table:
        results = self._batches(list(zip(photos_of(rows), *_guides(rows))))
        rejects = [r if isinstance(r, Reject) else None for r in results]
        masked = [None if isinstance(r, Reject) else r for r in results]
        columns = {
            schema.MASK_RLE: [m and masks.to_rle(m.mask) for m in masked],
            schema.SCORE: [m and m.score for m in masked],
            schema.STABILITY: [m and m.stability for m in masked],
        }
        for field in SEGMENT_GIVES:
            rows = rows.append_column(field.name, pa.array(columns[field.name], field.type))
        return with_rejects(rows, rejects)

    def _mask(self, photo: np.ndarray, garments_N4: np.ndarray, categories: list[str], person: PersonBox) -> Masked | Reject:
        try:
            return person_mask(self._segmenter, photo, garments_N4, categories, person, self._rules)
        except Reject as e:
            return Reject(e.code, e.detail)


def _guides(rows: pa.Table) -> tuple[list[np.ndarray], list[list[str]], list[PersonBox]]:
    """Garment boxes (in pixels of the photos), classes, and the person of each row; empty if no detector ran."""
    n = rows.num_rows
    if FOUND not in rows.column_names:
        return [np.empty((0, 4), np.float32)] * n, [[]] * n, [PersonBox(None, "no_detector")] * n
    scales = [p / w for p, w in zip(rows.column(PIXEL_WIDTH).to_pylist(), rows.column(schema.WIDTH).to_pylist())]
    found = [f or [] for f in rows.column(FOUND).to_pylist()]
    boxes_N4 = [np.array([g[schema.BOX] for g in f], np.float32).reshape(-1, 4) * s for f, s in zip(found, scales)]
    sources = rows.column(schema.CROP_SOURCE).to_pylist()
    persons = [
        PersonBox(tuple(v * s for v in box) if box else None, source or "not_detected")
        for box, source, s in zip(rows.column(schema.PERSON_BOX).to_pylist(), sources, scales)
    ]
    return boxes_N4, [[g[schema.CATEGORY] for g in f] for f in found], persons


def cut_out(rows: pa.Table, *, stage_version: str, crop_px: int, feather_px: float) -> pa.Table:
    """The person on white, and top, bottom and shoes cut from that; drops the pixels."""
    cut: list[dict] = []
    guides = _guides(rows)
    for photo, garments_N4, categories, _, rle in zip(photos_of(rows), *guides, rows.column(schema.MASK_RLE).to_pylist()):
        mask = masks.from_rle(rle)
        white = masks.on_white(photo, mask, feather_px)
        slots = [
            {
                schema.SLOT: c.slot,
                schema.BOX: list(map(float, c.box)),
                schema.CROP_SOURCE: c.crop_source,
                schema.CROP: to_jpeg(boxes.crop(white, c.box, longest_px=crop_px)),
            }
            for c in masks.slot_crops(mask, garments_N4, categories)
        ]
        cut.append(
            {
                schema.BYTES: to_jpeg(white),
                schema.WIDTH: mask.shape[1],
                schema.HEIGHT: mask.shape[0],
                schema.PERSON_BOX: list(map(float, masks.tight_box(mask) or ())),
                schema.SLOTS: slots,
                schema.STAGE_VERSION: stage_version,
            }
        )
    known = [PIXELS, PIXEL_WIDTH, PIXEL_HEIGHT, FOUND, schema.CROP_SOURCE, schema.PERSON_BOX, schema.WIDTH, schema.HEIGHT]
    result = rows.drop_columns([c for c in known if c in rows.column_names])
    for field in CUTOUT_GIVES:
        result = result.append_column(field.name, pa.array([c[field.name] for c in cut], field.type))
    return result
