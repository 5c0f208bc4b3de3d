"""What every reader returns: mapped text columns, attributes, the position of each row, and the rows that it could not read."""

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.errors import BadInput, RejectCode, UsageError
from w2w.ingest.paths import Read, is_path

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
RejectRow = tuple[str, RejectCode, str, str]  # key, code, detail, source
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


def check_names_once(names: list[str], uri: str) -> None:
    if twice := sorted(n for n, count in Counter(names).items() if count > 1):
        raise BadInput(f"feed.uri={uri}: duplicate column names: {', '.join(map(repr, twice))}")


def _nearest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name.lower(), [n.lower() for n in names], n=3, cutoff=0.5)
    meant = f"did you mean {' or '.join(repr(n) for n in names if n.lower() in close)}? " if close else ""
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return f"{meant}it has {', '.join(map(repr, names[:_TOLD]))}{more}"


def reject_table(rows: Iterable[RejectRow]) -> pa.Table:
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


def batch_of_texts(
    table: dict[str, pa.Array],
    source: pa.Array,
    unread: dict[str, np.ndarray],
    why: str,
    picked: dict[str, str],
    attributes: list[str],
) -> RawBatch:
    """Columns of text as a batch. ``unread``: which values of a column could not be read; they are null, and reject the row
    only in a required column."""
    required = [picked[ours] for ours in REQUIRED if ours in picked]
    bad = np.logical_or.reduce([np.zeros(len(source), bool), *(unread[name] for name in required if name in unread)])
    rejects = reject_table(
        (s, RejectCode.MALFORMED_ROW, f"it holds {why}", s) for s in source.filter(pa.array(bad)).to_pylist()
    )
    ours_of, warned = {theirs: ours for ours, theirs in picked.items()}, Warned()
    for name, mask in unread.items():
        for row in np.flatnonzero(mask & ~bad).tolist():
            warned.setdefault(row, []).append((ours_of.get(name, name), RejectCode.BAD_VALUE.value, why))
    said = warned_array(warned, len(source)) if warned else None
    columns = {ours: table[theirs] for ours, theirs in picked.items()}
    batch = RawBatch(columns, attributes_of({n: table[n] for n in attributes}, len(source)), source, rejects, warned=said)
    return batch.filter(pa.array(~bad)) if bad.any() else batch


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


def image_table(images: Sequence[tuple[str, int | None, int | None, str]]) -> pa.Table:
    """(uri, offset, size, fingerprint) rows as a table in IMAGE_SCHEMA."""
    columns = list(zip(*images, strict=True)) if images else [()] * 4
    return pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, IMAGE_SCHEMA)], schema=IMAGE_SCHEMA)
