"""Detection metrics by COCO's own evaluator: mAP@[.5:.95], AP50 and AP75, per class and per source; overlap of masks.

Source: Lin et al. 2014, "Microsoft COCO", and pycocotools' cocoeval: 101 recall points, at most 100 detections a photo. A class
without truth in a group has no AP and is left out of its mean.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

ALL = None  # in place of a source or class: not a name that a data set could have
AP_SCHEMA = pa.schema(
    [
        ("source", pa.string()),  # a data set; null for all
        ("category", pa.string()),  # a class; null for the mean over the classes
        ("metric", pa.string()),  # mAP, AP50, AP75
        ("value", pa.float64()),  # null if there is no ground truth
        ("num_truths", pa.int32()),
    ]
)
_THRESHOLDS: dict[str, slice | int] = {"mAP": slice(None), "AP50": 0, "AP75": 5}


@dataclass(frozen=True)
class Judged:
    """One photo: its ground-truth boxes and classes, ignored regions, the classes that its source labels, and the detections.

    Boxes are float (N, 4) xyxy. Classes that the source does not label are excluded there.
    """

    source: str
    truth_N4: np.ndarray
    truth_classes: Sequence[str]
    ignore_M4: np.ndarray
    labelled: Sequence[str]
    found_K4: np.ndarray
    found_classes: Sequence[str]
    found_scores: np.ndarray


def average_precision(photos: Sequence[Judged], classes: Sequence[str]) -> pa.Table:
    """AP_SCHEMA: for all photos and, if there are several, for each source; the mean of the classes first, then each.

    Raises ValueError for a score or box that is not finite: COCO's evaluator sorts NaN first, as the highest score.
    """
    for photo in photos:
        for name in ("found_scores", "found_K4", "truth_N4", "ignore_M4"):
            if not np.isfinite(np.asarray(getattr(photo, name), float)).all():
                raise ValueError(f"{name} of a photo of {photo.source} has NaN or infinity")
    sources = sorted({p.source for p in photos})
    rows = []
    for source in [ALL, *(sources if len(sources) > 1 else [])]:
        rows += _group(source, [p for p in photos if source is ALL or p.source == source], list(classes))
    return pa.Table.from_pylist(rows, schema=AP_SCHEMA)


def _group(source: str | None, photos: Sequence[Judged], classes: list[str]) -> list[dict]:
    number = {c: i + 1 for i, c in enumerate(classes)}
    truths, found = [], []
    for image, photo in enumerate(photos, 1):
        labelled = [c for c in classes if c in set(photo.labelled)]
        for box, name in zip(_xywh(photo.truth_N4), photo.truth_classes):
            truths.append(_truth(len(truths), image, number[name], box, 0))
        # an ignored region is a crowd of every class: detections in it are not false positives, of whatever class
        for box in _xywh(photo.ignore_M4):
            truths += [_truth(len(truths) + i, image, number[c], box, 1) for i, c in enumerate(labelled)]
        for box, name, score in zip(_xywh(photo.found_K4), photo.found_classes, photo.found_scores):
            if name in labelled:
                found.append({"image_id": image, "category_id": number[name], "bbox": box, "score": float(score)})
    counts = {c: sum(t["category_id"] == number[c] and not t["iscrowd"] for t in truths) for c in classes}
    precision_TC = _precision(truths, found, len(photos), number)
    rows = []
    for metric, at in _THRESHOLDS.items():
        values = {c: float(np.mean(precision_TC[at, i])) for i, c in enumerate(classes) if counts[c]}
        mean: float | None = float(np.mean(list(values.values()))) if values else None
        for name, value in [(ALL, mean), *values.items()]:
            many = sum(counts.values()) if name is None else counts[name]
            rows.append({"source": source, "category": name, "metric": metric, "value": value, "num_truths": many})
    return rows


def _precision(truths: list[dict], found: list[dict], num_photos: int, number: dict[str, int]) -> np.ndarray:
    """Mean precision over the recall points, (10 IoU thresholds, classes)."""
    if not truths or not found:
        return np.zeros((10, len(number)))
    images = [{"id": i} for i in range(1, num_photos + 1)]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        truth = COCO()
        truth.dataset = {
            "images": images,
            "annotations": truths,
            "categories": [{"id": i, "name": c} for c, i in number.items()],
        }
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
    precision_TRC = evaluator.eval["precision"][:, :, :, 0, -1]
    return np.where(precision_TRC < 0, 0, precision_TRC).mean(axis=1)


def _xywh(boxes_N4: np.ndarray) -> list[list[float]]:
    boxes_N4 = np.asarray(boxes_N4, float).reshape(-1, 4)
    return np.concatenate([boxes_N4[:, :2], boxes_N4[:, 2:] - boxes_N4[:, :2]], axis=1).tolist()


def _truth(before: int, image: int, category: int, box: list[float], crowd: int) -> dict:
    area = box[2] * box[3]
    return {"id": before + 1, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": crowd}
