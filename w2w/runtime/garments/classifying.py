"""Training the thumbnail classifier: where products, their vectors, the head and Ray meet."""

from dataclasses import asdict

import numpy as np
import pyarrow as pa

from w2w import schema, storage
from w2w.errors import UsageError
from w2w.garments import classifier as heads
from w2w.garments.classifier import HeadConfig, Trained
from w2w.metrics.retrieval import class_accuracy, confusion
from w2w.report.evaluation import Protocol, evaluation_report
from w2w.runtime.run import run_task
from w2w.table import delta
from w2w.table.pending import lookup


def labelled_products(store: str, most: int) -> list[dict]:
    """product_id, image_id and category of active products that have a picture, at most so many."""
    products = delta.current_products(store, [schema.PRODUCT_ID, schema.IMAGE_ID, schema.CATEGORY, schema.ACTIVE])
    return [p for p in products.to_pylist() if p[schema.ACTIVE] and p[schema.IMAGE_ID]][:most]


def train_head(
    store: str,
    products: list[dict],
    mapping: dict[str, str],
    encoder_version: str,
    config: HeadConfig,
    threshold: float,
    folder: str,
    num_cpus: float,
) -> dict[str, object]:
    """Trains in one Ray task, writes the head and report.html to ``folder``; returns the figures for the summary."""
    arguments = (store, products, mapping, encoder_version, config)
    trained = run_task(_fit, *arguments, num_cpus=num_cpus, title="train")
    used = trained.probability_N >= threshold
    right = trained.truth_N == trained.predicted_N
    facts: dict[str, object] = {"classifier": folder, "products": f"{len(products):,}"}
    facts |= {f"{split} examples": f"{n:,}" for split, n in trained.num_examples.items()}
    facts |= {"epochs": trained.epochs, "temperature": round(trained.classifier.temperature, 3)}
    facts["test accuracy"] = f"{right.mean():.3f}"
    facts[f"test accuracy at >= {threshold:g}"] = f"{right[used].mean() if used.any() else 0:.3f} of {used.mean():.1%}"
    facts["calibration error"] = f"{trained.error_before:.3f}, calibrated {trained.error_after:.3f}"
    heads.save(trained.classifier, folder, {k: str(v) for k, v in facts.items()} | {"head": asdict(config)})
    page = storage.join(folder, "report.html")
    _report(trained, page, facts)
    return facts | {"report": page, "model version": trained.classifier.model_version}


def _fit(store: str, products: list[dict], mapping: dict[str, str], encoder_version: str, config: HeadConfig) -> Trained:
    """Joins products with their vectors and trains. Runs in a worker."""
    images = pa.array(sorted({p[schema.IMAGE_ID] for p in products}))
    rows = lookup(store, schema.EMBEDDINGS, images, [schema.OWNER_ID, schema.VECTOR], model_version=encoder_version)
    place = {image: i for i, image in enumerate(rows.column(schema.OWNER_ID).to_pylist())}
    kept = [p for p in products if p[schema.IMAGE_ID] in place]
    if not kept:
        raise UsageError(f"no product has an embedding of version {encoder_version}: run 'w2w embed' first")
    vectors = rows.column(schema.VECTOR).combine_chunks()
    vectors_ND = vectors.flatten().to_numpy().reshape(len(vectors), -1)[[place[p[schema.IMAGE_ID]] for p in kept]]
    labels = [heads.class_of(p[schema.CATEGORY], mapping) for p in kept]
    return heads.train(vectors_ND, labels, [p[schema.IMAGE_ID] for p in kept], encoder_version, config)


def _report(trained: Trained, page: str, facts: dict[str, object]) -> None:
    rng = np.random.default_rng(0)
    metrics = class_accuracy(trained.truth_N, trained.predicted_N, trained.truth_N, rng)
    labels = list(trained.classifier.labels)
    matrix = confusion(trained.truth_N, trained.predicted_N, labels)
    description = "Test products that the head never saw, by hash of their picture."
    headline = {k: str(v) for k, v in facts.items() if "accuracy" in k or "calibration" in k or k == "temperature"}
    evaluation_report(page, "Thumbnail classifier", headline, [Protocol("Class", description, metrics, (matrix, labels))])
