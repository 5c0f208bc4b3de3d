"""128-bit digests of rows and keys, and a set of them that stays small for tens of millions."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Digests = tuple[np.ndarray, np.ndarray]  # high and low 64 bits, uint64, each of shape (n,)


def digests(values: pa.Array) -> Digests:
    """The first 128 bits of each value's sha256: a feed's author could construct collisions of FNV, but not of this."""
    sha256 = hashlib.sha256
    raw = b"".join([sha256(v).digest()[:16] for v in values.cast(pa.binary()).to_pylist()])
    both_N2 = np.frombuffer(raw, dtype=">u8").astype(np.uint64).reshape(-1, 2)
    return both_N2[:, 0].copy(), both_N2[:, 1].copy()


def row_digests(columns: Sequence[pa.Array], beyond: Sequence[pa.Array] = ()) -> pa.Array:
    """32 hex digits per row: sha256 over the row's values as netstrings (``length:value,``; ``-`` for null), in column order.

    The lengths keep ("ab", "c") and ("a", "bc") apart. Maps are read entry by entry in their own order. Columns ``beyond``
    count only in rows in which one of them has a value: the others keep the digests from before there were such columns.
    """
    parts = [_netstrings(_map_text(c) if pa.types.is_map(c.type) else c.cast(pa.string())) for c in columns]
    text = pc.binary_join_element_wise(*parts, "")
    if any(c.null_count < len(c) for c in beyond):
        nothing = pa.scalar("-" * len(beyond))
        rest = pc.binary_join_element_wise(*(_netstrings(c.cast(pa.string())) for c in beyond), "")
        text = pc.binary_join_element_wise(text, pc.if_else(pc.equal(rest, nothing), "", rest), "")
    sha256 = hashlib.sha256
    return pa.array([sha256(v).hexdigest()[:32] for v in text.cast(pa.binary()).to_pylist()], pa.string())


def _netstrings(values: pa.Array) -> pa.Array:
    length = pc.binary_length(values).cast(pa.string())
    return pc.fill_null(pc.binary_join_element_wise(length, ":", values, ",", ""), "-")


def _map_text(values: pa.MapArray) -> pa.Array:
    flat = pc.binary_join_element_wise(_netstrings(values.keys), _netstrings(values.items), "")
    return pc.binary_join(pa.ListArray.from_arrays(values.offsets, flat), "")


def find(run: Digests, wanted: Digests) -> np.ndarray:
    """Position of each wanted digest in ``run`` (sorted by its high half), -1 if absent; int64, shape (n,)."""
    (run_high, run_low), (high, low) = run, wanted
    at = np.searchsorted(run_high, high)
    position = np.full(len(high), -1, np.int64)
    open_ = np.arange(len(high))
    while len(open_):  # a second pass only if two digests share their high half: once in 3 * 10^5 sets of 10M
        inside = at[open_] < len(run_high)
        open_ = open_[inside]
        open_ = open_[run_high[at[open_]] == high[open_]]
        same = run_low[at[open_]] == low[open_]
        position[open_[same]] = at[open_[same]]
        open_ = open_[~same]
        at[open_] += 1
    return position


def sort(values: Digests) -> tuple[Digests, np.ndarray]:
    """The digests sorted by their high half, and the order that sorts them."""
    order = np.argsort(values[0], kind="stable")
    return (values[0][order], values[1][order]), order


def last_of_each(keys: Iterable[pa.Array]) -> np.ndarray:
    """bool, shape (n,) over all arrays: True for the last of equal keys, and for nulls. 24 bytes per key while it is found."""
    found = [(digests(pc.fill_null(some, "")), some.is_null().to_numpy(zero_copy_only=False)) for some in keys]
    high, low = (np.concatenate([np.empty(0, np.uint64), *(halves[n] for halves, _ in found)]) for n in (0, 1))
    order = np.lexsort((low, high))
    ends = np.append((np.diff(high[order]) != 0) | (np.diff(low[order]) != 0), True)[: len(order)]
    last = np.concatenate([np.empty(0, bool), *(nulls for _, nulls in found)])
    last[order[ends]] = True
    return last


class SeenKeys:
    """Which keys came before. 16 bytes per key: 10M keys = 160 MB, twice that briefly while two runs merge.

    A key counts as seen if 128 bits of its sha256 match: by accident once in 3 * 10^24 feeds of 10M keys (n^2 / 2^129). Runs of
    doubling length keep both the look-up and the merging near log2(n) steps per key.
    """

    def __init__(self):
        self._runs: list[Digests] = []

    def add(self, keys: pa.Array) -> np.ndarray:
        """bool, shape (n,): True if the key is new, in this call and all before it."""
        new = digests(keys)
        run, order = sort(new)
        first = np.ones(len(keys), bool)
        if len(keys) > 1:
            position = find(run, new)
            earliest = np.full(len(keys), len(keys), np.int64)
            np.minimum.at(earliest, position, np.arange(len(keys)))
            first = earliest[position] == np.arange(len(keys))
        for old in self._runs:
            first &= find(old, new) < 0
        fresh = first[order]
        self._runs.append((run[0][fresh], run[1][fresh]))
        while len(self._runs) > 1 and len(self._runs[-2][0]) < 2 * len(self._runs[-1][0]):
            b, a = self._runs.pop(), self._runs.pop()
            self._runs.append(sort((np.concatenate([a[0], b[0]]), np.concatenate([a[1], b[1]])))[0])
        return first
