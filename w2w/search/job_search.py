"""Search: the nearest products of a feed's images, or of garments, as a table, as JSON lines and as a picture report."""

from dataclasses import dataclass, field

from w2w import ids, schema, storage
from w2w.engine.job import JobConfig, Run, Summary
from w2w.engine.run import run_stages
from w2w.images.decode import DecodeLimits
from w2w.index.manifest import index_uri
from w2w.index.publish import read_manifest
from w2w.index.search import check_category, check_model
from w2w.index.stage import SEARCH_GIVES, SEARCH_NEEDS, Search, SearchConfig
from w2w.ingest.feed import FeedConfig
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version, try_encoder
from w2w.search import pictures as pages
from w2w.search.flow import check_queries, queries_of
from w2w.stage import Pool, Stage
from w2w.table.pending import rejected_keys, table_keys
from w2w.table.sink import Output
from w2w.web.fetch import ListedFetchConfig


@dataclass(frozen=True)
class Config(JobConfig):
    """Find the products nearest to each query image; write table `neighbours`, OUT/neighbours.jsonl and OUT/report.html."""

    SHOWN = "store feed.uri feed.columns of search.k search.own_category match encoder.name out shown"
    PLACES = {"QUERIES": "feed.uri"}

    of: str = "feed"
    """What is searched for: the images of a feed, or garments: the anchors of table `pairs`, by the vectors that they have."""
    feed: FeedConfig = FeedConfig()
    """The query images: like a product feed, with the query's id as product_id."""
    search: SearchConfig = SearchConfig()
    """What is looked for."""
    encoder: EncoderConfig = EncoderConfig()
    """The model: the one that the index was built with."""
    decode: DecodeLimits = DecodeLimits()
    """What an image may be."""
    fetch: ListedFetchConfig = ListedFetchConfig()
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
    check_queries(config)
    pages.check_match(run.store, config.match)
    uri, model = index_uri(run.store, config.search.index), model_version(config.encoder)
    manifest = read_manifest(uri)
    check_model(manifest, model)
    check_category(manifest, config.search.category)
    version = ids.digest(manifest.version, config.search, model)
    done = [
        table_keys(run.store, schema.NEIGHBOURS, schema.KEY, search_version=version),
        rejected_keys(run.store, "search", version),
    ]
    if not config.dry_run:
        run.check_store()
    with queries_of(run, config, model, done) as queries:
        facts = {
            "queries": len(queries.keys),
            "index": f"{config.search.index} {manifest.version}",
            "search version": version,
            "encoder": config.encoder.name,
        }
        pending = queries.num_pending
        summary = run.summary(skipped=len(queries.keys) - pending, facts=facts | queries.facts | {"pending": pending})
        found = pages.Found(run.store, version, queries.keys)
        if pending and config.of == "feed":
            try_encoder(config.encoder)
        if config.dry_run:
            return summary, found
        if pending:
            run.begin()
            lookup = {"uri": uri, "version": manifest.version, "config": config.search}
            lookup |= {"search_version": version, "run_id": run.run_id}
            summary.counts, summary.versions = run_stages(
                run.store,
                queries.source().first(config.limit),
                [*queries.stages, Stage("search", Search, SEARCH_NEEDS, SEARCH_GIVES, lookup)],
                [Output(schema.NEIGHBOURS)],
                run.lineage(version, queries.tables),
                pool=config.pool,
                tolerance=config.tolerance,
                commit_every_s=config.commit_every_s,
            )
    name = f"search-{ids.digest(version, queries.origin, config.match)}"
    out = storage.absolute(config.out) if config.out else storage.join(run.store, "reports", name)
    summary.facts |= pages.write_neighbours(found, out)
    if config.shown:
        summary.facts |= pages.write_contact_sheet(found, out, queries.pictures, config.shown, summary.facts, config.match)
    summary.seconds = run.seconds
    return summary, found
