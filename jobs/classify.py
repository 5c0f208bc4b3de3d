"""Classify: which of the seven classes each picture shows, by a head on its embedding; trains that head with --train."""

from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa

from w2w import schema, storage
from w2w.errors import UsageError
from w2w.garments import classifier as heads
from w2w.garments.classifier import CLASSIFY_GIVES, Classify, HeadConfig, Trained
from w2w.metrics.retrieval import class_accuracy, confusion
from w2w.models.encoder import EncoderConfig, model_version
from w2w.report.evaluation import Protocol, evaluation_report
from w2w.runtime.job import JobConfig, Run, Summary, need_table, start
from w2w.runtime.run import run_stages, run_task
from w2w.runtime.source import pending_rows
from w2w.runtime.stage import Pool, Stage
from w2w.table import delta
from w2w.table.pending import lookup, rejected_keys, table_keys
from w2w.table.sink import Output


@dataclass(frozen=True)
class Config(JobConfig):
    """Give every embedding of this encoder a class in table `categories`; with --train, first learn from the products' own."""

    classifier: str = ""
    """Folder of the head: read from, or with --train written to. Default: classifier/ in the store."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Whose embeddings are classified (`w2w embed` made them)."""
    threshold: float = 0.8
    """Least probability of a class that is to be used."""
    train: bool = False
    """Train the head on the products' categories instead of predicting."""
    classes: dict[str, str] | None = None
    """The feed's categories as ours: {Topwear: top, Sandal: shoes, ...}. What is not named, and no class itself, is etc."""
    head: HeadConfig = HeadConfig()
    """How it is trained."""
    max_examples: int = 100_000
    """Train on at most so many products."""
    pool: Pool = Pool(batch_rows=1024)
    """Workers that predict."""


def main(config: Config) -> Summary:
    if not 0 <= config.threshold <= 1:
        raise UsageError(f"threshold={config.threshold}: a number between 0 and 1")
    run = Run("classify", config)
    need_table(run.store, schema.EMBEDDINGS, "embed")
    folder = storage.absolute(config.classifier) if config.classifier else storage.join(run.store, "classifier")
    version = model_version(config.encoder)
    return train(config, run, folder, version) if config.train else predict(config, run, folder, version)


def predict(config: Config, run: Run, folder: str, encoder_version: str) -> Summary:
    head = heads.load(folder)
    if head.encoder_version != encoder_version:
        raise UsageError(
            f"classifier={folder}: was trained on embeddings {head.encoder_version}, and encoder.name={config.encoder.name} "
            f"makes {encoder_version}: use its encoder, or train another with --train"
        )
    version = heads.prediction_version(head, config.threshold)
    done = [
        table_keys(run.store, schema.CLASSIFICATIONS, schema.OWNER_ID, model_version=version),
        rejected_keys(run.store, "classify", version),
    ]
    columns = [schema.OWNER_ID, schema.OWNER_KIND, schema.VECTOR]
    work = pending_rows(
        run.store, schema.EMBEDDINGS, columns, done, schema.OWNER_ID, config.item_rows, model_version=encoder_version
    ).first(config.limit)
    facts = {"classifier": folder, "model version": version, "pending": f"{work.num_rows:,}"}
    if config.dry_run or not work.num_rows:
        return run.summary(skipped=work.skipped, facts=facts)
    run.begin()
    settings = {"folder": folder, "threshold": config.threshold}
    counts, versions = run_stages(
        run.store,
        work,
        [Stage("classify", Classify, (schema.VECTOR,), CLASSIFY_GIVES, settings)],
        [Output(schema.CLASSIFICATIONS)],
        run.lineage(version, [schema.EMBEDDINGS]),
        pool=config.pool,
        max_reject_rate=config.max_reject_rate,
        commit_every_s=config.commit_every_s,
    )
    return run.summary(counts=counts, versions=versions, skipped=work.skipped, facts=facts)


def train(config: Config, run: Run, folder: str, encoder_version: str) -> Summary:
    mapping = heads.check_mapping(config.classes or {})
    products = delta.current_products(run.store, [schema.PRODUCT_ID, schema.IMAGE_ID, schema.CATEGORY, schema.ACTIVE])
    products = [p for p in products.to_pylist() if p[schema.ACTIVE] and p[schema.IMAGE_ID]][: config.max_examples]
    facts: dict[str, object] = {"classifier": folder, "products": f"{len(products):,}"}
    if config.dry_run:
        return run.summary(facts=facts)
    run.begin()
    trained = run_task(
        fit_products, run.store, products, mapping, encoder_version, config.head, num_cpus=config.pool.num_cpus, title="train"
    )
    used = trained.probability_N >= config.threshold
    right = trained.truth_N == trained.predicted_N
    facts |= {f"{split} examples": f"{n:,}" for split, n in trained.num_examples.items()}
    facts |= {"epochs": trained.epochs, "temperature": round(trained.classifier.temperature, 3)}
    facts["test accuracy"] = f"{right.mean():.3f}"
    facts[f"test accuracy at >= {config.threshold:g}"] = f"{right[used].mean() if used.any() else 0:.3f} of {used.mean():.1%}"
    facts["calibration error"] = f"{trained.error_before:.3f}, calibrated {trained.error_after:.3f}"
    heads.save(trained.classifier, folder, {k: str(v) for k, v in facts.items()} | {"head": asdict(config.head)})
    page = storage.join(folder, "report.html")
    report(trained, page, facts)
    return run.summary(facts=facts | {"report": page, "model version": trained.classifier.model_version})


def fit_products(store: str, products: list[dict], mapping: dict[str, str], encoder_version: str, head: HeadConfig) -> Trained:
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
    return heads.train(vectors_ND, labels, [p[schema.IMAGE_ID] for p in kept], encoder_version, head)


def report(trained: Trained, page: str, facts: dict[str, object]) -> None:
    rng = np.random.default_rng(0)
    metrics = class_accuracy(trained.truth_N, trained.predicted_N, trained.truth_N, rng)
    labels = list(trained.classifier.labels)
    matrix = confusion(trained.truth_N, trained.predicted_N, labels)
    description = "Test products that the head never saw, by hash of their picture."
    headline = {k: str(v) for k, v in facts.items() if "accuracy" in k or "calibration" in k or k == "temperature"}
    evaluation_report(page, "Thumbnail classifier", headline, [Protocol("Class", description, metrics, (matrix, labels))])


if __name__ == "__main__":
    start(main, Config)
