"""Every format except JPEG (and the few JPEGs that libjpeg-turbo's simple API refuses), by Pillow's plugin classes.

The classes are called directly, not through ``Image.open``: so no other plugin is ever tried (the EPS one starts a program),
and Pillow's own pixel limit, a process-wide setting that only warns, does not apply.
"""

import struct
import warnings
from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL.ImageFile import ImageFile

from w2w.errors import Reject, RejectCode
from w2w.images import sniff

# Once, at import: Pillow warns about odd metadata from any thread, which is useless in a batch job.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_PLUGINS: dict[str, Callable[[BytesIO], ImageFile]] = {
    sniff.PNG: PngImagePlugin.PngImageFile,
    sniff.GIF: GifImagePlugin.GifImageFile,
    sniff.WEBP: WebPImagePlugin.WebPImageFile,
    sniff.AVIF: AvifImagePlugin.AvifImageFile,
    sniff.BMP: BmpImagePlugin.BmpImageFile,
    sniff.TIFF: TiffImagePlugin.TiffImageFile,
    sniff.JPEG: JpegImagePlugin.JpegImageFile,
}
_PLAIN_MODES = ("1", "L", "RGB", "RGBX", "CMYK", "YCbCr")
_ALPHA_MODES = ("P", "PA", "LA", "La", "RGBA", "RGBa")
_16_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
_STRIP_PIXELS = 1 << 22  # conversions make up to three copies: of a strip, not of the image
_CUT, _REFUSED = ("truncat", "no more images", "not enough", "end of"), ("unsupported", "not supported", "unknown pixel mode")


def open_image(image_format: str, data: bytes) -> ImageFile:
    """The image with its header read and no pixel decoded. Raises Reject."""
    try:
        return _PLUGINS[image_format](BytesIO(data))
    except Exception as e:  # on hostile bytes Pillow raises nearly every built-in exception
        raise _rejection(e) from None


def pixels(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 RGB of the first frame: 16 bits scaled to 8, transparency composited on white. Raises Reject."""
    if image.mode not in (*_16_BIT_MODES, *_ALPHA_MODES, *_PLAIN_MODES):
        raise Reject(RejectCode.UNSUPPORTED, f"{image.format} with pixels of kind {image.mode}")
    try:
        image.load()
        width, height = image.size
        rgb = np.empty((height, width, 3), np.uint8)
        rows = max(1, _STRIP_PIXELS // width)
        for top in range(0, height, rows):
            rgb[top : top + rows] = _to_rgb(image.crop((0, top, width, min(top + rows, height))) if rows < height else image)
    except Exception as e:  # as above; also MemoryError, which Pillow raises for contradictory sizes
        raise _rejection(e) from None
    return rgb


def _to_rgb(image: Image.Image) -> np.ndarray:
    transparent = image.info.get("transparency")
    if image.mode in _16_BIT_MODES:
        grey = np.asarray(image)
        grey_8 = ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
        if isinstance(transparent, int):
            grey_8 = np.where(grey == transparent, np.uint8(255), grey_8)
        return np.repeat(grey_8[..., None], 3, axis=2)
    if image.mode in _ALPHA_MODES or (transparent is not None and image.mode in _PLAIN_MODES):
        if image.mode == "RGB" and isinstance(transparent, tuple) and max(transparent) > 255:  # 16-bit PNG, already in 8
            image.info["transparency"] = tuple(v >> 8 for v in transparent)
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        return np.asarray(white)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _rejection(error: Exception) -> Reject:
    text = f"{type(error).__name__}: {error}"[:200]
    if isinstance(error, Image.DecompressionBombError):
        return Reject(RejectCode.TOO_MANY_PIXELS, text)
    ran_out = (EOFError, IndexError, struct.error)
    if any(s in text.lower() for s in _CUT) or isinstance(error, ran_out) or isinstance(error.__cause__, ran_out):
        return Reject(RejectCode.TRUNCATED, text)
    return Reject(RejectCode.UNSUPPORTED if any(s in text.lower() for s in _REFUSED) else RejectCode.CORRUPT, text)
