"""Bytes from any source to RGB pixels, or a Reject with the reason. The only decoder of w2w."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from PIL.ImageFile import ImageFile

from w2w.errors import Reject, RejectCode, attempt
from w2w.images import containers, exif, jpeg, pillow, sniff, tiff
from w2w.images.colour import to_srgb
from w2w.images.jpeg import JpegHeader


@dataclass(frozen=True)
class DecodeLimits:
    """What an image may cost.

    64 million pixels is more than phones and cameras write (48 to 61 million) and makes an array of 192 MB. Measured peak
    memory of a worker for such an image, including the array: JPEG and PNG 0.5 GB, progressive JPEG 0.7, WebP 1.0.
    """

    LEAST = {"max_bytes": 1, "max_pixels": 1}

    max_bytes: int = 64 * 1024 * 1024
    """Largest encoded file."""
    max_pixels: int = 64_000_000
    """Largest width times height, as the header says."""
    min_side_px: int = 16
    """Least length of the shorter side."""


@dataclass(frozen=True)
class ImageInfo:
    """What the header declares. ``width`` and ``height`` are upright, as a viewer shows the image."""

    format: str
    width: int
    height: int
    orientation: int  # EXIF, 1..8: how the stored pixels must be turned


_DEFAULT_LIMITS = DecodeLimits()


def probe(data: bytes, limits: DecodeLimits = _DEFAULT_LIMITS) -> ImageInfo:
    """Format and size from the header alone, before any pixel is allocated. Raises Reject like ``decode``."""
    return _open(data, limits)[0]


def decode(data: bytes, limits: DecodeLimits = _DEFAULT_LIMITS, min_side_px_wanted: int | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB: upright, C-contiguous, writable, in sRGB, transparency on white, the first frame of several.

    With ``min_side_px_wanted``, a JPEG at least twice as large is decoded at a half, quarter or eighth of its size, the shorter
    side still >= that. Raises Reject, and nothing else, for every input that cannot be decoded whole.
    """
    info, opened = _open(data, limits)
    if isinstance(opened, JpegHeader):
        image, icc_profile = jpeg.pixels(opened, min_side_px_wanted), opened.icc_profile
        if opened.colour not in ("YCbCr", "RGB"):
            icc_profile = None
    else:
        if info.format == sniff.PNG:
            containers.check_png(containers.read_png(data))
        icc_profile = opened.info.get("icc_profile") if opened.mode in ("RGB", "RGBA", "P") else None
        image = pillow.pixels(opened)
    return exif.upright(to_srgb(image, icc_profile), info.orientation)


def decode_many(
    blobs: pa.Array | pa.ChunkedArray | Sequence[bytes | None],
    limits: DecodeLimits = _DEFAULT_LIMITS,
    min_side_px_wanted: int | None = None,
    threads: int = 1,
) -> list[np.ndarray | Reject]:
    """``decode`` of each blob, in order; a blob that cannot be decoded (null: EMPTY) yields its Reject.

    The decoders release the GIL, so ``threads`` helps a process that has several cores: 1.5 times as many images with 2 threads
    on 2 cores. Workers that already fill the cores gain nothing. Callers that hold many images at once should raise glibc's
    mmap and trim thresholds: page faults of fresh memory otherwise cost 0.7 of the decoding again.
    """

    def one(blob: bytes | pa.Scalar | None) -> np.ndarray | Reject:
        data = blob.as_py() if isinstance(blob, pa.Scalar) else blob
        return attempt(decode, data or b"", limits, min_side_px_wanted)

    if threads <= 1:
        return [one(blob) for blob in blobs]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, blobs))


def _open(data: bytes, limits: DecodeLimits) -> tuple[ImageInfo, JpegHeader | ImageFile]:
    if not data:
        raise Reject(RejectCode.EMPTY, "zero bytes")
    if len(data) > limits.max_bytes:
        raise Reject(RejectCode.TOO_MANY_BYTES, f"{len(data):,} bytes, more than {limits.max_bytes:,}")
    image_format = sniff.image_format(data)
    if image_format == sniff.JPEG:
        return _open_jpeg(data, limits)
    turn = 1
    if image_format == sniff.PNG:
        png = containers.read_png(data)
        _check_size(png.width, png.height, limits)
        turn = exif.orientation(png.exif)
    elif image_format == sniff.WEBP:
        _check_size(*containers.webp_size(data), limits)
    elif image_format == sniff.AVIF:
        containers.check_boxes(data)
    elif image_format == sniff.TIFF:
        plain = tiff.read(data)
        _check_size(plain.width, plain.height, limits)
        _check_size(plain.tile_width, plain.tile_height, limits, smallest=False)
        data, turn = plain.data, plain.turn
    elif image_format == sniff.GIF:
        _check_size(int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little"), limits, smallest=False)
    opened = pillow.open_image(image_format, data)
    _check_size(*opened.size, limits)
    if image_format in (sniff.WEBP, sniff.AVIF):
        turn = exif.orientation(opened.info.get("exif", b""))
    return ImageInfo(image_format, *exif.upright_size(*opened.size, turn), turn), opened


def _open_jpeg(data: bytes, limits: DecodeLimits) -> tuple[ImageInfo, JpegHeader | ImageFile]:
    head = jpeg.header(data)
    _check_size(head.width, head.height, limits)
    info = ImageInfo(sniff.JPEG, *exif.upright_size(head.width, head.height, head.turn), head.turn)
    if head.colour:
        return info, head
    if not jpeg.ends(data):  # Pillow's decoder would pad it with grey
        raise Reject(RejectCode.TRUNCATED, "JPEG without an end")
    opened = pillow.open_image(sniff.JPEG, head.data)
    _check_size(*opened.size, limits)
    return info, opened


def _check_size(width: int, height: int, limits: DecodeLimits, smallest: bool = True) -> None:
    if width * height > limits.max_pixels:
        raise Reject(RejectCode.TOO_MANY_PIXELS, f"{width} x {height}, more than {limits.max_pixels:,} pixels")
    if smallest and min(width, height) < limits.min_side_px:
        raise Reject(RejectCode.TOO_SMALL, f"{width} x {height}, a side under {limits.min_side_px}")
