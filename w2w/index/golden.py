"""Golden queries: what the shop has pinned, a query and the products that it must find. The file is read before any work."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from w2w import ids, storage
from w2w.config import nearest
from w2w.errors import UsageError
from w2w.schema import CATEGORY, IMAGE_ID, PRODUCT_ID

PHOTO, GARMENT = "photo", "garment"
_ASKED = (PRODUCT_ID, IMAGE_ID, PHOTO)  # a row has exactly one of them
EXPECTED, MIN_HITS, NOTE = "expected", "min_hits", "note"
_FIELDS = (*_ASKED, EXPECTED, "k", MIN_HITS, CATEGORY, NOTE)
FIRST = 10  # answers looked at, unless the row says otherwise
_MOST_K = 100
_MOST_ROWS = 10_000
_MOST_BYTES = 20_000_000
_MOST_LETTERS = 2048  # of a value
_BETWEEN = "|"  # ids in one cell of a CSV


@dataclass(frozen=True)
class Golden:
    """``kind``: product_id, image_id, photo or garment; ``asked``: the id, or the photo's URI; ``expected``: products, of which
    ``min_hits`` must be among the first ``k`` answers. ``category``: where it is searched; None: in that of the product, and
    everywhere for a photo."""

    where: str
    kind: str
    asked: str
    expected: tuple[str, ...]
    k: int = FIRST
    min_hits: int = 0
    category: str | None = None
    note: str = ""
    sha256: str = ""  # of a photo

    @property
    def key(self) -> str:
        """Equal for the same question on another night."""
        return ids.digest(self.kind, self.sha256 or self.asked, self.category, length=32)

    @property
    def label(self) -> str:
        """As sentences name it."""
        kind = {PRODUCT_ID: "product", IMAGE_ID: "image"}.get(self.kind, self.kind)
        return f"{self.where} ({kind} {self.asked.rpartition('/')[2]})"


def read_golden(uri: str) -> tuple[Golden, ...]:
    """The queries of a CSV file, or of JSON lines (.jsonl, .ndjson, .json). Raises UsageError naming the file and the row."""
    where = storage.source(uri)
    name = where.rpartition("/")[2]
    try:
        data = storage.read_bytes(where)
    except FileNotFoundError:
        raise UsageError(f"index.golden={uri}: there is no such file") from None
    if len(data) > _MOST_BYTES:
        raise UsageError(f"index.golden={uri}: has {len(data):,} bytes, more than {_MOST_BYTES:,}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"index.golden={uri}: is not UTF-8 text") from None
    rows = _json_rows(text, name) if name.endswith((".jsonl", ".ndjson", ".json")) else _csv_rows(text, name)
    found: dict[str, Golden] = {}
    for number, (place, row) in enumerate(rows):
        if number == _MOST_ROWS:
            raise UsageError(f"index.golden={uri}: has more than {_MOST_ROWS:,} queries")
        one = _golden(row, place, where.rpartition("/")[0])
        if one.key in found:
            raise UsageError(f"{place}: asks the same as {found[one.key].where}: make it one row, with what both expect")
        found[one.key] = one
    if not found:
        raise UsageError(f"index.golden={uri}: holds no query")
    return tuple(found.values())


def _csv_rows(text: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for column in reader.fieldnames or ():
            _check_field(column, f"{name}: column")
        for row in reader:
            place = f"{name}, line {reader.line_num}"
            if None in row or None in row.values():
                raise UsageError(f"{place}: has not as many values as the first line names columns")
            filled = {column: value.strip() for column, value in row.items() if value.strip()}
            expected = [one.strip() for one in filled.get(EXPECTED, "").split(_BETWEEN)]
            yield place, filled | {EXPECTED: [one for one in expected if one]}
    except csv.Error as e:
        raise UsageError(f"{name}, line {reader.line_num}: is not CSV: {e}") from None


def _json_rows(text: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        place = f"{name}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as e:
            raise UsageError(f"{place}: is not JSON: {str(e) or type(e).__name__}") from None
        if not isinstance(row, dict):
            raise UsageError(f"{place}: is not a JSON object")
        for column in row:
            _check_field(column, f"{place}: field")
        yield place, {column: value for column, value in row.items() if value not in (None, "")}


def _check_field(column: str, what: str) -> None:
    if column not in _FIELDS:
        raise UsageError(f"{what} {column[:80]!r} is none of a golden query.{nearest(column, list(_FIELDS))}")


def _golden(row: Mapping[str, Any], place: str, folder: str) -> Golden:
    asked = [kind for kind in _ASKED if kind in row]
    if len(asked) != 1:
        raise UsageError(f"{place}: has {' and '.join(asked) or 'no query'}: give exactly one of {', '.join(_ASKED)}")
    kind = asked[0]
    value, category, note = (_text(row[n], f"{place}: {n}") if n in row else "" for n in (kind, CATEGORY, NOTE))
    listed = row.get(EXPECTED, [])
    if not isinstance(listed, list) or not listed:
        raise UsageError(f"{place}: expected={str(listed)[:80]!r}: name at least one product")
    expected = tuple(dict.fromkeys(_text(one, f"{place}: expected") for one in listed))
    if kind == PRODUCT_ID and value in expected:
        raise UsageError(f"{place}: product {value} is not among its own answers: take it out of 'expected'")
    k = _number(row.get("k", FIRST), f"{place}: k", 1, _MOST_K)
    min_hits = _number(row.get(MIN_HITS, 0), f"{place}: min_hits", 0, min(k, len(expected)))
    sha256 = ""
    if kind == PHOTO:
        if value.startswith(("http://", "https://")):
            raise UsageError(f"{place}: photo={value[:200]!r}: must be a file; download it first, so that it stays the same")
        value = value if "://" in value or value.startswith(("/", "~")) else storage.join(folder, value)
        try:
            sha256 = storage.sha256(storage.source(value)) or ""
        except UsageError as e:
            raise UsageError(f"{place}: photo: {e}") from None
        if not sha256:
            raise UsageError(f"{place}: photo={value[:200]!r}: there is no such file")
    return Golden(place, kind, value, expected, k, min_hits, category or None, note, sha256)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not 0 < len(value.strip()) <= _MOST_LETTERS:
        raise UsageError(f"{where}={str(value)[:80]!r}: is not text of 1 to {_MOST_LETTERS} characters")
    return value.strip()


def _number(value: object, where: str, least: int, most: int) -> int:
    try:
        number = int(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
    except ValueError:
        number = None
    if number is None or not least <= number <= most:
        raise UsageError(f"{where}={str(value)[:80]!r}: a whole number from {least} to {most}")
    return number
