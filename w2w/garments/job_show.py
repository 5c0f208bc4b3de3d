"""Show: a page of photos with the garments and people found in them, class histograms, and a gallery of rejects."""

from dataclasses import dataclass

from w2w import schema, storage
from w2w.engine.job import JobConfig, Run
from w2w.errors import UsageError
from w2w.garments.gallery import write_gallery
from w2w.results import Summary
from w2w.table.delta import newest_version


@dataclass(frozen=True)
class Config(JobConfig):
    """Draw what `w2w detect` and `w2w segment` found, each at its newest version, on a sample of photos."""

    SHOWN = "store out photos"

    out: str = ""
    """The page. Default: garments.html in the store."""
    photos: int = 24
    """How many photos, and how many rejects, are shown."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """What the tables hold of the newest versions."""

    photos_seen: int
    garments: int
    cut_outs: int
    rejected: int
    report: str


def main(config: Config) -> Result:
    run = Run("show", config)
    store = run.store
    detected, cut = (newest_version(store, table) for table in (schema.LOOKS, schema.CUTOUTS))
    if not (detected or cut):
        raise UsageError(f"nothing was detected or cut out in {store!r} yet: run 'w2w detect' or 'w2w segment' first")
    page = storage.absolute(config.out) if config.out else storage.join(store, "garments.html")
    counted = write_gallery(store, detected, cut, config.photos, None if config.dry_run else page)
    return run.result(Result, **counted, report=page)
