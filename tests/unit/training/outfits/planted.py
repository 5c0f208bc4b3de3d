"""Outfits of the synthetic shop with the planted rule, as arrays; and how well the rule can be seen at all."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from w2w.models.config import EncoderConfig
from w2w.models.encoder import load_encoder
from w2w.training.outfits.arrays import WORN, Outfits, Questions
from w2w.wardrobe.garment import PATTERNS, STYLES, Garment, make_garment
from w2w.wardrobe.photo import thumbnail
from w2w.wardrobe.rule import GO_WITH_ALL, outfit

SLOTS = ("top", "bottom", "shoes")
# each pattern as the mark of one style: stripes are sporty too, and blocks are street, but those garments then show no style
_MARKS = {
    "casual": ("stripes", "gradient"),
    "street": ("camouflage",),
    "classic": ("checks", "bars"),
    "sporty": ("blocks",),
    "romantic": ("flowers", "dots"),
}
_SIZE_PX, _BATCH = 224, 32


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


def garments(seed: int, num_per_slot: int, only_telling: bool = False) -> list[Garment]:
    """Tops, bottoms and shoes of a shop of their own: shops of two seeds share no product."""
    made = (make_garment(seed, i) for i in range(7 * num_per_slot))
    return [g for g in made if g.category in SLOTS and (shows_style(g) or not only_telling)]


def vectors(chosen: Sequence[Garment], cache: Path | None = None, config: EncoderConfig = EncoderConfig()) -> np.ndarray:
    """float32 (N, D): the encoder's vectors of the garments' thumbnails."""
    if cache and cache.exists():
        return np.load(cache)
    encoder, found = load_encoder(config), []
    for start in range(0, len(chosen), _BATCH):
        pictures = [thumbnail(g, _SIZE_PX) for g in chosen[start : start + _BATCH]]
        found.append(encoder.encode(np.stack([encoder.prepare(p) for p in pictures])))
    if cache:
        np.save(cache, np.concatenate(found))
    return np.concatenate(found)


def outfits(chosen: Sequence[Garment], vectors_ND: np.ndarray, count: int, copies: int, seed: int) -> Outfits:
    worn, modified = planted_outfits(chosen, count, copies, np.random.default_rng(seed))
    items = np.concatenate([worn, modified.reshape(-1, 3)])
    made_of = np.concatenate([np.full(count, WORN), np.repeat(np.arange(count), copies)])
    return Outfits(vectors_ND, items, np.tile(np.arange(3), (len(items), 1)), made_of, SLOTS)


def rule_blanks(chosen: Sequence[Garment], made: Outfits, seed: int) -> Questions:
    """A question for each worn outfit, of four answers, of which the wrong ones break the rule."""
    rng = np.random.default_rng(seed)
    stock = [np.array([i for i, g in enumerate(chosen) if g.category == slot]) for slot in SLOTS]
    asked = np.repeat(made.items_OS[made.worn][:, None], 4, axis=1)
    right = rng.integers(4, size=len(asked))
    for answers, place in zip(asked, right):
        blank = int(rng.integers(3))
        for a in range(4):
            while a != place and (
                (answers[a, blank] == answers[place, blank]) or goes_together([chosen[i] for i in answers[a]])
            ):
                answers[a, blank] = rng.choice(stock[blank])
    return Questions(asked, np.broadcast_to(np.arange(3), asked.shape).copy(), right)


def seen_scores(chosen: Sequence[Garment], items_N3: np.ndarray) -> np.ndarray:
    """Log-odds that outfits were worn, to somebody who knows the shop and sees each garment's pattern and colour without error
    but not its style: no model of pictures can do better. Counted from ``chosen``; -inf where the colours break the rule."""
    patterns = np.array([PATTERNS.index(g.pattern) for g in chosen])
    of_style = np.array([STYLES.index(g.style) for g in chosen])
    slot = np.array([SLOTS.index(g.category) for g in chosen])
    colours = np.array([g.colour_name for g in chosen])
    counts = np.zeros((3, len(STYLES), len(PATTERNS)))
    np.add.at(counts, (slot, of_style, patterns), 1)
    joint = counts / counts.sum(axis=(1, 2), keepdims=True)
    styles = joint.sum(axis=2)  # (slot, style)
    result = np.empty(len(items_N3))
    near = {c: np.isin(colours, [c, *GO_WITH_ALL]).mean() for c in np.unique(colours)}
    for n, row in enumerate(items_N3):
        first, *others = (colours[i] for i in row)
        if not all(c in (first, *GO_WITH_ALL) for c in others):
            result[n] = -np.inf
            continue
        given = [joint[s, :, patterns[i]] / styles[s] for s, i in enumerate(row)]  # P(pattern | style)
        marginal = np.prod([joint[s, :, patterns[i]].sum() for s, i in enumerate(row)])
        worn = (styles[0] * given[0] * given[1] * given[2]).sum() / near[first] ** 2
        one_style = np.prod([joint[s, :, patterns[i]] for s, i in enumerate(row)], axis=0).sum() / marginal
        with np.errstate(divide="ignore"):
            result[n] = np.log(worn) - np.log(marginal * max(1 - one_style, 1e-9))
    return result
