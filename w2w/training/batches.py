"""Which rows make a batch."""

from collections.abc import Callable, Sequence

import numpy as np


def in_epochs(
    rows: Sequence[int] | np.ndarray, size: int, seed: int, rank: int = 0, world: int = 1
) -> Callable[[int], list[int]]:
    """A process's share of the rows, ``size`` at a time, in a new order every epoch: batch number -> rows. A share that is
    smaller than ``size`` is one batch; what an epoch leaves over is in the next one's order again."""
    mine = np.asarray(rows)[rank::world]
    size = min(size, len(mine))
    an_epoch = max(1, len(mine) // size)

    def batch(number: int) -> list[int]:
        epoch, place = divmod(number, an_epoch)
        order = np.random.default_rng([seed, rank, epoch]).permutation(mine)
        return order[place * size : (place + 1) * size].tolist()

    return batch
