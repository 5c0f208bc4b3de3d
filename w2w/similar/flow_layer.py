"""A night on which little changed: what came into the tables is looked up in the lists' numbers (``base``), and only the lists
that change are read and written, as a layer beside the others. What remains in proportion to the catalog is one look at each
vector and at each number of a list.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.engine.shuffle import check_lengths, to_matrix
from w2w.errors import UsageError
from w2w.index.filters import NEEDS, SEEN, allowed, texts
from w2w.similar import cards, rules
from w2w.similar.base import MOST_WAITING, beside_name, keys_to_bytes, read_base
from w2w.similar.cards import Known
from w2w.similar.flow import Made, SimilarConfig
from w2w.similar.flow_cards import cards_after, keys_before, keys_now
from w2w.similar.rules import Block, Found, Goods, Kept, Lists
from w2w.table import changes, delta
from w2w.table.permitted import SEARCH, permitted

_BATCH_BYTES, _LEAST_ROWS, _MOST_ROWS = 16_000_000, 2048, 65_536  # vectors read at once
_MOST_ASKED, _MOST_CAME = 4096, 4096  # products, held on the grid: 84 MB at 1280 dimensions
_MOST_PAIRS = 2_000_000_000  # rounded scores: seconds
_MOST_LAYERS = 100  # each a part that readers open
_FEW_LATER = 2000  # names that are looked up one by one
_CELLS = 65_536  # lists looked through at once
_LISTS = (schema.SIMILAR_LIST, schema.SPARE, schema.PLACES, schema.COMPLETE)
_OWN = (schema.PRODUCT_ID, schema.LAYER, schema.PLACE)
_LAYER = (*_OWN, schema.ACTIVE, schema.IMAGE_ID, schema.CATEGORY, schema.CARD, schema.ALLOWED, *_LISTS)


@dataclass(frozen=True)
class Layer:
    """What a night adds to the table: ``rows`` to its version ``at``; and what it found. For the next night: ``standing``, and
    keys ``beside`` those of the base."""

    rows: pa.Table
    at: int
    standing: dict[str, Any]
    new: int
    gone: int
    came: int
    anew: int
    computed: int
    beside: bytes | None


class _Beside(Exception):
    """This night is none of those: all is read."""


def layer(
    store: str, made: Made | None, model: str, version: str, config: SimilarConfig, before: dict[str, Any]
) -> Layer | None:
    """The lists that change tonight; None where all is to be read, or has changed. ``before``: ``standing`` before anything is
    read."""
    if made is None or not made.standing.get("base") or made.standing.get("waiting") is None:
        return None
    if made.standing["found"]["products"] < config.layer_from:
        return None
    try:
        return _Night(store, made, model, version, config).layer(before)
    except _Beside:
        return None


@dataclass(frozen=True)
class _Rows:
    """Rows beside the snapshot that count, one for each place: the last one. ``at``: their places; ``member_RW``: places."""

    table: pa.Table
    at: np.ndarray
    picture_N2: np.ndarray
    member_RW: np.ndarray
    score_RW: np.ndarray
    count_R: np.ndarray


@dataclass
class _State:
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

    def grown(self, num: int) -> "_State":
        fill = {"bound": np.inf, "last": -1, "row": -1}
        more = {n: np.full((num, *a.shape[1:]), fill.get(n, 0), a.dtype) for n, a in vars(self).items()}
        more["card"] = np.arange(len(self.card), len(self.card) + num, dtype=self.card.dtype)
        return _State(**{n: np.concatenate([a, more[n]]) for n, a in vars(self).items()})

    def of(self, places: np.ndarray | slice) -> "_State":
        return _State(**{n: a[places] for n, a in vars(self).items()})


class _Night:
    def __init__(self, store: str, made: Made, model: str, version: str, config: SimilarConfig):
        self._store, self._made, self._model, self._version, self._config = store, made, model, version, config
        self._width = config.k + config.spare

    def layer(self, before: dict[str, Any]) -> Layer:
        changed = self._changed()
        found = read_base(self._store, self._config.name, self._made.standing["base"])
        if found is None or (found.keys is not None) != self._config.collapse:
            raise _Beside
        self._base, self._categories = found, list(found.categories)
        self._vectors()
        self._read_table()
        return self._compared(changed, before)

    # what came

    def _since(self, table: schema.Table, **partition: str) -> list[delta.Part]:
        told = self._made.standing["tables"].get(table.name)
        opened = delta.open_table(self._store, table)
        if not told or opened is None:
            raise _Beside
        listed = delta.parts(opened, **partition)
        came = changes.since(self._store, table, opened, changes.At(**told), listed, partition)
        if isinstance(came, str) or came.removed or came.merged_new:
            raise _Beside
        return came.added

    def _changed(self) -> pa.Table:
        """The newest rows of the products that came since: product_id, image_id, category, ``active`` (and search may use the
        picture), ``allowed``, and ``refused``; with ``collapse`` what their cards depend on."""
        wanted = texts(self._config.filter)
        if any(name.startswith(SEEN) for name in wanted):
            raise _Beside
        columns = [schema.PRODUCT_ID, schema.FETCHED_AT, schema.IMAGE_ID, schema.CATEGORY, schema.ACTIVE]
        on_cards = cards.NEEDS if self._config.collapse else ()
        columns = list(dict.fromkeys([*columns, *(NEEDS if wanted else ()), *on_cards]))
        empty = pa.schema([schema.PRODUCTS.schema.field(c) for c in columns]).empty_table()
        added = self._since(schema.PRODUCTS)
        if sum(part.rows for part in added) > self._most_beside:
            raise _Beside
        rows = pa.concat_tables([empty, *delta.read_batches(self._store, schema.PRODUCTS, columns, added)])
        rows = delta.newest_of_each(rows, schema.PRODUCT_ID).combine_chunks()
        active = rows.column(schema.ACTIVE).to_numpy(zero_copy_only=False).astype(bool)
        may = permitted(self._store, SEARCH).mask(rows.column(schema.IMAGE_ID))
        try:
            passes = allowed(rows, wanted) if wanted and rows.num_rows else active
        except UsageError:  # none of these has the attribute: another product may
            raise _Beside from None
        said = {schema.ACTIVE: active & may, schema.ALLOWED: passes & may, "refused": active & ~may}
        for name, mask in said.items():
            at = rows.schema.get_field_index(name)
            rows = rows.append_column(name, pa.array(mask)) if at < 0 else rows.set_column(at, name, pa.array(mask))
        return rows.select(list(dict.fromkeys([schema.PRODUCT_ID, schema.IMAGE_ID, schema.CATEGORY, *on_cards, *said])))

    @property
    def _most_beside(self) -> float:
        return self._config.layer_share * self._made.standing["found"]["products"]

    def _vectors(self) -> None:
        """Lists the vectors: those of the snapshot, then those that came."""
        of_model = {schema.MODEL_VERSION: self._model}
        listed = {p.path: p for p in delta.parts(delta.open_table(self._store, schema.EMBEDDINGS), **of_model)}
        known = [path for path, _ in self._base.parts]
        if not listed.keys() >= set(known):
            raise _Beside
        more = [listed[path] for path in sorted(listed.keys() - set(known))]
        self._parts = [listed[path] for path in known] + more
        self._num_known = sum(rows for _, rows in self._base.parts)
        self._since(schema.EMBEDDINGS, **of_model)
        self._more = ids.Places(_hashes(self._store, schema.EMBEDDINGS, more))
        late = self._more.find(np.array([w[2:4] for w in self._waiting if not w[4]], np.uint64).reshape(-1, 2))
        self._late = [w for w, at in zip([w for w in self._waiting if not w[4]], late) if at >= 0]

    @cached_property
    def _waiting(self) -> list[list[int]]:
        """Active products without a list: two hashes of the product's id, two of the image's, and whether search may not use
        it."""
        return self._made.standing["waiting"]

    def _rows_of(self, picture_N2: np.ndarray) -> np.ndarray:
        """int64: rows of the vectors of these pictures, -1 without one."""
        more = self._more.find(picture_N2)
        return np.where(more >= 0, more + self._num_known, self._base.owners.find(picture_N2))

    # what is stored

    def _read_table(self) -> None:
        """The ids of all places, and the rows beside the snapshot."""
        table, opened = schema.SIMILAR_PRODUCTS, self._made.opened
        self._listed = delta.parts(opened, **{schema.SOURCE: self._config.name})
        num = len(self._base.row_N)
        names, place, some = [], [], [_empty(_LAYER)]
        for part in self._listed:
            rows = pa.concat_tables(delta.read_batches(self._store, table, _OWN, [part]))
            if rows.column(1).null_count or rows.column(2).null_count:
                raise _Beside
            of_base = rows.column(1).to_numpy() == 0
            names.append(rows.column(0).filter(pa.array(of_base)))
            place.append(rows.column(2).to_numpy()[of_base])
            if not of_base.all():
                if of_base.any():  # merged: reading all of it is no less than what is to be spared
                    raise _Beside
                some += delta.read_batches(self._store, table, _LAYER, [part])
        ids_N, place_N = pa.chunked_array([c for n in names for c in n.chunks], pa.string()), np.concatenate(place)
        order = np.argsort(place_N, kind="stable")
        if not np.array_equal(place_N[order], np.arange(num)):
            raise _Beside
        self._ids = (ids_N if np.array_equal(order, np.arange(num)) else ids_N.take(pa.array(order))).combine_chunks()
        beside = pa.concat_tables(some)
        self._num_beside = beside.num_rows
        self._layers = pc.max(beside.column(schema.LAYER)).as_py() or 0
        if self._layers >= _MOST_LAYERS:
            raise _Beside
        at, layers = (beside.column(c).to_numpy() for c in (schema.PLACE, schema.LAYER))
        order = np.lexsort((layers, at))
        last = np.append(at[order][1:] != at[order][:-1], True)[: len(order)]
        rows = beside.take(pa.array(order[last])).combine_chunks()
        at = rows.column(schema.PLACE).to_numpy().astype(np.int64)
        where = rows.column(schema.PLACES).combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.int32)
        pictures = ids.hash_keys_128(rows.column(schema.IMAGE_ID))
        self._beside = _Rows(rows, at, pictures, *rules.in_numbers(rows, where, self._width))
        later = at[at >= num]
        if not np.array_equal(later, np.arange(num, num + len(later))):
            raise _Beside
        self._later = rows.column(schema.PRODUCT_ID).filter(pa.array(at >= num)).to_pylist()

    def _state(self, room: int) -> _State:
        """With ``room`` for so many more places."""
        base, rows, num = self._base, self._beside, len(self._base.row_N)
        state = _State(
            np.ones(num, bool),
            base.allowed_N,
            base.category_N,
            base.card_N,
            base.picture_N2,
            base.row_N,
            base.bound_N,
            base.last_N,
            base.complete_N,
        ).grown(len(self._later) + room)
        at, each = rows.at, np.arange(len(rows.at))
        state.alive[at], state.allowed[at], state.complete[at] = (
            rules.bools(rows.table.column(c)) for c in (schema.ACTIVE, schema.ALLOWED, schema.COMPLETE)
        )
        state.category[at], state.picture[at] = self._codes(rows.table.column(schema.CATEGORY)), rows.picture_N2
        state.row[at] = self._rows_of(rows.picture_N2)
        state.card[at] = self._places_of(rows.table.column(schema.CARD))
        end = np.maximum(rows.count_R - 1, 0)
        state.bound[at] = np.where(rows.count_R > 0, rows.score_RW[each, end], np.float32(np.inf))
        state.last[at] = np.where(rows.count_R > 0, rows.member_RW[each, end], -1)
        state.bound[state.complete] = -np.inf
        if (state.row[state.alive] < 0).any():
            raise _Beside
        return state

    def _codes(self, categories: pa.ChunkedArray) -> np.ndarray:
        for name in pc.unique(categories).to_pylist():
            if name not in self._categories:
                self._categories.append(name)
        return pc.index_in(categories, value_set=pa.array(self._categories, pa.string())).to_numpy().astype(np.int32)

    # the night

    def _compared(self, changed: pa.Table, before: dict[str, Any]) -> Layer:
        room, num = self._state(changed.num_rows), len(self._base.row_N) + len(self._later)
        state = room.of(slice(num))
        product_C2 = ids.hash_keys_128(changed.column(schema.PRODUCT_ID))
        picture_C2 = ids.hash_keys_128(pc.fill_null(changed.column(schema.IMAGE_ID), ""))
        waiting = self._waits(changed, product_C2, picture_C2)
        row_C = self._rows_of(picture_C2)
        now_C = changed.column(schema.ACTIVE).to_numpy() & (row_C >= 0)
        at_C = self._places_of(changed.column(schema.PRODUCT_ID), product_C2)
        names = changed.column(schema.PRODUCT_ID).to_pylist()
        new = np.flatnonzero((at_C < 0) & now_C)
        at_C[new] = len(state.alive) + np.arange(len(new))
        self._later += [names[c] for c in new.tolist()]
        state = room.of(slice(num + len(new)))
        there = at_C >= 0
        changed, at, now, picture = changed.filter(pa.array(there)), at_C[there], now_C[there], picture_C2[there]
        rank = self._ranks()
        places, card, known = at, state.card[at], None
        if self._config.collapse:
            places, card, known = self._cards(changed, at, now, picture, state, rank)
        was = state.of(places)
        state.alive[at], state.allowed[at] = now, now & changed.column(schema.ALLOWED).to_numpy()
        state.category[at], state.picture[at] = self._codes(changed.column(schema.CATEGORY)), picture
        state.row[at], state.card[places] = row_C[there], card
        its = state.of(places)
        same = was.alive & its.alive & (was.category == its.category) & (was.picture == its.picture).all(axis=1)
        same &= was.card == card
        was_allowed, is_allowed = was.alive & was.allowed, its.alive & its.allowed
        stays = same & was_allowed & is_allowed
        lost = np.isin(card, was.card[was_allowed & ~stays])  # cards of which a product may take the place of another
        left, gone, fresh = (places[mask] for mask in (was_allowed & ~stays, was.alive & ~its.alive, ~was.alive & its.alive))
        anew, came = places[its.alive & ~same], places[is_allowed & (~stays | lost)]
        turned = places[same & (was_allowed != is_allowed)]
        state.bound[places[~same]] = np.inf
        pictures = dict(zip(at.tolist(), changed.column(schema.IMAGE_ID).to_pylist()))
        found = _Found(self, state, rank, left, anew, came, len(gone))
        rows = found.rows(turned, gone, pictures, self._layers + 1)
        if self._num_beside + rows.num_rows > self._most_beside:
            raise _Beside
        told = {"products": int(state.alive.sum()), "not_allowed": int((state.alive & ~state.allowed).sum())}
        told |= {"without": sum(not w[4] for w in waiting), "refused": sum(bool(w[4]) for w in waiting)}
        standing = before | {name: self._made.standing[name] for name in ("options", "base")}
        standing |= {"found": told, "waiting": waiting}
        beside = keys_to_bytes(known.at, known.beside) if known else None
        standing["beside"] = beside_name(beside) if beside else None
        counts = len(fresh), len(gone), len(came), len(anew), len(anew) + found.num_short
        return Layer(rows, self._made.opened.version(), standing, *counts, beside)

    def _places_of(self, names: pa.ChunkedArray, hash_N2: np.ndarray | None = None) -> np.ndarray:
        """int64: places of products, -1 of those that never had one."""
        at = self._base.products.find(ids.hash_keys_128(names) if hash_N2 is None else hash_N2)
        later = pc.fill_null(pc.index_in(names, value_set=pa.array(self._later, pa.string())), -1).to_numpy()
        return np.where((at < 0) & (later >= 0), later + len(self._base.row_N), at)

    def _cards(
        self, changed: pa.Table, at: np.ndarray, now: np.ndarray, picture_C2: np.ndarray, state: _State, rank: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, Known]:
        """Places of which the card may be another tonight, and all places of ``changed``; their cards; the keys of all."""
        before = keys_before(self._store, self._config.name, self._base, self._made.standing)
        if before is None or self._since_or_none(schema.DUPLICATES):
            raise _Beside
        same_picture = state.alive[at] & now & (state.picture[at] == picture_C2).all(axis=1)
        colour, images = self._base.colour, self._since_or_none(schema.IMAGES)
        found = keys_now(self._store, changed, at, now, same_picture, before, colour, images)
        after = before.replaced(found.at, found.keys)
        if cards.colour_named(after.named(len(state.alive))) != colour:
            raise _Beside
        alive = state.alive.copy()
        alive[at] = now
        return *cards_after(found.at, state.alive, state.card, alive, before, after, rank), after

    def _since_or_none(self, table: schema.Table) -> list[delta.Part]:
        """Parts that came into a table that may not be there; nothing where it has none."""
        there = delta.open_table(self._store, table) is not None
        return self._since(table) if there or self._made.standing["tables"].get(table.name) else []

    def _ranks(self) -> np.ndarray:
        """int32: the position of each place in the order of ids."""
        num, later = len(self._base.row_N), self._later
        if len(later) <= _FEW_LATER:
            behind = np.array([bisect_left(self._ids, one, key=lambda name: name.as_py()) for one in later], np.int64)
        else:
            behind = pl.Series(self._ids).search_sorted(pl.Series(later, dtype=pl.String)).to_numpy().astype(np.int64)
        rank = np.empty(len(later), np.int64)
        rank[sorted(range(len(later)), key=later.__getitem__)] = np.arange(len(later))
        shift = np.cumsum(np.bincount(behind, minlength=num + 1)[:num])
        return np.concatenate([np.arange(num) + shift, behind + rank]).astype(np.int32)

    def _waits(self, changed: pa.Table, product_C2: np.ndarray, picture_C2: np.ndarray) -> list[list[int]]:
        """Those without a list after tonight."""
        known = {tuple(p): n for n, p in enumerate(product_C2.tolist())}
        if any(tuple(w[:2]) not in known for w in self._late):
            raise _Beside
        row_C, said = self._rows_of(picture_C2), [changed.column(c).to_numpy() for c in (schema.ACTIVE, "refused")]
        kept = [w for w in self._waiting if tuple(w[:2]) not in known]
        active, refused = said
        for c in np.flatnonzero((active & (row_C < 0)) | refused).tolist():
            kept.append([*product_C2[c].tolist(), *picture_C2[c].tolist(), int(refused[c])])
        if len(kept) > MOST_WAITING:
            raise _Beside
        return kept


class _Found:
    """The lists that change. Positions are those in the order of ids, among all products that ever had a place."""

    def __init__(
        self,
        night: _Night,
        state: _State,
        rank: np.ndarray,
        left: np.ndarray,
        anew: np.ndarray,
        came: np.ndarray,
        num_gone: int,
    ):
        self._night, self._state, config = night, state, night._config
        self._at, self._place_P = rank, np.empty_like(rank)  # the position of each place, the place of each position
        self._place_P[rank] = np.arange(len(rank), dtype=np.int32)
        scope = np.zeros_like(state.category) if config.across else state.category
        every = self._place_P
        self._goods = Goods(scope[every], rank[state.card[every]], (state.allowed & state.alive)[every])
        self._bound_P = np.where(state.alive, state.bound, np.float32(np.inf))[every]
        alive = np.flatnonzero(state.alive[every])
        order = np.argsort(state.row[every][alive], kind="stable")
        self._order, self._row = alive[order], state.row[every][alive][order]
        if max(len(anew), len(came)) * len(alive) > _MOST_PAIRS or len(anew) > _MOST_ASKED or len(came) > _MOST_CAME:
            raise _Beside
        self._left, self._anew, self._came = left, np.sort(self._at[anew]), np.sort(self._at[came])
        self._is_beside = np.full(len(state.alive), -1)
        self._is_beside[night._beside.at] = np.arange(len(night._beside.at))
        self._loses = self._losing(left)
        least = np.count_nonzero(self._loses) + len(anew) + num_gone
        if night._num_beside + least > night._most_beside:  # before anything is computed
            raise _Beside
        arrivals, lists = self._scan(self._anew, self._came)
        self._numbers(left, arrivals)
        self._short(lists)

    # scores

    def _blocks(self, some: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Positions and stored vectors, of those positions or of all that have lists."""
        order, row = self._order, self._row
        if some is not None:
            mine = np.isin(order, some)
            order, row = order[mine], row[mine]
        start, dim = 0, None
        for part in self._night._parts:
            low, high = np.searchsorted(row, [start, start + part.rows])
            if low < high:
                size = int(np.clip(_BATCH_BYTES * part.rows // part.size, _LEAST_ROWS, _MOST_ROWS))
                at = start
                for batch in delta.read_batches(self._night._store, schema.EMBEDDINGS, [schema.VECTOR], [part], size):
                    low, high = np.searchsorted(row, [at, at + batch.num_rows])
                    if low < high:
                        pick, column = row[low:high] - at, batch.column(0).combine_chunks()
                        whole = len(pick) == batch.num_rows and np.array_equal(pick, np.arange(len(pick)))
                        vectors = to_matrix(column if whole else column.take(pa.array(pick)))
                        dim = dim or vectors.shape[1]
                        check_lengths({dim, vectors.shape[1]})
                        yield order[low:high], vectors
                    at += batch.num_rows
            start += part.rows

    def _grids(self, *several: np.ndarray) -> list[Block]:
        """The vectors of some positions on the grid, read once."""
        found = [(at, rules.on_grid(vectors)) for at, vectors in self._blocks(np.concatenate(several))]
        if not found:
            return [(some[:0], np.empty((0, 1))) for some in several]
        at, grid = (np.concatenate(each) for each in zip(*found))
        masks = [np.isin(at, some) for some in several]
        return [(at[mask], grid[mask]) for mask in masks]

    def _scan(self, asked_at: np.ndarray, came_at: np.ndarray) -> tuple[Found, tuple[np.ndarray, Lists]]:
        """Which of those that came other lists may take, and the lists of the asked, while all vectors are read once."""
        asked, came = self._grids(asked_at, came_at)
        lists = Lists.empty(len(asked[0]), self._night._width)
        goods, bound = self._goods, self._bound_P
        found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
        sieve = rules.Sieve(asked, lists, came, bound, goods.scope_N)

        def blocks() -> Iterator[Block]:
            for at, vectors in self._blocks() if len(asked[0]) or len(came[0]) else ():
                keep = sieve.of(at, vectors)
                block = at[keep], rules.on_grid(vectors[keep])
                found.append(rules.arrivals(block, came, bound, goods))
                yield block

        rules.search(asked, blocks(), goods, lists)
        row, member, score = (np.concatenate(some) for some in zip(*found))
        return (row, member, score), (asked[0], lists)

    # lists

    def _losing(self, left: np.ndarray) -> np.ndarray:
        """bool, of each place: its list goes on, and has one of those that left."""
        night, state, base = self._night, self._state, self._night._base
        gone = np.zeros(len(state.alive) + 1, bool)
        gone[left] = True
        loses = np.zeros(len(state.alive), bool)
        for start in range(0, len(base.row_N) if len(left) else 0, _CELLS):
            some = base.member_NW[start : start + _CELLS]
            loses[start : start + len(some)] = gone.take(some, mode="wrap").any(axis=1)
        loses[night._beside.at] = gone.take(night._beside.member_RW, mode="wrap").any(axis=1)
        self._is_anew = np.zeros(len(state.alive), bool)
        self._is_anew[self._place_P[self._anew]] = True
        return loses & state.alive & ~self._is_anew

    def _numbers(self, left: np.ndarray, arrivals: Found) -> None:
        """The stored lists that lose or get something, by position, brought up to date among the products that they name."""
        night, state = self._night, self._state
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
            Lists.empty(len(names), night._width),
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
        self._short_at = own[kept.short(night._config.k)[here]]
        member = kept.lists.member_NW[here]
        self._now = np.where(member >= 0, names[member], -1).astype(np.int32), kept.lists.score_NW[here], kept.complete_N[here]

    def _stored(self, places: np.ndarray, what: str) -> np.ndarray:
        base, rows = getattr(self._night._base, f"{what}_NW"), getattr(self._night._beside, f"{what}_RW")
        found, at = np.empty((len(places), self._night._width), base.dtype), self._is_beside[places]
        found[at < 0], found[at >= 0] = base[places[at < 0]], rows[at[at >= 0]]
        return found

    def _short(self, lists: tuple[np.ndarray, Lists]) -> None:
        """Computes those anew that became too short."""
        self.num_short = len(self._short_at)
        if self.num_short > _MOST_ASKED:
            raise _Beside
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
        night, state = self._night, self._state
        more = np.setdiff1d(turned, self.changed)
        member, score = (self._stored(more, one) for one in ("member", "score"))
        none = Lists.empty(len(gone), night._width)
        to_place = np.append(self._place_P, np.int32(-1))
        members = np.concatenate([to_place[self.lists.member_NW], member, none.member_NW])
        scores = np.concatenate([self.lists.score_NW, score, none.score_NW])
        complete = np.concatenate([self.complete, state.complete[more], np.zeros(len(gone), bool)])
        places = np.concatenate([self.changed, more, gone])
        order = np.argsort(places, kind="stable")
        places, members, scores, complete = places[order], members[order], scores[order], complete[order]
        names = pa.concat_arrays([night._ids, pa.array(night._later, pa.string())])
        k = night._config.k
        said = {
            schema.SIMILAR_LIST: rules.listed(names, members[:, :k], scores[:, :k]),
            schema.SPARE: rules.listed(names, members[:, k:], scores[:, k:]),
            schema.PLACES: rules.placed(members),
            schema.PRODUCT_ID: names.take(pa.array(places)),
            schema.COMPLETE: pa.array(complete),
            schema.IMAGE_ID: self._pictures(places, pictures),
            schema.CATEGORY: pa.array(night._categories, pa.string()).take(pa.array(state.category[places])),
            schema.CARD: names.take(pa.array(state.card[places])),
            schema.ALLOWED: pa.array(state.allowed[places]),
            schema.PLACE: pa.array(places.astype(np.int32)),
            schema.ACTIVE: pa.array(state.alive[places]),
        }
        for name, value in (
            (schema.MODEL_VERSION, night._model),
            (schema.STAGE_VERSION, night._version),
            (schema.SOURCE, night._config.name),
            (schema.LAYER, number),
        ):
            said[name] = pa.repeat(pa.scalar(value), len(places))
        kinds = schema.SIMILAR_PRODUCTS.schema
        return pa.table([said[f.name].cast(f.type) for f in kinds], schema=kinds)

    def _pictures(self, places: np.ndarray, known: dict[int, str]) -> pa.Array:
        """Image ids: of tonight, of the rows beside the snapshot, of its own rows."""
        night, num = self._night, len(self._night._base.row_N)
        beside = dict(zip(night._beside.at.tolist(), night._beside.table.column(schema.IMAGE_ID).to_pylist()))
        due = [p for p in places.tolist() if not known.get(p) and p not in beside]
        wanted, stored = np.zeros(num, bool), dict[int, str]()
        wanted[due] = True
        columns = [schema.IMAGE_ID, schema.PLACE, schema.LAYER]
        for rows in delta.read_batches(night._store, schema.SIMILAR_PRODUCTS, columns, night._listed) if due else ():
            here = np.flatnonzero(rows.column(2).to_numpy() == 0)
            here = here[wanted[rows.column(1).to_numpy()[here]]]
            some = rows.take(pa.array(here))
            stored.update(zip(some.column(1).to_pylist(), some.column(0).to_pylist()))
        return pa.array([known.get(p) or beside.get(p) or stored[p] for p in places.tolist()], pa.string())


def _hashes(store: str, table: schema.Table, listed: Sequence[delta.Part]) -> np.ndarray:
    found = [ids.hash_keys_128(b.column(0)) for b in delta.read_batches(store, table, [table.key[0]], listed)]
    return np.concatenate([np.empty((0, 2), np.uint64), *found])


def _empty(columns: Sequence[str]) -> pa.Table:
    return pa.schema([schema.SIMILAR_PRODUCTS.schema.field(c) for c in columns]).empty_table()
