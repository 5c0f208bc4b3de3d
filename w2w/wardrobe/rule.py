"""The planted compatibility rule."""

from collections.abc import Sequence

import numpy as np

from w2w.wardrobe.garment import Garment

GO_WITH_ALL = ("black", "grey", "white", "beige")


def outfit(garments: Sequence[Garment], rng: np.random.Generator) -> list[Garment]:
    """Garments of one style that share a hue with the first or are neutral, if the shop has such: the planted rule."""
    style = garments[int(rng.integers(len(garments)))].style
    slots = ["dress"] if rng.random() < 0.25 else ["top", "bottom"]
    slots += ["shoes"] + [s for s, p in (("outer", 0.3), ("bag", 0.45), ("hat", 0.3)) if rng.random() < p]
    chosen: list[Garment] = []
    for slot in slots:
        of_slot = [g for g in garments if g.category == slot]
        fitting = [g for g in of_slot if g.style == style] or of_slot
        near = [g for g in fitting if not chosen or g.colour_name in (chosen[0].colour_name, *GO_WITH_ALL)]
        fitting = near or fitting
        if fitting:
            chosen.append(fitting[int(rng.integers(len(fitting)))])
    return chosen
