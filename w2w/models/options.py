"""Options of w2w's own networks, read without importing torch."""

from dataclasses import dataclass

from w2w.config import nearest
from w2w.errors import UsageError

SCORERS = ("pairs", "set", "what2wear")
PADDINGS = ("valid", "same")
BATCH = "batch"
HINGES = (BATCH, "outfit")  # of What2Wear's loss


@dataclass(frozen=True)
class ScorerConfig:
    """Which network scores outfits."""

    kind: str = "pairs"
    """pairs (three slots, cosines of pairs), set (a transformer over outfits of any size), what2wear (as it was published)."""
    dim: int = 64
    """Length of the compared vectors. what2wear: that of the items."""
    hidden: int = 256
    """Width of the layer before them; of set, that of the transformer."""
    spaces: str = "slot"
    """Of pairs: slot (tops, bottoms and shoes have a space each) or shared (one for all)."""
    dropout: float = 0.1
    """Share of the values that are dropped in training."""
    layers: int = 2
    """Of set: blocks of the transformer."""
    heads: int = 4
    """Of set: attention heads."""

    def __post_init__(self):
        if self.kind not in SCORERS:
            raise UsageError(f"scorer.kind={self.kind}: unknown.{nearest(self.kind, list(SCORERS))}")
        if self.spaces not in ("slot", "shared"):
            raise UsageError(f"scorer.spaces={self.spaces}: must be slot or shared")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"scorer.dropout={self.dropout}: from 0 to below 1")
        for name in ("dim", "hidden", "layers", "heads"):
            if getattr(self, name) < 1:
                raise UsageError(f"scorer.{name}={getattr(self, name)}: must be at least 1")
        if self.kind == "set" and self.hidden % self.heads:
            raise UsageError(f"scorer.hidden={self.hidden}: a multiple of scorer.heads={self.heads}")


@dataclass(frozen=True)
class SiameseConfig:
    """Which variant of the Siamese network."""

    padding: str = "valid"
    """Of the convolutions: valid (4,423,384 parameters) or same (4,883,384)."""
    learnt_scale: bool = False
    """Improved: sigmoid(scale * cosine + bias), both learnt. As published it is the sigmoid of the cosine itself, .269 to .731,
    so that the loss of a pair cannot fall below .313."""

    def __post_init__(self):
        if self.padding not in PADDINGS:
            raise UsageError(f"siamese.padding={self.padding}: must be {' or '.join(PADDINGS)}")


@dataclass(frozen=True)
class GanConfig:
    """How large PixelDTGAN is."""

    channels: int = 32
    """Of the first layer; the paper has 128."""
    code: int = 64
    """Length of the code between photo and drawing."""
    pixels: float = 10.0
    """Weight of the mean difference of the drawing and the product's picture, both in -1..1 (Isola et al. 2017, "pix2pix"); 0:
    the losses of the paper alone, which need many more steps."""

    def __post_init__(self):
        if self.channels < 8 or self.channels % 8:
            raise UsageError(f"gan.channels={self.channels}: a multiple of 8")
        if self.code < 1:
            raise UsageError(f"gan.code={self.code}: must be at least 1")
        if not 0 <= self.pixels < float("inf"):
            raise UsageError(f"gan.pixels={self.pixels}: a number from 0")
