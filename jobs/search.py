"""Search: the nearest products of images that are not in the catalog, as a table, as JSON lines and as a picture report."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema, storage
from w2w.crawl.fetch import FetchConfig
from w2w.images.decode import DecodeLimits
from w2w.index.manifest import index_uri
from w2w.index.publish import read_manifest
from w2w.index.search import check_category, check_model
from w2w.index.stage import SEARCH_GIVES, Search, SearchConfig
from w2w.ingest.feed import FeedConfig, check_feed, read_feed
from w2w.ingest.stage import WORK_SCHEMA, work_rows
from w2w.models.encoder import EncoderConfig, model_version
from w2w.runtime import pages
from w2w.runtime.embedding import embed_stages
from w2w.runtime.job import JobConfig, Run, Summary, start
from w2w.runtime.loading import load_stage
from w2w.runtime.run import run_stages
from w2w.runtime.source import file_rows
from w2w.runtime.stage import Pool, Stage
from w2w.table import work
from w2w.table.pending import rejected_keys, table_keys
from w2w.table.sink import Output


@dataclass(frozen=True)
class Config(JobConfig):
    """Find the products nearest to each query image; write table `neighbours`, OUT/neighbours.jsonl and OUT/report.html."""

    feed: FeedConfig = FeedConfig()
    """The query images: like a product feed, with the query's id as product_id."""
    search: SearchConfig = SearchConfig()
    """What is looked for."""
    encoder: EncoderConfig = EncoderConfig()
    """The model: the one that the index was built with."""
    decode: DecodeLimits = DecodeLimits()
    """What an image may be."""
    fetch: FetchConfig = FetchConfig()
    """How images on the web are fetched."""
    pool: Pool = Pool()
    """Workers."""
    out: str | None = None
    """Folder of the JSON lines and the report. Default: one below <store>/reports for this feed, index, search and match."""
    match: list[str] = field(default_factory=list)
    """A product is a right answer where all these are equal in query and product: attributes, or category."""
    shown: int = 60
    """Queries in the report, a fixed sample; 0 for no report."""


def main(config: Config) -> Summary:
    return search(config)[0]


def search(config: Config) -> tuple[Summary, pages.Found]:
    """Searches and writes the pages; also what was found, for those who want to look at it further."""
    run = Run("search", config)
    check_feed(config.feed)
    uri, model = index_uri(run.store, config.search.index), model_version(config.encoder)
    manifest = read_manifest(uri)
    check_model(manifest, model)
    check_category(manifest, config.search.category)
    version = ids.digest(manifest.version, config.search, model)
    done = [
        table_keys(run.store, schema.NEIGHBOURS, schema.KEY, search_version=version),
        rejected_keys(run.store, "search", version),
    ]
    finished = pa.chunked_array([c for keys in done for c in keys.read().chunks], pa.string())
    asked, seen = [], Counter[str]()

    def pending() -> Iterator[pa.Table]:
        for batch in read_feed(config.feed):
            rows = work_rows(batch, seen)
            asked.extend(rows.column(schema.KEY).chunks)
            yield rows.filter(pc.invert(pc.is_in(rows.column(schema.KEY), value_set=finished)))

    if not config.dry_run:
        run.check_store()
    try:
        num_rows = work.write(run.store, run.run_id, pending(), WORK_SCHEMA, config.item_rows, count_only=config.dry_run)
        keys = pa.chunked_array(asked, pa.string())
        facts = {
            "queries": len(keys),
            "index": f"{config.search.index} {manifest.version}",
            "search version": version,
            "encoder": config.encoder.name,
        }
        summary = run.summary(skipped=len(keys) - num_rows, facts=facts | {"pending": num_rows})
        found = pages.Found(run.store, version, keys)
        if config.dry_run:
            return summary, found
        if num_rows:
            run.begin()
            lookup = {"uri": uri, "version": manifest.version, "config": config.search}
            stages = [
                load_stage(config.fetch, config.pool),
                *embed_stages(config.encoder, config.decode, schema.PRODUCT_ID, "query"),
                Stage(
                    "search", Search, (schema.VECTOR,), SEARCH_GIVES, lookup | {"search_version": version, "run_id": run.run_id}
                ),
            ]
            summary.counts, summary.versions = run_stages(
                run.store,
                file_rows(work.folder(run.store, run.run_id), schema.KEY, schema.SOURCE, config.item_rows).first(config.limit),
                stages,
                [Output(schema.NEIGHBOURS)],
                run.lineage(version, [schema.PRODUCTS]),
                pool=config.pool,
                max_reject_rate=config.max_reject_rate,
                commit_every_s=config.commit_every_s,
            )
    finally:
        work.clean(run.store, run.run_id)
    name = f"search-{ids.digest(version, config.feed, config.match)}"
    out = storage.absolute(config.out) if config.out else storage.join(run.store, "reports", name)
    summary.facts |= pages.write_neighbours(found, out)
    if config.shown:
        arguments = (config.feed, config.shown, summary.facts, config.fetch, config.match)
        summary.facts |= pages.write_contact_sheet(found, out, *arguments)
    summary.seconds = run.seconds
    return summary, found


if __name__ == "__main__":
    start(main, Config)
