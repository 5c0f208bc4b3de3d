"""What is trained, and by how many workers: plain values that import neither torch nor Ray."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from w2w.errors import UsageError

if TYPE_CHECKING:
    import torch

CHECKPOINTS_KEPT = 2


@dataclass(frozen=True)
class Workers:
    """How many processes train, and the resources of each."""

    num_workers: int = 1
    """Processes; several share their gradients (DDP; nccl on GPUs, gloo on CPUs)."""
    num_cpus: float = 1
    """CPUs of each process."""
    num_gpus: float = 0
    """GPUs of each process: 0 or 1."""
    max_failures: int = 2
    """Worker deaths before the job fails; after each, all resume from the last checkpoint."""

    def __post_init__(self):
        if self.num_workers < 1:
            raise UsageError(f"workers.num_workers={self.num_workers}: must be at least 1")
        if self.num_gpus not in (0, 1):
            raise UsageError(f"workers.num_gpus={self.num_gpus}: 0 or 1")


class Training(Protocol):
    """The training that one worker runs."""

    def fit(self, report: Callable[[dict, Callable[[Path], None]], None], resume: Path | None, device: "torch.device") -> None:
        """Trains to the end, starting from the checkpoint in the folder ``resume``. ``report(figures, write)`` makes a
        checkpoint: ``write`` fills a folder with its files, including HISTORY and, after the last step, MODEL."""


class Trackers(Protocol):
    """Experiment trackers that show a run's figures while it runs."""

    def tell(self, history: list[dict]) -> None: ...

    def close(self) -> None: ...
