"""How long, how fast and in which precision a network is trained. Plain values, read without importing torch."""

from dataclasses import dataclass

from w2w.errors import UsageError

FLOAT16 = "float16"
OPTIMIZERS, SCHEDULES, PRECISIONS = ("adamw", "adam", "sgd"), ("cosine", "constant", "step"), ("float32", "bfloat16", FLOAT16)


@dataclass(frozen=True)
class LoopConfig:
    """Schedule, optimiser and selection of the training loop."""

    steps: int = 1000
    """Updates of the weights."""
    optimizer: str = "adamw"
    """adamw, adam (its decay is part of the gradient), or sgd (without momentum)."""
    learning_rate: float = 1e-3
    """Peak learning rate, reached after warmup_steps."""
    schedule: str = "cosine"
    """After the warm-up: down to 0 along a cosine, constant, or step: halved every decay_every steps."""
    decay_every: int = 1000
    """Steps after which the rate of schedule=step is halved."""
    warmup_steps: int = 60
    """Steps of linear warm-up."""
    clip_norm: float = 1.0
    """Clip the gradient norm to this; 0: do not clip."""
    average: float = 0.998
    """Decay of the moving average of the weights, which is evaluated and kept; 0: no average."""
    accumulate: int = 1
    """Batches accumulated per step."""
    precision: str = "float32"
    """Of the computation on a GPU: float32, bfloat16 or float16 (with scaled losses); on a CPU bfloat16 at most."""
    compile: bool = False
    """Compile the network with torch.compile."""
    measure_every: int = 100
    """Steps between evaluations on held-out data."""
    checkpoint_every: int = 100
    """Steps between checkpoints; each evaluation makes one too."""
    select: str | None = None
    """The figure whose highest value decides which weights are kept. Default: Recall@10 of encoders and of what PixelDTGAN
    draws, AUC of outfits (FITB where none is modified), accuracy of the Siamese network."""
    patience: int = 0
    """Stop after this many evaluations without improvement; 0: never."""
    seed: int = 0
    """Seed of order, augmentation and dropout."""
    threads: int = 1
    """CPU threads of one worker."""

    def __post_init__(self):
        for name in ("steps", "decay_every", "accumulate", "measure_every", "checkpoint_every", "threads"):
            if getattr(self, name) < 1:
                raise UsageError(f"train.{name}={getattr(self, name)}: must be at least 1")
        for name in ("warmup_steps", "clip_norm", "patience", "seed"):
            if getattr(self, name) < 0:
                raise UsageError(f"train.{name}={getattr(self, name)}: must not be negative")
        for name, allowed in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise UsageError(f"train.{name}={getattr(self, name)}: must be one of {', '.join(allowed)}")
        if not 0 <= self.average < 1:
            raise UsageError(f"train.average={self.average}: from 0 to below 1")
        if not self.learning_rate > 0:
            raise UsageError(f"train.learning_rate={self.learning_rate}: must be above 0")
