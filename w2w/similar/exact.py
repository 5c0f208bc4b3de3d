"""The products most like each product, by exact cosines.

A list is the beginning of the order of all other products by falling score, and by product_id where scores are equal; of the
products on one card it has the best.

Scores must not depend on what a product is compared with at the same time. So vectors are rounded to whole multiples of 2^-26:
every partial sum of a scalar product is then a whole number below 2^53, which float64 holds exactly, in any order of summation.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from w2w.errors import JobFailed

_BITS = 26
_CELLS = 4_000_000  # scores held at once
_SHORTEST = 1e-15  # and longest: lengths of vectors whose squares float32 holds
_FEW = 64  # products for which it costs less to compute scores of all than to sort out those of their scope
_ALONE, _LEAST_ROWS = 1 << 18, 256  # multiplications of one thread of OpenBLAS: several that wait for each other spin
_SLACK = 2e-7  # for each dimension: rounded scores differ from exact ones by less
_WIDER = 8  # taken beyond the width of a list, since some share a card

Found = tuple[np.ndarray, np.ndarray, np.ndarray]  # positions, those of what they get, and the scores
Where = tuple[np.ndarray, np.ndarray]  # rows and columns
Block = tuple[np.ndarray, np.ndarray]  # positions (M,), and their vectors on the grid (M, D)


def on_grid(vectors_ND: np.ndarray) -> np.ndarray:
    """Unit vectors times 2^26 in whole numbers, float64 (N, D), D <= 8192. A row depends on that row alone; zeros stay zeros.

    Raises JobFailed for a vector with NaN or infinity.
    """
    largest = np.abs(vectors_ND).max(axis=1, keepdims=True, initial=0).astype(np.float64)
    if not np.isfinite(largest).all():
        raise JobFailed("a vector has NaN or infinity: run 'w2w embed' again with another encoder.dtype")
    whole = np.rint(vectors_ND * (2.0 ** (_BITS - 1) / np.where(largest > 0, largest, 1))).astype(np.int64)
    length = np.sqrt((whole * whole).sum(axis=1, keepdims=True).astype(np.float64))
    return np.rint(whole * (2.0**_BITS / np.where(length > 0, length, 1)))


def cosines(a_ND: np.ndarray, b_MD: np.ndarray) -> np.ndarray:
    """float32 (N, M) of vectors on the grid: exact, then rounded once."""
    scores = (a_ND @ b_MD.T).astype(np.float32)
    scores *= np.float32(2.0 ** (-2 * _BITS))  # a power of two: nothing is rounded again
    return scores


@dataclass(frozen=True)
class Goods:
    """Products in the order of their ids. ``scope_N``: lists stay within a scope; ``card_N``: int64, equal on one card;
    ``allowed_N``: may be in lists."""

    scope_N: np.ndarray
    card_N: np.ndarray
    allowed_N: np.ndarray

    def num_pairs(self, a_N: np.ndarray, b_N: np.ndarray) -> int:
        """How many scores of one scope with the other there are."""
        num = int(self.scope_N.max(initial=0)) + 1
        counts = (np.bincount(self.scope_N[some], minlength=num).astype(np.int64) for some in (a_N, b_N))
        return int(np.multiply(*counts).sum())


@dataclass
class Lists:
    """Of N products: positions int32 (N, W), best first, -1 beyond the end; their scores float32, there -inf."""

    member_NW: np.ndarray
    score_NW: np.ndarray

    @staticmethod
    def empty(num: int, width: int) -> "Lists":
        return Lists(np.full((num, width), -1, np.int32), np.full((num, width), -np.inf, np.float32))

    @property
    def last(self) -> np.ndarray:
        """Score of the last, (N,); -inf where there is room."""
        return self.score_NW[:, -1]

    @property
    def depth(self) -> np.ndarray:
        return (self.member_NW >= 0).sum(axis=1)

    def merge(self, row: np.ndarray, member: np.ndarray, score: np.ndarray, card_N: np.ndarray) -> None:
        """Adds entries, in any order and also repeated ones; a list keeps its best, one of each card."""
        rows, back = np.unique(row, return_inverse=True)
        at, place = np.nonzero(self.member_NW[rows] >= 0)
        row = np.concatenate([at, back])
        member = np.concatenate([self.member_NW[rows][at, place], member])
        score = np.concatenate([self.score_NW[rows][at, place], score])
        order = np.lexsort((member, -score, row))
        row, member, score = row[order], member[order], score[order]
        by_card = np.lexsort((np.arange(len(row)), card_N[member], row))
        first = np.ones(len(row), bool)
        same_row, same_card = row[by_card][1:] == row[by_card][:-1], np.diff(card_N[member][by_card]) == 0
        first[by_card[1:]] = ~(same_row & same_card)
        row, member, score = row[first], member[first], score[first]
        place = np.arange(len(row)) - np.searchsorted(row, np.arange(len(rows)))[row]
        keep = place < self.member_NW.shape[1]
        new = Lists.empty(len(rows), self.member_NW.shape[1])
        new.member_NW[row[keep], place[keep]] = member[keep]
        new.score_NW[row[keep], place[keep]] = score[keep]
        self.member_NW[rows], self.score_NW[rows] = new.member_NW, new.score_NW


def search(asked: Block, blocks: Iterable[Block], goods: Goods, lists: Lists) -> Lists:
    """The lists of the asked products among all products of the blocks. ``lists``: empty ones, which fill meanwhile."""
    growing = _Growing(lists, goods.card_N)
    for block in blocks:
        for some, those in _tiles(asked[0], block[0][goods.allowed_N[block[0]]], goods.scope_N):
            there = np.flatnonzero(goods.allowed_N[block[0]])[those]
            scores = cosines(asked[1][some], block[1][there])
            growing.enter(some, scores, goods.card_N[asked[0][some]], block[0][there])
    return growing.whole()


class _Growing:
    """Lists, and entries that wait to be merged into them: a merge sorts all of its lists, however few come."""

    def __init__(self, lists: Lists, card_N: np.ndarray):
        self._lists, self._card_N = lists, card_N
        self._waiting: list[Found] = []
        self._num_waiting = 0

    def whole(self) -> Lists:
        """With all that waits."""
        if self._waiting:
            row, member, score = (np.concatenate(parts) for parts in zip(*self._waiting))
            self._lists.merge(row, member, score, self._card_N)
            self._waiting, self._num_waiting = [], 0
        return self._lists

    def enter(self, some: np.ndarray, score_NM: np.ndarray, own_N: np.ndarray, member_M: np.ndarray) -> None:
        """Takes a tile of scores for the lists ``some``: of a row with many good ones the best, more until none is missed."""
        width = self._lists.member_NW.shape[1] + _WIDER
        least = self._lists.last[some]
        at, column = _at_least(score_NM, least)
        if np.bincount(at, minlength=1).max() <= width:
            self._take(some, score_NM, own_N, member_M, (at, column))
            return
        lists, waiting = self.whole(), np.arange(len(some))
        while len(waiting):
            scores, least = score_NM[waiting], lists.last[some[waiting]]
            many = np.bincount(_at_least(scores, least)[0], minlength=len(waiting)) > width
            if many.any():
                least[many] = np.maximum(least[many], np.partition(scores[many], -width, axis=1)[:, -width])
            self._take(some[waiting], scores, own_N[waiting], member_M, _at_least(scores, least))
            lists = self.whole()
            waiting, width = waiting[many & (lists.last[some[waiting]] < least)], width * 4

    def _take(self, some: np.ndarray, score_NM: np.ndarray, own_N: np.ndarray, member_M: np.ndarray, where: Where) -> None:
        at, column = where
        other = self._card_N[member_M[column]] != own_N[at]
        at, column = at[other], column[other]
        if len(at):
            self._waiting.append((some[at], member_M[column], score_NM[at, column]))
            self._num_waiting += len(at)
        if self._num_waiting > self._lists.member_NW.size:
            self.whole()


def _at_least(score_NM: np.ndarray, least_N: np.ndarray) -> Where:
    """Row and column of the scores that reach their row's least."""
    return np.divmod(np.flatnonzero(score_NM >= least_N[:, None]), max(1, score_NM.shape[1]))


def arrivals(block: Block, came: Block, least_N: np.ndarray, goods: Goods) -> Found:
    """Which products that came are as good as the least (N, of all products) that matters to those of the block."""
    found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
    for some, those in _tiles(block[0], came[0], goods.scope_N):
        scores = cosines(block[1][some], came[1][those])
        at, column = _at_least(scores, least_N[block[0][some]])
        rows, members = block[0][some[at]], came[0][those[column]]
        other = goods.card_N[rows] != goods.card_N[members]
        found.append((rows[other], members[other], scores[at, column][other]))
    rows, members, scores = (np.concatenate(parts) for parts in zip(*found))
    return rows, members, scores


@dataclass(frozen=True)
class Sieve:
    """Tells by rounded scores which products of a block may matter: to the ``asked`` lists as far as they have come, ``lists``,
    or, if any of ``came`` is as good as the least (N, of all products) that matters to them. Costs a sixth of exact scores."""

    asked: Block
    lists: Lists
    came: Block
    least_N: np.ndarray
    scope_N: np.ndarray

    def of(self, positions: np.ndarray, vectors_ND: np.ndarray) -> np.ndarray:
        """bool (N,). ``vectors_ND``: as stored, float32. True wherever a score cannot be trusted."""
        length = np.sqrt(np.einsum("nd,nd->n", vectors_ND, vectors_ND))
        doubtful = ~((length > _SHORTEST) & (length < 1 / _SHORTEST))
        slack, keep, scope_N = np.float32(_SLACK * (vectors_ND.shape[1] + 64)), doubtful.copy(), self.scope_N[positions]
        length[doubtful] = 1
        last_A, least_N = self.lists.last - slack, (self.least_N[positions] - slack) * length
        for (there, grid), is_asked in ((self.asked, True), (self.came, False)):
            units, scope_M = (grid * 2.0**-_BITS).astype(np.float32), self.scope_N[there]
            for rows, those in _tiles_of(scope_N, scope_M):
                whole = len(rows) == len(vectors_ND)
                some_ND, long_R, least_R, scope_R = (a if whole else a[rows] for a in (vectors_ND, length, least_N, scope_N))
                good = np.zeros(len(rows), bool)
                for score_R, one in zip(_products(some_ND, units[those]), those.tolist()):
                    good |= (score_R >= (last_A[one] * long_R if is_asked else least_R)) & (scope_R == scope_M[one])
                keep[rows] |= good
        return keep


def _products(a_ND: np.ndarray, b_MD: np.ndarray) -> np.ndarray:
    """float32 (M, N). Few rows of ``b_MD`` are multiplied in pieces that BLAS gives to one thread."""
    high = _ALONE // max(1, b_MD.size)
    if high < _LEAST_ROWS:
        return b_MD @ a_ND.T
    found = np.empty((len(b_MD), len(a_ND)), np.float32)
    for start in range(0, len(a_ND), high):
        np.matmul(b_MD, a_ND[start : start + high].T, out=found[:, start : start + high])
    return found


def _tiles_of(scope_N: np.ndarray, scope_M: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices whose scopes are equal, and, where they are few, others."""
    every = np.arange(len(scope_N))
    if len(scope_M) <= _FEW:
        if len(scope_M):
            yield every, np.arange(len(scope_M))
        return
    yield from _tiles(every, np.arange(len(scope_M)), scope_N, scope_M)


def _tiles(
    a_N: np.ndarray, b_M: np.ndarray, scope_a: np.ndarray, scope_b: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices into ``a_N`` and ``b_M`` of products that share a scope, few enough at once."""
    of_a, of_b = scope_a[a_N], (scope_a if scope_b is None else scope_b)[b_M]
    for one in np.intersect1d(of_a, of_b):
        rows, columns = np.flatnonzero(of_a == one), np.flatnonzero(of_b == one)
        high = max(1, _CELLS // len(columns))
        yield from ((rows[i : i + high], columns) for i in range(0, len(rows), high))
