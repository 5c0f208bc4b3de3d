"""What is trained, and by how many workers. Plain values, read without importing torch or Ray."""

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
    """How many processes train, and what each of them gets."""

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
    """What one worker trains."""

    def fit(self, report: Callable[[dict, Callable[[Path], None]], None], resume: Path | None, device: "torch.device") -> None:
        """Trains to the end, from the checkpoint in the folder ``resume`` on. ``report(figures, write)`` makes a checkpoint:
        ``write`` puts its files into a folder, HISTORY and after the last step MODEL among them."""


class Trackers(Protocol):
    """What shows the figures of a run while it goes on."""

    def tell(self, history: list[dict]) -> None: ...

    def close(self) -> None: ...
