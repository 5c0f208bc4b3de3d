"""Show: a page of photos with detected garments and people, histograms and rejects."""

from dataclasses import dataclass

from w2w import schema, storage
from w2w.engine.job import JobConfig, Run
from w2w.errors import UsageError
from w2w.garments.gallery import write_gallery
from w2w.report.page import page_of
from w2w.results import Summary
from w2w.table.delta import newest_version


@dataclass(frozen=True)
class Config(JobConfig):
    """Draw what `w2w detect` and `w2w segment` found, each at its newest version, on a sample of photos."""

    SHOWN = "store out photos threshold"

    out: str = ""
    """The page. Default: index.html in <store>/reports/show/<run>, and latest.html beside the runs."""
    photos: int = 24
    """How many photos, and how many rejects, are shown."""
    threshold: float = 0.3
    """Minimum score of a garment that is drawn and counted."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """What the tables hold for the newest versions."""

    photos_seen: int
    garments: int
    below_threshold: int
    cut_outs: int
    rejected: int
    report: str


def main(config: Config) -> Result:
    run = Run("show", config)
    if not 0 <= config.threshold <= 1:
        raise UsageError(f"--threshold={config.threshold}: a score between 0 and 1")
    store = run.store
    detected, cut = (newest_version(store, table) for table in (schema.LOOKS, schema.CUTOUTS))
    if not (detected or cut):
        raise UsageError(f"nothing was detected or cut out in {store!r} yet: run 'w2w detect' or 'w2w segment' first")
    page = storage.absolute(config.out) if config.out else page_of(store, run.job, run.run_id)
    counted = write_gallery(store, detected, cut, config.photos, config.threshold, None if config.dry_run else page)
    return run.result(Result, **counted, report=page)
