"""The products most like each product: found exactly, and kept exact from night to night.

A list is the beginning of the order of all other products by falling score, and by product_id where scores are equal; of the
products on one card it has the best. Three facts keep it without asking again:

- What leaves a list lets the others move up: what is left is still a beginning.
- A product that came, or has changed, enters where it is better than the last of the list as it was. Nothing else can.
- When a product leaves its card, another of that card may take its place: all of that card count as having come.

Lists are kept longer than they are shown, so that few become too short, and only those are computed anew.

Scores must not depend on what a product is compared with at the same time. So vectors are rounded to whole multiples of 2^-26:
every partial sum of a scalar product is then a whole number below 2^53, which float64 holds exactly, in any order of summation.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.errors import JobFailed

_BITS = 26
_CELLS = 4_000_000  # scores held at once
_SHORTEST = 1e-15  # and longest: lengths of vectors whose squares float32 holds
_FEW = 64  # products for which it costs less to compute scores of all than to sort out those of their scope
_ALONE, _LEAST_ROWS = 1 << 18, 256  # multiplications of one thread of OpenBLAS: several that wait for each other spin
_SLACK = 2e-7  # for each dimension: rounded scores differ from exact ones by less
_WIDER = 8  # taken beyond the width of a list, since some share a card
STATE = (schema.IMAGE_ID, schema.CATEGORY, schema.CARD, schema.ALLOWED)


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


Found = tuple[np.ndarray, np.ndarray, np.ndarray]  # positions, those of what they get, and the scores
Where = tuple[np.ndarray, np.ndarray]  # rows and columns
Block = tuple[np.ndarray, np.ndarray]  # positions (M,), and their vectors on the grid (M, D)


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


@dataclass(frozen=True)
class Night:
    """What has changed since the lists were made. ``anew_N``: products whose list is computed anew; ``came``: positions of
    those that may enter other lists; ``stays_N``: may stay where they are; ``gone`` and ``new``: number of products that are
    none now, and were none; ``settled``: nothing has changed; ``at_B``: where those of before stand now, -1 if nowhere."""

    anew_N: np.ndarray
    came: np.ndarray
    stays_N: np.ndarray
    gone: int
    new: int
    settled: bool
    at_B: np.ndarray


def compare(now: pa.Table, before: pa.Table) -> Night:
    """``now`` and ``before``: product_id and STATE of all products; ``now`` in the order of ids."""
    at = _positions(before.column(schema.PRODUCT_ID), now.column(schema.PRODUCT_ID))
    there = np.flatnonzero(at >= 0)
    same_row = np.zeros(before.num_rows, bool)
    same_row[there] = True
    mine = now.take(pa.array(at[there]))
    for column in STATE[:3]:
        old = before.column(column).take(pa.array(there))
        same_row[there] &= pc.equal(old, mine.column(column)).to_numpy(zero_copy_only=False)
    was, allowed_N = bools(before.column(schema.ALLOWED)), bools(now.column(schema.ALLOWED))
    stays_B = same_row & was
    stays_B[there] &= allowed_N[at[there]]
    anew_N, stays_N = np.ones(now.num_rows, bool), np.zeros(now.num_rows, bool)
    anew_N[at[same_row]] = False
    stays_N[at[stays_B]] = True
    left = pc.unique(before.column(schema.CARD).filter(pa.array(was & ~stays_B)))
    beside_N = pc.is_in(now.column(schema.CARD), value_set=left).to_numpy(zero_copy_only=False)
    came = np.flatnonzero(allowed_N & (~stays_N | beside_N))
    settled = not len(came) and not anew_N.any() and bool((same_row & (stays_B | ~was)).all())
    return Night(anew_N, came, stays_N, int((at < 0).sum()), now.num_rows - len(there), settled, at)


@dataclass
class Kept:
    """Lists that go on. ``complete_N``: nothing else is there. What a list may take is better than its old last: ``bound_N`` is
    its score (-inf if complete, inf where the list is computed anew), ``last_N`` its position, -1 if it is none now: then
    nothing of that score is known to be in place."""

    lists: Lists
    complete_N: np.ndarray
    bound_N: np.ndarray
    last_N: np.ndarray

    def take(self, found: Found, card_N: np.ndarray) -> None:
        """Enters what ``arrivals`` found."""
        row, member, score = found
        tied, behind = score == self.bound_N[row], member > self.last_N[row]
        keep = ~(tied & behind)
        self.lists.merge(row[keep], member[keep], score[keep], card_N)
        self.complete_N &= self.lists.member_NW[:, -1] < 0

    def put(self, positions: np.ndarray, lists: Lists) -> None:
        """Lists that were computed anew."""
        self.lists.member_NW[positions], self.lists.score_NW[positions] = lists.member_NW, lists.score_NW
        self.complete_N[positions] = lists.member_NW[:, -1] < 0

    def short(self, count: int) -> np.ndarray:
        """bool (N,): lists that have too few, though there are more."""
        return ~self.complete_N & (self.lists.depth < count)


def keep(now: pa.Table, night: Night, stored: Iterable[pa.Table], width: int, place_B: np.ndarray | None = None) -> Kept:
    """The stored lists (similar, spare, complete), in the order of before, without what does not stay. Where a table of these
    has ``places``, its lists need no names; ``place_B``: where the products of before, in the order of ids, stand now."""
    num, ids = now.num_rows, now.column(schema.PRODUCT_ID).combine_chunks()
    kept = Kept(Lists.empty(num, width), np.zeros(num, bool), np.full(num, np.inf, np.float32), np.full(num, -1, np.int64))
    start = 0
    for rows in stored:
        at = night.at_B[start : start + rows.num_rows]
        start += rows.num_rows
        going = np.flatnonzero(at >= 0)
        going = going[~night.anew_N[at[going]]]
        rows, at = rows if len(going) == rows.num_rows else rows.take(pa.array(going)), at[going]
        if place_B is not None and schema.PLACES in rows.column_names:
            where = place_B[rows.column(schema.PLACES).combine_chunks().flatten().to_numpy()]
        else:
            where = _positions(_names(rows), ids)
            where = where[_behind(_counts(rows))]
        member_RW, score_RW, count_R = in_numbers(rows, where, width)
        each, end = np.arange(len(at)), np.maximum(count_R - 1, 0)
        bound = np.where(count_R > 0, score_RW[each, end], np.float32(np.inf))
        last = np.where(count_R > 0, member_RW[each, end], -1)
        complete = bools(rows.column(schema.COMPLETE))
        bound[complete] = -np.inf
        kept.complete_N[at], kept.bound_N[at], kept.last_N[at] = complete, bound, last
        stays = (member_RW >= 0) & night.stays_N[member_RW]
        stays &= ~((score_RW == bound[:, None]) & (member_RW > last[:, None]))
        whole = stays.sum(axis=1) == count_R
        kept.lists.member_NW[at[whole]], kept.lists.score_NW[at[whole]] = member_RW[whole], score_RW[whole]
        owner, column = np.nonzero(stays & ~whole[:, None])
        place = np.arange(len(owner)) - np.searchsorted(owner, owner)
        kept.lists.member_NW[at[owner], place] = member_RW[owner, column]
        kept.lists.score_NW[at[owner], place] = score_RW[owner, column]
    return kept


def ends(lists: Lists, complete_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``Kept.bound_N`` and ``Kept.last_N`` of lists as they are to be stored."""
    count_N, each = lists.depth, np.arange(len(complete_N))
    end = np.maximum(count_N - 1, 0)
    bound = np.where(count_N > 0, lists.score_NW[each, end], np.float32(np.inf))
    bound[complete_N] = -np.inf
    return bound, np.where(count_N > 0, lists.member_NW[each, end], np.int32(-1))


_BOTH = (schema.SIMILAR_LIST, schema.SPARE)


def _counts(rows: pa.Table) -> np.ndarray:
    """int64 (2, R): lengths of the two lists."""
    return np.stack([pc.list_value_length(rows.column(c).combine_chunks()).to_numpy().astype(np.int64) for c in _BOTH])


def _behind(count_2R: np.ndarray) -> np.ndarray:
    """For entries of both lists, row by row: where each stands among those of all first lists, and then all second ones."""
    before = [np.cumsum(count_2R[1]) - count_2R[1], np.cumsum(count_2R[0])]  # entries of the other list that come first
    place = [np.arange(some.sum()) + np.repeat(shift, some) for some, shift in zip(count_2R, before)]
    behind = np.empty(sum(map(len, place)), np.int64)
    behind[np.concatenate(place)] = np.arange(len(behind))
    return behind


def in_numbers(rows: pa.Table, member: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of R rows the members of both lists (R, W), which are given one after the other, their scores, and how many there are."""
    count_2R = _counts(rows)
    lists = [rows.column(c).combine_chunks().flatten() for c in _BOTH]
    scores = [pc.struct_field(entries, schema.SCORE).to_numpy(zero_copy_only=False) for entries in lists]
    count_R = count_2R.sum(axis=0)
    assert count_R.max(initial=0) <= width
    if len(count_R) and (count_R == width).all() and (count_2R[0] == count_2R[0, 0]).all():
        score_RW = np.concatenate([some.reshape(len(count_R), -1) for some in scores], axis=1)
        return member.reshape(-1, width), score_RW, count_R
    found = Lists.empty(len(count_R), width)
    there = np.arange(width) < count_R[:, None]
    found.member_NW[there], found.score_NW[there] = member, np.concatenate(scores)[_behind(count_2R)]
    return found.member_NW, found.score_NW, count_R


def _names(rows: pa.Table) -> pa.Array:
    """Products of the first lists of all rows, then of the second."""
    lists = [rows.column(c).combine_chunks() for c in _BOTH]
    return pa.concat_arrays([pc.struct_field(column.flatten(), schema.PRODUCT_ID) for column in lists])


def rows_of(now: pa.Table, lists: Lists, complete_N: np.ndarray, some: slice, count: int) -> pa.Table:
    """product_id, similar, spare, places, complete and place of these products."""
    ids = now.column(schema.PRODUCT_ID).combine_chunks()
    columns = slice(0, count), slice(count, None)
    parts = [listed(ids, lists.member_NW[some, those], lists.score_NW[some, those]) for those in columns]
    places = placed(lists.member_NW[some])
    own = pa.array(np.arange(now.num_rows, dtype=np.int32)[some])
    arrays = [ids[some], *parts, places, pa.array(complete_N[some]), own]
    names = [schema.PRODUCT_ID, schema.SIMILAR_LIST, schema.SPARE, schema.PLACES, schema.COMPLETE, schema.PLACE]
    return pa.table(arrays, names=names)


def listed(ids: pa.Array, member_NW: np.ndarray, score_NW: np.ndarray) -> pa.Array:
    """As lists of SIMILAR_PRODUCT. ``ids``: of the products by what stands for them in lists."""
    there = member_NW >= 0
    names = ids.take(pa.array(member_NW[there]))
    entries = pa.StructArray.from_arrays([names, pa.array(score_NW[there])], fields=list(schema.SIMILAR_PRODUCT))
    return pa.ListArray.from_arrays(_offsets(there), entries)


def placed(member_NW: np.ndarray) -> pa.Array:
    """As lists of numbers."""
    return pa.ListArray.from_arrays(_offsets(member_NW >= 0), pa.array(member_NW[member_NW >= 0]))


def _offsets(there_NW: np.ndarray) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(there_NW.sum(axis=1))]).astype(np.int32))


def _positions(asked: pa.Array | pa.ChunkedArray, known: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """int64: where each of the asked is among the known, -1 if nowhere."""
    return pc.fill_null(pc.index_in(asked, value_set=known), -1).to_numpy(zero_copy_only=False).astype(np.int64)


def bools(column: pa.ChunkedArray) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False).astype(bool)
