"""Train-detector: a detector from the annotated photos of table `detections`; measured on their test split."""

from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from w2w import ids, schema, storage
from w2w.engine.job import JobConfig, Run, git_revision
from w2w.engine.train import train
from w2w.engine.training import Workers
from w2w.errors import UsageError
from w2w.garments.detector import DetectorConfig
from w2w.results import Figure, Summary, words
from w2w.stage import Counts
from w2w.table.delta import need_table
from w2w.training.detectors.card import model_card
from w2w.training.detectors.config import OURS, YOLO, TrainConfig, check_recipe, filled, kind_of, start_digest
from w2w.training.detectors.flow import Photos, list_photos, make_training, rows_digest, train_yolo
from w2w.training.detectors.flow_results import chosen_threshold, measure
from w2w.training.page import charts_of
from w2w.training.tracking import LogConfig, Trackers

CODE = 3  # raise it when a checkpoint of the old code must not be gone on with


@dataclass(frozen=True)
class Config(JobConfig):
    """Train on the train split and measure on the test split; writes the model, its card, metrics.json and report.html."""

    recipe: str = OURS
    """ours, ours:FOLDER (goes on from one of ours), hf:ORG/MODEL or hf:FOLDER (transformers), yolo:FILE.pt (ultralytics)."""
    sources: list[str] | None = None
    """Data sets to train and measure on. Default: all of table `detections`."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Schedule, batch and selection."""
    workers: Workers = Workers()
    """Processes."""
    log: LogConfig = LogConfig()
    """TensorBoard, MLflow, Weights & Biases; not with yolo, which has its own."""
    out: str | None = None
    """Local folder of the model. Default: detectors/<run's digest> in the store."""
    resume: bool = True
    """Go on where an interrupted run of the same options and photos stopped. --resume=false begins anew."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """What was learnt from, and how good it is on the test photos."""

    recipe: str
    train_photos: int
    held_out: int
    test_photos: int
    table_version: int
    model: str
    """Its folder."""
    warning: str | None = None
    step_kept: int | None = None
    figures: dict[str, Figure] = field(default_factory=dict)
    """Average precision on the test photos."""
    threshold: float | None = None
    """Of the boxes that ``precision`` and ``recall`` are of."""
    precision: float | None = None
    recall: float | None = None
    report: str | None = None
    use: str | None = None
    """A command."""


def main(config: Config) -> Result:
    run = Run("train-detector", config)
    kind, _ = kind_of(config.recipe)
    settings = filled(config.train, kind)
    need_table(run.store, schema.DETECTIONS, "annotate")
    check_recipe(config.recipe)
    photos = list_photos(run.store, config.sources, settings.val_share)
    photos = replace(photos, train=photos.train[: config.limit])
    _check(photos, settings, config)
    read = [photos.train, photos.val, rows_digest(photos, photos.train + photos.val)]
    digest = ids.digest(CODE, start_digest(config.recipe), asdict(settings), config.workers.num_workers, *read)
    out = Path(storage.absolute(config.out)) if config.out else Path(run.store, "detectors", digest)
    warning = f"{kind} takes what {', '.join(photos.partly_labelled)} does not label for background"
    result = run.result(
        Result,
        recipe=config.recipe,
        train_photos=len(photos.train),
        held_out=len(photos.val),
        test_photos=len(photos.test),
        table_version=photos.table_version,
        model=str(out),
        warning=warning if photos.partly_labelled and kind != OURS else None,
    )
    if config.dry_run:
        return result
    run.begin()
    if kind == YOLO:
        name, history = train_yolo(photos, config.recipe, settings, config.workers, out), []
    else:
        place = storage.join(run.store, "_training", digest)
        make = partial(make_training, photos, config.recipe, settings)
        told = partial(Trackers, config.log, place, digest, words(result))
        history = train(make, config.workers, place, out, config.resume, told)
        name = str(out)
    detector = DetectorConfig(name=name, threads=settings.threads)
    if photos.val:
        detector = replace(detector, threshold=chosen_threshold(photos, detector))
    measured = measure(photos, photos.test, detector, 12, str(out), words(result), charts_of(history))
    kept = next((h["step"] for h in reversed(history) if h.get("kept")), None)
    result = run.done(result, step_kept=kept, **measured)
    (out / "README.md").write_text(model_card(config.recipe, settings, words(result), git_revision()), encoding="utf-8")
    total = len(photos.train) + len(photos.val) + len(photos.test)
    use = f"w2w detect --detector.name={name}" + (f" --detector.threshold={detector.threshold:g}" if photos.val else "")
    return run.done(result, counts=Counts(total, total), use=use)


def _check(photos: Photos, settings: TrainConfig, config: Config) -> None:
    if not photos.train:
        raise UsageError("table `detections` has no train photos: annotate some with --annotations.split=train")
    if not photos.test:
        raise UsageError("table `detections` has no test photos to measure on: see --annotations.test_share")
    if settings.val_share and not photos.val:
        raise UsageError(f"--train.val_share={settings.val_share}: of {len(photos.train)} train photos none is held out")
    if len(photos.train) < config.workers.num_workers:
        raise UsageError(f"--workers.num_workers={config.workers.num_workers}: there are only {len(photos.train)} train photos")
    if config.log != LogConfig() and kind_of(config.recipe)[0] == YOLO:
        raise UsageError("--log: is not read with yolo: ultralytics writes its own curves, see 'yolo settings'")
    if storage.is_s3(config.out or config.store):
        raise UsageError("--out: the model is written to a local folder: give one")
