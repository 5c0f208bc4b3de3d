"""Outfit metrics against values worked out by hand, and against the definition counted pair by pair."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2w.metrics import outfit


def test_fill_in_blank():
    scores = [[0.1, 0.9, 0.3, 0.2], [0.5, 0.5, 0.1, 0.5], [0.5, 0.5, 0.9, 0.1], [0.2, 0.1, -np.inf, -np.inf]]
    assert outfit.fill_in_blank(scores, [1, 3, 0, 0]).tolist() == [1, 1 / 3, 0, 1]


def test_a_constant_scorer_is_right_once_in_four():
    right = np.random.default_rng(0).integers(0, 4, 999)
    for places in (right, np.zeros(999, int)):  # shuffled answers, and the published order
        assert outfit.fill_in_blank(np.full((999, 4), 0.7), places).mean() == 0.25


def test_a_scorer_that_prefers_a_place_gains_nothing_where_answers_are_shuffled():
    right = np.random.default_rng(1).integers(0, 4, 4000)
    assert 0.22 < outfit.fill_in_blank(np.tile([3.0, 2, 1, 0], (4000, 1)), right).mean() < 0.28


def test_auc():
    assert outfit.auc([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0]) == 1
    assert outfit.auc([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1]) == 0
    assert outfit.auc([0.4, 0.9, 0.4, 0.1], [1, 1, 0, 0]) == 3.5 / 4
    assert np.isnan(outfit.auc([0.1, 0.2], [1, 1]))


@pytest.mark.parametrize("positives", [1, 37, 999])
def test_a_constant_scorer_has_half_the_area(positives):
    labels = np.arange(1000) < positives
    assert outfit.auc(np.full(1000, 0.7), labels) == 0.5
    assert outfit.auc_interval(np.full(1000, 0.7), labels, np.random.default_rng(0)) == (0.5, 0.5)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
def test_auc_is_the_share_of_pairs_in_order(rows):
    good = [s for s, label in rows if label]
    bad = [s for s, label in rows if not label]
    if good and bad:
        counted = np.mean([1.0 if g > b else 0.5 if g == b else 0.0 for g in good for b in bad])
        assert outfit.auc(*map(np.array, zip(*rows))) == pytest.approx(counted)


def test_intervals_of_the_area_cover_the_truth_about_as_often_as_they_say():
    """Scores of N(1, 1) against N(0, 1): the area is Phi(1 / sqrt(2)) = .760."""
    rng, covered = np.random.default_rng(2), 0
    for _ in range(100):
        labels = np.arange(160) < 80
        low, high = outfit.auc_interval(rng.normal(labels, 1.0), labels, rng)
        covered += low <= 0.76025 <= high
    assert 88 <= covered <= 99


def test_evaluate():
    blanks = np.array([[1.0, 0], [0, 1], [1, 1]]), np.array([0, 0, 1])
    both = np.array([0.9, 0.1, 0.5]), np.array([1, 0, 0])
    table = outfit.evaluate(blanks, both, np.random.default_rng(0)).to_pylist()
    assert [(r["metric"], r["value"], r["num_queries"]) for r in table] == [("FITB", 0.5, 3), ("AUC", 1.0, 3)]
    assert all(r["ci_low"] <= r["value"] <= r["ci_high"] for r in table)
    assert outfit.evaluate(None, None, np.random.default_rng(0)).num_rows == 0


def test_what_is_no_score_is_refused():
    with pytest.raises(ValueError, match="question 1 has a score that is not a number"):
        outfit.fill_in_blank([[1, 2], [np.nan, 1]], [0, 0])
    with pytest.raises(ValueError, match="question 0 has no score for its right answer"):
        outfit.fill_in_blank([[1, -np.inf]], [1])
    with pytest.raises(ValueError, match="right answers lie between 0 and 1, found 0 to 2"):
        outfit.fill_in_blank([[1, 2], [1, 2]], [0, 2])
    with pytest.raises(ValueError, match="question 1 has a score that is not a number"):
        outfit.auc([1, np.nan], [0, 1])
