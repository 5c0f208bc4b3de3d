"""Ingest: a product feed, image folder or tar shards into tables `products` and `images`; only what changed is read."""

from dataclasses import dataclass

from w2w.engine.job import JobConfig, Run, Summary
from w2w.errors import UsageError
from w2w.images.decode import DecodeLimits
from w2w.ingest.feed import FeedConfig, check_feed
from w2w.ingest.flow import Night
from w2w.ingest.loading import FeedFetchConfig
from w2w.stage import Pool
from w2w.table import work


@dataclass(frozen=True)
class Config(JobConfig):
    """Bring table `products` up to date with a feed, and its images into table `images`. Unchanged rows are skipped."""

    SHOWN = "store feed.uri feed.columns feed.category_map feed.full feed.id max_withdrawn_rate max_reject_rate limit dry_run"
    PLACES = {"FEED": "feed.uri"}

    feed: FeedConfig = FeedConfig()
    """The product source."""
    decode: DecodeLimits = DecodeLimits()
    """What an image may be."""
    fetch: FeedFetchConfig = FeedFetchConfig()
    """How images on the web are fetched."""
    pool: Pool = Pool()
    """Workers that read and check images."""
    max_withdrawn_rate: float = 0.1
    """With feed.full: a feed that misses a larger share of its active products is refused (a cut-off file, most likely)."""
    withdraw_missing: int | None = None
    """With feed.full: withdraw what is missing at once, whatever the rate and the grace, if it is no more than this many."""


def main(config: Config) -> Summary:
    run = Run("ingest", config)
    check_feed(config.feed)
    if not 0 <= config.max_withdrawn_rate <= 1:
        raise UsageError(f"--max_withdrawn_rate={config.max_withdrawn_rate}: a share between 0 and 1")
    if config.withdraw_missing is not None and config.withdraw_missing < 0:
        raise UsageError(f"--withdraw_missing={config.withdraw_missing}: must not be negative")
    if config.withdraw_missing is not None and not config.feed.full:
        raise UsageError(f"--withdraw_missing={config.withdraw_missing}: only a feed with feed.full withdraws anything")
    if not config.dry_run:
        run.check_store()
    night = Night(run, config)
    try:
        night.read()
        facts = {"feed": config.feed.id, "feed rows": f"{night.listed:,}", "pending": f"{night.num_pending(config.limit):,}"}
        facts |= night.facts()
        skipped = night.listed - night.pending
        if config.dry_run:
            return run.summary(skipped=skipped, facts=facts)
        counts, versions = night.load()
        if night.rechecked:
            facts["pictures unchanged"] = f"{counts.left_out.get('images', 0):,}"
        return run.summary(counts=counts, versions=versions, skipped=skipped, facts=facts)
    finally:
        work.clean(run.store, run.run_id)
