"""JPEG by libjpeg-turbo: header, damage, DCT-scaled pixels.

Every decoder warning is an error at first, since libjpeg fills missing data with grey and only warns. Some are then tolerated,
because every pixel was decoded: oddities before the first scan, odd scan parameters, a few extra bytes before a restart marker,
and padding before the end marker.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import simplejpeg

from w2w.errors import Reject, RejectCode
from w2w.images.exif import orientation

_SOF = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_SOI, _SOS, _EOI, _APP0, _APP1, _APP2, _APP14 = 0xD8, 0xDA, 0xD9, 0xE0, 0xE1, 0xE2, 0xEE
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_ANY_MARKER = re.compile(rb"\xff+([^\x00\xff])")  # anything before it is skipped, as libjpeg does (jdmarker.c, next_marker)
_TABLES = _SOF | {0xC4, 0xCC, 0xDB, 0xDD}  # frame, Huffman and arithmetic tables, quantisation, restart interval
_JFIF = b"\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
_MAX_SEGMENTS = 4096  # a 64 KB profile or depth map comes in tens of segments; past this, metadata is not read
_MAX_SCANS = 100  # encoders write about 10; each costs 60 ms at 64 million pixels, whatever it holds
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # in pixel data, 0xff is followed by 0 or a restart marker
_EXTRA = re.compile(r"(\d+) extraneous bytes before marker 0xd([0-79])")
_MAX_EXTRA_BYTES = 16  # before a restart marker; more of them are misplaced image data
_MAX_INTERVALS = 20_000  # between restart markers; each is decoded separately to find such bytes
_ODD_SCAN = "Invalid SOS parameters"  # some phones write them; sequential JPEGs do not use them
_SCAN_OF_ALL = b"\0\x3f\0"  # what they should be: coefficients 0 to 63, no successive approximation
_WARNINGS = ("Corrupt JPEG data", "Warning")
_SIMPLEJPEG_ERRORS = (ValueError, KeyError)  # KeyError: a colour space or sampling that simplejpeg has no name for


@dataclass(frozen=True)
class JpegHeader:
    """What the decoder will read. ``width`` and ``height`` are as stored, before ``turn`` (EXIF orientation); ``data``: the
    file, with a plain header in place of one that the decoder would warn about."""

    width: int
    height: int
    colour: str  # "YCbCr", "RGB", "Gray", "CMYK", "YCCK", or "" for a sampling that libjpeg-turbo's simple API refuses
    turn: int
    icc_profile: bytes | None
    inverted: bool  # Adobe writes 255 for no ink
    data: bytes


def header(data: bytes) -> JpegHeader:
    """Reads markers only: no pixel is decoded. Raises Reject."""
    turn, inverted, profile_parts, frame, scan_at = 1, False, {}, None, 0
    for marker, at, payload in _segments(data):
        if marker in _SOF and frame is None:
            frame = marker, payload
        elif marker == _APP1 and payload.startswith(b"Exif\0\0") and turn == 1:
            turn = orientation(payload)
        elif marker == _APP2 and payload.startswith(b"ICC_PROFILE\0"):
            profile_parts.setdefault(payload[12:13], payload[14:])
        elif marker == _APP14 and payload.startswith(b"Adobe"):
            inverted = True
        elif marker == _SOS:
            scan_at = at
    profile = b"".join(profile_parts[k] for k in sorted(profile_parts)) or None
    if _has_too_many_scans(data, scan_at):
        raise Reject(RejectCode.CORRUPT, f"JPEG with more than {_MAX_SCANS} scans")
    colour, data = _colour(data, scan_at)
    if colour is None:  # a sampling without a name in the simple API
        if frame is None or len(frame[1]) < 6:
            raise Reject(RejectCode.CORRUPT, "JPEG without a frame")
        height, width = int.from_bytes(frame[1][1:3]), int.from_bytes(frame[1][3:5])
        return JpegHeader(width, height, "", turn, profile, inverted, data)
    return JpegHeader(colour[1], colour[0], colour[2], turn, profile, inverted, data)


def _colour(data: bytes, scan_at: int) -> tuple[tuple[int, int, str] | None, bytes]:
    """(height, width, colour space), None for an odd sampling; and the file, with a plain header if the decoder would warn."""
    for mended in (False, True):
        try:
            return simplejpeg.decode_jpeg_header(data)[:3], data
        except _SIMPLEJPEG_ERRORS as e:
            message = str(e)
        if "subsampling" in message and scan_at:
            return None, data
        if mended or not scan_at or not message.startswith(_WARNINGS):
            break
        data = _plain_header(data)
    raise _rejection(message, data, scan_at)


def _plain_header(data: bytes) -> bytes:
    """The file with only the markers that its pixels need before the first scan, without those that libjpeg skips or warns
    about."""
    parts, adobe, jfif = [], b"", b""
    for marker, at, payload in _segments(data):
        whole = data[at : at + 4 + len(payload)]
        if marker == _SOS:
            return b"".join([b"\xff\xd8", jfif, adobe, *parts, data[at:]])
        if marker in _TABLES:
            parts.append(whole)
        elif marker == _APP0 and payload.startswith(b"JFIF\0") and len(payload) >= 14:
            jfif = _JFIF  # marks the colours as YCbCr; its density is irrelevant here
        elif marker == _APP14 and payload.startswith(b"Adobe") and len(payload) >= 12:
            adobe = whole
    return data


def pixels(head: JpegHeader, min_side_px_wanted: int | None) -> np.ndarray:
    """(H, W, 3) uint8 RGB as stored, DCT-scaled to 1/2, 1/4 or 1/8 while the shorter side stays >= the wanted size.

    Only these three: the sizes in between have no fast inverse DCT and can take longer than the whole image. Raises Reject.
    """
    min_width, min_height = 0, 0
    for factor in (8, 4, 2):
        width, height = -(-head.width // factor), -(-head.height // factor)
        if min_side_px_wanted and min(width, height) >= min_side_px_wanted:
            min_width, min_height = width, height
            break
    inks = head.colour in ("CMYK", "YCCK")
    as_stored = {"colorspace": "CMYK" if inks else "RGB", "min_width": min_width, "min_height": min_height}
    try:
        image = simplejpeg.decode_jpeg(head.data, **as_stored)
    except _SIMPLEJPEG_ERRORS as e:
        image = _forgiven(str(e), head.data, as_stored)
        if image is None:
            raise _rejection(str(e), head.data, 0) from None
    return _inks_to_rgb(image, head.inverted) if inks else image


def ends(data: bytes) -> bool:
    """Whether an end-of-image marker follows the first scan."""
    scan_at = next((at for marker, at, _ in _segments(data) if marker == _SOS), len(data))
    return data.find(b"\xff\xd9", scan_at) >= 0


def _segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(marker, its offset, payload) up to and with the first scan, at most ``_MAX_SEGMENTS``."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        found = _ANY_MARKER.search(data, at)
        if not found or found[1][0] in (_SOI, _EOI) or found.end() + 2 > len(data):
            return
        marker, at = found[1][0], found.end()
        if marker in _STANDALONE:
            continue
        length = int.from_bytes(data[at : at + 2])
        yield marker, at - 2, data[at + 2 : at + length]
        if marker == _SOS:
            return
        at += max(length, 2)


def _has_too_many_scans(data: bytes, at: int) -> bool:
    if data.count(b"\xff\xda", at) <= _MAX_SCANS:  # a fast upper bound: what follows the image (a phone's clip) counts too
        return False
    num_scans = 0
    while num_scans <= _MAX_SCANS and (found := _MARKER.search(data, at)) and data[found.end() - 1] != _EOI:
        num_scans += data[found.end() - 1] == _SOS
        at = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2]))
    return num_scans > _MAX_SCANS


def _forgiven(message: str, data: bytes, as_stored: dict) -> np.ndarray | None:
    """The pixels, if repairing the decoder's complaint leaves no other; otherwise None.

    The repaired file is decoded, instead of ignoring warnings: the decoder reports only the first, which could hide a missing
    half.
    """
    for mended in _mended(message, data):
        try:
            return simplejpeg.decode_jpeg(mended, **as_stored)
        except _SIMPLEJPEG_ERRORS:
            continue
    return None


def _mended(message: str, data: bytes) -> Iterator[bytes]:
    """The file without what the decoder complains about, if that can be located."""
    scan_at, scan = next(((at, payload) for marker, at, payload in _segments(data) if marker == _SOS), (len(data), b""))
    end = data.find(b"\xff\xd9", scan_at)
    extra = _EXTRA.search(message)
    if _ODD_SCAN in message and len(scan) >= 6:
        at = scan_at + 4 + len(scan) - len(_SCAN_OF_ALL)
        yield data[:at] + _SCAN_OF_ALL + data[at + len(_SCAN_OF_ALL) :]
    elif extra and end >= 0:
        if extra[2] == "9" and len(set(data[end - int(extra[1]) : end])) == 1:
            # bytes of one value are padding; anything else is misplaced image data: a damaged image
            yield data[: end - int(extra[1])] + data[end:]
        if int(extra[1]) <= _MAX_EXTRA_BYTES and (mended := _without_extra(data, int(extra[1]))):
            yield mended


def _without_extra(data: bytes, most: int) -> bytes | None:
    """The file without up to ``most`` unneeded bytes before each restart marker; None if there are none, or the file is not
    baseline.

    The decoder reports their total number but not their place, so each interval is decoded as an image of its own.
    """
    parts, frame, every = [b"\xff\xd8"], b"", 0
    for marker, at, payload in _segments(data):
        if marker in (0xC0, 0xC1):
            frame = payload
        elif marker == 0xDD:
            every = int.from_bytes(payload[:2])
        elif marker == _SOS:
            body, scan = at + 4 + len(payload), data[at : at + 4 + len(payload)]
        elif marker in _TABLES:
            parts.append(data[at : at + 4 + len(payload)])
    if not every or len(frame) < 9 or len(frame) < 6 + 3 * frame[5] or scan[4:5] != frame[5:6]:
        return None
    sampled = [(s >> 4, s & 15) for s in frame[7 : 6 + 3 * frame[5] : 3]] if frame[5] > 1 else [(1, 1)]
    across, down = 8 * max(h for h, _ in sampled), 8 * max(v for _, v in sampled)
    per_row = max(1, -(-int.from_bytes(frame[3:5]) // across)) if every * across > 0xFFF0 else every
    ends = [m.start() for m in re.finditer(rb"\xff[\xd0-\xd7]", data[body:])]
    sides = every // per_row * down, per_row * across
    if every % per_row or max(sides) > 0xFFFF or len(ends) > _MAX_INTERVALS:
        return None
    size, colours = b"".join(side.to_bytes(2) for side in sides), "CMYK" if frame[5] == 4 else "GRAY"
    head = b"".join([*parts, b"\xff\xc0", (len(frame) + 2).to_bytes(2), frame[:1], size, frame[5:], scan])
    kept, start = [data[:body]], body
    for end in (body + e for e in ends):
        short = next((n for n in range(most, 0, -1) if _is_whole(head + data[start : end - n] + b"\xff\xd9", colours)), 0)
        kept += [data[start : end - short], data[end : end + 2]]
        start = end + 2
    return b"".join([*kept, data[start:]])


def _is_whole(data: bytes, colorspace: str) -> bool:
    try:
        simplejpeg.decode_jpeg(data, colorspace=colorspace)
    except _SIMPLEJPEG_ERRORS:
        return False
    return True


def _rejection(message: str, data: bytes, scan_at: int) -> Reject:
    if "Premature end" in message or data.find(b"\xff\xd9", scan_at) < 0:
        return Reject(RejectCode.TRUNCATED, message)
    refused = message.startswith(("Unsupported JPEG", "Unsupported color", "Sorry", "Requested feature"))
    return Reject(RejectCode.UNSUPPORTED if refused else RejectCode.CORRUPT, message)


def _inks_to_rgb(cmyk: np.ndarray, inverted: bool) -> np.ndarray:
    """(H, W, 4) inks -> (H, W, 3) RGB without a colour profile, as browsers do for files that have none."""
    rgb = np.empty((*cmyk.shape[:2], 3), np.uint8)
    for row, inks in zip(rgb, cmyk, strict=True):  # row by row: the 16-bit products of a whole image would not fit the cache
        light = inks if inverted else 255 - inks  # 255 = no ink
        row[:] = (light[:, :3].astype(np.uint16) * light[:, 3:] + 127) // 255
    return rgb
