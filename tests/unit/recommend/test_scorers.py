"""Scorers of pairs: trained ones say what their networks say, and what was worn is counted."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.unit.recommend.shelves import Told, shelf
from w2w.garments.taxonomy import CATEGORIES
from w2w.models.compatibility import make_scorer, outfit_scores, save_scorer
from w2w.models.options import ScorerConfig
from w2w.models.pairing import TrainedPairs
from w2w.recommend.house import House
from w2w.recommend.published import lowest_loss
from w2w.recommend.rules import OutfitConfig, Stylist
from w2w.recommend.scorers import TrainedSpace, slots_of_classes
from w2w.recommend.shelf import CODE, apply_house
from w2w.recommend.worn import Worn, WornConfig, place

SLOTS, DIM = ("top", "bottom", "shoes"), 12
CLASS = np.array([CODE[c] for c in ("top", "bottom", "shoes", "dress")] * 3, np.int8)


def trained(tmp_path, kind: str, slots=SLOTS):
    torch.manual_seed(0)
    config = ScorerConfig(kind=kind, dim=6, hidden=8, heads=2)
    network = make_scorer(DIM, len(slots), config).eval()
    save_scorer(network, tmp_path, config, DIM, slots)
    vectors = np.random.default_rng(0).normal(size=(len(CLASS), DIM)).astype(np.float32)
    one = TrainedPairs(tmp_path)
    return network, vectors, TrainedSpace(slots_of_classes(one.slots), one.place(vectors), CLASS, one.is_log)


@pytest.mark.parametrize("kind", ["pairs", "what2wear"])
def test_the_mean_of_pairs_orders_outfits_as_the_network_does(tmp_path, kind):
    network, vectors, space = trained(tmp_path, kind)
    outfits = np.array(list(itertools.product((0, 4, 8), (1, 5, 9), (2, 6, 10))))
    said = outfit_scores(network, vectors[outfits], np.tile(np.arange(3), (len(outfits), 1)))
    mine = [np.mean([space.pair(o[[i]], o[[j]])[0, 0] for i, j in ((0, 1), (0, 2), (1, 2))]) for o in outfits]
    assert np.allclose(mine, said / (3 if kind == "pairs" else 1), atol=1e-5)
    assert np.allclose(space.pair(outfits[:2, 0], outfits[:3, 2]).T, space.pair(outfits[:3, 2], outfits[:2, 0]), atol=1e-6)


def test_a_dress_goes_with_shoes_as_top_and_as_bottom(tmp_path):
    _, _, space = trained(tmp_path, "pairs")
    assert space.classes == ("bottom", "shoes", "top", "dress")
    dress, shoes = np.array([3, 7]), np.array([2, 6, 10])
    as_top, as_bottom = space.scores(dress, 0, shoes, 2), space.scores(dress, 1, shoes, 2)
    assert np.allclose(space.pair(dress, shoes), (as_top + as_bottom) / 2)
    assert not np.allclose(as_top, as_bottom)


def test_a_set_transformer_is_asked_of_the_two_alone(tmp_path):
    slots = ("all-body", "bags", "bottoms", "shoes", "sunglasses", "tops")
    network, vectors, space = trained(tmp_path, "set", slots)
    assert space.slots_of == {"bag": (1,), "bottom": (2,), "dress": (0,), "shoes": (3,), "top": (5,)}
    (said,) = outfit_scores(network, vectors[[[0, 2]]], np.array([[5, 3]]))
    assert space.pair(np.array([4, 0]), np.array([2]))[1, 0] == pytest.approx(said, abs=1e-5)


def planted(num: int, outfits: int, seed: int = 0):
    """Products of two classes in four looks each, and outfits of top and shoes whose looks are one and the next."""
    rng = np.random.default_rng(seed)
    look, class_ = np.arange(2 * num) % 4, np.repeat([CODE["top"], CODE["shoes"]], num).astype(np.int8)
    vectors = rng.normal(0, 0.2, (2 * num, DIM))
    vectors[np.arange(2 * num), look] += 2
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    tops = rng.integers(num, size=outfits)
    shoes = np.array([rng.choice(num + np.flatnonzero(look[num:] == (look[t] + 1) % 4)) for t in tops], np.int64)
    items = np.stack([tops, shoes], 1).ravel().astype(np.int64)
    return vectors, class_, look, Worn(vectors, class_, items, np.repeat(np.arange(outfits), 2))


def test_what_was_worn_together_goes_together_though_it_looks_otherwise():
    vectors, class_, look, worn = planted(40, 60)
    space = place(worn, vectors, class_, WornConfig(clusters=8))
    scores = space.pair(np.arange(40), np.arange(40, 80))
    follows = look[None, 40:] == (look[:40, None] + 1) % 4
    assert scores[follows].min() > scores[~follows].max()
    assert np.exp(scores[follows]).mean() > 0.7
    assert np.allclose(scores, space.pair(np.arange(40, 80), np.arange(40)).T, atol=1e-5)
    alone = place(planted(40, 0)[3], vectors, class_, WornConfig(clusters=8))
    alike = look[None, 40:] == look[:40, None]
    found = alone.pair(np.arange(40), np.arange(40, 80))
    assert found[alike].min() > found[~alike].max(), "without outfits looks decide"


def test_attributes_of_products_are_counted_beside_looks():
    """Looks that say nothing, and outfits of one colour: a colour that was not worn and a missing one change no score."""
    num = 40
    vectors = np.random.default_rng(0).normal(size=(2 * num, DIM)).astype(np.float32)
    colours = [None, " Red", "blue", "green", "mauve", "red ", "blue", "green"] * (2 * num // 8)
    class_ = np.repeat([CODE["top"], CODE["shoes"]], num).astype(np.int8)
    tidy = np.array([(c or "").strip().lower() for c in colours])
    tops = np.flatnonzero(np.isin(tidy[:num], ["red", "blue", "green"]))
    shoes = [next(s for s in range(num + t % 8, 2 * num) if tidy[s] == tidy[t]) for t in tops]
    items, outfits = np.stack([tops, shoes], 1).ravel().astype(np.int64), np.repeat(np.arange(len(tops)), 2)
    said = [pa.array(colours)]
    space = place(Worn(vectors, class_, items, outfits, said=said), vectors, class_, WornConfig(), said=said)
    without = place(Worn(vectors, class_, items, outfits), vectors, class_, WornConfig())
    scores, before = (s.pair(np.arange(num), np.arange(num, 2 * num)) for s in (space, without))
    one, other = tidy[:num, None], tidy[None, num:]
    worn = np.isin(one, ["red", "blue", "green"]) & np.isin(other, ["red", "blue", "green"])
    assert (scores > before)[worn & (one == other)].all()
    assert (scores < before)[worn & (one != other)].all()
    assert np.allclose(scores[~worn], before[~worn])
    assert np.allclose(scores, space.pair(np.arange(num, 2 * num), np.arange(num)).T, atol=1e-5)


def test_scores_of_the_counts_do_not_change_with_the_catalog():
    vectors, class_, _, worn = planted(40, 60)
    fewer = np.flatnonzero(np.arange(80) % 5 > 0)
    whole, part = place(worn, vectors, class_, WornConfig()), place(worn, vectors[fewer], class_[fewer], WornConfig())
    tops, shoes = (np.flatnonzero(class_[fewer] == CODE[c]) for c in ("top", "shoes"))
    assert np.allclose(part.pair(tops, shoes), whole.pair(fewer[tops], fewer[shoes]), atol=1e-6)


def test_crops_of_photos_are_compared_with_crops():
    """A shift that all crops share says nothing of what they show."""
    vectors, class_, look, worn = planted(40, 60)
    light = np.zeros(DIM, np.float32)
    light[-1] = 3
    crops = Worn(worn.vectors_UD + light, class_, worn.item_I, worn.outfit_I, of_products=False)
    scores = place(crops, vectors, class_, WornConfig(clusters=8)).pair(np.arange(40), np.arange(40, 80))
    follows = look[None, 40:] == (look[:40, None] + 1) % 4
    assert scores[follows].min() > scores[~follows].max()


def test_what2wears_own_procedure_finds_the_first_of_the_lowest_losses():
    products = [{"category": c} for c in ("top", "bottom", "shoes") for _ in range(5)]
    one, places = shelf(products), [np.arange(5 * i, 5 * i + 5) for i in range(3)]
    rng = np.random.default_rng(1)
    for scale, temperature in ((0.04, 0.07), (1.0, 0.07), (0.05, 0.07)):
        cosines = rng.uniform(-scale, scale, (15, 15))
        space = Told((cosines + cosines.T) / 2, CATEGORIES)
        stylist = Stylist(one, apply_house(House(), one), space, OutfitConfig())
        best, found, ties = np.inf, None, 0
        for rows in itertools.product(*places):  # the loops as they are published
            s = np.float64(np.mean([space.score_MM[a, b] for a, b in itertools.combinations(rows, 2)])) / temperature
            loss = max(0, 1 - s) + max(0, 0.7 - s)
            if loss < best - 1e-6:
                best, found, ties = loss, rows, 0
            ties += abs(loss - best) < 1e-6
        assert lowest_loss(stylist, places, temperature) == (found, ties)
        assert (ties > 1) == (scale == 1.0), "with large cosines many have no loss at all"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("distinct", [1, 3, 20])
def test_products_that_share_pictures_make_no_more_clusters_than_there_are_looks(distinct):
    """k-means cannot seed more clusters than there are points: it warned, and made clusters of nothing."""
    rng = np.random.default_rng(0)
    looks = rng.normal(size=(2, distinct, DIM)).astype(np.float32)
    vectors = np.concatenate([looks[i][np.arange(90) % distinct] for i in (0, 1)])
    vectors += (rng.normal(0, 1e-7, vectors.shape) * (distinct > 1)).astype(np.float32)
    classes = np.repeat([CODE["top"], CODE["shoes"]], 90).astype(np.int8)
    outfits = np.arange(90)
    worn = Worn(vectors, classes, np.concatenate([outfits, 90 + outfits]), np.tile(outfits, 2))
    space = place(worn, vectors, classes, WornConfig(clusters=8))
    used = (space.share_MK[:90] > 0).any(axis=0).sum()
    assert used == min(8, distinct)
    scores = space.pair(np.arange(90), 90 + np.arange(90))
    assert np.isfinite(scores).all()
    if distinct == 3:  # worn together: the same numbers
        same = np.equal.outer(np.arange(90) % 3, np.arange(90) % 3)
        assert scores[same].min() > scores[~same].max()
