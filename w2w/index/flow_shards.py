"""A search of many queries as tasks over shards, for an index that is larger than the memory of a machine: a worker reads its
shards once for thousands of queries, where a worker that has all shards reads all of them for its few."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from w2w.engine.shuffle import share, shared
from w2w.engine.tasks import cluster_cpus, collect, submit
from w2w.index.scan import Scanned
from w2w.index.search import Index, open_index

QUERIES = 20_000  # of one round of tasks
_SHARDS_MB = 512.0  # of one task


@dataclass(frozen=True)
class ShardTasks:
    """``Index.scanner``: one version of an index, of whose shards each task scans a few. The answers are those of one process,
    as what the tasks send is what ``Index.scan`` finds of their shards, in the order of the shards."""

    uri: str
    version: str
    shards_mb: tuple[float, ...]

    @staticmethod
    def of(uri: str, index: Index) -> "ShardTasks":
        return ShardTasks(uri, index.manifest.version, tuple(s.num_bytes / 2**20 for s in index.manifest.shards))

    def __call__(self, unit_ND: np.ndarray, fetch: int, effort: float, parts: list[tuple[int, ...]]) -> Scanned:
        there = share(unit_ND)
        groups = grouped(parts, self.shards_mb, _SHARDS_MB, int(cluster_cpus()))
        tasks = [submit(_scan, self.uri, self.version, there, fetch, effort, group) for group in groups]
        return Scanned.join(collect(tasks, "shards"))


def grouped(
    parts: Sequence[tuple[int, ...]], shards_mb: Sequence[float], most_mb: float, at_least: int
) -> list[list[tuple[int, ...]]]:
    """The parts in order, in as many groups as there are CPUs, or more: none above ``most_mb`` unless one shard alone is."""
    sizes_mb = [sum(shards_mb[i] for i in part) for part in parts]
    most_mb = min(most_mb, sum(sizes_mb) / max(1, at_least))
    groups, held_mb = list[list[tuple[int, ...]]](), 0.0
    for part, size_mb in zip(parts, sizes_mb, strict=True):
        if not groups or held_mb + size_mb > most_mb + 1e-9:
            groups.append([])
            held_mb = 0.0
        groups[-1].append(part)
        held_mb += size_mb
    return groups


@lru_cache(maxsize=1)
def _opened(uri: str, version: str) -> Index:
    return open_index(uri, version=version)


def _scan(uri: str, version: str, there: list, fetch: int, effort: float, parts: list[tuple[int, ...]]) -> Scanned:
    return _opened(uri, version).scan(shared(there), fetch, effort, parts)
