"""Shopify's rows of variants and pictures, gathered into the row of their product."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.ingest.amounts import decimal_sign, numbers
from w2w.ingest.raw import RawBatch, trimmed

_MOST_ROWS = 10_000  # of one product that are held
_NO_OPTION = "default title"
OPTIONS = {
    schema.COLOUR: ("colour", "color", "farbe", "couleur", "colore", "kleur"),
    schema.SIZE_SAID: ("size", "größe", "groesse", "taille", "taglia", "maat"),
}
OPTION_COLUMNS = ("option{}name", "option{}value")  # of three options
Said = Callable[[str], pa.Array]


def said_in(raw: RawBatch, columns: Mapping[str, str], plain: Callable[[str], str]) -> Said:
    """A function: the values of a column by its plain name; nulls if the batch has none."""
    known = {plain(theirs): trimmed(raw.columns[ours]) for ours, theirs in columns.items() if ours in raw.columns}
    names = {plain(name): name for name in pc.unique(raw.attributes.keys).to_pylist()}

    def said(theirs: str) -> pa.Array:
        if theirs in known:
            return known[theirs]
        if theirs in names:
            return trimmed(pc.map_lookup(raw.attributes, names[theirs], "first"))
        return pa.nulls(len(raw.source), pa.string())

    return said


def by_product(
    batches: Iterator[RawBatch], columns: Mapping[str, str], plain: Callable[[str], str], decimal: str
) -> Iterator[RawBatch]:
    """The same rows; the first of each run of one product_id says what all of the run say: its pictures, colours, sizes, and
    whether one of its variants is in stock, and what the cheapest of them costs."""
    held: RawBatch | None = None
    for raw in batches:
        whole = raw if held is None else held.plus(raw)
        ids = whole.columns[schema.PRODUCT_ID].to_pylist()
        last = len(ids)
        while last and ids[last - 1] == ids[-1]:
            last -= 1
        if last == 0 and len(ids) < _MOST_ROWS:
            held = whole
            continue
        held = whole.slice(last, len(ids)) if last else None
        yield _gathered(whole.slice(0, last) if last else whole, columns, plain, decimal)
    if held is not None:
        yield _gathered(held, columns, plain, decimal)


def _gathered(raw: RawBatch, columns: Mapping[str, str], plain: Callable[[str], str], decimal: str) -> RawBatch:
    ids, count = raw.columns[schema.PRODUCT_ID].to_pylist(), len(raw.source)
    said = said_in(raw, columns, plain)
    names = ("imagesrc", "imageposition", "variantimage", "variantinventoryqty", "variantinventorypolicy")
    sources, positions, of_variants, stock, policy = (said(name).to_pylist() for name in names)
    costs = pc.fill_null(
        numbers(said("variantprice"), decimal or decimal_sign(said("variantprice")) or "."), math.inf
    ).to_pylist()
    options = [[said(one.format(n)).to_pylist() for one in OPTION_COLUMNS] for n in (1, 2, 3)]
    found: dict[str, list[str | None]] = {
        name: [None] * count for name in (schema.IMAGE_LIST, schema.AVAILABILITY, schema.COLOUR, schema.SIZE_SAID)
    }
    cheapest, start = np.arange(count), 0  # row -> the variant that it takes its prices from
    for end in range(1, count + 1):
        if end < count and ids[end] == ids[start]:
            continue
        run = slice(start, end)
        found[schema.IMAGE_LIST][start] = _pictures(sources[run], positions[run], of_variants[run])
        found[schema.AVAILABILITY][start] = _availability(stock[run], policy[run])
        cheapest[start] = min(range(start, end), key=costs.__getitem__)
        for called, values in options:
            name = (called[start] or "").lower()
            for ours, words in OPTIONS.items():
                if name in words:
                    found[ours][start] = _distinct(values[run])
        start = end
    arrays = {name: pa.array(values, pa.string()) for name, values in found.items()}
    own = {name: values for name, values in arrays.items() if values.null_count < count and name not in columns}
    of_cheapest = {c: raw.columns[c].take(pa.array(cheapest)) for c in (schema.PRICE, schema.SALE_PRICE) if c in raw.columns}
    return replace(raw, columns=raw.columns | own | of_cheapest)


def _pictures(sources: list[str | None], positions: list[str | None], of_variants: list[str | None]) -> str | None:
    rows = sorted((int(p) if p and p.isdecimal() and len(p) < 9 else 1 << 30, n) for n, p in enumerate(positions))
    variants = {v for v in of_variants if v}
    listed = dict.fromkeys([*filter(None, (sources[n] for _, n in rows)), *sorted(variants)])
    if not listed:
        return None
    pictures = [{"src": src} | ({schema.ROLE: schema.VARIANT} if src in variants else {}) for src in listed]
    return json.dumps(pictures)


def _availability(stock: list[str | None], policy: list[str | None]) -> str | None:
    told = [(s, p) for s, p in zip(stock, policy) if s]
    if not told:
        return None
    is_there = any(not s.startswith(("-", "0")) or (p or "").lower() == "continue" for s, p in told)
    return "in stock" if is_there else "out of stock"


def _distinct(values: list[str | None]) -> str | None:
    return ", ".join(dict.fromkeys(v for v in values if v and v.lower() != _NO_OPTION)) or None
