"""Training on Ray Train: the loop in one process or several, checkpoints in the store, a killed run goes on."""

import contextlib
import json
import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import ray.train
import ray.train.torch
from pyarrow import fs
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from w2w import storage
from w2w.engine.cluster import is_lean
from w2w.engine.private import light_trainer
from w2w.errors import JobFailed, UsageError
from w2w.memory import keep_memory
from w2w.stage import HISTORY, MODEL

if TYPE_CHECKING:  # torch costs the driver seconds
    import torch

log = logging.getLogger("w2w")

_CHECKPOINTS_KEPT = 2
# Ray Train trains in a thread, whose own arena of glibc's malloc gives large blocks back at once, whatever `keep_memory` says:
# with one arena for all threads a step takes .55 of the CPU (measured: 10.4 s in place of 18.8)
_ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}
_LOOK_EVERY_S = 5.0
_PATIENCE_S = 7200  # that workers wait for each other: the first one measures while the rest stands


@dataclass(frozen=True)
class Workers:
    """How many processes train, and what each of them gets."""

    num_workers: int = 1
    """Processes; several share their gradients (DDP; nccl on GPUs, gloo on CPUs)."""
    num_cpus: float = 1
    """CPUs of each."""
    num_gpus: float = 0
    """GPUs of each: 0 or 1."""
    max_failures: int = 2
    """How often a worker may die before the job fails; each time all go on from the last checkpoint."""

    def __post_init__(self):
        if self.num_workers < 1:
            raise UsageError(f"workers.num_workers={self.num_workers}: must be at least 1")
        if self.num_gpus not in (0, 1):
            raise UsageError(f"workers.num_gpus={self.num_gpus}: 0 or 1")


class Training(Protocol):
    """What one worker trains."""

    def fit(self, report: Callable[[dict, Callable[[Path], None]], None], resume: Path | None, device: "torch.device") -> None:
        """Trains to the end, from the checkpoint in the folder ``resume`` on. ``report(figures, write)`` makes a checkpoint:
        ``write`` puts its files into a folder, HISTORY and after the last step MODEL among them."""


class Trackers(Protocol):
    """What shows the figures of a run while it goes on."""

    def tell(self, history: list[dict]) -> None: ...

    def close(self) -> None: ...


def train(
    make: Callable[[int, int], Training],
    workers: Workers,
    place: str,
    out: Path,
    resume: bool = True,
    trackers: Callable[[], Trackers] | None = None,
) -> list[dict]:
    """Trains what ``make(rank, num_workers)`` gives in each worker, checkpoints below ``place``; copies the model to ``out``.

    ``make`` travels to the workers: a function of a module with plain values (functools.partial). A run with the same ``place``
    goes on where its last checkpoint stands; ``resume=False`` begins anew. ``trackers`` opens what the figures are shown in.
    Returns the figures of the run, report by report.
    """
    system, path = storage.filesystem(place)
    if not resume and storage.exists(place):
        system.delete_dir(path)
    parent, _, name = path.rpartition("/")
    trainer = (light_trainer() if is_lean() else TorchTrainer)(
        _work,
        train_loop_config={"make": make},
        scaling_config=ScalingConfig(
            num_workers=workers.num_workers,
            use_gpu=workers.num_gpus > 0,
            resources_per_worker={"CPU": workers.num_cpus, **({"GPU": workers.num_gpus} if workers.num_gpus else {})},
        ),
        torch_config=TorchConfig(backend="nccl" if workers.num_gpus else "gloo", timeout_s=_PATIENCE_S),
        run_config=RunConfig(
            name=name,
            storage_path=parent,
            storage_filesystem=system,
            failure_config=FailureConfig(max_failures=workers.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=_CHECKPOINTS_KEPT),
            worker_runtime_env={"env_vars": _ONE_ARENA},
        ),
    )
    try:
        with _told(place, trackers() if trackers else None):
            result = trainer.fit()
    except ray.train.TrainingFailedError as e:
        raise JobFailed(f"training failed: {_reason(e)}") from e
    with result.checkpoint.as_directory() as folder:
        shutil.copytree(Path(folder, MODEL), out, dirs_exist_ok=True)
        return json.loads(Path(folder, HISTORY).read_text(encoding="utf-8"))


def _work(settings: dict) -> None:
    """One worker of a training run."""
    keep_memory()
    context = ray.train.get_context()
    rank = context.get_world_rank()
    training = settings["make"](rank, context.get_world_size())

    def report(figures: dict, write: Callable[[Path], None]) -> None:
        shown = {"step": figures["step"], **figures["losses"]}
        if rank:
            return ray.train.report(shown)
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            ray.train.report(shown, checkpoint=ray.train.Checkpoint.from_directory(folder))

    last = ray.train.get_checkpoint()
    with last.as_directory() if last else contextlib.nullcontext() as folder:
        training.fit(report, Path(folder) if folder else None, ray.train.torch.get_device())


@contextlib.contextmanager
def _told(place: str, trackers: Trackers | None) -> Iterator[None]:
    """Logs a line a report and tells the trackers, from the checkpoints: Ray Train keeps what workers print to itself."""
    stop = threading.Event()
    said = len(_newest_history(place))

    def tell() -> None:
        nonlocal said
        history = _newest_history(place)
        for h in history[said:]:
            val = "".join(f", {name} {v:.3f}" for name, v in h.get("val", {}).items())
            log.info("step %d of %d: loss %.3f%s", h["step"], h["steps"], h["losses"]["loss"], val)
        said = max(said, len(history))
        if trackers:
            try:
                trackers.tell(history)
            except Exception as e:  # what shows the figures must not end what makes them
                log.warning("the figures could not be shown: %s", e)

    def watch() -> None:
        while not stop.wait(_LOOK_EVERY_S):
            tell()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        tell()
        if trackers:
            trackers.close()


def _newest_history(place: str) -> list[dict]:
    """Of the last checkpoint that is whole; [] before the first."""
    system, path = storage.filesystem(place)
    found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
    for folder in sorted((f.path for f in found if "/checkpoint_" in f.path), reverse=True):
        try:
            with system.open_input_file(f"{folder}/{HISTORY}") as f:
                return json.loads(f.read())
        except (OSError, ValueError):  # being written, or just removed
            continue
    return []


def _reason(error: Exception) -> str:
    """The last line of what the first worker to fail said."""
    failures = getattr(error, "worker_failures", {})
    text = str(next(iter(failures.values()), error))
    return [line for line in text.splitlines() if line.strip()][-1].strip()
