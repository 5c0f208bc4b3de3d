"""Index: shards of the active products' vectors, built where they changed, gated, published; or rolled back."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.errors import UsageError
from w2w.index.gate import exact_part, gate, gate_queries
from w2w.index.manifest import index_uri
from w2w.index.publish import collect_garbage, new_manifest, previous_manifest, publish, rollback, versions
from w2w.index.search import open_manifest
from w2w.index.shard import build_shard, built_shard, kept_template, plan_groups, plan_shards, sample, train_template
from w2w.index.spec import IndexConfig
from w2w.models.encoder import EncoderConfig, model_version
from w2w.runtime.job import JobConfig, Run, Summary, need_table, start
from w2w.runtime.run import run_task
from w2w.runtime.shuffle import gather, list_vectors, read_vectors, share, shared
from w2w.table import delta
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
    previous = previous_manifest(uri)
    groups = plan_groups(rows, config.index, previous)
    templates = {g.name: kept_template(previous, g, version, config.index) for g in groups}
    facts: dict[str, object] = {"model version": version, "templates kept": sum(t is not None for t in templates.values())}
    if config.dry_run:
        return run.summary(counts=counts, facts=facts | {"categories": len(pc.unique(rows.column(schema.CATEGORY)))})
    if all(templates.values()):
        tasks = plan_shards(rows, templates, version, config.index, previous)
        if previous and {t.name for t in tasks} == {s.name for s in previous.shards}:
            facts |= {"shards reused": len(tasks), "shards built": 0, "published": f"{previous.version} (unchanged)"}
            return run.summary(counts=counts, facts=facts)
    run.begin()
    facts["plans"] = plans = {}
    for group in (g for g in groups if templates[g.name] is None):
        wanted = vectors.find(sample(rows, group, config.index).column(schema.IMAGE_ID))
        arguments = (uri, read_vectors(vectors, wanted), group, version, config.index, config.threads_per_task)
        stored, plan = run_task(train_template, *arguments, num_cpus=config.threads_per_task, title=f"plan {group.name}")
        templates[group.name], plans[group.name] = stored, plan.table()
    tasks = plan_shards(rows, templates, version, config.index, previous)
    done = [built_shard(uri, task) for task in tasks]
    num_built = sum(shard is None for shard in done)
    facts |= {"shards reused": len(tasks) - num_built, "shards built": num_built}
    queries = gate_queries(rows, config.index)
    queries_ND = read_vectors(vectors, vectors.find(queries.column(schema.IMAGE_ID)))
    targets = [vectors.find(task.rows.column(schema.IMAGE_ID)) for task in tasks]
    asked = share((queries, queries_ND, config.index))
    arguments = [(uri, task, shard, asked, config.threads_per_task) for task, shard in zip(tasks, done)]
    found = gather(vectors, targets, _build_and_check, arguments, config.threads_per_task, title="shards")
    inputs = run.lineage(version, [schema.PRODUCTS, schema.EMBEDDINGS]).inputs
    manifest = new_manifest(
        config.index, version, config.encoder.name, inputs, list(templates.values()), [shard for shard, _ in found]
    )
    expected = {v["values"]: v["counts"] for v in pc.value_counts(rows.column(schema.CATEGORY)).to_pylist()}
    result = gate(open_manifest(uri, manifest), queries, queries_ND, [exact for _, exact in found], expected, config.index)
    facts |= {f"recall@{config.index.recall_at}": f"{result.recall:.4f}", "memory MB": f"{manifest.memory_mb():.1f}"}
    facts["published"] = publish(uri, manifest, result)
    collect_garbage(uri, config.index.keep_generations)
    return run.summary(counts=counts, facts=facts)


def indexed_rows(store: str, vectors) -> tuple[pa.Table, int]:
    """product_id, image_id and category of active products with a vector, and how many active ones have none."""
    columns = [schema.PRODUCT_ID, schema.IMAGE_ID, schema.CATEGORY, schema.ACTIVE]
    products = delta.current_products(store, columns)
    products = products.filter(products.column(schema.ACTIVE)).drop_columns([schema.ACTIVE])
    found = vectors.find(products.column(schema.IMAGE_ID)) >= 0
    return products.filter(pa.array(found)), int(np.count_nonzero(~found))


def _build_and_check(uri, task, shard, asked, num_threads, vectors_ND):
    """The shard, filled if it is not there yet, and the gate's exact neighbours among its rows."""
    queries, queries_ND, config = shared(asked)
    shard = shard or build_shard(uri, task, vectors_ND, num_threads)
    return shard, exact_part(queries, queries_ND, task.category, task.rows, vectors_ND, config, num_threads)


if __name__ == "__main__":
    start(main, Config)
