"""Heat drawn on pictures: unchanged where it is high, dark and grey elsewhere, so that clothes keep their colours."""

import cv2
import numpy as np
import simplejpeg

from w2w.images.resize import shrink
from w2w.models.config import Input

_DARK, _GREY = 0.3, 0.85  # of a place without heat: brightness, and the share of colour removed
_LEVEL = 0.5  # heat level of the outline
_OUTLINE, _QUALITY = (255, 196, 0), 85


def overlay(picture: np.ndarray, heat: np.ndarray, shape: Input, longest_px: int = 300) -> bytes:
    """A JPEG of the picture, uint8 (H, W, 3), at most ``longest_px`` per side, with the heat, float (h, w) in [0, 1], over the
    part that the network saw."""
    small = shrink(picture, longest_px)
    placed = on_picture(heat, small.shape[1], small.shape[0], shape)[:, :, None]
    grey = small.mean(2, keepdims=True) * _GREY + small * (1 - _GREY)
    drawn = (small * placed + grey * _DARK * (1 - placed)).round().astype(np.uint8)
    outlines, _ = cv2.findContours((placed[:, :, 0] >= _LEVEL).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(drawn, outlines, -1, _OUTLINE, 1, cv2.LINE_AA)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(drawn), _QUALITY, colorspace="RGB", colorsubsampling="444")


def on_picture(heat: np.ndarray, width: int, height: int, shape: Input) -> np.ndarray:
    """float32 (height, width): the heat at the patches' places in a picture of that size; 0 where the network saw nothing."""
    x0, y0, x1, y1 = seen_box(width, height, shape)
    rows, columns = heat.shape
    across = (np.arange(width, dtype=np.float32) + 0.5 - x0) / (x1 - x0)
    down = (np.arange(height, dtype=np.float32) + 0.5 - y0) / (y1 - y0)
    at_x, at_y = np.meshgrid((across * columns - 0.5).clip(0, columns - 1), (down * rows - 0.5).clip(0, rows - 1))
    placed = cv2.remap(heat.astype(np.float32), at_x.astype(np.float32), at_y.astype(np.float32), cv2.INTER_LINEAR)
    seen = ((down >= 0) & (down <= 1))[:, None] & ((across >= 0) & (across <= 1))[None, :]
    return np.where(seen, placed, 0).astype(np.float32)


def seen_box(width: int, height: int, shape: Input) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1, in pixels of the picture, of the square from which ``images.resize.fit`` makes the network's input;
    beyond its edges if it pads."""
    if shape.mode == "squash":
        return 0.0, 0.0, float(width), float(height)
    if shape.mode == "pad":
        side = float(max(width, height))
    else:
        side = min(width, height) * shape.size_px / max(shape.size_px, shape.resize_px)
    return (width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2
