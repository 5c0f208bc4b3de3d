"""Communication between the processes of a training run; a single process gets its own values back."""

import torch
from torch import distributed


def several() -> bool:
    return distributed.is_initialized() and distributed.get_world_size() > 1


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether it is true in any process: they must stop together, since one that waits for another waits for hours."""
    if not several():
        return flag
    found = torch.tensor(int(flag), device=device)
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return bool(found.item())


@torch.no_grad()
def divisor(weight: torch.Tensor) -> torch.Tensor:
    """What a process divides its sum by, so that the mean over processes (DDP averages gradients) equals the sum of all over
    the weight of all, as in one process that has every row. The total weight counts as at least 1."""
    total = weight.detach().clone()
    if not several():
        return total.clamp(min=1.0)
    distributed.all_reduce(total)
    return total.clamp(min=1.0) / distributed.get_world_size()
