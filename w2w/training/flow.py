"""What `w2w train` can train: each recipe from its data to its model's figures, behind one interface."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from w2w import storage
from w2w.engine.training import Training, Workers
from w2w.errors import UsageError
from w2w.results import Figure
from w2w.stage import Counts
from w2w.training.card import model_card
from w2w.training.config import FLOAT16, LoopConfig

OF_DATA = "It is subject to the licence of its training data."  # ends the licence of a model card


class Plan(Protocol):
    """One training, as plain values: built in the driver, which reports what is missing, and sent to the workers. Methods with
    a body here are defaults for plans that subclass it.

    ``folder``: where in the store its models are. ``rows``: of its training and test data. ``identity``: everything that
    determines the weights, except the number of workers.
    """

    @property
    def folder(self) -> str:
        return "models"

    @property
    def rows(self) -> Counts:
        return Counts()

    def identity(self) -> list[object]:
        return [vars(self)]

    def facts(self) -> dict[str, Any]:
        """Facts about the training data: fields of the job's result by name, and others of its own."""
        return {}

    def training(self, rank: int, num_workers: int) -> Training:
        """What one worker trains. Runs in the worker."""

    def measure(self, model: Path, out: Path, history: Sequence[dict], facts: Mapping[str, str]) -> dict[str, Any]:
        """Evaluates the model in a folder on the test split; writes metrics.json and report.html to ``out``. ``facts``: the
        earlier ones, in words. Returns further ones: ``figures`` by name, ``report``, and others."""
        found = {**history[-1]["losses"], **history[-1].get("val", {})} if history else {}
        storage.write_bytes(str(out / "metrics.json"), json.dumps(found, indent=1).encode())
        return {"figures": {name: Figure(value) for name, value in found.items()}}

    def card(self, facts: Mapping[str, str], figures: Mapping[str, str], git_revision: str | None) -> str:
        """The model's README.md."""
        return model_card(type(self).__name__, [], facts, figures, OF_DATA, {}, git_revision)

    def use(self, model: Path) -> str:
        """The command that uses the model."""
        return f"w2w train RECIPE --evaluate={model}"


def check_loop(loop: LoopConfig, figures: Sequence[str], workers: Workers) -> None:
    """Raises UsageError for a precision that the workers do not support, or a figure that is never computed."""
    if loop.select and loop.select not in figures:
        raise UsageError(f"train.select={loop.select}: must be one of {', '.join(figures)}")
    if loop.precision == FLOAT16 and not workers.num_gpus:
        raise UsageError("train.precision=float16: needs --workers.num_gpus=1; a CPU computes in float32 or bfloat16")


def check_unpublished(loop: LoopConfig) -> None:
    """Raises UsageError if --published would override an option that the user set."""
    if replace(loop, seed=0, threads=1) != LoopConfig():
        raise UsageError("--published: takes its source's own --train settings; omit all but train.seed and train.threads")
