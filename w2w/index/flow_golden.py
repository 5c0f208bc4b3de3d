"""Golden queries, those of the shop's file and what people judged: which there are, and the vectors that they ask with."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema, storage
from w2w.engine.shuffle import Vectors, read_vectors
from w2w.errors import Reject, UsageError
from w2w.images.decode import decode
from w2w.index.golden import GARMENT, PHOTO, Golden, read_golden
from w2w.index.manifest import Manifest
from w2w.index.rows import Rows
from w2w.index.rules_release import some
from w2w.index.seen import GOLDEN, SEEN, Here, queries_in, read_seen
from w2w.index.spec import IndexConfig
from w2w.models.config import EncoderConfig
from w2w.models.encoder import finite_rows, load_encoder
from w2w.table.judgements import read_judgements
from w2w.table.pending import holding, lookup

_BATCH = 32
_QUERIES = [SEEN.field(n) for n in range(len(SEEN) - 1)]  # of SEEN without the answers


def golden_queries(store: str, config: IndexConfig) -> tuple[Golden, ...]:
    """Those of the file, and what people judged. Raises UsageError for a file that cannot be used."""
    queries = read_golden(config.golden) if config.golden else ()
    if not config.golden_judged:
        return queries
    judged = read_judgements(store, "garments").same
    wanted = pa.array(sorted(judged), pa.string())
    rows = lookup(store, schema.GARMENTS, wanted, [schema.GARMENT_ID, schema.CATEGORY])
    category_of = dict(zip(rows.column(0).to_pylist(), rows.column(1).to_pylist()))
    return queries + tuple(
        Golden("judgements", GARMENT, garment, tuple(sorted(products)), category=category_of[garment])
        for garment, products in sorted(judged.items())
        if products and garment in category_of
    )


def unknown_products(store: str, queries: Sequence[Golden], rows: Rows) -> tuple[str, ...]:
    """Products of golden queries that the catalog never had. Raises UsageError if it had none of those expected."""
    asked = {one.asked for one in queries if one.kind == schema.PRODUCT_ID}
    expected = {product for one in queries for product in one.expected}
    if not asked | expected:
        return ()
    named = pa.array(sorted(asked | expected), pa.string())
    left = named.filter(pc.invert(pc.is_in(named, value_set=rows.having(named)[schema.PRODUCT_ID])))
    unknown = set(left.to_pylist()) - set(holding(store, schema.PRODUCTS, left)[0].to_pylist() if len(left) else ())
    if expected and expected <= unknown:
        raise UsageError(f"golden queries expect products that the catalog never had, all of them: {some(sorted(unknown))}")
    return tuple(sorted(unknown))


def encode_photos(uri: str, served: Manifest | None, version: str, queries: Sequence[Golden], encoder: EncoderConfig) -> dict:
    """The vector of every golden photo by key: as it was last night, or computed here. Raises UsageError naming the row of a
    photo that cannot be read."""
    photos = [one for one in queries if one.kind == PHOTO]
    if not photos:
        return {}
    same_model = served is not None and served.model_version == version
    found = _vectors_of(read_seen(uri, served), {one.key for one in photos}) if same_model else {}
    due = [one for one in photos if one.key not in found]
    if not due:
        return found
    model = load_encoder(encoder)
    for start in range(0, len(due), _BATCH):
        batch, pixels = due[start : start + _BATCH], []
        for one in batch:
            try:
                pixels.append(model.prepare(decode(storage.read_bytes(storage.source(one.asked)))))
            except Reject as e:
                raise UsageError(f"{one.where}: photo: {e}") from None
        vectors_ND = model.encode(np.stack(pixels))
        if bad := np.flatnonzero(~finite_rows(vectors_ND)).tolist():
            raise UsageError(f"{batch[bad[0]].where}: photo: {model.name} gave NaN or infinity")
        found |= {one.key: vector_D for one, vector_D in zip(batch, vectors_ND)}
    return found


def _vectors_of(table: pa.Table | None, keys: set[str]) -> dict[str, np.ndarray]:
    if table is None:
        return {}
    wanted = pc.is_in(table[schema.KEY], value_set=pa.array(sorted(keys), pa.string()))
    mine = table.filter(pc.and_(pc.equal(table[schema.KIND], GOLDEN), wanted))
    listed = zip(*(mine[name].to_pylist() for name in (schema.KEY, schema.VECTOR)))
    return {key: np.asarray(vector, np.float32) for key, vector in listed}


def pinned(
    queries: Sequence[Golden],
    photos: Mapping[str, np.ndarray],
    stored: pa.Table | None,
    here: Here,
    vectors: Vectors,
    categories: Mapping[str, object],
) -> pa.Table:
    """The golden queries that can be asked, as SEEN without answers: not those of a product that is withdrawn, and within a
    category that the index has not."""
    known = queries_in(stored, GOLDEN)
    kept_D = _vectors_of(stored, {one.key for one in queries}) | dict(photos)
    asked: list[tuple[Golden, str | None, str | None, str | None]] = []
    for one in queries:
        product, image, category = None, None, one.category
        if one.kind == schema.PRODUCT_ID:
            if not here.has(one.asked):
                continue
            product, (image, own) = one.asked, here.fronts[one.asked]
            category = category or own
        elif one.kind == schema.IMAGE_ID:
            owner = min(here.owners.get(one.asked, ()), default=None)
            product, image = owner, one.asked
            category = category or (here.fronts[owner][1] if owner else None)
        if category is not None and category not in categories:
            continue
        if one.key in known and known[one.key].image != image:
            kept_D.pop(one.key, None)
        asked.append((one, product, image, category))
    due = [(one.key, image or one.asked) for one, _, image, _ in asked if one.key not in kept_D]
    places = vectors.find(pa.array([owner for _, owner in due], pa.string())) if due else np.empty(0, np.int64)
    there = np.flatnonzero(places >= 0)
    if len(there):
        found_ND = read_vectors(vectors, places[there])
        kept_D |= {due[n][0]: vector_D for n, vector_D in zip(there.tolist(), found_ND)}
    columns = [
        (GOLDEN, one.key, product, image, category, kept_D[one.key])
        for one, product, image, category in asked
        if one.key in kept_D
    ]
    listed = list(zip(*columns)) or [[] for _ in _QUERIES]
    return pa.table([pa.array(list(c), f.type) for c, f in zip(listed, _QUERIES)], schema=pa.schema(_QUERIES))
