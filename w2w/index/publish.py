"""Versions of an index: publish after the gate, roll back, hold back, list, garbage-collect."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import w2w
from w2w import storage
from w2w.config import nearest
from w2w.errors import Changed, JobFailed, StorageFailed, UsageError
from w2w.ids import digest
from w2w.index import manifest as m
from w2w.index.manifest import GateResult, Manifest, ShardInfo, StoredTemplate
from w2w.index.shard import SUMMED, damaged_file, digest_of
from w2w.index.spec import IndexConfig
from w2w.models.config import EncoderConfig
from w2w.table import lease
from w2w.table.published import VERSION, current_uri, manifest_uri

_YOUNG_S = 24 * 3600.0  # a younger shard may belong to a run that has not published yet
_WITHDRAWN = b"withdrawn: "  # what CURRENT says in place of a version, before the reason


def new_manifest(
    cfg: IndexConfig,
    model_version: str,
    encoder: EncoderConfig,
    tables: dict[str, int],
    templates: list[StoredTemplate],
    shards: list[ShardInfo],
    rows_digest: str,
    table_ids: dict[str, str] | None = None,
) -> Manifest:
    """A manifest without a gate result, for ``gate``. Versions sort by time."""
    now = datetime.now(UTC)
    ordered = tuple(sorted(shards, key=lambda s: (s.category, s.bucket)))
    version = f"{now:%Y%m%dT%H%M%S%f}-{digest([s.content for s in ordered], model_version, length=8)}"
    return Manifest(
        version=version,
        name=cfg.name,
        model_version=model_version,
        encoder=encoder.name,
        dim=templates[0].dim,
        config=cfg,
        tables=tables,
        templates=tuple(templates),
        shards=ordered,
        created_at=now.isoformat(timespec="seconds"),
        w2w_version=w2w.__version__,
        rows_digest=rows_digest,
        table_ids=table_ids or {},
        colour=encoder.colour,
    )


@dataclass(frozen=True)
class Published:
    """The published index as a draft finds it: the content of ``CURRENT`` and the manifest that it names; ``damage``: why that
    cannot be read; ``withdrawn``: why nothing is published any more."""

    current: bytes | None
    manifest: Manifest | None
    damage: str = ""
    withdrawn: str = ""


@dataclass(frozen=True)
class Held:
    """A version that was rolled back from; ``by_model``: to one of another model."""

    version: str
    rows_digest: str
    model_version: str
    by_model: bool
    since: str


def publish(
    uri: str, manifest: Manifest, gate: GateResult, base: Published, truth: bytes = b"", seen: bytes = b"", stock: bytes = b""
) -> str:
    """Writes the manifest, then ``CURRENT`` in one atomic write; returns the version. ``truth``, ``seen``, ``stock``: what the
    gate knows of its queries and of what shoppers see, for the next one.

    ``base`` is what was published when the draft began. Raises JobFailed, leaving CURRENT unchanged, if the gate failed, the
    base was made from newer tables, or another run has published since.
    """
    if not gate.passed:
        raise JobFailed(f"index {manifest.name!r} is not published: {'; '.join(gate.reasons)}")
    _check_forward(manifest, base.manifest)
    lease.check(uri)
    write_version(uri, manifest, gate, truth, seen, stock)
    try:
        storage.replace_if(current_uri(uri), manifest.version.encode(), base.current)
    except Changed as e:
        storage.delete(storage.join(uri, "generations", manifest.version))
        raise JobFailed(
            f"index {manifest.name!r} is not published: another run published {current_version(uri)} while this one was "
            f"at work; run it again"
        ) from e
    return manifest.version


def write_version(uri: str, manifest: Manifest, gate: GateResult, truth: bytes, seen: bytes, stock: bytes) -> None:
    """A version's files, which nothing points at yet."""
    sums = [hashlib.sha256(data).hexdigest() if data else "" for data in (truth, seen)]
    told = replace(manifest, gate=gate, truth=sums[0], seen=sums[1])
    storage.write_bytes(manifest_uri(uri, manifest.version), m.manifest_bytes(told))
    for data, file_of in ((truth, m.truth_uri), (seen, m.seen_uri), (stock, m.stock_uri)):
        if data:  # behind the manifest, by which they are found when they are to go
            storage.write_bytes(file_of(uri, manifest.version), data)


def withdraw(uri: str, why: str, base: Published) -> None:
    """Ends what is published, if anything is; readers are told ``why``. Raises JobFailed, leaving CURRENT unchanged, if another
    run has published since ``base`` was read."""
    if base.current is None or base.withdrawn == why:
        return
    lease.check(uri)
    try:
        storage.replace_if(current_uri(uri), _WITHDRAWN + why.encode(), base.current)
    except Changed as e:
        raise JobFailed(
            f"{uri}: another run has published {current_version(uri)} while this one was at work; run it again"
        ) from e


def _why_withdrawn(current: bytes | None) -> str:
    """Empty for a CURRENT that names a version."""
    if current is None or not current.startswith(_WITHDRAWN):
        return ""
    return current.removeprefix(_WITHDRAWN).decode("utf-8", "replace")


def _check_forward(manifest: Manifest, before: Manifest | None) -> None:
    if before is None:
        return
    for table, version in before.tables.items():
        same_table = before.table_ids.get(table) == manifest.table_ids.get(table)
        if same_table and manifest.tables.get(table, version) < version:
            raise JobFailed(
                f"index {manifest.name!r} is not published: {before.version} was made from version {version} of table "
                f"{table!r}, this run from version {manifest.tables[table]}; run it again"
            )


def _read(uri: str) -> bytes | None:
    try:
        return storage.read_bytes(uri)
    except FileNotFoundError:
        return None


def current_version(uri: str) -> str | None:
    """The published version; None if there is none, or it was withdrawn. Raises JobFailed if ``CURRENT`` names no version."""
    return _version_in(_read(current_uri(uri)), uri)


def _version_in(current: bytes | None, uri: str) -> str | None:
    if current is None or _why_withdrawn(current):
        return None
    found = current.decode("utf-8", "replace").strip()
    if not VERSION.fullmatch(found):
        raise JobFailed(
            f"{current_uri(uri)}: damaged, it names no version; run 'w2w index', or --rollback_to one of its versions"
        )
    return found


def read_manifest(uri: str, version: str | None = None) -> Manifest:
    """The published manifest, or that of a version. Raises UsageError naming the existing versions."""
    current = None if version else _read(current_uri(uri))
    wanted = version or _version_in(current, uri)
    if wanted is None:
        why = _why_withdrawn(current)
        raise UsageError(
            f"{uri}: nothing is published, as {why}" if why else f"{uri}: no index is published there; run 'w2w index' first"
        )
    where = manifest_uri(uri, wanted)
    data = _read(where) if VERSION.fullmatch(wanted) else None
    if data is None and version is None:
        raise JobFailed(
            f"{uri}: the manifest of version {wanted}, which is published, is gone: run 'w2w index', which makes one"
        )
    if data is None:
        raise UsageError(f"{uri}: there is no version {wanted!r}.{nearest(wanted, versions(uri))}")
    return m.manifest_from(data, where)


def published(uri: str) -> Published:
    """What a draft starts from. A damaged ``CURRENT`` or manifest is not an error here: the run replaces it."""
    current = _read(current_uri(uri))
    if current is None:
        return Published(None, None)
    if why := _why_withdrawn(current):
        return Published(current, None, withdrawn=why)
    try:
        return Published(current, read_manifest(uri, _version_in(current, uri)))
    except (UsageError, JobFailed) as e:
        if isinstance(e, StorageFailed):
            raise
        return Published(current, None, str(e))


def versions(uri: str) -> list[str]:
    """Published versions, oldest first."""
    found = storage.list_files(storage.join(uri, "generations"))
    named = {f.path.split("/")[-2] for f in found if f.base_name == "manifest.json"}
    return sorted(v for v in named if VERSION.fullmatch(v))


def rollback(uri: str, version: str | None = None, shown: Callable[[Manifest], Manifest] = lambda target: target) -> str:
    """Points CURRENT at ``version``, or at the newest one before the current one that is not held back; returns it.

    ``shown``: what takes the place of that version, see ``withheld``. A version that is rolled back from is held back: see
    ``held``. Raises UsageError if there is none to go to, JobFailed if
    files of the target are missing or damaged.
    """
    before = published(uri)
    if before.withdrawn:
        raise UsageError(f"{uri}: not rolled back, as {before.withdrawn}")
    version = version or _version_before(uri, before.current)
    target = read_manifest(uri, version)
    if damaged := damaged_file(uri, target):
        raise JobFailed(f"{uri}: not rolled back to {version}: {damaged} is missing or damaged; --rollback_to another version")
    left = _left(uri, before.manifest, target)
    now = shown(target).version
    _change_held(uri, lambda held: [h for h in held if h.version not in (version, now)] + left)
    storage.replace_if(current_uri(uri), now.encode(), before.current)
    return now


def _version_before(uri: str, current: bytes | None) -> str:
    """The newest before the one that CURRENT names (readable or not) that is neither held back nor made of the same shards:
    republishing a version does not make it another index."""
    known = versions(uri)
    try:
        now = _version_in(current, uri)
    except JobFailed as e:
        raise UsageError(str(e)) from e
    if now is None:
        raise UsageError(f"{uri}: no index is published there" + ("; --rollback_to one of its versions" if known else ""))
    held_back = {h.version for h in read_held(uri)}
    older = [v for v in known if time_of(v) < time_of(now) and v not in held_back and _content(v) != _content(now)]
    if not older:
        raise UsageError(f"{uri}: there is no other version older than {now} to roll back to")
    return older[-1]


def time_of(version: str) -> str:
    """When it was made. Equal for a version and what is left of it without refused pictures."""
    return version.partition("-")[0]


def _content(version: str) -> str:
    """Equal for versions of the same shards and model, see ``new_manifest``."""
    return version.partition("-")[2]


def _left(uri: str, before: Manifest | None, target: Manifest) -> list[Held]:
    if before is None or time_of(before.version) <= time_of(target.version):
        return []
    other_model = before.model_version != target.model_version
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return [Held(before.version, digest_of(uri, before), before.model_version, other_model, now)]


def read_held(uri: str) -> list[Held]:
    """The versions that were rolled back from and not released, oldest first. Raises JobFailed if the file is damaged."""
    return _held_in(_read(storage.join(uri, "HELD")), uri)


def _held_in(data: bytes | None, uri: str) -> list[Held]:
    try:
        found = [Held(**h) for h in json.loads(data or b"[]")]
        if not all(isinstance(h.by_model, bool) and VERSION.fullmatch(h.version) for h in found):
            raise ValueError("a version has an invalid name")
        return found
    except (ValueError, TypeError) as e:
        raise JobFailed(f"{storage.join(uri, 'HELD')}: damaged ({e}); delete it to release all versions") from e


def _change_held(uri: str, change: Callable[[list[Held]], list[Held]]) -> None:
    where = storage.join(uri, "HELD")
    data = _read(where)
    before = _held_in(data, uri)
    after = sorted(change(before), key=lambda h: h.version)
    if after != before:
        storage.replace_if(where, m.to_json(after), data)


def held(uri: str, rows_digest: str, model_version: str) -> Held | None:
    """The rolled-back version that an index of these rows and this model would restore: one of the same rows, or one that was
    abandoned for a version of another model. None if there is none."""
    for h in reversed(read_held(uri)):
        if _digest_of(uri, h) == rows_digest or (h.by_model and h.model_version == model_version):
            return h
    return None


def _digest_of(uri: str, held: Held) -> str:
    """As it is computed now."""
    manifest = None if held.rows_digest.startswith(SUMMED) else _readable(uri, held.version)
    return digest_of(uri, manifest) if manifest else held.rows_digest


def release(uri: str, version: str) -> None:
    """Allows a version that was rolled back from to be published again. Raises UsageError if it is not held back."""
    known = [h.version for h in read_held(uri)]
    if version not in known:
        raise UsageError(f"{uri}: version {version!r} is not held back.{nearest(version, known)}")
    _change_held(uri, lambda held: [h for h in held if h.version != version])


def _readable(uri: str, version: str) -> Manifest | None:
    try:
        return read_manifest(uri, version)
    except UsageError:
        return None


def collect_garbage(uri: str, keep_generations: int, young_s: float = _YOUNG_S) -> list[str]:
    """Deletes all but the current and the newest ``keep_generations`` versions, then shards and templates that none of them
    references and that are older than ``young_s``. Returns what it deleted. If a manifest cannot be read, its references are
    unknown: shards and templates stay until it is itself deleted."""
    if keep_generations < 1:
        raise UsageError(f"keep_generations={keep_generations}: must be at least 1")
    known, current = versions(uri), current_version(uri)
    kept = {*known[-keep_generations:], *([current] if current else [])}
    manifests = [_readable(uri, v) for v in sorted(kept)]
    deleted = [storage.join("generations", v) for v in known if v not in kept]
    whole = [g for g in manifests if g is not None]
    needed = {storage.join("shards", s.name) for g in whole for s in g.shards}
    needed |= {storage.join("templates", f"{t.name}.npz") for g in whole for t in g.templates}
    needed |= {storage.join("dropped", f"{s.dropped.name}.bits") for g in whole for s in g.shards if s.dropped}
    newest: dict[str, float] = {}
    for folder, depth in (("shards", 2), ("templates", 1), ("dropped", 1)) if len(whole) == len(manifests) else ():
        for f in storage.list_files(storage.join(uri, folder)):
            thing = storage.join(folder, f.path.split("/")[-depth])
            newest[thing] = max(newest.get(thing, 0.0), f.mtime.timestamp())
    deleted += [thing for thing, at in sorted(newest.items()) if thing not in needed and time.time() - at >= young_s]
    for thing in deleted:
        storage.delete(storage.join(uri, thing, m.SHARD_FILE))  # first, so that half a shard is never mistaken for a whole one
        storage.delete(storage.join(uri, thing))
    return deleted
