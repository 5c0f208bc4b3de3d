"""The shards of an opened index: each is checked and mapped when it is first used."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import storage
from w2w.errors import JobFailed
from w2w.index import manifest as m
from w2w.index.layers import read_dropped
from w2w.index.manifest import Manifest, ShardInfo
from w2w.index.shard import check_sha256, is_intact
from w2w.index.template import Codes, Template
from w2w.schema import PRODUCT_ID


@dataclass(frozen=True)
class Content:
    """What a shard holds: its rows, sorted by product and picture, and ``products``: int32 (rows,), equal where the product is
    the same."""

    codes: Codes
    rows: pa.Table
    products: np.ndarray


class Shard:
    """A shard of an index. ``read`` and ``read_there`` are called once, when it is first used: they raise JobFailed for a file
    that is missing or damaged. ``there``: bool (rows,), False for rows that are gone; None if none are."""

    def __init__(
        self, info: ShardInfo, read: Callable[[], Content], read_there: Callable[[], np.ndarray | None] = lambda: None
    ):
        self.info = info
        self._read, self._read_there, self._lock = read, read_there, threading.Lock()
        self._content: Content | None = None

    @property
    def content(self) -> Content:
        with self._lock:
            if self._content is None:
                self._content = self._read()
            return self._content

    @property
    def codes(self) -> Codes:
        return self.content.codes

    @property
    def rows(self) -> pa.Table:
        return self.content.rows

    @property
    def products(self) -> np.ndarray:
        return self.content.products

    @cached_property
    def there(self) -> np.ndarray | None:
        return self._read_there()

    def imbalance(self) -> float | None:
        """How unevenly the inverted lists are filled: 1 evenly, n if all rows are in one of n; None where there are none."""
        return self.codes.base.invlists.imbalance_factor() if isinstance(self.codes.base, faiss.IndexIVF) else None

    @property
    def rows_there(self) -> pa.Table:
        """Those that a search may find."""
        return self.rows if self.there is None else self.rows.filter(pa.array(self.there))


def open_shards(uri: str, manifest: Manifest, templates: dict[str, Template], cache: str) -> tuple[Shard, ...]:
    """Of all shards only the names are looked up. Raises JobFailed if a file is missing."""
    _check_there(uri, manifest, cache)

    def one(info: ShardInfo) -> Shard:
        return Shard(info, lambda: _read(uri, info, templates[info.template], cache), lambda: _there(uri, info))

    return tuple(one(info) for info in manifest.shards)


def _check_there(uri: str, manifest: Manifest, cache: str) -> None:
    files = [(s.name, file) for s in manifest.shards for file in s.files]
    local = cache if storage.is_s3(uri) else storage.absolute(m.shards_uri(uri))
    gone = [(name, file) for name, file in files if not os.path.exists(os.path.join(local, name, file))]
    if gone and storage.is_s3(uri):
        there = {tuple(f.path.split("/")[-2:]) for f in storage.list_files(m.shards_uri(uri))}
        gone = [one for one in gone if one not in there]
    if gone:
        raise _missing(m.shard_uri(uri, *gone[0]))


def _missing(where: str) -> JobFailed:
    return JobFailed(f"{where}: missing; roll back, or run 'w2w index', which rebuilds it")


def _there(uri: str, info: ShardInfo) -> np.ndarray | None:
    return ~read_dropped(uri, info) if info.dropped else None


def _read(uri: str, info: ShardInfo, template: Template, cache: str) -> Content:
    where = {file: m.shard_uri(uri, info.name, file) for file in info.files}
    if not storage.scheme(uri) and is_intact(uri, info):
        paths = {file: storage.absolute(path) for file, path in where.items()}
    else:
        paths = {file: _local(where[file], storage.join(cache, info.name, file), sha) for file, sha in info.files.items()}
    base = faiss.read_index(paths[m.BASE_FILE], faiss.IO_FLAG_MMAP if template.spec.num_lists else faiss.IO_FLAG_MMAP_IFC)
    if template.quantizer is not None:  # the file has none, see shard._write_base; the template outlives the shard in Index
        base.own_fields, base.quantizer = False, template.quantizer
        lists = faiss.downcast_InvertedLists(base.invlists)
        if isinstance(lists, faiss.OnDiskInvertedLists):
            lists.prefetch_nthread = 0  # 32 unwanted threads: 5 % of a search
    refine = faiss.read_index(paths[m.REFINE_FILE], faiss.IO_FLAG_MMAP_IFC) if m.REFINE_FILE in paths else None
    rows = pa.ipc.open_file(pa.memory_map(paths[m.ROWS_FILE])).read_all()
    if not base.ntotal == rows.num_rows == info.num_rows:
        raise JobFailed(f"shard {info.name}: {base.ntotal} vectors, {rows.num_rows} ids, {info.num_rows} in the manifest")
    return Content(Codes(base, refine), rows, product_numbers(rows))


def product_numbers(rows: pa.Table) -> np.ndarray:
    """int32 (rows,) of sorted rows: equal where the product is the same."""
    product = rows[PRODUCT_ID]
    changes = pc.not_equal(product[1:], product[:-1]).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(changes)]).astype(np.int32)


def _local(source: str, cached: str, sha256: str) -> str:
    """A path whose content has that sha256: the file itself, or its copy in the cache."""
    path = cached if storage.is_s3(source) else storage.absolute(source)
    if storage.sha256(path) == sha256:
        return path
    try:
        data = storage.read_bytes(source)
    except FileNotFoundError as e:
        raise _missing(source) from e
    check_sha256(data, sha256, source)
    if path == cached:
        storage.write_bytes(cached, data)
    return path
