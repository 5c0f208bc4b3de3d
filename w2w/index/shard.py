"""Shards: category x hash bucket, named by their content, filled from their group's template."""

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import partial

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import storage
from w2w.errors import JobFailed, UsageError
from w2w.ids import digest, hash_bucket, hash_keys
from w2w.index import manifest as m
from w2w.index.layers import layered, read_base, read_dropped, write_dropped
from w2w.index.manifest import Manifest, ShardInfo, StoredTemplate
from w2w.index.order import row_order
from w2w.index.plan import Plan, plan
from w2w.index.rows import Rows, counts_of, sum_of
from w2w.index.spec import IndexConfig, SeenConfig
from w2w.index.template import Codes, Template, fill, set_threads, unit_vectors
from w2w.memory import taken_on_disk
from w2w.schema import CATEGORY, IMAGE_ID, PRODUCT_ID
from w2w.table import mapped

SMALL = "small categories"  # the group of all categories that are scanned whole
ROWS = pa.schema([pa.field(name, pa.string(), nullable=False) for name in (PRODUCT_ID, IMAGE_ID)])
_WRITE_BYTES = 4 * 2**20  # at a time
_AT_ONCE = 65_536  # rows hashed
_CHECKS = 4  # files read in parallel: hashing them dominates
_MORE_WORK = 1.5  # a template serves until a search scans so many times more than at first, as its lists have become uneven
SUMMED = "sum-"  # digests of earlier versions of w2w begin otherwise, and cannot be compared
_GROWTH = 2  # a template serves until its group has grown or shrunk by this factor


@dataclass(frozen=True)
class Group:
    """Categories that share a template; ``scan_rows`` is the size of the largest one, ``memory_mb`` its share of the budget."""

    name: str
    categories: tuple[str, ...]
    num_rows: int
    scan_rows: int
    memory_mb: float


@dataclass(frozen=True)
class ShardTask:
    """A shard to build, or ``kept`` as it is. ``rows`` has ``ROWS``' columns, of those that a search may find, in the order in
    which ``build_shard`` expects the vectors; ``dropped``: bool, of all rows of a kept shard."""

    name: str
    category: str
    bucket: int
    num_buckets: int
    template: StoredTemplate
    rows: pa.Table
    layer: int = 0
    kept: ShardInfo | None = None
    dropped: np.ndarray | None = None
    told: bool = True  # what ``rows`` are; else they are not read, of a kept shard

    @property
    def content(self) -> str:
        """As that of the shard which it becomes."""
        return self.kept.content if self.kept else self.name


def sorted_rows(rows: pa.Table) -> pa.Table:
    """product_id, image_id, category in the index's order. Raises UsageError for nulls, duplicates and an empty table."""
    return taken_on_disk(rows.select([PRODUCT_ID, IMAGE_ID, CATEGORY]), row_order(rows))


def plan_groups(rows: pa.Table | Rows, cfg: IndexConfig, previous: Manifest | None = None) -> list[Group]:
    """Every large category is a group of its own, all others share one. A large category stays large down to half the limit, so
    that a few rows do not cause retraining."""
    counts = rows.counts if isinstance(rows, Rows) else counts_of(rows)
    if not counts:
        raise UsageError("there are no rows to index")
    was_large = {t.group for t in previous.templates} if previous else set()
    large = {c for c, n in counts.items() if n > cfg.exact_below_rows // (2 if f"category {c}" in was_large else 1)}
    groups: dict[str, tuple[str, ...]] = {f"category {c}": (c,) for c in sorted(large)}
    if len(large) < len(counts):
        groups[SMALL] = tuple(sorted(set(counts) - large))
    total = sum(counts.values())
    sizes = {name: [counts[c] for c in categories] for name, categories in groups.items()}
    return [Group(name, groups[name], sum(n), max(n), cfg.memory_budget_mb * sum(n) / total) for name, n in sizes.items()]


def sample(rows: pa.Table, group: Group, cfg: IndexConfig) -> pa.Table:
    """At most ``sample_rows`` of the group's rows, whose vectors ``train_template`` expects: those with the lowest hashes, so
    nearly the same rows from night to night."""
    mask = pc.is_in(rows[CATEGORY], pa.array(group.categories)).to_numpy()
    mine = np.flatnonzero(mask)
    if len(mine) > cfg.sample_rows:
        hashes = _by_parts(hash_keys, rows[IMAGE_ID], mine) ^ np.uint64(cfg.seed)
        mine = mine[np.sort(np.argpartition(hashes, cfg.sample_rows)[: cfg.sample_rows])]
    return rows.take(pa.array(mine))


def _by_parts(function: Callable[[pa.ChunkedArray], np.ndarray], column: pa.ChunkedArray, rows: np.ndarray) -> np.ndarray:
    """``function`` of these rows of a column, of a part of them at a time."""
    starts = range(0, len(rows), _AT_ONCE)
    found = [function(column.take(pa.array(rows[i : i + _AT_ONCE]))) for i in starts]
    return np.concatenate(found) if found else function(column.slice(0, 0))


def _config_digest(cfg: IndexConfig, model_version: str) -> str:
    ignored = ("name", "keep_generations", "gate_queries", "max_rows_per_shard", "layer_share", "layer_from_rows")
    ignored += tuple(field.name for field in fields(SeenConfig))
    return digest({k: v for k, v in asdict(cfg).items() if k not in ignored}, model_version)


def kept_template(
    uri: str, previous: Manifest | None, group: Group, model_version: str, cfg: IndexConfig
) -> StoredTemplate | None:
    """The published template that still fits the group: same model and config, row count within a factor of two, lists about as
    even as at first, within budget, and intact on storage."""
    for t in previous.templates if previous else ():
        grown = group.num_rows / t.trained_rows
        in_budget = t.spec.memory_mb(group.num_rows, t.dim) <= 1.05 * group.memory_mb or cfg.factory
        same = t.group == group.name and t.config_digest == _config_digest(cfg, model_version)
        is_even = t.imbalance_now <= _MORE_WORK * t.imbalance
        if same and 1 / _GROWTH < grown < _GROWTH and is_even and in_budget:
            return t if storage.sha256(m.template_uri(uri, t.name)) == t.sha256 else None
    return None


def train_template(
    uri: str, sample_ND: np.ndarray, group: Group, model_version: str, cfg: IndexConfig, num_threads: int = 1
) -> tuple[StoredTemplate, Plan]:
    """Plans, trains and writes the group's template. Raises UsageError for bad vectors and budgets that nothing fits."""
    made = plan(unit_vectors(sample_ND), group.num_rows, group.scan_rows, cfg, group.memory_mb, num_threads)
    sha256 = hashlib.sha256(made.template).hexdigest()
    dim, config_digest = int(sample_ND.shape[1]), _config_digest(cfg, model_version)
    name = digest(sha256, group.name, config_digest, length=32)
    storage.write_bytes(m.template_uri(uri, name), made.template)
    return StoredTemplate(name, sha256, group.name, group.categories, made.spec, dim, group.num_rows, config_digest), made


def read_template(uri: str, stored: StoredTemplate) -> Template:
    """Raises JobFailed if the file is missing or damaged."""
    where = m.template_uri(uri, stored.name)
    try:
        blob = storage.read_bytes(where)
    except FileNotFoundError as e:
        raise JobFailed(f"{where}: the template is missing; run 'w2w index', which makes it again") from e
    check_sha256(blob, stored.sha256, where)
    return Template.from_bytes(blob)


def check_sha256(data: bytes | memoryview, expected: str, where: str) -> None:
    if hashlib.sha256(data).hexdigest() != expected:
        raise JobFailed(f"{where}: damaged, its sha256 is not the manifest's; run 'w2w index', which rebuilds it")


def plan_shards(
    rows: pa.Table,
    templates: dict[str, StoredTemplate],
    model_version: str,
    cfg: IndexConfig,
    previous: Manifest | None = None,
    uri: str | None = None,
    touched: pa.Array | None = None,
) -> list[ShardTask]:
    """Tasks for all rows (product_id, image_id, category), by category and bucket. ``templates`` maps a group's name to its
    template. The number of buckets changes only if one would exceed ``max_rows_per_shard`` or fall below a quarter. With
    ``uri``, shards of the previous version that lie there may stay, and what has changed stand beside them (``layers``): of
    the products ``touched``, if given."""
    rows = rows.select([PRODUCT_ID, IMAGE_ID, CATEGORY]).combine_chunks()
    order = row_order(rows)
    of_category = {
        c: t for group in plan_groups(rows, cfg, previous) for t in [templates[group.name]] for c in group.categories
    }
    touched = _beside_bases(uri, previous, touched)
    buckets_before = {s.category: s.num_buckets for s in previous.shards} if previous else {}
    tasks, start = [], 0
    for category, count in sorted(counts_of(rows).items()):
        mine, start = order[start : start + count], start + count
        assert rows[CATEGORY][int(mine[0])].as_py() == rows[CATEGORY][int(mine[-1])].as_py() == category
        num_buckets = num_buckets_of(count, cfg.max_rows_per_shard, buckets_before.get(category, 1))
        template = of_category[category]
        if beside := _layered(uri, rows, mine, previous, category, num_buckets, template, model_version, cfg, touched):
            tasks += beside
            continue
        tasks += tasks_anew(rows, mine, category, num_buckets, template, model_version)
    return tasks


def tasks_anew(
    rows: pa.Table, mine: np.ndarray, category: str, num_buckets: int, template: StoredTemplate, model_version: str
) -> Iterator[ShardTask]:
    """``mine``: the rows of a category, in the index's order."""
    bucket = _by_parts(partial(hash_bucket, num_buckets=num_buckets), rows[PRODUCT_ID], mine)
    by_bucket = _only_rows(rows, mine[np.argsort(bucket, kind="stable")])
    ends = np.cumsum(np.bincount(bucket, minlength=num_buckets)).tolist()
    for b, (first, end) in enumerate(zip([0, *ends], ends)):
        if first < end:
            part = by_bucket.slice(first, end - first)
            name = shard_name(part, category, model_version, template)
            yield ShardTask(name, category, b, num_buckets, template, part)


def _only_rows(rows: pa.Table, which: np.ndarray) -> pa.Table:
    """``ROWS`` of these rows, in this order."""
    return taken_on_disk(rows.select(ROWS.names), which).cast(ROWS)


def _beside_bases(uri: str | None, previous: Manifest | None, touched: pa.Array | None) -> pa.Array | None:
    """Those touched since the previous version, and those of its layers: of all others the rows are in its base shards."""
    if uri is None or previous is None or touched is None:
        return None
    layers = [intact_rows(uri, s) for s in previous.shards if s.layer]
    there = [rows[PRODUCT_ID] for rows in layers if rows is not None]
    chunks = [chunk for column in there for chunk in column.chunks]
    return pc.unique(pa.chunked_array([touched, *chunks], pa.string())) if len(there) == len(layers) else None


def shard_name(rows: pa.Table, category: str, model_version: str, template: StoredTemplate, layer: int = 0) -> str:
    """Of its content."""
    ids = [rows[name].to_pylist() for name in ROWS.names]
    return digest(*ids, category, model_version, template.name, *(["layer"] if layer else []), length=32)


def _layered(
    uri: str | None,
    all_rows: pa.Table,
    mine: np.ndarray,
    previous: Manifest | None,
    category: str,
    num_buckets: int,
    template: StoredTemplate,
    model_version: str,
    cfg: IndexConfig,
    touched: pa.Array | None,
) -> list[ShardTask]:
    """The category's shards as they are, and the layer beside them; empty if they are to be built anew."""
    if not (uri and previous and cfg.layer_share):
        return []
    infos = [s for s in previous.shards if s.category == category and not s.layer]
    if not infos or any(s.template != template.name or s.num_buckets != num_buckets for s in infos):
        return []
    if sum(s.num_rows for s in infos) < cfg.layer_from_rows:
        return []
    bases = [read_base(uri, s, intact_rows) for s in infos]
    there = [base for base in bases if base is not None]
    found = layered(_only_rows(all_rows, mine), there, cfg, touched) if len(there) == len(bases) else None
    if found is None:
        return []
    tasks = []
    for base, rows, dropped in found.kept:
        info = write_dropped(uri, base.info, dropped)
        tasks.append(ShardTask(info.name, category, info.bucket, num_buckets, template, rows, 0, info, dropped))
    if found.fresh.num_rows:
        name = shard_name(found.fresh, category, model_version, template, layer=1)
        tasks.append(ShardTask(name, category, num_buckets, num_buckets, template, found.fresh, 1))
    return tasks


def intact_rows(uri: str, info: ShardInfo) -> pa.Table | None:
    """The rows of a shard all of whose files are intact."""
    return read_rows(uri, info) if is_intact(uri, info) else None


def read_rows(uri: str, info: ShardInfo) -> pa.Table:
    where = m.shard_uri(uri, info.name, m.ROWS_FILE)
    source = pa.py_buffer(storage.read_bytes(where)) if storage.scheme(where) else pa.memory_map(storage.absolute(where))
    return pa.ipc.open_file(source).read_all()


def num_buckets_of(num_rows: int, max_rows: int, before: int) -> int:
    while num_rows > before * max_rows:
        before *= 2
    while before > 1 and num_rows < before * max_rows // 4:
        before //= 2
    return before


def rows_digest(rows: pa.Table | Rows, model_version: str, cfg: IndexConfig) -> str:
    """Equal for the same rows (product_id, image_id, category) in any order, the same model and config."""
    total = rows.total if isinstance(rows, Rows) else sum_of(rows)
    return SUMMED + digest(*total, _config_digest(cfg, model_version))


def is_intact(uri: str, shard: ShardInfo) -> bool:
    """Whether all of a shard's files exist with their recorded sha256. Reads those that may have changed (``mapped``)."""
    return mapped.intact(m.shard_uri(uri, shard.name), shard.files)


def damaged_file(uri: str, manifest: Manifest) -> str | None:
    """A file of a version that is missing or damaged; None if all are intact. Reads those that may have changed."""
    files = [(m.template_uri(uri, t.name), t.sha256) for t in manifest.templates]
    bad = [s for s in manifest.shards if not is_intact(uri, s)]
    files += [(m.shard_uri(uri, s.name, file), sha256) for s in bad for file, sha256 in s.files.items()]
    files += [(m.dropped_uri(uri, s.dropped.name), s.dropped.sha256) for s in manifest.shards if s.dropped]
    with ThreadPoolExecutor(_CHECKS) as pool:
        found = pool.map(storage.sha256, [where for where, _ in files])
        return next((where for (where, sha256), now in zip(files, found) if now != sha256), None)


def digest_of(uri: str, manifest: Manifest) -> str:
    """``rows_digest`` of a version; computed from its shards if an earlier w2w wrote its manifest; empty if one of them cannot
    be read."""
    if manifest.rows_digest.startswith(SUMMED):
        return manifest.rows_digest
    parts = []
    try:
        for s in manifest.shards:
            rows = read_rows(uri, s).filter(pa.array(~read_dropped(uri, s)))
            parts.append(rows.append_column(CATEGORY, pa.repeat(s.category, rows.num_rows)))
    except (FileNotFoundError, pa.ArrowInvalid):
        return ""
    return rows_digest(pa.concat_tables(parts).combine_chunks(), manifest.model_version, manifest.config)


def built_shard(uri: str, task: ShardTask) -> ShardInfo | None:
    """The shard with that content, if it is kept, or an earlier run finished it and it is still intact."""
    if task.kept:
        return task.kept
    try:
        found = m.shard_from(json.loads(storage.read_bytes(m.shard_uri(uri, task.name, m.SHARD_FILE))))
    except (FileNotFoundError, ValueError, TypeError):  # missing or damaged
        return None
    return found if found.name == task.name and is_intact(uri, found) else None


def build_shard(uri: str, task: ShardTask, vectors_ND: np.ndarray, num_threads: int = 1) -> ShardInfo:
    """Writes the shard; row i of the vectors belongs to row i of ``task.rows``. Two runs that build the same one write the same
    bytes. Raises UsageError for NaN, zero vectors and another shape."""
    set_threads(num_threads)
    if len(vectors_ND) != task.rows.num_rows:
        raise UsageError(f"shard {task.category!r}/{task.bucket}: {task.rows.num_rows} rows but {len(vectors_ND)} vectors")
    template = read_template(uri, task.template)
    try:
        codes = fill(template, unit_vectors(vectors_ND, template.dim))
    except UsageError as e:
        raise UsageError(f"category {task.category!r}, bucket {task.bucket}: {e}") from e
    written = {m.BASE_FILE: _write_base(m.shard_uri(uri, task.name, m.BASE_FILE), codes, template)}
    if codes.refine is not None:
        written[m.REFINE_FILE] = _write_index(m.shard_uri(uri, task.name, m.REFINE_FILE), codes.refine)
    num_bytes = sum(size for _, size in written.values())
    ids = _rows_bytes(task.rows)
    storage.write_bytes(m.shard_uri(uri, task.name, m.ROWS_FILE), ids)
    written[m.ROWS_FILE] = hashlib.sha256(ids).hexdigest(), len(ids)
    info = ShardInfo(
        task.name,
        task.category,
        task.bucket,
        task.num_buckets,
        task.rows.num_rows,
        num_bytes,
        task.template.name,
        {file: sha256 for file, (sha256, _) in written.items()},
        task.layer,
    )
    storage.write_bytes(m.shard_uri(uri, task.name, m.SHARD_FILE), m.to_json(info))
    mapped.note(m.shard_uri(uri, task.name), set(written))
    return info


def _write_base(uri: str, codes: Codes, template: Template) -> tuple[str, int]:
    """Without the coarse centroids: the template has them, once for all shards (10 MB per shard at 2048 lists of 1280)."""
    if template.quantizer is None:
        return _write_index(uri, codes.base)
    full, none = codes.base.quantizer, faiss.IndexFlatIP(codes.base.d)
    codes.base.own_fields, codes.base.quantizer = False, none
    try:
        return _write_index(uri, codes.base)
    finally:
        codes.base.own_fields, codes.base.quantizer = True, full


def _write_index(uri: str, index: faiss.Index) -> tuple[str, int]:
    """The file's sha256 and size. Written in parts: a copy of the whole shard would double its memory."""
    sha256, num_bytes = hashlib.sha256(), 0
    with storage.writer(uri) as f:

        def write(part: bytes) -> None:
            nonlocal num_bytes
            sha256.update(part)
            num_bytes += f.write(part)

        faiss.write_index(index, faiss.PyCallbackIOWriter(write, _WRITE_BYTES))
    return sha256.hexdigest(), num_bytes


def _rows_bytes(rows: pa.Table) -> memoryview:
    out = io.BytesIO()
    with pa.ipc.new_file(out, ROWS) as writer:
        writer.write_table(rows)
    return out.getbuffer()
