"""What image files declare, read without a decoder: size, completeness, orientation.

Pillow accepts a PNG whose data ends early (the rest stays black), allocates a WebP's canvas before its size can be checked, and
reports a truncated file in many ways.
"""

import struct
import zlib
from dataclasses import dataclass

from w2w.errors import Reject, RejectCode

_MAX_PARTS = 100_000  # chunks of a PNG, boxes of an AVIF: 64 MB in 8 KB chunks are 8,000
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG colour type
# first column, first row, column step, row step of the seven passes: PNG specification, section 8.2
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_INFLATE_STEP = 1 << 20


@dataclass(frozen=True)
class Png:
    """A PNG's header, its compressed pixel data in order, and its eXIf block wherever it is."""

    width: int
    height: int
    bits: int
    colour_type: int
    interlaced: bool
    data: tuple[memoryview, ...]
    exif: bytes


def read_png(data: bytes) -> Png:
    """Raises Reject: CORRUPT without a valid header, TRUNCATED without an end."""
    if len(data) < 33:
        raise Reject(RejectCode.TRUNCATED, "PNG ends in its header")
    width, height, bits, colour_type, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    if data[12:16] != b"IHDR" or colour_type not in _CHANNELS or bits not in (1, 2, 4, 8, 16):
        raise Reject(RejectCode.CORRUPT, "PNG without a valid header")
    view, parts, exif, at = memoryview(data), [], b"", 33
    for _ in range(_MAX_PARTS):
        if at + 8 > len(data):
            raise Reject(RejectCode.TRUNCATED, "PNG without an end")
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IEND":
            return Png(width, height, bits, colour_type, bool(interlaced), tuple(parts), exif)
        if kind == b"IDAT":
            parts.append(view[at + 8 : at + 8 + length])
        elif kind == b"eXIf":
            exif = data[at + 8 : at + 8 + length]
        at += 12 + length
    raise Reject(RejectCode.CORRUPT, f"PNG with more than {_MAX_PARTS} chunks")


def check_png(png: Png) -> None:
    """Raises Reject unless the data inflates to every row. Holds 1 MB of it at a time, whatever the header declares.

    The second inflation costs about as much again as Pillow's decoding; fashion catalogs contain few PNGs.
    """
    sizes = [(png.width, png.height)]
    if png.interlaced:
        sizes = [((png.width - x + dx - 1) // dx, (png.height - y + dy - 1) // dy) for x, y, dx, dy in _ADAM7]
    bits = png.bits * _CHANNELS[png.colour_type]
    expected = sum(height * (1 + (width * bits + 7) // 8) for width, height in sizes if width > 0)
    inflate, inflated = zlib.decompressobj(), 0
    try:
        for part in png.data:
            while len(part) and inflated < expected:
                inflated += len(inflate.decompress(part, _INFLATE_STEP))
                part = inflate.unconsumed_tail
        while inflated < expected and (rest := inflate.decompress(b"", _INFLATE_STEP)):
            inflated += len(rest)
    except zlib.error as e:
        raise Reject(RejectCode.CORRUPT, f"PNG data: {e}") from None
    if inflated < expected:
        raise Reject(RejectCode.TRUNCATED, f"PNG data ends at {inflated:,} of {expected:,} bytes")


def webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of the canvas. Raises Reject: TRUNCATED if the file is shorter than it declares.

    Source: RFC 9649, sections 2.5 to 2.7; RFC 6386, section 9.1.
    """
    if len(data) < 30 or len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise Reject(RejectCode.TRUNCATED, "WebP is shorter than its header says")
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        packed = int.from_bytes(data[21:25], "little")
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    raise Reject(RejectCode.CORRUPT, "WebP without image data")


def check_boxes(data: bytes) -> None:
    """Raises Reject TRUNCATED if a top-level AVIF box ends beyond the file. Source: ISO/IEC 14496-12, section 4.2."""
    at = 0
    for _ in range(_MAX_PARTS):
        if at == len(data):
            return
        size = int.from_bytes(data[at : at + 4])
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16])
        if size == 0:  # extends to the end of the file
            return
        if at + max(size, 8) > len(data):
            raise Reject(RejectCode.TRUNCATED, "AVIF is shorter than its boxes say")
        if size < 8:
            raise Reject(RejectCode.CORRUPT, "AVIF with an impossible box")
        at += size
    raise Reject(RejectCode.CORRUPT, f"AVIF with more than {_MAX_PARTS} boxes")
