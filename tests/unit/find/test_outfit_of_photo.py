"""`w2w recommend --photo`: the garments that the detector finds in a street photo, completed with what the shop sells."""

from pathlib import Path

import pytest
from bs4 import BeautifulSoup

import w2w
from w2w.find.rules import Garment
from w2w.garments.taxonomy import CATEGORIES
from w2w.recommend.flow_photo import wearable

NOWHERE = (0.0, 0.0, 1.0, 1.0)


def seen(**scores: float) -> list[Garment]:
    return [Garment(n, category, score, NOWHERE) for n, (category, score) in enumerate(scores.items(), 1)]


def is_whole(classes: list[str]) -> bool:
    core = {c for c in classes if c in ("top", "bottom", "dress", "shoes")}
    return core in ({"top", "bottom", "shoes"}, {"dress", "shoes"}) and len(set(classes)) == len(classes)


def test_a_photos_garments_are_completed_with_products(shop):
    sold = set(w2w.open(shop.store).table("products").polars(["product_id"])["product_id"])
    for photo in shop.photos[:2]:
        (found,) = w2w.find(photos=[photo], store=shop.store, shown=0).answers
        done = w2w.recommend(store=shop.store, photo=photo, shown=0)
        (answer,) = done.outfits
        left_out = {line.split()[2] for line in done.left_out_of_photo}
        assert {i.category for i in answer.given} | left_out == {g.category for g in found.garments}
        assert not left_out & {i.category for i in answer.given}
        for outfit in answer.outfits:
            assert is_whole([i.category for i in outfit.items])
            assert {i.category for i in answer.given} <= {i.category for i in outfit.items}
            assert all((i.product_id is None) == i.given for i in outfit.items)
            assert {i.product_id for i in outfit.items if not i.given} <= sold
        assert answer.outfits, answer.says
    chosen = next(g for g in found.garments if g.category in ("top", "dress", "bottom", "shoes"))
    done = w2w.recommend(store=shop.store, photo=photo, keep=str(chosen.number), outfit={"answers": 3})
    (answer,) = done.outfits
    assert [i.category for i in answer.given] == [chosen.category]
    assert len({o.items for o in answer.outfits}) == 3
    page = BeautifulSoup(Path(done.report).read_text(encoding="utf-8"), "html.parser")
    (crop,) = page.select(".given figure img")
    assert crop["alt"] == f"{chosen.category} of the photo"
    assert len(page.select(".look")) == 3
    with pytest.raises(w2w.UsageError, match="no garment was found of 99"):
        w2w.recommend(store=shop.store, photo=photo, keep="99")


@pytest.mark.parametrize(
    ("scores", "known", "kept"),
    [
        ({"top": 0.9, "bottom": 0.5, "shoes": 0.4}, CATEGORIES, "top bottom shoes"),
        ({"dress": 0.8, "bottom": 0.5, "top": 0.7, "shoes": 0.4}, CATEGORIES, "dress shoes"),
        ({"dress": 0.6, "bottom": 0.7, "bag": 0.9}, CATEGORIES, "bottom bag"),
        ({"dress": 0.6, "hat": 0.7}, ("top", "dress"), "dress"),
        ({"hat": 0.7, "bag": 0.7}, ("top", "dress"), "hat bag"),  # nothing else is there: the answer says what is not known
    ],
)
def test_of_a_photo_stays_what_one_outfit_can_have(scores, known, kept):
    found, told = wearable(seen(**scores), known)
    assert [g.category for g in found] == kept.split()
    out = [c for c in scores if c not in kept.split()]
    assert sorted(line.split()[2] for line in told) == sorted(out)
