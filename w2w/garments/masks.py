"""Masks: COCO's run lengths, clean-up, what makes one unusable, the person on white, crops of a cut-out.

A mask is bool (H, W) of the photo's size. Procedure and limits: `segment-anything` @dca509f (amg.py: remove_small_regions,
calculate_stability_score).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from pycocotools import mask as coco

from w2w.errors import Reject, RejectCode
from w2w.garments import boxes
from w2w.garments.taxonomy import BOTTOM, DRESS, OUTER, SHOES, TOP

_WHITE = 255

SLOTS = (TOP, BOTTOM, SHOES)
# shares of the height that hold each slot where no box says so: yunyounglee99/What2Wear @f233e49 (rows of height // 20: 4 to
# 12, 8 to 17, 14 to 18). There of the image, here of the mask's tight box: a figure seldom fills its photo.
SLOT_ROWS = {TOP: (0.20, 0.60), BOTTOM: (0.40, 0.85), SHOES: (0.70, 0.90)}
_SLOT_OF = {TOP: (TOP, OUTER), BOTTOM: (BOTTOM,), SHOES: (SHOES,)}


def to_rle(mask: np.ndarray) -> dict:
    """{"size": [H, W], "counts": text}: COCO's compressed run lengths, as its own tools write them."""
    found = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(s) for s in found["size"]], "counts": found["counts"].decode("ascii")}


def from_rle(rle: dict) -> np.ndarray:
    """bool (H, W) of run lengths, compressed (text) or not (a list of numbers). Raises ValueError where they do not fill it.

    Decoded here and not by pycocotools, which writes past its buffer where a file's counts promise more pixels than its size.
    """
    height, width = (int(s) for s in rle["size"])
    counts = rle["counts"]
    runs = counts if isinstance(counts, (list, tuple)) else _runs(counts if isinstance(counts, bytes) else counts.encode())
    if any(r < 0 for r in runs) or sum(runs) != height * width:
        raise ValueError(f"run lengths sum to {sum(runs):,}, the mask has {height} x {width} pixels")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape((height, width), order="F")


def _runs(text: bytes) -> list[int]:
    """Run lengths of COCO's text: 5 bits a character from 48 on, low bits first, 32 = goes on, from the third a difference to
    the last but one. Source: cocodataset/cocoapi, common/maskApi.c, rleFrString."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = character - 48
        if not 0 <= bits < 64:
            raise ValueError(f"{chr(character)!r} does not occur in COCO's run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise ValueError("COCO's run lengths end in the middle of a number")
    return runs


def from_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> np.ndarray:
    """bool (H, W): the union of polygons [x, y, x, y, ...], as COCO's tools fill them."""
    usable = [list(map(float, p)) for p in polygons if len(p) >= 6]
    if not usable:
        return np.zeros((height, width), bool)
    return coco.decode(coco.merge(coco.frPyObjects(usable, height, width))).astype(bool)


def tight_box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """The smallest box around the mask, None for an empty one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def stability(logits: np.ndarray, offset: float = 1.0) -> float:
    """IoU of the mask thresholded at +offset and at -offset: how little the threshold matters (segment-anything, amg.py)."""
    high, low = (logits > offset).sum(), (logits > -offset).sum()
    return float(high / low) if low else 0.0


def fill_holes(mask: np.ndarray, least_px: int) -> np.ndarray:
    """The mask with holes under ``least_px`` pixels filled."""
    return ~_without_small(~mask, least_px)


def keep_parts(mask: np.ndarray, least_px: int, wanted_N4: np.ndarray | None = None, keep_largest: bool = False) -> np.ndarray:
    """The mask without islands under ``least_px`` pixels.

    ``keep_largest``: of what is left only the largest island, and those with a pixel in one of the boxes ``wanted_N4`` (a shoe
    that a hem cuts off).
    """
    mask = _without_small(mask, least_px)
    if not keep_largest:
        return mask
    num, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if num <= 2:
        return mask
    kept = {1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))}
    for x0, y0, x1, y1 in np.asarray(wanted_N4 if wanted_N4 is not None else [], float).reshape(-1, 4):
        inside = labels[max(0, int(y0)) : int(np.ceil(y1)), max(0, int(x0)) : int(np.ceil(x1))]
        kept |= set(np.unique(inside).tolist()) - {0}
    return np.isin(labels, list(kept))


def _without_small(mask: np.ndarray, least_px: int) -> np.ndarray:
    num, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    big = stats[:, cv2.CC_STAT_AREA] >= least_px
    big[0] = False  # the ground
    return big[labels] if num > 1 else mask.copy()


@dataclass(frozen=True)
class MaskRules:
    """What is mended in a person's mask, and what makes it unusable."""

    least_part: float = 0.005
    """Holes and islands under this share of the mask are noise."""
    least_area: float = 0.10
    """Of the photo: a smaller mask is rejected."""
    reject_cropped: bool = True
    """Reject a mask that touches the photo's top and bottom: the person is cut off."""
    min_iou: float = 0.85
    """Predicted by the model, where it predicts it (SAM does)."""
    min_stability: float = 0.90
    """IoU of the mask at logit +1 and -1, where the model gives logits (SAM does)."""
    feather_px: float = 1.0
    """Softness of the cut-out's edge: standard deviation of the blur."""


def clean(mask: np.ndarray, rules: MaskRules, garments_N4: np.ndarray | None = None) -> np.ndarray:
    """Holes filled, islands dropped, the largest part and those with garments kept, then closed by 5 x 5."""
    least_px = max(1, round(rules.least_part * mask.sum()))
    mask = keep_parts(fill_holes(mask, least_px), least_px, garments_N4, keep_largest=True)
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    return closed.astype(bool)


def check(mask: np.ndarray, rules: MaskRules, predicted_iou: float | None, steadiness: float | None) -> None:
    """Raises Reject for a mask that nobody should use."""
    share = float(mask.mean()) if mask.size else 0.0
    if not mask.any():
        raise Reject(RejectCode.NO_PERSON, "the mask is empty")
    if predicted_iou is not None and predicted_iou < rules.min_iou:
        raise Reject(RejectCode.BAD_MASK, f"the model expects an IoU of {predicted_iou:.2f}, under {rules.min_iou:g}")
    if steadiness is not None and steadiness < rules.min_stability:
        raise Reject(RejectCode.BAD_MASK, f"stability {steadiness:.2f}, under {rules.min_stability:g}")
    if share < rules.least_area:
        raise Reject(RejectCode.BAD_MASK, f"the mask has {share:.1%} of the photo, under {rules.least_area:.0%}")
    if rules.reject_cropped and mask[0].any() and mask[-1].any():
        raise Reject(RejectCode.CROPPED_PERSON, "the mask touches the top and the bottom of the photo")


def on_white(image: np.ndarray, mask: np.ndarray, feather_px: float = 1.0) -> np.ndarray:
    """(H, W, 3) uint8: the image where the mask is, white elsewhere, the edge blurred by ``feather_px``."""
    alpha = mask.astype(np.float32)
    if feather_px > 0:
        alpha = cv2.GaussianBlur(alpha, (0, 0), feather_px)
    alpha = alpha[..., None]
    return (image * alpha + _WHITE * (1 - alpha) + 0.5).astype(np.uint8)


@dataclass(frozen=True)
class SlotCrop:
    """Where a slot of the outfit is in a cut-out, and how that is known.

    ``crop_source``: ``boxes`` (the union of the detector's boxes) or ``ratios`` (SLOT_ROWS of the mask's tight box).
    """

    slot: str
    box: tuple[int, int, int, int]
    crop_source: str


def slot_crops(mask: np.ndarray, garments_N4: np.ndarray, categories: Sequence[str]) -> list[SlotCrop]:
    """Top, bottom and shoes of the person in ``mask``: by the detector's boxes where it found them, else by published ratios.

    A dress fills top and bottom where nothing else does; shoes are the union of their boxes; of several tops, the union too (a
    shirt under a coat).
    """
    tight = tight_box(mask)
    if tight is None:
        return []
    height, width = mask.shape
    x0, y0, x1, y1 = tight
    found = []
    for slot in SLOTS:
        here = np.array([c in _SLOT_OF[slot] for c in categories], bool)
        if slot != SHOES and not here.any():
            here = np.array([c == DRESS for c in categories], bool)
        if here.any():
            union = np.asarray(garments_N4, np.float32).reshape(-1, 4)[here]
            box = boxes.pad((*union[:, :2].min(axis=0), *union[:, 2:].max(axis=0)), width, height)
            found.append(SlotCrop(slot, box, "boxes"))
        else:
            low, high = SLOT_ROWS[slot]
            rows = round(y0 + low * (y1 - y0)), round(y0 + high * (y1 - y0))
            found.append(SlotCrop(slot, boxes.pad((x0, rows[0], x1, rows[1]), width, height), "ratios"))
    return found
