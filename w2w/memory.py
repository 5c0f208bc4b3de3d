"""Memory: how much freed memory a process keeps, and arrays on disk."""

import ctypes
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_LARGE_BYTES = 1 << 20
_LARGE_ROWS = 100_000
_ROWS_AT_ONCE = 65_536
_MOST_TEXT = (1 << 31) - 1  # bytes that the offsets of an Arrow array of texts can address
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_memory() -> None:
    """Lets a worker reuse the memory of one batch for the next. glibc returns large blocks at once, and every batch then pays
    page faults for them: measured, 1.7 times the CPU for decoding, 3 times for torch eager. A no-op on other systems."""
    if (glibc := _glibc()) is not None:
        for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            glibc.mallopt(option, 1 << 30)


def give_back_memory() -> None:
    """Returns free memory to the system. When long-lived and larger short-lived arrays alternate, glibc and Arrow's pool keep
    most of the freed memory: measured, 305 MB for 150 MB in use, when a million owners are split."""
    pa.default_memory_pool().release_unused()
    if (glibc := _glibc()) is not None:
        glibc.malloc_trim(0)


def on_disk(array: np.ndarray) -> np.ndarray:
    """Moves an array of a megabyte or more to an unnamed, memory-mapped file in the temporary folder: pages that are not
    accessed need no memory, and the file disappears with the array."""
    if array.nbytes < _LARGE_BYTES:
        return array
    with tempfile.TemporaryFile(prefix="w2w-") as file:
        array.tofile(file)
        return np.memmap(file, array.dtype, "r+", shape=array.shape).view(np.ndarray)


def empty_on_disk(shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    """Zeros to be filled, where ``on_disk`` would put them."""
    if np.prod(shape) * np.dtype(dtype).itemsize < _LARGE_BYTES:
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile(prefix="w2w-") as file:
        return np.memmap(file, dtype, "w+", shape=shape).view(np.ndarray)


def joined_on_disk(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Rows one below the other, as ``on_disk``."""
    joined = empty_on_disk((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype.type)
    start = 0
    for part in parts:
        joined[start : start + len(part)] = part
        start += len(part)
    return joined


def table_on_disk(batches: Iterable[pa.Table], schema: pa.Schema) -> pa.Table:
    """The rows of all batches, one chunk a column. Of many rows the texts lie in unnamed, memory-mapped files in the temporary
    folder, as ``on_disk``; the other columns, and which texts are null, are in memory."""
    kept, num_rows = [schema.empty_table()], 0
    left = iter(batches)
    for batch in left:
        kept.append(batch)
        num_rows += batch.num_rows
        if num_rows > _LARGE_ROWS:
            return _on_disk(kept, left, schema)
    return pa.concat_tables(kept).combine_chunks()


def _on_disk(first: list[pa.Table], left: Iterator[pa.Table], schema: pa.Schema) -> pa.Table:
    texts = {f.name: _Texts() for f in schema if pa.types.is_string(f.type)}
    others: list[pa.Table] = []
    for batch in chain(first, left):
        for name, column in texts.items():
            for chunk in batch.column(name).chunks:
                column.add(chunk)
        others.append(batch.drop_columns(list(texts)))
    rest = pa.concat_tables(others).combine_chunks()
    return pa.table([texts[f.name].read() if f.name in texts else rest.column(f.name) for f in schema], schema=schema)


class _Texts:
    """A column of texts in two files, and a byte a row of which are null if any is."""

    def __init__(self) -> None:
        self._done: list[pa.Array] = []
        self._begin()

    def _begin(self) -> None:
        with ExitStack() as files:
            self._ends = files.enter_context(tempfile.TemporaryFile(prefix="w2w-"))
            self._text = files.enter_context(tempfile.TemporaryFile(prefix="w2w-"))
            self._files = files.pop_all()
        self._valid: list[np.ndarray] = []
        self._rows = self._bytes = self._nulls = 0
        self._ends.write(np.zeros(1, np.int32).tobytes())

    def add(self, texts: pa.Array) -> None:
        if not len(texts):
            return
        nulls = texts.null_count
        valid = texts.is_valid().to_numpy(zero_copy_only=False) if nulls else np.broadcast_to(True, len(texts))
        texts = texts.fill_null("") if nulls else texts
        ends = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
        size = int(ends[-1] - ends[0])
        if self._bytes + size > _MOST_TEXT:
            self._done.append(self._end())
            self._begin()
        self._ends.write((ends[1:] - ends[0] + self._bytes).astype(np.int32).tobytes())
        if size:
            self._text.write(texts.buffers()[2].slice(int(ends[0]), size))
        self._valid.append(valid)
        self._rows, self._bytes, self._nulls = self._rows + len(texts), self._bytes + size, self._nulls + nulls

    def _end(self) -> pa.Array:
        with self._files:
            buffers = [_mapped(file) for file in (self._ends, self._text)]
        valid = pa.py_buffer(np.packbits(np.concatenate(self._valid), bitorder="little")) if self._nulls else None
        return pa.StringArray.from_buffers(self._rows, *buffers, valid, self._nulls)

    def read(self) -> pa.ChunkedArray:
        return pa.chunked_array([*self._done, self._end()], pa.string())


def _mapped(file: IO[bytes]) -> pa.Buffer:
    file.flush()
    return pa.py_buffer(np.memmap(file, np.uint8, "r")) if file.tell() else pa.py_buffer(b"")


def file_on_disk(table: pa.Table) -> np.ndarray:
    """The bytes of an Arrow file of the table, uint8, where ``on_disk`` would put them."""
    with tempfile.TemporaryFile(prefix="w2w-") as file:
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        file.flush()
        return np.memmap(file, np.uint8, "r").view(np.ndarray)


def taken_on_disk(table: pa.Table, rows: np.ndarray | pa.Array) -> pa.Table:
    """These rows, in this order, as ``table_on_disk``."""
    starts = range(0, len(rows), _ROWS_AT_ONCE)
    return table_on_disk((table.take(pa.array(rows[i : i + _ROWS_AT_ONCE])) for i in starts), table.schema)


def sorted_on_disk(table: pa.Table, keys: list[tuple[str, str]]) -> pa.Table:
    """As ``Table.sort_by``, as ``table_on_disk``."""
    return taken_on_disk(table, pc.sort_indices(table, keys))


def filtered_on_disk(table: pa.Table, mask: np.ndarray) -> pa.Table:
    """The rows of which bool ``mask`` (rows,) is True; the same table if all are."""
    if mask.all():
        return table
    starts = range(0, len(mask), _ROWS_AT_ONCE)
    some = (table.slice(i, _ROWS_AT_ONCE).filter(pa.array(mask[i : i + _ROWS_AT_ONCE])) for i in starts)
    return table_on_disk(some, table.schema)


def _glibc() -> ctypes.CDLL | None:
    try:
        glibc = ctypes.CDLL("libc.so.6")
        return glibc if hasattr(glibc, "mallopt") and hasattr(glibc, "malloc_trim") else None
    except OSError:
        return None
