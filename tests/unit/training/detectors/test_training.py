import numpy as np
import pytest
import torch

from tests.unit.training.detectors.samples import photos, sample
from w2w.errors import JobFailed
from w2w.garments.detector import Detector, DetectorConfig
from w2w.stage import MODEL
from w2w.training.detectors.config import TrainConfig, filled
from w2w.training.detectors.ours import Ours
from w2w.training.detectors.training import draw_weights, training
from w2w.training.loop import CHECKPOINT, fit

TINY = filled(
    TrainConfig(epochs=3, batch_images=2, height_px=64, width_px=64, warmup_steps=2, val_every=2, learning_rate=1e-3), "ours"
)
PHOTOS = photos(6)


def run(folder, epochs: int, resume=None, stop_after: int | None = None):
    """The figures of each report, one an epoch of two steps; after step ``stop_after`` the run dies."""
    figures = []

    def report(found, write):
        figures.append(found)
        place = folder / str(found["step"])
        place.mkdir(parents=True)
        write(place)
        if found["step"] == stop_after:
            raise KeyboardInterrupt

    config = filled(TrainConfig(**{**TINY.__dict__, "epochs": epochs}), "ours")
    recipe = Ours(config, val=PHOTOS[4:], channels=8)
    fit(training(recipe, [p.sample for p in PHOTOS[:4]], config, 4), report, resume)
    return figures


def test_an_interrupted_run_ends_with_the_weights_of_one_that_was_not(tmp_path):
    whole = run(tmp_path / "whole", 3)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", 3, stop_after=2)
    rest = run(tmp_path / "rest", 3, resume=tmp_path / "cut" / "2")
    assert [f["step"] for f in rest] == [4, 6]
    assert rest == whole[1:]
    states = [torch.load(tmp_path / name / "6" / CHECKPOINT, weights_only=True) for name in ("whole", "rest")]
    for part in ("network", "averaged", "kept"):
        for name, value in states[0][part].items():
            assert torch.equal(value, states[1][part][name]), (part, name)
    assert states[0]["history"] == states[1]["history"]
    assert whole[0]["losses"]["loss"] > 0
    assert {"mAP", "AP50", "AP75"} == set(whole[1]["val"])
    frozen = Ours(TINY, channels=8).network.backbone.conv_stem.weight
    assert torch.equal(states[0]["network"]["backbone.conv_stem.weight"], frozen)
    # and the folder it leaves is a detector
    found = Detector(DetectorConfig(name=str(tmp_path / "whole" / "6" / MODEL), threshold=0.0))([PHOTOS[0].sample.image])
    assert found[0].scores_N.size


def test_a_loss_that_is_no_number_fails_the_job():
    recipe = Ours(TINY, channels=8)
    with torch.no_grad():
        recipe.network.scores.bias.fill_(float("nan"))
    with pytest.raises(JobFailed, match="loss became nan in step 1"):
        fit(training(recipe, [p.sample for p in PHOTOS], TINY, 6), lambda *_: None)


def test_rare_classes_are_drawn_more_often():
    samples = [sample([(1, 1, 30, 30)], [6]) for _ in range(9)] + [sample([(1, 1, 30, 30)], [3]), sample([], [])]
    weights = draw_weights(samples, 0.5)
    assert weights[0] == weights[-1] == 1
    assert weights[9] == pytest.approx(np.sqrt(0.5 * 11))
