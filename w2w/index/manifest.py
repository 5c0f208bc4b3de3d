"""What a published version of an index is made of, and where its files lie.

``<store>/index/<name>/CURRENT``, ``generations/<version>/manifest.json``, ``templates/<name>.npz``, ``shards/<name>/``.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from w2w import storage
from w2w.errors import UsageError
from w2w.index.spec import IndexConfig, Spec

BASE_FILE, REFINE_FILE, ROWS_FILE, SHARD_FILE = "base.faiss", "refine.faiss", "rows.arrow", "shard.json"


@dataclass(frozen=True)
class StoredTemplate:
    """A template on storage. ``trained_rows`` is how many rows its group had when it was planned."""

    name: str
    sha256: str
    group: str
    categories: tuple[str, ...]
    spec: Spec
    dim: int
    trained_rows: int
    config_digest: str


@dataclass(frozen=True)
class ShardInfo:
    """A shard on storage; ``files`` maps each file's name to its sha256, ``num_bytes`` leaves the ids out."""

    name: str
    category: str
    bucket: int
    num_buckets: int
    num_rows: int
    num_bytes: int
    template: str
    files: dict[str, str]


@dataclass(frozen=True)
class GateResult:
    """``per_category`` maps a category to its ``rows``, ``queries`` and ``recall``."""

    passed: bool
    reasons: tuple[str, ...]
    recall: float
    per_category: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Manifest:
    """One version of an index. Scores are inner products of unit vectors, so cosines."""

    version: str
    name: str
    model_version: str
    encoder: str
    dim: int
    config: IndexConfig
    tables: dict[str, int]  # table name -> the version the rows were read from
    templates: tuple[StoredTemplate, ...]
    shards: tuple[ShardInfo, ...]
    created_at: str
    w2w_version: str
    gate: GateResult | None = None
    metric: str = "cosine"

    @property
    def num_rows(self) -> int:
        return sum(s.num_rows for s in self.shards)

    def rows_by_category(self) -> dict[str, int]:
        rows: dict[str, int] = {}
        for shard in self.shards:
            rows[shard.category] = rows.get(shard.category, 0) + shard.num_rows
        return rows

    def memory_mb(self) -> float:
        """MiB that a searching process maps: codes of all shards and the templates."""
        templates = sum(t.spec.template_bytes(t.dim) for t in self.templates)
        return (sum(s.num_bytes for s in self.shards) + templates) / 2**20


def index_uri(store: str, name: str) -> str:
    return storage.join(storage.absolute(store), "index", name)


def template_uri(uri: str, name: str) -> str:
    return storage.join(uri, "templates", f"{name}.npz")


def shard_uri(uri: str, name: str, file: str = "") -> str:
    return storage.join(uri, "shards", name, *filter(None, [file]))


def manifest_uri(uri: str, version: str) -> str:
    return storage.join(uri, "generations", version, "manifest.json")


def to_json(value: Any) -> bytes:
    return json.dumps(dataclasses.asdict(value), indent=1, sort_keys=True).encode()


def shard_from(plain: dict[str, Any]) -> ShardInfo:
    return ShardInfo(**plain)


def manifest_from(data: bytes, where: str) -> Manifest:
    """Raises UsageError where the file is no manifest of this version of w2w."""
    try:
        plain = json.loads(data)
        gate = plain.pop("gate")
        templates = [{**t, "spec": Spec(**t["spec"]), "categories": tuple(t["categories"])} for t in plain.pop("templates")]
        return Manifest(
            **{k: v for k, v in plain.items() if k not in ("shards", "config")},
            config=IndexConfig(**plain["config"]),
            templates=tuple(StoredTemplate(**t) for t in templates),
            shards=tuple(shard_from(s) for s in plain["shards"]),
            gate=GateResult(**{**gate, "reasons": tuple(gate["reasons"])}) if gate else None,
        )
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as e:
        raise UsageError(f"{where}: not a manifest that this version of w2w can read ({type(e).__name__}: {e})") from e
