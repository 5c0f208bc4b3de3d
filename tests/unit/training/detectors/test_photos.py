import numpy as np
import pytest

from tests.unit.training.detectors.samples import photos, row
from w2w import schema
from w2w.errors import Reject
from w2w.training.detectors.augment import UNKNOWN
from w2w.training.detectors.photos import photo_of

ROW = row(photos(1)[0], "train")


def changed(**values) -> dict:
    return ROW | {getattr(schema, k): v for k, v in values.items()}


def test_a_row_becomes_the_photo_it_was_made_of():
    photo, again = photos(1)[0], photo_of(ROW, 500)
    np.testing.assert_array_equal(again.sample.image, photo.sample.image)
    np.testing.assert_array_equal(again.sample.classes_HW, photo.sample.classes_HW)
    np.testing.assert_array_equal(again.sample.boxes_N4, photo.sample.boxes_N4)
    assert (again.key, again.source) == ("drawn/0", "drawn")


def test_boxes_and_pixels_shrink_with_the_photo():
    small = photo_of(ROW, 60).sample
    assert small.image.shape == (60, 40, 3)
    assert small.classes_HW.shape == (60, 40)
    np.testing.assert_allclose(small.boxes_N4 * 2, photos(1)[0].sample.boxes_N4)


def test_an_object_without_a_mask_is_unknown_pixels():
    top, bottom = ROW[schema.OBJECTS]
    s = photo_of(changed(OBJECTS=[top | {schema.MASK_RLE: None}, bottom]), 500).sample
    x0, y0, x1, y1 = s.boxes_N4[0].astype(int)
    assert (s.classes_HW[y0:y1, x0:x1] == UNKNOWN).all()
    assert (s.classes_HW == 2).any()


def test_an_ignored_object_is_a_region_and_unknown_pixels():
    top, bottom = ROW[schema.OBJECTS]
    s = photo_of(changed(OBJECTS=[top | {schema.IGNORE: True, schema.CATEGORY: None}, bottom]), 500).sample
    assert len(s.boxes_N4) == 1
    assert len(s.ignore_M4) == 1
    assert (s.classes_HW == UNKNOWN).sum() == 40 * 40


def test_where_a_source_does_not_label_all_classes_the_rest_is_unknown():
    s = photo_of(changed(LABELLED=["top", "bottom"]), 500).sample
    assert s.labelled.tolist() == [False, True, False, False, False, False, True]
    assert set(np.unique(s.classes_HW)) == {2, 7, UNKNOWN}


def test_a_photo_that_does_not_decode_is_a_reject():
    with pytest.raises(Reject):
        photo_of(changed(BYTES=b"<html>"), 500)
