"""The wardrobe's planted rule, by the scorer that is not trained: as tests/bench/recommend_rule.py, of a smaller shop."""

import numpy as np
import pytest

from tests.bench.recommend_rule import Knows, keeps_rule, kept, kept_by_product, said_of, shelf_of, worn_of
from tests.unit.recommend.shelves import random_space
from tests.unit.training.outfits.planted import garments, vectors
from w2w.recommend.house import House
from w2w.recommend.rules import OutfitConfig, Stylist, chance
from w2w.recommend.shelf import CODE, apply_house
from w2w.recommend.worn import WornConfig, place


@pytest.mark.slow
def test_what_was_worn_beats_chance_and_so_do_looks_alone():
    chosen = garments(12, 150, only_telling=True)
    found, one = vectors(chosen), shelf_of(chosen)
    stylist = Stylist(one, apply_house(House(), one), random_space(len(one), 0), OutfitConfig())
    asked = np.random.default_rng(0).choice(len(chosen), 100, replace=False)
    drawn = [keeps_rule(chosen, r) for i in asked for r in chance(stylist, [int(i)], 50, np.random.default_rng(int(i)))]
    by_chance = float(np.mean(drawn))
    classes = np.array([CODE[g.category] for g in chosen], np.int8)
    told = {n: kept(chosen, place(worn_of(chosen, found, n), found, classes, WornConfig()), asked, 5) for n in (0, 20, 600)}
    print(f"chance {by_chance:.4f}, outfits known -> share that keeps the rule {told}")
    assert 0.002 < by_chance < 0.02
    assert told[0] > 5 * by_chance
    assert told[0] < told[20] < told[600]
    assert told[600] > 0.35


@pytest.mark.slow
def test_what_the_feed_says_of_style_and_colour_keeps_the_rule():
    """Of the products for which an outfit that keeps it exists."""
    chosen = garments(12, 150, only_telling=True)
    found, classes = vectors(chosen), np.array([CODE[g.category] for g in chosen], np.int8)
    able = [i for i, one in enumerate(kept_by_product(chosen, Knows(chosen), range(len(chosen)), 1)) if len(one) and one.all()]
    assert len(able) > 100
    worn = worn_of(chosen, found, 4000, with_attributes=True)
    space = place(worn, found, classes, WornConfig(), said=said_of(chosen))
    share = kept(chosen, space, able, 1)
    print(f"{len(able)} products: {share:.3f} of the best outfits keep the rule")
    assert share >= 0.95
