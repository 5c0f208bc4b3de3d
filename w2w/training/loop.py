"""The training loop of every network: in a single process, or in one of several that share their gradients (torch.distributed).

All randomness follows from (seed, step, rank), and a checkpoint holds everything else, so a run that was interrupted at any
checkpoint ends with exactly the weights of an undisturbed one (bitwise on a CPU; tests/unit/training/test_loop.py).
"""

import contextlib
import copy
import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import distributed, nn

from w2w.errors import JobFailed, UsageError
from w2w.models.folder import save_network
from w2w.stage import HISTORY, MODEL
from w2w.training import ranks
from w2w.training.config import FLOAT16, LoopConfig

CHECKPOINT = "state.pt"
_AHEAD = 2  # batches prepared ahead


class Recipe(Protocol):
    """A kind of network: its batches, losses, evaluation and saved form. Methods with a body here are defaults for recipes that
    subclass it."""

    network: nn.Module
    select: str = ""
    """The default figure by which weights are selected."""

    def __init__(self, network: nn.Module):
        self.network = network

    def parameter_groups(self) -> list[dict]:
        """Groups for the optimiser; each has ``share``: of the learning rate. Groups with the same ``clipped`` (None counts
        too) have their gradients clipped together: networks with losses of their own should not shorten each other's."""
        return parameter_groups(self.network.named_parameters())

    def prepare(self, rows: Sequence[Any], rngs: Sequence[np.random.Generator]) -> Any:
        """A batch of these rows, augmented with one generator per row. Called in a thread, ahead of time."""

    def losses(self, network: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
        """Parts of the loss, to be added. ``network`` is this recipe's, possibly wrapped for several processes."""

    def train_mode(self, network: nn.Module) -> None:
        """Like ``network.train()``, but frozen parts stay frozen."""
        network.train()

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Figures on the held-out data, by name; {} if there is none. Process 0 only."""
        return {}

    def save(self, network: nn.Module, folder: Path) -> None:
        """Writes the network in the form used at inference."""
        save_network(network, folder, {"model_type": type(self).__name__})


# Rows of a batch, by its number from 0. A pure function: the number alone is the position in the data.
Batches = Callable[[int], Sequence[Any]]
# Figures of the steps since the last report, and the function that writes the checkpoint into a folder
Report = Callable[[dict, Callable[[Path], None]], None]


@dataclass(frozen=True)
class Training:
    """What one process trains: a recipe, its own batches (``accumulate`` per step), and the schedule, which all share."""

    recipe: Recipe
    batches: Batches
    config: LoopConfig

    def fit(self, report: Report, resume: Path | None, device: torch.device) -> None:
        fit(self, report, resume, device)


def fit(training: Training, report: Report, resume: Path | None = None, device: torch.device = torch.device("cpu")) -> None:
    """Trains; process 0 evaluates. ``resume``: folder of a checkpoint.

    Raises JobFailed, in every process, if the loss of one becomes NaN or infinite.
    """
    recipe, config = training.recipe, training.config
    several = ranks.several()
    rank = distributed.get_rank() if several else 0
    torch.set_num_threads(config.threads)
    recipe.network.to(device)
    network = torch.compile(recipe.network) if config.compile else recipe.network
    if several:
        network = nn.parallel.DistributedDataParallel(network, find_unused_parameters=True)
    averaged = copy.deepcopy(recipe.network)
    optimizer = _optimizer(recipe.parameter_groups(), config)
    autocast, scaler = _precision(config, device)
    begin, best, since, history = 0, -math.inf, 0, []
    kept = copy.deepcopy(averaged.state_dict())
    if resume:
        state = torch.load(resume / CHECKPOINT, map_location=device, weights_only=True)
        recipe.network.load_state_dict(state["network"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        kept, begin, best, since, history = (state[k] for k in ("kept", "step", "best", "since", "history"))
    ended = begin == config.steps or any("ended" in h for h in history)
    sums, counted = {}, 0
    batches = _ahead(training, begin, rank)
    recipe.train_mode(recipe.network)
    for step in () if ended else range(begin, config.steps):
        torch.manual_seed(_seed(config.seed, step, rank))
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * group["share"] * rate(step, config)
        optimizer.zero_grad(set_to_none=True)
        wrong = None
        for part in range(config.accumulate):
            # processes exchange gradients once per step
            alone = several and part + 1 < config.accumulate
            with network.no_sync() if alone else contextlib.nullcontext():
                with autocast():
                    parts = recipe.losses(network, next(batches))
                    loss = sum(parts.values())
                scaler.scale(loss / config.accumulate).backward()
            wrong = wrong if wrong is not None or math.isfinite(loss.item()) else loss.item()
            for name, value in {**parts, "loss": loss}.items():
                sums[name] = sums.get(name, 0.0) + value.item() / config.accumulate
        if ranks.any_rank(wrong is not None, device):
            said = "not finite in another process" if wrong is None else wrong
            raise JobFailed(f"the loss became {said} in step {step + 1}: lower --train.learning_rate")
        scaler.unscale_(optimizer)
        if config.clip_norm:
            for parameters in _clipped(optimizer):
                nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        scaler.step(optimizer)
        scaler.update()
        _follow(averaged, recipe.network, min(config.average, (1 + step) / (10 + step)) if config.average else 0.0)
        done, counted = step + 1, counted + 1
        last, measures = done == config.steps, done % config.measure_every == 0 or done == config.steps
        if not measures and done % config.checkpoint_every:
            continue
        figures = {"step": done, "steps": config.steps, "rate": optimizer.param_groups[-1]["lr"]}
        figures["losses"] = {k: v / counted for k, v in sums.items()}
        sums, counted = {}, 0
        if measures:
            found = recipe.measure(averaged) if rank == 0 else {}
            recipe.train_mode(recipe.network)
            if found:
                figures["val"], value = found, _selected(found, config.select or recipe.select)
                since = 0 if value > best else since + 1
            if not found or value >= best:
                best = value if found else best
                kept = copy.deepcopy(averaged.state_dict())
                figures["kept"] = True
            ended = _agreed(bool(config.patience) and since >= config.patience, several, device)
        if ended and not last:
            figures["ended"] = True
        history.append(figures)
        state = {"network": recipe.network.state_dict(), "averaged": averaged.state_dict(), "optimizer": optimizer.state_dict()}
        state |= {"scaler": scaler.state_dict(), "kept": kept, "step": done, "best": best, "since": since, "history": history}

        def write(folder: Path, state: dict = state, last: bool = last or ended) -> None:
            torch.save(state, folder / CHECKPOINT)
            (folder / HISTORY).write_text(json.dumps(state["history"]), encoding="utf-8")
            if last:
                chosen = copy.deepcopy(averaged)
                chosen.load_state_dict(state["kept"])
                recipe.save(chosen, folder / MODEL)

        report(figures, write)
        if ended:
            break


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], backbone_rate: float = 1.0, weight_decay: float = 0.0, free: Sequence[str] = ()
) -> list[dict]:
    """Groups for the optimiser: parameters under ``backbone`` learn at a share of the rate; weight decay applies only to
    matrices not named in ``free``."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        decays = parameter.ndim > 1 and name not in free
        groups.setdefault(("backbone" in name, decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "share": backbone_rate if in_backbone else 1.0,
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (in_backbone, decays), parameters in sorted(groups.items(), key=lambda kv: kv[0])
    ]


def rate(step: int, config: LoopConfig) -> float:
    """Share of the peak rate: linear warm-up, then constant, halved in steps, or down to 0 along a cosine (Loshchilov and
    Hutter 2017, equation 5)."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "step":
        return 0.5 ** (step // config.decay_every)
    return 0.5 * (1 + math.cos(math.pi * (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)))


def _optimizer(groups: list[dict], config: LoopConfig) -> torch.optim.Optimizer:
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate)
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=config.learning_rate)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.99))


def _clipped(optimizer: torch.optim.Optimizer) -> list[list[nn.Parameter]]:
    found: dict[str | None, list[nn.Parameter]] = {}
    for group in optimizer.param_groups:
        found.setdefault(group.get("clipped"), []).extend(group["params"])
    return list(found.values())


def _precision(config: LoopConfig, device: torch.device):
    """The context factory for that precision, and the loss scaler, which is idle unless the precision is float16."""
    if config.precision == FLOAT16 and device.type == "cpu":
        raise UsageError("train.precision=float16: needs a GPU; a CPU computes in float32 or bfloat16")
    dtype = getattr(torch, config.precision)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == FLOAT16)
    return lambda: torch.autocast(device.type, dtype, enabled=dtype != torch.float32), scaler


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _selected(found: dict[str, float], name: str) -> float:
    """The figure by which weights are selected; NaN is worse than any other value."""
    if name not in found:
        raise UsageError(f"train.select={name}: is not computed here, only {', '.join(found)}")
    return -math.inf if math.isnan(found[name]) else found[name]


def _agreed(stop: bool, several: bool, device: torch.device) -> bool:
    """Process 0's decision, broadcast to every process."""
    if several:
        flag = torch.tensor(int(stop), device=device)
        distributed.broadcast(flag, 0)
        return bool(flag.item())
    return stop


def _ahead(training: Training, begin: int, rank: int) -> Iterator[Any]:
    """The batches from step ``begin`` on, prepared while earlier ones are trained on."""
    config = training.config

    def make(number: int) -> Any:
        rows = training.batches(number)
        rngs = [np.random.default_rng([config.seed, rank, number, i]) for i in range(len(rows))]
        return training.recipe.prepare(rows, rngs)

    with ThreadPoolExecutor(1) as thread:
        coming: deque = deque()
        for number in range(begin * config.accumulate, config.steps * config.accumulate):
            coming.append(thread.submit(make, number))
            if len(coming) > _AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


@torch.no_grad()
def _follow(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """Moves weights and batch statistics of ``averaged`` a step towards those of ``network``."""
    target = network.state_dict()
    for name, value in averaged.state_dict().items():
        if value.is_floating_point() and decay:
            value.lerp_(target[name], 1 - decay)
        else:
            value.copy_(target[name])
