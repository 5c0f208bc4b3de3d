"""Identity by content: ids, digests and stable hash buckets."""

import dataclasses
import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_FNV_OFFSET = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x100000001B3)
_HASHED_BYTES = 128  # image ids are shorter; longer keys share a bucket more often
_HASHED_AT_ONCE = 65_536  # keys: each takes 300 bytes while it is hashed


def image_id(data: bytes) -> str:
    """sha256 of the encoded file, 64 hex digits: the same bytes are the same image wherever they came from."""
    return hashlib.sha256(data).hexdigest()


def digest(*parts: object, length: int = 16) -> str:
    """Hex digest of plain values and dataclasses, the same in every process and on every machine.

    ``length`` is in hex digits; 16 (64 bits) names versions, of which a store has thousands.
    """

    def plain(value: object) -> object:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.asdict(value)
        raise TypeError(f"{type(value).__name__} has no stable digest")

    text = json.dumps(parts, sort_keys=True, default=plain, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def hash_keys(keys: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """FNV-1a (64 bit) of each key's first 128 UTF-8 bytes, then mixed: uint64, shape (n,). Stable for ever.

    Source: Fowler, Noll, Vo (draft-eastlake-fnv, section 2); finaliser of splitmix64 (Steele, Lea, Flood 2014, figure 15).
    """
    if isinstance(keys, pa.ChunkedArray) or len(keys) > _HASHED_AT_ONCE:
        chunks = keys.chunks if isinstance(keys, pa.ChunkedArray) else [keys]
        parts = [c.slice(i, _HASHED_AT_ONCE) for c in chunks for i in range(0, len(c), _HASHED_AT_ONCE)]
        return np.concatenate([np.empty(0, np.uint64), *map(hash_keys, parts)])
    if len(keys) == 0:
        return np.empty(0, np.uint64)
    raw = pc.binary_slice(keys.cast(pa.binary()), 0, _HASHED_BYTES)
    lengths = pc.binary_length(raw).to_numpy(zero_copy_only=False).astype(np.int64)
    text_NL = np.asarray(raw.to_numpy(zero_copy_only=False), dtype=f"S{max(1, int(lengths.max()))}")
    bytes_NL = text_NL.view(np.uint8).reshape(len(keys), -1)
    h = np.full(len(keys), _FNV_OFFSET, np.uint64)
    with np.errstate(over="ignore"):
        for i in range(bytes_NL.shape[1]):
            h = np.where(i < lengths, (h ^ bytes_NL[:, i]) * _FNV_PRIME, h)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


def hash_bucket(keys: pa.Array | pa.ChunkedArray, num_buckets: int) -> np.ndarray:
    """Bucket of each key, int64 in [0, num_buckets), shape (n,)."""
    return (hash_keys(keys) % np.uint64(num_buckets)).astype(np.int64)
