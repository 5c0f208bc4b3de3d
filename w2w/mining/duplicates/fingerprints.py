"""Fingerprints: what is kept of an image to find its near-duplicates without decoding it again.

Two perceptual hashes, of the picture and of its mirror image, and a grid of 32 x 32 colours. The grid yields the look: a short
vector that is robust to cropping, resizing and mirroring, for nearest-neighbour search.
"""

from functools import cache

import numpy as np
import pyarrow as pa
from PIL import Image

from w2w import ids, schema
from w2w.errors import Reject
from w2w.images.decode import DecodeLimits, decode_many
from w2w.images.phash import phash_many
from w2w.mining.duplicates.likeness import GRID_BYTES, SIDE, sampling
from w2w.stage import with_rejects

STAGE_CODE = 1  # bump when the same image would get another fingerprint
LOOK_DIMS = 54
SIDE_PX = 64  # of the decoded image, as for the hash in table `images`
# JPEG's YCbCr: luma keeps 6 x 6 frequencies, colour 3 x 3 each
_YCC = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]], np.float32)
_LUMA_LOW, _COLOUR_LOW = 6, 3
_CUT = 0.05
_CUTS = ((0, 0), (_CUT, 0), (0, _CUT), (_CUT, _CUT))  # off the two ends of a side
_WINDOWS = (*((x, y) for x in range(3) for y in range(3)), (3, 3))  # the whole; off each side and corner; off all round
NUM_WINDOWS = len(_WINDOWS)

FINGERPRINT_GIVES = pa.schema(
    [schema.FINGERPRINTS.schema.field(c) for c in schema.FINGERPRINTS.schema.names if c != schema.IMAGE_ID]
)


def fingerprint_version(limits: DecodeLimits) -> str:
    return ids.digest(STAGE_CODE, limits)


def to_fingerprints(rows: pa.Table, *, limits: DecodeLimits, stage_version: str) -> pa.Table:
    """Adds the fingerprint of every image and drops its bytes; undecodable images are rejected."""
    images = decode_many(rows.column(schema.BYTES), limits, SIDE_PX)
    rejects = [i if isinstance(i, Reject) else None for i in images]
    good = np.array([r is None for r in rejects], bool)
    hashes, mirrored, grids = fingerprint([i for i in images if not isinstance(i, Reject)])
    at = pa.array(np.where(good, np.cumsum(good) - 1, -1), mask=~good)
    columns = {
        schema.PHASH: pa.array(hashes).take(at),
        schema.PHASH_MIRRORED: pa.array(mirrored).take(at),
        schema.GRID: pa.array([g.tobytes() for g in grids], pa.binary()).take(at),
        schema.STAGE_VERSION: pa.repeat(stage_version, rows.num_rows),
    }
    rows = rows.drop_columns([schema.BYTES])
    for field in FINGERPRINT_GIVES:
        rows = rows.append_column(field.name, columns[field.name])
    return with_rejects(rows, rejects)


def fingerprint(images: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes int64 (n,), those of the mirror images, and grids uint8 (n, 3, S, S) of uint8 (H, W, 3) images."""
    grids = np.empty((len(images), 3, SIDE, SIDE), np.uint8)
    for i, image in enumerate(images):
        grids[i] = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    return phash_many(images), phash_many([i[:, ::-1] for i in images]), grids


def grids_of(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """uint8 (n, 3, S, S) of a grid column."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    flat = b"".join(column.to_pylist())
    assert len(flat) == len(column) * GRID_BYTES
    return np.frombuffer(flat, np.uint8).reshape(-1, 3, SIDE, SIDE)


def looks_of(grids: np.ndarray) -> np.ndarray:
    """float16 (n, W, 54): low frequencies of a grid's luma and colours, in levels: Euclidean distance approximates the RMS
    difference of two pictures: of the whole, then with 5 % cut off left, right, top, bottom, and all round.

    A picture and its mirror image have the same look: mirroring flips the sign of odd horizontal frequencies, of which only the
    magnitude is kept (so looks are never farther apart than the pictures).
    """
    n = len(grids)
    ycc = _YCC @ grids.reshape(n, 3, -1).astype(np.float32)
    bases = np.concatenate([_basis(*cut) for cut in _CUTS])  # (4 F, S): one product per side for all windows
    across = ycc.reshape(-1, SIDE) @ bases.T
    across = across.reshape(n, 3, SIDE, -1).swapaxes(2, 3).reshape(-1, SIDE) @ bases.T
    low = across.reshape(n, 3, len(_CUTS), _LUMA_LOW, len(_CUTS), _LUMA_LOW)  # of x, then of y
    low[:, :, :, 1::2] = np.abs(low[:, :, :, 1::2])
    looks = np.empty((n, NUM_WINDOWS, LOOK_DIMS), np.float16)
    for w, (x, y) in enumerate(_WINDOWS):
        looks[:, w, : _LUMA_LOW**2] = low[:, 0, x, :, y].reshape(n, -1)
        looks[:, w, _LUMA_LOW**2 :] = low[:, 1:, x, :_COLOUR_LOW, y, :_COLOUR_LOW].reshape(n, -1)
    return looks


@cache
def _basis(before: float, after: float) -> np.ndarray:
    """(F, S): orthonormal DCT-II, over the square root of S, of S cells with these shares cut off before and after them."""
    frequencies = np.cos(np.pi / SIDE * np.outer(np.arange(_LUMA_LOW), np.arange(SIDE) + 0.5)) / SIDE
    frequencies[1:] *= np.sqrt(2)
    sampled, _ = sampling(np.array([1 - before - after]), np.array([before - after]))
    return (frequencies @ sampled[0]).astype(np.float32)
