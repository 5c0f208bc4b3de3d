"""The shards of one category as one, in memory: for many queries, which find eight lists of an eighth slower than one list."""

from collections.abc import Sequence
from dataclasses import replace

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w.index.opened import Content, Shard, product_numbers
from w2w.index.search import Index
from w2w.index.template import Codes, Template
from w2w.schema import IMAGE_ID, PRODUCT_ID

_EXACT_CODES = (faiss.IndexIVFFlat, faiss.IndexIVFScalarQuantizer, faiss.IndexIVFPQ)  # a row's score depends on its code alone
MERGED_MB = 1024.0  # codes and ids of a worker
MANY = 1000  # queries from which merging pays for itself: 1M x 128 bytes take .3 s, 1,000 queries as long


def merged(index: Index, memory_mb: float = MERGED_MB) -> Index:
    """The same index with the same answers, in which a category of several shards with inverted lists has one, in memory.

    The largest categories that fit into ``memory_mb`` MiB, codes and ids, come first; the others stay as they are. So do those
    that re-rank or have RaBitQ codes: what they leave out depends on the best rows so far, so on the shards.
    """
    groups: dict[tuple[str, str], list[Shard]] = {}
    for shard in index.shards:
        groups.setdefault((shard.info.template, shard.info.category), []).append(shard)
    left = memory_mb * 2**20
    for key, shards in sorted(groups.items(), key=lambda g: -sum(s.info.num_bytes for s in g[1])):
        size = sum(s.info.num_bytes + s.rows.nbytes for s in shards)
        if len(shards) > 1 and size <= left and all(map(_can_merge, shards)):
            groups[key], left = [_merge(index.templates[key[0]], shards)], left - size
    return replace(index, shards=tuple(s for shards in groups.values() for s in shards))


def _can_merge(shard: Shard) -> bool:
    return shard.codes.refine is None and type(shard.codes.base) in _EXACT_CODES


def _merge(template: Template, shards: Sequence[Shard]) -> Shard:
    rows = pa.concat_tables([s.rows for s in shards])
    is_there = np.concatenate([np.ones(s.info.num_rows, bool) if s.there is None else s.there for s in shards])
    order = pc.sort_indices(rows, [(PRODUCT_ID, "ascending"), (IMAGE_ID, "ascending")]).to_numpy()
    order = order[is_there[order]]
    place = np.full(len(is_there), -1, np.int64)
    place[order] = np.arange(len(order))
    places = np.split(place, np.cumsum([s.info.num_rows for s in shards])[:-1])
    lists = faiss.ArrayInvertedLists(template.spec.num_lists, shards[0].codes.base.code_size)
    for shard, placed in zip(shards, places, strict=True):
        _add_lists(lists, faiss.downcast_InvertedLists(shard.codes.base.invlists), placed)
    base = faiss.clone_index(template.base)
    base.replace_invlists(lists, True)
    lists.this.disown()  # belongs to the index from here on
    base.ntotal = len(order)
    rows = rows.take(pa.array(order)).combine_chunks()
    info = replace(
        shards[0].info,
        name="+".join(s.info.name for s in shards),
        bucket=0,
        num_buckets=1,
        num_rows=len(order),
        num_bytes=sum(s.info.num_bytes for s in shards),
        files={},
        layer=0,
        dropped=None,
    )
    content = Content(Codes(base, None), rows, product_numbers(rows))
    return Shard(info, lambda: content)


def _add_lists(to: faiss.InvertedLists, of: faiss.InvertedLists, place_N: np.ndarray) -> None:
    """Adds the codes of every list; row i of the shard becomes row ``place_N[i]``, and is left out where that is -1."""
    for number in range(of.nlist):
        if size := of.list_size(number):
            rows = place_N[faiss.rev_swig_ptr(of.get_ids(number), size)]
            codes = faiss.rev_swig_ptr(of.get_codes(number), size * of.code_size).reshape(size, -1)
            there = rows >= 0
            if not there.all():
                rows, codes = rows[there], np.ascontiguousarray(codes[there])
            if len(rows):
                to.add_entries(number, len(rows), faiss.swig_ptr(rows), faiss.swig_ptr(codes))
