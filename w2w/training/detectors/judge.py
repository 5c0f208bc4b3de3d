"""Evaluating a detector on annotated photos: average precision by COCO's rules."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w.errors import Reject
from w2w.garments import boxes
from w2w.garments.detector import Detector, DetectorConfig
from w2w.garments.found import Found, Model
from w2w.garments.taxonomy import BOTTOM, CATEGORIES, DRESS, OUTER, SHOES, TOP
from w2w.metrics.detection import ALL, Judged, average_precision
from w2w.training.detectors.photos import Photo

GARMENT = "garment"  # top, bottom, dress, outer and shoes merged into one class
CLOTHES = (TOP, BOTTOM, DRESS, OUTER, SHOES)
FLOOR = 0.01  # minimum score of a box that counts: AP needs uncertain ones too
_HIT = 0.5  # IoU with a ground-truth box
_THRESHOLDS = tuple(i / 100 for i in range(1, 100))
_MAX_IOU = 0.6  # of two boxes of a garment, regardless of class


def judge(config: DetectorConfig, photos: Sequence[Photo], model: Model | None = None) -> list[Judged]:
    """Runs the detector over the photos. A photo that it cannot process counts as one without detections."""
    detector = Detector(config, model)
    results = [detector([photo.sample.image])[0] for photo in photos]
    nothing = Found(np.empty((0, 4), np.float32), np.empty(0, np.float32), ())
    return [_judged(photo, nothing if isinstance(r, Reject) else r) for photo, r in zip(photos, results)]


def measuring(config: DetectorConfig) -> DetectorConfig:
    """The detector as AP requires: uncertain boxes included, and no suppression between classes."""
    return replace(config, threshold=FLOOR, thresholds=None, max_boxes=100, nms_per_class=True)


def precision(judged: Sequence[Judged]) -> pa.Table:
    """AP_SCHEMA of the detections: for each class, and for ``garment``, clothes regardless of their class."""
    together = average_precision([_as_one(j) for j in judged if set(CLOTHES) <= set(j.labelled)], [GARMENT])
    alone = together.filter(pc.equal(together.column("category"), GARMENT))
    return pa.concat_tables([average_precision(judged, CATEGORIES), alone])


@dataclass(frozen=True)
class Matches:
    """All detected boxes, best first: score, whether it is a true positive (IoU .5, each ground-truth box once; boxes in
    ignored regions are left out), and class; and the number of ground-truth boxes."""

    scores_F: np.ndarray
    right_F: np.ndarray
    num_truths: int
    classes_F: np.ndarray

    def at(self, threshold: float) -> tuple[float | None, float | None]:
        """(precision, recall) of the boxes with at least this score; None if undefined."""
        found = self.scores_F >= threshold
        right = int(self.right_F[found].sum())
        return right / int(found.sum()) if found.any() else None, right / self.num_truths if self.num_truths else None

    def best_threshold(self) -> float:
        """The threshold with the highest F1, in hundredths; ties go to the highest."""
        return max(_THRESHOLDS, key=lambda t: (_f1(*self.at(t)), t))


def matches(judged: Sequence[Judged], max_iou: float | None) -> Matches:
    """``max_iou``: of two boxes of any classes that overlap more, the lower-scoring one is dropped, as in `w2w detect`."""
    scores, right, classes, num_truths = [], [], [], 0
    for photo in judged:
        known = np.isin(photo.found_classes, list(photo.labelled))
        kept = np.flatnonzero(known)
        if max_iou is not None:
            kept = kept[boxes.nms(photo.found_K4[kept], photo.found_scores[kept], max_iou)]
        num_truths += len(photo.truth_classes)
        left = set(range(len(photo.truth_classes)))
        for k in kept[np.argsort(-photo.found_scores[kept], kind="stable")]:
            box = photo.found_K4[k : k + 1]
            same = [t for t in left if photo.truth_classes[t] == photo.found_classes[k]]
            overlaps = _overlaps(box, photo.truth_N4[same]) if same else np.empty(0)
            hit = bool(len(overlaps)) and overlaps.max() >= _HIT
            if hit:
                left.discard(same[int(overlaps.argmax())])
            elif len(photo.ignore_M4) and _overlaps(box, photo.ignore_M4, of_first=True).max() >= _HIT:
                continue
            scores.append(float(photo.found_scores[k]))
            right.append(hit)
            classes.append(photo.found_classes[k])
    order = np.argsort(-np.array(scores, float), kind="stable")
    return Matches(
        np.array(scores, float)[order], np.array(right, bool)[order], num_truths, np.array(classes, dtype=object)[order]
    )


def _f1(precision: float | None, recall: float | None) -> float:
    if precision is None or recall is None:
        return 0.0
    return 2 * precision * recall / max(precision + recall, 1e-9)


def _overlaps(box_14: np.ndarray, others_N4: np.ndarray, of_first: bool = False) -> np.ndarray:
    """IoU (N,), or the share of the first box that lies in each."""
    common = np.minimum(box_14[:, 2:], others_N4[:, 2:]) - np.maximum(box_14[:, :2], others_N4[:, :2])
    inside = np.maximum(common, 0).prod(1)
    first, other = (box_14[:, 2:] - box_14[:, :2]).prod(1), (others_N4[:, 2:] - others_N4[:, :2]).prod(1)
    return inside / np.maximum(first if of_first else first + other - inside, 1e-9)


def _judged(photo: Photo, found: Found) -> Judged:
    s = photo.sample
    labelled = [c for c, known in zip(CATEGORIES, s.labelled) if known]
    names = [CATEGORIES[i] for i in s.labels_N]
    return Judged(photo.source, s.boxes_N4, names, s.ignore_M4, labelled, found.boxes_N4, found.categories, found.scores_N)


def _as_one(photo: Judged) -> Judged:
    """Clothes merged into one class; a box detected under two classes counts once."""
    true = np.array([c in CLOTHES for c in photo.truth_classes], bool)
    ours = np.array([c in CLOTHES for c in photo.found_classes], bool)
    found, scores = photo.found_K4[ours], photo.found_scores[ours]
    kept = boxes.nms(found, scores, _MAX_IOU)
    return replace(
        photo,
        truth_N4=photo.truth_N4[true],
        truth_classes=[GARMENT] * int(true.sum()),
        labelled=[GARMENT],
        found_K4=found[kept],
        found_classes=[GARMENT] * len(kept),
        found_scores=scores[kept],
    )


def lines(table: pa.Table, source: str | None = ALL) -> Iterator[tuple[str | None, dict[str, float], int]]:
    """For one source: (class, metric -> value if defined, number of ground-truth boxes), the mean first."""
    rows = [r for r in table.to_pylist() if r["source"] == source]
    for category in dict.fromkeys(r["category"] for r in rows):
        mine = [r for r in rows if r["category"] == category]
        yield category, {r["metric"]: r["value"] for r in mine if r["value"] is not None}, mine[0]["num_truths"]
