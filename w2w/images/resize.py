"""Resizing to a model's input, antialiased as in the models' training."""

import numpy as np
from PIL import Image

from w2w.errors import UsageError

_RESAMPLE = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_MODES = ("crop", "squash", "pad")
_REDUCING_GAP = 2.0  # first by whole pixels to no less than twice the size, then antialiased
_WHITE = 255  # the background of product photos, and of decode's compositing


def fit(
    image: np.ndarray,
    size_px: int,
    mode: str = "crop",
    resample: str = "bicubic",
    resize_px: int | None = None,
) -> np.ndarray:
    """(H, W, 3) uint8 -> (size_px, size_px, 3) uint8, C-contiguous.

    ``crop``: the shorter side becomes ``resize_px`` (default ``size_px``), then centre crop; ``squash``: both sides, ignoring
    the aspect ratio; ``pad``: the longer side, centred on white. Raises UsageError for another mode or resample.

    By Pillow, since published encoders were trained on its "resize, then centre crop": on average within 0.01 levels of that,
    within 0.3 if the image shrinks 4 times or more. OpenCV's area averaging is twice as fast and 1.4 levels off.
    """
    if mode not in _MODES or resample not in _RESAMPLE:
        raise UsageError(f"fit(mode={mode!r}, resample={resample!r}): mode is one of {_MODES}, resample of {tuple(_RESAMPLE)}")
    height, width = image.shape[:2]
    if mode == "crop":
        # sizes and offsets rounded as in "resize, then centre crop", in one pass over the part that is kept
        resize_px = max(size_px, resize_px or size_px)
        scaled_width, scaled_height = (resize_px * side // min(width, height) for side in (width, height))
        left, top = round((scaled_width - size_px) / 2), round((scaled_height - size_px) / 2)
        x, y = width / scaled_width, height / scaled_height
        return _resized(image, size_px, size_px, resample, (left * x, top * y, (left + size_px) * x, (top + size_px) * y))
    if mode == "squash":
        return _resized(image, size_px, size_px, resample)
    scale = size_px / max(width, height)
    inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
    padded = np.full((size_px, size_px, 3), _WHITE, np.uint8)
    left, top = (size_px - inner_width) // 2, (size_px - inner_height) // 2
    padded[top : top + inner_height, left : left + inner_width] = _resized(image, inner_width, inner_height, resample)
    return padded


def shrink(image: np.ndarray, longest_px: int) -> np.ndarray:
    """(H, W, 3) uint8 with at most ``longest_px`` on its longer side, keeping the aspect ratio; smaller images are
    unchanged."""
    height, width = image.shape[:2]
    scale = longest_px / max(height, width)
    if scale >= 1:
        return image
    return _resized(image, max(1, round(width * scale)), max(1, round(height * scale)), "bicubic")


def _resized(
    image: np.ndarray, width: int, height: int, resample: str, box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    if box is None and image.shape[:2] == (height, width):
        return np.array(image)
    return np.array(Image.fromarray(image).resize((width, height), _RESAMPLE[resample], box=box, reducing_gap=_REDUCING_GAP))
