"""Nightly: ingest, embed and index in one run; only what changed since the last night is computed."""

from dataclasses import dataclass

from w2w import schema, storage
from w2w.engine.job import JobConfig, Summary, options_of, show
from w2w.images.decode import DecodeLimits
from w2w.index import job as index
from w2w.index.spec import IndexConfig
from w2w.ingest import job as ingest
from w2w.ingest.feed import FeedConfig
from w2w.ingest.loading import FeedFetchConfig
from w2w.models import job as embed
from w2w.models.config import EncoderConfig
from w2w.stage import Pool
from w2w.table import delta


@dataclass(frozen=True)
class Config(JobConfig):
    """What `w2w ingest`, `w2w embed` and `w2w index` take, in one file. A step that fails stops the night: the index that is
    published stays as it was, and the next run goes on where this one stopped."""

    SHOWN = "store feed.uri feed.columns feed.category_map feed.full encoder.name index.target_recall gpu_pool dry_run"
    PLACES = {}

    feed: FeedConfig = FeedConfig()
    """The product source."""
    decode: DecodeLimits = DecodeLimits()
    """What an image may be."""
    fetch: FeedFetchConfig = FeedFetchConfig()
    """How images on the web are fetched."""
    max_withdrawn_rate: float = ingest.Config.max_withdrawn_rate
    """As of `w2w ingest`."""
    withdraw_missing: int | None = None
    """As of `w2w ingest`."""
    encoder: EncoderConfig = EncoderConfig()
    """The model."""
    index: IndexConfig = IndexConfig()
    """What the index must hold to."""
    pool: Pool = Pool()
    """Workers of every step."""
    gpu_pool: Pool | None = None
    """Workers of their own for the model."""


def main(config: Config) -> list[Summary]:
    done: list[Summary] = []
    for job in (ingest, embed, index):
        if config.dry_run and not _can_tell(job, done, storage.absolute(config.store)):
            done[-1].facts["then"] = "embed and index of what comes in" if job is embed else "an index of what is embedded then"
            break
        if done:
            show(done[-1])
        done.append(job.main(job.Config(**options_of(config, job.Config))))
    return done[-1:]


def _can_tell(job, done: list[Summary], store: str) -> bool:
    """Whether a dry run of this step knows what it will have to do, although those before it were dry as well."""
    if job is index:
        return all(summary.facts["pending"] == "0" for summary in done)
    return job is ingest or delta.open_table(store, schema.IMAGES) is not None
