"""Training options of outfit scorers. Plain values, read without importing torch."""

from dataclasses import dataclass, field, replace

from w2w.config import nearest
from w2w.errors import UsageError
from w2w.models.options import BATCH, HINGES, ScorerConfig
from w2w.training.config import LoopConfig

OUTFITS = "outfits"  # the recipe
LOGISTIC, MARGIN, WHAT2WEAR = LOSSES = ("logistic", "margin", "what2wear")
_PUBLISHED_EPOCHS, _PUBLISHED_BATCH, _PUBLISHED_HALVING = 30, 8, 6


@dataclass(frozen=True)
class OutfitsConfig:
    """Loss, batch and curriculum of a scorer of outfits."""

    LEAST = {"threshold": -1}

    loss: str = LOGISTIC
    """logistic (worn outfits up, modified ones down), margin (each worn outfit above its modified one), what2wear (as
    published: only pushes up, with its own network)."""
    scorer: ScorerConfig = field(default_factory=ScorerConfig)
    """The network."""
    batch_outfits: int = 128
    """Worn outfits per batch, each with a modified one."""
    threshold: float = 0.7
    """what2wear: the similarity that modified outfits are pushed to."""
    hinge: str = BATCH
    """what2wear: apply the threshold to the batch mean (batch: its code) or to each outfit (outfit: its notebook)."""
    worn_first: float = 0.0
    """Share of steps without modified outfits, in which worn ones are contrasted with mixtures of the batch's items.
    what2wear then uses only its first term."""
    weight_decay: float = 0.05
    """Weight decay of matrices."""
    num_answers: int = 4
    """Candidates per fill-in-the-blank question."""

    def __post_init__(self):
        if self.loss not in LOSSES:
            raise UsageError(f"outfits.loss={self.loss}: unknown.{nearest(self.loss, list(LOSSES))}")
        if self.hinge not in HINGES:
            raise UsageError(f"outfits.hinge={self.hinge}: must be {' or '.join(HINGES)}")
        if self.scorer.kind == WHAT2WEAR and self.loss != WHAT2WEAR:
            raise UsageError(f"outfits.scorer.kind=what2wear: has its own loss; set outfits.loss=what2wear, not {self.loss}")
        if self.loss == WHAT2WEAR and self.scorer.kind == "set":
            raise UsageError("outfits.loss=what2wear: compares pairs of three slots; it does not fit outfits.scorer.kind=set")
        for name, least in (("batch_outfits", 4), ("num_answers", 2)):
            if getattr(self, name) < least:
                raise UsageError(f"outfits.{name}={getattr(self, name)}: must be at least {least}")
        if not 0 <= self.worn_first <= 1:
            raise UsageError(f"outfits.worn_first={self.worn_first}: a share from 0 to 1")

    @property
    def network(self) -> ScorerConfig:
        """The network that the loss belongs to."""
        return replace(self.scorer, kind=WHAT2WEAR) if self.loss == WHAT2WEAR else self.scorer


def as_published(num_worn: int, seed: int = 0, hinge: str = BATCH) -> tuple[OutfitsConfig, LoopConfig]:
    """What2Wear's own settings for this many worn outfits: Adam 1e-3 with decay 1e-4, halved every 6 of 30 epochs, batches of 8
    (configs/train.yaml), the last weights kept."""
    epoch = max(1, num_worn // _PUBLISHED_BATCH)
    loop = LoopConfig(
        steps=_PUBLISHED_EPOCHS * epoch,
        optimizer="adam",
        learning_rate=1e-3,
        schedule="step",
        decay_every=_PUBLISHED_HALVING * epoch,
        warmup_steps=0,
        clip_norm=0,
        average=0,
        measure_every=_PUBLISHED_HALVING * epoch,
        checkpoint_every=_PUBLISHED_HALVING * epoch,
        select="AUC",
        seed=seed,
    )
    return OutfitsConfig(WHAT2WEAR, batch_outfits=_PUBLISHED_BATCH, hinge=hinge, weight_decay=1e-4), loop
