"""Digests and hash buckets: stable for ever, spread evenly."""

import numpy as np
import pyarrow as pa
import pytest

from w2w import ids


def test_hash_keys_never_change():
    # of FNV-1a and the finaliser as published; another value here would move every shard and bucket of every store
    assert ids.hash_keys(pa.array(["", "a", "w2w", "한국"])).tolist() == GOLDEN
    assert ids.digest({"b": 1, "a": [1, None]}, "x") == ids.digest({"a": [1, None], "b": 1}, "x")


def reference(text: str) -> int:
    """The same in plain Python integers."""
    mask = 2**64 - 1
    h = 0xCBF29CE484222325
    for byte in text.encode()[:128]:
        h = ((h ^ byte) * 0x100000001B3) & mask
    h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & mask
    h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & mask
    return h ^ (h >> 31)


GOLDEN = [reference(t) for t in ("", "a", "w2w", "한국")]


def test_hash_keys_reads_zero_bytes_and_long_keys():
    keys = ["a", "a\0", "a\0\0", "x" * 127, "x" * 128, "x" * 200]
    assert ids.hash_keys(pa.array(keys)).tolist() == [reference(k) for k in keys]
    assert ids.hash_keys(pa.chunked_array([keys[:2], keys[2:]])).tolist() == [reference(k) for k in keys]
    assert len(ids.hash_keys(pa.array([], pa.string()))) == 0


def test_many_keys_are_hashed_a_part_at_a_time(monkeypatch):
    keys = pa.array([f"key {i}" for i in range(10)])
    whole = ids.hash_keys(keys).tolist()
    monkeypatch.setattr(ids, "_HASHED_AT_ONCE", 3)
    assert ids.hash_keys(keys).tolist() == whole
    assert ids.hash_keys(pa.chunked_array([keys[:5], keys[5:]])).tolist() == whole


def test_buckets_are_even():
    counts = np.bincount(ids.hash_bucket(pa.array([f"product-{i}" for i in range(20_000)]), 16), minlength=16)
    assert counts.min() > 1100
    assert counts.max() < 1400


def test_digest_refuses_what_has_no_stable_form():
    with pytest.raises(TypeError, match="set has no stable digest"):
        ids.digest({1, 2})
