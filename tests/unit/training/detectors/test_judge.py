from dataclasses import replace

import numpy as np
import pytest

from tests.unit.training.detectors.samples import photos
from w2w.errors import Reject, RejectCode
from w2w.garments.detector import DetectorConfig
from w2w.garments.found import Found
from w2w.garments.taxonomy import CATEGORIES
from w2w.metrics.detection import Judged
from w2w.training.detectors.judge import GARMENT, judge, lines, matches, measuring, precision


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


BOX, OTHER, SUIT = [0, 0, 100, 100], [200, 0, 300, 100], [400, 0, 500, 100]


def seen(truth, found, ignore=(), labelled=CATEGORIES) -> Judged:
    boxes = [np.array(b, float).reshape(-1, 4) for b in ([t[0] for t in truth], ignore, [f[0] for f in found])]
    classes = [[t[1] for t in part] for part in (truth, found)]
    return Judged("a", boxes[0], classes[0], boxes[1], labelled, boxes[2], classes[1], np.array([f[2] for f in found]))


def test_precision_and_recall_above_a_threshold():
    one = seen(
        [(BOX, "top"), (OTHER, "bag")],
        [
            (BOX, "top", 0.9),
            ([0, 0, 100, 90], "top", 0.8),  # the same top again
            (OTHER, "hat", 0.7),  # another class
            ([200, 0, 300, 80], "bag", 0.4),
            ([410, 10, 490, 90], "dress", 0.6),  # in a region to ignore
        ],
        ignore=[SUIT],
    )
    nothing = seen([(BOX, "shoes")], [])
    found = matches([one, nothing], None)
    assert (found.scores_F.tolist(), found.right_F.tolist()) == ([0.9, 0.8, 0.7, 0.4], [True, False, False, True])
    assert found.at(0.85) == (1.0, pytest.approx(1 / 3))
    assert found.at(0.4) == (0.5, pytest.approx(2 / 3))
    assert found.at(0.95) == (None, 0.0)
    # boxes of two classes that overlap suppress each other, as `w2w detect` has it
    assert matches([one], 0.75).scores_F.tolist() == [0.9, 0.7]
    assert matches([seen([], [(BOX, "hat", 0.9)], labelled=["top"])], None).scores_F.tolist() == []


def test_the_threshold_with_the_best_f1_is_chosen():
    truth = [(BOX, "top"), (OTHER, "bag")]
    sure = [(BOX, "top", 0.61), (OTHER, "bag", 0.37)]
    found = matches([seen(truth, [*sure, (SUIT, "hat", 0.2)])], None)
    assert found.best_threshold() == 0.37
    assert matches([seen(truth, [(SUIT, "hat", 0.9)])], None).at(0.5) == (0.0, 0.0)
