"""Boxes: overlap, suppression, the box of a person, crops.

A box is (x0, y0, x1, y1) in pixels of the upright photo, x1 and y1 exclusive; arrays of them are float32 (N, 4).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from w2w.garments.taxonomy import DRESS, PERSON

# min(sides of the union) and number of garments that make a person: min214kim/25th-conference-EvenT, EmbeddingModel
_LEAST_SIDE_PX, _LEAST_GARMENTS = 100, 2


def area(boxes_N4: np.ndarray) -> np.ndarray:
    """Pixels inside, (N,); 0 for an invalid box."""
    return np.prod(np.maximum(boxes_N4[:, 2:] - boxes_N4[:, :2], 0), axis=1)


def intersection(a_N4: np.ndarray, b_M4: np.ndarray) -> np.ndarray:
    """Common pixels, (N, M)."""
    low = np.maximum(a_N4[:, None, :2], b_M4[None, :, :2])
    high = np.minimum(a_N4[:, None, 2:], b_M4[None, :, 2:])
    return np.prod(np.maximum(high - low, 0), axis=2)


def iou(a_N4: np.ndarray, b_M4: np.ndarray) -> np.ndarray:
    """Intersection over union (Jaccard 1901), (N, M); 0 where both are empty."""
    common_NM = intersection(a_N4, b_M4)
    union_NM = area(a_N4)[:, None] + area(b_M4)[None, :] - common_NM
    return np.divide(common_NM, union_NM, out=np.zeros_like(common_NM), where=union_NM > 0)


def clip(boxes_N4: np.ndarray, width: int, height: int) -> np.ndarray:
    """The part of each box inside the photo."""
    return np.clip(boxes_N4, 0, np.array([width, height, width, height], np.float32)).astype(np.float32)


def nms(
    boxes_N4: np.ndarray, scores_N: np.ndarray, max_iou: float, groups_N: Sequence | np.ndarray | None = None
) -> np.ndarray:
    """Indices of the boxes kept, best first: a box whose IoU with a better one exceeds ``max_iou`` is dropped.

    ``groups_N``: only boxes of one group suppress each other (per class); None is class-agnostic. Greedy (Felzenszwalb et al.
    2010, section 3.2.2). Ties keep their order, so the result does not depend on the machine.
    """
    order = np.argsort(-np.asarray(scores_N), kind="stable")
    overlap_NN = iou(boxes_N4, boxes_N4)
    if groups_N is not None:
        codes = np.unique(np.asarray(groups_N, str), return_inverse=True)[1]
        overlap_NN = np.where(codes[:, None] == codes[None, :], overlap_NN, 0)
    kept: list[int] = []
    for i in order:
        if not (overlap_NN[i, kept] > max_iou).any():
            kept.append(int(i))
    return np.array(kept, np.int64)


@dataclass(frozen=True)
class PersonBox:
    """A person's box and its source; ``box`` is None if there is none, and ``source`` gives the reason.

    ``person``: a person detector; ``garments``: union of two or more garments; ``dress``: one dress alone; ``few_garments``:
    fewer than two, and no dress; ``small``: a side under 100 px.
    """

    box: tuple[float, float, float, float] | None
    source: str


def person_box(boxes_N4: np.ndarray, categories: Sequence[str]) -> PersonBox:
    """The largest detected person, otherwise the union of the garments' boxes.

    Published rules: at least 2 garments, and a union of at least 100 px per side (EvenT, seed 001; its exception for a single
    dress is a dead ``pass`` there, and works here).
    """
    boxes_N4 = np.asarray(boxes_N4, np.float32).reshape(-1, 4)
    persons = np.array([c == PERSON for c in categories], bool)
    if persons.any():
        chosen, source = boxes_N4[persons][[int(np.argmax(area(boxes_N4[persons])))]], "person"
    else:
        chosen, source = boxes_N4, "garments"
        if len(boxes_N4) < _LEAST_GARMENTS:
            if list(categories) != [DRESS]:
                return PersonBox(None, "few_garments")
            source = "dress"
    (x0, y0), (x1, y1) = chosen[:, :2].min(axis=0).tolist(), chosen[:, 2:].max(axis=0).tolist()
    if min(x1 - x0, y1 - y0) < _LEAST_SIDE_PX:
        return PersonBox(None, "small")
    return PersonBox((x0, y0, x1, y1), source)


def pad(
    box: Sequence[float], width: int, height: int, left: float = 0, top: float = 0, right: float = 0, bottom: float = 0
) -> tuple[int, int, int, int]:
    """The box grown by these shares of its own sides, in whole pixels, inside the photo, at least one pixel per side."""
    x0, y0, x1, y1 = box
    w, h = x1 - x0, y1 - y0
    a, b = max(0, int(np.floor(x0 - left * w))), max(0, int(np.floor(y0 - top * h)))
    c, d = min(width, int(np.ceil(x1 + right * w))), min(height, int(np.ceil(y1 + bottom * h)))
    a, b = min(a, width - 1), min(b, height - 1)
    return a, b, max(c, a + 1), max(d, b + 1)


def crop(image: np.ndarray, box: Sequence[float], padding: float = 0.0, longest_px: int = 384) -> np.ndarray:
    """(H, W, 3) uint8 inside the box, grown by ``padding`` of its sides, shrunk to ``longest_px`` on its longer side."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = pad(box, width, height, padding, padding, padding, padding)
    piece = image[y0:y1, x0:x1]
    scale = longest_px / max(piece.shape[:2])
    if scale >= 1:
        return np.ascontiguousarray(piece)
    size = max(1, round(piece.shape[1] * scale)), max(1, round(piece.shape[0] * scale))
    cv2.setNumThreads(1)  # other workers use the other cores
    # down to a half, bilinear weights are within .5 levels of area averaging, in a fifth of the time
    return cv2.resize(piece, size, interpolation=cv2.INTER_LINEAR if scale >= 0.5 else cv2.INTER_AREA)
