"""Which rows are to be indexed, where the tables' logs tell what has changed since the published version: only that is read."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.engine.shuffle import Vectors, seek_vectors
from w2w.index import rows as r
from w2w.index.beside import Changed
from w2w.index.manifest import Manifest
from w2w.index.rows import Rows, ToStore
from w2w.table import bridges, changes, delta
from w2w.table.current import newest_of_each
from w2w.table.permitted import Permitted
from w2w.table.pictures import with_pictures

MOST_TOUCHED = 100_000  # rows that came: of more, all are compared
MOST_WITHOUT, _NAME = 1000, 16  # pictures in a manifest without a vector, or refused, and the length of their names
_COLUMNS = [
    *(schema.PRODUCT_ID, schema.FETCHED_AT, schema.IMAGE_ID, schema.IMAGE_LIST),
    *(schema.CATEGORY, schema.AVAILABILITY, schema.ACTIVE),
]


@dataclass(frozen=True)
class Came:
    """Since the published version: parts of table `products`, and the pictures that have a vector."""

    products: list[delta.Part]
    pictures: pa.ChunkedArray


def came_since(store: str, version: str, served: Manifest | None, standing: dict[str, Any]) -> Came | None:
    """``standing``: of the tables, now. None where the tables' logs do not tell, or it is much."""
    then = served.standing if served else {}
    if served is None or served.model_version != version or not then:
        return None
    if then["permitted"] != standing["permitted"] or bridges.find(store, version):
        return None
    found = []
    for table, partition in ((schema.PRODUCTS, {}), (schema.EMBEDDINGS, {schema.MODEL_VERSION: version})):
        opened, told = delta.open_table(store, table), then["tables"].get(table.name)
        listed = delta.parts(opened, **partition)
        came = changes.since(store, table, opened, changes.At(**told), listed, partition) if told else ""
        if isinstance(came, str) or came.removed or came.merged_new:
            return None
        if sum(part.rows for part in came.added) > MOST_TOUCHED:
            return None
        found.append(came.added)
    return Came(found[0], keys_in(store, schema.EMBEDDINGS, found[1]))


def keys_in(store: str, table: schema.Table, listed: list[delta.Part]) -> pa.ChunkedArray:
    found = [batch.column(0) for batch in delta.read_batches(store, table, [table.key[0]], listed)]
    return pa.chunked_array([chunk for column in found for chunk in column.chunks], pa.string())


@dataclass(frozen=True)
class Read:
    """What is to be indexed: ``rows`` with their ``vectors``; ``missing``: number of those without one; ``without``: their
    pictures, for the next night, or None for too many; ``to_store``: the rows, for later runs. ``touched``: the only products
    that may have other rows than in the published version, and ``changed``, the same with these rows, where they are known;
    ``refused``: which rows search may not use, where they were looked up."""

    rows: Rows
    vectors: Vectors
    missing: int
    without: list[str] | None
    to_store: ToStore
    touched: pa.Array | None = None
    changed: Changed | None = None
    refused: "list[Refused] | None" = None


@dataclass(frozen=True)
class Refused:
    """A row that is not indexed, as search may not use its picture: a hash of the product, the name of the picture, and whether
    the product has no other picture. A manifest tells it as a list."""

    product: str
    picture: str
    alone: bool


def refused_in(rows: pa.Table, allowed: Permitted) -> list[Refused] | None:
    """Of all rows (product_id, image_id) of some products; None for too many."""
    may = allowed.mask(rows[schema.IMAGE_ID])
    gone = rows.filter(pa.array(~may))
    if gone.num_rows > MOST_WITHOUT:
        return None
    products = gone[schema.PRODUCT_ID]
    its = pc.is_in(rows[schema.PRODUCT_ID], value_set=products).to_numpy(zero_copy_only=False)
    others = rows.filter(pa.array(its & may))[schema.PRODUCT_ID]
    alone = pc.invert(pc.is_in(products, value_set=others)).to_pylist()
    hashes = [f"{first:016x}{second:016x}" for first, second in ids.hash_keys_128(products).tolist()]
    return [Refused(*one) for one in zip(hashes, names(gone).to_pylist(), alone)]


def seek_rows(
    store: str, uri: str, version: str, served: Manifest | None, standing: dict[str, Any], allowed: Permitted
) -> Read | None:
    """None where all rows are to be read. ``standing``: as in ``came_since``."""
    came = came_since(store, version, served, standing)
    before = r.read_stored(uri, served.standing.get("rows")) if served and came else None
    if served is None or came is None or before is None:
        return None
    known = served.standing.get("refused", None if len(allowed.refused) else [])
    if known is None:
        return None
    empty = schema.PRODUCTS.empty(_COLUMNS)
    told = pa.concat_tables([empty, *delta.read_batches(store, schema.PRODUCTS, _COLUMNS, came.products)])
    told = newest_of_each(told, schema.PRODUCT_ID)
    owners = _missing(before.with_and_without(images=came.pictures))[schema.PRODUCT_ID]
    others = owners.filter(pc.invert(pc.is_in(owners, value_set=told[schema.PRODUCT_ID])))
    products = pc.unique(pa.chunked_array([*told[schema.PRODUCT_ID].chunks, *others.chunks], pa.string()))
    then, vectors = before.with_and_without(products), seek_vectors(store, version)
    active = with_pictures(told.filter(told[schema.ACTIVE]))
    hashes = {f"{first:016x}{second:016x}" for first, second in ids.hash_keys_128(told[schema.PRODUCT_ID]).tolist()}
    more, left = refused_in(active, allowed), [one for one in (Refused(*one) for one in known) if one.product not in hashes]
    if more is None or len(left) + len(more) > MOST_WITHOUT:
        return None
    now = pa.concat_tables(
        [
            r.stored(allowed.of(active), None),
            then.filter(pc.is_in(then[schema.PRODUCT_ID], value_set=others)),
        ]
    )
    images, known = now[schema.IMAGE_ID], _with(then)[schema.IMAGE_ID]
    has = pc.or_(pc.is_in(images, value_set=came.pictures), pc.is_in(images, value_set=known)).to_numpy().copy()
    if not has.all():
        has[~has] = vectors.find(images.filter(pa.array(~has))) >= 0
    now = r.stored(now, has)
    rows = before.with_changed(products, now)
    named, without = served.standing.get("without"), None
    if named is not None and rows.missing <= MOST_WITHOUT:
        rest = Counter(named) - Counter(names(_missing(then)).to_pylist()) + Counter(names(_missing(now)).to_pylist())
        without = sorted(rest.elements())
    changed = Changed(products, *(_with(some).select(r.STORED.names[:3]) for some in (then, now)))
    if not rows.num_rows:
        return None
    return Read(rows, vectors, rows.missing, without, ToStore.changed(rows), products, changed, [*left, *more])


def _with(rows: pa.Table) -> pa.Table:
    return rows.filter(rows[r.HAS])


def _missing(rows: pa.Table) -> pa.Table:
    return rows.filter(pc.invert(rows[r.HAS]))


def names(rows: pa.Table) -> pa.ChunkedArray:
    """Of pictures: the beginning of their ids, 64 bits, which name nothing that is erased."""
    return short(rows.column(schema.IMAGE_ID))


def short(image_ids: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    return pc.utf8_slice_codeunits(image_ids, 0, _NAME)
