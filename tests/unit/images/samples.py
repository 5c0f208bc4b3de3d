"""Valid images of every format, made here, and the pieces to make hostile ones."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from w2w.errors import Reject, RejectCode
from w2w.images.decode import DecodeLimits, decode


def scene(width: int = 70, height: int = 90) -> Image.Image:
    """A gradient that is not symmetric in any direction, with some texture."""
    ys, xs = np.mgrid[0:height, 0:width]
    texture = np.random.default_rng(0).normal(0, 6, (height, width))
    channels = [
        40 + 170 * xs / width + texture,
        30 + 190 * ys / height + texture,
        200 - 150 * xs * ys / (width * height) + texture,
    ]
    return Image.fromarray(np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8))


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()


def oriented(turn: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = turn
    return exif


def corpus() -> dict[str, bytes]:
    """Name -> bytes; each has 70 x 90 pixels upright, and the name begins with the format that ``probe`` must report."""
    rgb = scene()
    palette, translucent = rgb.quantize(64), rgb.copy()
    translucent.putalpha(128)
    grey_16 = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    turned = rgb.rotate(180)
    return {
        "jpeg": encoded(rgb, "JPEG", quality=90),
        "jpeg progressive": encoded(rgb, "JPEG", progressive=True),
        "jpeg grey": encoded(rgb.convert("L"), "JPEG"),
        "jpeg cmyk": encoded(rgb.convert("CMYK"), "JPEG"),
        "jpeg exif": encoded(rgb.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=oriented(6)),
        "jpeg restart": encoded(rgb, "JPEG", restart_marker_rows=1),
        "jpeg mpo": encoded(rgb, "MPO", save_all=True, append_images=[turned]),
        "png": encoded(rgb, "PNG"),
        "png 1 bit": encoded(rgb.convert("1"), "PNG"),
        "png palette": encoded(palette, "PNG", transparency=3),
        "png rgba": encoded(translucent, "PNG"),
        "png 16 bit": encoded(grey_16, "PNG"),
        "gif animated": encoded(palette, "GIF", save_all=True, append_images=[turned]),
        "webp": encoded(rgb, "WEBP"),
        "webp lossless": encoded(translucent, "WEBP", lossless=True),
        "webp animated": encoded(rgb, "WEBP", save_all=True, append_images=[turned]),
        "avif": encoded(rgb, "AVIF"),
        "bmp": encoded(rgb, "BMP"),
        "tiff": encoded(rgb, "TIFF"),
        "tiff lzw": encoded(rgb, "TIFF", compression="tiff_lzw"),
        "tiff deflate": encoded(translucent, "TIFF", compression="tiff_adobe_deflate"),
    }


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bits: int, colour_type: int, rows: list[bytes], *more: bytes) -> bytes:
    """A PNG with exactly these rows (unfiltered), whatever its header promises; ``more`` chunks stand before them."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + pixels + png_chunk(b"IEND", b"")


def jpeg_segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def code_of(data: bytes, **limits: int) -> RejectCode | None:
    """The code that ``decode`` rejects with; None where it decodes."""
    try:
        decode(data, DecodeLimits(**limits))
    except Reject as e:
        return e.code
    return None


def hamming(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Number of bits in which int64 hashes differ; as unsigned, as bit_count of a negative number counts its absolute value."""
    return np.bitwise_count((a ^ b).view(np.uint64))
