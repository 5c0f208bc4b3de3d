"""The shards of a night of which the changed products are known: what nothing changed in stays, unread."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w.ids import hash_bucket
from w2w.index.layers import Base, read_base, read_dropped, write_dropped
from w2w.index.manifest import Manifest, ShardInfo, StoredTemplate
from w2w.index.rows import Rows
from w2w.index.shard import (
    ROWS,
    ShardTask,
    intact_rows,
    is_intact,
    num_buckets_of,
    plan_groups,
    read_rows,
    shard_name,
    sorted_rows,
    tasks_anew,
)
from w2w.index.spec import IndexConfig
from w2w.schema import CATEGORY, IMAGE_ID, PRODUCT_ID

_FEW = 2000  # products: more are found by reading all names of a shard


@dataclass(frozen=True)
class Changed:
    """All ``products`` that may have other rows than in the published version, and the rows (product_id, image_id, category)
    that they had ``then`` and have ``now``."""

    products: pa.Array
    then: pa.Table
    now: pa.Table


def plan_beside(
    uri: str,
    rows: Rows,
    changed: Changed,
    templates: Mapping[str, StoredTemplate],
    model_version: str,
    cfg: IndexConfig,
    previous: Manifest,
) -> list[ShardTask] | None:
    """As ``shard.plan_shards`` plans them; None where it is to read all rows: a template is another one, the number of a
    category's buckets changes, or a shard is missing or damaged."""
    groups = plan_groups(rows, cfg, previous)
    of_category = {c: templates[group.name] for group in groups for c in group.categories}
    touched = {*changed.then[CATEGORY].to_pylist(), *changed.now[CATEGORY].to_pylist()}
    tasks: list[ShardTask] = []
    for category, count in sorted(rows.counts.items()):
        infos = [s for s in previous.shards if s.category == category]
        template, before = of_category[category], max([1, *(s.num_buckets for s in infos)])
        num_buckets = num_buckets_of(count, cfg.max_rows_per_shard, before)
        if any(s.template != template.name or s.num_buckets != num_buckets or not is_intact(uri, s) for s in infos):
            return None
        if category not in touched:
            tasks += [_kept(info, template) for info in infos]
            continue
        found = _layered(uri, infos, _within(changed, category), template, model_version, cfg, num_buckets)
        if found is None:
            there = [there_rows(uri, info) for info in infos]
            left = [r.filter(pc.invert(pc.is_in(r[PRODUCT_ID], value_set=changed.products))) for r in there]
            mine = pa.concat_tables([*left, *_rows(changed.now, category)])
            mine = sorted_rows(mine.append_column(CATEGORY, pa.repeat(category, mine.num_rows)))
            found = tasks_anew(mine, np.arange(mine.num_rows), category, num_buckets, template, model_version)
        tasks += found
    return tasks


def there_rows(uri: str, info: ShardInfo) -> pa.Table:
    """ROWS of a shard that a search may find."""
    return read_rows(uri, info).filter(pa.array(~read_dropped(uri, info)))


def _within(changed: Changed, category: str) -> Changed:
    then, now = (rows.filter(pc.equal(rows[CATEGORY], category)) for rows in (changed.then, changed.now))
    return Changed(changed.products, then, now)


def _rows(rows: pa.Table, category: str) -> Iterable[pa.Table]:
    mine = rows.filter(pc.equal(rows[CATEGORY], category)).select([*ROWS.names, CATEGORY])
    return [sorted_rows(mine).select(ROWS.names).cast(ROWS)] if mine.num_rows else []


def _kept(info: ShardInfo, template: StoredTemplate) -> ShardTask:
    about = (info.name, info.category, info.bucket, info.num_buckets, template, ROWS.empty_table())
    return ShardTask(*about, info.layer, info, told=False)


def _layered(
    uri: str,
    infos: list[ShardInfo],
    changed: Changed,
    template: StoredTemplate,
    model_version: str,
    cfg: IndexConfig,
    num_buckets: int,
) -> list[ShardTask] | None:
    """A category's shards, with what has gone marked as dropped, and the layer beside them (``layers``); None where they are to
    be built anew."""
    bases, layers = ([info for info in infos if bool(info.layer) == is_layer] for is_layer in (False, True))
    total = sum(info.num_rows for info in bases)
    if not cfg.layer_share or not bases or total < max(1, cfg.layer_from_rows) or any(info.dropped for info in layers):
        return None
    category = bases[0].category
    products = pc.unique(pa.chunked_array([c for r in (changed.then, changed.now) for c in r[PRODUCT_ID].chunks], pa.string()))
    now = pa.concat_tables([ROWS.empty_table(), *_rows(changed.now, category)])
    bucket_P = hash_bucket(products, num_buckets)
    found, tasks, num_dropped = [(read_base(uri, info, intact_rows), info) for info in bases], [], 0
    moved = [pa.array([], pa.string())]
    for base, info in found:
        if base is None:
            return None
        some = products.filter(pa.array(bucket_P == info.bucket))
        at = _places(base, some)
        then, mine = base.rows.take(pa.array(at)), now.filter(pc.is_in(now[PRODUCT_ID], value_set=some))
        is_new, is_gone = _not_in(mine, then), _not_in(then, mine) | base.dropped[at]
        other = pc.unique(
            pa.concat_arrays(
                [r[PRODUCT_ID].filter(pa.array(mask)).combine_chunks() for r, mask in ((mine, is_new), (then, is_gone))]
            )
        )
        moved.append(other)
        goes = at[pc.is_in(then[PRODUCT_ID], value_set=other).to_numpy(zero_copy_only=False)]
        dropped = base.dropped
        if not dropped[goes].all():
            dropped = dropped.copy()
            dropped[goes] = True
            info = write_dropped(uri, info, dropped)
        num_dropped += int(dropped.sum())
        tasks.append(_kept(info, template))
    before = [read_rows(uri, info) for info in layers]
    left = [r.filter(pc.invert(pc.is_in(r[PRODUCT_ID], value_set=products))) for r in before]
    new = now.filter(pc.is_in(now[PRODUCT_ID], value_set=pa.concat_arrays(moved)))
    fresh = pa.concat_tables([*left, new]).sort_by([(name, "ascending") for name in ROWS.names]).combine_chunks()
    if fresh.num_rows + num_dropped > cfg.layer_share * total or fresh.num_rows > cfg.max_rows_per_shard:
        return None
    if fresh.num_rows:
        name = shard_name(fresh, category, model_version, template, layer=1)
        known = [info for info in layers if info.name == name]
        about = (name, category, num_buckets, num_buckets, template)
        tasks.append(_kept(known[0], template) if known else ShardTask(*about, fresh, 1))
    return tasks


def _not_in(rows: pa.Table, others: pa.Table) -> np.ndarray:
    keys = [pc.binary_join_element_wise(r[IMAGE_ID], r[PRODUCT_ID], " ") for r in (rows, others)]
    return ~pc.is_in(keys[0], value_set=keys[1]).to_numpy(zero_copy_only=False)


def _places(base: Base, products: pa.Array) -> np.ndarray:
    """int64, ascending: rows of a shard, which are sorted by product, that are of these."""
    if len(products) > _FEW:
        return np.flatnonzero(pc.is_in(base.rows[PRODUCT_ID], value_set=products).to_numpy(zero_copy_only=False))
    column, found = base.rows[PRODUCT_ID].combine_chunks(), []
    for product in sorted(products.to_pylist()):
        at = _first(column, product)
        while at < len(column) and column[at].as_py() == product:
            found.append(at)
            at += 1
    return np.array(found, np.int64)


def _first(column: pa.Array, value: str) -> int:
    """Of a sorted column the first row that is not less."""
    low, high = 0, len(column)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if column[middle].as_py() < value else (low, middle)
    return low
