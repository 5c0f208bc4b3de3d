"""Average precision: cases worked out by hand, ignore regions, classes that a source does not label."""

import numpy as np
import pytest

from w2w.metrics.detection import Judged, average_precision

BOX = [0, 0, 100, 100]
NONE = np.empty((0, 4))
CLASSES = ("bag", "top")


def photo(truth=(), found=(), ignore=(), source="a", labelled=CLASSES) -> Judged:
    """``truth``: (box, class); ``found``: (box, class, score)."""
    return Judged(
        source,
        np.array([t[0] for t in truth]).reshape(-1, 4),
        [t[1] for t in truth],
        np.array(list(ignore)).reshape(-1, 4),
        labelled,
        np.array([f[0] for f in found]).reshape(-1, 4),
        [f[1] for f in found],
        np.array([f[2] for f in found]),
    )


def values(*photos: Judged, source=None, category=None) -> dict[str, float]:
    rows = average_precision(photos, CLASSES).to_pylist()
    return {r["metric"]: r["value"] for r in rows if (r["source"], r["category"]) == (source, category)}


def test_found_exactly_and_not_at_all():
    perfect = photo([(BOX, "top")], [(BOX, "top", 0.9)])
    assert values(perfect) == pytest.approx({"mAP": 1, "AP50": 1, "AP75": 1})
    assert values(photo([(BOX, "top")])) == {"mAP": 0, "AP50": 0, "AP75": 0}
    assert values(perfect, category="bag") == {}  # no truth, no AP
    assert values(photo())["mAP"] is None


def test_overlap_of_three_quarters_counts_up_to_its_threshold():
    # IoU = 7200 / 10000 = .72: right at .50 to .70, five thresholds of ten
    near = photo([(BOX, "top")], [([0, 0, 100, 72], "top", 0.9)])
    assert values(near) == pytest.approx({"mAP": 0.5, "AP50": 1, "AP75": 0})


def test_a_better_scored_mistake_halves_precision():
    wrong = photo([(BOX, "top")], [([200, 200, 300, 300], "top", 0.95), (BOX, "top", 0.9)])
    assert values(wrong)["AP50"] == pytest.approx(0.5)
    one_of_two = photo([(BOX, "top"), ([200, 0, 300, 100], "top")], [(BOX, "top", 0.9)])
    assert values(one_of_two)["AP50"] == pytest.approx(51 / 101)  # recall points 0, .01, ..., .50


def test_classes_are_not_mixed_and_their_mean_is_plain():
    mixed = photo([(BOX, "top"), ([200, 0, 300, 100], "bag")], [(BOX, "bag", 0.99), ([200, 0, 300, 100], "bag", 0.9)])
    assert values(mixed, category="top")["AP50"] == 0
    assert values(mixed, category="bag")["AP50"] == pytest.approx(0.5)
    assert values(mixed)["AP50"] == pytest.approx(0.25)


def test_what_is_found_in_an_ignored_region_is_no_mistake():
    suit = [200, 200, 300, 300]
    ignored = photo([(BOX, "top")], [(suit, "top", 0.99), (BOX, "top", 0.9)], ignore=[suit])
    assert values(ignored)["AP50"] == pytest.approx(1)
    part = photo([(BOX, "top")], [([210, 210, 290, 290], "top", 0.99), (BOX, "top", 0.9)], ignore=[suit])
    assert values(part)["AP50"] == pytest.approx(1)


def test_a_class_that_a_source_does_not_label_is_not_counted_there():
    tops_only = photo([(BOX, "top")], [(BOX, "top", 0.9), (BOX, "bag", 0.99)], labelled=("top",), source="deepfashion2")
    bags = photo([(BOX, "bag")], [(BOX, "bag", 0.9)], source="modanet")
    assert values(tops_only, bags)["AP50"] == pytest.approx(1)
    assert values(tops_only, bags, source="deepfashion2", category="top")["mAP"] == pytest.approx(1)
    assert values(tops_only, bags, source="deepfashion2", category="bag") == {}
    rows = average_precision([tops_only, bags], CLASSES).to_pylist()
    assert {r["source"] for r in rows} == {None, "deepfashion2", "modanet"}


def test_a_data_set_called_all_is_one():
    right = photo([(BOX, "top")], [(BOX, "top", 0.9)], source="all")
    wrong = photo([(BOX, "top")], [], source="modanet")
    assert values(right, wrong, source="all")["AP50"] == pytest.approx(1)
    assert values(right, wrong)["AP50"] < 0.6


def test_a_score_or_box_that_is_not_finite_is_refused():
    """COCO's evaluator takes a NaN for the surest of all: a perfect hit."""
    for name in ("found_scores", "found_K4", "truth_N4"):
        good = {"truth_N4": np.array([[0.0, 0, 9, 9]]), "found_K4": np.array([[0.0, 0, 9, 9]]), "found_scores": np.array([0.9])}
        good[name] = good[name] * np.nan
        photo = Judged(source="s", truth_classes=["a"], ignore_M4=np.empty((0, 4)), labelled=["a"], found_classes=["a"], **good)
        with pytest.raises(ValueError, match=f"{name} of a photo of s has NaN"):
            average_precision([photo], ["a"])
