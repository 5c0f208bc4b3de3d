"""Ingest: a product feed, image folder or tar shards into tables `products` and `images`; only what changed is read."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.crawl.fetch import FetchConfig
from w2w.errors import UsageError
from w2w.images.decode import DecodeLimits
from w2w.images.stage import INSPECT_GIVES, inspect
from w2w.ingest.changes import CURRENT_COLUMNS, CurrentProducts, withdrawn
from w2w.ingest.feed import FeedConfig, check_feed, read_feed
from w2w.ingest.stage import WORK_SCHEMA, work_rows
from w2w.runtime.crawl.loading import load_stage
from w2w.runtime.job import JobConfig, Run, Summary, start
from w2w.runtime.run import run_stages
from w2w.runtime.source import file_rows
from w2w.runtime.stage import Pool, Stage
from w2w.table import delta, work
from w2w.table.pending import rejected_keys
from w2w.table.sink import Output, append_rows

STAGE_CODE = 1  # raise it when the same bytes would be judged differently


@dataclass(frozen=True)
class Config(JobConfig):
    """Bring table `products` up to date with a feed, and its images into table `images`. Unchanged rows are skipped."""

    feed: FeedConfig = FeedConfig()
    """The product source."""
    decode: DecodeLimits = DecodeLimits()
    """What an image may be."""
    fetch: FetchConfig = FetchConfig()
    """How images on the web are fetched."""
    pool: Pool = Pool()
    """Workers that read and check images."""
    max_withdrawn_rate: float = 0.5
    """With feed.full: refuse a feed that would withdraw a larger share of the active products (a cut-off file, most likely)."""


def main(config: Config) -> Summary:
    run = Run("ingest", config)
    check_feed(config.feed)
    version = ids.digest(STAGE_CODE, config.decode, config.fetch.max_bytes)
    if not config.dry_run:
        run.check_store()
    current = CurrentProducts(delta.current_products(run.store, CURRENT_COLUMNS))
    rejected = rejected_keys(run.store, "ingest", version).read()
    feed_rows, seen = 0, Counter[str]()

    def pending() -> Iterator[pa.Table]:
        nonlocal feed_rows
        for batch in read_feed(config.feed):
            rows = work_rows(batch, seen)
            feed_rows += rows.num_rows
            current.list(batch.rows.column(schema.PRODUCT_ID).combine_chunks())
            current.list(batch.rejects.column(schema.KEY).combine_chunks())
            yield rows.filter(pc.invert(pc.or_(current.unchanged(rows), pc.is_in(rows.column(schema.KEY), value_set=rejected))))

    try:
        num_rows = work.write(run.store, run.run_id, pending(), WORK_SCHEMA, config.item_rows, count_only=config.dry_run)
        num_pending = min(num_rows, config.limit or num_rows)
        gone = current.num_unlisted if config.feed.full else 0
        if gone > config.max_withdrawn_rate * len(current):
            raise UsageError(
                f"feed.uri={config.feed.uri} would withdraw {gone} of {len(current)} active products: is it complete? "
                f"Raise --max_withdrawn_rate if it is."
            )
        facts = {"feed rows": f"{feed_rows:,}", "pending": f"{num_pending:,}", "withdrawn": f"{gone:,}"}
        skipped = feed_rows - num_rows
        if config.dry_run or not (num_pending or gone):
            return run.summary(skipped=skipped, facts=facts)
        run.begin()
        lineage = run.lineage(version, [])
        stages = [
            load_stage(config.fetch, config.pool),
            Stage("inspect", inspect, (schema.BYTES,), INSPECT_GIVES, {"limits": config.decode}),
        ]
        counts, versions = run_stages(
            run.store,
            file_rows(work.folder(run.store, run.run_id), schema.KEY, schema.SOURCE, config.item_rows).first(config.limit),
            stages,
            [Output(schema.IMAGES, unique=schema.IMAGE_ID), Output(schema.PRODUCTS)],
            lineage,
            pool=config.pool,
            max_reject_rate=config.max_reject_rate,
            commit_every_s=config.commit_every_s,
        )
        if gone:
            rows = current.unlisted(delta.current_products(run.store, schema.PRODUCTS.schema.names))
            versions |= append_rows(run.store, Output(schema.PRODUCTS), withdrawn(rows), lineage)
        return run.summary(counts=counts, versions=versions, skipped=skipped, facts=facts)
    finally:
        work.clean(run.store, run.run_id)


if __name__ == "__main__":
    start(main, Config)
