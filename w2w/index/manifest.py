"""A published version of an index: its contents, and where its files are.

``<store>/index/<name>/CURRENT``, ``generations/<version>/`` with ``manifest.json``, ``truth.arrow``, ``seen.arrow`` and
``stock.arrow``, ``templates/<name>.npz``, ``shards/<name>/``, ``dropped/<name>.bits``.
"""

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from w2w import storage
from w2w.config import check_name
from w2w.errors import UsageError
from w2w.index.spec import IndexConfig, Spec
from w2w.table.published import VERSION, uri_of

BASE_FILE, REFINE_FILE, ROWS_FILE, SHARD_FILE = "base.faiss", "refine.faiss", "rows.arrow", "shard.json"
_NAME, _SHA256 = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class StoredTemplate:
    """A stored template. ``trained_rows`` is the size of its group when it was planned; ``imbalance``: how unevenly its lists
    were filled in the first version that has it, and ``imbalance_now`` in this one (1: evenly; 0: it has none)."""

    name: str
    sha256: str
    group: str
    categories: tuple[str, ...]
    spec: Spec
    dim: int
    trained_rows: int
    config_digest: str
    imbalance: float = 0.0
    imbalance_now: float = 0.0


@dataclass(frozen=True)
class Dropped:
    """The rows of a shard that are gone: a bit for each row, in a file of that name."""

    name: str
    sha256: str
    num_rows: int


@dataclass(frozen=True)
class ShardInfo:
    """A stored shard; ``files`` maps each file's name to its sha256, ``num_bytes`` excludes the ids. ``num_rows`` counts those
    that are ``dropped``, too. ``layer`` 1: of rows that came after the category's other shards were built."""

    name: str
    category: str
    bucket: int
    num_buckets: int
    num_rows: int
    num_bytes: int
    template: str
    files: dict[str, str]
    layer: int = 0
    dropped: Dropped | None = None

    @property
    def num_there(self) -> int:
        """Rows that a search may find."""
        return self.num_rows - (self.dropped.num_rows if self.dropped else 0)

    @property
    def content(self) -> str:
        """Equal for shards of which a search finds the same."""
        return f"{self.name} without {self.dropped.name}" if self.dropped else self.name

    def with_dropped(self, dropped: Dropped) -> "ShardInfo":
        return dataclasses.replace(self, dropped=dropped)

    def without_dropped(self) -> "ShardInfo":
        return dataclasses.replace(self, dropped=None)


@dataclass(frozen=True)
class GateResult:
    """``per_category`` maps a category to its ``rows``, ``queries`` and ``recall``, and to what the release gate measures
    (``rules_release``), of all in ``seen``. ``reasons``: why it failed, or what was accepted."""

    passed: bool
    reasons: tuple[str, ...]
    recall: float
    per_category: dict[str, dict[str, float]]
    seen: dict[str, float] = dataclasses.field(default_factory=dict)


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
    rows_digest: str = ""  # of rows, model and config: equal for an index of the same inputs
    table_ids: dict[str, str] = dataclasses.field(default_factory=dict)  # a recreated table has another id
    standing: dict[str, Any] = dataclasses.field(default_factory=dict)  # of the tables, by their logs, before they were read
    colour: float = 0.0  # of EncoderConfig
    truth: str = ""  # sha256 of the file of the gate's queries and their exact neighbours; empty: there is none
    seen: str = ""  # the same of the file of what shoppers see
    bridged_from: str = ""  # the model version whose vectors are mapped into it by a bridge, where there are no others

    @property
    def num_rows(self) -> int:
        return sum(s.num_there for s in self.shards)

    def rows_by_category(self) -> dict[str, int]:
        rows: dict[str, int] = {}
        for shard in self.shards:
            rows[shard.category] = rows.get(shard.category, 0) + shard.num_there
        return rows

    def memory_mb(self) -> float:
        """MiB that a searching process maps: codes of all shards and the templates."""
        templates = sum(t.spec.template_bytes(t.dim) for t in self.templates)
        return (sum(s.num_bytes for s in self.shards) + templates) / 2**20


def index_uri(store: str, name: str) -> str:
    """Raises UsageError for what is no name, such as a path that leads out of the store."""
    check_name(name, "index")
    return uri_of(store, name)


def template_uri(uri: str, name: str) -> str:
    return storage.join(uri, "templates", f"{name}.npz")


def shards_uri(uri: str) -> str:
    return storage.join(uri, "shards")


def shard_uri(uri: str, name: str, file: str = "") -> str:
    return storage.join(shards_uri(uri), name, *filter(None, [file]))


def dropped_uri(uri: str, name: str) -> str:
    return storage.join(uri, "dropped", f"{name}.bits")


def truth_uri(uri: str, version: str) -> str:
    return storage.join(uri, "generations", version, "truth.arrow")


def seen_uri(uri: str, version: str) -> str:
    return storage.join(uri, "generations", version, "seen.arrow")


def stock_uri(uri: str, version: str) -> str:
    return storage.join(uri, "generations", version, "stock.arrow")


def to_json(value: Any) -> bytes:
    """Plain values of a dataclass, or of a list of them."""
    return _dump([dataclasses.asdict(v) for v in value] if isinstance(value, list) else dataclasses.asdict(value))


def _dump(plain: Any) -> bytes:
    return json.dumps(plain, indent=1, sort_keys=True).encode()


def manifest_bytes(manifest: Manifest) -> bytes:
    """The manifest's file, with a checksum over the rest of it."""
    plain = dataclasses.asdict(manifest)
    return _dump(plain | {"sha256": hashlib.sha256(_dump(plain)).hexdigest()})


def shard_from(plain: dict[str, Any]) -> ShardInfo:
    """Raises ValueError for names that we did not write: they become paths."""
    gone = plain.get("dropped")
    shard = ShardInfo(**{**plain, "dropped": Dropped(**gone) if gone else None})
    names = [shard.name, shard.template, *([shard.dropped.name] if shard.dropped else [])]
    if not all(isinstance(n, str) and _NAME.fullmatch(n) for n in names):
        raise ValueError(f"a shard or template is called {names!r}"[:200])
    if not {BASE_FILE, ROWS_FILE} <= set(shard.files) <= {BASE_FILE, REFINE_FILE, ROWS_FILE}:
        raise ValueError(f"shard {shard.name} is made of {sorted(shard.files)}"[:200])
    if not all(isinstance(v, str) and _SHA256.fullmatch(v) for v in shard.files.values()):
        raise ValueError(f"shard {shard.name}: an invalid sha256")
    return shard


def manifest_from(data: bytes, where: str) -> Manifest:
    """Raises UsageError if the file is damaged, or not a manifest of this version of w2w."""
    try:
        plain = json.loads(data)
        checksum = plain.pop("sha256", None)  # earlier versions of w2w wrote none
        if checksum is not None and checksum != hashlib.sha256(_dump(plain)).hexdigest():
            raise ValueError("its checksum does not match: it is damaged")
        gate = plain.pop("gate")
        templates = [{**t, "spec": Spec(**t["spec"]), "categories": tuple(t["categories"])} for t in plain.pop("templates")]
        manifest = Manifest(
            **{k: v for k, v in plain.items() if k not in ("shards", "config")},
            config=IndexConfig(**plain["config"]),
            templates=tuple(StoredTemplate(**t) for t in templates),
            shards=tuple(shard_from(s) for s in plain["shards"]),
            gate=GateResult(**{**gate, "reasons": tuple(gate["reasons"])}) if gate else None,
        )
        stored = {t.name for t in manifest.templates}
        if not VERSION.fullmatch(manifest.version) or not all(_NAME.fullmatch(name) for name in stored):
            raise ValueError("a version or template has an invalid name")
        if not {s.template for s in manifest.shards} <= stored:
            raise ValueError("a shard's template is not listed")
        return manifest
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise UsageError(f"{where}: not a manifest that this version of w2w can read ({type(e).__name__}: {e})") from e
