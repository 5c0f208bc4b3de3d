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
    """Highest rate, reached after warmup_steps."""
    schedule: str = "cosine"
    """After the warm-up: down to 0 along a cosine, constant, or step: halved every decay_every steps."""
    decay_every: int = 1000
    """Steps after which the rate of schedule=step is halved."""
    warmup_steps: int = 60
    """Steps over which the rate rises."""
    clip_norm: float = 1.0
    """Gradients are shortened to this length; 0 leaves them as they are."""
    average: float = 0.998
    """Decay of the running average of the weights, which is what is measured and kept; 0: the weights themselves."""
    accumulate: int = 1
    """Batches whose gradients are added up for one step."""
    precision: str = "float32"
    """Of the computation on a GPU: float32, bfloat16 or float16 (with scaled losses); on a CPU bfloat16 at most."""
    compile: bool = False
    """Compile the network with torch.compile."""
    measure_every: int = 100
    """Steps between two measurements on what is held out."""
    checkpoint_every: int = 100
    """Steps between two checkpoints; each measurement makes one as well."""
    select: str | None = None
    """The figure whose highest value decides which weights are kept. Default: Recall@10 of encoders and of what PixelDTGAN
    draws, AUC of outfits (FITB where none is modified), accuracy of the Siamese network."""
    patience: int = 0
    """The run ends after so many measurements without a better one; 0: never before the last step."""
    seed: int = 0
    """Of order, augmentation and dropout."""
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
                raise UsageError(f"train.{name}={getattr(self, name)}: it is one of {', '.join(allowed)}")
        if not 0 <= self.average < 1:
            raise UsageError(f"train.average={self.average}: from 0 to below 1")
        if not self.learning_rate > 0:
            raise UsageError(f"train.learning_rate={self.learning_rate}: must be above 0")
