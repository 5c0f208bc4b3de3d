"""Candidates: within the radius none is missed, and none is beyond it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.images.samples import hamming
from w2w.mining.components import components, sizes
from w2w.mining.duplicates import neighbours
from w2w.mining.duplicates.neighbours import (
    Entries,
    bucket_of,
    clean_blocks,
    cuts_of,
    entries_of,
    hash_pairs,
    near_pairs,
    unique_pairs,
)


def by_hand(plain: np.ndarray, mirror: np.ndarray, radius: int) -> set[tuple[int, int]]:
    near = (hamming(plain[:, None], plain[None]) <= radius) | (hamming(plain[:, None], mirror[None]) <= radius)
    near |= near.T
    return {(i, j) for i, j in np.argwhere(near).tolist() if i < j}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 7), st.integers(2, 40))
def test_hash_pairs_are_exact(seed, radius, n):
    """Hashes a few bits off a few centres: all distances around the radius occur."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(-(2**63), 2**63 - 1, 3)
    flips = [np.bitwise_or.reduce(1 << rng.integers(0, 63, rng.integers(0, 9)), initial=0) for _ in range(2 * n)]
    hashes = centres[rng.integers(0, 3, 2 * n)] ^ np.array(flips, np.int64)
    rows = rng.permutation(n)
    both = np.stack([hashes[:n], hashes[n:]], axis=1)[rows]
    chunks = [(both[i : i + 15], rows[i : i + 15]) for i in range(0, n, 15)]
    for num_buckets in (1, 3):
        buckets = [hash_pairs(chunks, n, radius, bucket, num_buckets) for bucket in range(num_buckets)]
        pairs = unique_pairs(*(found for found, _ in buckets))
        assert set(map(tuple, pairs.tolist())) == by_hand(hashes[:n], hashes[n:], radius)
        assert not any(len(crowded) for _, crowded in buckets)


def test_crowded_buckets_are_counted_and_stay_connected():
    hashes = np.full(500, 77)
    pairs, crowded = hash_pairs([(np.stack([hashes, np.arange(500) << 40], axis=1), np.arange(500))], 500, 4)
    assert len(crowded) >= 400
    assert len(np.unique(components(500, *pairs.T))) == 1
    assert len(pairs) < 500 * 65


@pytest.mark.parametrize(("radius", "rows"), [(4, 20_000), (4, 2_000_000), (6, 20_000_000), (0, 10), (10, 10**7)])
def test_keys_are_wide_enough(radius, rows):
    blocks, clean = clean_blocks(radius, rows)
    assert blocks - clean == radius
    assert clean * (64 // blocks) >= np.log2(rows) - 1


def test_passes_do_not_grow_from_ten_thousand_to_a_million():
    assert clean_blocks(4, 2 * 10_000) == clean_blocks(4, 2 * 1_000_000) == (6, 2)


def planted(n: int, num_planted: int, off: float, w: int = 2) -> np.ndarray:
    rng = np.random.default_rng(5)
    looks = rng.normal(size=(n, w, 30)) * np.linspace(30, 2, 30)
    looks[num_planted : 2 * num_planted, 0] = looks[:num_planted, 1] + rng.normal(size=(num_planted, 30)) * off / np.sqrt(30)
    return looks.astype(np.float16)


def test_near_pairs_of_all_are_exact():
    looks = planted(200, 20, 3)
    pairs = near_pairs(entries_of(looks), 10, 8)
    whole = looks[:, 0].astype(np.float64)
    distance = np.min([np.linalg.norm(looks[:, None, w].astype(np.float64) - whole[None], axis=2) for w in (0, 1)], axis=0)
    expected = {(min(i, j), max(i, j)) for i, j in np.argwhere(distance <= 10).tolist() if i != j}
    assert set(map(tuple, pairs.tolist())) == expected
    assert {(i, i + 20) for i in range(20)} <= expected


def test_only_the_nearest_are_kept_and_only_of_other_groups():
    looks = np.arange(6, dtype=np.float16).reshape(6, 1, 1)
    assert near_pairs(entries_of(looks), 2.5, 1).tolist() == [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5]]
    assert len(near_pairs(entries_of(looks), 2.5, 9)) == 5 + 4
    group = np.array([0, 0, 0, 1, 1, 1])
    assert near_pairs(entries_of(looks), 2.5, 9, group).tolist() == [[1, 3], [2, 3], [2, 4]]


def test_nothing_farther_than_asked_is_near():
    """But for what float16 blurs: a hundredth."""
    looks = np.array([0, 0.005, 0.5, 2], np.float16).reshape(4, 1, 1)
    for most, near in ((0.0, [[0, 1]]), (0.4, [[0, 1]]), (0.5, [[0, 1], [0, 2], [1, 2]])):
        assert near_pairs(entries_of(looks), most, 9).tolist() == near


def test_trees_find_what_all_pairs_find(monkeypatch):
    monkeypatch.setattr(neighbours, "_LEAF_ROWS", 128)
    looks = planted(3000, 100, 3)
    wanted = set(map(tuple, near_pairs(entries_of(looks), 10, 8).tolist()))
    trees = [set(map(tuple, near_pairs(entries_of(looks), 10, 8, None, t).tolist())) for t in range(neighbours.NUM_TREES)]
    assert {(i, i + 100) for i in range(100)} <= wanted
    assert all(tree <= wanted for tree in trees)
    assert len(set.union(*trees)) >= 0.97 * len(wanted)
    assert trees[0] != trees[1]


def test_leaves_hold_every_row_once(monkeypatch):
    monkeypatch.setattr(neighbours, "_LEAF_ROWS", 10)
    leaves = neighbours._leaves(np.random.default_rng(0).normal(size=(777, 3)).astype(np.float16), 0)
    assert sorted(np.concatenate(leaves).tolist()) == list(range(777))
    assert max(map(len, leaves)) <= 10
    assert max(map(len, leaves)) - min(map(len, leaves)) <= 1


def in_buckets(looks: np.ndarray, tree: int, cuts: np.ndarray, depth: int) -> set[tuple[int, int]]:
    every = entries_of(looks)
    bucket, found = bucket_of(every.vectors_ED, tree, cuts), set()
    for b in range(2**depth):
        mine = np.flatnonzero(bucket == b)
        part = Entries(every.vectors_ED[mine], every.number_E[mine], every.num_each)
        found |= set(map(tuple, near_pairs(part, 10, 8, None, tree, depth).tolist()))
    return found


def test_buckets_find_what_the_whole_tree_finds(monkeypatch):
    monkeypatch.setattr(neighbours, "_LEAF_ROWS", 128)
    looks, depth = planted(4096, 100, 3), 2
    for tree in range(2):
        every = entries_of(looks).vectors_ED
        cuts = cuts_of(every, tree, depth)
        sizes = np.bincount(bucket_of(every, tree, cuts), minlength=2**depth)
        assert sizes.sum() == len(every)
        assert sizes.max() - sizes.min() <= 4  # medians of all of them, but for those that tie
        whole = set(map(tuple, near_pairs(entries_of(looks), 10, 8, None, tree).tolist()))
        found = in_buckets(looks, tree, cuts, depth)
        assert len(found & whole) >= 0.98 * len(found | whole)
        # cuts by a sample are nearly as good
        sampled = cuts_of(every[::8], tree, depth)
        assert np.bincount(bucket_of(every, tree, sampled)).max() < 1.2 * len(every) / 2**depth
        assert len(in_buckets(looks, tree, sampled, depth)) >= 0.95 * len(whole)


def test_a_vector_falls_into_one_bucket_whatever_stands_beside_it():
    vectors = planted(500, 0, 0).reshape(-1, 30)
    cuts = cuts_of(vectors[::3], 1, 3)
    order = np.random.default_rng(0).permutation(len(vectors))
    assert (bucket_of(vectors[order], 1, cuts) == bucket_of(vectors, 1, cuts)[order]).all()
    alone = np.concatenate([bucket_of(v[None], 1, cuts) for v in vectors])
    assert (alone == bucket_of(vectors, 1, cuts)).all()
    assert bucket_of(vectors[:0], 1, cuts).shape == (0,)
    assert (bucket_of(vectors, 1, np.empty(0)) == 0).all()


def test_unique_pairs():
    assert unique_pairs(np.array([[2, 1], [1, 1]]), np.array([[1, 2], [0, 2]])).tolist() == [[0, 2], [1, 2]]
    assert unique_pairs().shape == (0, 2)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=60))
def test_components(n, edges):
    edges = [(a % n, b % n) for a, b in edges]
    label = list(range(n))
    for _ in range(n):
        for a, b in edges:
            label[a] = label[b] = min(label[a], label[b])
    found = components(n, *(np.array([e[i] for e in edges], np.int64) for i in (0, 1)))
    assert found.tolist() == label
    assert sizes(found).tolist() == [label.count(x) for x in label]


def test_components_of_a_long_chain():
    order = np.random.default_rng(0).permutation(20_000)
    assert (components(20_000, order[1:], order[:-1]) == 0).all()
