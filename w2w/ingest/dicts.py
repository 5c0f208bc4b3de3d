"""Rows that come as dicts of JSON values, as from JSON, XML, archives and web pages: to mapped text columns and attributes."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from w2w import schema
from w2w.errors import Reject, RejectCode
from w2w.ingest.paths import all_at, is_path, plain_row
from w2w.ingest.prices import written_price
from w2w.ingest.raw import (
    DELETED,
    PATHS,
    REQUIRED,
    TEXTS,
    Mapping,
    RawBatch,
    RejectRow,
    Warned,
    image_table,
    reject_table,
    warned_array,
)

JSON = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)  # numbers keep their spelling
MAX_BATCH_BYTES = 64 * 1024 * 1024  # of JSON lines, or of a tar's metadata: rows may be large
_COMPARED, _OF_VARIANTS = "compare_at_price", "variants[].featured_image.src"  # Shopify's
_MACHINE = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,40})?")


def in_batches(
    found: Iterable[tuple[str, dict[str, object] | Reject, int]], mapping: Mapping, batch_rows: int
) -> Iterator[RawBatch]:
    """Records as batches: each with its position, its column values or its fault, and its approximate size in bytes."""
    rows: list[dict[str, object]] = []
    sources: list[str] = []
    rejects: list[RejectRow] = []
    held = 0
    for where, row, size in found:
        held += size
        if isinstance(row, Reject):
            rejects.append((where, row.code, row.detail, where))
        else:
            rows.append(row)
            sources.append(where)
        if len(rows) + len(rejects) >= batch_rows or held >= MAX_BATCH_BYTES:
            yield batch_of_dicts(rows, sources, mapping, rejects)
            rows, sources, rejects, held = [], [], [], 0
    if rows or rejects:
        yield batch_of_dicts(rows, sources, mapping, rejects)


def batch_of_dicts(
    rows: list[dict[str, object]],
    sources: list[str],
    mapping: Mapping,
    rejects: list[RejectRow],
    images: Sequence[tuple[str, int | None, int | None, str]] | None = None,
) -> RawBatch:
    """Rows of JSON values, with ``images`` (uri, offset, size, fingerprint). Rows that are not text are rejected."""
    warned: Warned = {}
    try:
        columns, attributes = _columns_of(rows, mapping)
    except (pa.ArrowTypeError, UnicodeEncodeError, RecursionError):  # some row is at fault, or a mapped column holds booleans
        kept, texts = [], []
        for i, row in enumerate(rows):
            try:
                text, unread = _text_of(row, mapping)
                if unread:
                    warned[len(kept)] = unread
                texts.append(text)
                kept.append(i)
            except (ValueError, RecursionError) as e:
                why = "it holds half a surrogate pair" if isinstance(e, UnicodeError) else str(e)
                rejects = [*rejects, (sources[i], RejectCode.BAD_VALUE, why, sources[i])]
        columns, attributes = _columns_of(texts, mapping)
        columns[schema.IMAGE_LIST] = pa.array([_pictures_of(rows[i], mapping) for i in kept], pa.string())
        sources = [sources[i] for i in kept]
        images = None if images is None else [images[i] for i in kept]
    located = None if images is None else image_table(images)
    said = warned_array(warned, len(sources)) if warned else None
    return RawBatch(columns, attributes, pa.array(sources, pa.string()), reject_table(rejects), located, warned=said)


def _columns_of(rows: list, mapping: Mapping) -> tuple[dict[str, pa.Array], pa.MapArray]:
    """The mapped columns and the attributes. Raises if a mapped value is neither text nor null, or text is invalid Unicode."""
    columns = {}
    if any(map(is_path, mapping.attributes or ())):
        rows = [plain_row(row) for row in rows]
    for ours in mapping.single:
        theirs = mapping.theirs(ours)
        at = _AT.get(ours, _words_at if ours in TEXTS else _text_at if ours == DELETED else _at)
        columns[ours] = pa.array([at(row, theirs) for row in rows], pa.string())
    columns[schema.IMAGE_LIST] = pa.array([_pictures_of(row, mapping) for row in rows], pa.string())
    skip, keep = mapping.no_attributes, mapping.attributes
    skip |= {f"{mapping.theirs(schema.IMAGE_LIST)}[]"}  # of XML
    read = mapping.read
    orders: dict[tuple[str, ...], list[str]] = {}  # rows of one feed have few distinct sets of keys
    offsets, keys, items = [0], [], []
    for row in rows if keep is not None else map(read.left, rows):
        names = tuple(row)
        order = orders.get(names)
        if order is None:
            order = orders[names] = sorted(set(names) - skip if keep is None else set(names) & set(keep))
        for name in order:
            value = row[name]
            if value.__class__ is not str:
                value = _text(value) or ""
            if value := value.strip():
                keys.append(name)
                items.append(value)
        offsets.append(len(keys))
    parts = pa.array(offsets, pa.int32()), pa.array(keys, pa.string()), pa.array(items, pa.string())
    return columns, pa.MapArray.from_arrays(*parts)


def _at(row: dict[str, object], name: str) -> object:
    """The value of that name, or at that path."""
    return row.get(name) if name in row or not is_path(name) else plain_row(row).get(name)


def _text_at(row: dict[str, object], name: str) -> str | None:
    return _text(_at(row, name))


def _paths_at(row: dict[str, object], name: str) -> object:
    """Of a list of categories all, with PATHS between them."""
    value = all_at(row, name) if name not in row and "[" in name else _at(row, name)
    return PATHS.join(value) or None if isinstance(value, list) and all(isinstance(v, str) for v in value) else value


def _lowest_at(row: dict[str, object], name: str) -> object:
    """Of the prices of several variants the lowest; of their compare-at prices that of the variant with the lowest price."""
    if name in row or "[" not in name:
        return _at(row, name)
    holder, _, last = name.rpartition(".")
    if last == _COMPARED:
        variants = [one for one in all_at(row, holder) if isinstance(one, dict)]
        at = _cheapest([one.get(schema.PRICE) for one in variants])
        return _at(row, name) if at is None else variants[at].get(last)
    values = all_at(row, name)
    at = _cheapest(values)
    return _at(row, name) if at is None else values[at]


def _cheapest(prices: Sequence[object]) -> int | None:
    """The place of the lowest price; those that people write count where there are no machines'."""
    texts = [(n, price) for n, price in enumerate(prices) if isinstance(price, str)]
    costs = {n: float(price) for n, price in texts if _MACHINE.fullmatch(price)}
    costs = costs or {n: float(number) for n, price in texts if (number := written_price(price).number)}
    return min(costs, key=costs.__getitem__, default=None)


def _stock_at(row: dict[str, object], name: str) -> object:
    """Of several variants, whether one is there."""
    values = all_at(row, name) if name not in row and "[" in name else []
    return str(any(values)).lower() if values and all(isinstance(v, bool) for v in values) else _words_at(row, name)


_AT = {schema.CATEGORY: _paths_at, schema.PRICE: _lowest_at, schema.SALE_PRICE: _lowest_at, schema.AVAILABILITY: _stock_at}


def _words_at(row: dict[str, object], name: str) -> object:
    """The value of that name or path; a list of values as one text."""
    value = all_at(row, name) or None if name not in row and "[" in name else _at(row, name)
    return (
        ", ".join(map(str, value)) if isinstance(value, list) and not any(isinstance(v, list | dict) for v in value) else value
    )


def _pictures_of(row: dict[str, object], mapping: Mapping) -> str | None:
    """Every picture that the row lists, as a list in JSON, or the text that it has there."""
    name = mapping.theirs(schema.IMAGE_LIST)
    repeated = row.get(f"{name}[]")  # of XML
    values = [row[name], *(repeated if isinstance(repeated, list) else [])] if name in row else all_at(row, name)
    of_variants = (
        {one for one in all_at(row, _OF_VARIANTS) if isinstance(one, str)} if "[" in name and name not in row else set()
    )
    if len(values) == 1 and not isinstance(values[0], list | dict) and not of_variants:
        return _text(values[0])
    flat = [inner for value in values for inner in (value if isinstance(value, list) else [value]) if inner is not None]
    texts = [one for one in flat if isinstance(one, str)]
    flat += sorted(of_variants.difference(texts))
    flat = [{"src": one, schema.ROLE: schema.VARIANT} if isinstance(one, str) and one in of_variants else one for one in flat]
    return json.dumps(flat) if flat else None


def _text_of(row: dict[str, object], mapping: Mapping) -> tuple[dict[str, str | None], list[tuple[str, str, str]]]:
    """The row's values as text, and what could not be read: a mapped one that is a list or object becomes null. Raises
    ValueError if it is a required one, or text is not valid Unicode."""
    paths: dict[str, object] = {}
    unread = []
    for ours in mapping.single:
        name = mapping.theirs(ours)
        value = _AT.get(ours, _at)(row, name)
        if ours in TEXTS:
            paths[name] = _AT.get(ours, _words_at)(row, name)
        elif isinstance(value, dict | list):
            why = f"{name} holds {'a list' if isinstance(value, list) else 'an object'}, not one value"
            if ours in REQUIRED:
                raise ValueError(why)
            unread.append((ours, RejectCode.BAD_VALUE.value, why))
            paths[name] = None
        elif value is not None and value is not row.get(name):
            paths[name] = value
    others = row if mapping.attributes is not None else mapping.read.left(row)
    texts = {name: _text(value) for name, value in (others | paths).items()}
    "".join([*texts, *filter(None, texts.values())]).encode()
    return texts, unread


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
