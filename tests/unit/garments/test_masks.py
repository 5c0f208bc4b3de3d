"""Masks: run lengths against COCO's own tools, clean-up, rejects, white ground, slots."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from w2w.errors import Reject
from w2w.garments import boxes, masks
from w2w.garments.masks import MaskRules
from w2w.wardrobe.shop import rle


@given(st.integers(0, 9), st.integers(1, 9), st.randoms(use_true_random=False))
def test_run_lengths_come_back_and_are_cocos(height, width, random):
    mask = np.array([random.random() < 0.5 for _ in range(height * width)], bool).reshape(height, width)
    packed = masks.to_rle(mask)
    assert (masks.from_rle(packed) == mask).all()
    assert (masks.from_rle(rle(mask)) == mask).all()  # the wardrobe's uncompressed ones
    if mask.size:
        assert (coco.decode({"size": packed["size"], "counts": packed["counts"].encode()}) == mask).all()


def test_long_runs():
    mask = np.zeros((1200, 800), bool)
    mask[3:900, 100:700] = True
    assert (masks.from_rle(masks.to_rle(mask)) == mask).all()
    assert len(masks.to_rle(mask)["counts"]) < 2500


@pytest.mark.parametrize("counts", ["ZZZZZ", "1", [5, -1], [3], "\x7f", "o"])
def test_run_lengths_that_lie(counts):
    with pytest.raises(ValueError, match=r"run lengths"):
        masks.from_rle({"size": [2, 2], "counts": counts})


def test_polygons_and_tight_box():
    square = masks.from_polygons([[2, 1, 6, 1, 6, 5, 2, 5]], 8, 10)
    assert masks.tight_box(square) == (2, 1, 6, 5)
    assert not masks.from_polygons([[1, 1, 2, 2]], 8, 10).any()
    assert masks.tight_box(np.zeros((3, 3), bool)) is None


def person(height=100, width=60) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[10:80, 20:40] = True
    return mask


def test_clean_fills_holes_drops_islands_and_keeps_shoes():
    mask = person()
    mask[30:32, 30:32] = False  # a hole
    mask[2, 2] = True  # an island
    mask[88:92, 22:28] = True  # a shoe, cut off by a hem
    mask[88:92, 50:56] = True  # a stranger's
    cleaned = masks.clean(mask, MaskRules(least_part=0.005), np.array([[20, 86, 30, 94]]))
    assert cleaned[30:32, 30:32].all()
    assert not cleaned[2, 2]
    assert cleaned[89, 25]
    assert not cleaned[89, 52]
    assert not masks.clean(mask, MaskRules())[89, 25]  # without its box the shoe goes too
    assert not masks.clean(np.zeros((5, 5), bool), MaskRules()).any()


@pytest.mark.parametrize(
    ("change", "scores", "code"),
    [
        ({}, (None, None), None),
        ({}, (0.9, 0.95), None),
        ({}, (0.84, 0.95), "bad_mask"),
        ({}, (0.9, 0.89), "bad_mask"),
        ({"empty": True}, (None, None), "no_person"),
        ({"small": True}, (None, None), "bad_mask"),
        ({"cropped": True}, (None, None), "cropped_person"),
    ],
)
def test_masks_nobody_should_use(change, scores, code):
    mask = person()
    if "empty" in change:
        mask[:] = False
    if "small" in change:
        mask[20:] = False
    if "cropped" in change:
        mask[:, 25:35] = True
    if code is None:
        masks.check(mask, MaskRules(), *scores)
        return
    with pytest.raises(Reject) as e:
        masks.check(mask, MaskRules(), *scores)
    assert e.value.code == code


def test_stability():
    logits = np.array([[-5, -0.5, 0.5, 5]])
    assert masks.stability(logits) == pytest.approx(1 / 3)
    assert masks.stability(np.full((2, 2), -9.0)) == 0


def test_white_ground():
    image = np.full((100, 60, 3), 10, np.uint8)
    white = masks.on_white(image, person())
    assert (white[45, 30] == 10).all()
    assert (white[:5] == 255).all()
    assert 10 < white[45, 20, 0] < 255
    assert set(np.unique(masks.on_white(image, person(), 0))) == {10, 255}


@pytest.mark.parametrize("box", [(10, 12, 45, 70), (0, 0, 30.5, 99), (18.2, 5, 60, 100), (3, 40, 4, 41)])
@pytest.mark.parametrize("feather_px", [0, 1.0, 2.5])
def test_a_crop_on_white_is_that_of_the_whole_image_on_white(box, feather_px):
    image = np.random.default_rng(0).integers(0, 256, (100, 60, 3), np.uint8)
    mask = person() ^ (np.random.default_rng(1).random((100, 60)) < 0.1)
    for padding, longest_px in ((0.0, 384), (0.2, 384), (0.1, 20)):
        whole = boxes.crop(masks.on_white(image, mask, feather_px), box, padding, longest_px)
        assert (masks.crop_on_white(image, mask, box, padding, longest_px, feather_px) == whole).all()


def test_slots_by_boxes_and_by_ratios():
    mask = person()  # rows 10 to 80, columns 20 to 40
    by_ratios = masks.slot_crops(mask, np.empty((0, 4)), [])
    assert [(c.slot, c.box, c.crop_source) for c in by_ratios] == [
        ("top", (20, 24, 40, 45), "ratios"),
        ("bottom", (20, 45, 40, 64), "ratios"),
        ("shoes", (20, 64, 40, 73), "ratios"),
    ]
    found = np.array([[21, 12, 39, 50], [22, 70, 28, 78], [30, 71, 36, 79]])
    dressed = masks.slot_crops(mask, found, ["dress", "shoes", "shoes"])
    assert [(c.box, c.crop_source) for c in dressed] == [
        ((21, 12, 39, 31), "dress"),
        ((21, 31, 39, 50), "dress"),
        ((22, 70, 36, 79), "boxes"),
    ]
    both = masks.slot_crops(mask, np.array([[20, 10, 40, 60], [20, 50, 40, 75]]), ["dress", "bottom"])
    assert [(c.box, c.crop_source) for c in both[:2]] == [((20, 10, 40, 60), "dress"), ((20, 60, 40, 68), "boxes")]
    assert both[2].box == (20, 68, 40, 73)
    shirt = masks.slot_crops(mask, np.array([[20, 10, 40, 60], [20, 12, 40, 30]]), ["dress", "top"])
    assert [(c.box, c.crop_source) for c in shirt[:2]] == [((20, 12, 40, 30), "boxes"), ((20, 30, 40, 60), "dress")]
    coat = masks.slot_crops(mask, np.array([[20, 10, 40, 70], [25, 30, 35, 78]]), ["outer", "bottom"])
    assert [c.box for c in coat[:2]] == [(20, 10, 40, 54), (25, 54, 35, 68)]
    assert masks.slot_crops(np.zeros((4, 4), bool), found, ["top"] * 3) == []


@pytest.mark.parametrize(
    ("top", "bottom", "sources"),
    [
        ([20, 10, 40, 40], [20, 17, 40, 70], ("boxes", "dress")),  # up to the chest
        ([20, 10, 40, 40], [20, 18, 40, 70], ("boxes", "boxes")),  # a high waist
        ([20, 10, 40, 70], [20, 10, 40, 70], ("dress", "dress")),  # one box said twice
    ],
)
def test_a_bottom_up_to_the_chest_is_a_dress(top, bottom, sources):
    found = masks.slot_crops(person(), np.array([top, bottom]), ["top", "bottom"])
    assert tuple(c.crop_source for c in found[:2]) == sources


BOXES = st.lists(
    st.tuples(
        st.integers(0, 50),
        st.integers(0, 90),
        st.integers(1, 50),
        st.integers(1, 90),
        st.sampled_from([*masks.SLOTS, "dress", "outer"]),
    ),
    max_size=6,
)


@settings(max_examples=200, deadline=None)
@given(BOXES)
def test_no_pixel_is_in_two_slots(garments):
    given_N4 = np.array([[x, y, x + w, y + h] for x, y, w, h, _ in garments], np.float32).reshape(-1, 4)
    mask = person()
    count = np.zeros(mask.shape, int)
    found = masks.slot_crops(mask, given_N4, [c for *_, c in garments])
    assert found
    for crop in found:
        x0, y0, x1, y1 = crop.box
        assert 0 <= x0 < x1 <= mask.shape[1]
        assert 0 <= y0 < y1 <= mask.shape[0]
        count[y0:y1, x0:x1] += 1
    assert count.max() == 1
