"""Search: the products nearest to a feed's images or to garments, as table and page."""

from dataclasses import dataclass, field, replace
from typing import Any

from w2w import ids, schema, storage
from w2w.engine.job import JobConfig, Run
from w2w.engine.run import run_stages
from w2w.errors import UsageError
from w2w.images.decode import DecodeLimits
from w2w.index.flow_shards import QUERIES, ShardTasks
from w2w.index.groups import Groups
from w2w.index.manifest import Manifest, index_uri
from w2w.index.merge import MERGED_MB
from w2w.index.passing import Passing
from w2w.index.publish import read_manifest
from w2w.index.search import check_category, check_encoder
from w2w.index.spec import GROUP, check_one_per
from w2w.index.stage import SEARCH_GIVES, SEARCH_NEEDS, Search, SearchConfig
from w2w.ingest.feed import FeedConfig
from w2w.models.config import EncoderConfig
from w2w.models.default import check_default
from w2w.models.encoder import following, model_version, try_encoder
from w2w.models.parts import part_weights
from w2w.models.reasons import Reasons
from w2w.report.page import page_of
from w2w.results import Summary
from w2w.search import pictures as pages
from w2w.search.flow import FEED, check_queries, queries_of
from w2w.stage import Pool, Stage
from w2w.table.parts import Output
from w2w.table.pending import rejected_keys, table_keys
from w2w.table.published import MadeBy
from w2w.web.fetch import ListedFetchConfig


@dataclass(frozen=True)
class Config(JobConfig):
    """Find the products nearest to each query image; write table `neighbours`, OUT/neighbours.jsonl and OUT/report.html."""

    SHOWN = "store feed.uri feed.columns of search.k search.own_category filter match encoder.name shown"
    PLACES = {"QUERIES": "feed.uri"}

    of: str = "feed"
    """What is searched with: the images of a feed; garments: every one that has a vector; anchors: those of table `pairs`."""
    feed: FeedConfig = FeedConfig()
    """The query images: like a product feed, with the query's id as product_id."""
    search: SearchConfig = SearchConfig()
    """What is searched."""
    one_per: str = "product"
    """What counts once among the neighbours: product, or group, the variants of a product (group_id)."""
    filter: dict[str, Any] = field(default_factory=dict)
    """Only products with these values: brand, price or any attribute, for example {brand: [Fjord, Plain], price: 10..50}."""
    weigh: dict[str, float] = field(default_factory=dict)
    """Parts of the vectors (shape, kind, colour, of encoders that have them) that count more or less: {colour: 2} for the same
    colours, {colour: 0} for the same shape in any."""
    encoder: EncoderConfig = EncoderConfig()
    """The model: the one that the index was built with."""
    decode: DecodeLimits = DecodeLimits()
    """Limits of an image."""
    fetch: ListedFetchConfig = ListedFetchConfig()
    """How images on the web are fetched."""
    pool: Pool = Pool()
    """Workers."""
    over_shards: bool | None = None
    """Scan the index as tasks over its shards, each for thousands of garments at a time: no worker holds all of it. Default:
    where garments or anchors are asked without a filter, and the codes take more than 1 GiB."""
    out: str | None = None
    """Folder of the JSON lines and the page, report.html. Default: <store>/reports/search/<run>, the page as index.html."""
    match: list[str] = field(default_factory=list)
    """A product is a right answer if all of these are equal in query and product: attributes, or category."""
    shown: int = 60
    """Queries in the report, a fixed sample; 0 for no report."""
    explain: int = 0
    """On the page, for this many of a query's nearest products: which regions of both pictures make them similar."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Of one search: an index's version, options and model."""

    queries: int
    index: str
    index_version: str
    search_version: str
    encoder: str
    pending: int
    anchors_without_a_vector: int | None = None
    passing: int | None = None
    """Products that the filter lets through."""
    neighbours: str | None = None
    """The JSON lines."""
    report: str | None = None


def main(config: Config) -> Result:
    return search(config)[0]


def search(config: Config) -> tuple[Result, pages.Found]:
    """Searches and writes the pages; also returns what was found, for further use."""
    run = Run("search", config)
    check_queries(config)
    if config.over_shards and (config.of == FEED or config.filter):
        raise UsageError("--over_shards: of garments and anchors (--of), whose vectors are stored, and without --filter")
    check_one_per(config.one_per)
    pages.check_match(run.store, config.match)
    uri = index_uri(run.store, config.search.index)
    manifest = read_manifest(uri)
    check_default(run.store, config.encoder, MadeBy(manifest.encoder, manifest.model_version))
    config = replace(config, encoder=following(config.encoder, manifest.model_version))
    model = model_version(config.encoder)
    check_encoder(manifest, config.encoder)
    check_category(manifest, config.search.category)
    weights = part_weights(config.encoder, config.weigh, "weigh")
    passing = Passing.of(run.store, config.filter)
    groups = Groups.of(run.store) if config.one_per == GROUP else None
    over_shards = _over_shards(config, manifest)
    further = [*([weights] if weights else []), *([groups.digest] if groups else []), *([passing.digest] if passing else [])]
    version = ids.digest(manifest.version, config.search, model, *further)
    done = [
        table_keys(run.store, schema.NEIGHBOURS, schema.KEY, search_version=version),
        rejected_keys(run.store, "search", version),
    ]
    if not config.dry_run:
        run.check_store()
    asked = replace(config, item_rows=max(config.item_rows, QUERIES)) if over_shards else config
    with queries_of(run, asked, model, done) as queries:
        pending = queries.num_pending
        result = run.result(
            Result,
            queries=len(queries.keys),
            index=config.search.index,
            index_version=manifest.version,
            search_version=version,
            encoder=config.encoder.name,
            pending=pending,
            skipped=len(queries.keys) - pending,
            anchors_without_a_vector=queries.num_without or None,
            passing=len(passing.product_ids) if passing else None,
        )
        found = pages.Found(run.store, version, queries.keys, config.of)
        if pending and config.of == "feed":
            try_encoder(config.encoder)
        if config.dry_run:
            return result, found
        if pending:
            run.begin()
            lookup = {"uri": uri, "version": manifest.version, "config": config.search}
            lookup |= {"search_version": version, "run_id": run.run_id, "weights": weights, "groups": groups}
            lookup |= {"passing": passing, "scanner": ShardTasks.of if over_shards else None}
            pool = replace(config.pool, workers=1, num_cpus=0, batch_rows=QUERIES) if over_shards else config.pool
            counts, versions = run_stages(
                run.store,
                queries.source().first(config.limit),
                [*queries.stages, Stage("search", Search, SEARCH_NEEDS, SEARCH_GIVES, lookup)],
                [Output(schema.NEIGHBOURS)],
                run.lineage(version, queries.tables),
                pool=pool,
                tolerance=config.tolerance,
                commit_every_s=config.commit_every_s,
            )
            result = run.done(result, counts=counts, versions=versions)
    page = storage.join(storage.absolute(config.out), "report.html") if config.out else page_of(run.store, "search", run.run_id)
    written: dict[str, str] = {"neighbours": pages.write_neighbours(found, page.rpartition("/")[0])}
    if config.shown:
        facts = {"index": f"{result.index} {result.index_version}", "encoder": result.encoder, "search version": version}
        written["report"] = pages.write_contact_sheet(
            found, page, queries.pictures, config.shown, facts, config.match, config.explain, Reasons(config.encoder)
        )
    return run.done(result, **written), found


def _over_shards(config: Config, manifest: Manifest) -> bool:
    if config.over_shards is not None or config.of == FEED or config.filter:
        return bool(config.over_shards)
    return manifest.memory_mb() > MERGED_MB
