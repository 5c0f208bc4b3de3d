"""Train: an encoder, a head, an outfit scorer, a detector, or LookBook's networks."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from inspect import signature
from pathlib import Path
from typing import Any

from w2w import ids, plugins, storage
from w2w.engine.job import JobConfig, Run, git_revision
from w2w.engine.train import train
from w2w.engine.training import Workers
from w2w.errors import UsageError
from w2w.models.config import EncoderConfig
from w2w.results import Figure, Summary, words
from w2w.training.config import LoopConfig
from w2w.training.detectors.config import DETECTOR, TrainConfig
from w2w.training.detectors.flow_plan import DetectorPlan
from w2w.training.encoders.config import ENCODER, HEAD, LearnConfig, PairConfig
from w2w.training.encoders.flow_plan import EncoderPlan
from w2w.training.flow import Plan
from w2w.training.lookbook.config import PIXELDTGAN, SIAMESE, LookbookConfig
from w2w.training.lookbook.flow_plan import LookbookPlan
from w2w.training.outfits.config import OUTFITS, OutfitsConfig
from w2w.training.outfits.flow_plan import OutfitPlan
from w2w.training.tracking import LogConfig, Trackers

CODE = 3  # bump when old checkpoints can no longer be resumed
# builds a recipe's plan; its parameters are the options that the recipe reads. Raises UsageError if its data is missing
RECIPES: dict[str, Callable[..., Plan]] = {
    ENCODER: EncoderPlan.of,
    HEAD: EncoderPlan.of,
    OUTFITS: OutfitPlan.of,
    SIAMESE: LookbookPlan.of,
    PIXELDTGAN: LookbookPlan.of,
    DETECTOR: DetectorPlan.of,
}


@dataclass(frozen=True)
class Config(JobConfig):
    """Train on the train split, choose the step on val, evaluate on test; write the model, its card and a report. Each recipe
    has its own options: `w2w train RECIPE --help`."""

    PLACES = {"RECIPE": "recipe"}
    KNOWN = {"recipe": tuple(RECIPES)}
    SHOWN = (
        "store recipe encoder.name sources pairs.of learn.loss learn.batch_pairs outfits.scorer.kind outfits.loss "
        "lookbook.path published detector.start detector.epochs train.steps workers.num_workers out evaluate"
    )

    recipe: str = ENCODER
    """encoder (backbone and head), head (the head alone, on vectors that are there: minutes), outfits (a scorer), detector,
    siamese and pixeldtgan (LookBook's networks), or module:attribute, a recipe of your own. They learn from tables `pairs`,
    `embeddings`, `outfits` and `detections`, the last two from a folder in LookBook's layout."""
    encoder: EncoderConfig = EncoderConfig()
    """encoder, head: starting weights, any encoder or one trained earlier. outfits: whose vectors it reads. siamese,
    pixeldtgan: an encoder to compare with."""
    sources: list[str] | None = None
    """encoder, head: data sets to train and measure on, by default all of table `pairs`. outfits: one, by default own.
    detector: by default all of table `detections`."""
    pairs: PairConfig = field(default_factory=PairConfig)
    """encoder, head: garments and their products, or looks that are alike."""
    learn: LearnConfig = field(default_factory=LearnConfig)
    """encoder, head: loss, batches, head and augmentation."""
    test_pairs: int = 2000
    """encoder, head: most test pairs to evaluate on, against all products of the test split."""
    outfits: OutfitsConfig = field(default_factory=OutfitsConfig)
    """outfits: loss, batches and network."""
    lookbook: LookbookConfig = field(default_factory=LookbookConfig)
    """siamese, pixeldtgan: the folder, batches, networks and experiments."""
    detector: TrainConfig = field(default_factory=TrainConfig)
    """detector: weights to start from, schedule, batches and augmentation."""
    published: bool = False
    """outfits, siamese: with the settings of their source (What2Wear's code; "Clothing Recommendation", section 2)."""
    train: LoopConfig = field(default_factory=LoopConfig)
    """All but detector: steps, rate and selection."""
    workers: Workers = Workers()
    """Processes."""
    log: LogConfig = LogConfig()
    """TensorBoard, MLflow, Weights & Biases."""
    out: str | None = None
    """Local folder of the model. Default: a folder in the store, named by the run's digest."""
    evaluate: str | None = None
    """Folder of a trained model to evaluate on the test split, without training; --out is then FOLDER/evaluation by
    default."""
    resume: bool = True
    """Resume an interrupted run of the same options and data. --resume=false starts over."""

    @classmethod
    def unread(cls, given: Mapping[str, str | None]) -> set[str]:
        """Options that the given recipe does not read; without one, those that not every recipe reads."""
        every = [{*signature(make).parameters, "recipe"} for make in RECIPES.values()]
        recipe = given.get("recipe")
        reads = signature(plugins.find("recipe", recipe, RECIPES)).parameters if recipe else set.intersection(*every)
        return set.union(*every) - {*reads, "store", "recipe"} | ({"recipe"} if recipe else set())


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """The training data, and the model's figures on the test split."""

    recipe: str
    model: str
    """Its folder."""
    encoder: str | None = None
    """The encoder that it starts from, or whose vectors it reads."""
    start: str | None = None
    """Weights that a detector starts from."""
    source: str | None = None
    """The set or folder that the examples are of."""
    table_version: int | None = None
    examples: dict[str, int] = field(default_factory=dict)
    """Pairs, worn outfits, products or photos, by split."""
    modified: dict[str, int] = field(default_factory=dict)
    """Modified outfits, by split."""
    left_out: int | None = None
    """Left out because a picture or vector is missing, or, of outfits, because training may not use a picture."""
    not_permitted: int | None = None
    """Pairs, looks or photos left out because training may not use their pictures (table `permissions`)."""
    warning: str | None = None
    step_kept: int | None = None
    last_step: int | None = None
    figures: dict[str, Figure] = field(default_factory=dict)
    before: dict[str, Figure] = field(default_factory=dict)
    """The same of the encoder that it started from; ``gain``: what was gained over it, with its paired interval."""
    gain: dict[str, Figure] = field(default_factory=dict)
    thresholds: dict[str, Any] = field(default_factory=dict, repr=False)
    """outfits: by scorer, the share of worn and of modified ones that reach each threshold, and those that What2Wear's notebook
    counts; in JSON alone, as ``similarity``."""
    similarity: dict[str, Any] = field(default_factory=dict, repr=False)
    """outfits: by scorer, mean and standard deviation of the similarity of items in worn and in modified ones."""
    threshold: float | None = None
    """Score threshold of a detector's ``precision`` and ``recall``."""
    precision: float | None = None
    recall: float | None = None
    pairs_measured: int | None = None
    gallery_pictures: int | None = None
    report: str | None = None
    more: dict[str, Any] = field(default_factory=dict)
    """Further facts of an external recipe."""
    use: str | None = None
    """A command."""


def main(config: Config) -> Result:
    run = Run("train", config)
    _check(config)
    plan = _plan(config, run.store)
    own = plugins.version_of("recipe", config.recipe, RECIPES)
    digest = ids.digest(CODE, config.workers.num_workers, *plan.identity(), *own)
    model = Path(storage.absolute(config.evaluate)) if config.evaluate else None
    default = model / "evaluation" if model else Path(run.store, plan.folder, digest)
    out = Path(storage.absolute(config.out)) if config.out else default
    result = run.result(Result, recipe=config.recipe, model=str(model or out), **_fields(plan.facts()))
    if config.dry_run:
        return result
    run.begin()
    history = []
    if not model:
        place = storage.join(run.store, "_training", digest)
        history = train(
            plan.training, config.workers, place, out, config.resume, lambda: Trackers(config.log, place, digest, words(result))
        )
        kept = next((h["step"] for h in reversed(history) if h.get("kept")), None)
        result = run.done(result, step_kept=kept, last_step=history[-1]["step"])
    facts = words(result)
    result = run.done(result, counts=plan.rows, **_fields(plan.measure(model or out, out, history, facts)))
    if not model:
        figures = {name: text for name, text in words(result).items() if name not in facts}
        (out / "README.md").write_text(plan.card(facts, figures, git_revision()), encoding="utf-8")
    return run.done(result, use=result.use or plan.use(model or out))


def _fields(told: dict[str, Any]) -> dict[str, Any]:
    known = {f.name for f in fields(Result)}
    more = {name: value for name, value in told.items() if name not in known}
    return {name: value for name, value in told.items() if name in known} | ({"more": more} if more else {})


def _check(config: Config) -> None:
    if storage.is_s3(config.out or config.store):
        raise UsageError("--out: the model is written to a local folder: give one")
    if config.evaluate and not os.path.isdir(storage.absolute(config.evaluate)):
        raise UsageError(f"--evaluate={config.evaluate}: no such folder")


def _plan(config: Config, store: str) -> Plan:
    make, default = plugins.find("recipe", config.recipe, RECIPES), Config(store=config.store)
    reads, known = signature(make).parameters, [f.name for f in fields(Config)]
    for name in {n for recipe in RECIPES.values() for n in signature(recipe).parameters} - {*reads, "store", "recipe"}:
        if getattr(config, name) != getattr(default, name):
            raise UsageError(f"--{name}: is not read by --recipe={config.recipe}, which reads --{', --'.join(reads)}")
    if strange := [n for n, p in reads.items() if n not in known and p.default is p.empty]:
        raise UsageError(f"--recipe={config.recipe}: it takes {strange[0]!r}, which is not an option of 'w2w train'")
    return make(**{name: store if name == "store" else getattr(config, name) for name in reads if name in known})
