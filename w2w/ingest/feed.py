"""Product feeds: any source as one stream of rows in FEED_SCHEMA, with a record of every rejected row."""

import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from w2w import plugins, schema, storage
from w2w.classes import check_classes
from w2w.config import check_label, check_name, nearest
from w2w.errors import BadInput, JobFailed, Reject, UsageError, attempt
from w2w.ingest import amounts, archives, delimited, nights, parquet, presets, text, trees
from w2w.ingest.config import FeedConfig
from w2w.ingest.dicts import batch_of_dicts
from w2w.ingest.digests import SeenKeys, last_of_each
from w2w.ingest.images import ImageRoot, is_web
from w2w.ingest.look import UTF8, Look, bad_lines, encoding_of, look
from w2w.ingest.normalise import FEED_SCHEMA, FeedBatch, Reading, normalised
from w2w.ingest.prices import CURRENCIES
from w2w.ingest.raw import COLUMNS, DELETED, IMAGE, Mapping, RawBatch, trimmed

__all__ = ["FEED_SCHEMA", "FeedBatch", "FeedConfig", "check_feed", "column_names", "is_feed", "read_feed"]

_SUFFIXES = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
_SUFFIXES |= {".xml": "xml", ".rss": "xml", ".atom": "xml", ".parquet": "parquet", ".pq": "parquet", ".tar": "tar"}
_CHANGES = ("csv", "jsonl", "xml", "parquet")
_DELETIONS = (".deleted", ".deleted.txt")
_LOST = ("AWS Error", "google::cloud::Status", "Azure Error")  # said of storage, not of the file


def read_feed(config: FeedConfig, batch_rows: int = 20_000, files: Sequence[str] | None = None) -> Iterator[FeedBatch]:
    """Every row of the source, once: as a row, a deletion or a reject. Of rows with one product_id the first good one is kept;
    where a feed can say that products are gone, the last row counts, and is all that counts. ``files``: those to read of a
    folder of changes, in this order.

    Memory is one batch, 16 bytes per product (see SeenKeys), and the listing of the image root; where the last row counts, the
    source is read twice, with 24 bytes per row in between. Raises UsageError as ``check_feed``, and if a later file of the
    source lacks a mapped column or is damaged.
    """
    check_options(config)
    last, at = None, 0
    if config.changes or config.deleted or config.deletions:
        last = last_of_each(trimmed(part.columns[schema.PRODUCT_ID]) for part, *_ in _parts(config, batch_rows, files))
    seen, roots = SeenKeys(), dict[str, ImageRoot]()
    sign, currency = config.decimal, config.currency.upper() or None
    now = datetime.fromtimestamp(nights.now_us() / 1e6, UTC)
    reading = Reading(config.category_map, config.category_default, sign, currency, config.max_pictures, now)
    reading = replace(reading, partial=config.changes)
    for part, folder, names in _parts(config, batch_rows, files):
        if last is not None:
            here = last[at : at + len(part.source)]
            at += len(here)
            part = replace(part.filter(pa.array(here)), num_superseded=int(len(here) - here.sum()))
        if not config.decimal:
            sign = _sign(sign, prices := _prices(part))
            if not sign and amounts.are_open(prices):
                sign = next(filter(None, (_sign("", _prices(later)) for later, *_ in _parts(config, batch_rows, files))), "")
            reading = replace(reading, decimal=sign)
        root = roots.get(folder) or roots.setdefault(folder, ImageRoot(folder))
        yield replace(normalised(part, reading, root, seen), names=names)


def _there(part: RawBatch, named: dict[str, str], names: Sequence[str]) -> RawBatch:
    """The batch without columns that the feed does not have."""
    lacks = [ours for ours in part.columns if ours != schema.PRODUCT_ID and named.get(ours, ours) not in names]
    gone = {ours for ours in lacks if part.columns[ours].null_count == len(part.source)} if names else set()
    return replace(part, columns={ours: values for ours, values in part.columns.items() if ours not in gone}) if gone else part


def _prices(part: RawBatch) -> pa.Array:
    none = pa.nulls(0, pa.string())
    return trimmed(pa.concat_arrays([part.columns.get(name, none) for name in (schema.PRICE, schema.SALE_PRICE)]))


def _sign(known: str, prices: pa.Array) -> str:
    """The decimal sign of a column, from what is known of it and more of its prices."""
    found = amounts.decimal_sign(prices)
    return amounts.BOTH if known and found not in ("", known) else found or known


def _parts(config: FeedConfig, batch_rows: int, files: Sequence[str] | None) -> Iterator[tuple[RawBatch, str, Sequence[str]]]:
    """The rows that are chosen of every file, with the folder that their pictures are relative to and the names of the file's
    columns, and then the deletions."""
    now = datetime.fromtimestamp(nights.now_us() / 1e6, UTC)
    for uri in [config.uri] if files is None else files:
        if is_deletions(uri) and files is not None:
            yield from ((part, "/", ()) for part in _deletions(uri, config.encoding, batch_rows))
            continue
        kind, listed = _files(one := replace(config, uri=uri))
        found = _looked(one, kind, listed)
        one, preset = found.config, found.preset
        raws = partial(_read, one, kind, listed, batch_rows)
        folder = one.image_root or _folder(one.uri, kind)
        for raw in raws() if preset is None else preset.gather(raws, one.named, config.decimal, now):
            for start in range(0, max(1, len(raw.source)), batch_rows):
                part = _chosen(raw.slice(start, batch_rows), one)
                part = preset.applied(part, one.named, found.attributes) if preset else part
                yield (_there(part, one.named, found.names) if config.changes else part), folder, found.names
    if config.deletions:
        yield from ((part, "/", ()) for part in _deletions(config.deletions, config.encoding, batch_rows))


def is_deletions(uri: str) -> bool:
    """Whether a file of a folder of changes lists the ids of products that are gone."""
    return uri.lower().endswith(_DELETIONS)


def _deletions(uri: str, encoding: str, batch_rows: int) -> Iterator[RawBatch]:
    """Ids, one a line; a first line that is the name of such a column is none."""
    with _whole(uri), io.TextIOWrapper(text.buffered(text.open_text(uri, encoding or UTF8)), "utf-8") as lines:
        numbered = ((n, line.strip()) for n, line in enumerate(lines, 1) if line.strip())
        kept = ((n, said) for n, said in numbered if n > 1 or not presets.may_be(schema.PRODUCT_ID, said))
        while some := list(itertools.islice(kept, batch_rows)):
            told: list[dict[str, object]] = [{schema.PRODUCT_ID: said, DELETED: "true"} for _, said in some]
            no_images = [("", None, None, "")] * len(some)  # so that none are looked for
            yield batch_of_dicts(told, [f"{uri}:{n}" for n, _ in some], Mapping({DELETED: DELETED}, ()), [], no_images)


def check_feed(config: FeedConfig) -> None:
    """Raises UsageError, naming the file, column and option, for every fault detectable before any work. The files of a folder
    of changes are not looked into."""
    check_options(config)
    if is_folder_of_changes(config):
        return
    kind, files = _files(config)
    if config.image_root and not is_web(config.image_root) and not storage.exists(config.image_root):
        raise UsageError(f"feed.image_root={config.image_root}: no such folder")
    found = _looked(config, kind, files)
    config = found.config
    if kind == "jsonl" and not found.names:
        raise BadInput(f"feed.uri={config.uri}: no JSON object with fields, one per line or in an array")
    if kind in ("jsonl", "xml"):
        _mapping(config, kind).pick(found.names, f"feed.uri={config.uri}")
    batches = _read(config, kind, files, 1000)
    if not any(len(b.source) or b.rejects.num_rows for b in batches):
        raise BadInput(f"feed.uri={config.uri}: the feed has no rows")
    if kind == "tar" and any(archives.MEMBER in uri for uri, _ in files):
        raise UsageError(f"feed.uri={config.uri}: {archives.MEMBER!r} in the name of a shard is not allowed")


def is_folder_of_changes(config: FeedConfig) -> bool:
    return config.changes and not is_web(config.uri) and _info(config.uri).type == fs.FileType.Directory


def change_files(config: FeedConfig) -> list[tuple[str, int]]:
    """URI and size of each file in a folder of changes, in the order of their names; hidden ones (. and _) are left out."""
    root = storage.source(config.uri)
    named = [(f, f.path.rpartition("/")[2]) for f in storage.list_files(root, recursive=False)]
    shown = [(f, name) for f, name in named if not name.startswith((".", "_"))]
    return [(archives.uri_of(f, root), f.size) for f, name in shown if is_deletions(name) or kind_of(name) in _CHANGES]


def column_names(config: FeedConfig) -> list[str]:
    """The column names in the (first) file of a CSV, JSON, XML or Parquet source, and paths in JSON; [] for images and tars."""
    check_options(config)
    return list(_looked(config, *_files(config)).names)


def columns_read(config: FeedConfig) -> dict[str, list[str]]:
    """Our columns -> those of theirs that they are read from."""
    found = _looked(config, *_files(config))
    read = {ours: [theirs] for ours, theirs in found.config.named.items()} | config.several
    read |= {schema.IMAGE_LIST: list(found.pictures)} if found.pictures else {}
    return {ours: [*theirs, *(f"{one}[]" for one in theirs if f"{one}[]" in found.names)] for ours, theirs in read.items()}


def read_as(config: FeedConfig) -> str | None:
    """What the feed tells beyond its config: preset, columns, encoding."""
    return _looked(config, *_files(config)).told(config)


def _looked(config: FeedConfig, kind: str, files: list[tuple[str, fs.FileInfo]]) -> Look:
    with _whole(config.uri):
        encoding = (config.encoding or encoding_of(config.uri)) if kind in ("csv", "jsonl") else ""
        if encoding and (bad := bad_lines(config.uri, encoding)):
            tell = f"line {bad[0]} is the first of {len(bad)} that are not {encoding}"
            raise BadInput(f"feed.uri={config.uri}: {tell}; set feed.encoding=cp1252, latin-1 or utf-16")
        return look(config, encoding, kind, files[0][0])


def check_options(config: FeedConfig) -> None:
    """Raises UsageError for options that are wrong whatever the feed is."""
    if not config.uri:
        raise UsageError("feed.uri: name the feed")
    if config.kind != "auto":
        plugins.check("reader", config.kind, READERS)
    if config.preset and config.preset not in (*presets.PRESETS, "plain"):
        raise UsageError(f"feed.preset={config.preset}: must be one of {', '.join((*presets.PRESETS, 'plain'))}")
    check_name(config.id, "feed.id", 64)
    if config.max_pictures < 1:
        raise UsageError(f"feed.max_pictures={config.max_pictures}: at least 1, the front picture")
    if config.grace_nights < 1:
        raise UsageError(f"feed.grace_nights={config.grace_nights}: at least 1, the first night without the product")
    if config.max_unreadable < 0:
        raise UsageError(f"feed.max_unreadable={config.max_unreadable}: must not be negative")
    if not 0 <= config.max_unread_rate <= 1:
        raise UsageError(f"feed.max_unread_rate={config.max_unread_rate:g}: a share between 0 and 1")
    if config.changes and config.full:
        raise UsageError("feed.full, feed.changes: a feed lists the whole catalog, or what has changed")
    if config.deletions and not storage.exists(config.deletions):
        raise UsageError(f"feed.deletions={config.deletions}: no such file")
    for ours, theirs in config.columns.items():
        if not theirs:
            raise UsageError(f"feed.columns.{ours}: names no column")
        if ours not in COLUMNS:
            raise UsageError(f"feed.columns.{ours}: our columns are {', '.join(COLUMNS)}; keep others with attributes")
    if config.csv_delimiter not in ("", "\\t") and (len(config.csv_delimiter.encode()) != 1 or config.csv_delimiter in '"\r\n'):
        raise UsageError(f"feed.csv_delimiter={config.csv_delimiter!r}: must be one ASCII character, not a quote or line end")
    if config.decimal not in ("", ".", ","):
        raise UsageError(f"feed.decimal={config.decimal!r}: must be '.' or ','")
    if config.currency and config.currency.upper() not in CURRENCIES:
        raise UsageError(f"feed.currency={config.currency!r}: no ISO 4217 code, such as EUR or USD")
    check_label(config.category_default, "feed.category_default")
    check_classes(config.category_map, "feed.category_map.")


def _mapping(config: FeedConfig, kind: str) -> Mapping:
    attributes = None if config.attributes is None else tuple(config.attributes)
    deleted = {DELETED: config.deleted} if config.deleted else {}
    return Mapping(
        config.named | deleted,
        attributes,
        optional=(schema.PRODUCT_ID, IMAGE) if kind == "tar" else (IMAGE,) if config.changes else (),
    )


def _folder(uri: str, kind: str) -> str:
    """The folder that contains the feed, or that it is."""
    if kind in ("images", "tar"):
        return uri
    path = storage.source(uri)
    is_file = storage.filesystem(uri)[0].get_file_info(storage.filesystem(uri)[1]).type == fs.FileType.File
    return path.rpartition("/")[0] or "/" if is_file else path


def _files(config: FeedConfig) -> tuple[str, list[tuple[str, fs.FileInfo]]]:
    """The kind, and the URI and listing entry of each file or folder to read. Raises UsageError."""
    uri, kind = config.uri, config.kind
    if is_web(uri):
        raise UsageError(f"feed.uri={uri}: a feed on the web is fetched by w2w ingest and nightly alone; download it first")
    if "{" in uri:
        found = [(name, _info(name)) for name in archives.expand(uri)]
        for name, info in found:
            if info.type != fs.FileType.File:
                raise UsageError(f"feed.uri={uri}: no such file: {name}")
        return _known(kind, uri, "tar"), [(storage.source(name), info) for name, info in found]
    info = _info(uri)
    if info.type == fs.FileType.NotFound:
        raise UsageError(f"feed.uri={uri}: no such file or folder")
    if info.type == fs.FileType.File:
        name = _uncompressed(uri)
        if name != uri.lower() and name.endswith((".tar", ".parquet")):
            raise UsageError(
                f"feed.uri={uri}: a compressed archive cannot be read by ranges; unpack it to {name.rpartition('/')[2]}"
            )
        kind = _known(kind, uri, kind_of(name))
        if kind == "images":
            raise UsageError(f"feed.uri={uri}: kind=images is a folder of images, this is a file")
        if info.size == 0:
            raise BadInput(f"feed.uri={uri}: the file is empty")
        return kind, [(storage.source(uri), info)]
    if info.type != fs.FileType.Directory:
        raise UsageError(f"feed.uri={uri}: neither a plain file nor a folder")
    return _folder_files(config)


def is_feed(uri: str) -> bool:
    """Whether a file's suffix is that of a table or an archive."""
    return kind_of(uri) is not None


def kind_of(uri: str) -> str | None:
    """The kind that a file's suffix tells."""
    return next((k for suffix, k in _SUFFIXES.items() if _uncompressed(uri).endswith(suffix)), None)


def _uncompressed(uri: str) -> str:
    name = uri.lower()
    for compressed in (".gz", ".zst", ".bz2"):
        name = name.removesuffix(compressed)
    return name


def _folder_files(config: FeedConfig) -> tuple[str, list[tuple[str, fs.FileInfo]]]:
    uri, root = config.uri, storage.source(config.uri)
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
    "csv": lambda uri, info, c, mapping, n: delimited.read_csv(uri, c.csv_delimiter, c.encoding, mapping),
    "jsonl": lambda uri, info, c, mapping, n: trees.read_json(uri, c.encoding, mapping, n),
    "xml": lambda uri, info, c, mapping, n: trees.read_xml(uri, mapping, n),
    "parquet": lambda uri, info, c, mapping, n: parquet.read_parquet(uri, mapping, n),
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
            if isinstance(e, JobFailed) or any(word in str(e) for word in _LOST):  # the connection failed, not the file
                raise
            raise BadInput(f"feed.uri={uri}: it cannot be read to its end: {e}") from e


def _chosen(raw: RawBatch, config: FeedConfig) -> RawBatch:
    """The rows selected by ``where``; rejects stay, since their values are unknown."""
    keep = None
    for theirs, values in config.where.items():
        ours = [o for o in raw.columns if config.named.get(o, o) == theirs]
        column = raw.columns[ours[0]] if ours else pc.map_lookup(raw.attributes, theirs, "first")
        if not ours and len(column) and column.null_count == len(column) and raw.rejects.num_rows == 0:
            known = sorted({*(config.named.get(o, o) for o in raw.columns), *pc.unique(raw.attributes.keys).to_pylist()})
            raise UsageError(f"feed.where.{theirs}: no row has a value there.{nearest(theirs, known)}")
        here = pc.fill_null(pc.is_in(column, value_set=pa.array(values, pa.string())), False)
        keep = here if keep is None else pc.and_(keep, here)
    if keep is None:
        return raw
    return raw.filter(keep)
