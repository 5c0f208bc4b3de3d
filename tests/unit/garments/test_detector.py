"""Detectors: every family against its own processor, classes by name, thresholds, memory and poison."""

import numpy as np
import pytest
import torch

from tests.unit.garments.models import LABELS, save_detector, save_yolo
from tests.unit.models.test_encoder import pictures
from w2w.errors import Reject, UsageError
from w2w.garments.batches import Batches, is_out_of_memory
from w2w.garments.detector import Detector, DetectorConfig, Found, Transformers, detector_version, load_model
from w2w.garments.taxonomy import TaxonomyConfig


@pytest.mark.parametrize("kind", ["conditional_detr", "yolos", "rt_detr"])
def test_transformers_models_find_what_they_find_by_themselves(tmp_path, kind):
    model, processor = save_detector(tmp_path, kind)
    images = [*pictures(2, (90, 70)), *pictures(2, (60, 110))]  # two sizes: a batch has to pad
    found = load_model(DetectorConfig(str(tmp_path)))(images, 0.0)
    for image, got in zip(images, found):
        inputs = processor(images=[image], return_tensors="pt", input_data_format="channels_last")
        with torch.inference_mode():
            outputs = model(**inputs)
        (expected,) = processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=[image.shape[:2]])
        assert len(got.labels) == len(expected["scores"]) > 0
        assert np.sort(got.scores_N) == pytest.approx(np.sort(expected["scores"].numpy()), abs=5e-3)  # padding
        assert got.boxes_N4.mean(0) == pytest.approx(expected["boxes"].numpy().mean(0), abs=0.5)
        assert set(got.labels) <= set(LABELS)


def test_yolo(tmp_path):
    save_yolo(tmp_path / "tiny.pt")
    model = load_model(DetectorConfig(f"yolo:{tmp_path}/tiny.pt"))
    assert model.labels == LABELS
    found = model(pictures(3, (90, 70)), 0.0)
    assert len(found) == 3
    assert all(f.boxes_N4.shape == (len(f.labels), 4) for f in found)
    detector = Detector(DetectorConfig(f"yolo:{tmp_path}/tiny.pt", threshold=0.0))
    assert all(isinstance(f, Found) for f in detector(pictures(2)))


def test_a_yolo_pickle_with_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "owned"), "w")

    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UsageError, match="cannot be loaded safely"):
        load_model(DetectorConfig(f"yolo:{tmp_path}/evil.pt"))
    assert not (tmp_path / "owned").exists()


class Scripted:
    """A model that finds what it is told: rows of (box, score, label)."""

    labels = ("shirt, blouse", "coat", "shoe", "sleeve", "jumpsuit", "tights, stockings")

    def __init__(self, rows):
        self._rows = rows

    def __call__(self, images, floor):
        rows = [r for r in self._rows if r[1] >= floor]
        boxes = np.array([r[0] for r in rows], np.float32).reshape(-1, 4)
        return [Found(boxes, np.array([r[1] for r in rows], np.float32), tuple(r[2] for r in rows)) for _ in images]


ROWS = [
    ((0, 0, 50, 50), 0.9, "coat"),
    ((0, 0, 50, 48), 0.8, "shirt, blouse"),
    ((60, 60, 80, 120), 0.7, "shoe"),
    ((0, 0, 9, 9), 0.99, "sleeve"),
    ((0, 0, 90, 90), 0.99, "jumpsuit"),
    ((20, 0, 50, 20), 0.3, "shirt, blouse"),
    ((95, 95, 99, 95.5), 0.9, "shoe"),
]
IMAGE = np.zeros((100, 100, 3), np.uint8)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [("outer", "coat"), ("shoes", "shoe")]),
        ({"nms_per_class": True}, [("outer", "coat"), ("top", "shirt, blouse"), ("shoes", "shoe")]),
        ({"threshold": 0.75}, [("outer", "coat")]),
        ({"thresholds": {"top": 0.2, "outer": 0.95}}, [("top", "shirt, blouse"), ("shoes", "shoe"), ("top", "shirt, blouse")]),
        ({"max_boxes": 1}, [("outer", "coat")]),
        ({"taxonomy": TaxonomyConfig(jumpsuit="dress"), "threshold": 0.95}, [("dress", "jumpsuit")]),
    ],
)
def test_classes_thresholds_and_suppression(options, expected):
    (found,) = Detector(DetectorConfig("scripted", **options), Scripted(ROWS))([IMAGE])
    assert list(zip(found.categories, found.labels)) == expected
    assert (found.boxes_N4 <= 100).all()


def test_labels_are_exchanged_by_name(tmp_path):
    """The same network with its labels in another order finds the same boxes under the names of that order."""
    save_detector(tmp_path / "a", "rt_detr")
    save_detector(tmp_path / "b", "rt_detr", LABELS[::-1])
    a, b = (load_model(DetectorConfig(str(tmp_path / f)))(pictures(1), 0.0)[0] for f in "ab")
    assert [LABELS[::-1][LABELS.index(label)] for label in a.labels] == list(b.labels)


def test_not_finite_is_rejected(tmp_path):
    save_detector(tmp_path, "rt_detr")
    model = load_model(DetectorConfig(str(tmp_path)))
    assert isinstance(model, Transformers)
    with torch.no_grad():
        next(model._model.parameters()).fill_(float("nan"))
    assert [f.code for f in model(pictures(1), 0.0)] == ["not_finite"]


def test_version_follows_weights_and_thresholds_and_not_the_device(tmp_path):
    save_detector(tmp_path, "rt_detr")
    config = DetectorConfig(str(tmp_path))
    version = detector_version(config)
    assert version == detector_version(DetectorConfig(str(tmp_path), threads=2, device="cpu"))
    assert version != detector_version(DetectorConfig(str(tmp_path), threshold=0.5))
    assert version != detector_version(DetectorConfig(str(tmp_path), taxonomy=TaxonomyConfig(seed=True)))
    weights = tmp_path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert version != detector_version(config)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "x"}, "unknown. Allowed: w2w-lite0, hf:ORG/MODEL, yolo:FILE.pt, a folder, module:attribute"),
        ({"name": ""}, "unknown. Allowed: w2w-lite0"),
        ({"name": "yolo:nothing.pt"}, "no such file: 'nothing.pt'"),
        ({"name": "x", "dtype": "int8"}, "detector.dtype=int8: must be one of"),
        ({"name": "x", "thresholds": {"tops": 0.5}}, "'tops' is not one of bag"),
        ({"name": "x", "threshold": 1.5}, "detector.threshold=1.5: a number between 0 and 1"),
    ],
)
def test_mistakes(options, sentence):
    with pytest.raises(UsageError) as error:
        load_model(DetectorConfig(**options))
    assert sentence in str(error.value)


def test_a_folder_that_is_no_detector(tmp_path):
    with pytest.raises(UsageError, match=r"config\.json is missing"):
        load_model(DetectorConfig(str(tmp_path)))
    save_detector(tmp_path, "rt_detr", ("alpha", "beta"))
    with pytest.raises(UsageError, match="no one vocabulary has: 'alpha', 'beta'"):
        Detector(DetectorConfig(str(tmp_path)))


class Touchy:
    """A model that has room for ``room`` images, and chokes on those whose first pixel is 66."""

    def __init__(self, room: int, error=RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")):
        self.room, self.error, self.sizes = room, error, []

    def __call__(self, images):
        self.sizes.append(len(images))
        if len(images) > self.room:
            raise self.error
        if any(i[0, 0, 0] == 66 for i in images):
            raise IndexError("boxes that nobody expects")
        return [int(i[0, 0, 0]) for i in images]


def marked(*values) -> list[np.ndarray]:
    return [np.full((4, 4, 3), v, np.uint8) for v in values]


def test_out_of_memory_halves_the_batch_for_good():
    model = Touchy(3)
    batches = Batches(model, 16)
    assert batches(marked(*range(16))) == list(range(16))
    assert batches.most == 2
    model.sizes.clear()
    batches(marked(*range(8)))
    assert model.sizes == [2, 2, 2, 2]
    (alone,) = Batches(Touchy(0), 4)(marked(1))
    assert alone.code == "out_of_memory"
    assert is_out_of_memory(torch.OutOfMemoryError("x"))


def test_poison_is_found_by_bisection():
    model = Touchy(64)
    results = Batches(model, 32)(marked(*[1] * 20, 66, *[2] * 11))
    assert [r for r in results if not isinstance(r, Reject)] == [1] * 20 + [2] * 11
    assert results[20].code == "model_failed"
    assert results[20].detail == "IndexError: boxes that nobody expects"
    assert len(model.sizes) <= 2 * 5 + 2
    both = Batches(Touchy(2), 8)(marked(66, 1, 2, 66, 3))
    assert [isinstance(r, Reject) for r in both] == [True, False, False, True, False]


def test_a_bug_is_raised_and_no_image_is_blamed():
    def broken(images):
        raise KeyError("no such layer")

    with pytest.raises(KeyError, match="no such layer"):
        Batches(broken, 8)(marked(1, 2, 3))


def test_a_model_of_no_garments_is_refused():
    class Sleeves(Scripted):
        labels = ("sleeve",)

    with pytest.raises(UsageError, match="none of its labels is a garment"):
        Detector(DetectorConfig(taxonomy=TaxonomyConfig(classes={"sleeve": "drop"})), Sleeves([]))
