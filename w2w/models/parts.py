"""Searching by some parts of a vector more than by others: by colours, or by shape.

A score is the inner product of query and product, so it is the sum of those of the parts. To count a part twice it is enough to
double it in the query: exact, and the index stays as it is.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from w2w.config import nearest
from w2w.errors import UsageError
from w2w.models import sources
from w2w.models.config import EncoderConfig

Weights = tuple[tuple[int, float], ...]  # length and weight of each part, -1: what the others leave; none: as they are


def part_weights(config: EncoderConfig, weigh: Mapping[str, float], option: str) -> Weights:
    """What ``weigh`` says of the parts of that encoder's vectors, 1 where it says nothing.

    Raises UsageError for a part that they do not have, for weights below 0, and where nothing is left.
    """
    if not weigh:
        return ()
    parts = dict(sources.of(config).parts)
    if not parts:
        has = "w2w-fashion has, and any with --encoder.colour"
        raise UsageError(f"--{option}: vectors of {config.name} have no parts to weigh; those of {has}")
    for name, value in weigh.items():
        if name not in parts:
            raise UsageError(
                f"--{option}.{name}: no such part; {config.name} has {', '.join(parts)}.{nearest(name, list(parts))}"
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise UsageError(f"--{option}.{name}={value}: a number from 0 (it does not count); 1 is as it is")
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
