"""CSV, JSON lines and Parquet as raw batches, in constant memory. An unreadable line becomes a reject and never ends a job."""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from w2w import storage
from w2w.errors import BadInput, Reject, RejectCode, UsageError, attempt
from w2w.ingest.dicts import JSON
from w2w.ingest.paths import plain_row
from w2w.ingest.raw import REQUIRED, Mapping, RawBatch, Warned, attributes_of, reject_table, warned_array

CSV_BLOCK_BYTES = 4 * 1024 * 1024  # one batch; also the longest possible record, and so where an open quote is noticed
MAX_LINE_BYTES = 16 * 1024 * 1024  # of a JSON line
_SALVAGE_LINES = 50  # the longest record searched for among lines that a broken quote swallowed
_KEYS_OF_LINES = 1000  # read to collect the keys of JSON lines
# Undecodable bytes become U+FDD0, a code point that Unicode forbids in text (section 23.7), which marks the row for the reader;
# U+FFFD would condemn rows whose author stored that character, as real feeds do.
MARK = "\ufdd0"
codecs.register_error("w2w-mark", lambda e: (MARK, e.end))  # type: ignore[attr-defined]  # those of decoding have an end


def open_text(uri: str, encoding: str, seen: Callable[[str], None] = lambda text: None) -> pa.NativeFile:
    """The file as a stream of UTF-8, whatever its encoding and compression (by suffix: .gz, .zst, .bz2). If its first line ends
    with a lone carriage return (Excel's "CSV (Macintosh)"), each of them becomes a line feed. ``seen`` gets each piece.

    Raises UsageError if there is no such file or encoding.
    """
    try:
        "a".encode(encoding)  # LookupError also for codecs that do not encode text, such as rot13 and hex
        decoder = codecs.getincrementaldecoder(encoding)("w2w-mark")
    except (LookupError, ValueError):
        raise UsageError(f"feed.encoding={encoding}: no such encoding; utf-8, cp1252, latin-1 and utf-16 are common") from None
    system, path = storage.filesystem(uri)
    try:
        stream = system.open_input_stream(path)
    except FileNotFoundError:
        raise UsageError(f"feed.uri={uri}: no such file") from None
    except PermissionError:
        raise UsageError(f"feed.uri={uri}: no permission to read it") from None

    line_ends = _LineEnds()

    def transcode(chunk: pa.Buffer) -> bytes:
        try:
            text = line_ends(decoder.decode(bytes(chunk), final=len(chunk) == 0))
            seen(text)
            return text.encode("utf-8", "replace")
        except UnicodeError as e:  # no row is at fault: e.g. the codec requires a byte order mark
            raise BadInput(f"feed.uri={uri}: not {encoding}: {e}") from None

    return pa.TransformInputStream(stream, transcode)


class _LineEnds:
    """Text, piece by piece, with line feeds for carriage returns if its first line ends with a lone one."""

    def __init__(self):
        self._alone: bool | None = None
        self._held = ""  # a carriage return that may be half of a line end

    def __call__(self, text: str) -> str:
        if self._alone is None:
            text, self._held = self._held + text, ""
            end = re.search(r"\r(.?)|\n", text, re.DOTALL)
            if end and end[1] == "":
                text, self._held = text[:-1], "\r"
            elif end:
                self._alone = end[1] is not None and end[1] != "\n"
        return text.replace("\r", "\n") if self._alone else text


class _End:
    """Number of quotes at the end of a text given piece by piece, ignoring line ends."""

    def __init__(self):
        self.num_quotes = 0

    def __call__(self, text: str) -> None:
        if bare := text.rstrip("\r\n"):
            here = len(bare) - len(bare.rstrip('"'))
            self.num_quotes = here + (self.num_quotes if here == len(bare) else 0)


def csv_header(uri: str, delimiter: str, encoding: str) -> list[str]:
    """The column names, stripped. Raises UsageError for an invalid header."""
    with open_text(uri, encoding) as stream:
        line = _lines(stream).readline(MAX_LINE_BYTES).decode()
    if not line.strip():
        raise BadInput(f"feed.uri={uri}: the file is empty, or its first line is")
    if MARK in line:
        raise BadInput(f"feed.uri={uri}: the header is not {encoding}; set feed.encoding=cp1252, latin-1 or utf-16")
    try:
        cells = [n.strip() for n in next(csv.reader([line], delimiter=delimiter))]
    except csv.Error as e:
        raise BadInput(f"feed.uri={uri}: the header cannot be read: {e}") from None
    names = [name or f"column {number}" for number, name in enumerate(cells, 1)]  # a sheet may have more columns than headings
    if len(names) == 1:
        guess = max(",;\t|", key=line.count)
        hint = f"; it holds {guess!r} {line.count(guess)} times: set csv_delimiter" if line.count(guess) else ""
        raise BadInput(f"feed.uri={uri}: only one column found with csv_delimiter={delimiter!r}{hint}")
    _check_once(names, uri)
    return names


def _check_once(names: list[str], uri: str) -> None:
    if twice := sorted(n for n, count in Counter(names).items() if count > 1):
        raise BadInput(f"feed.uri={uri}: duplicate column names: {', '.join(map(repr, twice))}")


def read_csv(uri: str, delimiter: str, encoding: str, mapping: Mapping) -> Iterator[RawBatch]:
    """Every record becomes a row or a reject; of the lines that a broken quote swallowed, the intact ones are still read."""
    names = csv_header(uri, delimiter, encoding)
    picked, attributes = mapping.pick(names, f"feed.uri={uri}")
    broken: list[tuple[int, str]] = []  # (physical record from 0, text) reported by the parser and not placed yet

    def on_broken(row: pa.csv.InvalidRow) -> str:
        broken.append((row.number - 2, row.text))  # it counts from 1, and the skipped header
        return "skip"

    row, line = 0, 2  # the next record and its first line
    end, held = _End(), None  # held: a record whose last value spans several lines; its quote may swallow the rest of the file
    with open_text(uri, encoding, end) as stream:
        try:
            reader = pa.csv.open_csv(
                stream,
                pa.csv.ReadOptions(use_threads=False, block_size=CSV_BLOCK_BYTES, column_names=names, skip_rows=1),
                pa.csv.ParseOptions(
                    delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=on_broken
                ),
                pa.csv.ConvertOptions(column_types={n: pa.string() for n in names}, strings_can_be_null=False),
            )
            batches = iter(reader)
            while (batch := next(batches, None)) is not None:
                table = {n: _one(batch.column(i)) for i, n in enumerate(names)}
                lines, here, row, line = _place(table, broken, row, line)
                if held:
                    yield from _csv_batch(uri, *held, picked, attributes)
                whole = len(lines) - int(len(lines) > 0 and "\n" in table[names[-1]][-1].as_py())
                held = ({n: c.slice(whole) for n, c in table.items()}, lines[whole:]) if whole < len(lines) else None
                yield from _csv_batch(uri, {n: c.slice(0, whole) for n, c in table.items()}, lines[:whole], picked, attributes)
                yield from _salvage(uri, here, names, delimiter, picked, attributes)
        except pa.ArrowInvalid as e:
            if "Empty CSV" in str(e) or "Could not skip" in str(e):  # nothing, or nothing but the header
                return
            what = "a quoted value that is never closed starts here" if "straddling" in str(e) else f"it cannot be read on: {e}"
            raise BadInput(f"{uri}:{line}: {what}") from None
    _, here, _, line = _place({n: pa.array([], pa.string()) for n in names}, broken, row, line)
    if held:
        values = [held[0][n][0].as_py() for n in names]
        is_last = held[1][0] + 1 + sum(v.count("\n") for v in values) == line
        if is_last and end.num_quotes % 2 == 0:  # a closed value ends with its quote, and one more for each pair before it
            text = delimiter.join([*values[:-1], '"' + values[-1].replace('"', '""')])
            here.append((int(held[1][0]), text))
        else:
            yield from _csv_batch(uri, *held, picked, attributes)
    yield from _salvage(uri, here, names, delimiter, picked, attributes)


def _one(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _place(
    table: dict[str, pa.Array], broken: list[tuple[int, str]], row: int, line: int
) -> tuple[np.ndarray, list[tuple[int, str]], int, int]:
    """The line of each record of a batch, including the broken ones, and where the next batch starts.

    ``broken`` (emptied as they are placed) may run ahead of the batch: the parser reads the next block early.
    """
    count = len(next(iter(table.values())))
    newlines = np.zeros(count, np.int64)
    for column in table.values():
        newlines += pc.count_substring(column, "\n").to_numpy(zero_copy_only=False)
    before = np.array([number - row - rank for rank, (number, _) in enumerate(broken)], np.int64)  # good rows before each
    num_here = int(np.searchsorted(before, count, side="right"))
    here, before = broken[:num_here], before[:num_here]
    del broken[:num_here]
    heights = np.array([text.rstrip("\r\n").count("\n") + 1 for _, text in here], np.int64)
    good_starts = np.concatenate([[0], np.cumsum(newlines + 1)])
    broken_starts = np.concatenate([[0], np.cumsum(heights)])
    lines = line + good_starts[:-1] + broken_starts[np.searchsorted(before, np.arange(count), side="right")]
    placed = [(int(line + good_starts[b] + broken_starts[rank]), text) for rank, (b, (_, text)) in enumerate(zip(before, here))]
    return lines, placed, row + count + num_here, int(line + good_starts[-1] + broken_starts[-1])


def _csv_batch(
    uri: str, table: dict[str, pa.Array], lines: np.ndarray, picked: dict[str, str], attributes: list[str]
) -> Iterator[RawBatch]:
    says, unread = np.zeros(len(lines), bool), {}
    for name, column in table.items():
        says |= pc.greater(pc.binary_length(column), 0).to_numpy(zero_copy_only=False)
        marked = pc.match_substring(column, MARK)
        if pc.any(marked).as_py():
            unread[name] = marked.to_numpy(zero_copy_only=False)
            table = table | {name: pc.if_else(marked, None, column)}
    source = pc.binary_join_element_wise(uri, pa.array(lines).cast(pa.string()), ":")
    there = pa.array(says)  # a record without values is an empty line
    table, source = {n: c.filter(there) for n, c in table.items()}, source.filter(there)
    unread = {n: mask[says] for n, mask in unread.items()}
    yield _batch(table, source, unread, "bytes that are not text in this encoding", picked, attributes)


def _batch(
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


def _salvage(
    uri: str, broken: list[tuple[int, str]], names: list[str], delimiter: str, picked: dict[str, str], attributes: list[str]
) -> Iterator[RawBatch]:
    """Rejects the first line of each broken record and reads the lines after it, which only an open quote had swallowed."""
    rejects, rows, lines = [], [], []
    for first_line, text in broken:
        texts = text.rstrip("\r\n").split("\n")
        at = 0
        while at < len(texts):
            record, height = (None, 1) if at == 0 else _record(texts, at, delimiter)
            if record is not None and len(record) == len(names):
                rows.append(record)
                lines.append(first_line + at)
                at += height
                continue
            if texts[at].strip():
                found = texts[at].count(delimiter) + 1
                detail = f"{found} columns instead of {len(names)}" if '"' not in texts[at] else "its quotes do not match"
                where = f"{uri}:{first_line + at}"
                rejects.append((where, RejectCode.MALFORMED_ROW, f"{detail}: {texts[at][:80]}", where))
            at += 1
    if rejects:
        nothing = {ours: pa.array([], pa.string()) for ours in picked}
        yield RawBatch(nothing, attributes_of({}, 0), pa.array([], pa.string()), reject_table(rejects))
    if rows:
        table = {n: pa.array(c, pa.string()) for n, c in zip(names, zip(*rows))}
        yield from _csv_batch(uri, table, np.array(lines), picked, attributes)


def _record(texts: list[str], at: int, delimiter: str) -> tuple[list[str] | None, int]:
    reader = csv.reader((t + "\n" for t in texts[at : at + _SALVAGE_LINES]), delimiter=delimiter, strict=True)
    try:
        return next(reader), reader.line_num
    except (csv.Error, StopIteration):
        return None, 1


def _lines(stream: pa.NativeFile) -> io.BufferedReader:
    return io.BufferedReader(stream, 256 * 1024)


def json_lines(uri: str, encoding: str) -> Iterator[tuple[str, dict[str, object] | Reject, int]]:
    """One JSON object per line."""
    with open_text(uri, encoding) as stream:
        lines = _lines(stream)
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


def jsonl_keys(uri: str, encoding: str) -> list[str]:
    """Every key among the first lines, in order of appearance, and the paths to what lies in them."""
    keys: dict[str, None] = {}
    with open_text(uri, encoding) as stream:
        lines = _lines(stream)
        for _ in range(_KEYS_OF_LINES):
            row, _ = _object(lines.readline(MAX_LINE_BYTES))
            keys.update(dict.fromkeys(plain_row(row or {})))
    return list(keys)


def open_parquet(uri: str) -> pq.ParquetFile:
    """Raises UsageError if the file is missing or not Parquet."""
    system, path = storage.filesystem(uri)
    try:
        return pq.ParquetFile(system.open_input_file(path))
    except FileNotFoundError:
        raise UsageError(f"feed.uri={uri}: no such file") from None
    except PermissionError:
        raise UsageError(f"feed.uri={uri}: no permission to read it") from None
    except (pa.ArrowException, OSError, UnicodeError) as e:  # UnicodeError: a column name that is not UTF-8
        if "AWS Error" in str(e):  # the connection failed, not the file
            raise
        raise BadInput(f"feed.uri={uri}: not a Parquet file: {e}") from None


def read_parquet(uri: str, mapping: Mapping, batch_rows: int) -> Iterator[RawBatch]:
    """Row group by row group; numbers, booleans and times as text. Lists, structs and bytes are not attributes."""
    with open_parquet(uri) as file:
        picked, attributes = parquet_columns(_columns(file, uri), mapping, uri)
        first = 1
        for batch in file.iter_batches(batch_rows, columns=sorted({*picked.values(), *attributes})):
            table, unread = {}, {}
            for name in batch.schema.names:
                table[name], invalid = _as_text(batch.column(name))
                if invalid.any():
                    unread[name] = invalid
            numbers = pa.array(np.arange(first, first + batch.num_rows)).cast(pa.string())
            first += batch.num_rows
            source = pc.binary_join_element_wise(uri, numbers, ":")
            yield _batch(
                table, source, unread, "a value that is not text, such as bytes that are not UTF-8", picked, attributes
            )


def _columns(file: pq.ParquetFile, uri: str) -> pa.Schema:
    try:
        names = file.schema_arrow.names
    except (ValueError, pa.ArrowException) as e:
        raise BadInput(f"feed.uri={uri}: its columns cannot be read: {e}") from None
    _check_once(names, uri)
    return file.schema_arrow


def text_columns(uri: str) -> list[str]:
    """The columns of a Parquet file that can be text."""
    with open_parquet(uri) as file:
        return [column.name for column in _columns(file, uri) if _is_plain(column.type)]


def parquet_columns(columns: pa.Schema, mapping: Mapping, uri: str) -> tuple[dict[str, str], list[str]]:
    """Like Mapping.pick, over the columns that can be text. Raises UsageError for a requested one that cannot."""
    plain = {f.name for f in columns if _is_plain(f.type)}
    picked, attributes = mapping.pick(columns.names, f"feed.uri={uri}")
    asked = [(f"feed.columns.{ours}", theirs) for ours, theirs in picked.items()]
    asked += [("attributes", theirs) for theirs in mapping.attributes or ()]
    for option, name in asked:
        if name not in plain:
            kind = columns.field(name).type
            raise UsageError(f"feed.uri={uri}: column {name!r} of {option} holds {kind}; it must be text, a number or a time")
    return picked, [a for a in attributes if a in plain]


def _is_plain(kind: pa.DataType) -> bool:
    """Whether values of this type can be text: not bytes or lists, nor types that Arrow cannot cast."""
    if isinstance(kind, pa.BaseExtensionType):
        return _is_plain(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return False
    try:
        _numbers(pa.array([], kind)).cast(pa.string())
    except (pa.ArrowException, TypeError):
        return False
    return not pa.types.is_fixed_size_binary(kind)


def _numbers(values: pa.Array) -> pa.Array:
    """NaN becomes null: pandas writes nulls as NaN."""
    if not pa.types.is_floating(values.type):
        return values
    values = values.cast(pa.float32()) if pa.types.is_float16(values.type) else values
    return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)


def _as_text(values: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """As strings, and a mask of the values that cannot be one (null there): not UTF-8, or a time in an unknown zone."""
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    values = values.cast(pa.string()) if pa.types.is_string_view(values.type) else _numbers(values)
    none = np.zeros(len(values), bool)
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        try:
            return values.cast(pa.string()), none
        except pa.ArrowException:
            texts = [attempt(values.slice(i, 1).cast, pa.string()) for i in range(len(values))]
            bad = np.array([isinstance(t, Reject) for t in texts], bool)
            return pa.array([None if isinstance(t, Reject) else t[0].as_py() for t in texts], pa.string()), bad
    raw = values.cast(pa.binary())
    try:
        return raw.cast(pa.string()), none  # unlike reading Parquet, this cast validates
    except pa.ArrowInvalid:
        checked = [v if v is None else v.decode("utf-8", "w2w-mark") for v in raw.to_pylist()]
        bad = np.array([v is not None and MARK in v for v in checked])
        return pa.array([None if b else v for v, b in zip(checked, bad)], pa.string()), bad
