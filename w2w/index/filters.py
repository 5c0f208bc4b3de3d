"""Filtering products by their attributes: brand, price, or any other."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.config import nearest
from w2w.errors import UsageError

Value = bool | int | float | str  # as YAML reads it
COLUMNS = (schema.PRODUCT_ID, schema.TITLE, schema.BRAND, schema.PRICE, schema.CURRENCY, schema.CATEGORY, schema.FEED)
# columns whose values also stand among the attributes, as the feed has them
_NEWER = (schema.GROUP_ID, schema.AVAILABILITY, schema.SALE_PRICE, schema.GENDER, schema.COLOUR, schema.SIZE_SAID)
NEEDS = (*COLUMNS, *_NEWER, schema.ATTRIBUTES, schema.ACTIVE)  # columns that ``allowed`` reads
SEEN = "seen_"  # before an attribute that a picture shows, by table `attributes`
_RANGE = re.compile(r"(-?\d+(?:\.\d+)?)?\.\.(-?\d+(?:\.\d+)?)?")
_NUMBER = r"^-?\d+(\.\d+)?$"
_HALF = re.compile(r"[\ud800-\udfff]")  # of a character, or a byte of another encoding
_YES, _NO = ("true", "yes", "on"), ("false", "no", "off")  # of YAML 1.1


def texts(chosen: Mapping[str, Any]) -> dict[str, list[str]]:
    """A filter (a value or a list of values for each name) as YAML reads it, in texts, a list for each name; one within another
    is a name with a dot. Where YAML reads true or false, any of its words for that counts: a brand is called On. Raises
    UsageError for what is neither text nor number, true or false, nor a list of these."""
    if not isinstance(chosen, Mapping):
        raise UsageError(f"--filter: {chosen!r:.80} does not name a column or attribute: {{brand: Fjord, price: 10..50}}")
    found: dict[str, list[str]] = {}
    for name, value in chosen.items():
        if isinstance(value, Mapping):
            found |= texts({f"{name}.{further}": one for further, one in value.items()})
        else:
            values = value if isinstance(value, list | tuple | set) else [value]
            found[str(name)] = [text for one in values for text in _texts(str(name), one)]
    return found


def _texts(name: str, value: Value) -> tuple[str, ...]:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool):
        return _YES if value else _NO
    if isinstance(value, float):
        return (np.format_float_positional(value, trim="-"),)
    if isinstance(value, str) and not value.isascii() and _HALF.search(value):
        raise UsageError(f"--filter.{name}: {value!r:.80} is not text")
    if not isinstance(value, int | str):
        raise UsageError(f"--filter.{name}: {value!r:.80} is neither text nor a number, nor a list of these")
    return (str(value),)


def reads_tags(wanted: Iterable[str]) -> bool:
    """Whether a filter of these names asks for something that pictures show: table `attributes`."""
    return any(name.startswith(SEEN) for name in wanted)


def allowed(
    products: pa.Table, wanted: Mapping[str, Sequence[str]], seen: Mapping[str, pa.ChunkedArray] | None = None
) -> np.ndarray:
    """bool (N,): active products of which every named column or attribute has one of its values: a text, ignoring case; a
    number; or a range of numbers, LOW..HIGH, LOW.. or ..HIGH, ends included. Missing values match nothing.

    ``products``: NEEDS; ``seen``: further columns by name (``seen_columns``). Raises UsageError for a name that no product has,
    and for an impossible value.
    """
    keep = products.column(schema.ACTIVE).to_numpy(zero_copy_only=False).astype(bool)
    for name, values in wanted.items():
        column = (seen or {}).get(name)
        columns = _columns(products, name) if column is None else [column]
        if not values:
            raise UsageError(f"--filter.{name}: name at least one value")
        for value in values:
            _check(name, value.strip())
        keep = keep & np.logical_or.reduce([_is_any(column, [value.strip() for value in values]) for column in columns])
    return keep


def seen_columns(images: pa.ChunkedArray, tagged: pa.Table, wanted: Sequence[str]) -> dict[str, pa.ChunkedArray]:
    """For each wanted name that begins with SEEN, what the product's picture shows; null where that is not sure.

    ``tagged``: owner_id and tags of table `attributes`. Raises UsageError for an attribute that no picture has.
    """
    tags = tagged.column(schema.TAGS).combine_chunks()
    owners = tagged.column(schema.OWNER_ID).combine_chunks().take(pc.list_parent_indices(tags))
    attributes, values = (pc.struct_field(tags.flatten(), field) for field in (schema.ATTRIBUTE, schema.VALUE))
    found = {}
    for name in wanted:
        mine = pc.equal(attributes, name.removeprefix(SEEN))
        if name.startswith(SEEN):
            if not pc.any(mine).as_py():
                known = sorted(SEEN + one for one in pc.unique(attributes).to_pylist())
                raise UsageError(f"--filter.{name}: 'w2w tag' gave no picture this attribute.{nearest(name, known)}")
            place = pc.index_in(images, value_set=owners.filter(mine))
            found[name] = values.filter(mine).take(place.combine_chunks())
    return {name: pa.chunked_array([column]) for name, column in found.items()}


def _check(name: str, value: str) -> None:
    ends = _RANGE.fullmatch(value)
    if name in (schema.PRICE, schema.SALE_PRICE) and not re.match(_NUMBER, value) and not (ends and any(ends.groups())):
        raise UsageError(f"--filter.{name}: {value!r} is neither a number nor a range, LOW..HIGH")
    if ends and all(ends.groups()) and float(ends[1]) > float(ends[2]):
        raise UsageError(f"--filter.{name}: {value} begins above its end")


def _columns(products: pa.Table, name: str) -> list[pa.ChunkedArray]:
    """The values as text: of the column, and as the feed has them."""
    if name in COLUMNS:
        return [pc.utf8_trim_whitespace(products.column(name).cast(pa.string()))]
    attributes = products.column(schema.ATTRIBUTES)
    columns = [products.column(name).cast(pa.string())] if name in _NEWER else []
    columns.append(pc.map_lookup(attributes, name, "first"))
    if products.num_rows and all(column.null_count == len(column) for column in columns):
        known = {key for chunk in attributes.chunks for key in pc.unique(chunk.keys).to_pylist()}
        known |= {newer for newer in _NEWER if products.column(newer).null_count < products.num_rows}
        raise UsageError(f"--filter.{name}: no product has it.{nearest(name, sorted({*COLUMNS, *known}))}")
    return [pc.utf8_trim_whitespace(column) for column in columns]


def _is_any(column: pa.ChunkedArray, values: Sequence[str]) -> np.ndarray:
    """bool (N,): one of these texts, in any case, or in one of these ranges of numbers, of which a number is one, too."""
    found = pc.is_in(pc.utf8_lower(column), value_set=pa.array([value.lower() for value in values], pa.string()))
    ranges = [ends for value in values if (ends := _ends(value))]
    if not ranges:
        return found.to_numpy()
    numeric = pc.match_substring_regex(column, _NUMBER)
    numbers = pc.if_else(numeric, column, pa.scalar(None, pa.string())).cast(pa.float64())
    number_N = pc.fill_null(numbers, float("nan")).to_numpy()
    low_R, high_R = np.array(sorted(ranges)).T
    high_R = np.maximum.accumulate(high_R)  # of all ranges that begin no later
    last_N = np.searchsorted(low_R, number_N, side="right") - 1  # of nan: the last range, whose end it is not below
    return found.to_numpy() | ((last_N >= 0) & (number_N <= high_R[last_N]))


def _ends(value: str) -> tuple[float, float] | None:
    """Lowest and highest number of a range, or of a number; None for other texts."""
    if re.match(_NUMBER, value):
        return float(value), float(value)
    ends = _RANGE.fullmatch(value)
    if not ends or not any(ends.groups()):
        return None
    return float(ends[1] or "-inf"), float(ends[2] or "inf")
