"""An index built on Ray: what has to be built, then templates and shards as tasks, the gate, and publishing."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.index.gate import exact_part, gate, gate_queries
from w2w.index.manifest import Manifest, StoredTemplate
from w2w.index.publish import collect_garbage, new_manifest, previous_manifest, publish
from w2w.index.search import open_manifest
from w2w.index.shard import Group, build_shard, built_shard, kept_template, plan_groups, plan_shards, sample, train_template
from w2w.index.spec import IndexConfig
from w2w.runtime.run import run_task
from w2w.runtime.shuffle import Vectors, gather, read_vectors, share, shared
from w2w.table import delta


@dataclass(frozen=True)
class Draft:
    """An index before it is built. ``templates``: of each group, the one that it keeps; None where one is to be trained."""

    uri: str
    config: IndexConfig
    vectors: Vectors
    rows: pa.Table  # product_id, image_id, category
    previous: Manifest | None
    groups: list[Group]
    templates: dict[str, StoredTemplate | None]

    @property
    def num_kept(self) -> int:
        """Templates that stay as they are."""
        return sum(t is not None for t in self.templates.values())

    def unchanged(self) -> bool:
        """Whether its shards are those that are published."""
        if self.previous is None or self.num_kept < len(self.templates):
            return False
        tasks = plan_shards(self.rows, self.templates, self.vectors.version, self.config, self.previous)
        return {t.name for t in tasks} == {s.name for s in self.previous.shards}


def indexed_rows(store: str, vectors: Vectors) -> tuple[pa.Table, int]:
    """product_id, image_id and category of active products with a vector, and how many active ones have none."""
    columns = [schema.PRODUCT_ID, schema.IMAGE_ID, schema.CATEGORY, schema.ACTIVE]
    products = delta.current_products(store, columns)
    products = products.filter(products.column(schema.ACTIVE)).drop_columns([schema.ACTIVE])
    found = vectors.find(products.column(schema.IMAGE_ID)) >= 0
    return products.filter(pa.array(found)), int(np.count_nonzero(~found))


def draft_index(uri: str, config: IndexConfig, vectors: Vectors, rows: pa.Table) -> Draft:
    """What the index of these rows will be, and what it keeps of the published one."""
    previous = previous_manifest(uri)
    groups = plan_groups(rows, config, previous)
    templates = {g.name: kept_template(previous, g, vectors.version, config) for g in groups}
    return Draft(uri, config, vectors, rows, previous, groups, templates)


def build_index(draft: Draft, encoder: str, inputs: dict[str, int], num_threads: int) -> dict[str, object]:
    """Trains templates and builds shards where they are missing, and publishes; returns the figures for the summary.

    ``inputs``: table -> version read. Raises JobFailed, with nothing published, where the gate does not pass.
    """
    uri, config, vectors, rows = draft.uri, draft.config, draft.vectors, draft.rows
    version, templates, plans = vectors.version, dict(draft.templates), {}
    for group in (g for g in draft.groups if templates[g.name] is None):
        wanted = vectors.find(sample(rows, group, config).column(schema.IMAGE_ID))
        arguments = (uri, read_vectors(vectors, wanted), group, version, config, num_threads)
        stored, plan = run_task(train_template, *arguments, num_cpus=num_threads, title=f"plan {group.name}")
        templates[group.name], plans[group.name] = stored, plan.table()
    tasks = plan_shards(rows, templates, version, config, draft.previous)
    done = [built_shard(uri, task) for task in tasks]
    num_built = sum(shard is None for shard in done)
    queries = gate_queries(rows, config)
    queries_ND = read_vectors(vectors, vectors.find(queries.column(schema.IMAGE_ID)))
    targets = [vectors.find(task.rows.column(schema.IMAGE_ID)) for task in tasks]
    asked = share((queries, queries_ND, config))
    arguments = [(uri, task, shard, asked, num_threads) for task, shard in zip(tasks, done)]
    found = gather(vectors, targets, _build_and_check, arguments, num_threads, title="shards")
    manifest = new_manifest(config, version, encoder, inputs, list(templates.values()), [shard for shard, _ in found])
    expected = {v["values"]: v["counts"] for v in pc.value_counts(rows.column(schema.CATEGORY)).to_pylist()}
    result = gate(open_manifest(uri, manifest), queries, queries_ND, [exact for _, exact in found], expected, config)
    published = publish(uri, manifest, result)
    collect_garbage(uri, config.keep_generations)
    return {
        "plans": plans,
        "shards reused": len(tasks) - num_built,
        "shards built": num_built,
        f"recall@{config.recall_at}": f"{result.recall:.4f}",
        "memory MB": f"{manifest.memory_mb():.1f}",
        "published": published,
    }


def _build_and_check(uri, task, shard, asked, num_threads, vectors_ND):
    """The shard, filled if it is not there yet, and the gate's exact neighbours among its rows."""
    queries, queries_ND, config = shared(asked)
    shard = shard or build_shard(uri, task, vectors_ND, num_threads)
    return shard, exact_part(queries, queries_ND, task.category, task.rows, vectors_ND, config, num_threads)
