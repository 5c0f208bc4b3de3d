"""EXIF orientation: the only tag that changes how an image is shown."""

import struct

import numpy as np

_ORIENTATION = 0x0112
_SHORT, _LONG = 3, 4
_MAX_ENTRIES = 512  # real IFDs have some tens of entries


def orientation(exif: bytes) -> int:
    """Value 1..8 of the orientation tag in IFD0; 1 if it is missing or damaged. Never raises.

    ``exif`` is a TIFF header with or without the ``Exif\0\0`` prefix. Source: CIPA DC-008 (EXIF 2.32), section 4.6.4.
    """
    tiff = exif[6:] if exif.startswith(b"Exif\0\0") else exif
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(tiff[:4]))
    if order is None or len(tiff) < 14:
        return 1
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    if start + 2 > len(tiff):
        return 1
    (num_entries,) = struct.unpack_from(f"{order}H", tiff, start)
    for entry in range(start + 2, start + 2 + 12 * min(num_entries, _MAX_ENTRIES), 12):
        if entry + 12 > len(tiff):
            return 1
        tag, kind, count = struct.unpack_from(f"{order}HHI", tiff, entry)
        if tag == _ORIENTATION:
            if kind not in (_SHORT, _LONG) or count != 1:
                return 1
            (value,) = struct.unpack_from(f"{order}{'H' if kind == _SHORT else 'I'}", tiff, entry + 8)
            return value if 1 <= value <= 8 else 1
    return 1


def upright_size(width: int, height: int, turn: int) -> tuple[int, int]:
    """Width and height after ``upright``."""
    return (height, width) if turn >= 5 else (width, height)


def upright(image: np.ndarray, turn: int) -> np.ndarray:
    """(H, W, 3) as a viewer shows it, C-contiguous, given its EXIF orientation ``turn`` (1 = as stored)."""
    if turn <= 1:
        return image
    # one item per pixel: twice as fast as copying the three channels of a transposed array
    height, width = image.shape[:2]
    pixels = np.ascontiguousarray(image).view("V3").reshape(height, width)
    if turn >= 5:
        pixels = pixels.T
    # rows then columns to reverse, after the transpose of 5..8
    flip_rows, flip_columns = turn in (3, 4, 7, 8), turn in (2, 3, 6, 7)
    pixels = np.ascontiguousarray(pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1])
    return pixels.view(np.uint8).reshape(*pixels.shape, 3)
