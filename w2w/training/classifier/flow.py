"""Training the thumbnail classifier from products and their embeddings, on Ray."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema, storage
from w2w.engine.tasks import run_task
from w2w.errors import UsageError
from w2w.garments import classifier as heads
from w2w.garments.classifier import HeadConfig, Trained
from w2w.metrics.retrieval import bootstrap, class_accuracy, confusion
from w2w.report.evaluation import Protocol, evaluation_report
from w2w.results import Figure
from w2w.table import delta
from w2w.table.current import current_products
from w2w.table.pending import lookup
from w2w.table.permitted import TRAINING, permitted, why_refused
from w2w.training.vectors import vector_batches

_NO_VECTOR = "no product has a vector of {}: run '{}' first"


def labelled_products(store: str, most: int) -> tuple[list[dict], int]:
    """product_id, image_id and category of active products with a picture that may be used, at most this many; and how many
    have one that may not. Raises UsageError if it is all of them."""
    found = current_products(store, [schema.PRODUCT_ID, schema.IMAGE_ID, schema.CATEGORY, schema.ACTIVE])
    found = found.filter(pc.and_(found.column(schema.ACTIVE), pc.is_valid(found.column(schema.IMAGE_ID))))
    usable = permitted(store, TRAINING).of(found)
    refused = found.num_rows - usable.num_rows
    if refused and not usable.num_rows:
        raise UsageError(why_refused(refused, found.num_rows))
    return usable.slice(0, most).to_pylist(), refused


def train_head(
    store: str,
    products: list[dict],
    mapping: dict[str, str],
    encoder_version: str,
    config: HeadConfig,
    threshold: float,
    folder: str,
    num_cpus: float,
) -> dict[str, Any]:
    """Trains in one Ray task, writes the head and report.html to ``folder``; returns fields of the job's result."""
    arguments = (store, products, mapping, encoder_version, config)
    by_what, trained = run_task(_fit, *arguments, num_cpus=num_cpus, title="train")
    used = trained.probability_N >= threshold
    right = (trained.truth_N == trained.predicted_N).astype(float)
    told: dict[str, Any] = {
        "examples": trained.num_examples,
        "epochs": trained.epochs,
        "temperature": trained.classifier.temperature,
        "near_duplicates": by_what,
        "accuracy": figure_of(right, trained.keys_N),
        "threshold": threshold,
        "accuracy_when_sure": figure_of(right[used], trained.keys_N[used]),
        "share_when_sure": float(used.mean()),
        "calibration_error": trained.error_after,
        "calibration_error_before": trained.error_before,
    }
    said = {name.replace("_", " "): str(value) for name, value in told.items()}
    heads.save(trained.classifier, folder, said | {"products": str(len(products)), "head": asdict(config)})
    page = storage.join(folder, "report.html")
    headline = {"test accuracy": str(told["accuracy"]), f"test accuracy at >= {threshold:g}": str(told["accuracy_when_sure"])}
    headline["share of these"] = f"{used.mean():.1%}"
    headline["calibration error"] = f"{trained.error_after:.3f} {trained.error_before:.3f} before it was calibrated"
    _report(trained, page, headline | {"temperature": f"{trained.classifier.temperature:.3f}"})
    return told | {"report": page, "model_version": trained.classifier.model_version}


def _fit(
    store: str, products: list[dict], mapping: dict[str, str], encoder_version: str, config: HeadConfig
) -> tuple[str, Trained]:
    """Joins products with their vectors and trains; also says how near-duplicates were found. Runs in a worker."""
    kept, vectors_ND, keys, by_what = with_vectors(store, products, encoder_version)
    labels = [heads.class_of(p[schema.CATEGORY], mapping) for p in kept]
    return by_what, heads.train(vectors_ND, labels, keys, encoder_version, config)


def need_vectors(store: str, products: list[dict], encoder: str, encoder_version: str) -> None:
    """Raises UsageError if none of the products' pictures has a vector. ``encoder``: its name."""
    images = pa.array(sorted({p[schema.IMAGE_ID] for p in products}), pa.string())
    if not lookup(store, schema.EMBEDDINGS, images, [schema.OWNER_ID], model_version=encoder_version).num_rows:
        raise UsageError(_NO_VECTOR.format(f"{encoder}, version {encoder_version}", f"w2w embed --encoder.name={encoder}"))


def with_vectors(store: str, products: list[dict], encoder_version: str) -> tuple[list[dict], np.ndarray, list[str], str]:
    """The products whose picture has a vector, the vectors (N, D), which cluster of near-duplicates each is in, and how these
    are known. Raises UsageError as ``need_vectors``."""
    images = pa.array(sorted({p[schema.IMAGE_ID] for p in products}), pa.string())
    vectors: dict[str, np.ndarray] = {}
    for names, vectors_ND in vector_batches(store, encoder_version, images):
        vectors |= dict(zip(names, np.array(vectors_ND)))
    kept = [p for p in products if p[schema.IMAGE_ID] in vectors]
    if not kept:
        raise UsageError(_NO_VECTOR.format(f"version {encoder_version}", "w2w embed"))
    by_what, cluster_of = clusters(store, images)
    keys = [cluster_of.get(p[schema.IMAGE_ID], p[schema.IMAGE_ID]) for p in kept]
    return kept, np.stack([vectors[p[schema.IMAGE_ID]] for p in kept]), keys, by_what


def clusters(store: str, images: pa.Array) -> tuple[str, dict[str, str]]:
    """How near-duplicates among these images are known, and the cluster of each: by table `duplicates`, otherwise by perceptual
    hash, which finds copies of another size or quality."""
    by_hash = delta.open_table(store, schema.DUPLICATES) is None
    table, column = (schema.IMAGES, schema.PHASH) if by_hash else (schema.DUPLICATES, schema.CLUSTER_ID)
    rows = lookup(store, table, images, [schema.IMAGE_ID, column])
    by_what = "by equal perceptual hashes: 'w2w deduplicate' finds more" if by_hash else "by table `duplicates`"
    return by_what, dict(zip(rows.column(0).to_pylist(), map(str, rows.column(1).to_pylist())))


def figure_of(right_N: np.ndarray, keys_N: np.ndarray) -> Figure | None:
    """The mean with its 95 % interval, resampling whole clusters; None if there are no values."""
    if not len(right_N):
        return None
    low, high = bootstrap(right_N, np.random.default_rng(0), keys_N)
    return Figure(float(right_N.mean()), float(low), float(high))


def _report(trained: Trained, page: str, headline: dict[str, str]) -> None:
    rng = np.random.default_rng(0)
    metrics = class_accuracy(trained.truth_N, trained.predicted_N, trained.truth_N, rng)
    labels = list(trained.classifier.labels)
    matrix = confusion(trained.truth_N, trained.predicted_N, labels)
    description = "Test products: neither they nor a near-duplicate of their picture was in training."
    protocol = Protocol("Class", description, metrics, (matrix, labels), "products", "products")
    evaluation_report(page, "Thumbnail classifier", headline, [protocol])
