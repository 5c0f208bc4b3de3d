"""Indexes without what is erased: the affected shards of the published version are filled anew from the vectors that stay, with
the templates that are there, and every other version that has such a shard goes."""

import logging
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema, storage
from w2w.engine.shuffle import list_served, read_vectors
from w2w.erase.scan import Sought, in_file
from w2w.errors import JobFailed, UsageError
from w2w.index import manifest as m
from w2w.index import rows
from w2w.index.layers import read_dropped
from w2w.index.manifest import GateResult, Manifest, ShardInfo
from w2w.index.publish import new_manifest, publish, published, read_manifest, versions
from w2w.index.shard import ShardTask, build_shard, rows_digest, shard_name
from w2w.models.config import EncoderConfig

log = logging.getLogger("w2w")


@dataclass(frozen=True)
class Indexed:
    """Of one index: shards that have something erased, those of the published version, which are rewritten, and versions that
    go; ``dropped``: the whole index, which `w2w index` builds again."""

    shards: int
    rewritten: int = 0
    versions: int = 0
    dropped: bool = False

    def __str__(self) -> str:
        if self.dropped:
            return "dropped: run w2w index"
        numbers = ((self.rewritten, "shard", "rewritten"), (self.versions, "version", "deleted"))
        return ", ".join(f"{num:,} {what}{'s' if num != 1 else ''} {done}" for num, what, done in numbers)


def erase(store: str, name: str, sought: Sought, dry_run: bool = False) -> Indexed | None:
    """None if the index has nothing of it. It is dropped where a shard cannot be filled, or a template holds a vector."""
    uri = m.index_uri(store, name)
    there = storage.list_folders(storage.join(uri, "shards"))
    bad = {shard for shard in there if _names(uri, shard, sought)}
    if not dry_run:
        _forget(uri, sought)
    if not bad and not _unfinished(uri, there):
        return None
    base, rewritten, dropped = published(uri), 0, False
    there_is = base.current is not None and not base.withdrawn
    if there_is and dry_run:
        now = base.manifest
        rewritten = sum(shard.name in bad for shard in now.shards) if now else 0
        dropped = now is None or (rewritten > 0 and bool(_why_dropped(store, uri, now, bad, sought)))
    elif there_is:
        try:
            rewritten = _publish_without(store, uri, bad, sought)
        except (UsageError, JobFailed, OSError) as e:
            log.warning("index %s is dropped, for w2w index to build again: %s", name, e)
            dropped = True
    if dropped and not dry_run:
        storage.delete(storage.join(uri, "CURRENT"))
    old = [version for version in versions(uri) if dropped or _has(uri, version, bad)]
    if dry_run:
        return Indexed(len(bad), rewritten, len(old), dropped)
    for version in old:
        storage.delete(storage.join(uri, "generations", version))
    kept = {shard.name for version in versions(uri) for shard in read_manifest(uri, version).shards}
    for shard in there:
        if shard in bad or (shard not in kept and not storage.exists(m.shard_uri(uri, shard, m.SHARD_FILE))):
            storage.delete(m.shard_uri(uri, shard, m.SHARD_FILE))
            storage.delete(m.shard_uri(uri, shard, m.BASE_FILE))
            storage.delete(m.shard_uri(uri, shard, m.REFINE_FILE))
            storage.delete(m.shard_uri(uri, shard))  # the names last: a run after this one finds the shard by them
    if dropped or not versions(uri):
        storage.delete(uri)
    return Indexed(len(bad), rewritten, len(old), dropped)


def _forget(uri: str, sought: Sought) -> None:
    """Deletes what versions keep of golden queries that have it, which are asked of the served index again, and the rows that
    are stored for later runs."""
    storage.delete(storage.join(uri, rows.FOLDER))
    for version in versions(uri):
        for where in (m.seen_uri(uri, version), m.stock_uri(uri, version)):
            if storage.exists(where) and in_file(where, sought):
                storage.delete(where)


def _unfinished(uri: str, there: list[str]) -> bool:
    """Whether a shard is half deleted."""
    return any(not storage.exists(m.shard_uri(uri, shard, m.SHARD_FILE)) for shard in there)


def _rows(uri: str, shard: str) -> pa.Table:
    return pa.ipc.open_file(storage.read_bytes(m.shard_uri(uri, shard, m.ROWS_FILE))).read_all()


def _there(uri: str, shard: ShardInfo) -> pa.Table:
    """Without the rows that are dropped."""
    return _rows(uri, shard.name).filter(pa.array(~read_dropped(uri, shard)))


def _erased(rows: pa.Table, sought: Sought) -> pa.ChunkedArray:
    """In an index of looks, posts take the place of products."""
    owners = pa.array(sorted(sought.marks.products | sought.marks.posts), pa.string())
    images = pa.array(sorted(sought.marks.keys), pa.string())
    by_owner = pc.is_in(rows.column(schema.PRODUCT_ID), value_set=owners)
    return pc.or_(by_owner, pc.is_in(rows.column(schema.IMAGE_ID), value_set=images))


def _names(uri: str, shard: str, sought: Sought) -> bool:
    try:
        return pc.any(_erased(_rows(uri, shard), sought)).as_py() or False
    except (FileNotFoundError, pa.ArrowException):
        return False


def _has(uri: str, version: str, bad: set[str]) -> bool:
    try:
        return any(shard.name in bad for shard in read_manifest(uri, version).shards)
    except UsageError:
        return True


def _publish_without(store: str, uri: str, bad: set[str], sought: Sought) -> int:
    """Publishes the current version without what is erased, if it has any; returns how many shards were rewritten. The gate's
    figures are those of the version before."""
    base = published(uri)
    if base.manifest is None:
        raise JobFailed(base.damage)
    now, gate = base.manifest, base.manifest.gate or GateResult(True, (), 0.0, {})
    if not any(shard.name in bad for shard in now.shards):
        return 0
    if why := _why_dropped(store, uri, now, bad, sought):
        raise JobFailed(why)
    shards = [
        kept for shard in now.shards if (kept := _without(store, uri, now, shard, sought) if shard.name in bad else shard)
    ]
    parts = [_there(uri, s).append_column(schema.CATEGORY, pa.repeat(s.category, s.num_there)) for s in shards]
    digest = rows_digest(pa.concat_tables(parts).combine_chunks(), now.model_version, now.config)
    used = {shard.template for shard in shards}
    templates = [t for t in now.templates if t.name in used]
    encoder = EncoderConfig(name=now.encoder, colour=now.colour)
    after = new_manifest(now.config, now.model_version, encoder, now.tables, templates, shards, digest, now.table_ids)
    after = replace(after, bridged_from=now.bridged_from)
    publish(uri, after, gate, base)
    return sum(shard.name in bad for shard in now.shards)


def _why_dropped(store: str, uri: str, now: Manifest, bad: set[str], sought: Sought) -> str:
    """Why its shards cannot be rewritten; "" if they can."""
    if held := next((t for t in now.templates if in_file(m.template_uri(uri, t.name), sought)), None):
        return f"template {held.name} holds a vector that is erased"
    vectors, is_empty = list_served(store, now.model_version), True
    for shard in now.shards:
        rows = _there(uri, shard)
        if shard.name in bad:
            rows = rows.filter(pc.invert(_erased(rows, sought)))
            if (vectors.find(rows.column(schema.IMAGE_ID)) < 0).any():
                return f"shard {shard.name} has vectors that the store has not"
        is_empty = is_empty and not rows.num_rows
    return "nothing is left in it" if is_empty else ""


def _without(store: str, uri: str, now: Manifest, shard: ShardInfo, sought: Sought) -> ShardInfo | None:
    rows = _there(uri, shard)
    rows = rows.filter(pc.invert(_erased(rows, sought))).combine_chunks()
    if not rows.num_rows:
        return None
    template = next(t for t in now.templates if t.name == shard.template)
    vectors = list_served(store, now.model_version)
    at = vectors.find(rows.column(schema.IMAGE_ID))
    name = shard_name(rows, shard.category, now.model_version, template, shard.layer)
    task = ShardTask(name, shard.category, shard.bucket, shard.num_buckets, template, rows, shard.layer)
    return build_shard(uri, task, read_vectors(vectors, at))
