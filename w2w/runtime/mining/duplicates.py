"""Near-duplicates on Ray: fingerprints of new images, candidates from all of them, confirmation where the grids lie.

Fingerprints are read once into arrays in the object store (1,096 bytes an image), the hash search and each tree of the look
search are a task of their own over these (and a copy in each), and candidates are confirmed in tasks of ``_PAIRS_PER_TASK``
pairs, to which the grids travel. The driver holds the ids (100 bytes an image) and the candidates (16 bytes a pair).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import ray

from w2w import schema
from w2w.images.decode import DecodeLimits
from w2w.mining.duplicates import (
    Confirmed,
    LikenessRules,
    Marks,
    all_confirmed,
    confirm,
    hash_candidates,
    joined,
    look_candidates,
    marks_of,
)
from w2w.mining.fingerprints import FINGERPRINT_GIVES, fingerprint_version, grids_of, to_fingerprints
from w2w.mining.likeness import SIDE
from w2w.mining.neighbours import near_pairs, trees_for, unique_pairs
from w2w.runtime.job import Run
from w2w.runtime.run import collect, run_stages
from w2w.runtime.shuffle import Vectors, gather, list_column
from w2w.runtime.source import Source, pending_rows
from w2w.runtime.stage import Pool, Stage
from w2w.table import delta
from w2w.table.pending import rejected_keys, table_keys
from w2w.table.sink import Counts, Output

STAGE = "fingerprint"  # its rejects' stage, whichever job runs it
_ROWS_PER_MAP = 100_000
_PAIRS_PER_TASK = 20_000  # at most 120 MB of grids


def fingerprints_due(store: str, limits: DecodeLimits, item_rows: int) -> Source:
    """The images that have no fingerprint and were not refused one."""
    version = fingerprint_version(limits)
    done = [
        table_keys(store, schema.FINGERPRINTS, schema.IMAGE_ID, stage_version=version),
        rejected_keys(store, STAGE, version),
    ]
    columns = [schema.IMAGE_ID, schema.BYTES, schema.SOURCE_URI]
    return pending_rows(store, schema.IMAGES, columns, done, schema.SOURCE_URI, item_rows)


def make_fingerprints(run: Run, due: Source, limits: DecodeLimits, pool: Pool) -> Counts:
    """Fingerprints of the images that are due, committed as they come."""
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
        max_reject_rate=run.config.max_reject_rate,
        commit_every_s=run.config.commit_every_s,
    )
    return counts


@dataclass(frozen=True)
class Found:
    """Duplicates among images: rows of ``confirmed`` count ``image_ids`` (sorted)."""

    image_ids: pa.ChunkedArray
    confirmed: Confirmed
    num_candidates: int
    num_crowded: int  # rows with so many of nearly their hash that not all of those were looked at


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
    """Pairs of images that are one picture.

    ``embeddings``: neighbours of at least that cosine are candidates too. ``group_N``: only pairs of two groups (an int a row
    of ``fingerprints.owners``; below 0: the image is left out). ``foreign``: fingerprints that are in no table, a group of
    their own, whose rows count on from those.
    """
    n = len(fingerprints.owners)
    marks = _marks(fingerprints)
    if foreign is not None:
        marks.append(ray.put(marks_of(foreign)))
        group_N = np.concatenate([group_N, np.full(foreign.num_rows, group_N.max(initial=0) + 1)])
    kept = np.arange(n + (foreign.num_rows if foreign else 0)) if group_N is None else np.flatnonzero(group_N >= 0)
    order = np.concatenate([fingerprints.rows, np.arange(n, n + (foreign.num_rows if foreign else 0))])[kept]
    groups = None if group_N is None else group_N[kept]
    task = ray.remote(num_cpus=1)(_candidates)
    shared = [ray.put(order), ray.put(groups)]
    tasks = [task.remote(None, rules, *shared, *marks)] if len(kept) > 1 else []
    tasks += [task.remote([tree], rules, *shared, *marks) for tree in trees_for(len(kept)) if len(kept) > 1]
    found = collect(tasks, "candidates") if tasks else []
    candidates = [kept[pairs] for pairs, _ in found]
    if embeddings is not None:
        candidates += _embedding_pairs(fingerprints, embeddings, min_cosine, rules.num_nearest)
    pairs = unique_pairs(*candidates)
    confirmed = _confirm(fingerprints, pairs, rules, foreign)
    return Found(fingerprints.owners, confirmed, len(pairs), max((crowded for _, crowded in found), default=0))


def _marks(fingerprints: Vectors) -> list:
    """References to the marks of all fingerprints, in the order of the table."""
    task = ray.remote(num_cpus=1)(_read_marks)
    chunks: list[list[delta.Part]] = [[]]
    for part in fingerprints.parts:
        if sum(p.rows for p in chunks[-1]) >= _ROWS_PER_MAP:
            chunks.append([])
        chunks[-1].append(part)
    return [task.remote(fingerprints.store, chunk) for chunk in chunks if chunk]


def _read_marks(store: str, parts: Sequence[delta.Part]) -> Marks:
    columns = [schema.PHASH, schema.PHASH_MIRRORED, schema.GRID]
    return joined([marks_of(b) for b in delta.read_batches(store, schema.FINGERPRINTS, columns, parts, 8192)])


def _candidates(
    trees: list | None, rules: LikenessRules, order: np.ndarray, groups: np.ndarray | None, *chunks: Marks
) -> tuple[np.ndarray, int]:
    """Pairs by hash (``trees`` None) or by one tree of looks."""
    marks = joined(list(chunks), order)
    return hash_candidates(marks, rules, groups) if trees is None else look_candidates(marks, rules, trees[0], groups)


def _embedding_pairs(fingerprints: Vectors, embeddings: Vectors, min_cosine: float, num_nearest: int) -> list[np.ndarray]:
    """Pairs of fingerprints' rows; one task a tree holds all vectors (6 bytes a dimension and image)."""
    at = embeddings.find(fingerprints.owners)
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
    return near_pairs(unit[:, None], float(np.sqrt(max(0.0, 2 - 2 * min_cosine))), num_nearest, None, tree)


def _confirm(fingerprints: Vectors, pairs: np.ndarray, rules: LikenessRules, foreign: pa.Table | None) -> Confirmed:
    n, targets, arguments = len(fingerprints.owners), [], []
    for i in range(0, len(pairs), _PAIRS_PER_TASK):
        rows, back = np.unique(pairs[i : i + _PAIRS_PER_TASK], return_inverse=True)
        own = rows[rows < n]
        beyond = foreign.take(pa.array(rows[len(own) :] - n)).column(schema.GRID) if foreign else None
        targets.append(fingerprints.rows[own])
        arguments.append((pairs[i : i + _PAIRS_PER_TASK], back.reshape(-1, 2), rules, beyond))
    return all_confirmed(gather(fingerprints, targets, _confirm_chunk, arguments, title="compare"))


def _confirm_chunk(
    pairs: np.ndarray, at: np.ndarray, rules: LikenessRules, beyond: pa.ChunkedArray | None, grids: np.ndarray
) -> Confirmed:
    grids = grids.reshape(-1, 3, SIDE, SIDE)
    if beyond is not None:
        grids = np.concatenate([grids, grids_of(beyond)])
    return confirm(pairs, rules, grids[at[:, 0]], grids[at[:, 1]])
