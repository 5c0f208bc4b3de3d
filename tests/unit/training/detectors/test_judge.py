from dataclasses import replace

import numpy as np
import pytest

from tests.unit.training.detectors.samples import photos
from w2w.errors import Reject, RejectCode
from w2w.garments.detector import DetectorConfig
from w2w.garments.found import Found
from w2w.garments.taxonomy import CATEGORIES
from w2w.training.detectors.judge import GARMENT, judge, lines, measuring, precision


class Knows:
    """Finds what ``answers`` say, photo by photo."""

    labels = CATEGORIES

    def __init__(self, answers):
        self._answers = iter(answers)

    def __call__(self, images, floor):
        return [next(self._answers) for _ in images]


def figures(answers, truth) -> dict:
    judged = judge(measuring(DetectorConfig()), truth, Knows(answers))
    return {name: values["AP50"] for name, values, _ in lines(precision(judged))}


def right(photo, labels=("top", "bottom")) -> Found:
    return Found(photo.sample.boxes_N4, np.array([0.9, 0.8], np.float32), labels)


def test_who_finds_all_has_precision_1():
    truth = photos(3)
    assert figures(map(right, truth), truth) == pytest.approx({None: 1, "top": 1, "bottom": 1, GARMENT: 1})


def test_wrong_classes_are_garments_all_the_same():
    truth = photos(3)
    found = figures([right(p, ("outer", "dress")) for p in truth], truth)
    assert found == pytest.approx({None: 0, "top": 0, "bottom": 0, GARMENT: 1})


def test_a_photo_that_the_model_cannot_do_counts_as_nothing_found():
    truth = photos(2)
    found = figures([right(truth[0]), Reject(RejectCode.NOT_FINITE, "")], truth)
    assert found["top"] == pytest.approx(0.5, abs=0.01)


def test_a_source_without_all_clothes_is_not_asked_about_garments():
    truth = photos(2)
    partly = np.isin(CATEGORIES, ["top", "bottom"])
    truth = [replace(p, sample=replace(p.sample, labelled=partly)) for p in truth]
    assert GARMENT not in figures(map(right, truth), truth)
