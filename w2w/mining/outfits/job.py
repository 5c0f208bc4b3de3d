"""Compose: outfits of top, bottom and shoes from cut-outs, and modified ones."""

from dataclasses import dataclass, field
from typing import Any

from w2w import schema
from w2w.engine.job import JobConfig, Run
from w2w.engine.snapshot import commit_snapshot
from w2w.errors import UsageError
from w2w.mining.catalog import check_product_key, is_current, snapshot_version
from w2w.mining.outfits.flow import (
    clusters,
    cut_out_slots,
    overlap,
    owned_splits,
    shown_outfits,
    without_refused,
    write_outfits,
)
from w2w.mining.outfits.page import outfit_sheet
from w2w.mining.outfits.rules import CROP_SOURCES, judged, modify, with_splits
from w2w.models.earlier import CUT_OUT, left_out
from w2w.report.page import page_of
from w2w.results import Summary, words
from w2w.table.delta import need_table, newest_version
from w2w.table.permitted import TRAINING, permitted

STAGE_CODE = 2  # bump when the same cut-outs would make other outfits
_INPUTS = (schema.CUTOUTS, schema.DUPLICATES, schema.SPLITS, schema.POSTS, schema.PRODUCTS)


@dataclass(frozen=True)
class Config(JobConfig):
    """Replace the store's own rows of table `outfits`: an outfit for each cut-out that shows top, bottom and shoes, and others
    made of it: two of the three replaced, never across a split, never by itself or a near-duplicate."""

    max_reject_rate: float = 1.0
    """The job fails when a larger share of the cut-outs shows no whole outfit."""
    cutouts: str = "auto"
    """Whose cut-outs: a stage version of table `cutouts`, or auto: the newest."""
    modified: int = 1
    """Modified outfits for each worn one."""
    crop_sources: list[str] | None = None
    """Where a slot's crop may come from: boxes (a detector found it) or ratios (where most people wear it). Default: boxes if
    a detector guided the cut-outs, since what it did not find is mostly not visible; else ratios."""
    product_key: list[str] = field(default_factory=list)
    """The attributes that make a product, as the splits were made with."""
    val_share: float = 0.1
    """Share of photos outside posts and products that goes to val, by a hash of their near-duplicates."""
    test_share: float = 0.1
    """Of the same, to test."""
    seed: int = 0
    """Seed of the modified outfits."""
    sheet: int = 24
    """How many outfits the page shows; 0: no page."""

    def __post_init__(self):
        if self.crop_sources is not None and (not self.crop_sources or set(self.crop_sources) - set(CROP_SOURCES)):
            raise UsageError(f"crop_sources={self.crop_sources}: one or both of {', '.join(CROP_SOURCES)}")
        if self.modified < 0 or self.sheet < 0:
            raise UsageError(f"modified={self.modified}, sheet={self.sheet}: must not be negative")
        if min(self.val_share, self.test_share) < 0 or self.val_share + self.test_share > 1:
            raise UsageError(f"val_share={self.val_share}, test_share={self.test_share}: shares that sum to at most 1")


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Of one stage version; ``unchanged``: its outfits were made of these very tables before."""

    cut_outs_of: str
    left_out: str | None = None
    """Photos whose cut-outs make no outfits, as the newest segmenter has not looked at them and an earlier one has."""
    stage_version: str
    unchanged: bool = False
    cut_outs: int | None = None
    not_permitted: int | None = None
    """Photos that training may not use (table `permissions`): they are rejected."""
    slots_by: tuple[str, ...] = ()
    crops_sharing_pixels: int | None = None
    largest_share_shared: float | None = None
    """Of the smaller crop's pixels."""
    warning: str | None = None
    worn: dict[str, int] = field(default_factory=dict)
    """By split."""
    modified: int | None = None
    could_not_be_modified: int | None = None
    posts_and_products_without_a_split: int | None = None
    page: str | None = None


def main(config: Config) -> Result:
    run = Run("compose", config)
    if config.limit:
        raise UsageError("--limit: outfits are made all together; for a trial, use a store with fewer photos")
    need_table(run.store, schema.CUTOUTS, "segment")
    need_table(run.store, schema.DUPLICATES, "deduplicate")
    check_product_key(run.store, schema.SPLITS, config.product_key, "split")
    cutouts = newest_version(run.store, schema.CUTOUTS) if config.cutouts == "auto" else config.cutouts
    options = [
        config.modified,
        sorted(config.crop_sources or []),
        config.product_key,
        config.val_share,
        config.test_share,
        config.seed,
    ]
    may = permitted(run.store, TRAINING)
    version = snapshot_version(STAGE_CODE, [*options, cutouts, *may.told], run.store, _INPUTS)
    unseen = left_out(run.store, CUT_OUT) if config.cutouts == "auto" else None
    result = run.result(Result, cut_outs_of=cutouts, left_out=unseen, stage_version=version)
    if is_current(run.store, schema.OUTFITS, version):
        return run.done(result, unchanged=True)
    photos, sources = cut_out_slots(run.store, cutouts or "none", config.crop_sources)
    if not photos.height:
        raise UsageError(f"--cutouts={config.cutouts}: table 'cutouts' has no rows of that version: run 'w2w segment'")
    photos, refused = without_refused(photos, may)
    if not photos.height:
        raise UsageError("training may use none of the photos in table 'cutouts': table `permissions` says why")
    num_shared, most = overlap(photos)
    told: dict[str, Any] = {"crops_sharing_pixels": num_shared, "largest_share_shared": most or None}
    told["warning"] = "crops share pixels: run 'w2w segment' again" if num_shared else None
    result = run.done(result, cut_outs=photos.height + len(refused), slots_by=tuple(sources), **told)
    result = run.done(result, not_permitted=len(refused) or None)
    if config.dry_run:
        return result
    run.check_store()
    lineage = run.lineage(version, _INPUTS)
    owned, homeless = owned_splits(run.store, config.product_key)
    worn, rejected = judged(with_splits(photos, clusters(run.store), owned, config.val_share, config.test_share))
    rejected = [*rejected, *refused]
    made = modify(worn, config.modified, config.seed)
    receipts = write_outfits(run.store, worn, made, rejected, lineage)
    counts, versions = commit_snapshot(run.store, schema.OUTFITS, receipts, lineage, config.tolerance)
    result = run.done(
        result,
        counts=counts,
        versions=versions,
        worn=dict(sorted(worn.get_column(schema.SPLIT).value_counts().iter_rows())),
        modified=len(made.base),
        could_not_be_modified=made.unmade,
        posts_and_products_without_a_split=homeless or None,
    )
    if not config.sheet:
        return result
    page = page_of(run.store, run.job, run.run_id)
    headline = {"worn": f"{worn.height:,}", "modified": f"{len(made.base):,}", "rejected": f"{len(rejected):,}"}
    outfit_sheet(page, "Outfits", headline, words(result), shown_outfits(run.store, cutouts or "none", config.sheet))
    return run.done(result, page=page)
