"""The lists of similar products kept exact from night to night (``w2w.similar.exact`` says what a list is).

Three facts keep it without asking again:

- What leaves a list lets the others move up: what is left is still a beginning.
- A product that came, or has changed, enters where it is better than the last of the list as it was. Nothing else can.
- When a product leaves its card, another of that card may take its place: all of that card count as having come.

Lists are kept longer than they are shown, so that few become too short, and only those are computed anew.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.similar.exact import Found, Lists

STATE = (schema.IMAGE_ID, schema.CATEGORY, schema.CARD, schema.ALLOWED)


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
