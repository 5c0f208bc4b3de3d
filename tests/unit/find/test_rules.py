"""Which garments are asked for, how lists of hits become one, and what is said."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2w.errors import UsageError
from w2w.find.rules import FindOptions, best_of, garments_of, pictures_of, said_of, with_words
from w2w.garments.found import Found


def found(*rows: tuple[str, float, float]) -> Found:
    """Class, score and upper edge of each."""
    boxes = np.array([[10, top, 50, top + 20] for _, _, top in rows], np.float32).reshape(-1, 4)
    names = tuple(name for name, _, _ in rows)
    return Found(boxes, np.array([score for _, score, _ in rows], np.float32), names, names)


PHOTO = found(("shoes", 0.9, 90), ("top", 0.5, 20), ("top", 0.6, 30), ("person", 0.99, 0), ("hat", 0.4, 1), ("shoes", 0.8, 91))


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, [(1, "hat"), (2, "top"), (3, "shoes")]),
        ({"per_class": 2}, [(1, "hat"), (2, "top"), (3, "top"), (4, "shoes"), (5, "shoes")]),
        ({"garment": "top"}, [(2, "top")]),
        ({"garment": "3, hat"}, [(1, "hat"), (3, "shoes")]),
        ({"garment": "bag,7"}, []),
    ],
)
def test_garments_are_numbered_from_the_top_down(options, wanted):
    assert [(g.number, g.category) for g in garments_of(PHOTO, FindOptions(**options))] == wanted


@pytest.mark.parametrize(
    ("options", "with_pixels", "without"),
    [
        ({}, "garment", ""),
        ({"cut_out": True}, "both", "both"),
        ({"cut_out": False}, "", ""),
        ({"cut_out_by": "person"}, "person", "person"),
        ({"cut_out": True, "cut_out_by": "garment"}, "garment", "garment"),
        ({"whole": True}, "", ""),
    ],
)
def test_who_cuts_out(options, with_pixels, without):
    for tells_pixels, by in ((True, with_pixels), (False, without)):
        decided = FindOptions(**options).decided(tells_pixels)
        assert (decided.cut_out, decided.cut_out_by) == (bool(by), by)
        assert (decided.by_garment, decided.by_person) == (by in ("garment", "both"), by in ("person", "both"))
        assert decided.decided(not tells_pixels) == decided


def test_of_a_class_the_surest_counts():
    (top,) = garments_of(PHOTO, FindOptions(garment="top"))
    assert (top.score, top.box) == (pytest.approx(0.6), (10, 30, 50, 50))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": 0}, "--k=0: must be at least 1"),
        ({"per_class": 0}, "--per_class=0"),
        ({"text_weight": 1.5}, "--text_weight=1.5: a number between 0 and 1"),
        ({"min_score": 2}, "--min_score=2: a number between -1 and 1"),
        ({"garment": "tops"}, "'tops' is neither a class nor a number. Did you mean 'top'?"),
        ({"garment": "trousers"}, "'trousers' is neither a class nor a number. Did you mean 'bottom'?"),
        ({"whole": True, "garment": "top"}, "--whole searches with the unchanged photo"),
        ({"whole": True, "cut_out": True}, "--whole searches with the unchanged photo"),
        ({"whole": True, "cut_out_by": "garment"}, "--whole searches with the unchanged photo"),
        ({"cut_out": False, "cut_out_by": "person"}, "--cut_out=false cuts nothing out: omit --cut_out_by=person"),
        ({"cut_out": True, "cut_out_by": "mask"}, "--cut_out_by=mask: must be one of garment, person, both"),
    ],
)
def test_options_that_cannot_be(options, said):
    with pytest.raises(UsageError) as error:
        FindOptions(**options)
    assert said in str(error.value)


def hit(product: str, score: float, picture: str = "") -> dict:
    return {"product_id": product, "image_id": picture or product, "score": score, "category": "top", "rank": 0}


@given(st.integers(1, 5), st.lists(st.lists(st.integers(0, 30), min_size=12, max_size=12), min_size=1, max_size=3))
def test_the_best_of_lists_is_the_best_of_all(k, scores):
    """Of 12 products with a picture each, scored by every crop: the k of greatest maximum, from lists of k alone."""
    ranked = [
        sorted((hit(f"p{i:02}", s) for i, s in enumerate(of_crop)), key=lambda h: (-h["score"], h["product_id"]))
        for of_crop in scores
    ]
    best = best_of([some[:k] for some in ranked], k)
    greatest = {f"p{i:02}": max(of_crop[i] for of_crop in scores) for i in range(12)}
    assert [h["score"] for h in best] == sorted(greatest.values(), reverse=True)[:k]
    assert all(greatest[h["product_id"]] == h["score"] for h in best)
    assert [h["rank"] for h in best] == list(range(1, k + 1))


def test_a_picture_is_shown_once():
    hits = [hit("a", 0.9, "x"), hit("b", 0.9, "x"), hit("c", 0.8), hit("d", 0.7, "x")]
    assert [(h["product_id"], h["same_picture"]) for h in pictures_of(hits)] == [("a", ["b", "d"]), ("c", [])]
    assert [h["product_id"] for h in best_of([hits], 2)] == ["a", "c"]
    assert [h["product_id"] for h in best_of([hits], 2, 0.85)] == ["a"]
    assert best_of([[]], 3) == []


def test_words_and_photo_are_mixed_by_weight():
    photo, words = np.array([[1.0, 0.0]], np.float32), np.array([0.0, 1.0], np.float32)
    assert with_words(photo, words, 0.0).tolist() == [[1.0, 0.0]]
    assert with_words(photo, words, 1.0).tolist() == [[0.0, 1.0]]
    np.testing.assert_allclose(with_words(photo, words, 0.25), np.array([[3, 1]]) / np.sqrt(10), rtol=1e-6)
    assert not np.isnan(with_words(photo, -photo[0], 0.5)).any()  # they cancel out


@pytest.mark.parametrize(
    ("category", "hits", "options", "says"),
    [
        ("bag", None, {}, "you sell no bags"),
        ("outer", None, {}, "you sell no outerwear"),
        ("shoes", None, {}, "you sell no shoes"),
        ("top", [hit("a", 1)], {}, None),
        ("top", [], {"min_score": 0.9}, "no product scores 0.9 or more"),
        ("top", [], {"filter": {"brand": "x"}, "min_score": 0.9}, "no product passes the filter"),
        (None, [], {}, "no product was found"),
    ],
)
def test_what_is_said(category, hits, options, says):
    assert said_of(category, hits, FindOptions(**options)) == says
