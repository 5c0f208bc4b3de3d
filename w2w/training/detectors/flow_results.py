"""Evaluating a detector on annotated photos: figures for the summary, as JSON and as a page."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from w2w import storage
from w2w.garments.detector import DetectorConfig, threshold_of
from w2w.garments.page import Box, Seen
from w2w.metrics.detection import ALL, Judged
from w2w.results import Figure
from w2w.training.detectors.flow import Photos, judge_photos
from w2w.training.detectors.judge import GARMENT, lines, matches, precision
from w2w.training.page import Curve, detector_report

_SHOWN_SCORE = 0.4  # minimum score of a box drawn in the report


def measure(
    photos: Photos,
    keys: Sequence[str],
    detector: DetectorConfig,
    num_shown: int,
    out: str,
    facts: Mapping[str, object],
    charts: dict[str, list[Curve]] | None = None,
    page: str = "",
) -> dict[str, Any]:
    """Runs the detector, writes metrics.json into ``out`` and ``page`` (default: report.html there). Returns fields of the
    job's result: AP, and precision and recall of boxes above the detector's threshold, as `w2w detect` uses."""
    judged, shown = judge_photos(photos, keys, detector, num_shown, detector.threads)
    table, threshold = precision(judged), threshold_of(detector)
    right, found_share = matches(judged, None if detector.nms_per_class else detector.max_iou).at(threshold)
    found = {name: values for name, values, _ in lines(table)}
    figures = {f"{m}, mean of the classes": Figure(found[ALL][m]) for m in ("mAP", "AP50", "AP75") if m in found[ALL]}
    if "AP50" in found.get(GARMENT, {}):
        figures["AP50 of clothes and shoes as one class"] = Figure(found[GARMENT]["AP50"])
    headline = {name: str(figure) for name, figure in figures.items()}
    shares = [("nothing was found", right), ("nothing is there", found_share)]
    headline[f"precision and recall at {threshold:g}"] = ", ".join(none if v is None else f"{v:.3f}" for none, v in shares)
    storage.write_bytes(storage.join(out, "metrics.json"), json.dumps(table.to_pylist(), indent=1).encode())
    page = page or storage.join(out, "report.html")
    seen = [_seen(key, image, one) for key, image, one in shown]
    detector_report(page, f"Detector {_model(detector.name)}", headline, facts, charts or {}, table, seen)
    figures |= {f"AP50 {name}": Figure(values["AP50"], num=n) for name, values, n in lines(table) if name is not ALL and values}
    at = {"threshold": threshold, "precision": right, "recall": found_share}
    return {"figures": figures, **at, "report": page}


def _model(name: str) -> str:
    """A page's name for a detector: the file or folder name alone."""
    kind, colon, place = name.rpartition(":")
    return f"{kind}{colon}{os.path.basename(place.rstrip('/')) or place}" if os.path.isabs(place) else name


def chosen_threshold(photos: Photos, detector: DetectorConfig) -> float:
    """The threshold with the highest F1 on the held-out photos."""
    judged, _ = judge_photos(photos, photos.val, detector, 0, detector.threads)
    return matches(judged, None if detector.nms_per_class else detector.max_iou).best_threshold()


def _seen(key: str, image: bytes, judged: Judged) -> Seen:
    found = zip(judged.found_classes, judged.found_scores.tolist(), judged.found_K4.tolist())
    boxes = [Box(name, name, score, tuple(box)) for name, score, box in found if score >= _SHOWN_SCORE]
    return Seen(key, image, boxes)
