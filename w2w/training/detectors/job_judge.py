"""Judge: average precision of any detector on annotated test photos."""

from dataclasses import dataclass, field

from w2w import schema, storage
from w2w.engine.job import JobConfig, Run
from w2w.errors import UsageError
from w2w.garments.detector import DetectorConfig, detector_version, try_detector
from w2w.report.page import page_of
from w2w.results import Figure, Summary, words
from w2w.table.delta import need_table
from w2w.training.detectors.flow import list_photos
from w2w.training.detectors.flow_results import measure


@dataclass(frozen=True)
class Config(JobConfig):
    """Find garments in the test photos and compare with their annotations: AP per class and source, as JSON and as a page."""

    SHOWN = "store detector.name detector.threshold sources split photos out"

    detector: DetectorConfig = field(default_factory=DetectorConfig)
    """The model. AP uses all boxes; precision and recall those above its threshold."""
    sources: list[str] | None = None
    """Data sets to evaluate on. Default: all."""
    split: str = "test"
    """test, or train to see what was memorised."""
    photos: int = 12
    """Photos on the page."""
    out: str | None = None
    """Folder of report.html and metrics.json. Default: <store>/reports/judge/<run>, the page as index.html."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """The figures of a detector on these photos."""

    detector: str
    detector_version: str
    split: str
    photos: int
    table_version: int
    figures: dict[str, Figure] = field(default_factory=dict)
    """Average precision on the test photos."""
    threshold: float | None = None
    """Score threshold of ``precision`` and ``recall``."""
    precision: float | None = None
    recall: float | None = None
    report: str | None = None


def main(config: Config) -> Result:
    if config.split not in ("test", "train"):
        raise UsageError(f"--split={config.split}: test or train")
    run = Run("judge", config)
    need_table(run.store, schema.DETECTIONS, "annotate")
    version = detector_version(config.detector)
    photos = list_photos(run.store, config.sources, 0.0)
    keys = {"test": photos.test, "train": photos.train}[config.split][: config.limit]
    if not keys:
        raise UsageError(f"table `detections` has no {config.split} photos: see --annotations.split of 'w2w annotate'")
    result = run.result(
        Result,
        detector=config.detector.name,
        detector_version=version,
        split=config.split,
        photos=len(keys),
        table_version=photos.table_version,
    )
    try_detector(config.detector)
    if config.dry_run:
        return result
    run.begin()
    page = storage.join(storage.absolute(config.out), "report.html") if config.out else page_of(run.store, run.job, run.run_id)
    out = page.rpartition("/")[0]
    return run.done(result, **measure(photos, keys, config.detector, config.photos, out, words(result), page=page))
