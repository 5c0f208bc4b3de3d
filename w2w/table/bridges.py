"""Bridges: a new model's vectors, mapped to where the model before it would have put them. `w2w bridge` fits and writes them.

``<store>/bridges/<name>.safetensors``: ``matrix`` (D_new, D_old) and ``bias`` (D_old,), float32; in its metadata the two model
versions and what the map was fitted to and measured on.
"""

import functools
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from w2w import ids, storage
from w2w.errors import UsageError
from w2w.results import Figure

CODE = 1  # bump when the same file would map to other vectors
RECALL = "recall_at_10"  # of ``Bridge.told``
_SUFFIX = ".safetensors"
_VERSION = re.compile(r"[0-9a-f]{8,64}")
_MOST_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Bridge:
    """From vectors of model version ``new`` to the space of ``old``. ``told``: plain values, what it was made of."""

    old: str
    new: str
    matrix: np.ndarray = field(repr=False)
    bias: np.ndarray = field(repr=False)
    told: dict[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def version(self) -> str:
        """The model version of the new model seen through this bridge."""
        tensors = (hashlib.sha256(np.ascontiguousarray(t).tobytes()).hexdigest() for t in (self.matrix, self.bias))
        return ids.digest("bridge", CODE, self.old, self.new, *tensors)

    @property
    def recall(self) -> dict[str, Figure]:
        """What was measured; nothing where the file tells no such figures."""
        try:
            figures = {
                name: (float(f["value"]), float(f["low"]), float(f["high"]), int(f["num"])) for name, f in self._told_recall
            }
        except (KeyError, TypeError, ValueError):
            return {}
        return {name: Figure(*figure) for name, figure in figures.items()}

    @property
    def _told_recall(self) -> Iterable[tuple[str, Any]]:
        told = self.told.get(RECALL)
        return told.items() if isinstance(told, dict) else ()

    def number(self, name: str) -> float:
        """A number that it tells; 0 where it does not."""
        value = self.told.get(name)
        return float(value) if isinstance(value, int | float) and 0 <= value < math.inf else 0.0

    def __call__(self, new_ND: np.ndarray) -> np.ndarray:
        """float32 (N, D_old) of length 1 for unit vectors (N, D_new); NaN stays NaN."""
        mapped_ND = new_ND.astype(np.float32) @ self.matrix + self.bias
        with np.errstate(invalid="ignore", divide="ignore"):
            return mapped_ND / np.linalg.norm(mapped_ND, axis=1, keepdims=True)


def uri_of(store: str, name: str) -> str:
    return storage.join(storage.absolute(store), "bridges", f"{name}{_SUFFIX}")


def write(uri: str, bridge: Bridge) -> None:
    tensors = {"matrix": np.ascontiguousarray(bridge.matrix), "bias": np.ascontiguousarray(bridge.bias)}
    about = {"old": bridge.old, "new": bridge.new, "told": json.dumps(bridge.told, sort_keys=True)}
    storage.write_bytes(uri, save_tensors(tensors, about))


def read(uri: str, option: str = "encoder.bridge") -> Bridge:
    """Raises UsageError naming the option for a file that is missing, damaged or no bridge."""
    try:
        data = storage.read_bytes(storage.absolute(uri))
    except (FileNotFoundError, IsADirectoryError) as e:
        raise UsageError(f"{option}={uri}: no such file: 'w2w bridge' writes <store>/bridges/NAME{_SUFFIX}") from e
    try:
        return _parse(data)
    except Exception as e:  # safetensors has an error class of its own
        raise UsageError(f"{option}={uri}: is no bridge, or damaged: {str(e)[:200]}") from e


def _parse(data: bytes) -> Bridge:
    if len(data) > _MOST_BYTES:
        raise ValueError("it is too large")
    tensors = load_tensors(data)
    about = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    matrix, bias = tensors["matrix"], tensors["bias"]
    if matrix.dtype != np.float32 or bias.dtype != np.float32 or matrix.ndim != 2 or bias.shape != matrix.shape[1:]:
        raise ValueError("its tensors are not a matrix and a bias of float32 that fit")
    if not (np.isfinite(matrix).all() and np.isfinite(bias).all()):
        raise ValueError("it has NaN or infinity")
    told = json.loads(about["told"])
    if not all(_VERSION.fullmatch(about[side]) for side in ("old", "new")) or not isinstance(told, dict):
        raise ValueError("it does not name the versions of two models")
    return Bridge(about["old"], about["new"], matrix, bias, told)


def find(store: str, model_version: str) -> tuple[str, Bridge] | None:
    """The store's bridge through which vectors have that model version, and where it lies."""
    return next(((uri, bridge) for uri, bridge in listed(store) if bridge.version == model_version), None)


def listed(store: str) -> Iterator[tuple[str, Bridge]]:
    """All of a store, and where they lie. Files that are no bridges are passed over."""
    for info in storage.list_files(storage.join(storage.absolute(store), "bridges"), recursive=False):
        name = info.path.rpartition("/")[2]
        if name.endswith(_SUFFIX) and info.size <= _MOST_BYTES:
            uri = uri_of(store, name.removesuffix(_SUFFIX))
            try:
                yield uri, read(uri)
            except UsageError:
                continue
