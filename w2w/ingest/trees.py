"""Google Merchant's XML (RSS 2.0 and Atom), JSON lines and arrays as raw batches, in constant memory."""

import codecs
import itertools
import json
import re
from collections.abc import Iterator
from xml.parsers import expat

from w2w import schema, storage
from w2w.errors import BadInput, Reject, RejectCode
from w2w.ingest import presets
from w2w.ingest.dicts import JSON, in_batches
from w2w.ingest.paths import plain_row
from w2w.ingest.raw import Mapping, RawBatch
from w2w.ingest.text import MARK, MAX_LINE_BYTES, buffered, open_text

_PIECE = 256 * 1024
_BLANK = " \t\r\n"
_GOOGLES = ("item", "entry")
_ITEMS = (*_GOOGLES, "product", "shopitem", "offer", "o", "article", "produkt", "artikel")  # Heureka, Ceneo, shops' own
_WRAPPED = re.compile(r"products|items|data|results|offers|articles|records|rows|catalog|entries")
_KEYS_OF_ITEMS = 1000
_KEYS_OF_LINES = 1000  # read to collect the keys of JSON lines
_Records = Iterator[tuple[str, dict[str, object] | Reject, int]]


def read_xml(uri: str, mapping: Mapping, batch_rows: int) -> Iterator[RawBatch]:
    """A row an item, entry or product; elements by their local names, those inside others as outer.inner; of products in other
    formats than Google's attributes, too. Of repeated ones the first counts, the others are kept as a list under NAME[]. Raises
    UsageError for what is not XML, and for a document type."""
    yield from in_batches(_items(uri), mapping, batch_rows)


def xml_keys(uri: str) -> list[str]:
    """Every name among the first items, in order of appearance."""
    rows = (row for _, row, _ in itertools.islice(_items(uri), _KEYS_OF_ITEMS) if isinstance(row, dict))
    if found := list(dict.fromkeys(key for row in rows for key in row)):
        return found
    raise BadInput(f"feed.uri={uri}: no product in it, which is an element {', '.join(_ITEMS[:-1])} or {_ITEMS[-1]}")


class _Items:
    """The items that an XML parser meets."""

    def __init__(self, uri: str):
        self._uri, self._path, self._texts = uri, [], []
        self._row: dict[str, object] | None = None
        self._size, self._ends = 0, ""
        self._open: list[tuple[str, dict[str, str]]] = []  # of each open element its attribute `name`, and what lies in it
        self._paired: set[str] = set()  # paths that hold the names and values of attributes, which stand under their names
        self.done: list[tuple[dict[str, object], int]] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name.lower() == "html" and self._row is None:
            self.refuse(name)
        name = name.rpartition(":")[2]
        if self._row is not None:
            self._path.append(name)
            self._open.append((attributes.get("name", ""), {}))
            if name == "link" and "href" in attributes:  # Atom
                self._keep(attributes["href"])
        elif name.lower() in _ITEMS:
            self._row, self._size, self._ends, self._paired = {}, 0, name, set()
        if self._row is not None and self._ends not in _GOOGLES:
            for one, said in attributes.items():
                self._grow(len(said))
                self._keep(said.strip(), one.rpartition(":")[2])
        self._texts.clear()

    def end(self, name: str) -> None:
        if self._row is None:
            return
        if self._path:
            said, called, inner = "".join(self._texts).strip(), *self._open.pop()
            self._keep(said)
            if self._ends not in _GOOGLES:
                names = [next((k for k in inner if k.lower().endswith(end)), "") for end in ("name", "val", "value")]
                pair = [inner.get(name, "") for name in names]
                if pair[0] and not said:  # <PARAM><PARAM_NAME>Colour</PARAM_NAME><VAL>red</VAL></PARAM>
                    self._keep(pair[1] or pair[2], pair[0])
                    if any(pair[1:]):
                        self._is_pair(pair[0], names)
            of = self._path.pop()
            if called and self._ends not in _GOOGLES:  # <a name="Colour">red</a>
                self._keep(said, called)
                if said:
                    self._is_pair(called, [of, f"{of}.name"])
            if said and self._open:
                self._open[-1][1][of] = said
        elif name.rpartition(":")[2] == self._ends:
            for path in self._paired:
                self._row.pop(path, None)
                self._row.pop(f"{path}[]", None)
            self.done.append((self._row, self._size))
            self._row = None
        self._texts.clear()

    def _is_pair(self, called: str, names: list[str]) -> None:
        """Notes what holds the name and the value of an attribute that stands under its name."""
        paths = [".".join([*self._path, name]) for name in names if name]
        if "[" not in called and all(map(presets.is_held, paths)):
            self._paired.update(paths)

    def text(self, text: str) -> None:
        self._grow(len(text))
        self._texts.append(text)

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > MAX_LINE_BYTES:
            raise BadInput(f"feed.uri={self._uri}: an item of more than {MAX_LINE_BYTES} characters")

    def refuse(self, name: str, *_: object) -> None:
        if name.lower() == "html":
            raise BadInput(f"feed.uri={self._uri}: a web page, not a feed")
        raise BadInput(f"feed.uri={self._uri}: XML with a document type or entities is not accepted")

    def _keep(self, value: str, inner: str = "") -> None:
        assert self._row is not None, "called inside an item"
        name = ".".join([*self._path, inner] if inner else self._path)
        if not value or "[" in inner:
            return
        if name not in self._row:
            self._row[name] = value
            return
        more = self._row.setdefault(f"{name}[]", [])
        assert isinstance(more, list), "no element's name ends with []"
        more.append(value)


def _items(uri: str) -> _Records:
    found, number = _Items(uri), 0
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = found.start, found.end, found.text
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = found.refuse
    system, path = storage.filesystem(uri)
    with system.open_input_stream(path) as stream:
        while piece := stream.read(_PIECE):
            try:
                parser.Parse(piece, False)
            except (expat.ExpatError, LookupError, ValueError) as e:  # an encoding that is none, or of several bytes
                raise BadInput(f"feed.uri={uri}: not XML: {e}") from None
            for row, size in found.done:
                number += 1
                yield f"{uri}#{number}", row, size
            found.done.clear()
    try:
        parser.Parse(b"", True)
    except expat.ExpatError as e:
        raise BadInput(f"feed.uri={uri}: its XML ends early: {e}") from None


def read_json(uri: str, encoding: str, mapping: Mapping, batch_rows: int) -> Iterator[RawBatch]:
    """JSON objects, a line each, in one array, or in an object's array; numbers keep their spelling."""
    records = _array(uri, encoding) if array_start(uri, encoding) else _lines(uri, encoding)
    yield from in_batches(records, mapping, batch_rows)


def json_keys(uri: str, encoding: str) -> list[str]:
    """Every key among the first objects, and the paths to what lies in them: brand.name, images[].src."""
    if not array_start(uri, encoding):
        return _keys_of_lines(uri, encoding)
    return _keys(row for _, row, _ in itertools.islice(_array(uri, encoding), _KEYS_OF_ITEMS))


def _lines(uri: str, encoding: str) -> _Records:
    """One JSON object per line."""
    with open_text(uri, encoding) as stream:
        lines = buffered(stream)
        number = 0
        while text := lines.readline(MAX_LINE_BYTES):
            number += 1
            where = f"{uri}:{number}"
            if len(text) == MAX_LINE_BYTES and not text.endswith(b"\n"):
                yield where, Reject(RejectCode.MALFORMED_ROW, f"a line of more than {MAX_LINE_BYTES} bytes"), 0
                while text and not text.endswith(b"\n"):
                    text = lines.readline(MAX_LINE_BYTES)
                continue
            if not text.strip():
                continue
            row, why = _object(text)
            yield where, Reject(RejectCode.MALFORMED_ROW, why) if row is None else row, len(text)


def _object(text: bytes) -> tuple[dict[str, object] | None, str]:
    """The JSON object, or why there is none."""
    try:
        decoded = text.decode()
        value = JSON.decode(decoded)
    except (ValueError, RecursionError) as e:
        return None, f"not JSON: {e}"[:200]
    if MARK in decoded:
        return None, "it holds bytes that are not text in this encoding"
    return (value, "") if isinstance(value, dict) else (None, f"a JSON {type(value).__name__}, not an object")


def _keys_of_lines(uri: str, encoding: str) -> list[str]:
    """Every key among the first lines, in order of appearance, and the paths to what lies in them."""
    keys: dict[str, None] = {}
    with open_text(uri, encoding) as stream:
        lines = buffered(stream)
        for _ in range(_KEYS_OF_LINES):
            row, _ = _object(lines.readline(MAX_LINE_BYTES))
            keys.update(dict.fromkeys(plain_row(row or {})))
    return list(keys)


def array_start(uri: str, encoding: str) -> int:
    """Where the first object of the file's array is, in characters; 0 if it has none, but objects in lines."""
    with open_text(uri, encoding) as stream:
        text = codecs.getincrementaldecoder("utf-8")().decode(stream.read(_PIECE))
    at = _past(text, 0, _BLANK)
    if text[at : at + 1] != "{":
        return at + 1 if text[at : at + 1] == "[" else 0
    try:
        while text[at : at + 1] in ("{", ","):  # {"count": 2, "products": [{...}, ...
            key, end = JSON.raw_decode(text, _past(text, at + 1, _BLANK))
            at = _past(text, _past(text, end, _BLANK + ":"), _BLANK)
            inner = _past(text, at + 1, _BLANK)
            if _WRAPPED.fullmatch(key) and text[at] == "[" and text[inner] == "{":
                return at + 1
            if presets.may_be(schema.PRODUCT_ID, key) or presets.may_be(schema.TITLE, key):
                return 0
            at = _past(text, JSON.raw_decode(text, at)[1], _BLANK)
    except (ValueError, IndexError, TypeError, RecursionError):  # a line of another kind, or a long one
        pass
    return 0


def _keys(rows: Iterator[object]) -> list[str]:
    return list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in plain_row(row)))


def _array(uri: str, encoding: str) -> _Records:
    """The objects of an array; what lies behind the first fault in its syntax cannot be found."""
    with open_text(uri, encoding) as stream:
        decoder = codecs.getincrementaldecoder("utf-8")()
        lines = buffered(stream)
        text, at, number, is_over = decoder.decode(lines.read(_PIECE)), array_start(uri, encoding), 0, False
        while True:
            at = _past(text, at, _BLANK + ",")
            if text[at : at + 1] == "]":
                return
            try:
                if at >= len(text):
                    raise json.JSONDecodeError("the array ends early", text, at)
                value, end = JSON.raw_decode(text, at)
            except json.JSONDecodeError as e:
                if is_over or len(text) - at > MAX_LINE_BYTES:
                    raise BadInput(f"feed.uri={uri}: object {number + 1} of the array is not JSON: {e.msg}") from None
                piece = lines.read(_PIECE)
                text, at, is_over = text[at:] + decoder.decode(piece, final=not piece), 0, not piece
                continue
            except RecursionError:
                raise BadInput(f"feed.uri={uri}: object {number + 1} of the array is nested too deeply") from None
            number += 1
            why = f"a JSON {type(value).__name__}, not an object"
            row = value if isinstance(value, dict) else Reject(RejectCode.MALFORMED_ROW, why)
            yield f"{uri}#{number}", row, end - at
            at = end


def _past(text: str, at: int, skipped: str) -> int:
    while at < len(text) and text[at] in skipped:
        at += 1
    return at
