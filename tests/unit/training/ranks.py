"""Two processes on this machine that share gradients, as two workers do."""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import distributed


def in_two(work: Callable, folder: Path, *arguments) -> list:
    """What ``work(rank, *arguments)`` returns in each of two gloo processes; it is a function of a module."""
    torch.multiprocessing.spawn(_main, (work, str(folder), arguments), nprocs=2)
    return [torch.load(folder / f"found-{rank}", weights_only=True) for rank in range(2)]


def _main(rank: int, work: Callable, folder: str, arguments: tuple) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = work(rank, *arguments)
    distributed.barrier()  # neither may leave while the other still talks to it
    torch.save(found, f"{folder}/found-{rank}")
    os._exit(0)  # when an interpreter ends as usual, a thread of torch's that still runs aborts it now and then
