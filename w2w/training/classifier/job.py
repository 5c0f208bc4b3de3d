"""Classify: which of the seven classes each picture shows; --train trains the classifier."""

from collections import Counter
from dataclasses import dataclass, field

from w2w import schema, storage
from w2w.engine.job import JobConfig, Run
from w2w.engine.run import run_pending
from w2w.engine.source import pending_rows
from w2w.errors import UsageError
from w2w.garments import classifier as heads
from w2w.garments.classifier import CLASSIFY_GIVES, Classify, HeadConfig
from w2w.models.config import EncoderConfig
from w2w.models.default import check_default
from w2w.models.encoder import model_version
from w2w.results import Figure, Summary
from w2w.stage import Pool, Stage
from w2w.table.delta import need_table
from w2w.table.parts import Output
from w2w.table.pending import rejected_keys, table_keys
from w2w.table.permitted import explained, why_refused
from w2w.table.published import catalog_made_by
from w2w.training.classifier.flow import labelled_products, need_vectors, train_head


@dataclass(frozen=True)
class Config(JobConfig):
    """Give every embedding of this encoder a class in table `categories`; with --train, first learn from the products' own."""

    LEAST = {"max_examples": 1}

    SHOWN = "store train classes threshold classifier encoder.name max_examples limit dry_run"

    classifier: str = ""
    """Folder of the head: read, or with --train written. Default: classifier/ in the store."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Whose embeddings are classified (`w2w embed` made them)."""
    threshold: float = 0.8
    """Minimum probability at which a class is accepted."""
    train: bool = False
    """Train the head on the products' categories instead of predicting."""
    classes: dict[str, str] | None = None
    """The feed's categories as ours: {Topwear: top, Sandal: shoes, ...}. Anything else is etc."""
    head: HeadConfig = HeadConfig()
    """How it is trained."""
    max_examples: int = 100_000
    """Most products to train on."""
    pool: Pool = Pool(batch_rows=1024)
    """Workers that predict."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Of predicting, or with --train of training."""

    classifier: str
    """Its folder."""
    model_version: str | None = None
    pending: int | None = None
    products: int | None = None
    not_permitted: int | None = None
    """Products left out because training may not use their picture (table `permissions`)."""
    examples: dict[str, int] = field(default_factory=dict)
    """By split."""
    epochs: int | None = None
    temperature: float | None = None
    near_duplicates: str | None = None
    """How near-duplicates were found; they stay in one split."""
    accuracy: Figure | None = None
    """On the test split."""
    threshold: float | None = None
    accuracy_when_sure: Figure | None = None
    """Of the test pictures whose probability reaches the threshold, and their share."""
    share_when_sure: float | None = None
    calibration_error: float | None = None
    calibration_error_before: float | None = None
    report: str | None = None


def main(config: Config) -> Result:
    if not 0 <= config.threshold <= 1:
        raise UsageError(f"threshold={config.threshold}: a number between 0 and 1")
    run = Run("classify", config)
    need_table(run.store, schema.EMBEDDINGS, "embed")
    folder = storage.absolute(config.classifier) if config.classifier else storage.join(run.store, "classifier")
    version = model_version(config.encoder)
    return train(config, run, folder, version) if config.train else predict(config, run, folder, version)


def predict(config: Config, run: Run, folder: str, encoder_version: str) -> Result:
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
        run.store,
        schema.EMBEDDINGS,
        columns,
        done,
        schema.OWNER_ID,
        config.item_rows,
        full_scan=config.full_scan,
        model_version=encoder_version,
    ).first(config.limit)
    told = {"classifier": folder, "model_version": version}
    result = run.result(Result, **told, pending=work.num_rows, skipped=work.skipped)
    stages = [Stage("classify", Classify, (schema.VECTOR,), CLASSIFY_GIVES, {"folder": folder, "threshold": config.threshold})]
    outputs = [Output(schema.CLASSIFICATIONS)]
    return run_pending(run, result, work, stages, outputs, version, [schema.EMBEDDINGS], config.pool)


def train(config: Config, run: Run, folder: str, encoder_version: str) -> Result:
    mapping = heads.check_mapping(config.classes or {})
    check_default(run.store, config.encoder, catalog_made_by(run.store))
    products, refused = labelled_products(run.store, config.max_examples)
    result = run.result(Result, classifier=folder, products=len(products), not_permitted=refused or None)
    with explained(lambda: why_refused(refused, refused + len(products))):
        heads.learnable(Counter(heads.class_of(p[schema.CATEGORY], mapping) for p in products))
        need_vectors(run.store, products, config.encoder.name, encoder_version)
    if config.dry_run:
        return result
    run.begin()
    arguments = (run.store, products, mapping, encoder_version, config.head, config.threshold, folder)
    with explained(lambda: why_refused(refused, refused + len(products))):
        return run.done(result, **train_head(*arguments, config.pool.num_cpus))
