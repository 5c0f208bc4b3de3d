"""Gallery: a static site of the catalog to browse and search."""

from dataclasses import dataclass

from w2w import schema, storage
from w2w.engine.job import JobConfig, Run
from w2w.errors import UsageError
from w2w.gallery import flow
from w2w.gallery.rules import Site
from w2w.gallery.site import PAGE, check_place, write_pictures, write_site
from w2w.report.variants import designs
from w2w.results import Summary
from w2w.stage import Counts


@dataclass(frozen=True)
class Config(JobConfig):
    """Write OUT/index.html with its data and pictures: open it from the folder, or put the folder into a bucket. It needs no
    server and asks nothing of anybody else."""

    SHOWN = "store out title similar outfits looks side_px dry_run"

    out: str = ""
    """Folder of the site, local or s3://. Default: gallery in the store. Written again, only what changed is written."""
    title: str = "Catalog"
    """Its heading."""
    index: str = "default"
    """Where `w2w similar` has not run, the index that says what looks alike; without one there are no similar products."""
    similar: int = 12
    """Similar products of each, of its class."""
    wear: int = 3
    """Outfits that go with each product, where `w2w recommend` has made some."""
    outfits: int = 300
    """How many worn outfits."""
    looks: int = 1000
    """How many posts, the newest first."""
    side_px: int = 256
    """Longer side of a picture."""
    threads: int = 2
    """That search the index."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """What the site shows, and what was written of it."""

    products: int
    not_permitted: int | None = None
    """Products left out because search may not use their picture (table `permissions`)."""
    similar: int | None = None
    """Links from a product to one that looks like it."""
    index_version: str | None = None
    wear: int | None = None
    """Products with something that goes with them."""
    outfits: int | None = None
    looks: int | None = None
    pictures_written: int | None = None
    pictures_kept: int | None = None
    unreadable: int | None = None
    megabytes_written: float | None = None
    files_removed: int | None = None
    page: str | None = None


def main(config: Config) -> Result:
    run = Run("gallery", config)
    for name in ("similar", "wear", "outfits", "looks"):
        if getattr(config, name) < 0:
            raise UsageError(f"--{name}={getattr(config, name)}: must not be negative")
    if not 16 <= config.side_px <= 2048:
        raise UsageError(f"--side_px={config.side_px}: between 16 and 2048")
    if config.threads < 1:
        raise UsageError(f"--threads={config.threads}: must be at least 1")
    out = storage.absolute(config.out) if config.out else storage.join(run.store, "gallery")
    check_place(out)
    everything, refused = flow.read_catalog(run.store)
    products = everything[: config.limit]
    result = run.result(Result, products=len(products), not_permitted=refused or None, page=storage.join(out, PAGE))
    if config.dry_run:
        return result
    storage.check_writable(out, "--out")
    known = designs(products)
    similar, version = flow.listed_similar(run.store, products, config.similar) or flow.similar_products(
        run.store, config.index, products, known, config.similar, config.threads
    )
    wear = flow.read_wear(run.store, products, config.wear)
    looks, photos = flow.read_looks(run.store, products, config.looks)
    outfits, crops = flow.read_outfits(run.store, products, config.outfits)
    images = {row[schema.IMAGE_ID] for row in products if row[schema.IMAGE_ID]}
    written = write_pictures(out, run.store, images, photos | crops, config.side_px)
    facts = {"index": version or "none", "made by": run.run_id}  # not the store: the site may be public
    shown = similar if version else []
    others = flow.other_colours(products, known)
    site = Site(config.title, products, written.names, config.side_px, shown, others, wear, outfits, looks, facts)
    num_bytes, removed = write_site(out, site)
    return run.done(
        result,
        counts=Counts(read=len(products), out=len(products)),
        similar=sum(map(len, similar)) if version else None,
        index_version=version,
        wear=sum(map(bool, wear)) or None,
        outfits=len(outfits),
        looks=len(looks),
        pictures_written=written.new,
        pictures_kept=written.kept,
        unreadable=written.unreadable,
        megabytes_written=round((num_bytes + written.num_bytes) / 1e6, 1),
        files_removed=removed,
    )
