"""Versions of an index: publish after the gate, roll back, list, collect what no version needs."""

import time
from dataclasses import replace
from datetime import UTC, datetime

import w2w
from w2w import storage
from w2w.config import nearest
from w2w.errors import JobFailed, UsageError
from w2w.ids import digest
from w2w.index import manifest as m
from w2w.index.manifest import GateResult, Manifest, ShardInfo, StoredTemplate
from w2w.index.spec import IndexConfig

_YOUNG_S = 24 * 3600.0  # a shard may belong to a run that has not published yet


def new_manifest(
    cfg: IndexConfig,
    model_version: str,
    encoder: str,
    tables: dict[str, int],
    templates: list[StoredTemplate],
    shards: list[ShardInfo],
) -> Manifest:
    """A manifest without a gate result, for ``gate``. Versions sort by time."""
    now = datetime.now(UTC)
    ordered = tuple(sorted(shards, key=lambda s: (s.category, s.bucket)))
    version = f"{now:%Y%m%dT%H%M%S%f}-{digest([s.name for s in ordered], model_version, length=8)}"
    return Manifest(
        version=version,
        name=cfg.name,
        model_version=model_version,
        encoder=encoder,
        dim=templates[0].dim,
        config=cfg,
        tables=tables,
        templates=tuple(templates),
        shards=ordered,
        created_at=now.isoformat(timespec="seconds"),
        w2w_version=w2w.__version__,
    )


def publish(uri: str, manifest: Manifest, gate: GateResult) -> str:
    """Writes the manifest, then ``CURRENT`` in one atomic write; returns the version. Raises JobFailed, with CURRENT as it
    was, where the gate did not pass."""
    if not gate.passed:
        raise JobFailed(f"index {manifest.name!r} is not published: {'; '.join(gate.reasons)}")
    storage.write_bytes(m.manifest_uri(uri, manifest.version), m.to_json(replace(manifest, gate=gate)))
    storage.write_bytes(storage.join(uri, "CURRENT"), manifest.version.encode())
    return manifest.version


def current_version(uri: str) -> str | None:
    try:
        return storage.read_bytes(storage.join(uri, "CURRENT")).decode().strip()
    except FileNotFoundError:
        return None


def read_manifest(uri: str, version: str | None = None) -> Manifest:
    """The published manifest, or that of a version. Raises UsageError naming the versions there are."""
    wanted = version or current_version(uri)
    if wanted is None:
        raise UsageError(f"{uri}: no index is published there; run the index job first")
    where = m.manifest_uri(uri, wanted)
    try:
        return m.manifest_from(storage.read_bytes(where), where)
    except FileNotFoundError as e:
        raise UsageError(f"{uri}: there is no version {wanted!r}.{nearest(wanted, versions(uri))}") from e


def previous_manifest(uri: str) -> Manifest | None:
    """What a re-run reuses from: the published manifest, None where there is none."""
    return read_manifest(uri) if current_version(uri) else None


def versions(uri: str) -> list[str]:
    """Published versions, oldest first."""
    found = storage.list_files(storage.join(uri, "generations"))
    return sorted({f.path.split("/")[-2] for f in found if f.base_name == "manifest.json"})


def rollback(uri: str, version: str | None = None) -> str:
    """Points CURRENT at ``version``, or at the one before the current one; returns it. Raises UsageError where none is."""
    known, current = versions(uri), current_version(uri)
    if version is None:
        older = [v for v in known if current and v < current]
        if not older:
            raise UsageError(f"{uri}: there is no version older than {current} to roll back to")
        version = older[-1]
    if version not in known:
        raise UsageError(f"{uri}: there is no version {version!r}.{nearest(version, known)}")
    read_manifest(uri, version)
    storage.write_bytes(storage.join(uri, "CURRENT"), version.encode())
    return version


def collect_garbage(uri: str, keep_generations: int, young_s: float = _YOUNG_S) -> list[str]:
    """Deletes all but the current and the newest ``keep_generations`` versions, then shards and templates that none of them
    names and that are older than ``young_s``. Returns what it deleted."""
    if keep_generations < 1:
        raise UsageError(f"keep_generations={keep_generations}: must be at least 1")
    known, current = versions(uri), current_version(uri)
    kept = {*known[-keep_generations:], *([current] if current else [])}
    manifests = [read_manifest(uri, v) for v in sorted(kept)]
    deleted = [storage.join("generations", v) for v in known if v not in kept]
    needed = {storage.join("shards", s.name) for g in manifests for s in g.shards}
    needed |= {storage.join("templates", f"{t.name}.npz") for g in manifests for t in g.templates}
    newest: dict[str, float] = {}
    for folder, depth in (("shards", 2), ("templates", 1)):
        for f in storage.list_files(storage.join(uri, folder)):
            thing = storage.join(folder, f.path.split("/")[-depth])
            newest[thing] = max(newest.get(thing, 0.0), f.mtime.timestamp())
    deleted += [thing for thing, at in sorted(newest.items()) if thing not in needed and time.time() - at >= young_s]
    for thing in deleted:
        storage.delete(storage.join(uri, thing, m.SHARD_FILE))  # first, so that half a shard is never taken for a whole one
        storage.delete(storage.join(uri, thing))
    return deleted
