"""Perceptual hash: near-duplicate images have hashes that differ in few bits.

Method (pHash): Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions", section 3.2.1: 32 x 32 grey
pixels, two-dimensional DCT, the 8 x 8 lowest frequencies without the constant row and column, one bit each: above the median or
not.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

_SIDE, _LOW = 32, 8
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
# DCT-II rows 1..8; their scale does not affect the comparison with the median
_BASIS_8S = np.cos(np.pi / _SIDE * np.outer(np.arange(1, _LOW + 1), np.arange(_SIDE) + 0.5)).astype(np.float32)


def phash_many(images: Sequence[np.ndarray]) -> np.ndarray:
    """int64 hashes, shape (n,), of (H, W, 3) uint8 RGB images. The same pixels have the same hash in any batch.

    A single-colour image has no frequencies: its hash is 0.
    """
    if len(images) == 0:
        return np.empty(0, np.int64)
    # area averaging is the low-pass filter; it precedes the grey conversion (both are linear), as 32 x 32 is the smaller array
    small_NSSC = np.stack([np.asarray(Image.fromarray(i).resize((_SIDE, _SIDE), Image.Resampling.BOX)) for i in images])
    grey_NSS = small_NSSC @ _LUMA
    grey_NSS -= grey_NSS.mean(axis=(1, 2), keepdims=True)  # so that a flat image is exactly zero
    low_ND = (_BASIS_8S @ grey_NSS @ _BASIS_8S.T).reshape(len(images), -1)
    bits_ND = (low_ND > np.median(low_ND, axis=1, keepdims=True)) & (np.ptp(grey_NSS, axis=(1, 2)) > 0)[:, None]
    return np.packbits(bits_ND, axis=1).view(">u8")[:, 0].astype(np.uint64).view(np.int64)
