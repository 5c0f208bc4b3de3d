"""What the variants of a product say of it, where they are rows of their own: WooCommerce's variations, Magento's simple
products of a configurable one."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.errors import RejectCode
from w2w.ingest.amounts import decimal_sign, numbers
from w2w.ingest.normalise import STOCK_ORDER, in_words, on_sale
from w2w.ingest.pictures import listed
from w2w.ingest.raw import IMAGE, SALE_DATES, RawBatch, trimmed, warned_array, warned_of
from w2w.ingest.variants import OPTIONS, Said, said_in

PAIRS = re.compile(r"(?:^|,)\s*([A-Za-z0-9_]+)=(.*?)(?=,\s*[A-Za-z0-9_]+=|$)", re.DOTALL)  # color=Red,size=M
_NO_PRICE = "no variant of it in the feed has a price"


@dataclass(frozen=True)
class Kin:
    """Which columns tie a product to its variants, by their plain names. ``parent``: of a variant, the SKU of its product, or
    id:ID. ``children``: of a product, its variants: sku=A,size=S|sku=B,size=M. One of the two. ``kind`` of a product that has
    variants is among ``parents``."""

    kind: str
    parents: tuple[str, ...]
    parent: str = ""
    children: str = ""
    own_stock: bool = False  # a product that is out of stock is so whatever its variants are


@dataclass
class Families:
    """For each of n products that have variants: ``keys``, shape (n,), and what the variants say. ``members``: variant ->
    product, where those list their variants."""

    keys: pa.Array
    price: pa.Array  # of the variant that costs least now, as the feed writes it
    sale: pa.Array  # of the same, where it counts now
    stock: pa.Array
    pictures: list[list[str]]
    sizes: np.ndarray  # how many variants
    members: tuple[pa.Array, pa.Array] | None = None
    met: np.ndarray = field(init=False)  # whether the feed has the product

    def __post_init__(self):
        self.met = np.zeros(len(self.keys), bool)

    @property
    def num_orphans(self) -> int:
        """Variants of products that the feed lacks."""
        return int(self.sizes[~self.met].sum())


def families_of(
    kin: Kin, variants: Iterator[tuple[RawBatch, Said]], decimal: str, now: datetime, dates_of: Callable[[Said], pa.Array]
) -> Families:
    """Reads the rows of variants once. Memory: their prices, stock and pictures, about 200 bytes each."""
    none = pa.nulls(0, pa.string())
    parts: dict[str, list[pa.Array]] = {name: [none] for name in ("key", "price", "sale", "dates", "stock", "picture")}
    links: dict[str, list[pa.Array]] = {"parent": [none], "child": [none]}
    for raw, said in variants:
        empty = pa.nulls(len(raw.source), pa.string())
        key = said(kin.parent) if kin.parent else said("sku")
        found = [key, *(trimmed(raw.columns.get(c, empty)) for c in (schema.PRICE, schema.SALE_PRICE)), dates_of(said)]
        found += [trimmed(raw.columns.get(c, empty)) for c in (schema.AVAILABILITY, IMAGE)]
        if kin.children:
            owners, pieces = _pieces(said("sku"), said(kin.children))
            links["parent"].append(owners)
            links["child"].append(pa.array([_pairs(one).get("sku") for one in pieces], pa.string()))
            keep = pc.and_(key.is_valid(), said(kin.children).is_null())
        else:
            keep = key.is_valid()
        for name, values in zip(parts, found):
            parts[name].append(values.filter(keep))
    rows = pa.table({name: pa.concat_arrays(some) for name, some in parts.items()})
    members = None
    if kin.children:
        parent, child = (pa.concat_arrays(some) for some in links.values())
        members = child, parent
        at = pc.index_in(child, value_set=rows.column("key").combine_chunks())
        known = at.is_valid()
        rows = rows.take(at.filter(known)).set_column(0, "key", parent.filter(known))
    return _by_product(rows.combine_chunks(), decimal, now, members)


def _by_product(rows: pa.Table, decimal: str, now: datetime, members: tuple[pa.Array, pa.Array] | None) -> Families:
    key, price, sale, dates, stock, picture = (rows.column(name).combine_chunks() for name in rows.column_names)
    decimal = decimal or decimal_sign(pa.concat_arrays([price, sale])) or "."
    encoded = key.dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    regular, reduced = (numbers(text, decimal) for text in (price, sale))
    reduced = pc.if_else(pc.and_(on_sale(dates, now)[0], pc.fill_null(pc.greater(reduced, 0), False)), reduced, None)
    current = pc.if_else(pc.fill_null(pc.less(reduced, regular), reduced.is_valid()), reduced, regular)
    lowest = pc.fill_null(current, np.inf).to_numpy(zero_copy_only=False)
    order = np.lexsort((lowest, codes))
    best = pa.array(order[np.unique(codes[order], return_index=True)[1]], pa.int64())
    ranks = pc.fill_null(pc.index_in(in_words(stock)[0], value_set=STOCK_ORDER), len(STOCK_ORDER))
    first = np.full(len(encoded.dictionary), len(STOCK_ORDER))
    np.minimum.at(first, codes, ranks.to_numpy(zero_copy_only=False))
    pictures: list[list[str]] = [[] for _ in range(len(encoded.dictionary))]
    for code, one in zip(codes.tolist(), picture.to_pylist()):
        if one:
            pictures[code].append(one)
    at = pa.array(np.where(first < len(STOCK_ORDER), first, 0), mask=first == len(STOCK_ORDER))
    sale = pc.if_else(reduced.is_valid(), sale, None)
    sizes = np.bincount(codes, minlength=len(encoded.dictionary))
    return Families(encoded.dictionary, price.take(best), sale.take(best), STOCK_ORDER.take(at), pictures, sizes, members)


def with_families(
    kin: Kin, found: Families, batches: Iterator[RawBatch], columns: Mapping[str, str], plain: Callable[[str], str]
) -> Iterator[RawBatch]:
    """The same rows; those of products say what their variants say. At the end, how many variants belong to no product."""
    raw = None
    for raw in batches:
        yield _filled(kin, found, raw, said_in(raw, columns, plain))
    if raw is not None and found.num_orphans:
        end = raw.slice(0, 0)
        yield replace(end, rejects=end.rejects.slice(0, 0), num_aside=0, num_left_out=0, num_orphans=found.num_orphans)


def _filled(kin: Kin, found: Families, raw: RawBatch, said: Said) -> RawBatch:
    count = len(raw.source)
    empty = pa.nulls(count, pa.string())
    sku, ids = said("sku"), trimmed(raw.columns.get(schema.PRODUCT_ID, empty))
    if kin.parent:
        by_id = pc.index_in(pc.binary_join_element_wise("id:", said("id"), ""), value_set=found.keys)
        at = pc.coalesce(by_id, pc.index_in(sku, value_set=found.keys))
    else:
        at = pc.index_in(sku, value_set=found.keys)
    has = at.is_valid()
    found.met[at.drop_null().to_numpy(zero_copy_only=False)] = True
    own = {name: trimmed(raw.columns.get(name, empty)) for name in (schema.PRICE, schema.SALE_PRICE, schema.AVAILABILITY)}
    own |= {name: trimmed(raw.columns.get(name, empty)) for name in (schema.GROUP_ID, schema.COLOUR, schema.SIZE_SAID)}
    priced = pc.fill_null(pc.or_(found.price.take(at).is_valid(), found.sale.take(at).is_valid()), False)
    new = {schema.PRICE: pc.if_else(priced, found.price.take(at), own[schema.PRICE])}
    new[schema.SALE_PRICE] = pc.if_else(priced, found.sale.take(at), own[schema.SALE_PRICE])
    stock = found.stock.take(at)
    if kin.own_stock:
        stock = pc.if_else(pc.fill_null(pc.equal(in_words(own[schema.AVAILABILITY])[0], "out_of_stock"), False), None, stock)
    new[schema.AVAILABILITY] = pc.coalesce(stock, own[schema.AVAILABILITY])
    group = pc.if_else(has, ids, None)
    if found.members:
        child, parent = found.members
        group = pc.coalesce(group, parent.take(pc.index_in(sku, value_set=child)))
        said_of = _options(said(kin.children))
        new |= {ours: pc.coalesce(own[ours], values) for ours, values in said_of.items()}
    new[schema.GROUP_ID] = pc.coalesce(own[schema.GROUP_ID], group)
    new |= _pictured(found, at, raw, empty)
    if SALE_DATES in raw.columns:
        new[SALE_DATES] = pc.if_else(priced, None, raw.columns[SALE_DATES])
    kinds = pc.fill_null(pc.utf8_lower(said(kin.kind)), "")
    is_parent = pc.match_substring_regex(kinds, rf"(?:^|,)\s*(?:{'|'.join(kin.parents)})")
    bare = pc.and_(is_parent, pc.and_(new[schema.PRICE].is_null(), new[schema.SALE_PRICE].is_null()))
    return _warned(replace(raw, columns=raw.columns | new), bare)


def _pictured(found: Families, at: pa.Array, raw: RawBatch, empty: pa.Array) -> dict[str, pa.Array]:
    """The front picture and the list of all, with the variants' at its end."""
    fronts, lists = (raw.columns.get(name, empty).to_pylist() for name in (IMAGE, schema.IMAGE_LIST))
    changed = False
    for row, family in enumerate(at.to_pylist()):
        more = [] if family is None else found.pictures[family]
        if not more:
            continue
        changed = True
        pictures = listed(lists[row] or "")
        have = {src for src, _ in pictures} | {fronts[row]}
        pictures += [(src, schema.VARIANT) for src in dict.fromkeys(more) if src not in have]
        lists[row] = json.dumps([{"src": src, schema.ROLE: role} for src, role in pictures])
        fronts[row] = fronts[row] or more[0]
    if not changed:
        return {}
    return {IMAGE: pa.array(fronts, pa.string()), schema.IMAGE_LIST: pa.array(lists, pa.string())}


def _warned(raw: RawBatch, bare: pa.Array) -> RawBatch:
    rows = np.flatnonzero(bare.to_numpy(zero_copy_only=False)).tolist()
    if not rows:
        return raw
    said = warned_of(raw)
    for row in rows:
        said.setdefault(row, []).append((schema.PRICE, RejectCode.MISSING_FIELD.value, _NO_PRICE))
    return replace(raw, warned=warned_array(said, len(raw.source)))


def _pieces(owners: pa.Array, lists: pa.Array) -> tuple[pa.Array, list[str]]:
    """The parts of each list, and whose they are."""
    parts = pc.split_pattern(lists, "|")
    return owners.take(pc.list_parent_indices(parts)), pc.list_flatten(parts).to_pylist()


def _pairs(text: str) -> dict[str, str]:
    return {name.lower(): value.strip() for name, value in PAIRS.findall(text)}


def _options(lists: pa.Array) -> dict[str, pa.Array]:
    """Colours and sizes of the variants that a product lists."""
    rows = [[_pairs(part) for part in text.split("|")] if text else [] for text in lists.to_pylist()]
    found = {}
    for ours, called in OPTIONS.items():
        each = [dict.fromkeys(v for one in row for name, v in one.items() if name in called) for row in rows]
        found[ours] = pa.array([", ".join(values) or None for values in each], pa.string())
    return {ours: values for ours, values in found.items() if values.null_count < len(values)}
