"""Candidates for near-duplicates among N pictures, in time that grows as N log N: by perceptual hash, and by vector.

They propose and never decide. Pairs are int64 (P, 2), rows i < j, sorted and each once.
"""

from itertools import combinations

import numpy as np

_HASH_BITS = 64
_WINDOW = 64  # neighbours that a row of a crowded bucket is compared with
_EXACT_ROWS = 3000  # up to here every pair is looked at
_LEAF_ROWS = 1024  # of a forest's leaf, inside which every pair is looked at
_QUERIES = 2048  # of them at once against one leaf: 32 MB
NUM_TREES = 5
NO_PAIRS = np.empty((0, 2), np.int64)


def unique_pairs(*found: np.ndarray) -> np.ndarray:
    """All of them, each once, i < j, sorted."""
    pairs = np.sort(np.concatenate([NO_PAIRS, *found]), axis=1)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    new = np.ones(len(pairs), bool)
    new[1:] = (pairs[1:] != pairs[:-1]).any(1)
    return pairs[new]


def clean_blocks(radius: int, num_rows: int) -> tuple[int, int]:
    """(blocks, clean): hashes that differ in at most ``radius`` bits agree in ``clean`` of so many blocks, whichever those are.
    The fewest blocks whose clean ones make at least half as many buckets as there are rows: 15 passes for a radius of 4 up to
    2M rows, and 35 up to 268M."""
    wanted = np.log2(max(2, num_rows)) - 1
    for clean in range(1, _HASH_BITS - radius):
        if clean * (_HASH_BITS // (radius + clean)) >= wanted:
            return radius + clean, clean
    return _HASH_BITS, _HASH_BITS - radius


def hash_pairs(hashes_N: np.ndarray, mirrored_N: np.ndarray, radius: int) -> tuple[np.ndarray, int]:
    """Pairs whose hashes (int64), or the hash of one and the mirrored hash of the other, differ in at most ``radius`` bits;
    and how many rows stood in a bucket with more than 64 others, of which only the 64 next by hash were looked at.

    ``radius`` errors leave that many blocks clean, so each combination of clean blocks is a key to sort by (block
    permutation: Manku, Jain, Sarma 2007, section 3): outside crowded buckets no pair is missed. 40 bytes a row.
    """
    n = len(hashes_N)
    if n < 2:
        return NO_PAIRS, 0
    pool = np.concatenate([hashes_N, mirrored_N]).view(np.uint64)
    by_hash = np.argsort(pool, kind="stable")  # once, so that every bucket comes in this order
    pool, row, is_mirror = pool[by_hash], by_hash % n, by_hash >= n
    blocks, clean = clean_blocks(radius, 2 * n)
    bounds = np.linspace(0, _HASH_BITS, blocks + 1).astype(int)
    found, crowded = [], np.zeros(n, bool)
    for chosen in combinations(range(blocks), clean):
        key = np.zeros(len(pool), np.uint64)
        for block in chosen:
            width = int(bounds[block + 1] - bounds[block])
            key = (key << np.uint64(width)) | ((pool >> np.uint64(bounds[block])) & np.uint64((1 << width) - 1))
        order = np.argsort(key, kind="stable")
        key = key[order]
        at = np.arange(len(order))
        for apart in range(1, _WINDOW + 2):
            at = at[at + apart < len(order)]
            at = at[key[at] == key[at + apart]]
            if apart > _WINDOW:
                crowded[row[order[at]]] = True
                break
            if not len(at):
                break
            a, b = order[at], order[at + apart]
            near = np.bitwise_count(pool[a] ^ pool[b]) <= radius
            a, b = a[near], b[near]
            kept = ~(is_mirror[a] & is_mirror[b]) & (row[a] != row[b])
            found.append(np.stack([row[a[kept]], row[b[kept]]], axis=1))
    return unique_pairs(*found), int(crowded.sum())


def near_pairs(
    looks_NWD: np.ndarray, most: float, num_nearest: int, group_N: np.ndarray | None = None, tree: int | None = None
) -> np.ndarray:
    """Pairs of which a vector of the one (any of its W) is at most ``most`` from the first vector of the other, and among its
    ``num_nearest`` nearest of those. ``group_N``: only pairs of two groups.

    ``tree`` None looks at all of them. Otherwise at those that fall into one leaf of tree number ``tree``: a random projection
    tree with balanced leaves of at most 1,024 (Dasgupta and Freund 2008), so its time is that of sorting and of all pairs in
    a leaf. Several trees find what one splits. Memory: 24 bytes an entry.
    """
    n, w, d = looks_NWD.shape
    entries = looks_NWD.reshape(n * w, d)
    leaves = [np.arange(n * w)] if tree is None else _leaves(entries, tree)
    found = []
    for leaf in leaves:
        whole = leaf[leaf % w == 0]
        targets = entries[whole].astype(np.float32)
        squares = (targets**2).sum(1)
        for start in range(0, len(leaf), _QUERIES):
            asking = leaf[start : start + _QUERIES]
            queries = entries[asking].astype(np.float32)
            distance = (queries**2).sum(1)[:, None] + squares - 2 * queries @ targets.T
            q, t = np.nonzero(distance <= max(most**2, 1e-4))
            a, b = asking[q] // w, whole[t] // w
            kept = a != b if group_N is None else group_N[a] != group_N[b]
            q, a, b, far = q[kept], a[kept], b[kept], distance[q[kept], t[kept]]
            order = np.lexsort((b, far, q))
            rank = np.arange(len(q)) - np.searchsorted(q[order], q[order])
            order = order[rank < num_nearest]
            found.append(np.stack([a[order], b[order]], axis=1))
    return unique_pairs(*found)


def trees_for(num_rows: int) -> list[int | None]:
    """The trees that find neighbours among so many rows; [None], all pairs, where they are few."""
    return [None] if num_rows <= _EXACT_ROWS else list(range(NUM_TREES))


def _leaves(entries: np.ndarray, tree: int) -> list[np.ndarray]:
    """Rows in leaves of nearly one size: halved at the median of a random direction until they are small. The directions of
    the levels are drawn from the tree's number."""
    levels = max(0, int(np.ceil(np.log2(len(entries) / _LEAF_ROWS))))
    directions = np.random.default_rng([20, tree]).normal(size=(entries.shape[1], levels)).astype(np.float32)
    order = np.arange(len(entries))
    for level in range(levels):
        along = np.concatenate(
            [entries[i : i + 65_536].astype(np.float32) @ directions[:, level] for i in range(0, len(entries), 65_536)]
        )
        bounds = _bounds(len(entries), level)
        node = np.repeat(np.arange(len(bounds) - 1, dtype=np.float64), np.diff(bounds))
        low, span = float(along.min()), float(np.ptp(along)) * 1.001 or 1.0
        order = order[np.argsort(node + (along[order] - low) / span, kind="stable")]
    bounds = _bounds(len(entries), levels)
    return [order[bounds[i] : bounds[i + 1]] for i in range(len(bounds) - 1)]


def _bounds(size: int, level: int) -> np.ndarray:
    return np.arange(2**level + 1) * size // 2**level
