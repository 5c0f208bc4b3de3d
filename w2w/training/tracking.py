"""Sends the figures of a running training to TensorBoard, MLflow and Weights & Biases.

The driver sends them, from the history in the run's checkpoints: each figure is sent once, whichever worker dies, and a resumed
run continues at the same place.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from w2w import extras, storage
from w2w.errors import UsageError
from w2w.shown import without_secrets

_STATE = "told.json"  # beside the checkpoints: what was sent, and under which run id
_PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}


@dataclass(frozen=True)
class LogConfig:
    """Experiment trackers that show the curves during training, in addition to the log and the report."""

    tensorboard: str | None = None
    """Folder for the runs; `tensorboard --logdir=FOLDER` shows them."""
    mlflow: str | None = None
    """Tracking URI of MLflow, such as http://HOST:5000 or file:///FOLDER; the experiment is called w2w."""
    wandb: str | None = None
    """Project of Weights & Biases; log in with `wandb login` or WANDB_API_KEY."""

    def __post_init__(self):
        for name, package in _PACKAGES.items():
            if getattr(self, name) is not None:
                extras.need(package, f"--log.{name}")


class Tracker(Protocol):
    """An experiment tracker."""

    name: str
    """Identifies the run when it is resumed."""

    def tell(self, figures: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


class Trackers:
    """All requested trackers. ``place``: the run's folder, which remembers what was sent; ``run``: the run's name;
    ``settings``: shown with it. Raises UsageError if one of them cannot be reached."""

    def __init__(self, config: LogConfig, place: str, run: str, settings: Mapping[str, object]):
        self._state = storage.join(place, _STATE)
        before = _read(self._state)
        self._step = before.get("step", 0)
        opened: dict[str, Callable[..., Tracker]] = {"tensorboard": _TensorBoard, "mlflow": _MLflow, "wandb": _WandB}
        self._trackers: dict[str, Tracker] = {}
        for kind, make in opened.items():
            if where := getattr(config, kind):
                try:
                    self._trackers[kind] = make(where, run, without_secrets(dict(settings)), self._step, before.get(kind))
                except Exception as e:  # each library raises its own
                    raise UsageError(f"--log.{kind}={where}: {type(e).__name__}: {e}") from e

    def tell(self, history: Sequence[dict]) -> None:
        """Sends those reports of a run's history that were not sent before."""
        new = [h for h in history if h["step"] > self._step]
        if not new or not self._trackers:
            return
        for report in new:
            for tracker in self._trackers.values():
                tracker.tell(_figures(report), report["step"])
        self._step = new[-1]["step"]
        state = {"step": self._step} | {kind: tracker.name for kind, tracker in self._trackers.items()}
        storage.write_bytes(self._state, json.dumps(state).encode())

    def close(self) -> None:
        for tracker in self._trackers.values():
            tracker.close()


def _read(uri: str) -> dict:
    return json.loads(storage.read_bytes(uri)) if storage.exists(uri) else {}


def _figures(report: Mapping) -> dict[str, float]:
    """Figures of one report, under names that all three accept: MLflow refuses @."""
    parts = {"loss": report["losses"], "val": report.get("val", {}), "train": {"rate": report["rate"]}}
    return {f"{part}/{re.sub(r'[^0-9A-Za-z_. -]', '_', k)}": v for part, found in parts.items() for k, v in found.items()}


class _TensorBoard:
    def __init__(self, folder: str, run: str, settings: Mapping[str, object], step: int, before: str | None):
        from tensorboardX import SummaryWriter

        self.name = before or storage.join(folder, run)
        # drops later steps that were sent by a restarted run, or by a driver that died before recording them
        self._writer = SummaryWriter(self.name, purge_step=step + 1, filename_suffix=f".{step}")
        if not before:
            self._writer.add_text("settings", "\n".join(f"- {k}: {v}" for k, v in settings.items()))

    def tell(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _MLflow:
    def __init__(self, uri: str, run: str, settings: Mapping[str, object], step: int, before: str | None):
        import mlflow

        self._client = mlflow.MlflowClient(tracking_uri=uri)
        if before is None:
            found = self._client.get_experiment_by_name("w2w")
            experiment = found.experiment_id if found else self._client.create_experiment("w2w")
            before = self._client.create_run(experiment, run_name=run).info.run_id
            for name, value in settings.items():
                self._client.log_param(before, re.sub(r"[^0-9A-Za-z_. /-]", "_", name), str(value)[:500])
        self.name = before

    def tell(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._client.log_metric(self.name, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self.name)


class _WandB:
    def __init__(self, project: str, run: str, settings: Mapping[str, object], step: int, before: str | None):
        import wandb

        self.name = before or run
        self._run = wandb.init(project=project, id=self.name, name=run, config=dict(settings), resume="allow")

    def tell(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        self._run.finish()
