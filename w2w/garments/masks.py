"""Masks: COCO's run lengths, clean-up, validity checks, the person on white, crops of a cut-out.

A mask is bool (H, W) of the photo's size. Procedure and limits: `segment-anything` @dca509f (amg.py: remove_small_regions,
calculate_stability_score).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from pycocotools import mask as coco

from w2w.errors import Reject, RejectCode
from w2w.garments import boxes
from w2w.garments.taxonomy import BOTTOM, DRESS, OUTER, SHOES, TOP

_WHITE = 255
_BLURRED = 4  # how far a blur reaches, in times its pixels
# declared size of a mask, which is held in memory: more than any photo that is decoded
_MAX_PIXELS, _MAX_SIDE_PX = 1 << 26, 1 << 17
# pycocotools' polygons: it holds 80 bytes per pixel of their outline, and computes five times a coordinate in 32 bits
_MAX_OUTLINE_PX, _MAX_FAR_PX, _MAX_POLYGONS = 1 << 22, 1 << 26, 10_000
_MAX_RUN_BITS = 40

SLOTS = (TOP, BOTTOM, SHOES)
# Shares of the height for each slot without a box: yunyounglee99/What2Wear @f233e49 (rows of height // 20: 4 to 12, 8 to 17, 14
# to 18), split in the middle of the rows that two slots share. There of the image, here of the mask's bounding box, since a
# figure seldom fills its photo.
SLOT_ROWS = {TOP: (0.20, 0.50), BOTTOM: (0.50, 0.775), SHOES: (0.775, 0.90)}
_SLOT_OF = {TOP: (TOP, OUTER), BOTTOM: (BOTTOM,), SHOES: (SHOES,)}


def to_rle(mask: np.ndarray) -> dict:
    """{"size": [H, W], "counts": text}: COCO's compressed run lengths, as its own tools write them."""
    found = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(s) for s in found["size"]], "counts": found["counts"].decode("ascii")}


def from_rle(rle: dict) -> np.ndarray:
    """bool (H, W) of run lengths, compressed (text) or not (a list of numbers). Raises ValueError if they do not fill it.

    Decoded here, since pycocotools writes past its buffer if a file's counts add up to more pixels than its size.
    """
    size, counts = rle.get("size"), rle.get("counts")
    if not (isinstance(size, (list, tuple)) and len(size) == 2 and all(map(_is_count, size))):
        raise ValueError("run lengths without the mask's size [height, width]")
    height, width = _checked(*size)
    if isinstance(counts, (str, bytes)):
        runs = _runs(counts.encode("ascii") if isinstance(counts, str) else counts)
    elif isinstance(counts, (list, tuple)) and all(isinstance(r, (int, np.integer)) for r in counts):
        runs = counts
    else:
        raise ValueError("run lengths are neither COCO's text nor a list of whole numbers")
    if any(r < 0 for r in runs) or sum(runs) != height * width:
        raise ValueError(f"run lengths sum to {sum(runs):,}, the mask has {height} x {width} pixels")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape((height, width), order="F")


def _is_count(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= 0)


def _checked(height: int, width: int) -> tuple[int, int]:
    if max(height, width) > _MAX_SIDE_PX or height * width > _MAX_PIXELS:
        raise ValueError(f"a mask of {height} x {width} pixels is larger than any photo")
    return height, width


def _runs(text: bytes) -> list[int]:
    """Run lengths of COCO's text: 5 bits per character from 48 on, low bits first, 32 = continued, from the third on the
    difference to the last but one. Source: cocodataset/cocoapi, common/maskApi.c, rleFrString."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = character - 48
        if not 0 <= bits < 64:
            raise ValueError(f"{chr(character)!r} does not occur in COCO's run lengths")
        if shift > _MAX_RUN_BITS:
            raise ValueError("COCO's run lengths hold a number of more than 40 bits")
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
    """bool (H, W): the union of polygons [x, y, x, y, ...], filled as by COCO's tools; those of less than 3 points are ignored.
    Raises ValueError for an impossible mask: checked here, because pycocotools writes past its buffers."""
    _checked(height, width)
    usable = [list(map(float, p)) for p in polygons if len(p) >= 6]
    if len(usable) > _MAX_POLYGONS:
        raise ValueError(f"{len(usable):,} polygons of one object")
    outline = 0.0
    for points in usable:
        points_P2 = np.asarray(points[: len(points) // 2 * 2]).reshape(-1, 2)
        if not (np.abs(points_P2) < _MAX_FAR_PX).all():  # true for NaN as well
            raise ValueError(f"a polygon with a point {float(np.abs(points_P2).max()):g} px away from its photo")
        outline += np.abs(points_P2 - np.roll(points_P2, 1, axis=0)).max(axis=1).sum()
    if outline > _MAX_OUTLINE_PX:
        raise ValueError(f"polygons whose outline is {outline:,.0f} px long, more than {_MAX_OUTLINE_PX:,}")
    if not usable:
        return np.zeros((height, width), bool)
    return coco.decode(coco.merge(coco.frPyObjects(usable, height, width))).astype(bool)


def tight_box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """The smallest box around the mask, None for an empty one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def stability(logits: np.ndarray) -> float:
    """IoU of the mask thresholded at +1 and at -1: how little the threshold matters (segment-anything, amg.py)."""
    high, low = (logits > 1).sum(), (logits > -1).sum()
    return float(high / low) if low else 0.0


def fill_holes(mask: np.ndarray, least_px: int) -> np.ndarray:
    """The mask with holes under ``least_px`` pixels filled."""
    return ~_without_small(~mask, least_px)


def keep_parts(mask: np.ndarray, least_px: int, wanted_N4: np.ndarray | None = None, keep_largest: bool = False) -> np.ndarray:
    """The mask without islands under ``least_px`` pixels.

    ``keep_largest``: of the rest, only the largest island, and those with a pixel in one of the boxes ``wanted_N4`` (such as a
    shoe that a hem separates).
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
    big[0] = False  # the background
    return big[labels] if num > 1 else mask.copy()


@dataclass(frozen=True)
class MaskRules:
    """How a person's mask is repaired, and when it is rejected."""

    least_part: float = 0.005
    """Holes and islands under this share of the mask are noise."""
    least_area: float = 0.10
    """Reject masks that cover a smaller share of the photo."""
    reject_cropped: bool = True
    """Reject a mask that touches the photo's top and bottom: the person is cut off."""
    min_iou: float = 0.85
    """Minimum predicted IoU, if the model predicts one (SAM does)."""
    min_stability: float = 0.90
    """Minimum IoU of the mask at logits +1 and -1, if the model gives logits (SAM does)."""
    feather_px: float = 1.0
    """Softness of the cut-out's edge: standard deviation of the blur."""


def clean(mask: np.ndarray, rules: MaskRules, garments_N4: np.ndarray | None = None) -> np.ndarray:
    """Holes filled, islands dropped, the largest part and those with garments kept, then closed by 5 x 5."""
    least_px = max(1, round(rules.least_part * mask.sum()))
    mask = keep_parts(fill_holes(mask, least_px), least_px, garments_N4, keep_largest=True)
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    return closed.astype(bool)


def check(mask: np.ndarray, rules: MaskRules, predicted_iou: float | None, steadiness: float | None) -> None:
    """Raises Reject for an unusable mask."""
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


def crop_on_white(
    image: np.ndarray,
    mask: np.ndarray,
    box: Sequence[float],
    padding: float = 0.0,
    longest_px: int = 384,
    feather_px: float = MaskRules.feather_px,
) -> np.ndarray:
    """``boxes.crop`` of ``on_white``, which is computed in and about the box alone."""
    x0, y0, x1, y1 = boxes.pad(box, image.shape[1], image.shape[0], padding, padding, padding, padding)
    reach = int(np.ceil(_BLURRED * feather_px)) + 1
    left, top = max(0, x0 - reach), max(0, y0 - reach)
    near = np.s_[top : y1 + reach, left : x1 + reach]
    white = on_white(image[near], mask[near], feather_px)
    return boxes.crop(white, (x0 - left, y0 - top, x1 - left, y1 - top), longest_px=longest_px)


BOXES, RATIOS = "boxes", "ratios"
# How high a bottom's box may start before it is a dress, in heights of the top's box from its upper edge. Of 120 street photos
# with boxes for both top and bottom, 10 are under .25, and all 10 show a dress, or a knee-length coat, twice; from .3 on they
# show skirts and trousers.
_CHEST = 0.25


@dataclass(frozen=True)
class SlotCrop:
    """Where a slot of the outfit is in a cut-out, and how that is known.

    ``crop_source``: ``boxes`` (the union of the detector's boxes), ``dress`` (part of a garment that goes from the chest down
    and fills top and bottom) or ``ratios`` (SLOT_ROWS of the mask's bounding box).
    """

    slot: str
    box: tuple[int, int, int, int]
    crop_source: str


def slot_crops(mask: np.ndarray, garments_N4: np.ndarray, categories: Sequence[str]) -> list[SlotCrop]:
    """Top, bottom and shoes of the person in ``mask``: by the detector's boxes if it found them, otherwise by published ratios.

    A dress fills top and bottom if nothing else does; shoes are the union of their boxes, and so are several tops (a shirt
    under a coat). Crops share no pixel: those that overlap are cut apart (``_apart``).
    """
    tight = tight_box(mask)
    if tight is None:
        return []
    height, width = mask.shape
    x0, y0, x1, y1 = tight
    found = []
    for slot in SLOTS:
        here, source = np.array([c in _SLOT_OF[slot] for c in categories], bool), BOXES
        if slot != SHOES and not here.any():
            here, source = np.array([c == DRESS for c in categories], bool), DRESS
        if here.any():
            union = np.asarray(garments_N4, np.float32).reshape(-1, 4)[here]
            box = boxes.pad((*union[:, :2].min(axis=0), *union[:, 2:].max(axis=0)), width, height)
        else:
            low, high = SLOT_ROWS[slot]
            rows = round(y0 + low * (y1 - y0)), round(y0 + high * (y1 - y0))
            box, source = boxes.pad((x0, rows[0], x1, rows[1]), width, height), RATIOS
        found.append(SlotCrop(slot, box, source))
    return _apart(_with_dress(found))


def _with_dress(found: list[SlotCrop]) -> list[SlotCrop]:
    """A bottom that reaches up to the chest of a top is a dress, and a top with the same box is that dress too."""
    top, bottom, shoes = found
    upper, lower = top.box[1], top.box[3]
    if RATIOS in (top.crop_source, bottom.crop_source) or bottom.box[1] >= upper + _CHEST * (lower - upper):
        return found
    source = DRESS if top.box == bottom.box else top.crop_source
    return [replace(top, crop_source=source), replace(bottom, crop_source=DRESS), shoes]


def _apart(found: list[SlotCrop]) -> list[SlotCrop]:
    """Makes crops disjoint. Of two that overlap, the upper one (by its middle) keeps its rows down to its hem, since it mostly
    hangs over the lower one, but no row of the lower one's lower half; a dress is halved. A crop without a row is dropped.

    Crops that share pixels reveal that they come from one photo, whatever the clothes are. For people in randomly drawn
    garments, raw cosine recognised tops and bottoms of one photo with an AUC of .62; cut in the middle of the common rows .56,
    at the hem .52 (tests/bench/slot_overlap.py).
    """
    made = list(found)
    for i, j in itertools.combinations(range(len(made)), 2):
        if boxes.intersection(np.array([made[i].box]), np.array([made[j].box]))[0, 0] <= 0:
            continue
        upper, lower = sorted((i, j), key=lambda k: made[k].box[1] + made[k].box[3])
        (a0, b0, a1, b1), (c0, d0, c1, d1) = made[upper].box, made[lower].box
        cut = round(min(b1, max(b0, (d0 + d1) / 2)))
        made[upper], made[lower] = replace(made[upper], box=(a0, b0, a1, cut)), replace(made[lower], box=(c0, cut, c1, d1))
    return [c for c in made if c.box[1] < c.box[3]]
