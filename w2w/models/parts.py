"""Searching by some parts of a vector more than by others: by colours, or by shape.

A score is the inner product of query and product, so it is the sum of those of the parts. To count a part twice it is enough to
double it in the query: exact, and the index stays as it is.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from w2w.config import nearest
from w2w.errors import UsageError
from w2w.models import sources
from w2w.models.config import EncoderConfig

_LEAST, _MOST = 1e-6, 1e6
Weights = tuple[tuple[int, float], ...]  # length and weight of each part, -1: what the others leave; none: as they are


def part_weights(config: EncoderConfig, weigh: Mapping[str, float], option: str) -> Weights:
    """What ``weigh`` says of the parts of that encoder's vectors, 1 where it says nothing.

    Raises UsageError for a part that they do not have, for weights that are too small or too large, and where nothing is left.
    """
    if not weigh:
        return ()
    parts = dict(sources.of(config).parts)
    if not parts:
        others = "w2w-fashion, and of any encoder with --encoder.colour, have"
        raise UsageError(f"--{option}: vectors of {config.name} have no parts to weigh; those of {others}")
    for name, value in weigh.items():
        if name not in parts:
            raise UsageError(
                f"--{option}.{name}: no such part; {config.name} has {', '.join(parts)}.{nearest(name, list(parts))}"
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not (value == 0 or _LEAST <= value <= _MOST):
            raise UsageError(
                f"--{option}.{name}={value}: must be 0 (it does not count) or from {_LEAST:g} to {_MOST:g}; 1 is as it is"
            )
    weights = tuple((length, float(weigh.get(name, 1.0))) for name, length in parts.items())
    if not any(weight for _, weight in weights):
        raise UsageError(f"--{option}: with a weight of 0 for every part there is nothing to search by")
    return weights


def weighed(vectors_ND: np.ndarray, weights: Weights) -> np.ndarray:
    """float32 (N, D) of length 1, each part times its weight before."""
    if not weights:
        return vectors_ND
    given = sum(length for length, _ in weights if length > 0)
    lengths: Sequence[int] = [length if length > 0 else vectors_ND.shape[1] - given for length, _ in weights]
    found_ND = vectors_ND * np.repeat(np.array([weight for _, weight in weights], np.float32), lengths)
    return found_ND / np.maximum(np.linalg.norm(found_ND, axis=1, keepdims=True), 1e-12).astype(np.float32)
