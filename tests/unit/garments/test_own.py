import json
import shutil

import numpy as np
import pytest
import torch

from w2w.errors import Reject, UsageError
from w2w.garments import own
from w2w.garments.detector import Detector, DetectorConfig, detector_version
from w2w.garments.taxonomy import CATEGORIES
from w2w.metrics.detection import Judged, average_precision
from w2w.training.detectors.judge import measuring


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(DetectorConfig())


def test_the_default_finds_what_people_wear(street):
    found = Detector(measuring(DetectorConfig()))([p.image for p in street])
    judged = []
    for photo, f in zip(street, found):
        seen = [i for i in photo.items if i.visible_fraction >= 0.1]
        hidden = [i.box_xyxy for i in photo.items if i.visible_fraction < 0.1]
        boxes = np.array([i.box_xyxy for i in seen], float).reshape(-1, 4)
        ignore = np.array(hidden, float).reshape(-1, 4)
        names = [i.category for i in seen]
        judged.append(Judged("wardrobe", boxes, names, ignore, CATEGORIES, f.boxes_N4, f.categories, f.scores_N))
    figures = {(r["category"], r["metric"]): r["value"] for r in average_precision(judged, CATEGORIES).to_pylist()}
    assert figures[None, "AP50"] > FLOOR


FLOOR = 0.6


def test_large_and_small_copies_of_a_photo_have_the_same_garments(detector, street):
    image = street[0].image
    large = np.repeat(np.repeat(image, 2, 0), 2, 1)
    (a,), (b,) = detector([image]), detector([large])
    assert a.categories == b.categories
    np.testing.assert_allclose(b.boxes_N4, a.boxes_N4 * 2, atol=6)


def test_neighbours_in_the_batch_change_nothing(detector, street):
    images = [street[0].image, street[1].image[:300], np.zeros((40, 90, 3), np.uint8), street[2].image]
    for image, together in zip(images, detector(images)):
        (alone,) = detector([image])
        np.testing.assert_allclose(alone.boxes_N4, together.boxes_N4, atol=0.05)
        np.testing.assert_allclose(alone.scores_N, together.scores_N, atol=1e-3)


def test_openvino_and_torch_say_the_same(street):
    settings = own.read_settings(own.DEFAULT_FOLDER, "")
    batch = np.stack([own.letterbox(p.image, 96, 64)[0] for p in street[:3]])
    network = own.load_network(own.DEFAULT_FOLDER, "")
    for a, b in zip(
        own.openvino_run(own.DEFAULT_FOLDER, "", 1)(batch), own.torch_run(network, torch.device("cpu"), torch.float32)(batch)
    ):
        np.testing.assert_allclose(a, b, atol=2e-3, rtol=2e-3)
    assert settings.labels == CATEGORIES


def test_saved_and_loaded_is_the_same_network(tmp_path):
    network = own.load_network(own.DEFAULT_FOLDER, "")
    own.save(tmp_path, own.read_settings(own.DEFAULT_FOLDER, ""), network.state_dict())
    again = own.load_network(tmp_path, "")
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in network.state_dict().items())
    assert own.read_settings(tmp_path, "") == own.read_settings(own.DEFAULT_FOLDER, "")


def test_the_version_follows_weights_and_thresholds(tmp_path):
    shutil.copytree(own.DEFAULT_FOLDER, tmp_path / "copy")
    copy = DetectorConfig(name=str(tmp_path / "copy"))
    assert detector_version(copy) == detector_version(DetectorConfig())
    assert detector_version(DetectorConfig(threshold=0.5)) != detector_version(DetectorConfig())
    network = own.load_network(own.DEFAULT_FOLDER, "")
    with torch.no_grad():
        network.scores.bias += 0.1
    own.save(tmp_path / "other", own.read_settings(own.DEFAULT_FOLDER, ""), network.state_dict())
    assert detector_version(DetectorConfig(name=str(tmp_path / "other"))) != detector_version(DetectorConfig())


def nothing(batch: np.ndarray) -> np.ndarray:
    """Classes of pixels: none is a garment's."""
    n, height, width, _ = batch.shape
    return np.eye(1, 8, dtype=np.float32).reshape(1, 8, 1, 1).repeat(n, 0).repeat(height // 8, 2).repeat(width // 8, 3)


def test_nan_is_a_reject():
    def broken(batch):
        count = len(own.places(*batch.shape[1:3]))
        scores = np.zeros((len(batch), count, 7), np.float32)
        scores[0, 0, 0] = np.nan
        return scores, np.ones((len(batch), count, 4), np.float32), nothing(batch)

    model = own.Own(own.Settings(), broken)
    first, second = model([np.zeros((60, 40, 3), np.uint8)] * 2, 0.4)
    assert isinstance(first, Reject)
    assert second.labels == ()


def test_a_place_and_its_sides_become_a_box_in_the_photo():
    def one(batch):
        count = len(own.places(*batch.shape[1:3]))
        scores, sides = np.zeros((1, count, 7), np.float32), np.ones((1, count, 4), np.float32)
        at = np.flatnonzero((own.places(*batch.shape[1:3]) == (84, 100)).all(1))[0]  # stride 8
        scores[0, at, 5], sides[0, at] = 0.9, (20, 10, 40, 30)
        return scores, sides, nothing(batch)

    (found,) = own.Own(own.Settings(), one)([np.zeros((832, 550, 3), np.uint8)], 0.4)
    np.testing.assert_allclose(found.boxes_N4, [[128, 180, 248, 260]])
    assert found.labels == ("shoes",)


@pytest.mark.parametrize(("shape", "canvas"), [((831, 550), (416, 288)), ((500, 500), (352, 352)), ((400, 900), (288, 416))])
def test_each_shape_has_its_canvas(shape, canvas):
    image = np.full((*shape, 3), 200, np.uint8)
    assert own.best_canvas(image, own.Settings().canvases()) == canvas
    placed, scale = own.letterbox(image, *canvas)
    assert placed.shape == (*canvas, 3)
    height, width = (round(side * scale) for side in shape)
    assert (placed[:height, :width] == 200).all()
    assert (placed[height:] == own.GROUND).all()
    assert (placed[:, width:] == own.GROUND).all()


def test_another_architecture_is_a_sentence(tmp_path):
    shutil.copytree(own.DEFAULT_FOLDER, tmp_path / "copy")
    file = tmp_path / "copy" / "config.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"channels": 8}))
    with pytest.raises(UsageError, match="and the network takes 8 x 1 x 3 x 3"):
        own.load_network(tmp_path / "copy", "x")
    file.write_text(json.dumps(values | {"labels": ["top"]}))
    with pytest.raises(UsageError, match="not that of a detector of this version"):
        own.read_settings(tmp_path / "copy", "x")


def test_boxes_of_one_class_vote():
    found = np.array([[0, 0, 10, 10], [0, 0, 12, 10], [0, 0, 11, 10], [50, 50, 60, 60]], np.float32)
    scores, kinds = np.array([0.8, 0.4, 0.7, 0.5], np.float32), np.array([2, 2, 6, 2])
    agreed = own.voted(found, scores, kinds, np.array([0, 3]))
    np.testing.assert_allclose(agreed, [[0, 0, (10 * 0.64 + 12 * 0.16) / 0.8, 10], [50, 50, 60, 60]], rtol=1e-6)
