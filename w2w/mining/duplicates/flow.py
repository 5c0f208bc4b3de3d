"""Near-duplicates on Ray: fingerprints of new images, candidates among all images, confirmation of the candidates.

Fingerprints are read once into arrays in the object store (1,096 bytes per image; it spills to disk). Both searches distribute
their entries over buckets of about ``_ENTRIES_PER_BUCKET``, one task each: the hash search all at once, the look search one
tree after the other. Candidates are confirmed in tasks of ``_PAIRS_PER_TASK`` pairs, to which the grids travel. So a worker's
memory is bounded; the driver holds 50 bytes per image, 16 per candidate, and the ids of images with duplicates.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.engine.job import Run
from w2w.engine.run import run_stages
from w2w.engine.shuffle import Vectors, gather, list_column
from w2w.engine.source import Source, pending_rows
from w2w.engine.tasks import Ref, collect, put, submit
from w2w.images.decode import DecodeLimits
from w2w.mining.duplicates.fingerprints import FINGERPRINT_GIVES, NUM_WINDOWS, fingerprint_version, grids_of, to_fingerprints
from w2w.mining.duplicates.likeness import SIDE
from w2w.mining.duplicates.neighbours import (
    Entries,
    bucket_of,
    cuts_of,
    entries_of,
    hash_pairs,
    near_pairs,
    trees_for,
    unique_pairs,
)
from w2w.mining.duplicates.rules import (
    NO_PAIR,
    Confirmed,
    LikenessRules,
    Marks,
    all_confirmed,
    confirm,
    duplicate_rows,
    joined,
    look_alike,
    marks_of,
)
from w2w.stage import Counts, Pool, Stage
from w2w.table import delta
from w2w.table.parts import Output
from w2w.table.pending import rejected_keys, table_keys

STAGE = "fingerprint"  # the stage of its rejects, whichever job runs it
_ROWS_PER_MAP = 50_000
_ENTRIES_PER_BUCKET = 500_000  # 54 MB of them, and as much again during the search
_GRIDS = 2048  # per batch of looks: 100 MB
_LOOKS_AT_ONCE = 65_536  # pairs by hash whose looks are compared at once: 40 MB
_SAMPLED = 4096  # images whose looks determine the cuts between buckets
_PAIRS_PER_TASK = 8_000  # at most 49 MB of grids
_PAIRS_AT_ONCE = 1_000  # registered at once: 40 MB


def fingerprints_due(store: str, limits: DecodeLimits, item_rows: int, full_scan: bool = False) -> Source:
    """The images that have no fingerprint and were not rejected."""
    version = fingerprint_version(limits)
    done = [
        table_keys(store, schema.FINGERPRINTS, schema.IMAGE_ID, stage_version=version),
        rejected_keys(store, STAGE, version),
    ]
    columns = [schema.IMAGE_ID, schema.BYTES, schema.SOURCE_URI]
    return pending_rows(store, schema.IMAGES, columns, done, schema.SOURCE_URI, item_rows, full_scan=full_scan)


def make_fingerprints(run: Run, due: Source, limits: DecodeLimits, pool: Pool) -> Counts:
    """Fingerprints the images that are due, committing as they arrive."""
    version = fingerprint_version(limits)
    lineage = run.lineage(version, [schema.IMAGES], STAGE)
    arguments = {"limits": limits, "stage_version": version}
    counts, _ = run_stages(
        run.store,
        due,
        [Stage(STAGE, to_fingerprints, (schema.BYTES,), FINGERPRINT_GIVES, arguments)],
        [Output(schema.FINGERPRINTS)],
        lineage,
        pool=pool,
        tolerance=run.config.tolerance,
        commit_every_s=run.config.commit_every_s,
    )
    return counts


@dataclass(frozen=True)
class Found:
    """Duplicates among images. Only images with duplicates are listed: ``images``, in order of their ids and then the foreign
    ones, are rows ``rank_M`` of the searched images; pairs of ``confirmed`` index into them."""

    images: pa.Array
    rank_M: np.ndarray
    confirmed: Confirmed
    num_candidates: int
    num_crowded: int  # images with so many near-identical hashes that not all were compared


def list_fingerprints(store: str, limits: DecodeLimits) -> Vectors:
    return list_column(store, schema.FINGERPRINTS, schema.GRID, fingerprint_version(limits))


def find_duplicates(
    fingerprints: Vectors,
    rules: LikenessRules,
    embeddings: Vectors | None = None,
    min_cosine: float = 1.0,
    group_N: np.ndarray | None = None,
    foreign: pa.Table | None = None,
) -> Found:
    """Pairs of images that are the same picture.

    Rows are numbered in order of the images' hashes (``fingerprints.places``). ``embeddings``: neighbours of at least that
    cosine are candidates too. ``group_N``: only pairs across groups (an int per row; negative: the image is excluded).
    ``foreign``: fingerprints that are in no table, a group of their own, numbered after those.
    """
    n = len(fingerprints.places)
    marks, sizes = _marks(fingerprints)
    if foreign is not None:
        marks.append(put(marks_of(foreign)))
        sizes.append(foreign.num_rows)
        own_N = np.zeros(n, int) if group_N is None else group_N
        group_N = np.concatenate([own_N, np.full(foreign.num_rows, own_N.max(initial=0) + 1)])
    kept = np.arange(sum(sizes)) if group_N is None else np.flatnonzero(group_N >= 0)
    candidates, crowded = [], 0
    if len(kept) > 1:
        order = np.concatenate([fingerprints.places.order, np.arange(n, sum(sizes))])[kept]
        at = np.full(sum(sizes), -1)
        at[order] = np.arange(len(order))
        places = [put(part) for part in np.split(at, np.cumsum(sizes)[:-1])]
        groups = put(None if group_N is None else group_N[kept])
        hashes = _hash_tasks(marks, places, order, groups, rules)  # they run in parallel with the trees
        looks = _look_pairs(marks, places, len(order), groups, rules)
        by_hash, in_crowds = zip(*collect(hashes, "hashes"))
        candidates = [kept[pairs] for pairs in (*by_hash, *looks)]
        crowded = len(np.unique(np.concatenate(in_crowds)))
    if embeddings is not None:
        candidates += _embedding_pairs(fingerprints, embeddings, min_cosine, rules.num_nearest)
    pairs = unique_pairs(*candidates)
    confirmed = _confirm(fingerprints, pairs, rules, foreign)
    return Found(*_named(fingerprints, confirmed, foreign), len(pairs), crowded)


def snapshot_rows(fingerprints: Vectors, found: Found) -> Iterator[pa.Table]:
    """Rows of table `duplicates`: the images with duplicates, then the others in stored order."""
    yield duplicate_rows(found.images, found.confirmed)
    taken, start = np.sort(fingerprints.places.order[found.rank_M]), 0
    for names in fingerprints.names():
        low, high = np.searchsorted(taken, [start, start + len(names)])
        alone = np.delete(np.arange(len(names)), taken[low:high] - start)
        yield duplicate_rows(names.take(pa.array(alone)).combine_chunks(), NO_PAIR)
        start += len(names)


def _named(fingerprints: Vectors, confirmed: Confirmed, foreign: pa.Table | None) -> tuple[pa.Array, np.ndarray, Confirmed]:
    members = np.unique(confirmed.pairs)
    own = members[: np.searchsorted(members, len(fingerprints.places))]
    names = fingerprints.read_names(fingerprints.places.order[own])
    by_name = pc.sort_indices(names)
    rank_M, images = np.concatenate([own[by_name.to_numpy()], members[len(own) :]]), [names.take(by_name)]
    if foreign is not None:
        beyond = pa.array(members[len(own) :] - len(fingerprints.places))
        images.append(foreign.column(schema.SOURCE_URI).combine_chunks().take(beyond))
    by_rank = np.argsort(rank_M)
    pairs = np.sort(by_rank[np.searchsorted(members, confirmed.pairs)], axis=1)
    return pa.concat_arrays(images), rank_M, replace(confirmed, pairs=pairs)


def _marks(fingerprints: Vectors) -> tuple[list, list[int]]:
    """References to the marks of all fingerprints, in table order, and the number in each."""
    chunks = delta.in_chunks(fingerprints.parts, _ROWS_PER_MAP)
    return [submit(_read_marks, fingerprints.store, chunk) for chunk in chunks], [sum(p.rows for p in c) for c in chunks]


def _read_marks(store: str, parts: Sequence[delta.Part]) -> Marks:
    columns = [schema.PHASH, schema.PHASH_MIRRORED, schema.GRID]
    return joined([marks_of(b) for b in delta.read_batches(store, schema.FINGERPRINTS, columns, parts, _GRIDS)])


def _hash_tasks(marks: list, places: list, order: np.ndarray, groups: Ref, rules: LikenessRules) -> list:
    """One task per bucket: pairs by hash, numbered in ``order``, and the crowded rows."""
    num_buckets = -(-2 * len(order) // _ENTRIES_PER_BUCKET)
    known = rules, put(order), groups, len(marks)
    return [submit(_search_hashes, *known, b, num_buckets, *places, *marks) for b in range(num_buckets)]


def _search_hashes(
    rules: LikenessRules, order: np.ndarray, groups: np.ndarray | None, num_chunks: int, bucket: int, num_buckets: int, *parts
) -> tuple[np.ndarray, np.ndarray]:
    places, marks = parts[:num_chunks], parts[num_chunks:]
    chunks = [(m.hashes_N2[at >= 0], at[at >= 0]) for m, at in zip(marks, places)]
    pairs, crowded = hash_pairs(chunks, len(order), rules.hash_bits, bucket, num_buckets)
    if groups is not None:
        pairs = pairs[groups[pairs[:, 0]] != groups[pairs[:, 1]]]
    starts = np.cumsum([0, *(len(at) for at in places)])
    kept = [np.empty(0, bool)]
    for i in range(0, len(pairs), _LOOKS_AT_ONCE):
        left, right = (_whole_looks(marks, starts, order[pairs[i : i + _LOOKS_AT_ONCE, side]]) for side in (0, 1))
        kept.append(look_alike(left, right, rules))
    return pairs[np.concatenate(kept)], crowded


def _whole_looks(marks: Sequence[Marks], starts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The looks of whole pictures, (len(rows), D): rows of all chunks."""
    chunk = np.searchsorted(starts, rows, side="right") - 1
    looks = np.empty((len(rows), marks[0].looks_NWD.shape[-1]), np.float16)
    for c in np.unique(chunk):
        looks[chunk == c] = marks[c].looks_NWD[rows[chunk == c] - starts[c], 0]
    return looks


def _look_pairs(marks: list, places: list, num_rows: int, groups: Ref, rules: LikenessRules) -> list[np.ndarray]:
    """Pairs by look, in the numbering of ``places``. One tree at a time, one task per bucket."""
    depth = max(0, int(np.ceil(np.log2(num_rows * NUM_WINDOWS / _ENTRIES_PER_BUCKET))))
    sample = _sample(marks, places, num_rows) if depth else None
    found = []
    for tree in trees_for(num_rows):
        cuts = np.empty(0) if sample is None or tree is None else cuts_of(sample, tree, depth)
        dealt = [submit(_deal, *pair, tree, cuts, num_returns=2**depth) for pair in zip(marks, places)]
        buckets = zip(*dealt) if depth else [dealt]
        found += collect([submit(_search, rules, groups, tree, depth, *pieces) for pieces in buckets], "looks")
    return found


def _sample(marks: list, places: list, num_rows: int) -> np.ndarray:
    """The looks of a sample of rows, (S, D), independent of how the table is stored."""
    step = -(-num_rows // _SAMPLED)
    picked = collect([submit(_pick, *pair, step) for pair in zip(marks, places)], "sample")
    at = np.concatenate([rows for rows, _ in picked])
    looks = np.concatenate([looks for _, looks in picked])[np.argsort(at)]
    return looks.reshape(-1, looks.shape[-1])


def _pick(marks: Marks, at: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    mine = np.flatnonzero((at >= 0) & (at % step == 0))
    return at[mine], marks.looks_NWD[mine]


def _deal(marks: Marks, at: np.ndarray, tree: int | None, cuts: np.ndarray) -> list[Entries] | Entries:
    """Distributes the entries of these rows over buckets."""
    mine = np.flatnonzero(at >= 0)
    every = entries_of(marks.looks_NWD[mine])
    w = every.num_each
    numbers = (at[mine, None] * w + np.arange(w)).ravel()
    if not len(cuts) or tree is None:
        return Entries(every.vectors_ED, numbers, w)
    bucket = bucket_of(every.vectors_ED, tree, cuts)
    members = np.split(np.argsort(bucket, kind="stable"), np.cumsum(np.bincount(bucket, minlength=len(cuts) + 1))[:-1])
    return [Entries(every.vectors_ED[m], numbers[m], w) for m in members]


def _search(rules: LikenessRules, groups: np.ndarray | None, tree: int | None, depth: int, *pieces: Entries) -> np.ndarray:
    """Pairs in one bucket."""
    numbers = np.concatenate([p.number_E for p in pieces])
    order = np.argsort(numbers)
    entries = Entries(np.concatenate([p.vectors_ED for p in pieces])[order], numbers[order], pieces[0].num_each)
    return near_pairs(entries, rules.look_levels, rules.num_nearest, groups, tree, depth)


def _embedding_pairs(fingerprints: Vectors, embeddings: Vectors, min_cosine: float, num_nearest: int) -> list[np.ndarray]:
    """Pairs of fingerprint rows; one task per tree holds all vectors (6 bytes per dimension and image)."""
    at = embeddings.places.find(fingerprints.places.hashes_2N.T)
    known = np.flatnonzero(at >= 0)
    if len(known) < 2:
        return []
    trees = trees_for(len(known))
    arguments = [(tree, min_cosine, num_nearest) for tree in trees]
    found = gather(embeddings, [at[known]] * len(trees), _near_vectors, arguments, title="vectors")
    return [known[pairs] for pairs in found]


def _near_vectors(tree: int | None, min_cosine: float, num_nearest: int, vectors_ND: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    unit = vectors_ND / np.maximum(lengths, np.finfo(np.float32).tiny)
    return near_pairs(entries_of(unit[:, None]), float(np.sqrt(max(0.0, 2 - 2 * min_cosine))), num_nearest, None, tree)


def _confirm(fingerprints: Vectors, pairs: np.ndarray, rules: LikenessRules, foreign: pa.Table | None) -> Confirmed:
    n, targets, arguments = len(fingerprints.places), [], []
    for i in range(0, len(pairs), _PAIRS_PER_TASK):
        rows, back = np.unique(pairs[i : i + _PAIRS_PER_TASK], return_inverse=True)
        own = rows[rows < n]
        beyond = foreign.take(pa.array(rows[len(own) :] - n)).column(schema.GRID) if foreign else None
        targets.append(fingerprints.places.order[own])
        arguments.append((pairs[i : i + _PAIRS_PER_TASK], back.reshape(-1, 2), rules, beyond))
    return all_confirmed(gather(fingerprints, targets, _confirm_chunk, arguments, title="compare"))


def _confirm_chunk(
    pairs: np.ndarray, at: np.ndarray, rules: LikenessRules, beyond: pa.ChunkedArray | None, grids: np.ndarray
) -> Confirmed:
    grids = grids.reshape(-1, 3, SIDE, SIDE)
    if beyond is not None:
        grids = np.concatenate([grids, grids_of(beyond)])
    parts = [slice(i, i + _PAIRS_AT_ONCE) for i in range(0, len(pairs), _PAIRS_AT_ONCE)]
    return all_confirmed([confirm(pairs[p], rules, grids[at[p, 0]], grids[at[p, 1]]) for p in parts])
