"""Parquet as raw batches, in constant memory: the columns that can be text, as text."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from w2w import storage
from w2w.errors import BadInput, Reject, UsageError, attempt
from w2w.ingest.raw import Mapping, RawBatch, batch_of_texts, check_names_once
from w2w.ingest.text import MARK


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
            yield batch_of_texts(
                table, source, unread, "a value that is not text, such as bytes that are not UTF-8", picked, attributes
            )


def _columns(file: pq.ParquetFile, uri: str) -> pa.Schema:
    try:
        names = file.schema_arrow.names
    except (ValueError, pa.ArrowException) as e:
        raise BadInput(f"feed.uri={uri}: its columns cannot be read: {e}") from None
    check_names_once(names, uri)
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
