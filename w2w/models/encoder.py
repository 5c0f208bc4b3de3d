"""Encoders: an image in, a unit vector out. One interface over every source of models and both engines.

The input pixels are uint8: scaling, mean and standard deviation are the first layer of the network, so every engine sees the
same input and a worker moves a quarter of the bytes.
"""

from dataclasses import asdict, dataclass, replace
from typing import Protocol

import numpy as np

from w2w import ids
from w2w.errors import UsageError
from w2w.images.resize import fit
from w2w.models.config import STORE_DTYPES, EncoderConfig, Input
from w2w.models.device import DTYPES
from w2w.table import bridges

CODE = 1  # bump when the same weights and config would give other vectors


class Engine(Protocol):
    """Runs a network. ``dim`` is the length of its vectors."""

    dim: int

    def __call__(self, batch_NHWC: np.ndarray) -> np.ndarray:
        """uint8 (N, S, S, 3) -> float32 (N, dim), not normalised."""


@dataclass(frozen=True)
class Encoder:
    """A loaded model."""

    name: str
    model_version: str
    input: Input
    engine: Engine
    store_dtype: str

    @property
    def dim(self) -> int:
        return self.engine.dim

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) -> uint8 (S, S, 3)."""
        return fit(image, self.input.size_px, self.input.mode, self.input.resample, self.input.resize_px)

    def encode(self, batch_NHWC: np.ndarray) -> np.ndarray:
        """uint8 (N, S, S, 3) -> float32 (N, dim) of length 1; NaN in rows that the model could not compute."""
        vectors_ND = np.asarray(self.engine(batch_NHWC), np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            vectors_ND = vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        return vectors_ND.astype(self.store_dtype).astype(np.float32)


def finite_rows(vectors_ND: np.ndarray) -> np.ndarray:
    """bool (N,): rows without NaN and infinity."""
    return np.isfinite(vectors_ND).all(axis=1)


def encoder_input(config: EncoderConfig) -> Input:
    """The model's preprocessing, read without its weights. Raises UsageError for a missing model."""
    return _source(config).input


def model_version(config: EncoderConfig) -> str:
    """Digest of everything that decides the vectors: our code, the architecture and preprocessing, the weights' sha256, dtypes,
    and the bridge, if any.

    Engine, device, threads and batch size are not part of it: every path agrees with eager float32 to cosine >= .999. Raises
    UsageError for a bridge from another model.
    """
    if config.bridge:
        return bridge_of(config).version
    source = _source(config)
    return ids.digest(
        CODE, source.architecture, asdict(source.input), source.weights_sha256(), config.dtype, config.store_dtype
    )


def bridge_of(config: EncoderConfig) -> bridges.Bridge:
    """The bridge that ``config`` names. Raises UsageError where it is not from this model."""
    assert config.bridge
    bridge, version = bridges.read(config.bridge), model_version(replace(config, bridge=None))
    if bridge.new != version:
        raise UsageError(
            f"encoder.bridge={config.bridge}: is from model version {bridge.new} ({bridge.told.get('new_encoder', '?')}), and "
            f"{config.name} is {version}: make one with 'w2w bridge', or name the encoder that it was made with"
        )
    return bridge


def following(config: EncoderConfig, published: str) -> EncoderConfig:
    """The encoder as it searches an index of that model version: without its bridge, if the index is of the model itself."""
    return replace(config, bridge=None) if config.bridge and bridge_of(config).new == published else config


def as_precise(config: EncoderConfig, published: str) -> EncoderConfig:
    """The encoder in the precision of an index of that model version, where the options leave it to the default."""
    plain = EncoderConfig()
    if (config.dtype, config.store_dtype) != (plain.dtype, plain.store_dtype) or config.bridge:
        return config
    return in_precision_of(config, published) or config


def in_precision_of(config: EncoderConfig, version: str) -> EncoderConfig | None:
    """The encoder in the precision in which its vectors are of that model version; None if they are in none, or by a bridge."""
    if config.bridge:
        return None
    others = (replace(config, dtype=dtype, store_dtype=stored) for dtype in DTYPES for stored in STORE_DTYPES)
    return next((other for other in (config, *others) if model_version(other) == version), None)


def spaces(config: EncoderConfig) -> tuple[str, ...]:
    """The model versions whose vectors are comparable with this encoder's: its own, and by a bridge the model's before."""
    return (bridge.version, bridge.old) if config.bridge and (bridge := bridge_of(config)) else (model_version(config),)


def load_encoder(config: EncoderConfig) -> Encoder:
    """Loads the weights onto the device. Raises UsageError for a missing model, device or engine."""
    from w2w.models import engines

    source, version = _source(config), model_version(config)
    engine = engines.start(source, config)
    check_version(f"encoder.name={config.name}", version, model_version(config))
    return Encoder(config.name, version, source.input, engine, config.store_dtype)


def check_version(option: str, wanted: str, found: str) -> None:
    """Raises UsageError if a model's files differ from those that a job started with. ``wanted``: "" for any."""
    if wanted and wanted != found:
        raise UsageError(
            f"{option}: its files are not those that the job started with: they were changed meanwhile, or are others on this "
            f"machine (version {found}, not {wanted})"
        )


def try_encoder(config: EncoderConfig) -> None:
    """Raises UsageError for faults in the model's files, as ``load_encoder`` does, without keeping it in this process."""
    from w2w.models import sources
    from w2w.models.trial import try_open

    try_open(load_encoder, config, tuple(sources.BUILT_IN), model_version(config))


def _source(config: EncoderConfig):
    from w2w.models import sources

    return sources.of(config)
