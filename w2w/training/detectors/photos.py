"""Annotated photos as training samples: decoded once, shrunk, with a class per pixel if masks are known."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from w2w import schema
from w2w.garments.masks import from_rle
from w2w.garments.taxonomy import CATEGORIES
from w2w.images.decode import DecodeLimits, decode
from w2w.images.resize import shrink
from w2w.training.detectors.augment import UNKNOWN, Sample

NUMBER = {c: i for i, c in enumerate(CATEGORIES)}


@dataclass(frozen=True)
class Photo:
    """An annotated photo with the name of its data set."""

    key: str
    source: str
    sample: Sample


def photo_of(row: dict, longest_px: int) -> Photo:
    """A row of table `detections` as a photo. Raises Reject as ``decode`` does."""
    return Photo(row[schema.KEY], row[schema.SOURCE], sample_of(row, longest_px))


def sample_of(row: dict, longest_px: int, limits: DecodeLimits = DecodeLimits()) -> Sample:
    """A row of table `detections` as a sample of at most ``longest_px`` on its longer side. Raises Reject as ``decode``."""
    photo = decode(row[schema.BYTES], limits)
    height, width = photo.shape[:2]
    image = shrink(photo, longest_px)
    h, w = image.shape[:2]
    scale = np.array([w / width, h / height] * 2, np.float32)
    objects = row[schema.OBJECTS]
    kept = [o for o in objects if not o[schema.IGNORE]]
    found = _boxes(kept) * scale
    ignored = _boxes([o for o in objects if o[schema.IGNORE]]) * scale
    labelled = np.isin(CATEGORIES, row[schema.LABELLED])
    labels = np.array([NUMBER[o[schema.CATEGORY]] for o in kept], np.int64)
    return Sample(image, found, labels, ignored, _classes(objects, bool(labelled.all()), height, width, h, w), labelled)


def _boxes(objects: Sequence[dict]) -> np.ndarray:
    return np.array([o[schema.BOX] for o in objects], np.float32).reshape(-1, 4)


def _classes(objects: Sequence[dict], whole: bool, height: int, width: int, h: int, w: int) -> np.ndarray:
    """uint8 (h, w): class + 1 of each pixel, 0 for nothing. UNKNOWN: ignored regions, boxes of objects without a mask, and all
    remaining pixels if the source does not label every class. Of overlapping masks, the smaller is on top."""
    classes = np.full((height, width), 0 if whole else UNKNOWN, np.uint8)
    masked = [(o, from_rle(o[schema.MASK_RLE])) for o in objects if o[schema.MASK_RLE]]
    for o in objects:
        if not o[schema.MASK_RLE]:
            x0, y0, x1, y1 = (round(v) for v in o[schema.BOX])
            classes[y0:y1, x0:x1] = UNKNOWN
    for o, mask in sorted(masked, key=lambda pair: -int(pair[1].sum())):
        classes[mask] = UNKNOWN if o[schema.IGNORE] else NUMBER[o[schema.CATEGORY]] + 1
    return cv2.resize(classes, (w, h), interpolation=cv2.INTER_NEAREST)
