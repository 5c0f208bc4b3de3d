"""Boxes: figures worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2w.garments import boxes
from w2w.garments.boxes import crop, iou, nms, pad, person_box

A = np.array([[0, 0, 10, 10]], np.float32)


def test_iou():
    others = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [2, 2, 4, 4], [3, 3, 3, 9]], np.float32)
    assert iou(A, others)[0] == pytest.approx([1, 1 / 3, 0, 0.04, 0])
    assert iou(others[4:], others[4:]).tolist() == [[0]]


def test_nms_with_and_without_classes():
    found = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 10, 9.5]], np.float32)
    scores = np.array([0.8, 0.9, 0.1, 0.7])
    assert nms(found, scores, 0.75).tolist() == [1, 2]
    assert nms(found, scores, 0.75, ["top", "outer", "top", "top"]).tolist() == [1, 0, 2]
    assert nms(found, scores, 0.94).tolist() == [1, 0, 2]  # the last has .947 and .95 with them
    assert nms(np.empty((0, 4), np.float32), np.empty(0), 0.5).tolist() == []


@given(st.lists(st.tuples(*[st.integers(0, 30)] * 4, st.integers(0, 5)), max_size=12))
def test_nms_keeps_no_two_that_overlap_and_drops_none_that_stands_alone(rows):
    found = np.array([(min(a, c), min(b, d), max(a, c) + 1, max(b, d) + 1) for a, b, c, d, _ in rows], np.float32).reshape(
        -1, 4
    )
    scores = np.array([r[4] for r in rows], float)
    kept = nms(found, scores, 0.5)
    overlaps = iou(found, found)
    assert all(overlaps[i, j] <= 0.5 for i in kept for j in kept if i != j)
    assert all((overlaps[i, kept] > 0.5).any() for i in range(len(rows)) if i not in kept)
    assert scores[kept].tolist() == sorted(scores[kept], reverse=True)


def test_person_box_by_the_published_rules():
    two = [[10, 0, 120, 60], [0, 50, 100, 200]]
    assert person_box(two, ["top", "bottom"]) == boxes.PersonBox((0, 0, 120, 200), "garments")
    assert person_box(two, ["top", "person"]) == boxes.PersonBox((0, 50, 100, 200), "person")
    assert person_box(two[1:], ["dress"]) == boxes.PersonBox((0, 50, 100, 200), "dress")
    assert person_box(two[1:], ["bottom"]) == boxes.PersonBox(None, "few_garments")
    assert person_box([], []) == boxes.PersonBox(None, "few_garments")
    assert person_box([[0, 0, 40, 300], [0, 0, 50, 40]], ["top", "hat"]) == boxes.PersonBox(None, "small")


def test_crops_stay_inside_and_shrink():
    assert pad((-5, 2, 8.2, 9), 10, 10, left=0.5, top=0.5) == (0, 0, 9, 9)
    assert pad((12, 12, 15, 15), 10, 10) == (9, 9, 10, 10)
    image = np.arange(1000 * 500 * 3, dtype=np.uint32).astype(np.uint8).reshape(1000, 500, 3)
    assert crop(image, (0, 0, 500, 1000)).shape == (384, 192, 3)
    small = crop(image, (10, 20, 50, 80))
    assert (small == image[20:80, 10:50]).all()
    assert crop(image, (100, 100, 200, 200), padding=0.1).shape == (120, 120, 3)
