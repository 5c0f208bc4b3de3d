"""Training options of encoders. Plain values, read without importing torch."""

from dataclasses import dataclass, field

from w2w import plugins
from w2w.errors import UsageError
from w2w.training.encoders.augment import AugmentConfig

ENCODER, HEAD = "encoder", "head"  # what is trained: the whole encoder, or only the head on stored embeddings
_LOSSES = "w2w.training.encoders.losses"
LOSSES = {
    "info_nce": f"{_LOSSES}:info_nce_loss",
    "triplet": f"{_LOSSES}:triplet_loss",
    "contrastive": f"{_LOSSES}:contrastive_loss",
    "contrastive-as-published": f"{_LOSSES}:inverted_loss",
}
GARMENTS, LOOKS = "garments", "looks"
POST, PRODUCTS, STYLE = "post", "products", "style"  # what looks can have in common
SAME, STARTS = ("positive", "hidden"), ("pca", "random")


@dataclass(frozen=True)
class PairConfig:
    """Which pictures are pairs."""

    LEAST = {"shared": 1, "each": 1}

    of: str = GARMENTS
    """garments: table `pairs`, a garment in the street and its product; looks: people in photos of posts, dressed alike."""
    same: list[str] = field(default_factory=lambda: [POST, PRODUCTS])
    """looks: what makes them alike: post (pictures of one page), products (tagged in both), style (the posts' label)."""
    shared: int = 2
    """looks: tagged products that two posts have to share."""
    each: int = 3
    """looks: pairs of each anchor, at most."""

    def __post_init__(self):
        if self.of not in (GARMENTS, LOOKS):
            raise UsageError(f"pairs.of={self.of}: must be {GARMENTS} or {LOOKS}")
        if not self.same or set(self.same) - {POST, PRODUCTS, STYLE}:
            raise UsageError(f"pairs.same={self.same}: one or several of {POST}, {PRODUCTS}, {STYLE}")


@dataclass(frozen=True)
class HeadConfig:
    """The layers on top of the backbone."""

    dims: list[int] = field(default_factory=lambda: [128])
    """Outputs of each layer; the last is the length of the vectors. [256, 128] has a GELU between two layers."""
    start: str = "pca"
    """A single layer starts as the projection onto the principal components of the training vectors (pca), or random."""

    def __post_init__(self):
        if not self.dims or min(self.dims) < 1:
            raise UsageError(f"learn.head.dims={self.dims}: one length or several, each at least 1")
        if self.start not in STARTS:
            raise UsageError(f"learn.head.start={self.start}: must be one of {', '.join(STARTS)}")


@dataclass(frozen=True)
class LearnConfig:
    """What an encoder learns from its pairs, and which of it may change."""

    batch_pairs: int = 64
    """Pairs per batch and worker, each of a different product."""
    loss: str = "info_nce"
    """info_nce (in-batch negatives), or the baselines triplet (1:1:1), contrastive (with a margin) and contrastive-as-published
    (the same with its label inverted, as "Outfit Of The Day" has it), or module:attribute, a loss of your own."""
    symmetric: bool = True
    """info_nce: from anchors to positives and back. false: from the anchors only."""
    same: str = "positive"
    """How pairs of the same product or of near-duplicate pictures count for each other: positive, or hidden (neither)."""
    dims: list[int] = field(default_factory=list)
    """info_nce: prefixes of the vector that work as vectors themselves (Matryoshka), such as [32, 64, 128]."""
    margin: float | None = None
    """Of the baselines. Default: triplet .2, contrastive 1."""
    negatives: int = 0
    """Each anchor brings one negative, drawn from the N hardest mined for its pair (table `negatives`); 0: none."""
    same_category: tuple[float, float] = (0.5, 1.0)
    """Share of batches with products of one category only, at the first step and at the last."""
    head: HeadConfig = field(default_factory=HeadConfig)
    """The layers on top of the backbone."""
    backbone_rate: float = 0.3
    """Learning rate of the backbone, as a share of the head's."""
    frozen: list[str] = field(default_factory=list)
    """Frozen parts of the backbone, by name prefix, such as [conv_stem, bn1, blocks.0]."""
    weight_decay: float = 0.05
    """Weight decay of matrices; biases, norms and the temperature have none."""
    stay: float = 0.0
    """Weight of the squared distance of the backbone's weights from those it started with (Li et al. 2018, "L2-SP")."""
    interpolate: float = 1.0
    """Interpolate between starting (0) and trained (1) weights for evaluation and saving (Wortsman et al. 2022, "WiSE-FT")."""
    chunk: int = 0
    """Pictures per GradCache chunk: large batches in little memory, at the price of a second forward pass. 0: off."""
    checkpointing: bool = False
    """Gradient checkpointing of the backbone: less memory, more computation."""
    val_pairs: int = 500
    """Most held-out pairs used to choose the step that is kept."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation of pictures."""

    def __post_init__(self):
        for name, least in (("batch_pairs", 2), ("val_pairs", 0), ("negatives", 0), ("chunk", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"learn.{name}={getattr(self, name)}: must be at least {least}")
        plugins.check("loss", self.loss, LOSSES)
        if self.same not in SAME:
            raise UsageError(f"learn.same={self.same}: must be one of {', '.join(SAME)}")
        if len(self.same_category) != 2 or not all(0 <= share <= 1 for share in self.same_category):
            raise UsageError(f"learn.same_category={list(self.same_category)}: two shares between 0 and 1")
        if not 0 < self.interpolate <= 1:
            raise UsageError(f"learn.interpolate={self.interpolate}: above 0, at most 1")
        if self.stay < 0 or self.weight_decay < 0 or self.backbone_rate < 0:
            raise UsageError("learn.stay, learn.weight_decay and learn.backbone_rate: must not be negative")
        if any(not 0 < dim <= self.head.dims[-1] for dim in self.dims):
            raise UsageError(f"learn.dims={self.dims}: lengths from 1 to that of the vectors, {self.head.dims[-1]}")
