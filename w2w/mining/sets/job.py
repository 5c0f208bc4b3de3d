"""Convert: a public set of pairs or outfits into products, posts, pairs and outfits."""

from dataclasses import asdict, dataclass, field, replace

from w2w import ids, plugins, schema
from w2w.engine.job import JobConfig, Run
from w2w.errors import UsageError
from w2w.images.decode import DecodeLimits
from w2w.mining.sets import SETS, SetConfig, open_set
from w2w.mining.sets.flow import Pictures, Reading, check_records, own_catalog, write_snapshots
from w2w.mining.sets.flow_links import write_links
from w2w.mining.sets.links import Links
from w2w.mining.sets.posts import OwnPosts, post_rows
from w2w.mining.sets.rows import PHOTO_SCHEMA, SHOP_SCHEMA, photo_rows, shop_rows
from w2w.results import Summary
from w2w.stage import Counts, Pool
from w2w.table import work
from w2w.web.fetch import ListedFetchConfig

STAGE_CODE = 1  # bump when the same files would be read differently


@dataclass(frozen=True)
class Config(JobConfig):
    """Read a public data set: its pictures once, then its pairs and outfits, which replace those of an earlier run."""

    LEAST = {"crop_px": 16}

    SHOWN = "store set.format set.path set.images set.variant set.source max_reject_rate limit dry_run"
    PLACES = {"FORMAT": "set.format", "FOLDER": "set.path"}

    set: SetConfig = field(default_factory=SetConfig)
    """The data set."""
    decode: DecodeLimits = DecodeLimits()
    """Limits of an image."""
    fetch: ListedFetchConfig = ListedFetchConfig()
    """How images on the web are fetched."""
    crop_px: int = 384
    """Longest side of a garment's crop."""
    pool: Pool = Pool()
    """Workers that read, check and cut pictures."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Of one public set."""

    set: str
    pending_products: int
    pending_photos: int
    rows: dict[str, int] = field(default_factory=dict)
    """Of the tables `pairs`, `outfits` and `questions` that the set has; none of them is written with --limit."""
    unchanged: tuple[str, ...] = ()
    """Those of them that were made of these very tables before."""
    would_be_rejected: dict[str, int] = field(default_factory=dict)
    """In a dry run of posts: by code, as far as the list and the folder tell."""
    not_in_the_catalog: dict[str, int] = field(default_factory=dict)
    """Of posts: names and links of products that the store has not, or not any more."""


def main(config: Config) -> Result:
    run = Run("convert", config)
    public = open_set(config.set)
    own = plugins.version_of("set", config.set.format, SETS)
    settings = {k: v for k, v in asdict(config.set).items() if k not in ("path", "images", "source", "variant")}
    settings = {
        k: v for k, v in settings.items() if k not in ("columns", "category", "key", "kinds") or v is not None
    }  # added later
    version = ids.digest(STAGE_CODE, settings, config.set.catalog, config.decode, config.crop_px, *own)
    if isinstance(public, Links):
        return _links(run, config, public, version)
    reading = Reading(config.set.catalog, config.set.name, version, config.crop_px, config.decode, config.fetch, config.pool)
    sold = shop_rows(public.shops(), reading.catalog, version)
    ours = own_catalog(run.store, config.set.key) if isinstance(public, OwnPosts) else None
    if isinstance(public, OwnPosts) and ours:
        worn = post_rows(public.posts(), ours, reading.catalog, version)
    else:
        worn = photo_rows(public.photos(), reading.catalog, version)
    shops = Pictures(run, reading, schema.PRODUCTS, sold, SHOP_SCHEMA)
    photos = Pictures(run, reading, schema.POSTS, worn, PHOTO_SCHEMA, own=ours is not None)
    check_records(public)
    if not config.dry_run:
        run.check_store()
    counts, versions = Counts(), {}
    try:
        for part in (shops, photos):
            part.write(config)
        skipped = shops.skipped + photos.skipped
        pending = {"pending_products": shops.pending, "pending_photos": photos.pending}
        unknown = {"not_in_the_catalog": dict(+ours.unknown)} if ours else {}
        result = run.result(Result, set=reading.source, skipped=skipped, **pending, **unknown)
        if not shops.pending + photos.pending + skipped:
            raise UsageError(f"set.path={config.set.path}: its lists name no picture")
        if config.dry_run:
            return replace(result, would_be_rejected=dict(photos.would_be_rejected))
        lineage = run.lineage(version, [])
        for part in (shops, photos):
            if part.pending:
                run.begin()
                some, written = part.load(config, lineage)
                counts.add(some)
                versions |= written
    finally:
        work.clean(run.store, run.run_id)
    if config.limit:
        return run.done(result, counts=counts, versions=versions)
    lineage = run.lineage(version, [schema.PRODUCTS, schema.POSTS, schema.GARMENTS])
    some, written, made = write_snapshots(run, public, reading, lineage, config.tolerance)
    counts.add(some)
    return run.done(result, counts=counts, versions=versions | written, **made)


def _links(run: Run, config: Config, public: Links, version: str) -> Result:
    """Of the store's own products: they have their pictures."""
    if not config.dry_run:
        run.check_store()
    found = write_links(run, public, config.set, version, config.tolerance, config.dry_run)
    counts, versions, rows, unchanged = found
    told = {"rows": {schema.OUTFITS.name: rows}, "unchanged": (schema.OUTFITS.name,) if unchanged else ()}
    return run.result(
        Result, set=config.set.name, pending_products=0, pending_photos=0, counts=counts, versions=versions, **told
    )
