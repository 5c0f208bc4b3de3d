"""The lists that change in a night on which little does: found by one look at each vector, and written as rows of a layer."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from w2w import schema
from w2w.similar import exact, rules
from w2w.similar.base import Base
from w2w.similar.exact import Block, Found, Goods, Lists
from w2w.similar.flow import SimilarConfig
from w2w.similar.flow_search import stored_vectors
from w2w.similar.rules import Kept
from w2w.table import delta

_BATCH_BYTES, _LEAST_ROWS, _MOST_ROWS = 16_000_000, 2048, 65_536  # vectors read at once
_MOST_ASKED, _MOST_CAME = 4096, 4096  # products, held on the grid: 84 MB at 1280 dimensions
_MOST_PAIRS = 2_000_000_000  # rounded scores: seconds
_AT_ONCE = 65_536  # vectors of the copy looked at


class ReadAll(Exception):
    """This night is none of those: all is read."""


@dataclass(frozen=True)
class RowsBeside:
    """Rows beside the snapshot that count, one for each place: the last one. ``at``: their places; ``member_RW``: places."""

    table: pa.Table
    at: np.ndarray
    picture_N2: np.ndarray
    member_RW: np.ndarray
    score_RW: np.ndarray
    count_R: np.ndarray


@dataclass
class State:
    """Of every product that ever had a place since the snapshot: as in ``Base``, and whether it has a list; ``card`` is a
    place."""

    alive: np.ndarray
    allowed: np.ndarray
    category: np.ndarray
    card: np.ndarray
    picture: np.ndarray
    row: np.ndarray
    bound: np.ndarray
    last: np.ndarray
    complete: np.ndarray

    def grown(self, num: int) -> "State":
        fill = {"bound": np.inf, "last": -1, "row": -1}
        more = {n: np.full((num, *a.shape[1:]), fill.get(n, 0), a.dtype) for n, a in vars(self).items()}
        more["card"] = np.arange(len(self.card), len(self.card) + num, dtype=self.card.dtype)
        return State(**{n: np.concatenate([a, more[n]]) for n, a in vars(self).items()})

    def of(self, places: np.ndarray | slice) -> "State":
        return State(**{n: a[places] for n, a in vars(self).items()})


@dataclass(frozen=True)
class Stored:
    """The lists as they stand: ``base`` the snapshot, of the products ``ids`` in the order of places, ``beside`` the rows that
    came since, of them the products ``later``; ``parts`` of table `embeddings`."""

    store: str
    config: SimilarConfig
    model: str
    version: str
    base: Base
    beside: RowsBeside
    num_beside: int
    most_beside: float
    ids: pa.Array
    later: list[str]
    categories: list[str]
    parts: list[delta.Part]

    @property
    def width(self) -> int:
        return self.config.k + self.config.spare


class ChangedLists:
    """The lists that change. Positions are those in the order of ids, among all products that ever had a place."""

    def __init__(
        self,
        stored: Stored,
        state: State,
        rank: np.ndarray,
        left: np.ndarray,
        anew: np.ndarray,
        came: np.ndarray,
        num_gone: int,
    ):
        self._of, self._state, config = stored, state, stored.config
        self._at, self._place_P = rank, np.empty_like(rank)  # the position of each place, the place of each position
        self._place_P[rank] = np.arange(len(rank), dtype=np.int32)
        scope = np.zeros_like(state.category) if config.across else state.category
        every = self._place_P
        self._goods = Goods(scope[every], rank[state.card[every]], (state.allowed & state.alive)[every])
        self._bound_P = np.where(state.alive, state.bound, np.float32(np.inf))[every]
        alive = self._by_row()
        self._order, self._row = rank[alive], state.row[alive]
        if max(len(anew), len(came)) * len(alive) > _MOST_PAIRS or len(anew) > _MOST_ASKED or len(came) > _MOST_CAME:
            raise ReadAll
        self._left, self._anew, self._came = left, np.sort(self._at[anew]), np.sort(self._at[came])
        self._is_beside = np.full(len(state.alive), -1)
        self._is_beside[stored.beside.at] = np.arange(len(stored.beside.at))
        self._loses = self._losing(left)
        least = np.count_nonzero(self._loses) + len(anew) + num_gone
        if stored.num_beside + least > stored.most_beside:  # before anything is computed
            raise ReadAll
        arrivals, lists = self._scan(self._anew, self._came)
        self._numbers(left, arrivals)
        self._short(lists)

    # scores

    def _by_row(self) -> np.ndarray:
        """int32: places of all that have lists, by the row of their vector."""
        state, base = self._state, self._of.base
        same = np.zeros(len(state.alive), bool)
        same[: len(base.row_N)] = state.row[: len(base.row_N)] == base.row_N
        places = base.order_N[(same & state.alive)[base.order_N]]
        others = np.flatnonzero(state.alive & ~same).astype(np.int32)
        others = others[np.argsort(state.row[others], kind="stable")]
        return np.insert(places, np.searchsorted(state.row[places], state.row[others]), others)

    def _blocks(self, some: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Positions and stored vectors, of those positions or of all that have lists."""
        order, row = self._order, self._row
        if some is not None:
            mine = np.zeros(len(self._at), bool)
            mine[some] = True
            mine = mine[order]
            order, row = order[mine], row[mine]
        listed, start, dim, copy = self._of.parts, 0, None, self._of.base.vector_RD
        if copy is not None:
            dim = copy.shape[1]
            yield from _copied(copy, order, row)
            while listed and start < len(copy):
                start, listed = start + listed[0].rows, listed[1:]
        yield from stored_vectors(self._of.store, listed, order, row, start, (_BATCH_BYTES, _LEAST_ROWS, _MOST_ROWS), dim)

    def _grids(self, *several: np.ndarray) -> list[Block]:
        """The vectors of some positions on the grid, read once."""
        found = [(at, exact.on_grid(vectors)) for at, vectors in self._blocks(np.concatenate(several))]
        if not found:
            return [(some[:0], np.empty((0, 1))) for some in several]
        at, grid = (np.concatenate(each) for each in zip(*found))
        masks = [np.isin(at, some) for some in several]
        return [(at[mask], grid[mask]) for mask in masks]

    def _scan(self, asked_at: np.ndarray, came_at: np.ndarray) -> tuple[Found, tuple[np.ndarray, Lists]]:
        """Which of those that came other lists may take, and the lists of the asked, while all vectors are read once."""
        asked, came = self._grids(asked_at, came_at)
        lists = Lists.empty(len(asked[0]), self._of.width)
        goods, bound = self._goods, self._bound_P
        found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
        sieve = exact.Sieve(asked, lists, came, bound, goods.scope_N)

        def blocks() -> Iterator[Block]:
            for at, vectors in self._blocks() if len(asked[0]) or len(came[0]) else ():
                keep = sieve.of(at, vectors)
                block = at[keep], exact.on_grid(vectors[keep])
                found.append(exact.arrivals(block, came, bound, goods))
                yield block

        exact.search(asked, blocks(), goods, lists)
        row, member, score = (np.concatenate(some) for some in zip(*found))
        return (row, member, score), (asked[0], lists)

    # lists

    def _losing(self, left: np.ndarray) -> np.ndarray:
        """bool, of each place: its list goes on, and has one of those that left."""
        stored, state, base = self._of, self._state, self._of.base
        gone = np.zeros(len(state.alive) + 1, bool)
        gone[left] = True
        loses = np.zeros(len(state.alive), bool)
        loses[base.holders.find(left)] = True
        loses[stored.beside.at] = gone.take(stored.beside.member_RW, mode="wrap").any(axis=1)
        self._is_anew = np.zeros(len(state.alive), bool)
        self._is_anew[self._place_P[self._anew]] = True
        return loses & state.alive & ~self._is_anew

    def _numbers(self, left: np.ndarray, arrivals: Found) -> None:
        """The stored lists that lose or get something, by position, brought up to date among the products that they name."""
        stored, state = self._of, self._state
        gone = np.zeros(len(state.alive) + 1, bool)
        gone[left] = True
        gets = np.zeros(len(state.alive), bool)
        gets[self._place_P[arrivals[0]]] = True
        self._places = places = np.flatnonzero(self._loses | (gets & state.alive & ~self._is_anew))
        member, score = (self._stored(places, one) for one in ("member", "score"))
        self._before = member, score, state.complete[places].copy()
        own = self._at[places]
        at = np.where(member >= 0, self._at[member], -1)
        names = np.unique(np.concatenate([own, at[at >= 0], arrivals[1]]))
        local = np.searchsorted(names, at)
        local[at < 0] = -1
        here, bound, last = np.searchsorted(names, own), state.bound[places], state.last[places]
        alive_last = (last >= 0) & np.append(state.alive, False)[last]
        last = np.where(alive_last, np.searchsorted(names, self._at[last]), -1)
        kept = Kept(
            Lists.empty(len(names), stored.width),
            np.ones(len(names), bool),
            np.full(len(names), np.inf, np.float32),
            np.full(len(names), -1, np.int64),
        )
        kept.complete_N[here], kept.bound_N[here], kept.last_N[here] = state.complete[places], bound, last
        stays = (member >= 0) & ~gone.take(member, mode="wrap")
        stays &= ~((score == bound[:, None]) & (local > last[:, None]))
        row, column = np.nonzero(stays)
        slot = np.arange(len(row)) - np.searchsorted(row, row)
        kept.lists.member_NW[here[row], slot], kept.lists.score_NW[here[row], slot] = local[row, column], score[row, column]
        rows, members, scores = arrivals
        kept.take((np.searchsorted(names, rows), np.searchsorted(names, members), scores), self._goods.card_N[names])
        self._short_at = own[kept.short(stored.config.k)[here]]
        member = kept.lists.member_NW[here]
        self._now = np.where(member >= 0, names[member], -1).astype(np.int32), kept.lists.score_NW[here], kept.complete_N[here]

    def _stored(self, places: np.ndarray, what: str) -> np.ndarray:
        base, rows = getattr(self._of.base, f"{what}_NW"), getattr(self._of.beside, f"{what}_RW")
        found, at = np.empty((len(places), self._of.width), base.dtype), self._is_beside[places]
        found[at < 0], found[at >= 0] = base[places[at < 0]], rows[at[at >= 0]]
        return found

    def _short(self, lists: tuple[np.ndarray, Lists]) -> None:
        """Computes those anew that became too short."""
        self.num_short = len(self._short_at)
        if self.num_short > _MOST_ASKED:
            raise ReadAll
        again = self._scan(self._short_at, self._came[:0])[1] if self.num_short else (self._short_at, Lists.empty(0, 1))
        member, score, complete = self._now
        if self.num_short:
            own = self._at[self._places]
            order = np.argsort(own)
            at = order[np.searchsorted(own[order], again[0])]
            member[at], score[at], complete[at] = again[1].member_NW, again[1].score_NW, again[1].member_NW[:, -1] < 0
        places, found = self._place_P[lists[0]], lists[1]
        to_place = np.where(member >= 0, self._place_P[member], -1)
        old_member, old_score, old_complete = self._before
        other = (to_place != old_member).any(axis=1) | (score != old_score).any(axis=1) | (complete != old_complete)
        self.changed = np.concatenate([self._places[other], places])
        self.lists = Lists(np.concatenate([member[other], found.member_NW]), np.concatenate([score[other], found.score_NW]))
        self.complete = np.concatenate([complete[other], found.member_NW[:, -1] < 0])

    # rows

    def rows(self, turned: np.ndarray, gone: np.ndarray, pictures: dict[int, str], number: int) -> pa.Table:
        """The layer: changed lists, those of products that a filter now lets in or keeps out, and those that are gone."""
        stored, state = self._of, self._state
        more = np.setdiff1d(turned, self.changed)
        member, score = (self._stored(more, one) for one in ("member", "score"))
        none = Lists.empty(len(gone), stored.width)
        to_place = np.append(self._place_P, np.int32(-1))
        members = np.concatenate([to_place[self.lists.member_NW], member, none.member_NW])
        scores = np.concatenate([self.lists.score_NW, score, none.score_NW])
        complete = np.concatenate([self.complete, state.complete[more], np.zeros(len(gone), bool)])
        places = np.concatenate([self.changed, more, gone])
        order = np.argsort(places, kind="stable")
        places, members, scores, complete = places[order], members[order], scores[order], complete[order]
        names = pa.concat_arrays([stored.ids, pa.array(stored.later, pa.string())])
        k = stored.config.k
        said = {
            schema.SIMILAR_LIST: rules.listed(names, members[:, :k], scores[:, :k]),
            schema.SPARE: rules.listed(names, members[:, k:], scores[:, k:]),
            schema.PLACES: rules.placed(members),
            schema.PRODUCT_ID: names.take(pa.array(places)),
            schema.COMPLETE: pa.array(complete),
            schema.IMAGE_ID: self._pictures(places, pictures),
            schema.CATEGORY: pa.array(stored.categories, pa.string()).take(pa.array(state.category[places])),
            schema.CARD: names.take(pa.array(state.card[places])),
            schema.ALLOWED: pa.array(state.allowed[places]),
            schema.PLACE: pa.array(places.astype(np.int32)),
            schema.ACTIVE: pa.array(state.alive[places]),
        }
        for name, value in (
            (schema.MODEL_VERSION, stored.model),
            (schema.STAGE_VERSION, stored.version),
            (schema.SOURCE, stored.config.name),
            (schema.LAYER, number),
        ):
            said[name] = pa.repeat(pa.scalar(value), len(places))
        kinds = schema.SIMILAR_PRODUCTS.schema
        return pa.table([said[f.name].cast(f.type) for f in kinds], schema=kinds)

    def _pictures(self, places: np.ndarray, known: dict[int, str]) -> pa.Array:
        """Image ids: of tonight, of the rows beside the snapshot, of its own rows."""
        stored = self._of
        beside = dict(zip(stored.beside.at.tolist(), stored.beside.table.column(schema.IMAGE_ID).to_pylist()))
        due = [p for p in places.tolist() if not known.get(p) and p not in beside]
        of_base = dict(zip(due, stored.base.names.column(1).take(pa.array(due, pa.int64())).to_pylist()))
        return pa.array([known.get(p) or beside.get(p) or of_base[p] for p in places.tolist()], pa.string())


def _copied(copy_RD: np.ndarray, order: np.ndarray, row: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows of the copy among these, ascending; few first, as nothing is ruled out by lists that are empty."""
    num, start, size = int(np.searchsorted(row, len(copy_RD))), 0, _LEAST_ROWS
    most = int(np.clip(_BATCH_BYTES // (4 * max(1, copy_RD.shape[1])), _LEAST_ROWS, _AT_ONCE))
    while start < num:
        some = row[start : min(start + size, num)]
        low, high = int(some[0]), int(some[-1]) + 1
        whole = high - low == len(some) and bool((np.diff(some) == 1).all())
        yield order[start : start + len(some)], copy_RD[low:high] if whole else copy_RD[some]
        start, size = start + len(some), min(2 * size, most)
