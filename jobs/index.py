"""Index: shards of the active products' vectors, built where they changed, gated, published; or rolled back."""

from dataclasses import dataclass

import pyarrow.compute as pc

from w2w import schema
from w2w.errors import UsageError
from w2w.index.manifest import index_uri
from w2w.index.publish import rollback, versions
from w2w.index.spec import IndexConfig
from w2w.models.encoder import EncoderConfig, model_version
from w2w.runtime.catalog.indexing import build_index, draft_index, indexed_rows
from w2w.runtime.job import JobConfig, Run, Summary, need_table, start
from w2w.runtime.shuffle import list_vectors
from w2w.table.sink import Counts


@dataclass(frozen=True)
class Config(JobConfig):
    """Build and publish an index of all active products. Unchanged shards are reused; below the recall target nothing is
    published and the old version stays."""

    encoder: EncoderConfig = EncoderConfig()
    """The model whose vectors are indexed."""
    index: IndexConfig = IndexConfig()
    """What the index must hold to."""
    threads_per_task: int = 1
    """CPUs of each build task."""
    rollback: bool = False
    """Publish the version before the current one again, and do nothing else."""
    rollback_to: str | None = None
    """The same, to a version that --rollback --dry-run lists."""


def main(config: Config) -> Summary:
    run = Run("index", config)
    uri = index_uri(run.store, config.index.name)
    if config.rollback or config.rollback_to:
        facts = {"versions": "\n".join(versions(uri))}
        if not config.dry_run:
            facts["published"] = rollback(uri, config.rollback_to)
        return run.summary(facts=facts)
    need_table(run.store, schema.PRODUCTS, "ingest")
    need_table(run.store, schema.EMBEDDINGS, "embed")
    version = model_version(config.encoder)
    vectors = list_vectors(run.store, version)
    rows, missing = indexed_rows(run.store, vectors)
    if not rows.num_rows:
        raise UsageError(
            f"no active product has a vector of model version {version} ({config.encoder.name}): run 'w2w embed' with the same "
            f"--encoder options first"
        )
    counts = Counts(rows.num_rows + missing, rows.num_rows, {"not_embedded": missing} if missing else {})
    if missing > config.max_reject_rate * counts.read:
        raise UsageError(
            f"{missing} of {counts.read} active products have no vector of model version {version}: run 'w2w embed' first, or "
            f"raise --max_reject_rate"
        )
    plan = draft_index(uri, config.index, vectors, rows)
    facts: dict[str, object] = {"model version": version, "templates kept": plan.num_kept}
    if config.dry_run:
        return run.summary(counts=counts, facts=facts | {"categories": len(pc.unique(rows.column(schema.CATEGORY)))})
    if plan.unchanged():
        num_shards, published = len(plan.previous.shards), f"{plan.previous.version} (unchanged)"
        return run.summary(
            counts=counts, facts=facts | {"shards reused": num_shards, "shards built": 0, "published": published}
        )
    run.begin()
    inputs = run.lineage(version, [schema.PRODUCTS, schema.EMBEDDINGS]).inputs
    return run.summary(counts=counts, facts=facts | build_index(plan, config.encoder.name, inputs, config.threads_per_task))


if __name__ == "__main__":
    start(main, Config)
