"""The person of a photo: which prompts to give a segmenter, and which of its masks make up the person.

Procedure: a box prompt without multimask and with points on the clothes; shoes, bags and hats that touch the person are added.
On top of segment-anything @dca509f.
"""

from collections.abc import Sequence

import numpy as np

from w2w.errors import Reject, RejectCode
from w2w.garments import boxes, masks
from w2w.garments.boxes import PersonBox
from w2w.garments.masked import Masked, Prompt, Segmenter
from w2w.garments.masks import MaskRules
from w2w.garments.taxonomy import BAG, HAT, PERSON, SHOES

# A union of garments has no head and no hands: how much a box grows to the left, top, right, bottom, in shares of its sides.
# Measured with one guided look of u2netp averaged with the whole photo's on 100 street photos for training (alone .952): (.2
# .22 .2 .05) IoU .958, (.4 .25 .4 .08) .955, (.8 .3 .8 .1) .952.
_AROUND = {"garments": (0.20, 0.22, 0.20, 0.05), "dress": (0.20, 0.30, 0.20, 0.30), "person": (0.07, 0.07, 0.07, 0.07)}
_NEAR = 0.05  # of the person's box: a shoe, bag or hat within it belongs to the person
_CARRIED = (SHOES, BAG, HAT)


def person_prompts(
    person: PersonBox, garments_N4: np.ndarray, categories: Sequence[str], width: int, height: int, with_parts: bool
) -> list[Prompt]:
    """The prompts: the person (with a point on each piece of clothing), then each shoe, bag and hat that touches."""
    if person.box is None:
        return []
    around = boxes.pad(person.box, width, height, *_AROUND[person.source])
    if not with_parts:
        return [Prompt(_floats(around))]
    near = np.array([boxes.pad(around, width, height, *[_NEAR] * 4)], np.float32)
    touching = boxes.intersection(near, np.asarray(garments_N4, np.float32).reshape(-1, 4))[0] > 0
    points, parts = [], []
    for box, category, touches in zip(np.asarray(garments_N4, float).reshape(-1, 4).tolist(), categories, touching):
        if category == PERSON or not touches:
            continue
        if category in _CARRIED:
            parts.append(Prompt(tuple(box)))
        else:
            points.append(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
    return [Prompt(_floats(around), tuple(points)), *parts]


def person_mask(
    segmenter: Segmenter,
    image: np.ndarray,
    garments_N4: np.ndarray,
    categories: Sequence[str],
    person: PersonBox,
    rules: MaskRules,
) -> Masked:
    """The person's mask, cleaned. Raises Reject if nobody was found, or the mask is unusable (``masks.check``)."""
    height, width = image.shape[:2]
    prompts = person_prompts(person, garments_N4, categories, width, height, segmenter.needs_box)
    if segmenter.needs_box and not prompts:
        raise Reject(RejectCode.NO_PERSON, f"no person's box to cut out ({person.source})")
    found = segmenter(image, prompts)
    mask = found[0].mask.copy()
    for part in found[1:]:
        mask |= part.mask
    worn = np.asarray(garments_N4, np.float32).reshape(-1, 4)
    mask = masks.clean(mask, rules, worn if prompts else None)
    masks.check(mask, rules, found[0].score, found[0].stability)
    return Masked(mask, found[0].score, found[0].stability)


def _floats(box: Sequence[float]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = map(float, box)
    return x0, y0, x1, y1
