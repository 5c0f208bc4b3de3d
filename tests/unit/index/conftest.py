"""A small catalog of clustered vectors, and the index job in one process."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from w2w.index.gate import exact_part, gate, gate_queries
from w2w.index.manifest import GateResult, Manifest
from w2w.index.publish import Published, new_manifest, publish, published
from w2w.index.search import open_manifest
from w2w.index.shard import (
    build_shard,
    built_shard,
    kept_template,
    plan_groups,
    plan_shards,
    rows_digest,
    sample,
    train_template,
)
from w2w.index.spec import IndexConfig
from w2w.models.config import EncoderConfig

DIM = 32


@dataclass
class Catalog:
    """Rows (product_id, image_id, category) and the vector of each image."""

    rows: pa.Table
    vectors: dict[str, np.ndarray]

    def of(self, rows: pa.Table) -> np.ndarray:
        return np.stack([self.vectors[i] for i in rows["image_id"].to_pylist()])


@dataclass
class Run:
    """What one run of the job did."""

    uri: str
    manifest: Manifest
    gate: GateResult
    built: list[str]
    trained: list[str]
    base: Published


def make_catalog(sizes: dict[str, int], images: int = 1, dim: int = DIM, seed: int = 0) -> Catalog:
    rng = np.random.default_rng(seed)
    products, image_ids, categories, vectors = [], [], [], {}
    for category, size in sizes.items():
        centres = rng.standard_normal((12, dim))
        for i in range(size):
            product = f"{category}-{i:05d}"
            for j in range(images):
                image = f"{product}-{j}"
                products.append(product)
                image_ids.append(image)
                categories.append(category)
                vectors[image] = (centres[i % 12] + rng.standard_normal(dim)).astype(np.float32)
    return Catalog(pa.table({"product_id": products, "image_id": image_ids, "category": categories}), vectors)


def run_job(uri: str, catalog: Catalog, cfg: IndexConfig, model_version: str = "m1", publish_it: bool = True) -> Run:
    base = published(uri)
    previous = base.manifest
    templates, trained, built, shards = {}, [], [], []
    for group in plan_groups(catalog.rows, cfg, previous):
        templates[group.name] = kept_template(uri, previous, group, model_version, cfg)
        if templates[group.name] is None:
            of = catalog.of(sample(catalog.rows, group, cfg))
            templates[group.name], _ = train_template(uri, of, group, model_version, cfg)
            trained.append(group.name)
    queries = gate_queries(catalog.rows, cfg)
    exact = []
    for task in plan_shards(catalog.rows, templates, model_version, cfg, previous, uri):
        shard = built_shard(uri, task)
        if shard is None:
            shard = build_shard(uri, task, catalog.of(task.rows))
            built.append(shard.name)
        shards.append(shard)
        exact.append(exact_part(queries, catalog.of(queries), task.category, task.rows, catalog.of(task.rows), cfg))
    digest = rows_digest(catalog.rows, model_version, cfg)
    manifest = new_manifest(
        cfg, model_version, EncoderConfig("tiny"), {"products": 3}, list(templates.values()), shards, digest
    )
    counts = {c["values"]: c["counts"] for c in pc.value_counts(catalog.rows["category"]).to_pylist()}
    result = gate(open_manifest(uri, manifest), queries, catalog.of(queries), exact, counts, cfg)
    if publish_it:
        publish(uri, manifest, result, base)
    return Run(uri, manifest, result, built, trained, base)


@pytest.fixture
def catalog() -> Catalog:
    return make_catalog({"tops": 300, "shoes": 120, "hats": 7}, images=2)
