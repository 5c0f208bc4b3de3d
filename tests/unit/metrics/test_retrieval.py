"""Metrics against values worked out by hand."""

import numpy as np
import pytest

from w2w.metrics import retrieval

RELEVANT = np.array([[1, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]], bool)
NUM_RELEVANT = np.array([2, 1, 3])


def test_recall_is_the_hit_rate():
    assert retrieval.recall_at_k(RELEVANT, 1).tolist() == [1, 0, 0]
    assert retrieval.recall_at_k(RELEVANT, 3).tolist() == [1, 1, 0]


def test_reciprocal_rank():
    assert retrieval.reciprocal_rank(RELEVANT).tolist() == [1, 1 / 3, 0]


def test_ndcg():
    ideal_of_two = 1 + 1 / np.log2(3)
    expected = [(1 + 1 / np.log2(5)) / ideal_of_two, 0.5, 0]
    assert retrieval.ndcg_at_k(RELEVANT, NUM_RELEVANT, 4) == pytest.approx(expected)
    assert retrieval.ndcg_at_k(RELEVANT, NUM_RELEVANT, 1).tolist() == [1, 0, 0]
    # a list shorter than k: what was not retrieved is missing
    assert retrieval.ndcg_at_k(np.ones((1, 2), bool), np.array([5]), 10) == pytest.approx(
        (1 + 1 / np.log2(3)) / sum(1 / np.log2(r + 1) for r in range(1, 6))
    )


def test_nearest_class_breaks_ties_by_the_nearest():
    classes = np.array([["a", "b", "b", "a"], ["c", "a", "b", ""], ["", "", "", ""]], dtype=object)
    assert retrieval.nearest_class(classes, 1).tolist() == ["a", "c", ""]
    assert retrieval.nearest_class(classes, 3).tolist() == ["b", "c", ""]
    assert retrieval.nearest_class(classes, 4).tolist() == ["a", "c", ""]


def test_evaluate_leaves_out_queries_without_an_answer():
    groups = np.array(["x", "y", "y"], dtype=object)
    table = retrieval.evaluate(RELEVANT, np.array([2, 1, 0]), groups, (1, 3), np.random.default_rng(0)).to_pylist()
    found = {(r["group"], r["metric"], r["k"]): (r["value"], r["num_queries"]) for r in table}
    assert found[None, "recall", 1] == (0.5, 2)
    assert found["y", "recall", 3] == (1.0, 1)
    assert found[None, "MRR", 0] == (pytest.approx(2 / 3), 2)
    assert all(r["ci_low"] <= r["value"] <= r["ci_high"] for r in table)


def test_a_category_called_all_is_a_category():
    truth, predicted = np.array(["all", "top", "top"], dtype=object), np.array(["top", "top", "top"], dtype=object)
    rows = retrieval.class_accuracy(truth, predicted, truth, np.random.default_rng(0)).to_pylist()
    assert [(r["group"], r["value"], r["num_queries"]) for r in rows] == [
        (None, pytest.approx(2 / 3), 3),
        ("all", 0.0, 1),
        ("top", 1.0, 2),
    ]


def test_the_gain_of_the_same_queries_is_paired():
    """Every tenth query is newly found, and none lost: means of .5 and .6 lie wide, their difference does not."""
    before, after = np.arange(200) % 2 == 0, (np.arange(200) % 2 == 0) | (np.arange(200) % 10 == 1)
    groups = np.repeat("x", 200).astype(object)
    (row,) = (
        r
        for r in retrieval.gain(before[:, None], after[:, None], groups, (1,), np.random.default_rng(0)).to_pylist()
        if (r["group"], r["metric"]) == (None, "recall")
    )
    assert row["value"] == pytest.approx(0.1)
    assert 0.05 < row["ci_low"] < 0.1 < row["ci_high"] < 0.15
    same = retrieval.gain(before[:, None], before[:, None], groups, (1,), np.random.default_rng(0)).to_pylist()
    assert {(r["value"], r["ci_low"], r["ci_high"]) for r in same} == {(0, 0, 0)}


def test_queries_of_one_group_are_drawn_together():
    values, groups = np.repeat(np.arange(40) % 2, 10).astype(float), np.repeat(np.arange(40), 10)
    alone, together = (retrieval.bootstrap(values, np.random.default_rng(0), g) for g in (None, groups))
    assert together[1] - together[0] > 2.5 * (alone[1] - alone[0])
    once = retrieval.bootstrap(values[:40], np.random.default_rng(0))
    assert retrieval.bootstrap(values[:40], np.random.default_rng(0), np.arange(40)) == once


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        low, high = retrieval.bootstrap((rng.random(150) < 0.3).astype(float), rng)
        covered += low <= 0.3 <= high
    assert 180 <= covered <= 198


def test_confusion_and_accuracy():
    truth, predicted = np.array(["a", "a", "b"], dtype=object), np.array(["a", "b", "b"], dtype=object)
    assert retrieval.confusion(truth, predicted, ["a", "b"]).tolist() == [[1, 1], [0, 1]]
    table = retrieval.class_accuracy(truth, predicted, truth, np.random.default_rng(0)).to_pylist()
    assert [(r["group"], r["value"]) for r in table] == [(None, pytest.approx(2 / 3)), ("a", 0.5), ("b", 1.0)]
