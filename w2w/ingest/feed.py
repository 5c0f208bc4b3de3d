"""Product feeds: any source as one stream of rows in FEED_SCHEMA, with a record of every rejected row."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from w2w import plugins, schema, storage
from w2w.config import check_label, check_name, nearest
from w2w.errors import JobFailed, Reject, UsageError, attempt
from w2w.ingest import archives, readers
from w2w.ingest.digests import SeenKeys
from w2w.ingest.images import ImageRoot, is_web
from w2w.ingest.normalise import FEED_SCHEMA, FeedBatch, Reading, decimal_sign, normalised
from w2w.ingest.prices import CURRENCIES
from w2w.ingest.raw import COLUMNS, IMAGE, Mapping, RawBatch

__all__ = ["FEED_SCHEMA", "FeedBatch", "FeedConfig", "check_feed", "column_names", "is_feed", "read_feed"]

_SUFFIXES = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
_SUFFIXES |= {".parquet": "parquet", ".pq": "parquet", ".tar": "tar"}
_SAMPLE_BYTES = 1024 * 1024
_MAX_BAD_LINES = 0.01  # of the sample: if more, the encoding is wrong; if fewer, those lines are


@dataclass(frozen=True)
class FeedConfig:
    """One product source."""

    id: str = "main"
    """Name of this source: a product belongs to the feed that brought it."""
    uri: str = ""
    """A CSV, JSON lines (.gz and .zst too) or Parquet file, a folder of Parquet files, images or tars, or shards
    x-{000..009}.tar."""
    kind: str = "auto"
    """csv, jsonl, parquet, images, tar, auto (by the suffix, or by what the folder holds), or module:attribute, a reader of
    your own."""
    columns: dict[str, str] = field(default_factory=dict)
    """Our column (product_id, title, brand, price, currency, category, url, image) -> theirs, where the names differ."""
    attributes: list[str] | None = None
    """Columns of the feed to keep as attributes; null keeps all that are not mapped, [] none."""
    category_map: dict[str, str] = field(default_factory=dict)
    """Their category (case ignored) -> ours; of a path (Apparel > Topwear > Tshirts) its longest beginning that is named here
    counts. Empty: categories are kept, lower-cased."""
    category_default: str = "etc"
    """Category of products that have none, or one that category_map lacks."""
    image_root: str = ""
    """Folder, s3:// prefix or URL that image values are relative to; "": the feed's own folder."""
    currency: str = ""
    """ISO code of the currency of prices that say none, such as EUR."""
    decimal: str = ""
    """Decimal sign of prices, "." or ","; "": a comma where prices such as 12,90 are there and none such as 12.90."""
    csv_delimiter: str = ","
    r"""Column separator of a CSV: one character, or \t."""
    encoding: str = "utf-8-sig"
    """Encoding of CSV and JSON lines: any Python codec. utf-8-sig is UTF-8 with or without a byte order mark."""
    where: dict[str, list[str]] = field(default_factory=dict)
    """Only rows whose column (theirs, mapped or kept as attribute) has one of these values, for example {view: [main]}."""
    full: bool = False
    """The feed lists the whole catalog: this feed's products that it no longer lists are withdrawn."""
    grace_nights: int = 2
    """With full: nights in a row that a product has to be missing before it is withdrawn. Runs within 12 hours count as one
    night."""
    max_unreadable: int = 0
    """With full: nothing is withdrawn while more rows than this have no readable product_id."""


def read_feed(config: FeedConfig, batch_rows: int = 20_000) -> Iterator[FeedBatch]:
    """Every row of the source, once: as a row or as a reject. Of rows with one product_id the first good one is kept.

    Memory is one batch, 16 bytes per product (see SeenKeys), and the listing of the image root. Raises UsageError as
    ``check_feed``, and if a later file of the source lacks a mapped column or is damaged.
    """
    _check_options(config)
    kind, files = _files(config)
    seen, root = SeenKeys(), ImageRoot(config.image_root or _folder(config.uri, kind))
    reading = Reading(config.category_map, config.category_default, config.decimal or ".", config.currency.upper() or None)
    is_told = bool(config.decimal)
    for raw in _read(config, kind, files, batch_rows):
        for start in range(0, max(1, len(raw.source)), batch_rows):
            part = _chosen(_slice(raw, start, batch_rows), config)
            if not is_told and (sign := decimal_sign(part.columns.get(schema.PRICE, pa.nulls(0, pa.string())))):
                reading, is_told = replace(reading, decimal=sign), True
            yield normalised(part, reading, root, seen)


def check_feed(config: FeedConfig) -> None:
    """Raises UsageError, naming the file, column and option, for every fault detectable before any work."""
    _check_options(config)
    kind, files = _files(config)
    if config.image_root and not is_web(config.image_root) and not storage.exists(config.image_root):
        raise UsageError(f"feed.image_root={config.image_root}: no such folder")
    with _whole(config.uri):
        if kind in ("csv", "jsonl"):
            _check_encoding(config)
        if kind == "jsonl":
            keys = readers.jsonl_keys(config.uri, config.encoding)
            if not keys:
                raise UsageError(f"feed.uri={config.uri}: no line is a JSON object with fields; expected one per line")
            _mapping(config, kind).pick(keys, f"feed.uri={config.uri}")
    batches = _read(config, kind, files, 1000)
    if not any(len(b.source) or b.rejects.num_rows for b in batches):
        raise UsageError(f"feed.uri={config.uri}: the feed has no rows")
    if kind == "tar" and any(archives.MEMBER in uri for uri, _ in files):
        raise UsageError(f"feed.uri={config.uri}: {archives.MEMBER!r} in the name of a shard is not allowed")


def column_names(config: FeedConfig) -> list[str]:
    """The column names in the (first) file of a CSV, JSON lines or Parquet source; [] for images and tars."""
    _check_options(config)
    kind, files = _files(config)
    with _whole(config.uri):
        if kind == "csv":
            return readers.csv_header(config.uri, _delimiter(config), config.encoding)
        if kind == "jsonl":
            return readers.jsonl_keys(config.uri, config.encoding)
        return list(readers.open_parquet(files[0][0]).schema_arrow.names) if kind == "parquet" else []


def _check_options(config: FeedConfig) -> None:
    if not config.uri:
        raise UsageError("feed.uri: name the feed")
    if config.kind != "auto":
        plugins.check("reader", config.kind, READERS)
    check_name(config.id, "feed.id", 64)
    if config.grace_nights < 1:
        raise UsageError(f"feed.grace_nights={config.grace_nights}: at least 1, the first night without the product")
    if config.max_unreadable < 0:
        raise UsageError(f"feed.max_unreadable={config.max_unreadable}: must not be negative")
    for ours in config.columns:
        if ours not in COLUMNS:
            raise UsageError(f"feed.columns.{ours}: our columns are {', '.join(COLUMNS)}; keep others with attributes")
    if len(_delimiter(config).encode()) != 1 or config.csv_delimiter in '"\r\n':
        raise UsageError(f"feed.csv_delimiter={config.csv_delimiter!r}: must be one ASCII character, not a quote or line end")
    if config.decimal not in ("", ".", ","):
        raise UsageError(f"feed.decimal={config.decimal!r}: must be '.' or ','")
    if config.currency and config.currency.upper() not in CURRENCIES:
        raise UsageError(f"feed.currency={config.currency!r}: no ISO 4217 code, such as EUR or USD")
    for option, category in {"feed.category_default": config.category_default, **config.category_map}.items():
        check_label(category, option)


def _delimiter(config: FeedConfig) -> str:
    return config.csv_delimiter.replace("\\t", "\t")


def _check_encoding(config: FeedConfig) -> None:
    with readers.open_text(config.uri, config.encoding) as stream:
        lines = stream.read(_SAMPLE_BYTES).decode("utf-8", "ignore").split("\n")
    bad = [i for i, line in enumerate(lines, 1) if readers.MARK in line]
    if len(bad) > _MAX_BAD_LINES * len(lines):
        tell = f"line {bad[0]} is the first of {len(bad)} that are not {config.encoding}"
        raise UsageError(f"feed.uri={config.uri}: {tell}; set feed.encoding=cp1252, latin-1 or utf-16")


def _mapping(config: FeedConfig, kind: str) -> Mapping:
    attributes = None if config.attributes is None else tuple(config.attributes)
    return Mapping(dict(config.columns), attributes, optional=(schema.PRODUCT_ID, IMAGE) if kind == "tar" else ())


def _folder(uri: str, kind: str) -> str:
    """The folder that contains the feed, or that it is."""
    if kind in ("images", "tar"):
        return uri
    path = storage.absolute(uri)
    is_file = storage.filesystem(uri)[0].get_file_info(storage.filesystem(uri)[1]).type == fs.FileType.File
    return path.rpartition("/")[0] or "/" if is_file else path


def _files(config: FeedConfig) -> tuple[str, list[tuple[str, fs.FileInfo]]]:
    """The kind, and the URI and listing entry of each file or folder to read. Raises UsageError."""
    uri, kind = config.uri, config.kind
    if is_web(uri):
        raise UsageError(f"feed.uri={uri}: a feed on the web is not fetched; download it first")
    if "{" in uri:
        found = [(name, _info(name)) for name in archives.expand(uri)]
        for name, info in found:
            if info.type != fs.FileType.File:
                raise UsageError(f"feed.uri={uri}: no such file: {name}")
        return _known(kind, uri, "tar"), [(storage.absolute(name), info) for name, info in found]
    info = _info(uri)
    if info.type == fs.FileType.NotFound:
        raise UsageError(f"feed.uri={uri}: no such file or folder")
    if info.type == fs.FileType.File:
        name = _uncompressed(uri)
        if name != uri.lower() and name.endswith((".tar", ".parquet")):
            raise UsageError(
                f"feed.uri={uri}: a compressed archive cannot be read by ranges; unpack it to {name.rpartition('/')[2]}"
            )
        kind = _known(kind, uri, _kind_by_suffix(name))
        if kind == "images":
            raise UsageError(f"feed.uri={uri}: kind=images is a folder of images, this is a file")
        if info.size == 0:
            raise UsageError(f"feed.uri={uri}: the file is empty")
        return kind, [(storage.absolute(uri), info)]
    if info.type != fs.FileType.Directory:
        raise UsageError(f"feed.uri={uri}: neither a plain file nor a folder")
    return _folder_files(config)


def is_feed(uri: str) -> bool:
    """Whether a file's suffix is that of a table or an archive."""
    return _kind_by_suffix(_uncompressed(uri)) is not None


def _kind_by_suffix(name: str) -> str | None:
    return next((k for suffix, k in _SUFFIXES.items() if name.endswith(suffix)), None)


def _uncompressed(uri: str) -> str:
    name = uri.lower()
    for compressed in (".gz", ".zst", ".bz2"):
        name = name.removesuffix(compressed)
    return name


def _folder_files(config: FeedConfig) -> tuple[str, list[tuple[str, fs.FileInfo]]]:
    uri, root = config.uri, storage.absolute(config.uri)
    listed = [f for f in storage.list_files(root) if not f.path.rpartition("/")[2].startswith((".", "_"))]
    by_kind = {
        "parquet": [f for f in listed if f.path.lower().endswith((".parquet", ".pq"))],
        "tar": [f for f in listed if f.path.lower().endswith(".tar")],
        "images": [f for f in listed if archives.is_image(f.path)],
    }
    holds = [kind for kind, files in by_kind.items() if files]
    if config.kind == "auto" and len(holds) > 1:
        raise UsageError(f"feed.uri={uri}: the folder holds {' and '.join(holds)}; set feed.kind to one of them")
    if config.kind == "auto" and not holds:
        raise UsageError(f"feed.uri={uri}: no images, Parquet files or tars in this folder")
    kind = _known(config.kind, uri, holds[0] if holds else None)
    if kind not in READERS:
        return kind, [(root, _info(uri))]
    if kind not in by_kind:
        raise UsageError(f"feed.uri={uri}: kind={kind} is a file, this is a folder")
    if not by_kind[kind]:
        raise UsageError(f"feed.uri={uri}: no {kind} in this folder")
    return kind, [(archives.uri_of(f, root), f) for f in by_kind[kind]] if kind != "images" else [(root, _info(uri))]


def _info(uri: str) -> fs.FileInfo:
    system, path = storage.filesystem(uri)
    with storage.named("read", uri):
        info = attempt(system.get_file_info, path)
    if isinstance(info, Reject):
        raise UsageError(f"feed.uri={uri}: {info.detail}")
    return info


def _known(kind: str, uri: str, guess: str | None) -> str:
    if kind != "auto":
        return kind
    if guess is None:
        raise UsageError(f"feed.uri={uri}: cannot tell what this is; set feed.kind to one of {', '.join(READERS)}")
    return guess


def _read(config: FeedConfig, kind: str, files: list[tuple[str, fs.FileInfo]], batch_rows: int) -> Iterator[RawBatch]:
    read, mapping = plugins.find("reader", kind, READERS), _mapping(config, kind)
    for uri, info in files:
        with _whole(uri):
            yield from read(uri, info, config, mapping, batch_rows)


# kind -> reads a file in batches; images, and kinds from outside, get the folder itself instead of its files
READERS: dict[str, Callable[[str, fs.FileInfo, FeedConfig, Mapping, int], Iterator[RawBatch]]] = {
    "csv": lambda uri, info, c, mapping, n: readers.read_csv(uri, _delimiter(c), c.encoding, mapping),
    "jsonl": lambda uri, info, c, mapping, n: readers.read_jsonl(uri, c.encoding, mapping, n),
    "parquet": lambda uri, info, c, mapping, n: readers.read_parquet(uri, mapping, n),
    "images": lambda uri, info, c, mapping, n: archives.read_images(uri, n),
    "tar": lambda uri, info, c, mapping, n: archives.read_tar(info, uri, mapping, n),
}


@contextmanager
def _whole(uri: str) -> Iterator[None]:
    """A library's error about a damaged file as UsageError; a lost connection as StorageFailed."""
    with storage.named("read", uri):
        try:
            yield
        except (OSError, pa.ArrowException) as e:
            if isinstance(e, JobFailed) or "AWS Error" in str(e):  # the connection failed, not the file
                raise
            raise UsageError(f"feed.uri={uri}: it cannot be read to its end: {e}") from e


def _chosen(raw: RawBatch, config: FeedConfig) -> RawBatch:
    """The rows selected by ``where``; rejects stay, since their values are unknown."""
    keep = None
    for theirs, values in config.where.items():
        ours = [o for o in raw.columns if config.columns.get(o, o) == theirs]
        column = raw.columns[ours[0]] if ours else pc.map_lookup(raw.attributes, theirs, "first")
        if not ours and len(column) and column.null_count == len(column) and raw.rejects.num_rows == 0:
            known = sorted({*(config.columns.get(o, o) for o in raw.columns), *pc.unique(raw.attributes.keys).to_pylist()})
            raise UsageError(f"feed.where.{theirs}: no row has a value there.{nearest(theirs, known)}")
        here = pc.fill_null(pc.is_in(column, value_set=pa.array(values, pa.string())), False)
        keep = here if keep is None else pc.and_(keep, here)
    if keep is None:
        return raw
    columns = {name: column.filter(keep) for name, column in raw.columns.items()}
    images = raw.images and raw.images.filter(keep)
    rest = {"attributes": raw.attributes.filter(keep), "source": raw.source.filter(keep), "images": images}
    return replace(raw, columns=columns, **rest)


def _slice(raw: RawBatch, start: int, length: int) -> RawBatch:
    """Part of a batch; the rejects go with its first part."""
    return RawBatch(
        {name: column.slice(start, length) for name, column in raw.columns.items()},
        raw.attributes.slice(start, length),
        raw.source.slice(start, length),
        raw.rejects if start == 0 else raw.rejects.slice(0, 0),
        raw.images and raw.images.slice(start, length),
        raw.num_aside if start == 0 else 0,
    )
