"""Exact cosines, the lists that a search fills by them, and what the sieve lets through."""

import numpy as np
import pytest

from w2w.errors import JobFailed
from w2w.similar.exact import Goods, Lists, Sieve, cosines, on_grid, search

WIDTH = 7


def test_scores_do_not_depend_on_what_is_scored_together():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 1280)).astype(np.float32)
    grid = on_grid(vectors)
    together = cosines(grid, grid)
    for size in (1, 7, 64):
        some = np.vstack([cosines(grid[i : i + size], grid) for i in range(0, 300, size)])
        assert np.array_equal(some, together)
    assert np.array_equal(on_grid(vectors[17:18]), grid[17:18])
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    assert np.abs(together - unit @ unit.T).max() < 1e-7
    assert (on_grid(np.zeros((2, 3), np.float32)) == 0).all()
    with pytest.raises(JobFailed, match="NaN"):
        on_grid(np.float32([[0, np.nan]]))


def test_a_card_with_many_products_hides_no_other():
    """More near-copies on one card than a tile takes at first, all better than what is on other cards, or as good."""
    num, many = 500, 480
    goods = Goods(np.zeros(num, np.int32), np.r_[np.zeros(many, np.int64), 1 + np.arange(num - many)], np.ones(num, bool))
    asked = np.array([num - 1])
    for angle in (np.r_[np.arange(1, num) * 1e-3, 0], np.zeros(num)):
        grid = on_grid(np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32))
        lists = search((asked, grid[asked]), [(np.arange(num), grid)], goods, Lists.empty(len(asked), WIDTH))
        assert lists.member_NW[0].tolist() == [0, *range(many, many + WIDTH - 1)]


def test_an_empty_catalog_has_empty_lists():
    lists = search((np.arange(0), np.empty((0, 3))), [], Goods(*(np.empty(0, np.int64),) * 3), Lists.empty(0, 3))
    assert lists.depth.tolist() == []
    assert Lists.empty(2, 3).depth.tolist() == [0, 0]


@pytest.mark.parametrize("dim", [3, 64, 1280])
@pytest.mark.parametrize("num_asked", [5, 90])
def test_the_sieve_lets_through_all_that_may_matter_and_little_else(dim, num_asked):
    rng, num = np.random.default_rng(dim + num_asked), 600
    units = rng.standard_normal((num, dim))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    units[300:] = units[:300]  # ties
    vectors = (units * 10.0 ** rng.uniform(-22, 20, (num, 1))).astype(np.float32)
    vectors[7] = 0
    grid, scope = on_grid(vectors), rng.integers(0, 3, num)
    asked, came = np.arange(num_asked), np.arange(200, 210)
    exact, near = cosines(grid, grid), scope[:, None] == scope[None]
    lists, least = Lists.empty(num_asked, 4), np.where(near, exact, -1).max(axis=1, where=~np.eye(num, dtype=bool), initial=-1)
    lists.score_NW[:] = np.sort(np.where(near[asked], exact[asked], -1), axis=1)[:, -4:][:, ::-1]
    least[np.arange(num) % 5 == 0] = np.inf
    sieve = Sieve((asked, grid[asked]), lists, (came, grid[came]), least.astype(np.float32), scope)
    kept = sieve.of(np.arange(num), vectors)
    matters = (near[asked] & (exact[asked] >= lists.last[:, None])).any(axis=0)
    matters |= (near[:, came] & (exact[:, came] >= least[:, None])).any(axis=1)
    assert not (matters & ~kept).any()
    length = np.linalg.norm(vectors.astype(np.float64), axis=1)
    doubtful = (length < 1e-14) | (length > 1e14)
    assert (kept & ~matters & ~doubtful).sum() < num / 6
