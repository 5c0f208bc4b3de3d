"""Judge: average precision of any detector on the annotated test photos of table `detections`."""

from dataclasses import dataclass, field

from w2w import schema, storage
from w2w.engine.job import JobConfig, Run, Summary
from w2w.errors import UsageError
from w2w.garments.detector import DetectorConfig, detector_version, try_detector
from w2w.table.delta import need_table
from w2w.training.detectors.flow import list_photos
from w2w.training.detectors.flow_results import measure


@dataclass(frozen=True)
class Config(JobConfig):
    """Find garments in the test photos and compare with their annotations: AP a class and a source, as JSON and as a page."""

    SHOWN = "store detector.name detector.threshold sources split photos out"

    detector: DetectorConfig = field(default_factory=DetectorConfig)
    """The model. AP looks at all boxes; precision and recall are of those above its threshold."""
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
    try_detector(config.detector)
    if config.dry_run:
        return run.summary(facts=facts)
    run.begin()
    out = storage.absolute(config.out) if config.out else storage.join(run.store, "judged", version)
    return run.summary(facts=facts | measure(photos, keys, config.detector, config.photos, out, facts))
