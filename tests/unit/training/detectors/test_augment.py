import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.training.detectors.samples import sample
from w2w.garments.masks import tight_box
from w2w.training.detectors.augment import AugmentConfig, augment, cut, place

PLAIN = AugmentConfig(colour=0, blur=0, erase=0)
TWO = ([(10, 20, 50, 60), (20, 62, 45, 110)], [6, 1])


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(96, 64), (64, 96), (160, 96)]))
def test_boxes_and_pixels_go_together(seed: int, canvas: tuple[int, int]):
    seen = augment(sample(*TWO), *canvas, PLAIN, np.random.default_rng(seed))
    assert seen.image.shape == (*canvas, 3)
    assert seen.classes_HW.shape == canvas
    for box, label in zip(seen.boxes_N4, seen.labels_N):
        assert np.abs(np.array(tight_box(seen.classes_HW == label + 1)) - box).max() <= 1.01
        x0, y0, x1, y1 = (box + (2, 2, -2, -2)).astype(int)
        if x1 > x0 and y1 > y0:  # the very colours of the drawing
            assert np.abs(seen.image[y0:y1, x0:x1].astype(int) - (30 * label, 255 - 30 * label, 90)).max() <= 1
    assert len(seen.boxes_N4) + len(seen.ignore_M4) <= 2


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_light_moves_no_box(seed):
    lit = AugmentConfig(colour=1, blur=1, erase=1)
    boxes = [augment(sample(*TWO), 96, 64, c, np.random.default_rng(seed)).boxes_N4 for c in (lit, PLAIN)]
    np.testing.assert_array_equal(*boxes)


def test_the_same_seed_gives_the_same_photo():
    a, b = (augment(sample(*TWO), 96, 64, AugmentConfig(), np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(a.image, b.image)


def test_mirrored_twice_is_the_photo_itself():
    once = place(sample(*TWO), 120, 80, (1, 1), (0, 0), True)
    twice = place(once, 120, 80, (1, 1), (0, 0), True)
    np.testing.assert_array_equal(twice.image, sample(*TWO).image)
    np.testing.assert_array_equal(twice.boxes_N4, sample(*TWO).boxes_N4)
    assert once.boxes_N4[0].tolist() == [30, 20, 70, 60]


@pytest.mark.parametrize(("shift", "boxes", "ignored"), [(-29, 2, 0), (-40, 0, 2), (-60, 0, 0)])
def test_what_is_mostly_cut_off_is_ignored_and_what_is_gone_is_gone(shift, boxes, ignored):
    seen = cut(place(sample([(10, 20, 50, 60), (10, 62, 50, 110)], [6, 1]), 120, 80, (1, 1), (shift, 0), False), 0.4)
    assert (len(seen.boxes_N4), len(seen.ignore_M4)) == (boxes, ignored)


def test_a_photo_is_drawn_between_the_smallest_and_the_largest_scale():
    config = AugmentConfig(smaller=0.5, larger=0.8, stretch=0, flip=0, colour=0, blur=0, erase=0)
    box = (20, 30, 60, 80)
    sizes = []
    for seed in range(30):
        placed = augment(sample([box], [1], 120, 80), 240, 160, config, np.random.default_rng(seed)).boxes_N4
        sizes.append((placed[0, 2] - placed[0, 0]) / (box[2] - box[0]) / 2)  # the canvas is twice the photo
    assert 0.49 < min(sizes) < 0.6
    assert 0.7 < max(sizes) < 0.81
