"""The thumbnail classifier: learns what can be learned, is calibrated, is saved and refused, and classifies rows."""

import json

import numpy as np
import pyarrow as pa
import pytest

from w2w import schema
from w2w.errors import UsageError
from w2w.garments import classifier as heads
from w2w.garments.classifier import LABELS, Classify, HeadConfig, best_temperature, calibration_error, softmax

DIM = 12


def examples(num: int, noise: float, labels=("bag", "shoes", "top"), seed: int = 0) -> tuple[np.ndarray, list[str], list[str]]:
    """Unit vectors around one centre a class; keys."""
    rng = np.random.default_rng(seed)
    centres_CD = np.random.default_rng(99).normal(size=(len(LABELS), DIM))
    names = [labels[i % len(labels)] for i in range(num)]
    vectors_ND = centres_CD[[LABELS.index(n) for n in names]] + noise * rng.normal(size=(num, DIM))
    return (
        (vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)).astype(np.float32),
        names,
        [f"p{i}" for i in range(num)],
    )


@pytest.mark.parametrize("hidden", [0, 16])
def test_classes_that_can_be_told_apart_are(hidden):
    trained = heads.train(*examples(400, 0.3), "enc", HeadConfig(hidden=hidden, epochs=100))
    assert (trained.truth_N == trained.predicted_N).mean() > 0.97
    assert trained.classifier.labels == ("bag", "shoes", "top")
    assert sum(trained.num_examples.values()) == 400
    again = heads.train(*examples(400, 0.3), "enc", HeadConfig(hidden=hidden, epochs=100))
    assert again.classifier.model_version == trained.classifier.model_version


def test_calibration():
    rng = np.random.default_rng(0)
    logits_NC = rng.normal(size=(4000, 3)) * 2
    codes_N = np.array([rng.choice(3, p=p) for p in softmax(logits_NC)])
    assert best_temperature(logits_NC, codes_N) == pytest.approx(1, abs=0.12)
    assert best_temperature(3 * logits_NC, codes_N) == pytest.approx(3, abs=0.36)  # too sure by 3
    assert calibration_error(softmax(logits_NC), codes_N) < 0.03
    assert calibration_error(softmax(3 * logits_NC), codes_N) > 0.1
    perfect = np.array([[0.75, 0.25]] * 4)
    assert calibration_error(perfect, np.array([0, 0, 0, 1])) == pytest.approx(0)
    assert calibration_error(perfect, np.array([0, 0, 0, 0])) == pytest.approx(0.25)


def test_what_is_saved_is_what_was_trained(tmp_path):
    trained = heads.train(*examples(200, 0.5), "enc", HeadConfig(hidden=8, epochs=30))
    heads.save(trained.classifier, str(tmp_path), {"accuracy": 0.9})
    loaded = heads.load(str(tmp_path))
    vectors_ND, _, _ = examples(20, 0.5, seed=1)
    assert (loaded(vectors_ND) == trained.classifier(vectors_ND)).all()
    assert loaded.model_version == trained.classifier.model_version
    assert json.loads((tmp_path / "config.json").read_text())["labels"] == ["bag", "shoes", "top"]
    data = bytearray((tmp_path / "head.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "head.safetensors").write_bytes(data)
    with pytest.raises(UsageError, match=r"head\.safetensors is not the one that config\.json belongs to"):
        heads.load(str(tmp_path))
    with pytest.raises(UsageError, match="train one with 'w2w classify --train'"):
        heads.load(str(tmp_path / "none"))


def test_rows_get_a_class_and_a_wrong_vector_is_rejected(tmp_path):
    trained = heads.train(*examples(400, 0.2, labels=("bag", "etc", "top")), "enc", HeadConfig(epochs=100))
    heads.save(trained.classifier, str(tmp_path), {})
    vectors_ND, names, _ = examples(6, 0.05, labels=("bag", "etc", "top"), seed=5)
    values = [*vectors_ND.tolist(), [1.0, 2.0]]
    rows = Classify(str(tmp_path), 0.8)(pa.table({schema.VECTOR: pa.array(values, pa.list_(pa.float32()))}))
    assert rows.column(schema.CATEGORY).to_pylist()[:6] == names
    assert rows.column(schema.ACCEPTED).to_pylist()[:6] == [n != "etc" for n in names]  # etc is never to be used
    assert rows.column(schema.REJECT_CODE).to_pylist() == [None] * 6 + ["bad_value"]
    nowhere = [0.0] * DIM  # like no class
    vague = pa.table({schema.VECTOR: pa.array([nowhere], pa.list_(pa.float32()))})
    strict = Classify(str(tmp_path), 0.9999)(vague)
    assert strict.column(schema.ACCEPTED).to_pylist() == [False]
    assert strict.column(schema.MODEL_VERSION)[0] != rows.column(schema.MODEL_VERSION)[0]


def test_feeds_say_their_classes_in_their_own_words():
    mapping = heads.check_mapping({"Topwear": "top", " Sandal ": "shoes"})
    said = ("topwear", "SANDAL", "bag", "Watch", None)
    assert [heads.class_of(v, mapping) for v in said] == ["top", "shoes", "bag", "etc", "etc"]
    with pytest.raises(UsageError, match=r"classes\.Kilt=skirt: must be one of bag"):
        heads.check_mapping({"Kilt": "skirt"})


def test_too_little_to_learn_from():
    with pytest.raises(UsageError, match="two classes with 8 examples each are needed to train, there are: 9 bag"):
        heads.train(*examples(9, 0.1, labels=("bag",)), "enc", HeadConfig())
    with pytest.raises(UsageError, match="shares above 0"):
        HeadConfig(test_share=0.0)


def test_a_vector_that_is_no_number_is_rejected(tmp_path):
    trained = heads.train(*examples(400, 0.2), "enc", HeadConfig(epochs=20))
    heads.save(trained.classifier, str(tmp_path), {})
    good = examples(1, 0.05)[0][0].tolist()
    wrong = [[value, *good[1:]] for value in (float("nan"), float("inf"))]
    rows = Classify(str(tmp_path), 0.5)(pa.table({schema.VECTOR: pa.array([wrong[0], good, wrong[1]], pa.list_(pa.float32()))}))
    assert rows.column(schema.REJECT_CODE).to_pylist() == ["not_finite", None, "not_finite"]


def test_near_duplicates_are_in_one_split():
    """Every example stands there three times: the classes are drawn at random, so that only who has seen a twin is right."""
    rng = np.random.default_rng(0)
    once = rng.normal(size=(400, 64)).astype(np.float32)
    labels = [("bag", "shoes")[int(rng.integers(2))] for _ in range(400)]
    vectors_ND, names = np.repeat(once, 3, axis=0), [label for label in labels for _ in range(3)]
    alone = [f"p{i}" for i in range(1200)]
    twins = [f"cluster{i // 3}" for i in range(1200)]
    config = HeadConfig(hidden=64, epochs=200, weight_decay=0.0)
    leaking, fair = (heads.train(vectors_ND, names, keys, "enc", config) for keys in (alone, twins))
    assert (leaking.truth_N == leaking.predicted_N).mean() > 0.75
    assert (fair.truth_N == fair.predicted_N).mean() < 0.65
    assert set(np.unique(fair.keys_N, return_counts=True)[1].tolist()) == {3}
