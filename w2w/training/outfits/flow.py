"""Outfits and questions from the store as arrays, with their items' vectors. All of it in the driver or one worker."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.errors import UsageError
from w2w.garments.masks import SLOTS
from w2w.table import delta
from w2w.table.delta import need_table
from w2w.table.permitted import TRAINING, Permitted, explained, permitted, why_refused
from w2w.table.rejects import num_not_permitted
from w2w.training.outfits.arrays import WORN, Outfits, Questions, drawn_blanks
from w2w.training.vectors import vector_batches

_BATCH_ROWS = 16_384
_MOST_BYTES = 4 * 2**30
_SEED = 0  # of the questions about own outfits


def read_outfits(
    store: str,
    model_version: str,
    source: str = schema.OWN,
    most_bytes: int = _MOST_BYTES,
    versions: Mapping[str, int] = MappingProxyType({}),
    may: Permitted | None = None,
) -> tuple[dict[str, Outfits], int]:
    """The outfits of each split, and the number left out because an item has no vector of ``model_version``, or a picture that
    training may not use. ``versions``: of the tables by name, otherwise the newest; ``may``: what may be used, otherwise as
    table `permissions` says now.

    The table is read in batches. Memory: the vectors, 4 bytes per number and once per item, 16 bytes per item of an outfit, and
    the ids during reading. Raises UsageError if the vectors would exceed ``most_bytes``.
    """
    made, whole, split, _ = _read_outfits(store, model_version, source, most_bytes, versions, may)
    return {s: made.among(whole & (split == s)) for s in np.unique(split)}, int((~whole).sum())


def _read_outfits(
    store: str, model_version: str, source: str, most_bytes: int, versions: Mapping[str, int], may: Permitted | None = None
) -> tuple[Outfits, np.ndarray, np.ndarray, pa.ChunkedArray]:
    """All outfits; of each, whether every item has a vector, its split, and its id."""
    need_table(store, schema.OUTFITS, "compose")
    need_table(store, schema.EMBEDDINGS, "embed")
    items, splits, outfit_ids, made_of = _Items(), [], [], []
    columns = [schema.OUTFIT_ID, schema.ITEMS, schema.MODIFIED_OF, schema.SPLIT]
    for rows in _batches(store, schema.OUTFITS, columns, source, versions):
        items.add(rows.column(schema.ITEMS))
        splits.append(rows.column(schema.SPLIT))
        outfit_ids.append(rows.column(schema.OUTFIT_ID))
        made_of.append(rows.column(schema.MODIFIED_OF))
    if not splits:
        raise UsageError(f"table `outfits` has nothing of source {source!r}: run 'w2w compose' or 'w2w convert'")
    split = pa.chunked_array([c for s in splits for c in s.chunks]).to_numpy().astype(str)
    ids = pa.chunked_array([c for s in outfit_ids for c in s.chunks])
    origin = pc.index_in(pa.chunked_array([c for s in made_of for c in s.chunks]), ids, skip_nulls=True)
    vectors_ND, row_of_item = _vectors(store, model_version, items.ids, most_bytes, versions, may)
    items_OS, slots_OS = items.padded(row_of_item)
    whole = ((items_OS >= 0) == (slots_OS >= 0)).all(axis=1) & (items_OS >= 0).any(axis=1)
    made = Outfits(vectors_ND, items_OS, slots_OS, origin.fill_null(WORN).to_numpy().astype(np.int64), items.slots)
    return made, whole, split, ids


def read_blanks(
    store: str,
    outfits: Outfits,
    model_version: str,
    source: str,
    split: str,
    versions: Mapping[str, int] = MappingProxyType({}),
    may: Permitted | None = None,
) -> tuple[Outfits, Questions]:
    """The fill-in-the-blank questions of a split, and ``outfits`` with the vectors of their items added. Questions with an item
    without a vector are left out."""
    need_table(store, schema.QUESTIONS, "convert")
    given, answers, right = _Items(outfits.slots), _Items(outfits.slots), []
    columns = [schema.KIND, schema.ITEMS, schema.ANSWERS, schema.RIGHT, schema.SPLIT]
    for rows in _batches(store, schema.QUESTIONS, columns, source, versions):
        asked = pc.and_(pc.equal(rows.column(schema.KIND), "fill_in_blank"), pc.equal(rows.column(schema.SPLIT), split))
        rows = rows.filter(asked)
        given.add(rows.column(schema.ITEMS))
        answers.add(rows.column(schema.ANSWERS))
        right.append(rows.column(schema.RIGHT).to_numpy())
    if strange := {*given.slots, *answers.slots} - set(outfits.slots):
        raise UsageError(f"questions of {source!r} ask for slots that its outfits do not have: {sorted(strange)}")
    start, vectors, found = len(outfits.vectors_ND), [outfits.vectors_ND], []
    for part in (given, answers):
        vectors_ND, row_of_item = _vectors(store, model_version, part.ids, _MOST_BYTES, versions, may)
        items, slots = part.padded(np.where(row_of_item < 0, -1, row_of_item + start))
        vectors.append(vectors_ND)
        start += len(vectors_ND)
        found.append((items, slots))
    (items_QS, slots_QS), (answers_QA, answer_slots_QA) = found
    items_QAS, slots_QAS, whole_Q = _written_out(items_QS, slots_QS, answers_QA, answer_slots_QA)
    questions = Questions(items_QAS[whole_Q], slots_QAS[whole_Q], np.concatenate([np.empty(0, np.int64), *right])[whole_Q])
    return replace(outfits, vectors_ND=np.concatenate(vectors)), questions


def _written_out(
    items_QS: np.ndarray, slots_QS: np.ndarray, answers_QA: np.ndarray, answer_slots_QA: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(items (Q, A, S + 1), slots, bool (Q,)): the outfit that each answer completes, and whether all items have vectors."""
    shape = (*answers_QA.shape, items_QS.shape[1])
    items_QAS = np.concatenate([np.broadcast_to(items_QS[:, None], shape), answers_QA[:, :, None]], axis=2)
    slots_QAS = np.concatenate([np.broadcast_to(slots_QS[:, None], shape), answer_slots_QA[:, :, None]], axis=2)
    absent_QA = answer_slots_QA < 0  # a question with fewer answers than others
    items_QAS[absent_QA], slots_QAS[absent_QA] = -1, -1
    return items_QAS, slots_QAS, ((items_QAS >= 0) == (slots_QAS >= 0)).all(axis=(1, 2))


@dataclass(frozen=True)
class Asked:
    """Questions of one split by id: Q fill-in-the-blank, and B compatibility outfits. ``outfits`` has the vectors and slots,
    and no outfit. ``left_out``: questions with an item without a vector."""

    outfits: Outfits
    blanks: Questions
    blank_ids: tuple[str, ...]
    items_BS: np.ndarray
    slots_BS: np.ndarray
    together_B: np.ndarray
    outfit_ids: tuple[str, ...]
    left_out: int


def read_questions(store: str, model_version: str, source: str, split: str, slots: tuple[str, ...] | None = None) -> Asked:
    """All questions in table `questions` of a source and split. ``slots``: those known to the scorer; default: those in the
    questions. Raises UsageError if there is no question, for a slot unknown to the scorer, and for missing vectors."""
    need_table(store, schema.QUESTIONS, "convert")
    need_table(store, schema.EMBEDDINGS, "embed")
    columns = [schema.QUESTION_ID, schema.KIND, schema.ITEMS, schema.ANSWERS, schema.RIGHT, schema.SPLIT]
    batches = _batches(store, schema.QUESTIONS, columns, source, MappingProxyType({}))
    kept = [rows.filter(pc.equal(rows.column(schema.SPLIT), split)) for rows in batches]
    rows = pa.concat_tables([schema.QUESTIONS.empty(columns), *kept])
    if not rows.num_rows:
        raise UsageError(f"table `questions` has nothing of source {source!r} and split {split!r}: run 'w2w convert'")
    rows = rows.sort_by(schema.QUESTION_ID)
    there = pa.chunked_array(
        [c.flatten().field(schema.SLOT) for name in (schema.ITEMS, schema.ANSWERS) for c in rows[name].chunks]
    )
    named = sorted(there.unique().to_pylist())
    if slots is not None and (strange := set(named) - set(slots)):
        raise UsageError(f"questions of {source!r} ask for slots that the scorer does not know: {', '.join(sorted(strange))}")
    slots = tuple(named) if slots is None else slots
    is_blank = pc.equal(rows.column(schema.KIND), "fill_in_blank")
    asked, shown = rows.filter(is_blank), rows.filter(pc.invert(is_blank))
    lists = [_Items(slots) for _ in range(3)]
    for one, column in zip(lists, (asked[schema.ITEMS], asked[schema.ANSWERS], shown[schema.ITEMS])):
        one.add(column)
    ends = np.cumsum([len(one.ids) for one in lists])
    everything = pa.chunked_array([c for one in lists for c in one.ids.chunks], pa.string())
    vectors_ND, row_of = _vectors(store, model_version, everything, _MOST_BYTES, {})
    (items_QS, slots_QS), (answers_QA, answer_slots_QA), (items_BS, slots_BS) = (
        one.padded(part) for one, part in zip(lists, np.split(row_of, ends[:-1]))
    )
    items_QAS, slots_QAS, whole_Q = _written_out(items_QS, slots_QS, answers_QA, answer_slots_QA)
    whole_B = ((items_BS >= 0) == (slots_BS >= 0)).all(axis=1)
    right_Q, together_B = (some.column(schema.RIGHT).to_numpy().astype(np.int64) for some in (asked, shown))
    names_Q, names_B = (np.array(some.column(schema.QUESTION_ID).to_pylist(), dtype=object) for some in (asked, shown))
    nothing = np.empty((0, 0), np.int64)
    return Asked(
        Outfits(vectors_ND, nothing, nothing, np.empty(0, np.int64), slots),
        Questions(items_QAS[whole_Q], slots_QAS[whole_Q], right_Q[whole_Q]),
        tuple(names_Q[whole_Q]),
        items_BS[whole_B],
        slots_BS[whole_B],
        together_B[whole_B] == 1,
        tuple(names_B[whole_B]),
        int((~whole_Q).sum() + (~whole_B).sum()),
    )


def read_own_questions(
    store: str, model_version: str, source: str, split: str, slots: tuple[str, ...] | None = None, num_answers: int = 4
) -> Asked:
    """Questions about a store's own outfits of a split: the blank of each worn one, to be filled from worn ones, and whether an
    outfit is worn or modified. The same table asks the same questions. Raises UsageError if there is no worn outfit, and for a
    scorer of other slots."""
    made, whole, split_O, ids = _read_outfits(store, model_version, source, _MOST_BYTES, {})
    kept_O = whole & (split_O == split)
    asked = made.among(kept_O)
    if not len(asked.worn):
        with explained(lambda: why_refused(num_not_permitted(store, schema.OUTFITS, "compose"), what="photos")):
            raise UsageError(
                f"table `outfits` has no worn outfit of source {source!r} and split {split!r}: run 'w2w split', 'w2w compose'"
            )
    if slots is not None and slots != asked.slots:
        raise UsageError(f"outfits of {source!r} are of {', '.join(asked.slots)}, and the scorer knows {', '.join(slots)}")
    names_O = np.array(ids.to_pylist(), dtype=object)[made.kept(kept_O)]
    questions, rows = drawn_blanks(asked, num_answers, np.random.default_rng(_SEED))
    is_worn = asked.modified_of_O == WORN
    left_out = int((~whole & (split_O == split)).sum())
    return Asked(asked, questions, tuple(names_O[rows]), asked.items_OS, asked.slots_OS, is_worn, tuple(names_O), left_out)


class _Items:
    """Lists of items, read in batches, as numbers of their ids and slots."""

    def __init__(self, slots: tuple[str, ...] = SLOTS):
        self._known = list(slots)
        self._ids: list[pa.Array] = []
        self._slots: list[np.ndarray] = []
        self._lengths: list[np.ndarray] = []

    def add(self, lists: pa.ChunkedArray) -> None:
        for chunk in lists.chunks:
            flat = chunk.flatten()
            slots = flat.field(schema.SLOT)
            self._known += sorted(set(slots.unique().to_pylist()) - set(self._known))
            self._ids.append(flat.field(schema.ITEM_ID))
            self._slots.append(pc.index_in(slots, pa.array(self._known)).to_numpy(zero_copy_only=False).astype(np.int64))
            self._lengths.append(pc.list_value_length(chunk).to_numpy(zero_copy_only=False).astype(np.int64))

    @property
    def slots(self) -> tuple[str, ...]:
        return tuple(self._known)

    @property
    def ids(self) -> pa.ChunkedArray:
        return pa.chunked_array(self._ids, pa.string())

    def padded(self, row_of_item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(items (O, S), slots (O, S)), -1 after the last. With three slots, items are in the order of SLOTS."""
        lengths = np.concatenate([np.empty(0, np.int64), *self._lengths])
        slots = np.concatenate([np.empty(0, np.int64), *self._slots])
        owner = np.repeat(np.arange(len(lengths)), lengths)
        order = np.lexsort((slots, owner))
        place = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        size = int(lengths.max(initial=0))
        found = np.full((2, len(lengths), size), -1, np.int64)
        found[0, owner, place], found[1, owner, place] = row_of_item[order], slots[order]
        return found[0], found[1]


def _batches(
    store: str, table: schema.Table, columns: list[str], source: str, versions: Mapping[str, int]
) -> Iterator[pa.Table]:
    listed = delta.parts(delta.open_table(store, table, versions.get(table.name)), source=source)
    yield from delta.read_batches(store, table, columns, listed, _BATCH_ROWS)


def _vectors(
    store: str,
    model_version: str,
    item_ids: pa.ChunkedArray,
    most_bytes: int,
    versions: Mapping[str, int],
    may: Permitted | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(vectors (N, D), the row of each item's vector, -1 if it has none). Each distinct item is read once."""
    different = pc.unique(item_ids)
    place = pc.index_in(item_ids, different).to_numpy().astype(np.int64)
    row_of = np.full(len(different), -1, np.int64)
    found, count = [], 0
    version = versions.get(schema.EMBEDDINGS.name)
    pictures = pc.list_element(pc.split_pattern(different, ":", max_splits=1), 0)  # a cut-out's item is image_id:slot
    may = permitted(store, TRAINING) if may is None else may
    asked = different.filter(pa.array(may.mask(pictures)))
    for names, vectors_ND in vector_batches(store, model_version, asked, version):
        needed = len(different) * vectors_ND.shape[1] * vectors_ND.itemsize
        if needed > most_bytes:
            raise UsageError(
                f"the vectors of {len(different):,} items take {needed / 2**30:.1f} GB, more than {most_bytes / 2**30:.1f} GB: "
                "use an encoder with shorter vectors, or fewer outfits"
            )
        at = pc.index_in(pa.array(names), different).to_numpy().astype(np.int64)
        row_of[at] = np.arange(count, count + len(at))
        found.append(vectors_ND)
        count += len(at)
    if not len(asked) and len(different):
        raise UsageError(f"table `outfits`: {why_refused(len(different), len(different), 'items')}")
    if not found:
        raise UsageError(
            f"no item has a vector of model version {model_version}: run 'w2w embed' with that encoder (for outfits of photos "
            "with --of=slots)"
        )
    return np.concatenate(found), row_of[place]
