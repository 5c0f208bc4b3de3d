"""Which rows form a batch."""

from collections.abc import Callable, Sequence

import numpy as np


def in_epochs(
    rows: Sequence[int] | np.ndarray, size: int, seed: int, rank: int = 0, world: int = 1
) -> Callable[[int], list[int]]:
    """Batches of ``size`` from a process's share of the rows, reshuffled every epoch: batch number -> rows. A share smaller
    than ``size`` is one batch; an epoch's leftover rows are in the next epoch again."""
    mine = np.asarray(rows)[rank::world]
    size = min(size, len(mine))
    an_epoch = max(1, len(mine) // size)

    def batch(number: int) -> list[int]:
        epoch, place = divmod(number, an_epoch)
        order = np.random.default_rng([seed, rank, epoch]).permutation(mine)
        return order[place * size : (place + 1) * size].tolist()

    return batch
