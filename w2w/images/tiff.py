"""A TIFF reduced to what its pixels need.

A TIFF is a file system of tags, pages and other formats' data, and Pillow reads all of it, with a warning for each oddity. So
its first directory is read here, checked, and rewritten at the end of the file with the few tags of a plain raster: what Pillow
then opens has one page, no metadata, and every offset inside the file.
"""

import struct
from dataclasses import dataclass

import numpy as np

from w2w.errors import Reject, RejectCode

_WIDTH, _HEIGHT, _COMPRESSION, _ORIENTATION, _SAMPLES, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 259, 274, 277, 322, 323
_NUMBERS = (_WIDTH, _HEIGHT, _COMPRESSION, 262, 266, _ORIENTATION, _SAMPLES, 278, 284, 317, _TILE_WIDTH, _TILE_HEIGHT)
_LISTS = (258, 273, 279, 320, 324, 325, 338, 339)
_ICC = 34675
_OFFSETS_AND_SIZES = ((273, 279), (324, 325))  # of strips, of tiles
_KINDS = {1: "u1", 3: "u2", 4: "u4", 7: "u1"}  # byte, short, long, undefined
# none, LZW, deflate, packbits, deflate; the others are for faxes, or wrap another format's decoder
_COMPRESSIONS = (1, 5, 8, 32773, 32946)
_MAX_SAMPLES = 5  # CMYK and alpha


@dataclass(frozen=True)
class Tiff:
    """Size as stored, EXIF orientation ``turn`` (no longer in ``data``), the largest block to decode, the reduced file."""

    width: int
    height: int
    turn: int
    tile_width: int
    tile_height: int
    data: bytes


def read(data: bytes) -> Tiff:
    """Raises Reject: TRUNCATED if the directory points beyond the end. Source: TIFF 6.0, section 2."""
    order = "<" if data[:1] == b"I" else ">"
    entries = _directory(data, order)
    numbers: dict[int, int] = {}
    lists: dict[int, np.ndarray] = {}
    kept: list[bytes] = []
    for entry in entries:
        tag, kind, count = struct.unpack_from(f"{order}HHI", entry)
        if tag not in (*_NUMBERS, *_LISTS, _ICC) or tag in numbers or tag in lists:
            continue
        if kind not in _KINDS or (tag in _NUMBERS and count != 1):
            raise Reject(RejectCode.CORRUPT, f"TIFF tag {tag} of type {kind}, {count} values")
        values = np.dtype(f"{order}{_KINDS[kind]}")
        inline = count * values.itemsize <= 4
        start = 0 if inline else struct.unpack_from(f"{order}I", entry, 8)[0]
        if start + count * values.itemsize > len(data):
            raise Reject(RejectCode.TRUNCATED, f"TIFF tag {tag} points beyond the end")
        found = np.frombuffer(entry if inline else data, values, count, 8 if inline else start)
        if tag in _NUMBERS:
            numbers[tag] = int(found[0])
        else:
            lists[tag] = found
        if tag != _ORIENTATION:
            kept.append(entry)
    _check(numbers, lists, len(data))
    turn = numbers.get(_ORIENTATION, 1)
    body = data + b"\0" * (len(data) % 2)
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(sorted(kept, key=lambda e: struct.unpack_from(f"{order}H", e)))
    reduced = body[:4] + struct.pack(f"{order}I", len(body)) + body[8:] + directory + b"\0\0\0\0"
    tile = numbers.get(_TILE_WIDTH, 0), numbers.get(_TILE_HEIGHT, 0)
    return Tiff(numbers[_WIDTH], numbers[_HEIGHT], turn if 1 <= turn <= 8 else 1, *tile, reduced)


def _directory(data: bytes, order: str) -> list[bytes]:
    if len(data) >= 8:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        if start + 2 <= len(data):
            (count,) = struct.unpack_from(f"{order}H", data, start)
            if start + 2 + 12 * count <= len(data):
                return [data[at : at + 12] for at in range(start + 2, start + 2 + 12 * count, 12)]
    raise Reject(RejectCode.TRUNCATED, "TIFF without its directory")


def _check(numbers: dict[int, int], lists: dict[int, np.ndarray], num_bytes: int) -> None:
    if _WIDTH not in numbers or _HEIGHT not in numbers:
        raise Reject(RejectCode.CORRUPT, "TIFF without a size")
    if numbers.get(_COMPRESSION, 1) not in _COMPRESSIONS:
        raise Reject(RejectCode.UNSUPPORTED, f"TIFF compressed by method {numbers[_COMPRESSION]}")
    if not 1 <= numbers.get(_SAMPLES, 1) <= _MAX_SAMPLES:
        raise Reject(RejectCode.UNSUPPORTED, f"TIFF with {numbers[_SAMPLES]} channels")
    blocks = [(lists[a], lists[b]) for a, b in _OFFSETS_AND_SIZES if a in lists and b in lists]
    if len(blocks) != 1 or len(blocks[0][0]) != len(blocks[0][1]) or len(blocks[0][0]) == 0:
        raise Reject(RejectCode.CORRUPT, "TIFF without one list of strips or tiles")
    offsets, sizes = blocks[0]
    if (offsets.astype(np.int64) + sizes > num_bytes).any():
        raise Reject(RejectCode.TRUNCATED, "TIFF ends before its last strip")
