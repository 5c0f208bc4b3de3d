"""Whether two pictures are one: laid over each other as a crop would lie, and compared place by place, in colour.

A perceptual hash sees grey structure alone, so two T-shirts of one cut have one hash whatever their colours; and it changes
by a third of its bits when 5 % are cut off. So hashes and vectors only propose, and this decides. Registration: Lucas and
Kanade 1981, on grey, from coarse to fine, a scale and a shift along each axis (Baker and Matthews 2004, forward additive).
"""

from dataclasses import dataclass

import numpy as np

SIDE = 32  # of a fingerprint's grid, in cells
GRID_BYTES = 3 * SIDE * SIDE
_CHUNK = 512  # pairs compared at once: 60 MB
_U_S = ((np.arange(SIDE) + 0.5) / SIDE * 2 - 1).astype(np.float32)  # cell centres; a picture spans -1 to 1
_STEPS = ((6, 5), (2, 4), (0, 3))  # (times blurred, steps of registration)
_SOFT = 20.0  # levels of difference that count half in registration: a print that differs must not pull
_MOST_SCALE, _MOST_SHIFT = 0.13, 0.08  # 6 % cut off every side of either picture, and what registration is off
_BLUR, _SLACK = 2, 0.15  # stripes finer than a cell are averaged out; edges may be off by 0.15 cells
_BLOCK = 4  # cells a side of the places that are compared: an eighth of the picture
_RING = 2  # cells of the border that tell whether the ground is plain
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)[:, None, None]  # ITU-R BT.601
CROPPED = 0.02  # of a side: a window that much off the whole is a crop


@dataclass(frozen=True)
class Likeness:
    """Of P pairs: ``difference_P`` in levels (0..255) at the place where the two differ most, as a share of what one picture
    may differ from itself: up to 1 is the same picture. ``cropped_P``: one shows a part of the other."""

    difference_P: np.ndarray
    cropped_P: np.ndarray


def compare(a: np.ndarray, b: np.ndarray, most: float) -> Likeness:
    """Compares grids ``a[i]`` with ``b[i]``, uint8 (P, 3, S, S); mirror one of them (``mirrored``) for a flipped pair.

    ``most``: levels that a place may differ on plain ground; a picture that goes on beyond its border may differ twice that,
    as a crop then changes every cell along it.
    """
    found = [_compare(a[i : i + _CHUNK], b[i : i + _CHUNK], most) for i in range(0, len(a), _CHUNK)]
    if not found:
        return Likeness(np.empty(0, np.float32), np.empty(0, bool))
    return Likeness(np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found]))


def mirrored(grid: np.ndarray) -> np.ndarray:
    return grid[..., ::-1]


def _compare(a: np.ndarray, b: np.ndarray, most: float) -> tuple[np.ndarray, np.ndarray]:
    a, b = a.astype(np.float32), b.astype(np.float32)
    window_P4 = _register((a * _LUMA).sum(1), (b * _LUMA).sum(1))
    warped, inside = _warp(a, window_P4)
    ring = np.concatenate([b[..., :_RING, :].reshape(len(b), 3, -1), b[..., -_RING:, :].reshape(len(b), 3, -1)], -1)
    busy_P = np.abs(ring - np.median(ring, axis=-1, keepdims=True)).mean((1, 2))
    a, b = _blur(warped, _BLUR), _blur(b, _BLUR)
    edges = np.maximum(_steepness(a), _steepness(b))
    off = np.maximum(0, np.abs(a - b).max(1) - _SLACK * edges) * inside
    places = off.reshape(len(a), SIDE // _BLOCK, _BLOCK, SIDE // _BLOCK, _BLOCK).mean((2, 4))
    difference_P = places.max((1, 2)) / (most * (1 + np.minimum(1, busy_P / 10)))
    return difference_P, (np.abs(window_P4 - (1, 0, 1, 0)) > CROPPED).any(1)


def _steepness(image: np.ndarray) -> np.ndarray:
    dy, dx = np.gradient(image, axis=(-2, -1))
    return np.hypot(dx, dy).max(1)


def sampling(scale_P: np.ndarray, shift_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matrices (P, S, S) that sample a row of cells at scale * u + shift, linearly, and which of those lie inside it."""
    at_PS = (scale_P[:, None] * _U_S + shift_P[:, None] + 1) / 2 * SIDE - 0.5
    inside_PS = (at_PS >= -0.5) & (at_PS <= SIDE - 0.5)
    at_PS = np.clip(at_PS, 0, SIDE - 1)
    low_PS = np.minimum(at_PS.astype(np.int64), SIDE - 2)
    part_PS = (at_PS - low_PS).astype(np.float32)
    matrix = np.zeros((*at_PS.shape, SIDE), np.float32)
    np.put_along_axis(matrix, low_PS[..., None], 1 - part_PS[..., None], 2)
    np.put_along_axis(matrix, low_PS[..., None] + 1, part_PS[..., None], 2)
    return matrix, inside_PS


def _warp(image: np.ndarray, window_P4: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P, S, S) or (P, C, S, S) sampled in each pair's window, and which cells (P, S, S) lie inside."""
    x, inside_x = sampling(window_P4[:, 0], window_P4[:, 1])
    y, inside_y = sampling(window_P4[:, 2], window_P4[:, 3])
    if image.ndim == 4:
        x, y = x[:, None], y[:, None]
    return y @ image @ x.swapaxes(-1, -2), inside_y[:, :, None] & inside_x[:, None, :]


def _blur(image: np.ndarray, times: int) -> np.ndarray:
    """Binomial filter (1, 2, 1) along both axes; the border goes on as it is."""
    for _ in range(times):
        for axis in (-1, -2):
            wide = np.pad(image, [(1, 1) if a == image.ndim + axis else (0, 0) for a in range(image.ndim)], mode="edge")
            wide = wide.swapaxes(axis, -1)
            image = ((wide[..., :-2] + 2 * wide[..., 1:-1] + wide[..., 2:]) / 4).swapaxes(axis, -1)
    return image


def _register(a_PSS: np.ndarray, b_PSS: np.ndarray) -> np.ndarray:
    """The windows (P, 4: x scale, x shift, y scale, y shift) of ``a`` that ``b`` shows."""
    window_P4 = np.tile(np.array([1, 0, 1, 0], np.float32), (len(a_PSS), 1))
    low = np.array([1 - _MOST_SCALE, -_MOST_SHIFT] * 2, np.float32)
    high = np.array([1 + _MOST_SCALE, _MOST_SHIFT] * 2, np.float32)
    for blurred, steps in _STEPS:
        a, b = _blur(a_PSS, blurred), _blur(b_PSS, blurred)
        for _ in range(steps):
            warped, inside = _warp(a, window_P4)
            dy, dx = (g * np.float32(SIDE / 2) for g in np.gradient(warped, axis=(1, 2)))
            dx, dy = dx / window_P4[:, 0, None, None], dy / window_P4[:, 2, None, None]
            jacobian = np.stack([dx * _U_S, dx, dy * _U_S[:, None], dy], -1).reshape(len(a), -1, 4)
            error = (b - warped).reshape(len(a), -1, 1)
            weighted = jacobian * (inside.reshape(len(a), -1, 1) / (1 + np.abs(error) / _SOFT))
            normal = weighted.swapaxes(1, 2) @ jacobian
            normal += np.eye(4, dtype=np.float32) * (np.trace(normal, axis1=1, axis2=2)[:, None, None] / 4000 + 10)
            step = np.linalg.solve(normal, weighted.swapaxes(1, 2) @ error)[..., 0]
            window_P4 = np.clip(window_P4 + np.clip(step, -0.1, 0.1), low, high)
    return window_P4
