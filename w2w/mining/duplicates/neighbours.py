"""Near-duplicate candidates among N pictures in O(N log N) time, by perceptual hash and by vector.

They propose and never decide. Pairs are int64 (P, 2), rows i < j, sorted and unique.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from w2w import ids

_HASH_BITS = 64
_WINDOW = 64  # neighbours compared with each row of a crowded bucket
_EXACT_ROWS = 3000  # up to here all pairs are compared
_LEAF_ROWS = 1024  # leaf size of a forest; all pairs in a leaf are compared
_QUERIES = 2048  # compared with one leaf at once: 32 MB
NUM_TREES = 5
NO_PAIRS = np.empty((0, 2), np.int64)


def unique_pairs(*found: np.ndarray) -> np.ndarray:
    """The distinct pairs, i < j, sorted."""
    pairs = np.sort(np.concatenate([NO_PAIRS, *found]), axis=1)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    new = np.ones(len(pairs), bool)
    new[1:] = (pairs[1:] != pairs[:-1]).any(1)
    return pairs[new]


def clean_blocks(radius: int, num_rows: int) -> tuple[int, int]:
    """(blocks, clean): hashes that differ in at most ``radius`` bits agree in ``clean`` of the blocks, whichever those are. The
    fewest blocks whose clean ones make at least half as many buckets as there are rows: 15 passes for a radius of 4 up to 2M
    rows, and 35 up to 268M."""
    wanted = np.log2(max(2, num_rows)) - 1
    for clean in range(1, _HASH_BITS - radius):
        if clean * (_HASH_BITS // (radius + clean)) >= wanted:
            return radius + clean, clean
    return _HASH_BITS, _HASH_BITS - radius


def hash_pairs(
    chunks: Sequence[tuple[np.ndarray, np.ndarray]], num_rows: int, radius: int, bucket: int = 0, num_buckets: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows whose hashes, or the hash of one and the mirrored hash of the other, differ in at most ``radius`` bits; and
    the rows in a bucket of more than 64 others, of which only the next 64 by hash were compared.

    ``chunks``: rows in parts, hash and mirrored hash int64 (C, 2) and the rows' numbers, int64 (C,), of ``num_rows``.
    ``radius`` errors leave that many blocks clean, so each combination of clean blocks is a sort key (block permutation: Manku,
    Jain, Sarma 2007, section 3): outside crowded buckets no pair is missed. ``num_buckets``: only that part of each
    combination's keys is processed; all buckets together find the same pairs. 100 bytes per entry of the bucket; a row has two.
    """
    blocks, clean = clean_blocks(radius, 2 * num_rows)
    bounds = np.linspace(0, _HASH_BITS, blocks + 1).astype(int).tolist()
    found, crowded = [], []
    for chosen in combinations(range(blocks), clean):
        bits = [(bounds[b], bounds[b + 1]) for b in chosen]
        parts = [_of_bucket(*chunk, num_rows, bits, bucket, num_buckets) for chunk in chunks]
        key, hashes, entry = (np.concatenate(column) for column in zip(*parts))
        order = np.lexsort((entry, hashes, key))
        key, hashes, row, is_mirror = key[order], hashes[order], entry[order] % num_rows, entry[order] >= num_rows
        at = np.arange(len(order))
        for apart in range(1, _WINDOW + 2):
            at = at[at + apart < len(order)]
            at = at[key[at] == key[at + apart]]
            if apart > _WINDOW:
                crowded.append(np.unique(row[at]))
                break
            if not len(at):
                break
            near = np.bitwise_count(hashes[at] ^ hashes[at + apart]) <= radius
            a, b = at[near], at[near] + apart
            kept = ~(is_mirror[a] & is_mirror[b]) & (row[a] != row[b])
            found.append(np.stack([row[a[kept]], row[b[kept]]], axis=1))
    return unique_pairs(*found), np.unique(np.concatenate([np.empty(0, np.int64), *crowded]))


def _of_bucket(
    hashes_C2: np.ndarray, rows_C: np.ndarray, num_rows: int, bits: Sequence[tuple[int, int]], bucket: int, num_buckets: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Key, hash and number of the entries in a bucket; a mirrored hash is entry ``num_rows`` + row."""
    hashes = hashes_C2.T.ravel().view(np.uint64)
    key = np.zeros(len(hashes), np.uint64)
    for start, stop in bits:
        key = (key << np.uint64(stop - start)) | ((hashes >> np.uint64(start)) & np.uint64((1 << (stop - start)) - 1))
    mine = np.flatnonzero(ids.scatter(key) % np.uint64(num_buckets) == bucket)
    return key[mine], hashes[mine], np.concatenate([rows_C, rows_C + num_rows])[mine]


@dataclass(frozen=True)
class Entries:
    """Some of the ``num_each`` vectors of each picture, (E, D), in ascending order of their numbers: vector i of picture n is
    number n x num_each + i."""

    vectors_ED: np.ndarray
    number_E: np.ndarray
    num_each: int


def entries_of(looks_NWD: np.ndarray) -> Entries:
    """All vectors of all pictures."""
    n, w, d = looks_NWD.shape
    return Entries(looks_NWD.reshape(n * w, d), np.arange(n * w), w)


def near_pairs(
    entries: Entries,
    most: float,
    num_nearest: int,
    group_N: np.ndarray | None = None,
    tree: int | None = None,
    depth: int = 0,
) -> np.ndarray:
    """Pairs of pictures in which any vector of one is within ``most`` of the first vector of the other, and among its
    ``num_nearest`` nearest. ``group_N``: only pairs across groups.

    ``tree`` None compares all pairs; otherwise those in one leaf of tree number ``tree``: a random projection tree with
    balanced leaves of at most 1,024 (Dasgupta and Freund 2008), so its time is that of sorting and of all pairs in a leaf.
    Several trees find pairs that one of them splits. ``depth``: the entries are a bucket that many levels down the tree
    (``bucket_of``). Memory: 24 bytes per entry.
    """
    vectors, w = entries.vectors_ED, entries.num_each
    leaves = [np.arange(len(vectors))] if tree is None else _leaves(vectors, tree, depth)
    found = []
    for leaf in leaves:
        whole = leaf[entries.number_E[leaf] % w == 0]
        targets = vectors[whole].astype(np.float32)
        squares = (targets**2).sum(1)
        for start in range(0, len(leaf), _QUERIES):
            asking = leaf[start : start + _QUERIES]
            queries = vectors[asking].astype(np.float32)
            distance = (queries**2).sum(1)[:, None] + squares - 2 * queries @ targets.T
            q, t = np.nonzero(distance <= max(most**2, 1e-4))
            a, b = entries.number_E[asking[q]] // w, entries.number_E[whole[t]] // w
            kept = a != b if group_N is None else group_N[a] != group_N[b]
            q, a, b, far = q[kept], a[kept], b[kept], distance[q[kept], t[kept]]
            order = np.lexsort((b, far, q))
            rank = np.arange(len(q)) - np.searchsorted(q[order], q[order])
            order = order[rank < num_nearest]
            found.append(np.stack([a[order], b[order]], axis=1))
    return unique_pairs(*found)


def trees_for(num_rows: int) -> list[int | None]:
    """The trees needed to find neighbours among this many rows; [None], all pairs, if they are few."""
    return [None] if num_rows <= _EXACT_ROWS else list(range(NUM_TREES))


def cuts_of(sample_SD: np.ndarray, tree: int, depth: int) -> np.ndarray:
    """The cuts of a tree's first ``depth`` levels, from a sample of the vectors: the medians along each level's direction, node
    by node and level by level, (2^depth - 1,)."""
    order, cuts = np.arange(len(sample_SD)), []
    for level in range(depth):
        along = _along(sample_SD, tree, level)
        nodes = np.array_split(order, 2**level)
        cuts += [np.median(along[node]) for node in nodes]
        order = np.concatenate([node[np.argsort(along[node], kind="stable")] for node in nodes])
    return np.array(cuts)


def bucket_of(vectors_ED: np.ndarray, tree: int, cuts_M: np.ndarray) -> np.ndarray:
    """The bucket below these cuts for each vector, int (E,), so that millions can be searched in parts."""
    node = np.zeros(len(vectors_ED), np.int64)
    for level in range(int(np.log2(len(cuts_M) + 1))):
        node = 2 * node + (_along(vectors_ED, tree, level) > cuts_M[2**level - 1 + node])
    return node


def _along(vectors_ED: np.ndarray, tree: int, level: int) -> np.ndarray:
    """Projection of each vector onto the random direction of a level, float64 (E,). Directions are multiples of 1/64, so that
    it is exact for float16 vectors and independent of the rest of the batch."""
    direction = np.round(np.random.default_rng([20, tree, level]).normal(size=vectors_ED.shape[1]) * 64) / 64
    starts = range(0, len(vectors_ED), 65_536)
    return np.concatenate([np.empty(0), *(vectors_ED[i : i + 65_536].astype(np.float64) @ direction for i in starts)])


def _leaves(entries: np.ndarray, tree: int, depth: int = 0) -> list[np.ndarray]:
    """Rows in leaves of nearly equal size: split at the median of a random direction until small enough."""
    levels = max(0, int(np.ceil(np.log2(max(1, len(entries)) / _LEAF_ROWS))))
    order = np.arange(len(entries))
    for level in range(levels):
        along = _along(entries, tree, depth + level)
        bounds = _bounds(len(entries), level)
        node = np.repeat(np.arange(len(bounds) - 1, dtype=np.float64), np.diff(bounds))
        low, span = float(along.min()), float(np.ptp(along)) * 1.001 or 1.0
        order = order[np.argsort(node + (along[order] - low) / span, kind="stable")]
    bounds = _bounds(len(entries), levels)
    return [order[bounds[i] : bounds[i + 1]] for i in range(len(bounds) - 1)]


def _bounds(size: int, level: int) -> np.ndarray:
    return np.arange(2**level + 1) * size // 2**level
