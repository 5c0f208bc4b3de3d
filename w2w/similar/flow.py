"""Reads the catalog, its vectors and the lists of earlier nights, and what is to be written of the new ones."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import w2w
from w2w import ids, schema, storage
from w2w.engine.shuffle import Vectors, list_vectors, to_matrix
from w2w.errors import UsageError
from w2w.index.filters import NEEDS, allowed, reads_tags, seen_columns, texts
from w2w.report.variants import clusters_of
from w2w.similar import cards, rules
from w2w.similar.base import Base, Holders, in_parts, waiting_of
from w2w.similar.cards import Keys
from w2w.similar.exact import Goods
from w2w.similar.rules import Kept, Night
from w2w.table import changes, delta, layered, snapshot
from w2w.table.current import current_products
from w2w.table.mapped import Streamed
from w2w.table.permitted import SEARCH, permitted

CODE = 1  # raise it when the same products and options would give other lists
_BATCH_ROWS = 2048  # vectors read at once: 21 MB on the grid at 1280 dimensions, more of shorter ones
_ROWS_WRITTEN = 65_536
_MOST_TOLD = 100  # values of a filter in the log


@dataclass(frozen=True)
class SimilarConfig:
    """Whose lists, and what may be in them."""

    LEAST = {"k": 1, "spare": 0, "copy_mb": 0}

    name: str = "default"
    """Name of the lists: a store may have several, of other options."""
    k: int = 12
    """Products in a list."""
    spare: int = 12
    """More, kept for the nights on which products of a list go."""
    across: bool = False
    """Products of every category, not only of the product's own."""
    collapse: bool = True
    """Of products with near-duplicate pictures (w2w deduplicate), of one group, or of one design in several colours, one in a
    list, and none that looks like the product itself. Takes 2 kB of memory a product."""
    filter: dict[str, Any] = field(default_factory=dict)
    """Only products with these values in the lists: brand, price or any attribute, for example {availability: in_stock}."""
    layer_share: float = 0.1
    """Lists that changed stand beside the others until they are more than this share of all; then all are written anew; 0:
    every night."""
    layer_from: int = 20_000
    """Catalogs of fewer products are always written anew."""
    copy_mb: int = 2048
    """A copy of the vectors, up to so many MiB on the store's disk, is mapped by nights on which little changes; else, and in a
    bucket, these read the table."""


@dataclass(frozen=True)
class Catalog:
    """Active products with a vector, ``now``: product_id and STATE in the order of ids; ``row_N``: the vector of each;
    ``without``: number of those without one; ``refused``: of those whose picture search may not use; ``keys`` and ``colour``:
    as in ``Base``."""

    now: pa.Table
    goods: Goods
    vectors: Vectors
    row_N: np.ndarray
    without: int
    refused: int = 0
    waiting: list[list[int]] | None = None
    keys: Keys | None = None
    colour: str | None = None


def version_of(model: str, config: SimilarConfig) -> str:
    """Of all that decides the lists but products: the filter and the cards are seen in these."""
    return ids.digest(CODE, model, config.k, config.spare, config.across)


def read_catalog(store: str, model: str, encoder: str, config: SimilarConfig) -> Catalog:
    """Held: 200 bytes a product, 2 kB with ``collapse``. Raises UsageError if none has a vector, and for a filter that no
    product knows."""
    delta.need_table(store, schema.PRODUCTS, "ingest")
    delta.need_table(store, schema.EMBEDDINGS, "embed")
    columns = [schema.PRODUCT_ID, schema.IMAGE_ID, schema.CATEGORY, schema.ACTIVE]
    columns += (NEEDS if config.filter else ()) + (cards.NEEDS if config.collapse else ())
    everything = current_products(store, list(dict.fromkeys(columns)))
    rows = permitted(store, SEARCH).of(everything)
    refused = (pc.sum(everything.column(schema.ACTIVE)).as_py() or 0) - (pc.sum(rows.column(schema.ACTIVE)).as_py() or 0)
    active = rows.column(schema.ACTIVE)
    may = allowed(rows, wanted, _seen(store, rows, wanted)) if (wanted := texts(config.filter)) else active.to_numpy()
    vectors = list_vectors(store, model)
    row_N = vectors.find(pc.fill_null(rows.column(schema.IMAGE_ID), ""))
    keep_N = active.to_numpy() & (row_N >= 0)
    if pc.any(active).as_py() and not keep_N.any():
        raise UsageError(f"no product has a vector of {encoder}: run 'w2w embed' with this --encoder")
    kept = rows.filter(pa.array(keep_N))
    keys, colour = _keys(store, kept) if config.collapse else (None, None)
    card_N = cards.cards(keys) if keys is not None else np.arange(kept.num_rows)
    first = kept.column(schema.PRODUCT_ID).take(pa.array(card_N))
    arrays = [kept.column(c) for c in (schema.PRODUCT_ID, *rules.STATE[:2])] + [first, pa.array(may[keep_N])]
    now = pa.table(arrays, names=[schema.PRODUCT_ID, *rules.STATE])
    codes = kept.column(schema.CATEGORY).combine_chunks().dictionary_encode().indices.to_numpy()
    goods = Goods(np.zeros_like(codes) if config.across else codes, card_N, may[keep_N])
    without = (pc.sum(active).as_py() or 0) - kept.num_rows
    waiting = _waiting(store, everything, rows, keep_N)
    return Catalog(now, goods, vectors, row_N[keep_N], without, refused, waiting, keys, colour)


def _waiting(store: str, everything: pa.Table, rows: pa.Table, keep_N: np.ndarray) -> list[list[int]] | None:
    """Active products without a list: ``rows`` without a vector, and what else there is."""
    columns = [schema.PRODUCT_ID, schema.IMAGE_ID]
    without = rows.filter(pc.and_(rows.column(schema.ACTIVE), pa.array(~keep_N))).select(columns)
    barred = everything.filter(pa.array(~permitted(store, SEARCH).mask(everything.column(schema.IMAGE_ID))))
    return waiting_of(without, barred.filter(barred.column(schema.ACTIVE)).select(columns))


def _seen(store: str, rows: pa.Table, wanted: Mapping[str, Sequence[str]]) -> dict[str, pa.ChunkedArray]:
    tagger = _tagger(store, wanted)
    if tagger is None:
        return {}
    tagged = delta.read(store, schema.TAGGED, [schema.OWNER_ID, schema.TAGS], stage_version=tagger)
    return seen_columns(rows.column(schema.IMAGE_ID), tagged, list(wanted))


def _tagger(store: str, wanted: Iterable[str]) -> str | None:
    """The one that a filter reads; None if it reads none. Raises UsageError if there is none."""
    if not reads_tags(wanted):
        return None
    delta.need_table(store, schema.TAGGED, "tag")
    return delta.finished_version(store, schema.TAGGED, "tag") or ""


def _keys(store: str, kept: pa.Table) -> tuple[Keys, str | None]:
    """Of products; and the attribute that tells their colours."""
    named = [cards.named_bits(row) for rows in kept.to_batches(_BATCH_ROWS) for row in rows.to_pylist()]
    colour = cards.colour_named(np.array(named, np.uint8))
    images = kept.column(schema.IMAGE_ID).combine_chunks()
    known, clusters = clusters_of(store, pc.unique(images))
    looks = pc.coalesce(clusters.take(pc.index_in(images, value_set=known)), images)
    return cards.keys_of((row for rows in kept.to_batches(_BATCH_ROWS) for row in rows.to_pylist()), looks, colour), colour


@dataclass(frozen=True)
class Standing:
    """Of what the stored lists were made: where its tables stood, and what was ``found`` there; ``num``: how many lists."""

    found: dict[str, int]
    num: int


_INPUTS = (schema.PRODUCTS, schema.EMBEDDINGS, schema.IMAGES, schema.DUPLICATES, schema.TAGGED)


def standing(store: str, config: SimilarConfig) -> dict[str, Any]:
    """Where the tables stand that lists are made of; to be told with these."""
    told = {"tables": changes.standing(store, _INPUTS), "permitted": list(permitted(store, SEARCH).told)}
    return told | {"tagger": _tagger(store, texts(config.filter))}


@dataclass(frozen=True)
class Made:
    """The stored lists: ``about``, the lineage of the commit that made them what they are; ``opened``: their table."""

    about: dict[str, Any]
    opened: delta.DeltaTable

    @property
    def standing(self) -> dict[str, Any]:
        return self.about["standing"]


def made_before(store: str, version: str, config: SimilarConfig) -> Made | None:
    """The stored lists, if they are of these options, the same pictures may be used, and none of their rows has been changed
    by others; reads logs, and which pictures may not be used."""
    made = snapshot.current(store, schema.SIMILAR_PRODUCTS, config.name)
    told = (made or {}).get("standing") or {}
    if not made or "base" not in told or (made["stage_version"], told["options"]) != (version, _options(config)):
        return None
    if (made["w2w_version"], told["permitted"]) != (w2w.__version__, list(permitted(store, SEARCH).told)):
        return None
    if told.get("tagger") != _tagger(store, texts(config.filter)):  # of several that have seen all, another is read
        return None
    opened = delta.existing(store, schema.SIMILAR_PRODUCTS)
    same = changes.same_rows(store, schema.SIMILAR_PRODUCTS, opened, made["at"], **{schema.SOURCE: config.name})
    return Made(made, opened) if same else None


def unchanged(store: str, made: Made | None, model: str) -> Standing | None:
    """What the stored lists were made of, if nothing of it has changed since."""
    of_model = {schema.MODEL_VERSION: model}
    inputs = [(table, of_model if table is schema.EMBEDDINGS else {}) for table in _INPUTS]
    if made is None or not changes.stands(store, made.standing["tables"], inputs):
        return None
    found = made.standing["found"]
    return Standing(found, found["products"])


def _options(config: SimilarConfig) -> dict[str, Any]:
    """Those that ``version_of`` leaves out, as the log tells them: of many values a digest."""
    wanted = {name: list(v) if len(v) <= _MOST_TOLD else [ids.digest(sorted(v))] for name, v in texts(config.filter).items()}
    return {"collapse": config.collapse, "filter": wanted}


def stood(catalog: Catalog, before: dict[str, Any], config: SimilarConfig, base: str | None) -> dict[str, Any]:
    """What is told with the lists of a catalog; ``before``: ``standing`` before it was read; ``base``: folder of the lists in
    numbers."""
    found = {"without": catalog.without, "refused": catalog.refused, "not_allowed": int((~catalog.goods.allowed_N).sum())}
    found |= {"products": catalog.now.num_rows}
    return before | {"options": _options(config), "found": found, "base": base, "waiting": catalog.waiting}


@dataclass(frozen=True)
class Plan:
    """What a night does. ``kept``: the lists that go on; ``whole``: everything is computed, as for the first time."""

    night: Night
    kept: Kept
    whole: bool


def plan_of(store: str, catalog: Catalog, version: str, config: SimilarConfig) -> Plan:
    """Compares the catalog with the one that the stored lists were made of. Held: 20 bytes an entry of a list."""
    now, goods, width = catalog.now, catalog.goods, config.k + config.spare
    made = snapshot.current(store, schema.SIMILAR_PRODUCTS, config.name)
    goes_on = made is not None and made["stage_version"] == version
    opened = delta.open_table(store, schema.SIMILAR_PRODUCTS) if goes_on else None
    listed = delta.parts(opened, **{schema.SOURCE: config.name})
    columns = [schema.PRODUCT_ID, *rules.STATE]
    empty = schema.SIMILAR_PRODUCTS.empty(columns)
    counting = layered.counting(store, schema.SIMILAR_PRODUCTS, listed)
    found = layered.masked(store, schema.SIMILAR_PRODUCTS, columns, listed, counting.mask)
    before = pa.concat_tables([empty, *found])
    night = rules.compare(now, before)
    every = np.arange(now.num_rows)
    due = goods.num_pairs(np.flatnonzero(night.anew_N), every) + goods.num_pairs(every, night.came)
    whole = not goes_on or due >= goods.num_pairs(every, every) > 0
    if whole:
        night = rules.compare(now, empty)
        return Plan(night, rules.keep(now, night, [], width), whole)
    assert made is not None and opened is not None  # noqa: PT018
    same = changes.same_rows(store, schema.SIMILAR_PRODUCTS, opened, made["at"], **{schema.SOURCE: config.name})
    place_B = night.at_B[pc.sort_indices(before.column(schema.PRODUCT_ID)).to_numpy()].astype(np.int32)
    if counting.num_beside:
        columns = [schema.SIMILAR_LIST, schema.SPARE, schema.COMPLETE]
        stored = layered.masked(store, schema.SIMILAR_PRODUCTS, columns, listed, counting.mask)
    else:
        stored = _lists(store, listed, same)
    return Plan(night, rules.keep(now, night, stored, width, place_B), whole)


_PLACED = [
    *(f"{column}.list.element.{schema.SCORE}" for column in (schema.SIMILAR_LIST, schema.SPARE)),
    f"{schema.PLACES}.list.element",
    schema.COMPLETE,
]


def _lists(store: str, listed: Sequence[delta.Part], placed: bool) -> Iterator[pa.Table]:
    """The stored lists; with places instead of names if these still hold (``placed``), where an earlier w2w wrote none with
    names."""
    columns = [schema.SIMILAR_LIST, schema.SPARE, schema.COMPLETE]
    for part in listed:
        if placed and (batches := _with_places(store, part)) is not None:
            yield from batches
        else:
            yield from delta.read_batches(store, schema.SIMILAR_PRODUCTS, columns, [part])


def _with_places(store: str, part: delta.Part) -> list[pa.Table] | None:
    batches = list(delta.read_leaves(store, schema.SIMILAR_PRODUCTS, _PLACED, part, _ROWS_WRITTEN))
    there = all(schema.PLACES in b.column_names and not b.column(schema.PLACES).null_count for b in batches)
    return batches if there else None


def base_of(catalog: Catalog, kept: Kept) -> Base:
    """Of all lists, for later nights."""
    now, lists = catalog.now, kept.lists
    categories = now.column(schema.CATEGORY).combine_chunks().dictionary_encode()
    bound, last = rules.ends(lists, kept.complete_N)
    names = now.select([schema.PRODUCT_ID, schema.IMAGE_ID]).combine_chunks()
    return Base(
        names=pa.RecordBatch.from_arrays([c.combine_chunks() for c in names.columns], names=names.column_names),
        holders=Holders.of(lists.member_NW),
        products=ids.Places(ids.hash_keys_128(now.column(schema.PRODUCT_ID))),
        owners=catalog.vectors.places,
        picture_N2=ids.hash_keys_128(now.column(schema.IMAGE_ID)),
        category_N=categories.indices.to_numpy().astype(np.int32),
        card_N=catalog.goods.card_N.astype(np.int32),
        allowed_N=catalog.goods.allowed_N,
        row_N=catalog.row_N,
        order_N=np.argsort(catalog.row_N, kind="stable").astype(np.int32),
        bound_N=bound,
        last_N=last,
        complete_N=kept.complete_N,
        member_NW=lists.member_NW,
        score_NW=lists.score_NW,
        categories=tuple(categories.dictionary.to_pylist()),
        parts=in_parts(catalog.vectors.parts),
        keys=catalog.keys,
        sharing=tuple(ids.Sharing.of(getattr(catalog.keys, name)) for name in cards.SHARED) if catalog.keys else (),
        colour=catalog.colour,
    )


def copied(catalog: Catalog, config: SimilarConfig) -> Streamed | None:
    """The vectors of all rows as they are to lie in ``Base.vector_RD``."""
    store, listed = catalog.vectors.store, catalog.vectors.parts
    batches = delta.read_batches(store, schema.EMBEDDINGS, [schema.VECTOR], listed, _BATCH_ROWS)
    first = next(batches, None)
    num_rows = sum(part.rows for part in listed)
    if storage.scheme(store) or first is None:
        return None
    blocks = (to_matrix(batch.column(0)).astype(np.float32, copy=False) for batch in chain([first], batches))
    first_ND = next(blocks)
    if num_rows * first_ND.shape[1] * 4 > config.copy_mb * 2**20:
        return None
    return Streamed(num_rows, chain([first_ND], blocks))


def rows_of(catalog: Catalog, kept: Kept, model: str, version: str, config: SimilarConfig) -> Iterator[pa.Table]:
    """The table's rows."""
    for start in range(0, catalog.now.num_rows, _ROWS_WRITTEN):
        some = slice(start, min(start + _ROWS_WRITTEN, catalog.now.num_rows))
        rows = rules.rows_of(catalog.now, kept.lists, kept.complete_N, some, config.k)
        for name in rules.STATE:
            rows = rows.append_column(name, catalog.now.column(name).slice(start, rows.num_rows))
        said = {schema.MODEL_VERSION: model, schema.STAGE_VERSION: version, schema.SOURCE: config.name, schema.LAYER: 0}
        said |= {schema.ACTIVE: True}
        for name, value in said.items():
            rows = rows.append_column(name, pa.repeat(pa.scalar(value), rows.num_rows))
        yield rows.select(schema.SIMILAR_PRODUCTS.schema.names).cast(schema.SIMILAR_PRODUCTS.schema)
