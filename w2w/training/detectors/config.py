"""Training options of detectors. Plain values, read without importing torch."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from w2w import extras, ids, storage
from w2w.errors import UsageError
from w2w.garments import own
from w2w.garments.detector import DetectorConfig, find, load_model
from w2w.models.sources import BUILT_IN, file_sha256
from w2w.models.trial import try_open
from w2w.training.config import LoopConfig
from w2w.training.detectors.augment import AugmentConfig

DETECTOR = "detector"  # the recipe of `w2w train`
OURS, PRETRAINED, YOLO = "ours", "hf", "yolo"  # starting weights
BACKBONE = "efficientnet-lite0"  # starting weights of `ours`


@dataclass(frozen=True)
class TrainConfig:
    """What it starts from, schedule, batch and selection. The defaults are those of the default detector."""

    LEAST = {"longest_px": 32}

    start: str = OURS
    """ours, ours:FOLDER (goes on from one of ours), hf:ORG/MODEL or hf:FOLDER (transformers), yolo:FILE.pt (ultralytics)."""
    epochs: int = 60
    """Passes over the training photos."""
    batch_images: int = 16
    """Photos of one step of one worker."""
    learning_rate: float | None = None
    """Peak learning rate of AdamW, reached after warmup_steps, followed by cosine decay to 0. Default: ours 1.5e-3, hf
    5e-5."""
    backbone_rate: float = 0.3
    """Learning rate of the pretrained backbone, as a share of learning_rate. Its first two stages and all batch norms are
    frozen."""
    weight_decay: float = 0.05
    """Weight decay of matrices; biases and norms have none."""
    warmup_steps: int = 60
    """Steps of linear warm-up."""
    clip_norm: float | None = None
    """Clip the gradient norm to this. Default: ours 10, hf 0.1."""
    average: float = 0.998
    """Decay of the moving average of the weights, which is evaluated and kept."""
    height_px: int = 320
    """Height of the canvas for upright photos, a multiple of 32. Only ours: hf models use their processor's size."""
    width_px: int = 224
    """Likewise."""
    longest_px: int = 576
    """Longest side of photos kept in memory: 0.8 MB each, divided among the workers."""
    rare: float = 0.5
    """Repeat-factor threshold: a class seen in less than this share of photos is oversampled by sqrt(rare / frequency)."""
    val_share: float = 0.15
    """Share of training photos held out, by hash, to choose the epoch that is kept. 0: keep the last epoch."""
    val_every: int = 4
    """Epochs between evaluations."""
    seed: int = 0
    """Seed of weights, order and augmentation."""
    threads: int = 1
    """CPU threads of one worker."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation of photos."""

    def __post_init__(self):
        for name in ("epochs", "batch_images", "val_every", "threads"):
            if getattr(self, name) < 1:
                raise UsageError(f"detector.{name}={getattr(self, name)}: must be at least 1")
        for name in ("height_px", "width_px"):
            if getattr(self, name) < 64 or getattr(self, name) % 32:
                raise UsageError(f"detector.{name}={getattr(self, name)}: a multiple of 32, at least 64")
        if not 0 <= self.val_share < 0.9:
            raise UsageError(f"detector.val_share={self.val_share}: a share from 0 to below .9")
        if not 0 <= self.average < 1:
            raise UsageError(f"detector.average={self.average}: from 0 to below 1")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise UsageError(f"detector.learning_rate={self.learning_rate}: must be above 0")


def filled(config: TrainConfig, kind: str) -> TrainConfig:
    """With the recipe's default learning rate and clipping where the user gave none."""
    rate, norm = _rate_and_norm(config, kind)
    return replace(config, learning_rate=rate, clip_norm=norm)


def _rate_and_norm(config: TrainConfig, kind: str) -> tuple[float, float]:
    start = STARTS[kind]
    return config.learning_rate or start.learning_rate, config.clip_norm or start.clip_norm


def loop_of(config: TrainConfig, num_photos: int, num_workers: int) -> LoopConfig:
    """The schedule in steps: an epoch draws as many photos as there are, divided among the workers."""
    epoch = steps_an_epoch(config, num_photos, num_workers)
    rate, norm = _rate_and_norm(config, kind_of(config.start)[0])
    return LoopConfig(
        steps=config.epochs * epoch,
        learning_rate=rate,
        warmup_steps=config.warmup_steps,
        clip_norm=norm,
        average=config.average,
        measure_every=config.val_every * epoch,
        checkpoint_every=epoch,
        seed=config.seed,
        threads=config.threads,
    )


def steps_an_epoch(config: TrainConfig, num_photos: int, num_workers: int) -> int:
    """The same in every worker, though their shares may differ by one photo."""
    return max(1, num_photos // num_workers // config.batch_images)


def kind_of(recipe: str) -> tuple[str, str]:
    """The kind, and what follows the colon. Raises UsageError for an unknown kind."""
    kind, _, rest = recipe.partition(":")
    if kind not in STARTS or (kind != OURS and not rest):
        raise UsageError(f"detector.start={recipe}: must be ours, ours:FOLDER, hf:ORG/MODEL, hf:FOLDER or yolo:FILE.pt")
    return kind, rest


def check_recipe(recipe: str) -> None:
    """Raises UsageError if the recipe's weights are missing, of another kind, or cannot be loaded."""
    kind, rest = kind_of(recipe)
    if rest:
        STARTS[kind].check(recipe, rest)


def _check_ours(recipe: str, name: str) -> None:
    folder = start_folder(recipe)
    if not own.is_own(folder):
        raise UsageError(f"detector.start={recipe}: {folder} is not a detector of ours")
    try_open(load_model, DetectorConfig(name=_name(recipe)), (own.DEFAULT,))


def _check_pretrained(recipe: str, name: str) -> None:
    folder = start_folder(recipe)
    if own.is_own(folder):
        raise UsageError(f"detector.start={recipe}: {folder} is a detector of ours: use ours:FOLDER")
    try_open(load_model, DetectorConfig(name=_name(recipe)), (own.DEFAULT,))


def _check_yolo(recipe: str, name: str) -> None:
    extras.need("ultralytics", f"detector.start={recipe}")
    if name.endswith(".yaml"):  # an architecture, without weights
        return
    if not os.path.isfile(storage.local(name)):
        raise UsageError(f"detector.start={recipe}: no such file: {name!r}")
    try_open(load_model, DetectorConfig(name=f"yolo:{name}"), ())


@dataclass(frozen=True)
class Start:
    """A kind of starting weights: its default learning rate and clipping, and the check of what follows the colon."""

    learning_rate: float
    clip_norm: float
    check: Callable[[str, str], None]


STARTS = {
    OURS: Start(1.5e-3, 10.0, _check_ours),
    PRETRAINED: Start(5e-5, 0.1, _check_pretrained),
    YOLO: Start(1.5e-3, 10.0, _check_yolo),  # ultralytics has rates of its own
}


def start_folder(recipe: str) -> Path:
    """The folder with the starting weights of a recipe that names one."""
    return _start_files(recipe)[0].parent


def start_digest(recipe: str) -> str:
    """Digest of the starting point: the kind, and the content of its files."""
    kind, rest = kind_of(recipe)
    if kind == YOLO:
        file = storage.local(rest)  # or the name of an architecture, without weights
        return ids.digest(kind, file_sha256(file) if os.path.isfile(file) else rest)
    files = _start_files(recipe)
    if not files:
        return ids.digest(kind, BUILT_IN[BACKBONE]().weights_sha256())
    return ids.digest(kind, [(f.name, file_sha256(f)) for f in files])


def _start_files(recipe: str) -> list[Path]:
    return find(DetectorConfig(name=_name(recipe)), "recipe").files if kind_of(recipe)[1] else []


def _name(recipe: str) -> str:
    """In the form of ``detector.name``."""
    kind, rest = kind_of(recipe)
    return rest if os.path.isdir(storage.local(rest)) or rest == own.DEFAULT or kind == OURS else f"hf:{rest}"
