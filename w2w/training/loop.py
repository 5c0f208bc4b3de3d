"""The training loop: one process of it, or one of several that share their gradients (torch.distributed).

All randomness follows from (seed, epoch, step, rank), and a checkpoint holds everything else, so a run that was interrupted
after an epoch ends with the very weights of one that was not (bitwise on a CPU; tests/unit/training/test_loop.py).
"""

import copy
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import distributed, nn

from w2w.errors import JobFailed
from w2w.garments.detector import DetectorConfig
from w2w.garments.found import Model
from w2w.training.augment import Sample
from w2w.training.config import HISTORY, MODEL, TrainConfig
from w2w.training.judge import judge, lines, measuring, precision
from w2w.training.photos import Photo

CHECKPOINT = "state.pt"


class Recipe(Protocol):
    """A kind of detector: how its network is fed, what it learns from, and how it is kept."""

    network: nn.Module

    def parameter_groups(self) -> list[dict]:
        """For AdamW; each has ``share``: of the learning rate."""

    def prepare(self, samples: Sequence[Sample], rngs: Sequence[np.random.Generator]) -> object:
        """A batch of augmented photos. Called in a thread, one step ahead."""

    def losses(self, network: nn.Module, batch: object) -> dict[str, torch.Tensor]:
        """Parts of the loss, to be added. ``network`` is this recipe's, perhaps wrapped for several processes."""

    def train_mode(self, network: nn.Module) -> None:
        """As ``network.train()``, but what is frozen stays so."""

    def model(self, network: nn.Module) -> Model:
        """The network as it works."""

    def save(self, network: nn.Module, folder: Path) -> None:
        """Writes what `w2w detect --detector.name=FOLDER` reads."""


Report = Callable[[dict, Callable[[Path], None]], None]  # an epoch's figures, and what writes its checkpoint into a folder


def fit(
    recipe: Recipe,
    train: Sequence[Sample],
    val: Sequence[Photo],
    config: TrainConfig,
    report: Report,
    resume: Path | None = None,
    device: torch.device = torch.device("cpu"),
) -> None:
    """Trains on this process's ``train`` photos; process 0 measures on ``val``. ``resume``: folder of a checkpoint.

    Raises JobFailed where the loss becomes NaN or infinite.
    """
    several = distributed.is_initialized() and distributed.get_world_size() > 1
    rank = distributed.get_rank() if several else 0
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(1)
    recipe.network.to(device)
    network = nn.parallel.DistributedDataParallel(recipe.network, find_unused_parameters=True) if several else recipe.network
    averaged = copy.deepcopy(recipe.network)
    optimizer = torch.optim.AdamW(recipe.parameter_groups(), lr=config.learning_rate, betas=(0.9, 0.99))
    steps = _steps(len(train), config, several)
    begin, best, history = 0, -1.0, []
    kept = copy.deepcopy(averaged.state_dict())
    if resume:
        state = torch.load(resume / CHECKPOINT, map_location=device, weights_only=True)
        recipe.network.load_state_dict(state["network"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        kept, begin, best, history = state["kept"], state["epoch"], state["best"], state["history"]
    for epoch in range(begin, config.epochs):
        torch.manual_seed(hash((config.seed, epoch, rank)) % 2**31)
        recipe.train_mode(recipe.network)
        sums: dict[str, float] = {}
        for step, batch in enumerate(_ahead(recipe, train, config, epoch, rank, steps)):
            done = epoch * steps + step
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * group["share"] * rate(done, steps * config.epochs, config.warmup_steps)
            parts = recipe.losses(network, batch)
            loss = sum(parts.values())
            optimizer.zero_grad()
            loss.backward()
            if not math.isfinite(loss.item()):
                raise JobFailed(f"the loss became {loss.item()} in epoch {epoch + 1}: lower --train.learning_rate")
            nn.utils.clip_grad_norm_(recipe.network.parameters(), config.clip_norm)
            optimizer.step()
            _follow(averaged, recipe.network, min(config.average, (1 + done) / (10 + done)))
            for name, part in {**parts, "loss": loss}.items():
                sums[name] = sums.get(name, 0.0) + part.item() / steps
        figures: dict[str, object] = {"epoch": epoch + 1, "losses": sums, "rate": optimizer.param_groups[-1]["lr"]}
        last = epoch + 1 == config.epochs
        if rank == 0:
            measured = bool(val) and (last or (epoch + 1) % config.val_every == 0)
            if measured:
                figures["val"] = _measure(recipe.model(averaged), val)
            if not val or (measured and figures["val"]["AP50"] >= best):
                best = figures["val"]["AP50"] if measured else best
                kept = copy.deepcopy(averaged.state_dict())
                figures["kept"] = True
            history.append(figures)
        state = {
            "network": recipe.network.state_dict(),
            "averaged": averaged.state_dict(),
            "optimizer": optimizer.state_dict(),
            "kept": kept,
            "epoch": epoch + 1,
            "best": best,
            "history": history,
        }

        def write(folder: Path, state: dict = state, last: bool = last) -> None:
            torch.save(state, folder / CHECKPOINT)
            (folder / HISTORY).write_text(json.dumps(state["history"]), encoding="utf-8")
            if last:
                chosen = copy.deepcopy(averaged)
                chosen.load_state_dict(state["kept"])
                recipe.save(chosen, folder / MODEL)

        report(figures, write)


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], config: TrainConfig) -> list[dict]:
    """Groups for AdamW: the backbone learns at a share of the rate, and only matrices have weight decay."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        groups.setdefault(("backbone" in name, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "share": config.backbone_rate if in_backbone else 1.0,
            "weight_decay": config.weight_decay if is_matrix else 0.0,
        }
        for (in_backbone, is_matrix), parameters in sorted(groups.items(), key=lambda kv: kv[0])
    ]


def rate(step: int, steps: int, warmup: int) -> float:
    """Share of the highest rate: up along a line, then down to 0 along a cosine (Loshchilov and Hutter 2017, equation 5)."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def draw_weights(train: Sequence[Sample], rare: float) -> np.ndarray:
    """How often each photo is drawn, relative to others, (N,): the square root of ``rare`` over the share of photos that have
    its rarest class, at least 1 (Gupta et al. 2019, "LVIS", repeat factor sampling)."""
    kinds = [set(s.labels_N.tolist()) for s in train]
    counts: dict[int, int] = {}
    for found in kinds:
        for kind in found:
            counts[kind] = counts.get(kind, 0) + 1
    return np.array([max([1.0, *((rare * len(train) / counts[k]) ** 0.5 for k in found)]) for found in kinds])


def _steps(photos: int, config: TrainConfig, several: bool) -> int:
    """Steps of an epoch: the same in every process, though their shares may differ by a photo."""
    steps = max(1, photos // config.batch_images)
    if several:
        least = torch.tensor(steps)
        distributed.all_reduce(least, distributed.ReduceOp.MIN)
        steps = int(least)
    return steps


def _ahead(recipe: Recipe, train: Sequence[Sample], config: TrainConfig, epoch: int, rank: int, steps: int) -> Iterator[object]:
    """An epoch's batches, each made while the one before is learnt from."""
    weights = draw_weights(train, config.rare)
    order = np.random.default_rng([config.seed, epoch, rank]).choice(
        len(train), steps * config.batch_images, p=weights / weights.sum()
    )

    def batch(step: int) -> object:
        chosen = order[step * config.batch_images : (step + 1) * config.batch_images]
        rngs = [np.random.default_rng([config.seed, epoch, rank, step, i]) for i in range(len(chosen))]
        return recipe.prepare([train[i] for i in chosen], rngs)

    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(batch, 0)
        for step in range(steps):
            now = coming.result()
            if step + 1 < steps:
                coming = thread.submit(batch, step + 1)
            yield now


@torch.no_grad()
def _follow(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """Weights and batch statistics of ``averaged`` go a step towards those of ``network``."""
    target = network.state_dict()
    for name, value in averaged.state_dict().items():
        if value.is_floating_point():
            value.lerp_(target[name], 1 - decay)
        else:
            value.copy_(target[name])


def _measure(model: Model, val: Sequence[Photo]) -> dict[str, float]:
    _, figures, _ = next(iter(lines(precision(judge(measuring(DetectorConfig()), val, model)))))
    return figures
