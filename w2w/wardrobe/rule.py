"""The planted rule of what goes together, and outfits that keep or break it: the truth for models of outfits."""

from collections.abc import Sequence

import numpy as np

from w2w.wardrobe.garment import Garment

GO_WITH_ALL = ("black", "grey", "white", "beige")
SLOTS = ("top", "bottom", "shoes")
# each pattern as the mark of one style: stripes are sporty too, and blocks are street, but those garments then show no style
_MARKS = {
    "casual": ("stripes", "gradient"),
    "street": ("camouflage",),
    "classic": ("checks", "bars"),
    "sporty": ("blocks",),
    "romantic": ("flowers", "dots"),
}


def outfit(garments: Sequence[Garment], rng: np.random.Generator) -> list[Garment]:
    """Garments of one style, which share a hue with the first or are neutral where the shop has such: the planted rule."""
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


def goes_together(garments: Sequence[Garment]) -> bool:
    """Whether these garments, the first of which gives the hue, keep the rule."""
    first, *others = garments
    hues = (first.colour_name, *GO_WITH_ALL)
    return all(g.style == first.style and g.colour_name in hues for g in others)


def shows_style(garment: Garment) -> bool:
    """Whether its pattern is a mark of its style. Among such garments the pattern tells the style, and the rule can be seen.
    Among all it cannot: a fourth of them are solid, which four of the styles are, and three patterns belong to two styles."""
    return garment.pattern in _MARKS[garment.style]


def planted_outfits(
    garments: Sequence[Garment], count: int, copies: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(worn (count, 3), modified (count, copies, 3)): positions in ``garments`` of top, bottom and shoes.

    Worn outfits keep the rule; each modified one has two of the three slots replaced by random garments, and breaks it.
    """
    position = {g.product_id: i for i, g in enumerate(garments)}
    stock = [np.array([i for i, g in enumerate(garments) if g.category == slot]) for slot in SLOTS]
    worn = np.empty((count, len(SLOTS)), np.int64)
    modified = np.empty((count, copies, len(SLOTS)), np.int64)
    made = 0
    while made < count:
        chosen = {g.category: g for g in outfit(garments, rng)}
        whole = [chosen[s] for s in SLOTS if s in chosen]
        if len(whole) < len(SLOTS) or not goes_together(whole):
            continue
        worn[made] = [position[g.product_id] for g in whole]
        for copy in range(copies):
            modified[made, copy] = _broken(garments, worn[made], stock, rng)
        made += 1
    return worn, modified


def _broken(garments: Sequence[Garment], worn: np.ndarray, stock: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    while True:
        drawn = np.array([rng.choice(of_slot) for of_slot in stock])
        kept = int(rng.integers(len(SLOTS)))
        drawn[kept] = worn[kept]
        if not goes_together([garments[i] for i in drawn]):
            return drawn
