"""Loads catalog, scorer and rules from a store, and stores the whole catalog's recommendations."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from w2w import ids, schema, storage
from w2w.errors import UsageError
from w2w.garments.classifier import check_mapping, class_of
from w2w.garments.taxonomy import CATEGORIES
from w2w.memory import empty_on_disk, joined_on_disk
from w2w.mining.catalog import chosen_version
from w2w.mining.identity import product_keys
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version
from w2w.models.pairing import TrainedPairs
from w2w.recommend.house import House, read_house
from w2w.recommend.rules import Space
from w2w.recommend.scorers import TrainedSpace, class_of_slot, slots_of_classes
from w2w.recommend.shelf import CALLED, CODE, ROWS, Shelf
from w2w.recommend.worn import Worn, WornConfig, fits_itself, place
from w2w.table import delta
from w2w.table.current import current_posts, current_products
from w2w.table.delta import need_table, newest_version
from w2w.table.permitted import SEARCH, TRAINING, permitted
from w2w.training.outfits.flow import read_outfits
from w2w.training.vectors import vector_batches

_ROWS_AT_ONCE = 4096  # of an array on disk
_SAID = "said "  # begins the name of an attribute's column
WORN = "worn"  # the scorer that only counts
POSTS, OUTFITS, LINKS, GARMENTS, NONE, AUTO = "posts", "outfits", "links", "garments", "none", "auto"


@dataclass(frozen=True)
class Catalog:
    """What is sold and can be recommended: a shelf, and its vectors (N, D). ``without_vector``: product_id and image_id of
    those without; ``known_ids``: all current and former products. The vectors lie on disk."""

    shelf: Shelf
    vectors_ND: np.ndarray
    without_vector: dict[str, str | None]
    of_no_class: int
    known_ids: pa.Array
    model_version: str
    class_of_word: Mapping[str | None, str]
    refused: int = 0  # active products whose picture search may not use


@dataclass(frozen=True)
class Scored:
    """The scorer's space for the catalog's items and the given ones. ``version``: of everything that decides its scores;
    ``says``: for a person; ``outfits``: the number it is based on."""

    space: Space
    version: str
    says: str
    outfits: int | None = None
    trained: TrainedPairs | None = None


def read_catalog(
    store: str, encoder: EncoderConfig, classes: Mapping[str, str] | None, classifier: str, product_key: Sequence[str]
) -> Catalog:
    """Active products of the seven classes. In memory: 500 bytes per product.

    Raises UsageError if there is none, or none has a vector of this encoder.
    """
    need_table(store, schema.PRODUCTS, "ingest")
    need_table(store, schema.EMBEDDINGS, "embed")
    columns = [f.name for f in ROWS if f.name != CALLED] + [schema.ACTIVE]
    everything = current_products(store, columns)
    known = everything.column(schema.PRODUCT_ID).combine_chunks()
    mapping = check_mapping(classes or {})
    words = {word: class_of(word, mapping) for word in everything.column(schema.CATEGORY).unique().to_pylist()}
    active = everything.filter(everything.column(schema.ACTIVE))
    table = permitted(store, SEARCH).of(active)
    refused = active.num_rows - table.num_rows
    del everything, active
    rows = pl.from_arrow(table.select([schema.PRODUCT_ID, schema.IMAGE_ID, schema.CATEGORY])).rename({schema.CATEGORY: CALLED})
    rows = rows.with_columns(_classes(store, rows, mapping, classifier).alias(schema.CATEGORY))
    keep = rows[schema.CATEGORY].is_in(list(CATEGORIES)).fill_null(value=False)
    table, rows = table.filter(keep.to_arrow()), rows.filter(keep)
    version = model_version(encoder)
    vectors_ND, has = _vectors_of(store, version, table.column(schema.IMAGE_ID))
    if rows.height and not has.any():
        raise UsageError(f"no product has a vector of {encoder.name}: run 'w2w embed' with this --encoder")
    without = dict(zip(*(rows.filter(pl.Series(~has))[c].to_list() for c in (schema.PRODUCT_ID, schema.IMAGE_ID))))
    unseen = dict(rows.filter(pl.Series(~has))[schema.CATEGORY].value_counts().iter_rows())
    rows, table = rows.filter(pl.Series(has)), table.filter(pa.array(has))
    shown = {c: rows[c].to_arrow().cast(pa.string()) for c in (schema.CATEGORY, CALLED)}
    arrays = [shown[f.name] if f.name in shown else table.column(f.name) for f in ROWS]
    shelf = Shelf(pa.table(arrays, schema=ROWS).combine_chunks(), _groups(store, table, product_key), unseen)
    return Catalog(shelf, vectors_ND, without, int((~keep).sum()), known, version, words, refused)


def why_absent(store: str, product_id: str, classifier: str) -> str:
    """Why a product is not in the catalog that is or was in the feed, to end a sentence."""
    rows = current_products(store, [schema.PRODUCT_ID, schema.CATEGORY, schema.ACTIVE, schema.IMAGE_ID])
    (row,) = rows.filter(pc.equal(rows.column(schema.PRODUCT_ID), product_id)).to_pylist()
    if not row[schema.ACTIVE]:
        return "is no longer sold"
    if not permitted(store, SEARCH).allows(row[schema.IMAGE_ID]):
        return "has a picture that search may not use: see table `permissions`"
    if chosen_version(store, schema.CLASSIFICATIONS, classifier, "classifier"):
        return f"is of none of the seven classes for --classifier={classifier}"
    return f"is of none of the seven classes: its category is {row[schema.CATEGORY]!r}; see --classes"


def _classes(store: str, rows: pl.DataFrame, mapping: Mapping[str, str], classifier: str) -> pl.Series:
    """One of the seven classes for each row, or anything else: by the classifier if one is named, otherwise by the shop's
    category."""
    version = chosen_version(store, schema.CLASSIFICATIONS, classifier, "classifier")
    if not version:
        words = {word: class_of(word, mapping) for word in rows[CALLED].unique().to_list()}
        return pl.Series([words[word] for word in rows[CALLED].to_list()], dtype=pl.String)
    columns = [schema.OWNER_ID, schema.CATEGORY, schema.ACCEPTED]
    said = pl.from_arrow(delta.read(store, schema.CLASSIFICATIONS, columns, model_version=version)).unique(schema.OWNER_ID)
    said = said.filter(pl.col(schema.ACCEPTED)).rename({schema.OWNER_ID: schema.IMAGE_ID})
    return rows.join(said, on=schema.IMAGE_ID, how="left", maintain_order="left")[schema.CATEGORY]


def _vectors_of(store: str, version: str, images: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of these pictures, float32 (N', D), on disk; and which of the N have one, bool (N,)."""
    hash_N = ids.hash_keys(pc.fill_null(images, ""))
    order = np.argsort(hash_N, kind="stable")  # products may share a picture
    known = hash_N[order]
    has, found = np.zeros(len(hash_N), bool), np.zeros((0, 1), np.float32)
    for names, vectors_BD in vector_batches(store, version, pc.unique(images.drop_null())):
        found = found if len(found) else empty_on_disk((len(hash_N), vectors_BD.shape[1]))
        asked = ids.hash_keys(pa.array(names, pa.string()))
        low, high = np.searchsorted(known, asked, "left"), np.searchsorted(known, asked, "right")
        of = np.repeat(np.arange(len(asked)), high - low)
        rows = order[np.arange(len(of)) + np.repeat(low - np.cumsum(high - low) + (high - low), high - low)]
        found[rows], has[rows] = vectors_BD[of], True
    kept = np.flatnonzero(has)
    if len(kept) < len(found):
        for start in range(0, len(kept), _ROWS_AT_ONCE):  # every row moves up or stays
            some = kept[start : start + _ROWS_AT_ONCE]
            found[start : start + len(some)] = found[some]
    return found[: len(kept)], has


def _vectors(store: str, version: str, owners: pa.Array | pa.ChunkedArray) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for names, vectors_ND in vector_batches(store, version, owners):
        found |= dict(zip(names, np.array(vectors_ND)))
    return found


def _groups(store: str, products: pa.Table, product_key: Sequence[str]) -> np.ndarray:
    """A group number for each product, shared by all with the same key, picture, or near-duplicate cluster."""
    images = products.column(schema.IMAGE_ID)
    clusters = images
    if delta.open_table(store, schema.DUPLICATES) is not None:
        known = pl.from_arrow(delta.read(store, schema.DUPLICATES, [schema.IMAGE_ID, schema.CLUSTER_ID]))
        joined = pl.DataFrame({schema.IMAGE_ID: pl.from_arrow(images)}).join(
            known.unique(schema.IMAGE_ID), on=schema.IMAGE_ID, how="left", maintain_order="left"
        )
        clusters = joined.select(pl.coalesce(schema.CLUSTER_ID, schema.IMAGE_ID)).to_series().to_arrow()
    keys = product_keys(products, product_key)
    number = products.num_rows
    codes = [np.unique(np.array(c.to_pylist(), object).astype(str), return_inverse=True)[1] for c in (clusters, keys)]
    if not number:
        return np.zeros(0, np.int64)
    at, to = np.tile(np.arange(number), 2), np.concatenate([codes[0], codes[1] + codes[0].max() + 1]) + number
    size = int(to.max()) + 1
    return connected_components(coo_matrix((np.ones(len(at)), (at, to)), (size, size)), directed=False)[1][:number]


def read_rules(path: str | None) -> House:
    """Reads a file of house rules. Raises UsageError if it is missing, or a line of it is wrong."""
    if not path:
        return House()
    try:
        return read_house(storage.read_bytes(storage.absolute(path)), path)
    except OSError as e:
        raise UsageError(f"--rules={path}: cannot be read: {e}") from e


def trained_scorer(scorer: str) -> TrainedPairs | None:
    """None where the scorer only counts. Raises UsageError where a folder has none."""
    if scorer == WORN:
        return None
    folder = Path(storage.absolute(scorer))
    if not folder.is_dir():
        raise UsageError(f"--scorer={scorer}: no such folder; {WORN} needs none")
    return TrainedPairs(folder)


def scored(
    store: str,
    trained: TrainedPairs | None,
    worn: WornConfig,
    catalog: Catalog,
    more: Sequence[tuple[str, np.ndarray]] = (),
) -> Scored:
    """The scorer's space for the catalog, followed by the ``more`` given garments: (class, vector).

    Raises UsageError for a scorer of vectors of another length."""
    parts = [catalog.vectors_ND, np.stack([v for _, v in more])] if more else [catalog.vectors_ND]
    vectors_MD = joined_on_disk(parts if len(parts[0]) else parts[-1:])  # no product has a vector, and so none a length
    class_M = np.concatenate([catalog.shelf.class_N, np.array([CODE[c] for c, _ in more], np.int8)])
    if trained is None:
        return _counted(store, worn, catalog, vectors_MD, class_M)
    length = json.loads((trained.folder / "config.json").read_text(encoding="utf-8"))["dim_in"]
    if length != vectors_MD.shape[1]:
        raise UsageError(
            f"--scorer={trained.folder}: is for vectors of {length} numbers; this --encoder gives {vectors_MD.shape[1]}"
        )
    slots = slots_of_classes(trained.slots)
    space = TrainedSpace(slots, trained.place(np.ascontiguousarray(vectors_MD)), class_M, trained.is_log)
    version = ids.digest(trained.version, catalog.model_version)
    return Scored(space, version, f"{trained.kind}, trained, of {', '.join(slots)}", trained=trained)


def _counted(store: str, config: WornConfig, catalog: Catalog, vectors_MD: np.ndarray, class_M: np.ndarray) -> Scored:
    num = len(catalog.shelf)
    catalog.shelf.need_attributes("--worn.attributes", config.attributes)
    source, worn = _read_worn(store, config, catalog, vectors_MD.shape[1])
    given = pa.nulls(len(class_M) - num, pa.string())  # garments of a photo have no attributes
    said = [pa.concat_arrays([*catalog.shelf.attribute(name).chunks, given]) for name in config.attributes]
    space = place(worn, vectors_MD, class_M, config, num, said)
    arrays = [worn.vectors_UD, worn.class_U, worn.item_I, worn.outfit_I]
    if not fits_itself(worn, class_M[:num]):
        arrays += [vectors_MD[:num], class_M[:num]]
    version = ids.digest(
        source, asdict(config), catalog.model_version, [_digest(a) for a in arrays], *([one.to_pylist() for one in worn.said])
    )
    number = len(worn)
    by = f", by looks, {', '.join(config.attributes)}" if config.attributes else ""
    says = f"counts of {number:,} worn outfits ({source}{by})" if number else "looks alone: it knows no outfit that was worn"
    return Scored(space, version, says, number)


def _digest(array: np.ndarray) -> str:
    """sha256 of its bytes."""
    found = hashlib.sha256()
    for start in range(0, len(array), _ROWS_AT_ONCE):
        found.update(array[start : start + _ROWS_AT_ONCE].tobytes())
    return found.hexdigest()


def _read_worn(store: str, config: WornConfig, catalog: Catalog, size: int) -> tuple[str, Worn]:
    """The worn outfits, and where they were found."""
    source, version, words = config.source, catalog.model_version, catalog.class_of_word
    if config.attributes and source not in (AUTO, POSTS):
        raise UsageError(f"--worn.attributes: only outfits of posts name their products; with --worn.source={source} omit it")
    readers = {
        POSTS: lambda s, v: _of_posts(s, v, words, config.attributes),
        OUTFITS: lambda s, v: _of_outfits(s, v, schema.OWN),
        LINKS: lambda s, v: _of_outfits(s, v, LINKS),
        GARMENTS: _of_garments,
    }
    for name in [POSTS] if config.attributes else [*readers] if source == AUTO else [source] if source != NONE else []:
        found = readers[name](store, version) if name in readers else _of_outfits(store, version, name)
        if found is not None:
            return name, found
        if config.attributes:
            raise UsageError("--worn.attributes: no post of the store tags two products that have vectors of this --encoder")
        if source != AUTO:
            raise UsageError(f"--worn.source={source}: the store has no outfit there with vectors of this --encoder")
    nothing = np.zeros(0, np.int64)
    return NONE, Worn(np.zeros((0, size), np.float32), np.zeros(0, np.int8), nothing, nothing)


def _of_posts(store: str, version: str, words: Mapping[str | None, str], attributes: Sequence[str]) -> Worn | None:
    """Products tagged in the same post, including those no longer sold."""
    if delta.open_table(store, schema.POSTS) is None:
        return None
    may = permitted(store, TRAINING)
    columns = [schema.POST_ID, schema.PRODUCT_IDS, schema.ACTIVE, schema.IMAGE_ID]
    posts = pl.from_arrow(may.of(current_posts(store, columns)))
    tags = posts.filter(pl.col(schema.ACTIVE)).select(schema.POST_ID, schema.PRODUCT_IDS).explode(schema.PRODUCT_IDS)
    tags = tags.drop_nulls().rename({schema.PRODUCT_IDS: schema.PRODUCT_ID})
    columns = [schema.PRODUCT_ID, schema.IMAGE_ID, schema.CATEGORY, *([schema.ATTRIBUTES] if attributes else [])]
    products = may.of(current_products(store, columns))
    known = pl.from_arrow(products.select(columns[:3]))
    said = [pc.map_lookup(products.column(schema.ATTRIBUTES), name, "first") for name in attributes]
    known = known.with_columns(pl.Series(f"{_SAID}{n}", pl.from_arrow(one)) for n, one in enumerate(said))
    known = known.drop_nulls(schema.IMAGE_ID)
    classes = pl.Series([words[word] for word in known[schema.CATEGORY].to_list()], dtype=pl.String)
    known = known.with_columns(classes.alias(schema.CATEGORY))
    rows = tags.join(known, on=schema.PRODUCT_ID).rename({schema.POST_ID: "outfit", schema.IMAGE_ID: "item"})
    return _worn(store, version, rows.sort("outfit", schema.PRODUCT_ID), of_products=True)


def _of_garments(store: str, version: str) -> Worn | None:
    """Garments of the same photo, the highest-scoring one per class."""
    newest = newest_version(store, schema.GARMENTS) if delta.open_table(store, schema.GARMENTS) is not None else None
    if not newest:
        return None
    columns = [schema.GARMENT_ID, schema.IMAGE_ID, schema.CATEGORY, schema.SCORE]
    found = delta.read(store, schema.GARMENTS, columns, stage_version=newest)
    rows = pl.from_arrow(permitted(store, TRAINING).of(found))
    rows = rows.sort(schema.IMAGE_ID, schema.CATEGORY, schema.SCORE, schema.GARMENT_ID, descending=[False, False, True, False])
    rows = rows.unique([schema.IMAGE_ID, schema.CATEGORY], keep="first", maintain_order=True)
    return _worn(store, version, rows.rename({schema.IMAGE_ID: "outfit", schema.GARMENT_ID: "item"}), of_products=False)


def _worn(store: str, version: str, rows: pl.DataFrame, of_products: bool) -> Worn | None:
    """``rows``: outfit, item (owner of a vector) and category, of which those of the seven classes count; and what its
    attributes say."""
    rows = rows.filter(pl.col(schema.CATEGORY).is_in(list(CATEGORIES)))
    vectors = _vectors(store, version, rows["item"].unique().to_arrow().cast(pa.string()))
    rows = rows.filter(pl.col("item").is_in(list(vectors))).filter(pl.len().over("outfit") > 1)
    if not rows.height:
        return None
    items = rows.unique("item", keep="first", maintain_order=True)
    names = items["item"].to_list()
    number = {name: i for i, name in enumerate(names)}
    classes = np.array([CODE[c] for c in items[schema.CATEGORY].to_list()], np.int8)
    at = np.array([number[name] for name in rows["item"].to_list()], np.int64)
    outfit = rows["outfit"].rank("dense").to_numpy().astype(np.int64)
    said = [items[name].to_arrow().cast(pa.string()) for name in items.columns if name.startswith(_SAID)]
    return Worn(np.stack([vectors[name] for name in names]), classes, at, outfit, of_products, said)


def _of_outfits(store: str, version: str, source: str) -> Worn | None:
    """Worn outfits of table `outfits`, of all splits: nothing is evaluated on them here."""
    opened = delta.open_table(store, schema.OUTFITS)
    if opened is None or not delta.count_rows(opened, source=source):
        return None
    splits, _ = read_outfits(store, version, source)
    vectors, classes, items, outfits, start, number = [], [], [], [], 0, 0
    for one in splits.values():
        meant = np.array([CODE.get(class_of_slot(slot) or "", -1) for slot in one.slots])
        worn_OS, slots_OS = one.items_OS[one.worn], one.slots_OS[one.worn]
        at = (worn_OS >= 0) & (meant[np.maximum(slots_OS, 0)] >= 0)
        class_U = np.full(len(one.vectors_ND), -1, np.int8)
        class_U[worn_OS[at]] = meant[slots_OS[at]]
        used = np.flatnonzero(class_U >= 0)
        place_of = np.full(len(class_U), -1, np.int64)
        place_of[used] = np.arange(len(used)) + start
        vectors.append(one.vectors_ND[used])
        classes.append(class_U[used])
        items.append(place_of[worn_OS[at]])
        outfits.append(np.nonzero(at)[0] + number)
        start, number = start + len(used), number + len(worn_OS)
    if not start:
        return None
    vectors_UD, class_U, item_I, outfit_I = map(np.concatenate, (vectors, classes, items, outfits))
    return Worn(vectors_UD, class_U, item_I, outfit_I, of_products=source != schema.OWN)


def vectors_of(store: str, catalog: Catalog, image_ids: Iterable[str]) -> dict[str, np.ndarray]:
    """The vectors of pictures that may no longer be in the catalog, as far as there are any."""
    return _vectors(store, catalog.model_version, pa.array(sorted(set(image_ids)), pa.string()))
