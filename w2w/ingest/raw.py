"""What every reader returns: mapped text columns, attributes, the position of each row, and the rows that it could not read."""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.errors import Reject, RejectCode, UsageError
from w2w.ingest.paths import Read, all_at, is_path, plain_row
from w2w.ingest.prices import written_price

IMAGE = "image"  # the feed's image value, before it becomes an image_uri
BASE = (schema.PRODUCT_ID, schema.TITLE, schema.BRAND, schema.PRICE, schema.CURRENCY, schema.CATEGORY, schema.URL, IMAGE)
# what else is read of a feed that has it. A column of these stays among the attributes, too, in the feed's own words
TEXTS = (schema.GROUP_ID, schema.AVAILABILITY, schema.GENDER, schema.COLOUR, schema.SIZE_SAID)
SALE_DATES = "sale_price_effective_date"  # start/end, ISO 8601
EXTRA = (*TEXTS, schema.SALE_PRICE, SALE_DATES, schema.IMAGE_LIST)  # the last: further pictures, as a list
COLUMNS = (*BASE, *EXTRA)
DELETED = "deleted"  # whether the row says that its product is gone; read only where a feed's config names the column
_TRUE = pa.array(["true", "1", "1.0", "yes", "y", "deleted", "delete"])
FALSE = pa.array(["false", "0", "0.0", "no", "n", "none"])
REQUIRED = (schema.PRODUCT_ID, IMAGE)
ATTRIBUTES_TYPE = pa.map_(pa.string(), pa.string())
REJECT_SCHEMA = pa.schema(
    [
        pa.field(name, pa.string(), nullable=False)
        for name in (schema.KEY, schema.REJECT_CODE, schema.REJECT_DETAIL, schema.SOURCE)
    ]
)
JSON = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)  # numbers keep their spelling
MAX_BATCH_BYTES = 64 * 1024 * 1024  # of JSON lines, or of a tar's metadata: rows may be large
PATHS = "\n"  # between the categories of a product that has several
IMAGE_OFFSET, IMAGE_SIZE = "image_offset", "image_size"
IMAGE_SCHEMA = pa.schema(
    [
        pa.field(schema.IMAGE_URI, pa.string(), nullable=False),
        pa.field(IMAGE_OFFSET, pa.int64()),
        pa.field(IMAGE_SIZE, pa.int64()),
        pa.field(schema.IMAGE_FINGERPRINT, pa.string(), nullable=False),
    ]
)
_RejectRow = tuple[str, RejectCode, str, str]  # key, code, detail, source
WARNED = "warned"  # what could not be read of a row: values that are null instead
WARNED_TYPE = pa.list_(pa.struct([(c, pa.string()) for c in (schema.COLUMN, schema.REJECT_CODE, schema.REJECT_DETAIL)]))
Warned = dict[int, list[tuple[str, str, str]]]  # by row: column, code, detail


@dataclass(frozen=True)
class RawBatch:
    """Rows as in the source. ``columns`` maps our names to their text; ``images`` if the reader knows them."""

    columns: dict[str, pa.Array]
    attributes: pa.MapArray
    source: pa.Array
    rejects: pa.Table
    images: pa.Table | None = None
    num_aside: int = 0  # files that belong to a row but are not columns
    num_left_out: int = 0  # rows that a preset takes for no product of their own
    warned: pa.Array | None = None  # WARNED_TYPE
    num_superseded: int = 0  # rows of products of which a later row counts
    num_orphans: int = 0  # rows of variants whose product is not in the feed

    def filter(self, keep: pa.Array) -> "RawBatch":
        """Only the rows of this mask, and all rejects."""
        return self._each(lambda values: values.filter(keep))

    def slice(self, start: int, length: int) -> "RawBatch":
        """Part of a batch; the rejects go with its first part."""
        part = self._each(lambda values: values.slice(start, length))
        told = start == 0
        return part if told else replace(part, rejects=self.rejects.slice(0, 0), num_aside=0, num_left_out=0, num_orphans=0)

    def plus(self, more: "RawBatch") -> "RawBatch":
        """These rows and rejects, and then those of a batch of the same reader."""
        columns = {name: pa.concat_arrays([column, more.columns[name]]) for name, column in self.columns.items()}
        empty = (pa.nulls(len(batch.source), WARNED_TYPE) if batch.warned is None else batch.warned for batch in (self, more))
        return RawBatch(
            columns,
            pa.concat_arrays([self.attributes, more.attributes]),
            pa.concat_arrays([self.source, more.source]),
            pa.concat_tables([self.rejects, more.rejects]),
            None if self.images is None or more.images is None else pa.concat_tables([self.images, more.images]),
            self.num_aside + more.num_aside,
            self.num_left_out + more.num_left_out,
            pa.concat_arrays(list(empty)),
        )

    def _each(self, cut: Callable) -> "RawBatch":
        columns = {name: cut(column) for name, column in self.columns.items()}
        beside: dict[str, Any] = {name: vars(self)[name] for name in _BESIDE if vars(self)[name] is not None}
        return replace(self, columns=columns, **{name: cut(values) for name, values in beside.items()})


_COMPARED, _OF_VARIANTS = "compare_at_price", "variants[].featured_image.src"  # Shopify's
_MACHINE = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,40})?")
_TOLD = 40  # names of columns in an error
_NO_ATTRIBUTES = {*BASE, schema.SALE_PRICE, SALE_DATES, schema.IMAGE_LIST, DELETED}
_OF_LISTS = {*TEXTS, schema.PRICE, schema.SALE_PRICE, schema.CATEGORY, IMAGE, schema.IMAGE_LIST}  # all of a list is read
_BESIDE = ("attributes", "source", "images", "warned")  # fields with a value for each row


@dataclass(frozen=True)
class Mapping:
    """Which of their columns is which of ours; an unmapped column is looked up under our own name. In JSON and XML, theirs may
    be a path: brand.name, images[].src."""

    columns: dict[str, str]
    attributes: tuple[str, ...] | None
    optional: tuple[str, ...] = ()  # required columns that may be missing from this kind of source

    def pick(self, names: Sequence[str], where: str) -> tuple[dict[str, str], list[str]]:
        """Our columns that exist (ours -> theirs), and the attribute columns, sorted.

        Raises UsageError naming the nearest columns if a requested or required one is missing.
        """
        there = set(names)
        picked = {}
        for ours in (*self.single, schema.IMAGE_LIST):
            theirs = self.columns.get(ours, ours)
            if theirs in there:
                picked[ours] = theirs
            elif ours in self.columns or (ours in REQUIRED and ours not in self.optional):
                option = "feed.deleted" if ours == DELETED else f"feed.columns.{ours}"
                says = (
                    f" for {option}"
                    if ours in self.columns
                    else f", nor another that is known to be it: {option}=NAME names it"
                )
                raise UsageError(f"{where}: no column {theirs!r}{says}; {_nearest(theirs, names)}")
        if self.attributes is None:
            return picked, sorted(there - {theirs for ours, theirs in picked.items() if ours in _NO_ATTRIBUTES})
        for theirs in self.attributes:
            if theirs not in there:
                raise UsageError(f"{where}: no column {theirs!r} for attributes; {_nearest(theirs, names)}")
        return picked, sorted(set(self.attributes))

    @property
    def single(self) -> tuple[str, ...]:
        """Our columns that are read, but for the list of pictures."""
        return (*COLUMNS[:-1], *((DELETED,) if DELETED in self.columns else ()))

    def theirs(self, ours: str) -> str:
        return self.columns.get(ours, ours)

    @property
    def no_attributes(self) -> set[str]:
        """Theirs that are columns of ours and nothing else."""
        names = {ours: self.theirs(ours) for ours in (*self.single, schema.IMAGE_LIST)}
        return {theirs for ours, theirs in names.items() if ours in _NO_ATTRIBUTES or is_path(theirs)}

    @property
    def read(self) -> Read:
        """What is read inside objects and lists."""
        names = {ours: self.theirs(ours) for ours in (*self.single, schema.IMAGE_LIST)}
        return Read.of(
            [theirs for ours, theirs in names.items() if ours not in _OF_LISTS],
            [theirs for ours, theirs in names.items() if ours in _OF_LISTS],
        )


def _nearest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name.lower(), [n.lower() for n in names], n=3, cutoff=0.5)
    meant = f"did you mean {' or '.join(repr(n) for n in names if n.lower() in close)}? " if close else ""
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return f"{meant}it has {', '.join(map(repr, names[:_TOLD]))}{more}"


def reject_table(rows: Iterable[_RejectRow]) -> pa.Table:
    """(key, code, detail, source) rows as a table."""
    key, code, detail, source = zip(*rows, strict=True) if (rows := list(rows)) else ((), (), (), ())
    columns = [pa.array(c, pa.string()) for c in (key, [str(c) for c in code], detail, source)]
    return pa.Table.from_arrays(columns, schema=REJECT_SCHEMA)


def warned_array(found: Warned, count: int) -> pa.Array:
    """WARNED_TYPE for ``count`` rows; null where nothing is amiss."""
    if not found:
        return pa.nulls(count, WARNED_TYPE)
    names = WARNED_TYPE.value_type.names
    rows = [[dict(zip(names, one)) for one in found[i]] if i in found else None for i in range(count)]
    return pa.array(rows, WARNED_TYPE)


def warned_of(raw: RawBatch) -> Warned:
    """What its reader could not read."""
    each = enumerate([] if raw.warned is None else raw.warned.to_pylist())
    return {row: [tuple(one.values()) for one in said] for row, said in each if said}


def no_attributes(count: int) -> pa.MapArray:
    return pa.array([[]] * count, ATTRIBUTES_TYPE)


def trimmed(values: pa.Array) -> pa.Array:
    """Without surrounding white space; null if nothing is left."""
    values = pc.utf8_trim_whitespace(values)
    return pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)


def deletes(says: pa.Array) -> pa.Array:
    """bool, shape (n,): whether these values of DELETED say that the product is gone; False for null and what means nothing."""
    return pc.fill_null(pc.is_in(pc.utf8_lower(trimmed(says)), value_set=_TRUE), False)


def attributes_of(columns: dict[str, pa.Array], count: int) -> pa.MapArray:
    """One map per row of its non-null columns, in the order of ``columns``."""
    if not columns:
        return no_attributes(count)
    num = len(columns)
    flat = pa.concat_arrays([trimmed(c) for c in columns.values()])
    by_row = flat.take(pa.array((np.arange(count)[:, None] + np.arange(num)[None, :] * count).ravel()))
    keys = pa.array(list(columns), pa.string()).take(pa.array(np.tile(np.arange(num), count)))
    there = by_row.is_valid()
    rows = np.repeat(np.arange(count), num)[there.to_numpy(zero_copy_only=False)]
    return map_of(count, rows, keys.filter(there), by_row.filter(there))


def map_of(count: int, rows: np.ndarray, keys: pa.Array, items: pa.Array) -> pa.MapArray:
    """One map for each of ``count`` rows, of entries in the order of their ``rows``."""
    ends = np.cumsum(np.bincount(rows, minlength=count))
    return pa.MapArray.from_arrays(pa.array(np.concatenate([[0], ends]).astype(np.int32)), keys, items)


def entries_of(maps: pa.MapArray) -> tuple[np.ndarray, pa.Array, pa.Array]:
    """The row of each entry, its key and its item."""
    offsets = maps.offsets.to_numpy()
    start, length = int(offsets[0]), int(offsets[-1] - offsets[0])
    rows = np.repeat(np.arange(len(maps)), np.diff(offsets))
    return rows, maps.keys.slice(start, length), maps.items.slice(start, length)


def is_one_of(values: pa.Array, words: Sequence[str]) -> np.ndarray:
    """bool, shape (n,); False for null."""
    return pc.is_in(values, value_set=pa.array(words, pa.string())).to_numpy(zero_copy_only=False)


def in_batches(
    found: Iterable[tuple[str, dict[str, object] | Reject, int]], mapping: Mapping, batch_rows: int
) -> Iterator[RawBatch]:
    """Records as batches: each with its position, its column values or its fault, and its approximate size in bytes."""
    rows: list[dict[str, object]] = []
    sources: list[str] = []
    rejects: list[_RejectRow] = []
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
    rejects: list[_RejectRow],
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


def image_table(images: Sequence[tuple[str, int | None, int | None, str]]) -> pa.Table:
    """(uri, offset, size, fingerprint) rows as a table in IMAGE_SCHEMA."""
    columns = list(zip(*images, strict=True)) if images else [()] * 4
    return pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, IMAGE_SCHEMA)], schema=IMAGE_SCHEMA)
