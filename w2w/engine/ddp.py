"""Several workers that average their gradients, on Ray Train."""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import ray.train
import ray.train.torch
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from w2w import storage
from w2w.engine.cluster import is_lean
from w2w.engine.private import light_trainer
from w2w.engine.training import CHECKPOINTS_KEPT, Training, Workers
from w2w.errors import JobFailed
from w2w.memory import keep_memory

# Ray Train trains in a thread, and glibc's arena for that thread returns large blocks at once, whatever `keep_memory` sets:
# with a single arena a step takes .55 of the CPU time (measured: 10.4 s instead of 18.8)
_ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}
_PATIENCE_S = 7200  # how long workers wait for each other: only the first one evaluates


def train(make: Callable[[int, int], Training], workers: Workers, place: str) -> str:
    """Trains in each worker and returns the path of the last checkpoint. A run with the same ``place`` resumes."""
    system, path = storage.filesystem(place)
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
            checkpoint_config=CheckpointConfig(num_to_keep=CHECKPOINTS_KEPT),
            worker_runtime_env={"env_vars": _ONE_ARENA},
        ),
    )
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as e:
        raise JobFailed(f"training failed: {_reason(e)}") from e
    return result.checkpoint.path


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


def _reason(error: Exception) -> str:
    """The last line of the error of the first worker to fail."""
    failures = getattr(error, "worker_failures", {})
    text = str(next(iter(failures.values()), error))
    return [line for line in text.splitlines() if line.strip()][-1].strip()
