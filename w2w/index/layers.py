"""What changes in a category from night to night, beside its shards instead of in them.

A large category keeps its shards while little has changed. Rows that are gone are marked as dropped, and those that are new
stand in a shard of their own, the layer. A product of which any row has changed moves as a whole: all its pictures are in one
shard, as ever. What was dropped stays dropped. Once the changes exceed ``IndexConfig.layer_share`` of the rows, the category's
shards are built anew.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import storage
from w2w.errors import JobFailed
from w2w.ids import digest
from w2w.index import manifest as m
from w2w.index.manifest import Dropped, ShardInfo
from w2w.index.spec import IndexConfig
from w2w.schema import IMAGE_ID, PRODUCT_ID


@dataclass(frozen=True)
class Base:
    """A published shard that may stay: its rows (product_id, image_id), and which of them were dropped before, bool (rows,)."""

    info: ShardInfo
    rows: pa.Table
    dropped: np.ndarray


@dataclass(frozen=True)
class Layered:
    """``kept``: the shards, each with its rows that are left and its dropped ones; ``fresh``: rows of the layer."""

    kept: tuple[tuple[Base, pa.Table, np.ndarray], ...]
    fresh: pa.Table


def layered(now: pa.Table, bases: Sequence[Base], cfg: IndexConfig, touched: pa.Array | None = None) -> Layered | None:
    """``now``: product_id and image_id of a category's rows, sorted; ``touched``: the only products whose rows may differ from
    those published. None where its shards are to be built anew."""
    total = sum(base.info.num_rows for base in bases)
    if total < max(1, cfg.layer_from_rows):
        return None
    then = pa.concat_tables([base.rows for base in bases]).combine_chunks()
    some_now, some_then = (np.flatnonzero(_of(rows, touched)) for rows in (now, then))
    key_now, key_then = (_keys(rows.take(pa.array(some))) for rows, some in ((now, some_now), (then, some_then)))
    is_new, is_gone = np.zeros(now.num_rows, bool), np.zeros(then.num_rows, bool)
    is_new[some_now] = ~pc.is_in(key_now, value_set=key_then).to_numpy(zero_copy_only=False)
    is_gone[some_then] = ~pc.is_in(key_then, value_set=key_now).to_numpy(zero_copy_only=False)
    is_gone |= np.concatenate([base.dropped for base in bases])
    products = [now[PRODUCT_ID].filter(pa.array(is_new)), then[PRODUCT_ID].filter(pa.array(is_gone))]
    moved = pc.unique(pa.chunked_array([c for column in products for c in column.chunks], pa.string()))
    is_fresh = pc.is_in(now[PRODUCT_ID], value_set=moved).to_numpy(zero_copy_only=False)
    is_dropped = pc.is_in(then[PRODUCT_ID], value_set=moved).to_numpy(zero_copy_only=False)
    if is_fresh.sum() + is_dropped.sum() > cfg.layer_share * total or is_fresh.sum() > cfg.max_rows_per_shard:
        return None
    parts = np.split(is_dropped, np.cumsum([base.info.num_rows for base in bases])[:-1])
    kept = tuple(
        (base, base.rows.filter(pa.array(~part)) if part.any() else base.rows, part) for base, part in zip(bases, parts)
    )
    return Layered(kept, now.filter(pa.array(is_fresh)).combine_chunks())


def _of(rows: pa.Table, products: pa.Array | None) -> np.ndarray:
    if products is None:
        return np.ones(rows.num_rows, bool)
    return pc.is_in(rows[PRODUCT_ID], value_set=products).to_numpy(zero_copy_only=False)


def _keys(rows: pa.Table) -> pa.ChunkedArray:
    """One text for each row. A product_id may have any character, an image_id is hexadecimal."""
    return pc.binary_join_element_wise(rows[IMAGE_ID], rows[PRODUCT_ID], " ")


def read_base(uri: str, info: ShardInfo, rows_of: Callable[[str, ShardInfo], pa.Table | None]) -> Base | None:
    """None if a file of it is missing or damaged: then it is built anew."""
    rows = rows_of(uri, info)
    try:
        dropped = read_dropped(uri, info)
    except JobFailed:
        return None
    return None if rows is None else Base(info, rows, dropped)


def write_dropped(uri: str, info: ShardInfo, dropped_N: np.ndarray) -> ShardInfo:
    """The shard with these rows dropped."""
    if not dropped_N.any():
        return info.without_dropped()
    data = np.packbits(dropped_N).tobytes()
    name = digest(info.name, hashlib.sha256(data).hexdigest(), length=32)
    storage.write_bytes(m.dropped_uri(uri, name), data)
    return info.with_dropped(Dropped(name, hashlib.sha256(data).hexdigest(), int(dropped_N.sum())))


def read_dropped(uri: str, info: ShardInfo) -> np.ndarray:
    """bool (rows,). Raises JobFailed if the file is missing or damaged."""
    if info.dropped is None:
        return np.zeros(info.num_rows, bool)
    where = m.dropped_uri(uri, info.dropped.name)
    try:
        data = storage.read_bytes(where)
    except FileNotFoundError as e:
        raise JobFailed(f"{where}: missing; run 'w2w index', which makes it again") from e
    found = np.unpackbits(np.frombuffer(data, np.uint8), count=info.num_rows).astype(bool)
    if hashlib.sha256(data).hexdigest() != info.dropped.sha256 or found.sum() != info.dropped.num_rows:
        raise JobFailed(f"{where}: damaged, its sha256 is not the manifest's; run 'w2w index', which makes it again")
    return found
