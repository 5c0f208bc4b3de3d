"""Whether two pictures are the same: registered as a crop would be, and compared place by place, in colour.

A perceptual hash sees only grey structure, so T-shirts of the same cut share a hash whatever their colours; and cutting off 5 %
changes a third of its bits. So hashes and vectors only propose, and this decides. Registration: Lucas and Kanade 1981, on grey,
coarse to fine, with scale and shift along each axis (Baker and Matthews 2004, forward additive).
"""

from dataclasses import dataclass

import numpy as np

SIDE = 32  # of a fingerprint's grid, in cells
GRID_BYTES = 3 * SIDE * SIDE
_CHUNK = 512  # pairs compared at once: 60 MB
_STEPS = ((2, 2, 8), (1, 2, 4), (1, 0, 3))  # of registration: cells averaged, times blurred, steps
_HOPELESS = 6.0  # multiple of the tolerance beyond which the coarse steps give up
_SOFT = 20.0  # levels of difference that count half in registration, so that a different print does not bias it
_MOST_SCALE, _MOST_SHIFT = 0.13, 0.08  # 6 % cut off every side of either picture, plus registration error
_BLUR, _SLACK = 2, 0.15  # stripes finer than a cell are averaged out; edges may be off by 0.15 cells
_PLACES = 8  # compared per side
_RING, _PLAIN = 2, 1.0  # border cells examined; levels by which a plain background varies
_GROUND = 2.2  # levels: a plain background keeps its tone (JPEG at quality 30: within 2)
_OVERLAP = 0.03  # of half a side: registration error
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)[:, None, None]  # ITU-R BT.601
CROPPED = 0.02  # of a side: a window this far off the whole is a crop


@dataclass(frozen=True)
class Likeness:
    """For P pairs: ``difference_P`` is the difference in levels (0..255) at the most different place, relative to what versions
    of one picture may differ: up to 1 is the same picture. ``cropped_P``: one shows a part of the other."""

    difference_P: np.ndarray
    cropped_P: np.ndarray


def compare(a: np.ndarray, b: np.ndarray, most: float) -> Likeness:
    """Compares grids ``a[i]`` with ``b[i]``, uint8 (P, 3, S, S); mirror one of them (``mirrored``) for a flipped pair.

    ``most``: tolerance of a place in levels, on a plain background; doubled for a picture that continues beyond its border,
    since a crop then changes every cell along it.
    """
    found = [_compare(a[i : i + _CHUNK], b[i : i + _CHUNK], most) for i in range(0, len(a), _CHUNK)]
    if not found:
        return Likeness(np.empty(0, np.float32), np.empty(0, bool))
    return Likeness(np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found]))


def mirrored(grid: np.ndarray) -> np.ndarray:
    return grid[..., ::-1]


def _compare(a: np.ndarray, b: np.ndarray, most: float) -> tuple[np.ndarray, np.ndarray]:
    a, b = a.astype(np.float32), b.astype(np.float32)
    (ground_a, busy_a), (ground_b, busy_b) = _ground(a), _ground(b)
    busy_P = np.maximum(busy_a, busy_b)
    allowed_P = most * (1 + np.minimum(1, busy_P / 10))
    ground_P = np.where(busy_P < _PLAIN, np.abs(ground_a - ground_b) / _GROUND, 0)
    window_P4 = np.tile(np.array([1, 0, 1, 0], np.float32), (len(a), 1))
    difference_P = np.where(ground_P > 1, ground_P, np.inf).astype(np.float32)
    left = np.flatnonzero(ground_P <= 1)
    for i, (taken, blurred, steps) in enumerate(_STEPS):
        small_a, small_b = (_blur(_reduce(g[left], taken), blurred) for g in (a, b))
        window_P4[left] = _register((small_a * _LUMA).sum(1), (small_b * _LUMA).sum(1), window_P4[left], steps)
        if i == 0:
            difference_P[left] = _worst_place(small_a, small_b, window_P4[left]) / allowed_P[left]
            left = left[difference_P[left] <= _HOPELESS]
    place_P = _worst_place(a[left], b[left], window_P4[left], _BLUR) / allowed_P[left]
    difference_P[left] = np.maximum(np.maximum(place_P, ground_P[left]), _overlap(window_P4[left]) / _OVERLAP)
    return difference_P, (np.abs(window_P4 - (1, 0, 1, 0)) > CROPPED).any(1)


def _ground(grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the border: its luma (P,), and its mean absolute deviation in levels from its median."""
    n = len(grid)
    edges = (grid[..., :_RING, :], grid[..., -_RING:, :], grid[..., :_RING], grid[..., -_RING:])
    ring = np.concatenate([e.reshape(n, 3, -1) for e in edges], -1)
    median = np.median(ring, axis=-1)
    return (median * _LUMA[:, 0, 0]).sum(1), np.abs(ring - median[..., None]).mean((1, 2))


def _overlap(window_P4: np.ndarray) -> np.ndarray:
    """By how much (of half a side) neither of the two lies inside the other: a crop is part of its original."""
    scale, shift = window_P4[:, ::2], np.abs(window_P4[:, 1::2])
    return np.minimum((scale + shift - 1).max(1), (1 - scale + shift).max(1))


def _worst_place(a: np.ndarray, b: np.ndarray, window_P4: np.ndarray, blurred: int = 0) -> np.ndarray:
    """Mean difference in levels (P,) of ``b`` and its window of ``a`` over the eighth of the picture that differs most."""
    warped, inside = _warp(a, window_P4)
    warped, b = _blur(warped, blurred), _blur(b, blurred)
    edges = np.maximum(_steepness(warped), _steepness(b))
    off = np.maximum(0, np.abs(warped - b).max(1) - _SLACK * edges) * inside
    block = off.shape[-1] // _PLACES
    return off.reshape(len(off), _PLACES, block, _PLACES, block).mean((2, 4)).max((1, 2))


def _reduce(image: np.ndarray, taken: int) -> np.ndarray:
    """Averages of ``taken`` x ``taken`` cells."""
    if taken == 1:
        return image
    side = image.shape[-1] // taken
    return image.reshape(*image.shape[:-2], side, taken, side, taken).mean((-3, -1), dtype=np.float32)


def _centres(side: int) -> np.ndarray:
    """Centres of the cells of a row; a picture spans -1 to 1."""
    return ((np.arange(side) + 0.5) / side * 2 - 1).astype(np.float32)


def _steepness(image: np.ndarray) -> np.ndarray:
    dy, dx = np.gradient(image, axis=(-2, -1))
    return np.hypot(dx, dy).max(1)


def sampling(scale_P: np.ndarray, shift_P: np.ndarray, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Matrices (P, S, S) that sample a row of cells at scale * u + shift, linearly, and a mask of those inside it."""
    at_PS = (scale_P[:, None] * _centres(side) + shift_P[:, None] + 1) / 2 * side - 0.5
    inside_PS = (at_PS >= -0.5) & (at_PS <= side - 0.5)
    at_PS = np.clip(at_PS, 0, side - 1)
    low_PS = np.minimum(at_PS.astype(np.int64), side - 2)
    part_PS = (at_PS - low_PS).astype(np.float32)
    matrix = np.zeros((*at_PS.shape, side), np.float32)
    np.put_along_axis(matrix, low_PS[..., None], 1 - part_PS[..., None], 2)
    np.put_along_axis(matrix, low_PS[..., None] + 1, part_PS[..., None], 2)
    return matrix, inside_PS


def _warp(image: np.ndarray, window_P4: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P, S, S) or (P, C, S, S) sampled in each pair's window, and a mask of the cells (P, S, S) inside."""
    x, inside_x = sampling(window_P4[:, 0], window_P4[:, 1], image.shape[-1])
    y, inside_y = sampling(window_P4[:, 2], window_P4[:, 3], image.shape[-1])
    if image.ndim == 4:
        x, y = x[:, None], y[:, None]
    return y @ image @ x.swapaxes(-1, -2), inside_y[:, :, None] & inside_x[:, None, :]


def _blur(image: np.ndarray, times: int) -> np.ndarray:
    """Binomial filter (1, 2, 1) along both axes, repeating the border."""
    for _ in range(times):
        for axis in (-1, -2):
            wide = np.pad(image, [(1, 1) if a == image.ndim + axis else (0, 0) for a in range(image.ndim)], mode="edge")
            wide = wide.swapaxes(axis, -1)
            image = ((wide[..., :-2] + 2 * wide[..., 1:-1] + wide[..., 2:]) / 4).swapaxes(axis, -1)
    return image


def _register(a_PSS: np.ndarray, b_PSS: np.ndarray, window_P4: np.ndarray, steps: int) -> np.ndarray:
    """Refines the windows (x scale, x shift, y scale, y shift) of ``a`` that ``b`` shows."""
    side = a_PSS.shape[-1]
    u_S = _centres(side)
    low = np.array([1 - _MOST_SCALE, -_MOST_SHIFT] * 2, np.float32)
    high = np.array([1 + _MOST_SCALE, _MOST_SHIFT] * 2, np.float32)
    for _ in range(steps):
        warped, inside = _warp(a_PSS, window_P4)
        dy, dx = (g * np.float32(side / 2) for g in np.gradient(warped, axis=(1, 2)))
        dx, dy = dx / window_P4[:, 0, None, None], dy / window_P4[:, 2, None, None]
        jacobian = np.stack([dx * u_S, dx, dy * u_S[:, None], dy], -1).reshape(len(a_PSS), side**2, 4)
        error = (b_PSS - warped).reshape(len(a_PSS), side**2, 1)
        weighted = jacobian * (inside.reshape(len(a_PSS), side**2, 1) / (1 + np.abs(error) / _SOFT))
        normal = weighted.swapaxes(1, 2) @ jacobian
        normal += np.eye(4, dtype=np.float32) * (np.trace(normal, axis1=1, axis2=2)[:, None, None] / 4000 + 10)
        step = np.linalg.solve(normal, weighted.swapaxes(1, 2) @ error)[..., 0]
        window_P4 = np.clip(window_P4 + np.clip(step, -0.1, 0.1), low, high)
    return window_P4
