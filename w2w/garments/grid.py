"""The grid of locations of our own detector."""

import functools

import numpy as np

STRIDES = (8, 16, 32)  # pixels between two locations, for three grids


@functools.cache
def places(height: int, width: int) -> np.ndarray:
    """float32 (A, 2): x and y of every location of a canvas, stride by stride, row by row: the network's output order."""
    found = []
    for stride in STRIDES:
        y, x = np.mgrid[0 : height // stride, 0 : width // stride]
        found.append((np.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride)
    return np.concatenate(found).astype(np.float32)
