"""CSV and its like as raw batches, in constant memory. An unreadable line becomes a reject and never ends a job."""

import csv
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from w2w.errors import BadInput, RejectCode
from w2w.ingest.raw import Mapping, RawBatch, attributes_of, batch_of_texts, check_names_once, reject_table
from w2w.ingest.text import MARK, MAX_LINE_BYTES, buffered, open_text

CSV_BLOCK_BYTES = 4 * 1024 * 1024  # one batch; also the longest possible record, and so where an open quote is noticed
_SALVAGE_LINES = 50  # the longest record searched for among lines that a broken quote swallowed


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
        line = buffered(stream).readline(MAX_LINE_BYTES).decode()
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
    check_names_once(names, uri)
    return names


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
    yield batch_of_texts(table, source, unread, "bytes that are not text in this encoding", picked, attributes)


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
