"""Images inside Parquet files, as in data sets on the Hugging Face hub: FILE.parquet#ROW is one picture of column `image`."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import pyarrow as pa
import pyarrow.parquet as pq

from w2w import storage
from w2w.errors import Reject, RejectCode, UsageError

COLUMN = "image"  # bytes, or a struct with them: {bytes, path}
_CELL = re.compile(r"(.+\.parquet)#([0-9]{1,12})", re.DOTALL)
_MOST_BYTES = 512 << 20  # of a row group's column, which is held in memory
_lock = threading.Lock()  # threads that need the same row group wait for a single read


def is_cell(uri: str) -> bool:
    return _CELL.fullmatch(uri) is not None


def cell_uri(file: str, row: int) -> str:
    """The name of a row's picture; rows are counted from 0 over the whole file."""
    return f"{file}#{row}"


def read_cell(uri: str, max_bytes: int) -> bytes:
    """The bytes of one picture. Raises Reject: NOT_FOUND if the file has no such row, EMPTY if the row has no picture,
    TOO_MANY_BYTES, CORRUPT; OSError if the file cannot be read."""
    file, row = _CELL.fullmatch(uri).groups()  # type: ignore[union-attr]
    with _lock:
        starts = _starts(file)
        group = next((g for g, start in enumerate(starts[1:]) if int(row) < start), None)
        if group is None:
            raise Reject(RejectCode.NOT_FOUND, f"{file} has {starts[-1]} rows")
        data = _group(file, group)[int(row) - starts[group]].as_py()
    if not data:
        raise Reject(RejectCode.EMPTY, f"row {row} has no picture")
    if len(data) > max_bytes:
        raise Reject(RejectCode.TOO_MANY_BYTES, f"{len(data)} bytes, more than {max_bytes}")
    return data


def check_cells(file: str) -> None:
    """Raises UsageError if the file has no column of pictures, or row groups that are too large."""
    with _opened(file) as opened:
        if COLUMN not in opened.schema_arrow.names or _bytes_of(opened.schema_arrow.field(COLUMN).type) is None:
            raise UsageError(f"{file}: no column {COLUMN!r} of pictures, only {', '.join(opened.schema_arrow.names[:20])}")
        for number in range(opened.metadata.num_row_groups):
            if (size := _size(opened, number)) > _MOST_BYTES:
                raise UsageError(
                    f"{file}: row group {number} has {size / 2**20:,.0f} MB of pictures, more than {_MOST_BYTES >> 20}: "
                    "rewrite it with row_group_size=100"
                )


def _bytes_of(kind: pa.DataType) -> str | None:
    """The field that holds the bytes; "" for the column itself."""
    if pa.types.is_struct(kind):
        return "bytes" if kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type) else None
    return "" if _is_bytes(kind) else None


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _size(opened: pq.ParquetFile, number: int) -> int:
    """Bytes of a row group. Asking only for the column's size crashes the process if the file's statistics are damaged."""
    return opened.metadata.row_group(number).total_byte_size


@lru_cache(maxsize=16)
def _starts(file: str) -> list[int]:
    """First row of each row group, and the number of rows."""
    with _opened(file) as opened:
        starts = [0]
        for number in range(opened.metadata.num_row_groups):
            starts.append(starts[-1] + opened.metadata.row_group(number).num_rows)
    return starts


@lru_cache(maxsize=1)
def _group(file: str, group: int) -> pa.ChunkedArray:
    with _opened(file) as opened:
        schema = opened.schema_arrow
        inside = _bytes_of(schema.field(COLUMN).type) if COLUMN in schema.names else None
        if inside is None:
            raise Reject(RejectCode.NOT_AN_IMAGE, f"{file} has no column {COLUMN!r} of pictures")
        if _size(opened, group) > _MOST_BYTES:
            raise Reject(
                RejectCode.TOO_MANY_BYTES, f"{file}: row group {group} has more than {_MOST_BYTES >> 20} MB of pictures"
            )
        column = opened.read_row_group(group, columns=[COLUMN]).column(0)
        if len(column) != opened.metadata.row_group(group).num_rows:
            raise Reject(RejectCode.CORRUPT, f"{file}: row group {group} has {len(column)} rows")
    return pa.chunked_array([chunk.field(inside) for chunk in column.chunks]) if inside else column


@contextmanager
def _opened(file: str) -> Iterator[pq.ParquetFile]:
    """Raises Reject for a damaged file, also from within the block, and OSError for one that cannot be read."""
    system, path = storage.filesystem(file)
    with system.open_input_file(path) as raw:
        try:
            yield pq.ParquetFile(raw)
        except (pa.ArrowException, OSError, UnicodeError) as e:
            # Arrow raises OSError for damage too; errors of disks have an errno, and those of buckets name their service
            if isinstance(e, OSError) and (e.errno is not None or "AWS" in str(e)):
                raise
            raise Reject(RejectCode.CORRUPT, f"{file} is not a Parquet file, or is damaged: {str(e).splitlines()[0]}") from e
