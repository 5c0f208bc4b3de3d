import numpy as np
import pytest
import torch

from tests.unit.training.samples import photos, sample
from w2w.errors import JobFailed
from w2w.garments.detector import Detector, DetectorConfig
from w2w.training.config import MODEL, TrainConfig, filled
from w2w.training.loop import CHECKPOINT, draw_weights, fit, rate
from w2w.training.ours import Ours

TINY = filled(
    TrainConfig(epochs=3, batch_images=2, height_px=64, width_px=64, warmup_steps=2, val_every=2, learning_rate=1e-3), "ours"
)
PHOTOS = photos(6)


def run(folder, epochs: int, resume=None, stop_after: int | None = None):
    """The figures of each epoch; ``stop_after`` that many epochs the run dies."""
    figures = []

    def report(found, write):
        figures.append(found)
        place = folder / str(found["epoch"])
        place.mkdir(parents=True)
        write(place)
        if found["epoch"] == stop_after:
            raise KeyboardInterrupt

    config = filled(TrainConfig(**{**TINY.__dict__, "epochs": epochs}), "ours")
    fit(Ours(config, channels=8), [p.sample for p in PHOTOS[:4]], PHOTOS[4:], config, report, resume)
    return figures


def test_an_interrupted_run_ends_with_the_weights_of_one_that_was_not(tmp_path):
    whole = run(tmp_path / "whole", 3)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", 3, stop_after=1)
    rest = run(tmp_path / "rest", 3, resume=tmp_path / "cut" / "1")
    assert [f["epoch"] for f in rest] == [2, 3]
    assert rest == whole[1:]
    states = [torch.load(tmp_path / name / "3" / CHECKPOINT, weights_only=True) for name in ("whole", "rest")]
    for part in ("network", "averaged", "kept"):
        for name, value in states[0][part].items():
            assert torch.equal(value, states[1][part][name]), (part, name)
    assert states[0]["history"] == states[1]["history"]
    assert whole[0]["losses"]["loss"] > 0
    assert {"mAP", "AP50", "AP75"} == set(whole[1]["val"])
    frozen = Ours(TINY, channels=8).network.backbone.conv_stem.weight
    assert torch.equal(states[0]["network"]["backbone.conv_stem.weight"], frozen)
    # and the folder it leaves is a detector
    found = Detector(DetectorConfig(name=str(tmp_path / "whole" / "3" / MODEL), threshold=0.0))([PHOTOS[0].sample.image])
    assert found[0].scores_N.size


def test_a_loss_that_is_no_number_fails_the_job():
    recipe = Ours(TINY, channels=8)
    with torch.no_grad():
        recipe.network.scores.bias.fill_(float("nan"))
    with pytest.raises(JobFailed, match="loss became nan in epoch 1"):
        fit(recipe, [p.sample for p in PHOTOS], [], TINY, lambda *_: None)


def test_the_rate_rises_and_falls():
    assert [round(rate(s, 12, 2), 3) for s in (0, 1, 2, 7, 11, 12)] == [0.5, 1, 1, 0.5, 0.024, 0]


def test_rare_classes_are_drawn_more_often():
    samples = [sample([(1, 1, 30, 30)], [6]) for _ in range(9)] + [sample([(1, 1, 30, 30)], [3]), sample([], [])]
    weights = draw_weights(samples, 0.5)
    assert weights[0] == weights[-1] == 1
    assert weights[9] == pytest.approx(np.sqrt(0.5 * 11))
