"""Small annotated photos, drawn."""

import io

import numpy as np
from PIL import Image

from w2w import schema
from w2w.garments.masks import to_rle
from w2w.garments.taxonomy import CATEGORIES
from w2w.training.detectors.augment import Sample
from w2w.training.detectors.photos import Photo


def sample(boxes, labels, height: int = 120, width: int = 80, ignore=(), labelled=None) -> Sample:
    """Rectangles of one colour a class on noise, their pixels known."""
    rng = np.random.default_rng(0)
    image = rng.integers(100, 156, (height, width, 3)).astype(np.uint8)
    classes = np.zeros((height, width), np.uint8)
    for (x0, y0, x1, y1), label in zip(boxes, labels):
        image[y0:y1, x0:x1] = (30 * label, 255 - 30 * label, 90)
        classes[y0:y1, x0:x1] = label + 1
    known = np.ones(7, bool) if labelled is None else np.array(labelled, bool)
    as_boxes = [np.array(b, np.float32).reshape(-1, 4) for b in (boxes, ignore)]
    return Sample(image, as_boxes[0], np.array(labels, np.int64), as_boxes[1], classes, known)


def photos(count: int, source: str = "drawn") -> list[Photo]:
    """A top above a bottom, somewhere."""
    rng = np.random.default_rng(1)
    result = []
    for i in range(count):
        x, y = (int(v) for v in rng.integers(4, 30, 2))
        boxes = [(x, y, x + 40, y + 40), (x + 5, y + 40, x + 35, y + 85)]
        result.append(Photo(f"{source}/{i}", source, sample(boxes, [6, 1])))
    return result


def row(photo: Photo, split: str) -> dict:
    """The photo as a row of table `detections`."""
    s = photo.sample
    out = io.BytesIO()
    Image.fromarray(s.image).save(out, "PNG")
    objects = [
        {
            schema.BOX: box.tolist(),
            schema.CATEGORY: CATEGORIES[label],
            schema.ORIGINAL_LABEL: CATEGORIES[label],
            schema.IGNORE: False,
            schema.MASK_RLE: to_rle(s.classes_HW == label + 1),
        }
        for box, label in zip(s.boxes_N4, s.labels_N)
    ]
    return {
        schema.KEY: photo.key,
        schema.SOURCE: photo.source,
        schema.SPLIT: split,
        schema.IMAGE_ID: photo.key,
        schema.BYTES: out.getvalue(),
        schema.WIDTH: s.image.shape[1],
        schema.HEIGHT: s.image.shape[0],
        schema.OBJECTS: objects,
        schema.LABELLED: list(CATEGORIES),
        schema.STAGE_VERSION: "v",
    }
