"""What it costs on this machine to compare two products, as `similar` compares all of a category."""

import time

import numpy as np

from w2w.similar.exact import Goods, Lists, on_grid, search

_ASKED, _BLOCK_ROWS, _WIDTH = 256, 4096, 24  # lists at once, vectors at once, products of a list
_CELLS = 4_000_000  # numbers: 32 MB


def pair_cpu_s(dim: int, category_rows: float) -> float:
    """CPU seconds for one list and one of so many products of its category, with random vectors. Lists fill first, so that one
    costs less in a large category. Takes about a second, as no more than ``_CELLS`` numbers are looked at."""
    num = int(np.clip(category_rows, _ASKED, max(_ASKED, _CELLS // dim)))
    grid_ND, every = on_grid(np.random.default_rng(0).standard_normal((num, dim), np.float32)), np.arange(num)
    goods = Goods(np.zeros(num, np.int64), every, np.ones(num, bool))
    blocks = [(every[i : i + _BLOCK_ROWS], grid_ND[i : i + _BLOCK_ROWS]) for i in range(0, num, _BLOCK_ROWS)]
    asked, began = (every[:_ASKED], grid_ND[:_ASKED]), time.process_time()
    search(asked, blocks, goods, Lists.empty(_ASKED, _WIDTH))
    return (time.process_time() - began) / (_ASKED * num)
