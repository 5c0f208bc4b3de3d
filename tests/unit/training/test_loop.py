import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.training.ranks import in_two
from w2w.errors import JobFailed, UsageError
from w2w.stage import HISTORY, MODEL
from w2w.training.config import LoopConfig
from w2w.training.loop import CHECKPOINT, Training, fit, parameter_groups, rate

STEPS = LoopConfig(steps=6, learning_rate=0.01, warmup_steps=2, measure_every=2, checkpoint_every=1, average=0.5, select="fit")
TRUE = np.array([1.0, -2.0, 0.5, 3.0])


class Line:
    """Learns a linear map behind dropout and batch statistics: all that has state."""

    def __init__(self, values=None):
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))
        self.prepared, self._values = [], iter(values or [])

    def parameter_groups(self):
        return parameter_groups(self.network.named_parameters())

    def prepare(self, rows, rngs):
        self.prepared.append(tuple(rows))
        x = np.stack([rng.normal(size=4) for rng in rngs]).astype(np.float32)
        return torch.from_numpy(x), torch.from_numpy((x @ TRUE).astype(np.float32))

    def losses(self, network, batch):
        x, y = batch
        return {"square": (network(x)[:, 0] - y).square().mean()}

    def train_mode(self, network):
        network.train()

    def measure(self, network):
        network.eval()
        value = next(self._values, None)
        return {"fit": network[0].weight.sum().item() if value is None else value}

    def save(self, network, folder):
        folder.mkdir()
        torch.save(network.state_dict(), folder / "w.pt")


def run(folder, config=STEPS, resume=None, die_after=None, recipe=None):
    """The figures of each report; the checkpoint of step n lies in folder/n. After step ``die_after`` the run dies."""
    figures = []

    def report(found, write):
        figures.append(found)
        place = folder / str(found["step"])
        place.mkdir(parents=True)
        write(place)
        if found["step"] == die_after:
            raise KeyboardInterrupt

    fit(Training(recipe or Line(), lambda number: range(number * 8, number * 8 + 8), config), report, resume)
    return figures


def same(a, b):
    a, b = (torch.load(f / CHECKPOINT, weights_only=True) for f in (a, b))
    assert a.keys() == b.keys()
    for part in ("network", "averaged", "kept"):
        assert all(torch.equal(v, b[part][k]) for k, v in a[part].items()), part
    for (_, x), (_, y) in zip(sorted(a["optimizer"]["state"].items()), sorted(b["optimizer"]["state"].items())):
        assert all(torch.equal(torch.as_tensor(v), torch.as_tensor(y[k])) for k, v in x.items())
    assert a["history"] == b["history"]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"accumulate": 3},
        {"optimizer": "sgd", "schedule": "constant"},
        {"optimizer": "adam", "schedule": "step"},
        {"precision": "bfloat16"},
    ],
)
def test_a_run_resumed_from_any_step_ends_with_the_weights_of_a_whole_one(tmp_path, settings):
    config = replace(STEPS, **settings)
    whole = run(tmp_path / "whole", config)
    for step in range(1, 6):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / f"cut{step}", config, die_after=step)
        rest = run(tmp_path / f"rest{step}", config, tmp_path / f"cut{step}" / str(step))
        assert rest == whole[step:]
        same(tmp_path / "whole" / "6", tmp_path / f"rest{step}" / "6")
    assert run(tmp_path / "done", config, tmp_path / "whole" / "6") == []


def test_checkpoints_between_measurements(tmp_path):
    figures = run(tmp_path, replace(STEPS, steps=7, measure_every=4, checkpoint_every=3))
    assert [(f["step"], "val" in f) for f in figures] == [(3, False), (4, True), (6, False), (7, True)]
    assert json.loads((tmp_path / "7" / HISTORY).read_text()) == figures
    assert (tmp_path / "7" / MODEL).is_dir()
    assert not (tmp_path / "6" / MODEL).exists()


def test_the_average_is_kept_of_the_best_measurement(tmp_path):
    figures = run(tmp_path, recipe=Line(values=[0.5, 0.7, 0.6]))
    assert [f.get("kept", False) for f in figures if "val" in f] == [True, True, False]
    kept = torch.load(tmp_path / "6" / MODEL / "w.pt", weights_only=True)
    then = torch.load(tmp_path / "4" / CHECKPOINT, weights_only=True)["averaged"]
    assert all(torch.equal(v, then[k]) for k, v in kept.items())


def test_a_run_without_gain_ends_early_and_is_finished(tmp_path):
    config = replace(STEPS, steps=20, patience=2)
    figures = run(tmp_path, config, recipe=Line(values=[0.5, 0.7, 0.7, 0.1, 0.9]))
    assert [f["step"] for f in figures][-1] == 8
    assert figures[-1]["ended"]
    assert (tmp_path / "8" / MODEL).is_dir()
    assert run(tmp_path / "again", config, tmp_path / "8") == []


def test_accumulated_batches_are_one_step_of_their_mean(tmp_path):
    recipes = []
    for accumulate in (1, 2):
        recipe = Line()
        recipe.network = nn.Sequential(nn.Linear(4, 1))
        recipe.prepare = lambda rows, rngs: (
            torch.tensor([[r, 1.0, -r, r * r] for r in rows]) / 20,
            torch.tensor([float(r) for r in rows]),
        )
        size = 8 // accumulate
        config = replace(STEPS, steps=2, accumulate=accumulate, clip_norm=0, average=0)
        fit(Training(recipe, lambda n, size=size: range(n * size, n * size + size), config), lambda *_: None)
        recipes.append(recipe)
    for a, b in zip(*(r.network.parameters() for r in recipes)):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("apart", "expected"), [(True, 0.5), (False, 0.5 / math.hypot(0.5, 1000))])
def test_networks_with_losses_of_their_own_are_clipped_apart(tmp_path, apart, expected):
    class Two(Line):
        """Gradients of length .5 and 1000."""

        def __init__(self):
            super().__init__()
            self.network = nn.ParameterDict({"small": nn.Parameter(torch.zeros(1)), "large": nn.Parameter(torch.zeros(1))})

        def parameter_groups(self):
            named = self.network.items()
            return [{"params": [p], "share": 1.0} | ({"clipped": name} if apart else {}) for name, p in named]

        def losses(self, network, batch):
            return {"small": 0.5 * network["small"].sum(), "large": 1000 * network["large"].sum()}

        def measure(self, network):
            return {}

    recipe = Two()
    run(tmp_path, LoopConfig(steps=1, optimizer="sgd", learning_rate=1, warmup_steps=0, average=0, clip_norm=1), recipe=recipe)
    assert -recipe.network["small"].item() == pytest.approx(expected, rel=1e-4)
    assert -recipe.network["large"].item() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_a_loss_that_is_no_number_fails_the_job(tmp_path, bad):
    recipe = Line()
    recipe.losses = lambda network, batch: {"square": network(batch[0]).sum() * 0 + float(bad)}
    with pytest.raises(JobFailed, match=f"loss became {bad} in step 1"):
        run(tmp_path, recipe=recipe)


def fails(rank: int) -> str:
    """What the loop says in a process whose own losses are numbers, while those of the other one are not in one step."""
    recipe = Line()
    recipe.network = nn.Sequential(nn.Linear(4, 1))
    plain, steps = recipe.losses, iter(range(6))
    recipe.losses = lambda *given: {"square": plain(*given)["square"] * (math.nan if next(steps) == 2 and rank == 1 else 1)}
    try:
        fit(Training(recipe, lambda n: range(8), STEPS), lambda *_: None)
    except JobFailed as e:
        return str(e)
    return "ended"


@pytest.mark.slow  # two processes import torch
def test_a_loss_that_is_no_number_in_one_process_stops_them_all(tmp_path):
    said = in_two(fails, tmp_path)
    assert said[1] == "the loss became nan in step 3: lower --train.learning_rate"
    assert said[0] == "the loss became not finite in another process in step 3: lower --train.learning_rate"


def test_a_figure_that_cannot_be_told_is_worse_than_any(tmp_path):
    figures = run(tmp_path / "some", recipe=Line(values=[0.5, math.nan, 0.4]))
    assert [f.get("kept", False) for f in figures if "val" in f] == [True, False, False]
    figures = run(tmp_path / "none", recipe=Line(values=[math.nan] * 3))
    assert [f.get("kept", False) for f in figures if "val" in f] == [True] * 3  # nothing was found better: the last


def test_half_precision_needs_a_gpu(tmp_path):
    with pytest.raises(UsageError, match="needs a GPU"):
        run(tmp_path, replace(STEPS, precision="float16"))


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"patience": -1}, {"optimizer": "lion"}, {"precision": "int8"}, {"average": 1.0}, {"seed": -1}]
)
def test_settings_out_of_range(wrong):
    with pytest.raises(UsageError, match=f"train.{next(iter(wrong))}"):
        LoopConfig(**wrong)


def test_the_rate_rises_and_falls():
    config = LoopConfig(steps=12, warmup_steps=2)
    assert [round(rate(s, config), 3) for s in (0, 1, 2, 7, 11, 12)] == [0.5, 1, 1, 0.5, 0.024, 0]
    assert rate(11, replace(config, schedule="constant")) == 1


def test_the_backbone_is_slower_and_only_matrices_decay():
    network = nn.ModuleDict({"backbone": nn.Linear(2, 3), "head": nn.Linear(3, 2)})
    groups = parameter_groups(network.named_parameters(), 0.1, 0.05, free=["head.weight"])
    found = {(g["share"], g["weight_decay"]): len(g["params"]) for g in groups}
    assert found == {(0.1, 0.05): 1, (0.1, 0.0): 1, (1.0, 0.0): 2}


def test_a_rate_in_steps_is_halved():
    config = LoopConfig(steps=10, schedule="step", decay_every=3, warmup_steps=0)
    assert [rate(s, config) for s in range(8)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]
