"""Which encoder, and its preprocessing. Plain values, read without importing torch."""

from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from w2w.errors import UsageError
from w2w.models.device import check_options

SHAPE, COLOUR, KIND = "shape", "colour", "kind"  # parts of vectors
COLOUR_FILE, COLOUR_DIM = Path(__file__).parent / "weights" / "colour.safetensors", 64
LITE0 = "efficientnet-lite0"
FASHION, FASHION_FILE = "w2w-fashion", COLOUR_FILE.with_name("fashion.safetensors")
TAGS, TAGS_FILE = "w2w-tags", COLOUR_FILE.with_name("tags.safetensors")
AUTO, DEFAULT = "auto", FASHION
FASHION_CODE, SHAPE_DIM, KIND_DIM = 2, 160, 32
COLOUR_CODE = 1  # raise it when colour.py would give other vectors by the same weights
_ENGINES, STORE_DTYPES = ("auto", "torch", "openvino"), ("float32", "float16")
_MOST_COLOUR = 10.0


class _Unnamed(str):
    """The name of the default encoder, where the options name none."""


yaml.SafeDumper.add_representer(_Unnamed, lambda dumper, _: dumper.represent_str(AUTO))  # --print_config names none either


@dataclass(frozen=True)
class EncoderConfig:
    """Which model makes the vectors, and how it runs."""

    name: str = AUTO
    """w2w-fashion and efficientnet-lite0 (come with w2w), hf:ORG/MODEL, timm:MODEL, open_clip:MODEL/FILE, a folder in the hub's
    layout, or module:attribute, an encoder of your own. auto: w2w-fashion; for find, style and tag what index or tagger were
    made with."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    engine: str = "auto"
    """torch, openvino, or auto: openvino on a CPU for convolutional networks in float32, torch elsewhere."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda if available."""
    dtype: str = "float32"
    """Precision of the computation: float32, bfloat16 or float16."""
    colour: float = 0.0
    """Weight of a part that says which colours there are, beside the model's own of weight 1: 0 leaves it out, .7 suits most.
    It adds 64 dimensions. w2w-fashion has such a part by itself."""
    bridge: str | None = None
    """A file of `w2w bridge`: this model's vectors are mapped into the space of the model before it, to search its index while
    new vectors are still being computed. An index of this model's own is searched without."""
    store_dtype: str = "float32"
    """Precision of stored vectors: float32, or float16 for half the bytes."""
    threads: int = 1
    """CPU threads of one worker; set pool.num_cpus to the same."""
    trust_remote_code: bool = False
    """Run Python code that comes with a hub model. Only for authors whom you trust with your data."""

    def __post_init__(self):
        if not self.name:
            raise UsageError(f"encoder.name: is empty: name an encoder, or {AUTO}")
        if self.name == AUTO:
            object.__setattr__(self, "name", _Unnamed(DEFAULT))
        check_options(self, "encoder", engine=_ENGINES, store_dtype=STORE_DTYPES)
        if not 0 <= self.colour <= _MOST_COLOUR:
            raise UsageError(f"encoder.colour={self.colour}: a number from 0 (no such part) to {_MOST_COLOUR:g}")

    @property
    def is_named(self) -> bool:
        """Whether the options name the encoder."""
        return not isinstance(self.name, _Unnamed)

    @property
    def named(self) -> "EncoderConfig":
        """The same, as if the options named it."""
        return replace(self, name=str(self.name))


@dataclass(frozen=True)
class Input:
    """A model's preprocessing: the image resized (shorter side to ``resize_px``) and cropped to ``size_px``, or squashed, or
    padded, then (value / 255 - mean) / std."""

    size_px: int
    resize_px: int
    mode: str  # crop, squash, pad: see images.resize.fit
    resample: str  # bicubic, bilinear
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
