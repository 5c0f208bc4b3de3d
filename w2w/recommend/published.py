"""What2Wear's own procedure: every combination of the available items, and the one with the lowest loss.

Source: yunyounglee99/What2Wear @f233e49, what2wear_recsys/recommendation_model.py, ``_find_best_items``: in loops over tops,
bottoms and shoes a combination replaces the best one if its loss is lower, so that the first of equal ones stays. The loss is
that of training, of the outfit as worn and as modified: relu(1 - s) + relu(t - s) + .01 |W|, s being the mean cosine of its
pairs over the temperature. There a ``return`` inside a loop makes s that of top and bottom alone, so that all shoes are equally
good; here it is of all three pairs, as its text says. The loss is the same for all with s above 1 and t, that is, cosines above
the temperature: then the procedure finds the first of these, and ``ties`` gives their number.
"""

from collections.abc import Sequence

import numpy as np

from w2w.errors import UsageError
from w2w.garments.taxonomy import BOTTOM, SHOES, TOP
from w2w.models.pairing import TrainedPairs
from w2w.recommend.answers import Answer, answer_of_rows
from w2w.recommend.rules import Stylist
from w2w.recommend.shelf import CODE

_THRESHOLD = 0.7  # configs/train.yaml
_MOST = 4_000_000_000  # combinations: about a minute


def published(stylist: Stylist, given: Sequence[int], trained: TrainedPairs | None) -> tuple[Answer, int, int]:
    """The outfit, the number of combinations, and how many of them have its loss. Products are in the order of their ids.

    Raises UsageError for another scorer, for an outfit other than top, bottom and shoes, and for too many combinations.
    """
    if trained is None or trained.kind != "what2wear":
        raise UsageError(
            "--published: needs --scorer=FOLDER of 'w2w train outfits --outfits.loss=what2wear', not another scorer"
        )
    classes = {stylist.category(row): row for row in given}
    if set(classes) - {TOP, BOTTOM, SHOES} or len(classes) < len(given):
        raise UsageError("--published: completes top, bottom and shoes, of which one or two different ones are given")
    places = []
    for place in (TOP, BOTTOM, SHOES):
        stock = np.flatnonzero(stylist.shelf.class_N == CODE[place])
        places.append(np.array([classes[place]]) if place in classes else stock)
    combinations = int(np.prod([len(rows) for rows in places], dtype=object))
    if not combinations:
        raise UsageError("--published: the catalog lacks tops, bottoms or shoes")
    if combinations > _MOST:
        raise UsageError(f"--published: {combinations:,} combinations are too many; give two items, or fewer products")
    rows, ties = lowest_loss(stylist, places, trained.temperature)
    return answer_of_rows(stylist, given, rows), combinations, ties


def lowest_loss(stylist: Stylist, places: Sequence[np.ndarray], temperature: float) -> tuple[tuple[int, int, int], int]:
    """The first combination of tops, bottoms and shoes with the lowest loss, and how many share that loss."""
    tops, bottoms, shoes = places
    bottom_shoes = stylist.pair(bottoms, shoes)
    top_bottom, top_shoes = stylist.pair(tops, bottoms), stylist.pair(tops, shoes)
    best, found, ties = np.inf, (0, 0, 0), 0
    for t in range(len(tops)):
        s = (top_bottom[t][:, None] + top_shoes[t][None] + bottom_shoes) / (3 * temperature)
        loss = np.maximum(1 - s, 0) + np.maximum(_THRESHOLD - s, 0)
        lowest = float(loss.min())
        if lowest < best:
            b, shoe = np.unravel_index(int(loss.argmin()), loss.shape)
            best, found, ties = lowest, (int(tops[t]), int(bottoms[b]), int(shoes[shoe])), 0
        ties += int((loss == best).sum())
    return found, ties
