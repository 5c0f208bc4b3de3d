"""JPEG by libjpeg-turbo: header, damage, DCT-scaled pixels.

Every warning of the decoder is an error first, since libjpeg fills what is missing with grey and only warns. Two kinds
are then forgiven, because each pixel was decoded: odd scan parameters, and padding before the end marker.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import simplejpeg

from w2w.errors import Reject, RejectCode
from w2w.images.exif import orientation

_SOF = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_SOS, _EOI, _APP1, _APP2, _APP14 = 0xDA, 0xD9, 0xE1, 0xE2, 0xEE
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_MAX_SEGMENTS = 4096  # a 64 KB profile or depth map comes in tens of segments; past this, metadata is not read
_MAX_SCANS = 100  # encoders write about 10; each costs 60 ms at 64 million pixels, whatever it holds
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # in pixel data, 0xff is followed by 0 or a restart marker
_PADDING = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_ODD_SCAN = "Invalid SOS parameters"  # some phones write them; sequential JPEGs do not use them
_SCAN_OF_ALL = b"\0\x3f\0"  # what they should be: coefficients 0 to 63, no successive approximation
_SIMPLEJPEG_ERRORS = (ValueError, KeyError)  # KeyError: a colour space or sampling that has no name there


@dataclass(frozen=True)
class JpegHeader:
    """What the decoder will meet. ``width`` and ``height`` are as stored, before ``turn`` (EXIF orientation)."""

    width: int
    height: int
    colour: str  # "YCbCr", "RGB", "Gray", "CMYK", "YCCK", or "" for a sampling that libjpeg-turbo's simple API refuses
    turn: int
    icc_profile: bytes | None
    inverted: bool  # Adobe writes 255 for no ink


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
    try:
        height, width, colour, _ = simplejpeg.decode_jpeg_header(data)
    except _SIMPLEJPEG_ERRORS as e:
        if "subsampling" in str(e) and frame and scan_at and len(frame[1]) >= 6:
            height, width, colour = int.from_bytes(frame[1][1:3]), int.from_bytes(frame[1][3:5]), ""
            return JpegHeader(width, height, colour, turn, profile, inverted)
        raise _rejection(str(e), data, scan_at) from None
    return JpegHeader(width, height, colour, turn, profile, inverted)


def pixels(data: bytes, head: JpegHeader, min_side_px_wanted: int | None) -> np.ndarray:
    """(H, W, 3) uint8 RGB as stored. Halved, quartered or by 8 (DCT-scaled) while the shorter side stays >= what is wanted.

    Only those three: the sizes between have no fast inverse DCT and can take longer than the whole image. Raises Reject.
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
        image = simplejpeg.decode_jpeg(data, **as_stored)
    except _SIMPLEJPEG_ERRORS as e:
        image = _forgiven(str(e), data, as_stored)
        if image is None:
            raise _rejection(str(e), data, 0) from None
    return _inks_to_rgb(image, head.inverted) if inks else image


def ends(data: bytes) -> bool:
    """Whether an end-of-image marker follows the first scan."""
    scan_at = next((at for marker, at, _ in _segments(data) if marker == _SOS), len(data))
    return data.find(b"\xff\xd9", scan_at) >= 0


def _segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(marker, its offset, payload) up to and with the first scan, at most ``_MAX_SEGMENTS``."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] == _EOI:
            return
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _STANDALONE:
            at += 2
        else:
            length = int.from_bytes(data[at + 2 : at + 4])
            yield marker, at, data[at + 4 : at + 2 + length]
            if marker == _SOS:
                return
            at += 2 + max(length, 2)


def _has_too_many_scans(data: bytes, at: int) -> bool:
    if data.count(b"\xff\xda", at) <= _MAX_SCANS:  # the quick answer; what follows the image (a phone's clip) counts here too
        return False
    num_scans = 0
    while num_scans <= _MAX_SCANS and (found := _MARKER.search(data, at)) and data[found.end() - 1] != _EOI:
        num_scans += data[found.end() - 1] == _SOS
        at = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2]))
    return num_scans > _MAX_SCANS


def _forgiven(message: str, data: bytes, as_stored: dict) -> np.ndarray | None:
    """The pixels where the decoder's complaint, mended, was the only one; None otherwise.

    Decoding the mended file, not ignoring warnings: the decoder reports only the first, which could hide a missing half.
    """
    scan_at, scan = next(((at, payload) for marker, at, payload in _segments(data) if marker == _SOS), (len(data), b""))
    end = data.find(b"\xff\xd9", scan_at)
    padding = _PADDING.search(message)
    if _ODD_SCAN in message and len(scan) >= 6:
        at = scan_at + 4 + len(scan) - len(_SCAN_OF_ALL)
        mended = data[:at] + _SCAN_OF_ALL + data[at + len(_SCAN_OF_ALL) :]
    elif padding and end >= 0 and len(set(data[end - int(padding[1]) : end])) == 1:
        # bytes of one value are padding; anything else is image data that the decoder could not place: a damaged image
        mended = data[: end - int(padding[1])] + data[end:]
    else:
        return None
    try:
        return simplejpeg.decode_jpeg(mended, **as_stored)
    except _SIMPLEJPEG_ERRORS:
        return None


def _rejection(message: str, data: bytes, scan_at: int) -> Reject:
    if "Premature end" in message or data.find(b"\xff\xd9", scan_at) < 0:
        return Reject(RejectCode.TRUNCATED, message)
    refused = message.startswith(("Unsupported JPEG", "Unsupported color", "Sorry", "Requested feature"))
    return Reject(RejectCode.UNSUPPORTED if refused else RejectCode.CORRUPT, message)


def _inks_to_rgb(cmyk: np.ndarray, inverted: bool) -> np.ndarray:
    """(H, W, 4) inks -> (H, W, 3) RGB without a colour profile, as browsers do for files that have none."""
    rgb = np.empty((*cmyk.shape[:2], 3), np.uint8)
    for row, inks in zip(rgb, cmyk, strict=True):  # row by row: the 16-bit products of a whole image would not fit a cache
        light = inks if inverted else 255 - inks  # 255 = no ink
        row[:] = (light[:, :3].astype(np.uint16) * light[:, 3:] + 127) // 255
    return rgb
