"""Identity by content: ids, digests and stable hash buckets."""

import dataclasses
import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w.memory import on_disk

_FNV_OFFSET = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x100000001B3)
_OTHER_PRIME = np.uint64(0x9E3779B97F4A7C15)  # splitmix64's: for a second hash independent of the first
_BYTES_AT_ONCE = 128  # of a key
_KEYS_AT_ONCE = 16_384  # each takes 300 bytes while it is hashed


def image_id(data: bytes) -> str:
    """sha256 of the encoded file, 64 hex digits: identical bytes are one image, whatever their source."""
    return hashlib.sha256(data).hexdigest()


def digest(*parts: object, length: int = 16) -> str:
    """Hex digest of plain values and dataclasses, the same in every process and on every machine.

    ``length`` is in hex digits; 16 (64 bits) is for versions, of which a store has thousands.
    """

    def plain(value: object) -> object:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.asdict(value)
        raise TypeError(f"{type(value).__name__} has no stable digest")

    text = json.dumps(parts, sort_keys=True, default=plain, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def numbered(key: str, seen: Counter[str]) -> str:
    """The key, or key#2, key#3 ... if it was given before; ``seen`` counts them."""
    seen[key] += 1
    return key if seen[key] == 1 else f"{key}#{seen[key]}"


def joined(
    columns: Sequence[pa.Array | pa.ChunkedArray], between: str, escape: str, null_counts: bool = False
) -> pa.Array | pa.ChunkedArray:
    """Joins the columns' values with ``between``, null if any is null. The text is unique: inside values, ``between`` and
    ``escape`` (one character each) are escaped. Undone by ``parted``. With ``null_counts`` a null is a value of its own,
    other than any text."""
    safe = [pc.replace_substring(pc.replace_substring(c, escape, escape * 2), between, escape + between) for c in columns]
    if null_counts:
        safe = [pc.fill_null(c, f"{escape}0") for c in safe]  # as no value is escaped
    return pc.binary_join_element_wise(*safe, between)


def parted(text: str, between: str, escape: str) -> list[str]:
    """Splits what ``joined`` joined."""
    parts, at = [""], 0
    while at < len(text):
        if text[at] == between:
            parts.append("")
        else:
            at += text[at] == escape
            parts[-1] += text[at : at + 1]
        at += 1
    return parts


def digest_rows(rows: Iterable[object]) -> str:
    """Digest of any number of plain values, in order; values are not kept."""
    found = hashlib.sha256()
    for row in rows:
        found.update(json.dumps(row, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    return found.hexdigest()


def hash_keys(keys: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """FNV-1a (64 bit) of each key's UTF-8 bytes, then mixed: uint64, shape (n,). Never changes between versions.

    Source: Fowler, Noll, Vo (draft-eastlake-fnv, section 2); finaliser of splitmix64 (Steele, Lea, Flood 2014, figure 15).
    """
    return _hashed(keys, [_FNV_PRIME])[:, 0]


def hash_keys_128(keys: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Two such hashes with different primes, uint64 (n, 2): among ten million keys a collision of both has a probability below
    1 in 10^24, so the pair can stand for the key itself."""
    return _hashed(keys, [_FNV_PRIME, _OTHER_PRIME])


def scatter(numbers_N: np.ndarray) -> np.ndarray:
    """The finaliser alone: a bijection on uint64 that spreads neighbouring numbers."""
    with np.errstate(over="ignore"):
        h = (numbers_N ^ (numbers_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


def _hashed(keys: pa.Array | pa.ChunkedArray, primes: list[np.uint64]) -> np.ndarray:
    chunks = keys.chunks if isinstance(keys, pa.ChunkedArray) else [keys]
    found, at = np.empty((len(keys), len(primes)), np.uint64), 0
    for part in (c.slice(i, _KEYS_AT_ONCE) for c in chunks for i in range(0, len(c), _KEYS_AT_ONCE)):
        found[at : at + len(part)] = _hashed_part(part, primes)
        at += len(part)
    return found


def _hashed_part(keys: pa.Array, primes: list[np.uint64]) -> np.ndarray:
    data, at, start = keys.cast(pa.binary()), np.arange(len(keys)), 0
    h_NP = np.full((len(keys), len(primes)), _FNV_OFFSET, np.uint64)
    while len(at):
        raw = pc.binary_slice(data, start, start + _BYTES_AT_ONCE)
        lengths = pc.binary_length(raw).to_numpy(zero_copy_only=False).astype(np.int64)
        text_NL = np.asarray(raw.to_numpy(zero_copy_only=False), dtype=f"S{max(1, int(lengths.max()))}")
        bytes_NL = text_NL.view(np.uint8).reshape(len(at), -1)
        bytes_LN = np.ascontiguousarray(bytes_NL.T)
        shortest = int(lengths.min())
        for p, prime in enumerate(primes):
            h = h_NP[at, p]
            with np.errstate(over="ignore"):
                for i, byte in enumerate(bytes_LN):
                    if i < shortest:  # the same work in place, without a choice for each key
                        h ^= byte
                        h *= prime
                    else:
                        h = np.where(i < lengths, (h ^ byte) * prime, h)
            h_NP[at, p] = h
        start += _BYTES_AT_ONCE
        longer = pc.greater(pc.binary_length(data), start)
        at, data = at[longer.to_numpy(zero_copy_only=False)], data.filter(longer)
    return scatter(h_NP)


class Places:
    """Position of each of N keys, without the keys: 24 bytes per key, on disk if there are many. ``order`` (N,): the positions
    in order of the hashes ``hashes_2N``, which depends only on the keys, not on how they are stored."""

    def __init__(self, hashes_N2: np.ndarray):
        """``hashes_N2``: ``hash_keys_128`` of the keys."""
        order = np.argsort(hashes_N2[:, 0])  # a quarter of the time that both halves take
        first = hashes_N2[order, 0]
        if (first[1:] == first[:-1]).any():
            order = np.lexsort((hashes_N2[:, 1], hashes_N2[:, 0]))
        self.order = on_disk(order)
        self.hashes_2N = on_disk(np.stack([hashes_N2[self.order, i] for i in (0, 1)]))

    @staticmethod
    def of(order: np.ndarray, hashes_2N: np.ndarray) -> "Places":
        """As they were stored."""
        places = Places.__new__(Places)
        places.order, places.hashes_2N = order, hashes_2N
        return places

    def __len__(self) -> int:
        return len(self.order)

    def rank(self, asked_Q2: np.ndarray) -> np.ndarray:
        """Index into ``order`` of each key, given its hash (``hash_keys_128``), int64 (Q,); -1 if absent."""
        order = np.argsort(asked_Q2[:, 0])  # in order, they are found in a third of the time
        at = np.empty(len(asked_Q2), np.int64)
        at[order] = np.searchsorted(self.hashes_2N[0], asked_Q2[order, 0])
        found, left = np.full(len(asked_Q2), -1), np.arange(len(asked_Q2))
        while len(left):  # repeats only for keys that share the first half of their hash
            left = left[at[left] < len(self)]
            equal = asked_Q2[left] == self.hashes_2N[:, at[left]].T
            hit = equal.all(1)
            found[left[hit]] = at[left[hit]]
            left = left[equal[:, 0] & ~hit]
            at[left] += 1
        return found

    def find(self, asked_Q2: np.ndarray) -> np.ndarray:
        """Position of each key, int64 (Q,); -1 if absent."""
        found = self.rank(asked_Q2)
        found[found >= 0] = self.order[found[found >= 0]]
        return found


@dataclasses.dataclass(frozen=True)
class Sharing:
    """Finds those of N rows that have a key, which several may share: ``order``, int32, by the first half of its hash,
    ``first``."""

    order: np.ndarray
    first: np.ndarray

    @staticmethod
    def of(hashes_N2: np.ndarray) -> "Sharing":
        """``hashes_N2``: ``hash_keys_128`` of the keys, zeros of rows that have none."""
        there = np.flatnonzero(hashes_N2.any(axis=1))
        order = there[np.argsort(hashes_N2[there, 0], kind="stable")].astype(np.int32)
        return Sharing(order, hashes_N2[order, 0])

    def find(self, wanted_Q2: np.ndarray) -> np.ndarray:
        """Rows that have any of these keys, each once, and hardly others."""
        wanted = np.unique(wanted_Q2[wanted_Q2.any(axis=1), 0])
        low, high = (np.searchsorted(self.first, wanted, side) for side in ("left", "right"))
        counts = high - low
        return self.order[np.repeat(low - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())]


def hash_bucket(keys: pa.Array | pa.ChunkedArray, num_buckets: int) -> np.ndarray:
    """Bucket of each key, int64 in [0, num_buckets), shape (n,)."""
    return (hash_keys(keys) % np.uint64(num_buckets)).astype(np.int64)


def point_id(product_id: str) -> str:
    """Qdrant's ids are numbers or UUIDs: that of the product_id, by RFC 9562 version 5 in the namespace of OIDs."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, product_id))
