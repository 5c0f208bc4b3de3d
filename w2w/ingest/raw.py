"""What every reader gives: mapped text columns, attributes, where each row stood, and the rows it could not read."""

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.errors import RejectCode, UsageError

IMAGE = "image"  # the feed's image value, before it is resolved to an image_uri
COLUMNS = (schema.PRODUCT_ID, schema.TITLE, schema.BRAND, schema.PRICE, schema.CURRENCY, schema.CATEGORY, schema.URL, IMAGE)
REQUIRED = (schema.PRODUCT_ID, IMAGE)
ATTRIBUTES_TYPE = pa.map_(pa.string(), pa.string())
REJECT_SCHEMA = pa.schema(
    [
        pa.field(name, pa.string(), nullable=False)
        for name in (schema.KEY, schema.REJECT_CODE, schema.REJECT_DETAIL, schema.SOURCE)
    ]
)
IMAGE_OFFSET, IMAGE_SIZE = "image_offset", "image_size"
IMAGE_SCHEMA = pa.schema(
    [
        pa.field(schema.IMAGE_URI, pa.string(), nullable=False),
        pa.field(IMAGE_OFFSET, pa.int64()),
        pa.field(IMAGE_SIZE, pa.int64()),
        pa.field(schema.IMAGE_FINGERPRINT, pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class RawBatch:
    """Rows as the source has them. ``columns`` are our names over their text; ``images`` where the reader knows them."""

    columns: dict[str, pa.Array]
    attributes: pa.MapArray
    source: pa.Array
    rejects: pa.Table
    images: pa.Table | None = None


@dataclass(frozen=True)
class Mapping:
    """Which of their columns is which of ours; a column that is not named is looked for under our own name."""

    columns: dict[str, str]
    attributes: tuple[str, ...] | None
    optional: tuple[str, ...] = ()  # required columns that this kind of source can do without

    def pick(self, names: Sequence[str], where: str) -> tuple[dict[str, str], list[str]]:
        """Our columns that are there (ours -> theirs), and the attribute columns, sorted.

        Raises UsageError naming the nearest columns where one that was asked for, or a required one, is missing.
        """
        there = set(names)
        picked = {}
        for ours in COLUMNS:
            theirs = self.columns.get(ours, ours)
            if theirs in there:
                picked[ours] = theirs
            elif ours in self.columns or (ours in REQUIRED and ours not in self.optional):
                raise UsageError(f"{where}: no column {theirs!r} for columns.{ours}; {_nearest(theirs, names)}")
        if self.attributes is None:
            return picked, sorted(there - set(picked.values()))
        for theirs in self.attributes:
            if theirs not in there:
                raise UsageError(f"{where}: no column {theirs!r} for attributes; {_nearest(theirs, names)}")
        return picked, sorted(set(self.attributes))

    def theirs(self, ours: str) -> str:
        return self.columns.get(ours, ours)


def _nearest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name.lower(), [n.lower() for n in names], n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(repr(n) for n in names if n.lower() in close)}?"
    return f"it has {', '.join(map(repr, names[:20]))}"


def reject_table(rows: Iterable[tuple[str, RejectCode, str, str]]) -> pa.Table:
    """(key, code, detail, source) rows as a table."""
    key, code, detail, source = zip(*rows, strict=True) if (rows := list(rows)) else ((), (), (), ())
    columns = [pa.array(c, pa.string()) for c in (key, [str(c) for c in code], detail, source)]
    return pa.Table.from_arrays(columns, schema=REJECT_SCHEMA)


def no_attributes(count: int) -> pa.MapArray:
    return pa.array([[]] * count, ATTRIBUTES_TYPE)


def trimmed(values: pa.Array) -> pa.Array:
    """Without white space at the ends; null where nothing is left."""
    values = pc.utf8_trim_whitespace(values)
    return pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)


def attributes_of(columns: dict[str, pa.Array], count: int) -> pa.MapArray:
    """One map a row of the columns that say something there, in the order of ``columns``."""
    if not columns:
        return no_attributes(count)
    num = len(columns)
    flat = pa.concat_arrays([trimmed(c) for c in columns.values()])
    by_row = flat.take(pa.array((np.arange(count)[:, None] + np.arange(num)[None, :] * count).ravel()))
    keys = pa.array(list(columns), pa.string()).take(pa.array(np.tile(np.arange(num), count)))
    there = by_row.is_valid()
    per_row = there.to_numpy(zero_copy_only=False).reshape(count, num).sum(axis=1)
    offsets = pa.array(np.concatenate([[0], np.cumsum(per_row)]).astype(np.int32))
    return pa.MapArray.from_arrays(offsets, keys.filter(there), by_row.filter(there))


def batch_of_dicts(
    rows: list[dict[str, object]],
    sources: list[str],
    mapping: Mapping,
    rejects: list[tuple[str, RejectCode, str, str]],
    images: list[tuple[str, int, int, str]] | None = None,
) -> RawBatch:
    """Rows of JSON values; ``images`` (uri, offset, size, fingerprint) goes with them. A row that is no text is rejected."""
    wanted = {ours: mapping.theirs(ours) for ours in COLUMNS}
    skip, keep = set(wanted.values()), None if mapping.attributes is None else set(mapping.attributes)
    columns: dict[str, list[str | None]] = {ours: [] for ours in COLUMNS}
    kept, offsets, keys, items = [], [0], [], []
    for i, row in enumerate(rows):
        try:
            values = [_plain(row.get(theirs), theirs) for theirs in wanted.values()]
            names = sorted(row.keys() - skip if keep is None else row.keys() & keep)
            extra = [(name, text.strip()) for name in names if (text := _attribute(row[name]))]
            "".join([*(v for v in values if v), *(n + t for n, t in extra)]).encode()  # lone surrogates cannot be stored
        except (ValueError, RecursionError) as e:  # UnicodeEncodeError is a ValueError
            why = "it holds half a surrogate pair" if isinstance(e, UnicodeError) else str(e)
            rejects.append((sources[i], RejectCode.BAD_VALUE, why, sources[i]))
            continue
        for column, value in zip(columns.values(), values):
            column.append(value)
        for name, text in extra:
            if text:
                keys.append(name)
                items.append(text)
        offsets.append(len(keys))
        kept.append(i)
    attributes = pa.MapArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array(keys, pa.string()), pa.array(items, pa.string())
    )
    return RawBatch(
        {ours: pa.array(values, pa.string()) for ours, values in columns.items()},
        attributes,
        pa.array([sources[i] for i in kept], pa.string()),
        reject_table(rejects),
        None if images is None else image_table([images[i] for i in kept]),
    )


def image_table(images: list[tuple[str, int | None, int | None, str]]) -> pa.Table:
    """(uri, offset, size, fingerprint) rows as a table in IMAGE_SCHEMA."""
    columns = list(zip(*images, strict=True)) if images else [()] * 4
    return pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, IMAGE_SCHEMA)], schema=IMAGE_SCHEMA)


def _plain(value: object, name: str) -> str | None:
    if isinstance(value, dict | list):
        raise ValueError(f"{name} holds a {'list' if isinstance(value, list) else 'object'}, not one value")
    return _attribute(value)


def _attribute(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
