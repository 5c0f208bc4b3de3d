"""Digests tell apart what differs, and the set of seen keys agrees with a plain set."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from w2w.ingest import digests


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.text(max_size=3), max_size=12), max_size=8))
def test_seen_keys_agree_with_a_set(batches):
    seen, plain = digests.SeenKeys(), set()
    for keys in batches:
        expected = []
        for key in keys:
            expected.append(key not in plain)
            plain.add(key)
        assert seen.add(pa.array(keys, pa.string())).tolist() == expected


def test_seen_keys_take_16_bytes_each():
    seen = digests.SeenKeys()
    for start in range(0, 100_000, 10_000):
        assert seen.add(pa.array([str(i) for i in range(start, start + 10_000)])).all()
    assert not seen.add(pa.array([str(i) for i in range(0, 100_000, 7)])).any()
    assert sum(high.nbytes + low.nbytes for high, low in seen._runs) == 16 * 100_000
    assert len(seen._runs) <= 5


def test_long_keys_differ_in_their_last_character():
    assert digests.SeenKeys().add(pa.array(["x" * 500 + c for c in "abca"])).tolist() == [True, True, True, False]


def test_find_where_high_halves_collide():
    run = (np.array([1, 5, 5, 5, 9], np.uint64), np.array([10, 20, 30, 40, 50], np.uint64))
    wanted = (np.array([5, 5, 5, 9, 9, 0, 10], np.uint64), np.array([40, 20, 99, 50, 51, 0, 0], np.uint64))
    assert digests.find(run, wanted).tolist() == [3, 1, -1, 4, -1, -1, -1]
    none = (np.empty(0, np.uint64), np.empty(0, np.uint64))
    assert digests.find(none, wanted).tolist() == [-1] * 7


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.one_of(st.none(), st.sampled_from(["", "-", "a", "1:a,", "a,", "b"]))] * 3), min_size=1, max_size=30
    )
)
def test_row_digests_are_equal_only_for_equal_rows(rows):
    columns = [pa.array(c, pa.string()) for c in zip(*rows)]
    found = digests.row_digests(columns).to_pylist()
    assert len(set(found)) == len(set(rows))
    assert dict(zip(rows, found)) == {row: found[i] for i, row in enumerate(rows)}


def test_row_digests_of_a_sliced_map():
    maps = pa.array([[("a", "1")], [("b", "2"), ("c", "3")], []], pa.map_(pa.string(), pa.string()))
    whole = digests.row_digests([maps]).to_pylist()
    assert digests.row_digests([maps.slice(1)]).to_pylist() == whole[1:]
    assert len(set(whole)) == 3
