"""Moves vectors from a table's parts to the tasks that need them: read once, split by target, gathered in its order."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from w2w import ids, schema
from w2w.engine.tasks import collect
from w2w.errors import JobFailed
from w2w.memory import empty_on_disk
from w2w.table import bridges, delta
from w2w.table.bridges import Bridge

_FEW = 50_000  # owners that are looked for among all
_ROWS_PER_MAP, _BYTES_PER_MAP = 20_000, 32 << 20  # the larger of both: 100 MB at 1280 float32 dimensions
_PIECE_BYTES, _MOST_PER_MAP = (
    256 << 10,
    256 << 20,
)  # Ray keeps results below 100 kB in the driver's own memory: all vectors, once
_FOUND_AT_ONCE = 500_000  # owners, each of which takes 80 bytes while it is looked for


@dataclass(frozen=True)
class Vectors:
    """Where the vectors of one model lie, and which row belongs to whom. Also serves a fixed-width bytes column of another
    table; its vectors are uint8."""

    store: str
    version: str  # of the model or stage that wrote them
    parts: list[delta.Part]
    places: ids.Places  # of the owners: row numbers over ``parts`` in order
    table: schema.Table = schema.EMBEDDINGS
    column: str = schema.VECTOR
    mapped: tuple[delta.Part, ...] = ()  # further parts, after ``parts``: their vectors are read through ``bridge``
    bridge: Bridge | None = None

    def find(self, owners: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Row of each owner, -1 if it has no vector."""
        starts = range(0, len(owners), _FOUND_AT_ONCE)
        found = [self.places.find(ids.hash_keys_128(owners.slice(i, _FOUND_AT_ONCE))) for i in starts]
        return np.concatenate([np.empty(0, np.int64), *found])

    def names(self) -> Iterator[pa.ChunkedArray]:
        """The owners of all rows, one batch at a time."""
        for batch in delta.read_batches(self.store, self.table, [self.table.key[0]], [*self.parts, *self.mapped]):
            yield batch.column(0)

    def read_names(self, rows: np.ndarray) -> pa.Array:
        """The owners of the given rows, in the given order."""
        order, found, start = np.argsort(rows, kind="stable"), [pa.array([], pa.string())], 0
        for names in self.names() if len(rows) else ():
            low, high = np.searchsorted(rows[order], [start, start + len(names)])
            found += names.take(pa.array(rows[order][low:high] - start)).chunks
            start += len(names)
        return pa.concat_arrays(found).take(pa.array(np.argsort(order, kind="stable")))


@dataclass(frozen=True)
class Sought(Vectors):
    """The same where few owners are looked for: their ids are found by reading all, and none is kept."""

    def find(self, owners: pa.Array | pa.ChunkedArray) -> np.ndarray:
        if not len(owners):
            return np.empty(0, np.int64)
        if len(owners) > _FEW:
            return _places(self.store, self.table, self.parts).find(ids.hash_keys_128(owners))
        once = pc.unique(owners)
        place, end = np.full(len(once), -1), sum(part.rows for part in self.parts)
        for part in reversed(self.parts):  # those that came of late are mostly in the last ones
            end -= part.rows
            keys = [b.column(0) for b in delta.read_batches(self.store, self.table, [self.table.key[0]], [part])]
            at = pc.index_in(pa.chunked_array([c for key in keys for c in key.chunks], pa.string()), value_set=once)
            there = np.flatnonzero(at.is_valid().to_numpy())
            place[at.take(pa.array(there)).to_numpy()] = there + end
            if (place >= 0).all():
                break
        return place[pc.index_in(owners, value_set=once).to_numpy()]


def seek_vectors(store: str, model_version: str) -> Sought:
    """Reads nothing but the table's log."""
    listed = delta.parts(delta.open_table(store, schema.EMBEDDINGS), model_version=model_version)
    return Sought(store, model_version, listed, ids.Places(np.empty((0, 2), np.uint64)))


def list_vectors(store: str, model_version: str) -> Vectors:
    """Reads only the owners' ids, keeping 24 bytes of each in the driver."""
    return list_column(store, schema.EMBEDDINGS, schema.VECTOR, model_version)


def list_served(store: str, model_version: str) -> Vectors:
    """The same for a version that may be one of the store's bridges: vectors of that version, those of the old model, and of
    the new one, mapped, whose owners have no others."""
    found = bridges.find(store, model_version)
    if found is None:
        return list_vectors(store, model_version)
    bridge, opened = found[1], delta.open_table(store, schema.EMBEDDINGS)
    as_they_are = [p for v in (model_version, bridge.old) for p in delta.parts(opened, model_version=v)]
    mapped = delta.parts(opened, model_version=bridge.new)
    places = _places(store, schema.EMBEDDINGS, [*as_they_are, *mapped])  # of an owner's rows the first is found
    return Vectors(store, model_version, as_they_are, places, mapped=tuple(mapped), bridge=bridge)


def list_column(store: str, table: schema.Table, column: str, version: str) -> Vectors:
    """The same for a column of any table with one partition, whose first key column is unique."""
    listed = delta.parts(delta.open_table(store, table), **{table.partition_by[0]: version})
    return Vectors(store, version, listed, _places(store, table, listed), table, column)


def _places(store: str, table: schema.Table, listed: Sequence[delta.Part]) -> ids.Places:
    hashes_N2, start = empty_on_disk((2, sum(p.rows for p in listed)), np.uint64).T, 0
    for batch in delta.read_batches(store, table, [table.key[0]], listed):
        hashes_N2[start : start + batch.num_rows] = ids.hash_keys_128(batch.column(0))
        start += batch.num_rows
    return ids.Places(hashes_N2)


def share(value: object) -> list:
    """Puts a value into the object store once; tasks read it with ``shared``."""
    return [ray.put(value)]


def shared(reference: list) -> Any:
    return ray.get(reference[0])


def gather(
    vectors: Vectors,
    targets: Sequence[np.ndarray],
    consume: Callable,
    arguments: Sequence[tuple],
    num_cpus: float = 1,
    title: str = "gather",
) -> list:
    """Runs ``consume(*arguments[t], vectors_ND)`` as one Ray task per target; results in order.

    ``targets[t]`` are rows of ``vectors`` (see ``find``), in the order in which ``consume`` wants its (N, D). Every part is
    read once, however many targets need it; vectors wait in the object store, which spills to disk.
    """
    if not targets:
        return []
    assert all((t >= 0).all() for t in targets), "a row without a vector was requested"
    positions = [np.argsort(t, kind="stable") for t in targets]
    split = ray.remote(num_cpus=1, num_returns=len(targets))(_split)
    build = ray.remote(num_cpus=num_cpus)(_assemble)
    pieces: list[list] = [[] for _ in targets]
    for where, listed, start, stop in _chunks(vectors, len(targets)):
        bounds = [np.searchsorted(t, [start, stop], sorter=order) for t, order in zip(targets, positions)]
        position = [order[low:high] for order, (low, high) in zip(positions, bounds)]
        row = np.concatenate([t[some] for t, some in zip(targets, position)]) - start
        if not len(row):
            continue
        target = np.repeat(np.arange(len(targets)), [len(some) for some in position])
        refs = split.remote(where, listed, row, target, np.concatenate(position), len(targets))
        for t, ref in enumerate(refs if len(targets) > 1 else [refs]):
            pieces[t].append(ref)
    tasks = [build.remote(consume, arguments[t], len(targets[t]), *pieces[t]) for t in range(len(targets))]
    return collect(tasks, title)


def read_vectors(vectors: Vectors, rows: np.ndarray) -> np.ndarray:
    """The rows' vectors in the driver, float32 (len(rows), D): for samples and queries. Of many megabytes they lie on disk."""
    order = np.argsort(rows, kind="stable")
    back: np.ndarray | None = None
    for where, listed, start, stop in _chunks(vectors):
        low, high = np.searchsorted(rows[order], [start, stop])
        if low < high:
            found = _read(where, listed, rows[order][low:high] - start)
            back = empty_on_disk((len(rows), found.shape[1]), found.dtype.type) if back is None else back
            check_lengths((back.shape[1], found.shape[1]))
            back[order[low:high]] = found
    return _together([]) if back is None else back


_Where = tuple[str, schema.Table, str, Bridge | None]


def _chunks(vectors: Vectors, num_targets: int = 1) -> Iterator[tuple[_Where, list[delta.Part], int, int]]:
    """Groups parts into map tasks of about equal rows, from which each of so many targets gets a piece: (how they are read,
    parts, first row, end row)."""
    start, num_bytes = 0, min(max(_BYTES_PER_MAP, _PIECE_BYTES * num_targets), _MOST_PER_MAP)
    for parts, bridge in ((vectors.parts, None), (vectors.mapped, vectors.bridge)):
        rows, size = sum(part.rows for part in parts), sum(part.size for part in parts)
        for listed in delta.in_chunks(parts, max(_ROWS_PER_MAP, rows * num_bytes // max(1, size))):
            stop = start + sum(p.rows for p in listed)
            yield (vectors.store, vectors.table, vectors.column, bridge), listed, start, stop
            start = stop


def _read(where: _Where, parts: Sequence[delta.Part], rows: np.ndarray) -> np.ndarray:
    (store, table, column, bridge), found, start = where, [], 0
    sizes = np.array([part.rows for part in parts])
    wanted = np.diff(np.searchsorted(rows, np.concatenate([[0], np.cumsum(sizes)])))
    some = [part for part, num in zip(parts, wanted) if num]  # the others are not opened
    rows = rows - np.repeat(np.cumsum(np.where(wanted, 0, sizes)), wanted)
    for batch in delta.read_batches(store, table, [column], some, batch_rows=8192):
        low, high = np.searchsorted(rows, [start, start + batch.num_rows])
        if low < high:
            picked = batch.column(0).combine_chunks().take(pa.array(rows[low:high] - start))
            found.append(to_matrix(picked))
        start += batch.num_rows
    return bridge(_together(found)) if bridge else _together(found)


def _together(found: Sequence[np.ndarray]) -> np.ndarray:
    check_lengths(f.shape[1] for f in found)
    return np.concatenate(found)


def check_lengths(lengths: Iterable[int | None]) -> None:
    """Raises JobFailed unless there is exactly one vector length, and it is not 0."""
    if len(found := set(lengths)) != 1 or not all(found):
        raise JobFailed(
            f"vectors of one model must have one length, and there are some of {', '.join(sorted(map(str, found)))}: "
            f"these were not all written by w2w"
        )


def to_matrix(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """float32 (N, D) of a vector column, uint8 of a bytes column. Raises JobFailed if the lengths differ."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    is_bytes = pa.types.is_binary(column.type)
    lengths = pc.unique(pc.binary_length(column) if is_bytes else pc.list_value_length(column)).to_pylist()
    check_lengths(lengths)
    if is_bytes:
        return np.frombuffer(b"".join(column.to_pylist()), np.uint8).reshape(len(column), lengths[0])
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), lengths[0])


def _split(where: _Where, parts, row: np.ndarray, target: np.ndarray, position: np.ndarray, num_targets: int):
    unique, back = np.unique(row, return_inverse=True)
    vectors_ND = _read(where, parts, unique)
    by_target = [target == t for t in range(num_targets)]
    result = [(position[mine], vectors_ND[back[mine]]) for mine in by_target]
    return result if num_targets > 1 else result[0]


def _assemble(consume: Callable, arguments: tuple, num_rows: int, *pieces: tuple[np.ndarray, np.ndarray]):
    check_lengths(vectors_ND.shape[1] for _, vectors_ND in pieces if len(vectors_ND))
    result = np.empty((num_rows, pieces[0][1].shape[1]), pieces[0][1].dtype)
    for position, vectors_ND in pieces:
        if len(position):
            result[position] = vectors_ND
    return consume(*arguments, result)
