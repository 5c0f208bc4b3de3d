"""Reads the catalog and what other jobs know of it, and asks the rules."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.check import rules, stage
from w2w.check.flow_vectors import GIVEN, Known, wrong_categories, wrong_values
from w2w.check.kinds import FOUND, KINDS, Seen
from w2w.check.rules_pictures import GROUP, HOUSE_STYLE, is_flat, is_plain, only_worn, same_pictures, shared_pictures, unclear
from w2w.classes import ETC
from w2w.engine.source import Source, pending_rows
from w2w.images.decode import DecodeLimits
from w2w.ingest.prices import written_price
from w2w.mining.catalog import chosen_version
from w2w.mining.representatives.rules import persons_of
from w2w.report.variants import COLOURS
from w2w.stage import Stage
from w2w.table import delta
from w2w.table.current import CurrentRows, newest_rows
from w2w.table.pending import Keys, rejected_keys, table_keys
from w2w.table.pictures import with_pictures

STAGE = "check"
HAS = {"title": "has_title", "brand": "has_brand", "price": "has_price", "link": "has_link", "colour": "has_colour"}
HAS_CATEGORY = "has_category"
_KEPT = [schema.PRODUCT_ID, schema.CATEGORY, schema.PRICE, schema.SALE_PRICE, schema.REGULAR_PRICE, schema.CURRENCY]
_KEPT += [schema.IMAGE_ID, schema.URL, schema.ROW_DIGEST]
_TEXTS = (schema.TITLE, schema.BRAND, schema.COLOUR, schema.SIZE_SAID, schema.GROUP_ID)
_COLUMNS = (schema.COLOUR, schema.BRAND)  # of values that attributes may have under another name
_SALE = ("saleprice", "specialprice")


@dataclass(frozen=True)
class Catalog:
    """Active products, a row each in the order of ids, with what the rules ask of them; and their pictures (product_id,
    image_id), the front first."""

    goods: pa.Table
    pictures: pa.Table


def read_catalog(store: str, attributes: Sequence[str] = ()) -> Catalog:
    """Held: about 350 bytes a product and 100 a picture; titles and attributes are read batch by batch. ``attributes``: whose
    values are kept."""
    columns = [*_KEPT, *_TEXTS, schema.ATTRIBUTES, schema.IMAGE_LIST, schema.ACTIVE]
    goods, pictures = [], []
    for batch in CurrentRows(store, schema.PRODUCTS).batches(columns):
        rows = batch.filter(batch.column(schema.ACTIVE))
        goods.append(_asked(rows, attributes))
        pictures.append(with_pictures(rows.select([schema.PRODUCT_ID, schema.IMAGE_ID, schema.IMAGE_LIST])))
    order = [(schema.PRODUCT_ID, "ascending")]
    empty = _asked(schema.PRODUCTS.empty(columns), attributes)
    listed = schema.PRODUCTS.empty([schema.PRODUCT_ID, schema.IMAGE_ID])
    shown = pa.concat_tables([listed, *pictures])
    shown = shown.filter(shown.column(schema.IMAGE_ID).is_valid())
    return Catalog(pa.concat_tables([empty, *goods]).sort_by(order).combine_chunks(), shown.sort_by(order).combine_chunks())


def _asked(rows: pa.Table, wanted: Sequence[str]) -> pa.Table:
    """The kept columns, which values there are, the group, the feed's sale price where it was no reduction, and the values of
    the ``wanted`` attributes."""
    title, brand, colour, size, group = (pc.fill_null(rows.column(c), "") for c in _TEXTS)
    attributes = rows.column(schema.ATTRIBUTES).to_pylist()
    coloured = [any(name in COLOURS and value for name, value in one or ()) for one in attributes]
    alike = pc.binary_join_element_wise("of", title, brand, colour, "\0")  # sizes of a product that names no group
    own = pc.binary_join_element_wise("one", rows.column(schema.PRODUCT_ID), "\0")
    key = pc.if_else(pc.and_(pc.not_equal(size, ""), pc.not_equal(title, "")), alike, own)
    key = pc.if_else(pc.not_equal(group, ""), pc.binary_join_element_wise("group", group, "\0"), key)
    told = {
        GROUP: pa.array(ids.hash_keys(key)),
        rules.OFFERED: pa.array(
            [_offered(*p) for p in zip(attributes, rows.column(schema.SALE_PRICE).to_pylist())], pa.float64()
        ),
        HAS["title"]: pc.not_equal(title, ""),
        HAS["brand"]: pc.not_equal(brand, ""),
        HAS["price"]: rows.column(schema.PRICE).is_valid(),
        HAS["link"]: rows.column(schema.URL).is_valid(),
        HAS["colour"]: pc.or_(pc.not_equal(colour, ""), pa.chunked_array([pa.array(coloured, pa.bool_())])),
        HAS_CATEGORY: pc.invert(pc.is_in(rows.column(schema.CATEGORY), value_set=pa.array(["", ETC]))),
    }
    for name in wanted:
        said = pa.array([_value(one, name) for one in attributes], pa.string())
        told[GIVEN + name] = pc.coalesce(said, rows.column(name)) if name in _COLUMNS else said
    kept = rows.select(_KEPT)
    for name, column in told.items():
        kept = kept.append_column(name, column)
    return kept


def _value(attributes: Sequence[tuple[str, str | None]] | None, name: str) -> str | None:
    return next((value for key, value in attributes or () if value and key.casefold() == name.casefold()), None)


def _offered(attributes: Sequence[tuple[str, str | None]] | None, taken: float | None) -> float | None:
    """The feed's own sale price, where it was not taken for one."""
    for name, value in attributes or () if taken is None else ():
        if value and "".join(c for c in name.lower() if c.isalpha()) in _SALE:
            return float(number) if (number := written_price(value).number) else None
    return None


def pictures_to_look_at(store: str, catalog: Catalog, version: str, item_rows: int, limit: int | None) -> Source:
    """Pictures of active products that have not been measured."""
    images = pc.unique(catalog.pictures.column(schema.IMAGE_ID))
    done = [table_keys(store, schema.QUALITY, schema.IMAGE_ID, stage_version=version), rejected_keys(store, STAGE, version)]
    columns = [schema.IMAGE_ID, schema.BYTES, schema.SOURCE_URI]
    among = Keys([pa.chunked_array([images], pa.string())], len(images))
    return pending_rows(store, schema.IMAGES, columns, done, schema.SOURCE_URI, item_rows, among, limit)


def look_stage(version: str, limits: DecodeLimits) -> Stage:
    return Stage("look", stage.look, (schema.BYTES,), stage.QUALITY_GIVES, {"limits": limits, "stage_version": version})


def look(
    store: str, catalog: Catalog, kinds: Sequence[str], quality: str, model: str | None, tagger: Known | str, least_px: int
) -> Seen:
    """All kinds. ``quality``: version of that table; ``model``: whose vectors, if any; ``tagger``: the store's, or why there is
    none."""
    goods = catalog.goods
    told, left_out = [FOUND.empty_table(), rules.without_picture(goods), rules.prices(goods)], {}
    few = rules.not_judged(goods)
    partly: dict[str, str] = {"price_outlier": few} if few else {}
    told += [rules.missing(goods, HAS | {"category": HAS_CATEGORY}), rules.rare_categories(goods)]
    columns = [schema.PRODUCT_ID, schema.ROW_DIGEST, schema.COLUMN, schema.REJECT_DETAIL]
    for warned in delta.read_batches(store, schema.WARNINGS, columns, delta.parts(delta.open_table(store, schema.WARNINGS))):
        told.append(rules.unreadable(goods, warned))
    needs = {KINDS[kind].needs for kind in kinds}
    for need, seen in (
        ("links", lambda: _broken(store, goods)),
        ("pictures", lambda: _clear(store, catalog, quality, least_px)),
        ("vectors", lambda: wrong_categories(store, goods, model)),
        ("tags", lambda: wrong_values(store, goods, tagger)),
        ("looks", lambda: _worn(store, catalog.pictures)),
    ):
        if need in needs and goods.num_rows:
            part = seen()
            told.append(part.found)
            left_out |= part.left_out
            partly |= part.partly
    found = pa.concat_tables(told)
    keep = pc.is_in(found.column(schema.KIND), value_set=pa.array(kinds, pa.string()))
    known = ({kind: why for kind, why in whys.items() if kind in kinds} for whys in (left_out, partly))
    return Seen(_once(found.filter(keep)), *known)


def _once(found: pa.Table) -> pa.Table:
    """Without repeats of a finding: batches of warnings may hold two of one column."""
    first = np.unique(np.array(rules.check_ids(found), str), return_index=True)[1]
    return found.take(pa.array(np.sort(first)))


def _broken(store: str, goods: pa.Table) -> Seen:
    kind, asked = "broken_link", delta.read(store, schema.LINKS_ASKED, schema.LINKS_ASKED.schema.names)
    if not asked.num_rows:
        why = "it asks the shop's servers, politely: --links=N for at most N links a night"
        why = why if goods.column(schema.URL).null_count < goods.num_rows else "no product has a link"
        return Seen(FOUND.empty_table(), {kind: why})
    links = pc.unique(goods.column(schema.URL).drop_null())
    left = len(links) - (pc.sum(pc.is_in(links, value_set=asked.column(schema.URL))).as_py() or 0)
    return Seen(rules.broken_links(goods, asked), partly={kind: f"{left:,} that are not asked yet: --links=N"} if left else {})


def _clear(store: str, catalog: Catalog, version: str, least_px: int) -> Seen:
    goods, pictures = catalog.goods, catalog.pictures
    names = pc.unique(pictures.column(schema.IMAGE_ID))
    known = pa.table([names], names=[schema.IMAGE_ID])
    measures = [schema.SHARPNESS, schema.CONTRAST, schema.FILLED]
    known = _joined(known, store, schema.IMAGES, [schema.WIDTH, schema.HEIGHT, schema.PHASH])
    known = _joined(known, store, schema.QUALITY, measures, stage_version=version)
    known = _joined(known, store, schema.DUPLICATES, [schema.CLUSTER_ID])
    hashes = known.column(schema.PHASH)
    counts = pc.value_counts(hashes)
    several = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    alike = names.filter(pc.is_in(hashes, value_set=several).combine_chunks())
    known = _joined(known, store, schema.QUALITY, [schema.GRID], alike, stage_version=version)
    cluster_N, flat_N, plain_N = same_pictures(known), is_flat(known), is_plain(known)
    at = pc.index_in(goods.column(schema.IMAGE_ID), value_set=names)
    front_N = pc.fill_null(at, -1).to_numpy(zero_copy_only=False)
    there = front_N >= 0
    of_goods = np.where(there, cluster_N[front_N], -1) if len(cluster_N) else front_N
    flat, plain = (there & of_N[front_N] if len(of_N) else there for of_N in (flat_N, plain_N))
    each = known.take(pc.index_in(pictures.column(schema.IMAGE_ID), value_set=names))
    each = each.append_column(schema.PRODUCT_ID, pictures.column(schema.PRODUCT_ID))
    found = pa.concat_tables([shared_pictures(goods, of_goods, flat, plain), unclear(each, least_px)])
    known_all = delta.open_table(store, schema.DUPLICATES) is not None
    return Seen(found, partly={} if known_all else {"shared_picture": "copies of other sizes: run 'w2w deduplicate'"})


def _joined(
    known: pa.Table,
    store: str,
    table: schema.Table,
    columns: Sequence[str],
    among: pa.Array | None = None,
    **partition: str,
) -> pa.Table:
    """With these columns of ``table``, null where it has no such picture, or that is not ``among`` these."""
    empty = table.empty([schema.IMAGE_ID, *columns])
    listed = delta.parts(delta.open_table(store, table), **partition)
    batches = delta.read_batches(store, table, empty.schema.names, listed)
    names = known.column(schema.IMAGE_ID)
    wanted = names if among is None else among
    rows = pa.concat_tables([empty, *(b.filter(pc.is_in(b.column(0), value_set=wanted)) for b in batches)]).combine_chunks()
    rows = rows.take(pc.index_in(names, value_set=rows.column(0)))
    for name in columns:
        known = known.append_column(name, rows.column(name))
    return known


def _worn(store: str, pictures: pa.Table) -> Seen:
    kind, names = "only_worn", pc.unique(pictures.column(schema.IMAGE_ID))
    version = chosen_version(store, schema.LOOKS, "auto", "")
    if version is None:
        return Seen(FOUND.empty_table(), {kind: "it needs to know whom the pictures show: run 'w2w detect'"})
    looks, garments = (
        _among(store, table, columns, names, version)
        for table, columns in (
            (schema.LOOKS, [schema.IMAGE_ID, schema.CROP_SOURCE]),
            (schema.GARMENTS, [schema.IMAGE_ID, schema.CATEGORY, schema.BOX]),
        )
    )
    if not looks.num_rows:
        return Seen(FOUND.empty_table(), {kind: "no picture of a product was looked at: run 'w2w detect'"})
    worn = persons_of(garments, looks).get_column(schema.IMAGE_ID).to_arrow().cast(pa.string())
    told, share = only_worn(pictures, looks.column(schema.IMAGE_ID), worn)
    why = {kind: f"{share:.0%} of the products are shown only worn: so this shop shows them"} if share > HOUSE_STYLE else {}
    return Seen(told, why)


def _among(store: str, table: schema.Table, columns: list[str], images: pa.Array, version: str) -> pa.Table:
    listed = delta.parts(delta.open_table(store, table), stage_version=version)
    batches = delta.read_batches(store, table, columns, listed)
    return pa.concat_tables([table.empty(columns), *(b.filter(pc.is_in(b.column(0), value_set=images)) for b in batches)])


def read_before(store: str) -> pa.Table:
    return delta.read(store, schema.CHECKS, schema.CHECKS.schema.names)


def last_run(store: str) -> datetime | None:
    """When the table was last written by a run."""
    opened = delta.open_table(store, schema.CHECKS)
    stamps = [entry["timestamp"] for entry in (delta.history(opened) if opened else []) if entry["w2w"]]
    return datetime.fromtimestamp(max(stamps) / 1000, UTC) if stamps else None


def products_of(store: str, product_ids: Iterable[str]) -> dict[str, dict]:
    """The rows to show of these products."""
    columns = [schema.PRODUCT_ID, schema.TITLE, schema.BRAND, schema.PRICE, schema.CURRENCY, schema.CATEGORY, schema.URL]
    return newest_rows(store, schema.PRODUCTS, product_ids, columns)
