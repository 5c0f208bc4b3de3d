"""The rows of an index that a search may find, and whether they are so few that each is scored."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import faiss
import numpy as np

from w2w.index.exact import Few
from w2w.index.opened import Shard
from w2w.index.spec import Spec
from w2w.index.template import Template

_MB_PER_MS = 32.0  # decoded vectors that one thread compares with a query in a millisecond: 67,000 of 128 dimensions, measured
_FEW_MB = 256.0  # of them held for a filter


@dataclass(frozen=True)
class Within:
    """The rows of each shard that may be found: their number, bool (rows,) or None for all, and that for faiss. ``filtered``:
    they may lie anywhere. ``few``: shards of a category whose rows are searched exactly. What that takes is made when it is
    first needed, and kept."""

    sizes: list[int]
    masks: Sequence[np.ndarray | None]
    selectors: Sequence[faiss.IDSelector | None]
    filtered: bool = False
    few: frozenset[tuple[int, ...]] = frozenset()
    _decoded: dict[tuple[int, ...], Few] = field(default_factory=dict, repr=False)
    _rows_L: dict[int, np.ndarray] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @staticmethod
    def of(shards: Sequence[Shard], masks: Sequence[np.ndarray | None], filtered: bool = False) -> "Within":
        bits = [None if m is None else faiss.IDSelectorBitmap(np.packbits(m, bitorder="little")) for m in masks]
        sizes = [s.info.num_rows if mask is None else int(mask.sum()) for s, mask in zip(shards, masks, strict=True)]
        return Within(sizes, masks, bits, filtered)

    def parts(self, numbers: Sequence[int]) -> list[tuple[int, ...]]:
        """These shards: those of ``few`` together, each other one by itself."""
        return list(dict.fromkeys(next((few for few in self.few if i in few), (i,)) for i in numbers))

    def is_few(self, number: int) -> bool:
        return any(number in few for few in self.few)

    def in_reach(self, number: int, shard: Shard, spec: Spec) -> int:
        """How many rows of a shard can be fetched."""
        return self.sizes[number] if self.is_few(number) or spec.can_filter else shard.info.num_rows

    def rows(self, part: tuple[int, ...], spec: Spec, shards: Sequence[Shard]) -> Few:
        """What may be found of a part of ``few``."""
        with self._lock:
            if part not in self._decoded:
                rows = {i: np.flatnonzero(mask) for i in part if (mask := self.masks[i]) is not None}
                self._decoded[part] = Few.of(spec, {i: shards[i].codes for i in part}, rows)
            return self._decoded[part]

    def rows_of_lists(self, number: int, num_lists: int, base: faiss.IndexIVF) -> np.ndarray:
        """How many rows of each inverted list of a shard may be found, int64 (lists,)."""
        with self._lock:
            if number not in self._rows_L:
                lists, mask = faiss.downcast_InvertedLists(base.invlists), self.masks[number]
                sizes = [lists.list_size(i) for i in range(num_lists)]
                ids = [faiss.rev_swig_ptr(lists.get_ids(i), size) for i, size in enumerate(sizes) if size]
                found = mask[np.concatenate(ids)] if mask is not None else np.ones(sum(sizes), bool)
                before = np.concatenate([[0], np.cumsum(found)])
                self._rows_L[number] = np.diff(before[np.concatenate([[0], np.cumsum(sizes)])])
            return self._rows_L[number]


def few_of(
    shards: Sequence[Shard], templates: Mapping[str, Template], sizes: Sequence[int], latency_budget_ms: float
) -> frozenset[tuple[int, ...]]:
    """The shards of each category of which so many rows are searched exactly: the smallest ones first, and none whose rows
    are scanned anyway."""
    numbers_of: dict[tuple[str, str], list[int]] = {}
    for number, (shard, size) in enumerate(zip(shards, sizes, strict=True)):
        spec = templates[shard.info.template].spec
        if size and spec.can_decode and not spec.scans_all:
            numbers_of.setdefault((shard.info.category, shard.info.template), []).append(number)
    few, left = set[tuple[int, ...]](), _FEW_MB
    for (_, name), numbers in sorted(numbers_of.items(), key=lambda item: sum(sizes[i] for i in item[1])):
        template = templates[name]
        size_mb = 4 * template.spec.inner_dim(template.dim) * sum(sizes[i] for i in numbers) / 2**20
        if size_mb <= min(left, _MB_PER_MS * latency_budget_ms):
            few, left = few | {tuple(numbers)}, left - size_mb
    return frozenset(few)
