"""Split: products and posts to train, val and test, so that nothing connected is in two of them."""

from dataclasses import dataclass, field

from w2w import ids, schema
from w2w.errors import UsageError
from w2w.mining.splits import SPLIT_CODE, SplitRules, check_rules, deal, shares
from w2w.runtime.job import JobConfig, Run, Summary, need_table, start
from w2w.runtime.owners import active_posts, active_products
from w2w.runtime.run import run_task
from w2w.runtime.snapshot import replace_rows
from w2w.table import delta, snapshot


@dataclass(frozen=True)
class Config(JobConfig):
    """Write table `splits`: one row a product and post, dealt by what connects them (products, posts, near-duplicates)."""

    product_key: list[str] = field(default_factory=list)
    """Attributes that together make one product, as [sku, colour]. Default: the feed's product_id."""
    split: SplitRules = SplitRules()
    """Shares, and what becomes of a component that is too large."""


def main(config: Config) -> Summary:
    run = Run("split", config)
    check_rules(config.split)
    need_table(run.store, schema.PRODUCTS, "ingest")
    need_table(run.store, schema.DUPLICATES, "deduplicate")
    inputs = [schema.PRODUCTS, schema.POSTS, schema.DUPLICATES]
    versions = {t.name: opened.version() for t in inputs if (opened := delta.open_table(run.store, t))}
    version = ids.digest(SPLIT_CODE, config.split, config.product_key, sorted(versions.items()))
    held = snapshot.current(run.store, schema.SPLITS)
    if held and held["stage_version"] == version:
        return run.summary(facts={"splits": "nothing changed: they stand as they are"})
    facts: dict[str, object] = {f"table {name}": f"version {v}" for name, v in versions.items()}
    if config.dry_run:
        return run.summary(facts=facts)
    run.begin()
    lineage = run.lineage(version, inputs)
    if lineage.inputs != versions:
        raise UsageError("a table was written while this job started: run it again")
    dealt, counts, written = run_task(_split, run.store, config, lineage, title="split")
    facts = {"components": f"{dealt.num_components:,}", "largest": f"{dealt.largest:,} products and posts"}
    facts |= {"cut at tags": f"{dealt.num_cut:,}", "largest after cutting": f"{dealt.largest_whole:,} products and posts"}
    lost = dealt.num_lost / dealt.num_tags if dealt.num_tags else 0
    facts |= {"tags across splits": f"{dealt.num_lost:,} of {dealt.num_tags:,} ({lost:.1%}): pairs will reject them"}
    return run.summary(counts=counts, versions=written, facts=facts | shares(dealt.rows))


def _split(store: str, config: Config, lineage):
    products, keys = active_products(store, config.product_key)
    if not products.num_rows:
        raise UsageError("table 'products' has no active product: run 'w2w ingest' first")
    duplicates = delta.read(store, schema.DUPLICATES, [schema.IMAGE_ID, schema.CLUSTER_ID], lineage.inputs["duplicates"])
    dealt = deal(products, keys, active_posts(store), duplicates, config.split)
    return dealt, *replace_rows(store, schema.SPLITS, dealt.rows, lineage)


if __name__ == "__main__":
    start(main, Config)
