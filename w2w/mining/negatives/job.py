"""Harden: hard negatives: products that look like a pair's anchor but are different."""

from dataclasses import dataclass, field

from w2w import schema
from w2w.engine.job import JobConfig, Run
from w2w.garments.classifier import check_mapping
from w2w.mining.catalog import check_product_key, chosen_version, is_current, read_catalog, snapshot_version
from w2w.mining.negatives.flow import garment_search, harden, with_all_images
from w2w.mining.negatives.rules import NegativeRules
from w2w.mining.pairs.shown import report_mining
from w2w.report.page import page_of
from w2w.results import Summary
from w2w.table import delta
from w2w.table.permitted import TRAINING, permitted
from w2w.table.pictures import active_pictures

STAGE_CODE = 2  # bump when the same tables would give other rows


@dataclass(frozen=True)
class Config(JobConfig):
    """Take hard negatives for table `pairs` from what `w2w search --of garments` found: table `negatives`."""

    max_reject_rate: float = 1.0
    """The job fails when a larger share of the pairs has no negative."""
    rules: NegativeRules = NegativeRules()
    """What a negative is."""
    search_version: str = "auto"
    """Which search of garments; auto: the newest."""
    product_key: list[str] = field(default_factory=list)
    """Attributes that together make a product, as in `w2w mine`."""
    classifier: str = "none"
    """As in `w2w mine`: a model version of `categories`, auto, or none."""
    classes: dict[str, str] | None = None
    """As in `w2w mine`: the feed's categories as ours."""
    out: str = ""
    """The report. Default: index.html in <store>/reports/harden/<run>."""
    shown: int = 12
    """Pairs, negatives, and rejects of each reason in the report; 0 for no report."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Of one stage version; ``unchanged``: its negatives were made of these very tables before."""

    search_version: str
    stage_version: str
    pictures_not_permitted: int | None = None
    """Pictures of the store that training may not use; pairs with one of them are rejected, and no negative is one."""
    warning: str | None = None
    unchanged: bool = False
    report: str | None = None


def main(config: Config) -> Result:
    run = Run("harden", config)
    store = run.store
    check_product_key(store, schema.PAIRS, config.product_key, "mine")
    check_product_key(store, schema.REPRESENTATIVES, config.product_key, "represent")
    check_mapping(config.classes or {})
    search = garment_search(store, config.search_version)
    classifier = chosen_version(store, schema.CLASSIFICATIONS, config.classifier, "classifier")
    duplicates = delta.open_table(store, schema.DUPLICATES) is not None
    inputs = [schema.PAIRS, schema.NEIGHBOURS, schema.PRODUCTS, schema.IMAGES, schema.REPRESENTATIVES, schema.SPLITS]
    inputs += [schema.CLASSIFICATIONS] if classifier else []
    inputs += [schema.DUPLICATES] if duplicates else []
    may = permitted(store, TRAINING)
    options = (config.rules, search, config.product_key, classifier, config.classes, *may.told)
    version = snapshot_version(STAGE_CODE, options, store, inputs)
    warning = "no table `duplicates`: a copy of a pair's product may be its negative; run 'w2w deduplicate' first"
    told = {"search_version": search, "stage_version": version, "warning": None if duplicates else warning}
    result = run.result(Result, **told, pictures_not_permitted=may.num)
    if is_current(store, schema.NEGATIVES, version):
        return run.done(result, unchanged=True)
    if config.dry_run:
        return result
    run.begin()
    catalog = read_catalog(store, config.product_key, config.classes, classifier)
    catalog = with_all_images(catalog, active_pictures(store, [schema.PRODUCT_ID, schema.IMAGE_ID]))
    lineage = run.lineage(version, inputs)
    counts, versions = harden(store, search, catalog, config.rules, duplicates, lineage, config.tolerance, may)
    report = report_mining(store, config.out or page_of(store, run.job, run.run_id), config.shown) if config.shown else None
    return run.done(result, counts=counts, versions=versions, report=report)
