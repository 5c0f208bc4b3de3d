"""Judge: average precision of any detector on the annotated test photos of table `detections`."""

import json
from dataclasses import dataclass, field

from w2w import schema, storage
from w2w.errors import UsageError
from w2w.garments.detector import DetectorConfig, detector_version
from w2w.metrics.detection import ALL, Judged
from w2w.report.garments import Box, Seen
from w2w.report.training import Curve, detector_report
from w2w.runtime.job import JobConfig, Run, Summary, need_table, start
from w2w.runtime.training import Photos, judge_photos, list_photos
from w2w.training.judge import GARMENT, lines, precision

SHOWN_SCORE = 0.4  # least, of a box drawn in the report


@dataclass(frozen=True)
class Config(JobConfig):
    """Find garments in the test photos and compare with their annotations: AP a class and a source, as JSON and as a page."""

    detector: DetectorConfig = field(default_factory=DetectorConfig)
    """The model. Its thresholds do not matter here: AP looks at all boxes."""
    sources: list[str] | None = None
    """Data sets to measure on. Default: all."""
    split: str = "test"
    """test, or train for a look at what was learnt by heart."""
    photos: int = 12
    """How many are shown."""
    out: str | None = None
    """Folder of report.html and metrics.json. Default: judged/<detector's version> in the store."""


def main(config: Config) -> Summary:
    if config.split not in ("test", "train"):
        raise UsageError(f"--split={config.split}: test or train")
    run = Run("judge", config)
    need_table(run.store, schema.DETECTIONS, "annotate")
    version = detector_version(config.detector)
    photos = list_photos(run.store, config.sources, 0.0)
    keys = {"test": photos.test, "train": photos.train}[config.split][: config.limit]
    if not keys:
        raise UsageError(f"table `detections` has no {config.split} photos: see --annotations.split of 'w2w annotate'")
    facts: dict[str, object] = {"detector": config.detector.name, "detector version": version}
    facts |= {"split": config.split, "photos": len(keys), "table `detections`": f"version {photos.table_version}"}
    if config.dry_run:
        return run.summary(facts=facts)
    run.begin()
    out = storage.absolute(config.out) if config.out else storage.join(run.store, "judged", version)
    return run.summary(facts=facts | measure(photos, keys, config.detector, config.photos, out, facts))


def measure(
    photos: Photos,
    keys: tuple[str, ...],
    detector: DetectorConfig,
    num_shown: int,
    out: str,
    facts: dict[str, object],
    charts: dict[str, list[Curve]] | None = None,
) -> dict[str, object]:
    """Runs the detector, writes metrics.json and report.html into ``out``; returns the figures for the summary."""
    judged, shown = judge_photos(photos, keys, detector, num_shown, detector.threads)
    table = precision(judged)
    found = {name: values for name, values, _ in lines(table)}
    headline = {f"{m}, mean of the classes": f"{found[ALL][m]:.3f}" for m in ("mAP", "AP50", "AP75")}
    if GARMENT in found:
        headline["AP50 of clothes and shoes as one class"] = f"{found[GARMENT]['AP50']:.3f}"
    storage.write_bytes(storage.join(out, "metrics.json"), json.dumps(table.to_pylist(), indent=1).encode())
    page = storage.join(out, "report.html")
    seen = [_seen(key, image, one) for key, image, one in shown]
    detector_report(page, f"Detector {detector.name}", headline, facts, charts or {}, table, seen)
    figures = {f"AP50 {name}": f"{values['AP50']:.3f} of {n}" for name, values, n in lines(table) if name != ALL}
    return headline | figures | {"report": page}


def _seen(key: str, image: bytes, judged: Judged) -> Seen:
    found = zip(judged.found_classes, judged.found_scores.tolist(), judged.found_K4.tolist())
    boxes = [Box(name, name, score, tuple(box)) for name, score, box in found if score >= SHOWN_SCORE]
    return Seen(key, image, boxes)


if __name__ == "__main__":
    start(main, Config)
