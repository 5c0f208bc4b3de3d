"""Ingest: a product feed, image folder or tar shards into `products` and `images`."""

from dataclasses import dataclass, field, replace
from typing import Any

from w2w.engine.job import JobConfig, Run
from w2w.errors import UsageError
from w2w.images.decode import DecodeLimits
from w2w.ingest import download
from w2w.ingest.feed import FeedConfig
from w2w.ingest.flow import Night
from w2w.ingest.flow_load import Load, broken, newly_said
from w2w.ingest.loading import FeedFetchConfig
from w2w.ingest.outlook import after_a_run
from w2w.results import Summary
from w2w.stage import Pool
from w2w.table import work
from w2w.web.urls import redacted


@dataclass(frozen=True)
class Config(JobConfig):
    """Bring table `products` up to date with a feed, and its images into table `images`. Unchanged rows are skipped."""

    SHOWN = "store feed.uri feed.columns feed.category_map feed.full feed.id max_withdrawn_rate max_reject_rate limit dry_run"
    PLACES = {"FEED": "feed.uri"}

    feed: FeedConfig = FeedConfig()
    """The product source."""
    decode: DecodeLimits = DecodeLimits()
    """Limits of an image."""
    fetch: FeedFetchConfig = FeedFetchConfig()
    """How images on the web are fetched."""
    pool: Pool = Pool()
    """Workers that read and check images."""
    max_withdrawn_rate: float = 0.1
    """Refuse a feed that withdraws a larger share of its active products: most likely a truncated file."""
    withdraw_missing: int | None = None
    """Withdraw what is missing or said to be gone at once, whatever the rate and the grace period, if it is no more than
    this."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """What a feed has changed."""

    feed: str
    feed_on_the_web: str | None = None
    """Since when it has not changed, or how much was fetched."""
    feed_rows: int = 0
    pending: int = 0
    """Rows that are, or would be, read in this run."""
    pictures_asked_for_again: int | None = None
    pictures_unchanged: int | None = None
    permissions_written: int | None = None
    """Pictures of whose use something is said that was not said there before (table `permissions`)."""
    not_permitted: dict[str, int] = field(default_factory=dict)
    """Pictures of the feed's products that search, and training, may not use. In a dry run: as far as the store, feed.use and
    the pictures that were tried tell."""
    why_not_permitted: list[str] = field(default_factory=list)
    """For each of these uses a sentence: the reasons, and the option that says that the pictures are your own."""
    use_not_known: int | None = None
    """In a dry run: new pictures on the web, of whose use nobody knows before they are asked for."""
    rejected_before: int | None = None
    rows_without_a_readable_id: int | None = None
    read_as: str | None = None
    """What the feed's columns were taken for, where its config does not say."""
    change_files: int | None = None
    """Of a folder of changes: files that are, or would be, applied."""
    rows_superseded: int | None = None
    """Of a feed that says what is gone: rows of products of which a later row counts."""
    deletions: int | None = None
    """Rows that say that a product is gone; these are not among feed_rows."""
    deletions_of_no_product: int | None = None
    """Those of products that were not there."""
    rows_of_no_product: int | None = None
    """Rows of variants, of further pictures, or of products that are not on sale: a feed.preset leaves them out."""
    variants_without_their_product: int | None = None
    """Of these, variants of products that the feed does not list."""
    rows_of_erased_products: int | None = None
    """Left out, until `w2w erase --allow`."""
    broken_pictures_beside_the_front: dict[str, int] = field(default_factory=dict)
    """By code, each with a new row in table `warnings`. In a dry run: as far as the feed and its folder tell."""
    would_be_rejected: dict[str, int] = field(default_factory=dict)
    """In a dry run: pending rows by code, as far as the feed and its folder tell."""
    categories: dict[str, dict[str, int]] = field(default_factory=dict)
    """In a dry run: our category -> the feed's commonest that become it, and their rows."""
    more_categories: int | None = None
    """In a dry run: categories of ours beyond the twenty with most rows."""
    products_tried: int | None = None
    """In a dry run: the products that were loaded, and not stored."""
    pictures_tried: int | None = None
    broken_of_those_tried: list[str] = field(default_factory=list)
    examples: dict[str, dict[str, Any]] = field(default_factory=dict)
    """In a dry run: products as they would be stored."""
    pictures_beyond_the_most: int | None = None
    """Left out: a product has feed.max_pictures at most."""
    values_not_read: dict[str, int] = field(default_factory=dict)
    """Values of the feed that cannot be read, by column: they are null, and table `warnings` tells why."""
    of_those_not_read: list[str] = field(default_factory=list)
    """One of each column, and why."""
    values_not_compared: str | None = None
    """Why feed.max_unread_rate was not applied."""
    unmapped_categories: dict[str, int] = field(default_factory=dict)
    """The commonest categories of the feed that feed.category_map lacks, and their rows: they became feed.category_default."""
    other_files_of_a_sample: int | None = None
    """Ignored: a sample of a shard has one picture."""
    missing: int | None = None
    """Active products that a full feed no longer lists."""
    withdrawn: int | None = None
    """Products that the feed says are gone, or has not listed for long enough."""
    held_back: str | None = None
    """Why nothing is withdrawn."""
    adopted: int | None = None
    """Products that another feed's id had before."""


def check(config: Config) -> None:
    """Raises UsageError for faults of the feed and of options that can be told before any work."""
    download.check(config.feed, config.fetch)
    if not 0 <= config.max_withdrawn_rate <= 1:
        raise UsageError(f"--max_withdrawn_rate={config.max_withdrawn_rate}: a share between 0 and 1")
    if config.withdraw_missing is not None and config.withdraw_missing < 0:
        raise UsageError(f"--withdraw_missing={config.withdraw_missing}: must not be negative")
    feed = config.feed
    if config.withdraw_missing is not None and not (feed.full or feed.changes or feed.deleted or feed.deletions):
        raise UsageError(f"--withdraw_missing={config.withdraw_missing}: only a feed with feed.full withdraws anything")


def main(config: Config) -> Result:
    run = Run("ingest", config)
    check(config)
    if not config.dry_run:
        run.check_store()
    with download.at_hand(config.feed, config.fetch, run.store, keep=not config.dry_run) as found:
        # lineage says where the feed comes from, without what its URL may keep secret
        run.config = replace(config, feed=replace(config.feed, uri=redacted(config.feed.uri))) if found.told else config
        return _done(run, replace(config, feed=found.feed), found.told)


def _done(run: Run, config: Config, on_the_web: str | None) -> Result:
    night = Night(run, config)
    try:
        night.read()
        read: dict[str, Any] = {"feed": config.feed.id, "feed_rows": night.listed, "skipped": night.listed - night.pending}
        read |= {"pending": night.num_pending(config.limit), "feed_on_the_web": on_the_web}
        result = run.result(Result, **read, **night.told())
        if config.dry_run:
            result = replace(result, **night.tried())
            night.check_rejects(result)
            return result
        counts, versions = Load(run, config, night)()
        unchanged = counts.left_out.get("images", 0) if night.rechecked else None
        not_loaded = broken(run) if versions else {}
        done: dict[str, Any] = {"pictures_unchanged": unchanged, "broken_pictures_beside_the_front": not_loaded}
        done |= {"permissions_written": newly_said(run) or None} | after_a_run(run.store, config.feed.id)
        return run.done(result, counts=counts, versions=versions, **done)
    finally:
        work.clean(run.store, run.run_id)
