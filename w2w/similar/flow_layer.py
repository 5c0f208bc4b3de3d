"""A night on which little changed: what came into the tables is looked up in the lists' numbers (``base``), and only the lists
that change are read and written (``flow_lists``), as a layer beside the others.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.errors import UsageError
from w2w.index.filters import NEEDS, allowed, reads_tags, texts
from w2w.similar import cards, rules
from w2w.similar.base import MOST_WAITING, beside_name, keys_to_bytes, read_base
from w2w.similar.cards import Known
from w2w.similar.flow import Made, SimilarConfig
from w2w.similar.flow_cards import cards_after, keys_before, keys_now
from w2w.similar.flow_lists import ChangedLists, ReadAll, RowsBeside, State, Stored
from w2w.table import changes, delta
from w2w.table.current import newest_of_each
from w2w.table.permitted import SEARCH, permitted

_MOST_LAYERS = 100  # each a part that readers open
_FEW_LATER = 2000  # names that are looked up one by one
_LISTS = (schema.SIMILAR_LIST, schema.SPARE, schema.PLACES, schema.COMPLETE)
_LAYER = (
    *(schema.PRODUCT_ID, schema.LAYER, schema.PLACE, schema.ACTIVE),
    *(schema.IMAGE_ID, schema.CATEGORY, schema.CARD, schema.ALLOWED),
    *_LISTS,
)


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
    except ReadAll:
        return None


class _Night:
    def __init__(self, store: str, made: Made, model: str, version: str, config: SimilarConfig):
        self._store, self._made, self._model, self._version, self._config = store, made, model, version, config
        self._width = config.k + config.spare

    def layer(self, before: dict[str, Any]) -> Layer:
        changed = self._changed()
        found = read_base(self._store, self._config.name, self._made.standing["base"])
        if found is None or (found.keys is not None) != self._config.collapse:
            raise ReadAll
        self._base, self._categories = found, list(found.categories)
        self._vectors()
        self._read_table()
        return self._compared(changed, before)

    # what came

    def _since(self, table: schema.Table, **partition: str) -> list[delta.Part]:
        told = self._made.standing["tables"].get(table.name)
        opened = delta.open_table(self._store, table)
        if not told or opened is None:
            raise ReadAll
        listed = delta.parts(opened, **partition)
        came = changes.since(self._store, table, opened, changes.At(**told), listed, partition)
        if isinstance(came, str) or came.removed or came.merged_new:
            raise ReadAll
        return came.added

    def _changed(self) -> pa.Table:
        """The newest rows of the products that came since: product_id, image_id, category, ``active`` (and search may use the
        picture), ``allowed``, and ``refused``; with ``collapse`` what their cards depend on."""
        wanted = texts(self._config.filter)
        if reads_tags(wanted):
            raise ReadAll
        columns = [schema.PRODUCT_ID, schema.FETCHED_AT, schema.IMAGE_ID, schema.CATEGORY, schema.ACTIVE]
        on_cards = cards.NEEDS if self._config.collapse else ()
        columns = list(dict.fromkeys([*columns, *(NEEDS if wanted else ()), *on_cards]))
        empty = schema.PRODUCTS.empty(columns)
        added = self._since(schema.PRODUCTS)
        if sum(part.rows for part in added) > self._most_beside:
            raise ReadAll
        rows = pa.concat_tables([empty, *delta.read_batches(self._store, schema.PRODUCTS, columns, added)])
        rows = newest_of_each(rows, schema.PRODUCT_ID).combine_chunks()
        active = rows.column(schema.ACTIVE).to_numpy(zero_copy_only=False).astype(bool)
        may = permitted(self._store, SEARCH).mask(rows.column(schema.IMAGE_ID))
        try:
            passes = allowed(rows, wanted) if wanted and rows.num_rows else active
        except UsageError:  # none of these has the attribute: another product may
            raise ReadAll from None
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
            raise ReadAll
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
        """The rows beside the snapshot."""
        table, opened = schema.SIMILAR_PRODUCTS, self._made.opened
        self._listed = delta.parts(opened, **{schema.SOURCE: self._config.name})
        num, run = len(self._base.row_N), self._made.standing["base"]
        of_base = [part for part in self._listed if part.path.split("/")[-1].startswith(f"{run}-")]
        if sum(part.rows for part in of_base) != num:  # merged with others: reading all is no less than what is to be spared
            raise ReadAll
        layers = [part for part in self._listed if part not in of_base]
        beside = pa.concat_tables([table.empty(_LAYER), *delta.read_batches(self._store, table, _LAYER, layers)])
        if (beside.column(schema.LAYER).to_numpy() == 0).any() or beside.column(schema.PLACE).null_count:
            raise ReadAll
        self._ids = self._base.names.column(0)
        self._num_beside = beside.num_rows
        self._layers = pc.max(beside.column(schema.LAYER)).as_py() or 0
        if self._layers >= _MOST_LAYERS:
            raise ReadAll
        at, layers = (beside.column(c).to_numpy() for c in (schema.PLACE, schema.LAYER))
        order = np.lexsort((layers, at))
        last = np.append(at[order][1:] != at[order][:-1], True)[: len(order)]
        rows = beside.take(pa.array(order[last])).combine_chunks()
        at = rows.column(schema.PLACE).to_numpy().astype(np.int64)
        where = rows.column(schema.PLACES).combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.int32)
        pictures = ids.hash_keys_128(rows.column(schema.IMAGE_ID))
        self._beside = RowsBeside(rows, at, pictures, *rules.in_numbers(rows, where, self._width))
        later = at[at >= num]
        if not np.array_equal(later, np.arange(num, num + len(later))):
            raise ReadAll
        self._later = rows.column(schema.PRODUCT_ID).filter(pa.array(at >= num)).to_pylist()

    def _state(self, room: int) -> State:
        """With ``room`` for so many more places."""
        base, rows, num = self._base, self._beside, len(self._base.row_N)
        state = State(
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
            raise ReadAll
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
        found = ChangedLists(self._stored(), state, rank, left, anew, came, len(gone))
        rows = found.rows(turned, gone, pictures, self._layers + 1)
        if self._num_beside + rows.num_rows > self._most_beside:
            raise ReadAll
        told = {"products": int(state.alive.sum()), "not_allowed": int((state.alive & ~state.allowed).sum())}
        told |= {"without": sum(not w[4] for w in waiting), "refused": sum(bool(w[4]) for w in waiting)}
        standing = before | {name: self._made.standing[name] for name in ("options", "base")}
        standing |= {"found": told, "waiting": waiting}
        beside = keys_to_bytes(known.at, known.beside) if known else None
        standing["beside"] = beside_name(beside) if beside else None
        counts = len(fresh), len(gone), len(came), len(anew), len(anew) + found.num_short
        return Layer(rows, self._made.opened.version(), standing, *counts, beside)

    def _stored(self) -> Stored:
        return Stored(
            self._store,
            self._config,
            self._model,
            self._version,
            self._base,
            self._beside,
            self._num_beside,
            self._most_beside,
            self._ids,
            self._later,
            self._categories,
            self._parts,
        )

    def _places_of(self, names: pa.ChunkedArray, hash_N2: np.ndarray | None = None) -> np.ndarray:
        """int64: places of products, -1 of those that never had one."""
        at = self._base.products.find(ids.hash_keys_128(names) if hash_N2 is None else hash_N2)
        later = pc.fill_null(pc.index_in(names, value_set=pa.array(self._later, pa.string())), -1).to_numpy()
        return np.where((at < 0) & (later >= 0), later + len(self._base.row_N), at)

    def _cards(
        self, changed: pa.Table, at: np.ndarray, now: np.ndarray, picture_C2: np.ndarray, state: State, rank: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, Known]:
        """Places of which the card may be another tonight, and all places of ``changed``; their cards; the keys of all."""
        before = keys_before(self._store, self._config.name, self._base, self._made.standing)
        if before is None or self._since_or_none(schema.DUPLICATES):
            raise ReadAll
        same_picture = state.alive[at] & now & (state.picture[at] == picture_C2).all(axis=1)
        colour, images = self._base.colour, self._since_or_none(schema.IMAGES)
        found = keys_now(self._store, changed, at, now, same_picture, before, colour, images)
        after = before.replaced(found.at, found.keys)
        if cards.colour_named(after.named(len(state.alive))) != colour:
            raise ReadAll
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
            raise ReadAll
        row_C, said = self._rows_of(picture_C2), [changed.column(c).to_numpy() for c in (schema.ACTIVE, "refused")]
        kept = [w for w in self._waiting if tuple(w[:2]) not in known]
        active, refused = said
        for c in np.flatnonzero((active & (row_C < 0)) | refused).tolist():
            kept.append([*product_C2[c].tolist(), *picture_C2[c].tolist(), int(refused[c])])
        if len(kept) > MOST_WAITING:
            raise ReadAll
        return kept


def _hashes(store: str, table: schema.Table, listed: Sequence[delta.Part]) -> np.ndarray:
    found = [ids.hash_keys_128(b.column(0)) for b in delta.read_batches(store, table, [table.key[0]], listed)]
    return np.concatenate([np.empty((0, 2), np.uint64), *found])
