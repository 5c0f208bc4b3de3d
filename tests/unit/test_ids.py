"""Digests and hash buckets: stable for ever, spread evenly."""

import itertools

import numpy as np
import pyarrow as pa
import pytest

from w2w import ids


def test_hash_keys_never_change():
    # of FNV-1a and the finaliser as published; another value here would move every shard and bucket of every store
    assert ids.hash_keys(pa.array(["", "a", "w2w", "한국"])).tolist() == GOLDEN
    assert ids.digest({"b": 1, "a": [1, None]}, "x") == ids.digest({"a": [1, None], "b": 1}, "x")


def reference(text: str, prime: int = 0x100000001B3) -> int:
    """The same in plain Python integers."""
    mask = 2**64 - 1
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = ((h ^ byte) * prime) & mask
    h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & mask
    h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & mask
    return h ^ (h >> 31)


GOLDEN = [reference(t) for t in ("", "a", "w2w", "한국")]


def test_hash_keys_reads_zero_bytes_and_long_keys():
    keys = ["a", "a\0", "a\0\0", "x" * 127, "x" * 128, "x" * 129, "x" * 300, "y"]
    assert ids.hash_keys(pa.array(keys)).tolist() == [reference(k) for k in keys]
    assert ids.hash_keys(pa.chunked_array([keys[:2], keys[2:]])).tolist() == [reference(k) for k in keys]
    assert len(ids.hash_keys(pa.array([], pa.string()))) == 0


def test_many_keys_are_hashed_a_part_at_a_time(monkeypatch):
    keys = pa.array([f"key {i}" for i in range(10)])
    whole = ids.hash_keys(keys).tolist()
    monkeypatch.setattr(ids, "_KEYS_AT_ONCE", 3)
    assert ids.hash_keys(keys).tolist() == whole
    assert ids.hash_keys(pa.chunked_array([keys[:5], keys[5:]])).tolist() == whole


def test_two_hashes_stand_for_a_key():
    keys = ["a", "b", "x" * 300]
    assert ids.hash_keys_128(pa.array(keys)).tolist() == [[reference(k), reference(k, 0x9E3779B97F4A7C15)] for k in keys]
    assert ids.hash_keys_128(pa.array([], pa.string())).shape == (0, 2)


def test_places_of_keys():
    keys = pa.array([f"key {i}" for i in range(100)])
    places = ids.Places(ids.hash_keys_128(keys))
    asked = pa.array(["key 7", "nobody", "key 99", "key 0", "key 7"])
    assert places.find(ids.hash_keys_128(asked)).tolist() == [7, -1, 99, 0, 7]
    turned = ids.Places(ids.hash_keys_128(keys.take(pa.array(range(99, -1, -1)))))
    assert (99 - turned.order).tolist() == places.order.tolist()  # the order is that of the keys
    assert ids.Places(np.empty((0, 2), np.uint64)).find(ids.hash_keys_128(asked)).tolist() == [-1] * 5


def test_places_of_keys_that_share_half_a_hash():
    hashes = np.array([[5, 3], [5, 1], [9, 9], [5, 2], [5, 1]], np.uint64)
    asked = np.array([[5, 2], [5, 1], [5, 4], [9, 9], [10, 1], [5, 3]], np.uint64)
    assert ids.Places(hashes).find(asked).tolist() == [3, 1, -1, 2, -1, 0]  # of a key that is there twice, the first


def test_buckets_are_even():
    counts = np.bincount(ids.hash_bucket(pa.array([f"product-{i}" for i in range(20_000)]), 16), minlength=16)
    assert counts.min() > 1100
    assert counts.max() < 1400


def test_digest_refuses_what_has_no_stable_form():
    with pytest.raises(TypeError, match="set has no stable digest"):
        ids.digest({1, 2})


@pytest.mark.parametrize(("between", "escape"), [("|", "\\"), ("\0", "\1"), ("a", "b")])
def test_joined_values_are_told_apart_and_come_back(between, escape):
    parts = ["", between, escape, escape + between, between + escape, "x", f"x{between}", f"{escape}x", "한"]
    pairs = list(itertools.product(parts, parts))
    texts = ids.joined([pa.array(column) for column in zip(*pairs)], between, escape).to_pylist()
    assert len(set(texts)) == len(pairs)
    assert [tuple(ids.parted(text, between, escape)) for text in texts] == pairs


def test_joined_with_nulls_that_count_is_unique():
    values = [None, "", "|", "\\", "0", "\\0", "|0", "|\\0"]
    pairs = list(itertools.product(values, values))
    texts = ids.joined([pa.array(column) for column in zip(*pairs)], "|", "\\", null_counts=True).to_pylist()
    assert None not in texts
    assert len(set(texts)) == len(pairs)


def test_joined_is_null_where_a_value_is():
    columns = [pa.chunked_array([["a", None], ["c"]]), pa.chunked_array([["x"], ["y", None]])]
    assert ids.joined(columns, "|", "\\").to_pylist() == ["a|x", None, None]
    assert ids.joined([pa.array(["a|b"])], "|", "\\").to_pylist() == ["a\\|b"]
