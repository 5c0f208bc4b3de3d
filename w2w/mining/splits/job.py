"""Split: products and posts to train, val and test, keeping connected ones together."""

from dataclasses import dataclass, field, replace
from functools import partial

from w2w import schema
from w2w.engine.job import JobConfig, Run
from w2w.engine.snapshot import replace_rows
from w2w.engine.tasks import run_task
from w2w.errors import UsageError
from w2w.mining.catalog import is_current, snapshot_version
from w2w.mining.owners import active_post_batches, active_product_batches
from w2w.mining.splits.rules import SPLIT_CODE, SplitRules, check_rules, deal, summary_of
from w2w.results import Summary
from w2w.table import delta
from w2w.table.current import CurrentRows
from w2w.table.delta import need_table
from w2w.table.sink import Lineage


@dataclass(frozen=True)
class Config(JobConfig):
    """Assign every product and post to train, val or test, so that nothing connected (by tags or near-duplicates) is divided:
    table `splits`."""

    SHOWN = "store product_key split.train split.val split.test split.max_component dry_run"

    product_key: list[str] = field(default_factory=list)
    """Attributes that together make one product, as [sku, colour]. Default: the feed's product_id."""
    split: SplitRules = SplitRules()
    """Shares, and what becomes of a component that is too large."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """The splits, unless they were already made from the same tables (``unchanged``)."""

    read_from: dict[str, int] = field(default_factory=dict)
    """Versions of the tables."""
    unchanged: bool = False
    components: int | None = None
    largest: int | None = None
    """Products and posts of the largest component."""
    cut_at_tags: int | None = None
    """Components too large for one split, which were cut."""
    largest_dealt_as_one: int | None = None
    tags: int | None = None
    tags_lost: int | None = None
    """Between parts of a cut component: mining rejects them (crosses_split), so that training sees no test product."""
    train: dict[str, int] = field(default_factory=dict)
    """Products, posts and tags; likewise val and test."""
    val: dict[str, int] = field(default_factory=dict)
    test: dict[str, int] = field(default_factory=dict)


def main(config: Config) -> Result:
    run = Run("split", config)
    check_rules(config.split)
    need_table(run.store, schema.PRODUCTS, "ingest")
    need_table(run.store, schema.DUPLICATES, "deduplicate")
    inputs = [schema.PRODUCTS, schema.POSTS, schema.DUPLICATES]
    versions = run.lineage("", inputs).inputs
    version = snapshot_version(SPLIT_CODE, (config.split, config.product_key), run.store, inputs)
    if is_current(run.store, schema.SPLITS, version):
        return run.result(Result, read_from=versions, unchanged=True)
    if config.dry_run:
        return run.result(Result, read_from=versions)
    run.begin()
    lineage = replace(run.lineage(version, inputs), inputs=versions)
    told, counts, written = run_task(_split, run.store, config, lineage, title="split")
    return run.result(Result, counts=counts, versions=written, read_from=versions, **told)


def _split(store: str, config: Config, lineage: Lineage):
    versions = lineage.inputs
    products, posts = (CurrentRows(store, t, versions.get(t.name)) for t in (schema.PRODUCTS, schema.POSTS))
    listed = delta.parts(delta.open_table(store, schema.DUPLICATES, versions[schema.DUPLICATES.name]))
    duplicates = delta.read_batches(store, schema.DUPLICATES, [schema.IMAGE_ID, schema.CLUSTER_ID], listed)
    read = partial(active_product_batches, products, config.product_key), partial(active_post_batches, posts)
    dealt = deal(*read, duplicates, config.split)
    if not dealt.counts[0].any():
        raise UsageError("table 'products' has no active product: run 'w2w ingest' first")
    return summary_of(dealt), *replace_rows(store, schema.SPLITS, dealt.rows, lineage)
