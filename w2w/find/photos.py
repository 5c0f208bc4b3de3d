"""The requested photos: files, folders, URLs and feeds, as rows that can be loaded."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from w2w import ids, schema, storage
from w2w.errors import RejectCode, UsageError
from w2w.images.decode import DecodeLimits
from w2w.ingest.archives import fingerprint, is_image, uri_of
from w2w.ingest.feed import FeedConfig, check_feed, column_names, is_feed, read_feed
from w2w.ingest.images import is_web
from w2w.ingest.raw import IMAGE_OFFSET, IMAGE_SIZE
from w2w.ingest.stage import work_rows
from w2w.web.fetch import ListedFetchConfig

# ``key`` identifies photo and content, so that a changed photo is searched with again; one with an impossible name is rejected
LISTED = pa.schema(
    [
        (schema.KEY, pa.string()),
        (schema.QUERY_ID, pa.string()),
        (schema.IMAGE_URI, pa.string()),
        (IMAGE_OFFSET, pa.int64()),
        (IMAGE_SIZE, pa.int64()),
        (schema.REJECT_CODE, pa.string()),
        (schema.REJECT_DETAIL, pa.string()),
    ]
)


@dataclass(frozen=True)
class PhotoOptions:
    """How the given photos are read, and how many are shown."""

    LEAST = {"longest_px": 64}

    feed: FeedConfig = FeedConfig()
    """How a feed of photos is read; its product_id names the photo."""
    decode: DecodeLimits = DecodeLimits()
    """Limits of an image."""
    fetch: ListedFetchConfig = ListedFetchConfig()
    """How photos on the web are fetched."""
    longest_px: int = 1600
    """Photos are shrunk to this before the models see them."""
    shown: int = 20
    """Photos on the page; 0 for no page."""
    max_reject_rate: float = 0.99
    """The job fails if a larger share of the photos cannot be read. Default: if none can; each of some gets a line."""


def listed(places: Sequence[str], feed: FeedConfig) -> tuple[pa.Table, tuple[str, ...]]:
    """The photos of all places, in LISTED, without repeats, in order; and a sentence for each place without any. Held in
    memory: about 200 bytes per photo.

    A place is a photo, a folder of photos, a URL, or a feed as ``w2w ingest`` reads it; ``feed`` says how. Raises UsageError
    for a missing file or folder, and for a feed that cannot be read.
    """
    parts = [pa.concat_tables([LISTED.empty_table(), *_of_place(place, feed)]) for place in places]
    empty = tuple(f"there is no photo in {place}" for place, part in zip(places, parts) if not part.num_rows)
    rows = pa.concat_tables([LISTED.empty_table(), *parts])
    keys = rows.column(schema.KEY)
    return rows.take(pc.index_in(pc.unique(keys), value_set=keys)).combine_chunks(), empty


def of_folder(folder: str) -> pa.Table:
    """The photos currently below a folder, in LISTED."""
    root = storage.absolute(folder)
    unusable: list[tuple[str, str]] = []
    files = [f for f in storage.list_files(root, unusable=unusable) if is_image(f.path)]
    shown = [f"{folder.rstrip('/')}/{uri_of(f, root)[len(root) :].lstrip('/')}" for f in files]
    good = _rows([(s, uri_of(f, root), fingerprint(f)) for s, f in zip(shown, files)])
    bad = [(path, f"{RejectCode.BAD_VALUE}", why) for path, why in sorted(unusable) if is_image(path)]
    keys = [f"{path}@{ids.digest(why)}" for path, _, why in bad]
    names, codes, whys = zip(*bad) if bad else ((), (), ())
    columns = {schema.KEY: keys, schema.QUERY_ID: names, schema.REJECT_CODE: codes, schema.REJECT_DETAIL: whys}
    return pa.concat_tables([good, filled(columns, len(bad))])


def _of_place(place: str, feed: FeedConfig) -> Iterator[pa.Table]:
    if not place:
        raise UsageError("an empty word does not name a photo")
    if is_web(place):
        yield _rows([(place, place, "")])
        return
    system, path = storage.filesystem(place)
    with storage.named("read", place):
        info = system.get_file_info(path) if storage.exists(place) else None
    if info is None and "{" not in place:  # of several shards
        raise UsageError(f"{place}: there is no such photo, folder or feed")
    if info is not None and info.type == fs.FileType.Directory:
        photos = of_folder(place)
        if photos.num_rows or not storage.list_files(place):
            yield photos
            return
    elif info is not None and not is_feed(place) and feed.kind == "auto":
        yield _rows([(place, uri_of(info, place), fingerprint(info))])
        return
    config = _named(replace(feed, uri=place))
    check_feed(config)
    seen = Counter[str]()
    for batch in read_feed(config):
        rows = work_rows(batch, seen)
        names = rows.column(schema.PRODUCT_ID)
        names = pc.if_else(names.is_valid(), names, rows.column(schema.KEY))
        yield rows.append_column(schema.QUERY_ID, names).select(LISTED.names).cast(LISTED)


def _named(config: FeedConfig) -> FeedConfig:
    """A table of photos that has no column for their names: the photo is its own name."""
    names, image = column_names(config), config.columns.get("image", "image")
    if schema.PRODUCT_ID in (*names, *config.columns) or image not in names:
        return config
    return replace(config, columns={**config.columns, schema.PRODUCT_ID: image})


def _rows(photos: Sequence[tuple[str, str, str]]) -> pa.Table:
    """Whole files: display name, location and fingerprint."""
    names, uris, prints = zip(*photos) if photos else ((), (), ())
    keys = [f"{name}@{ids.digest(uri, known)}" for name, uri, known in zip(names, uris, prints)]
    return filled({schema.KEY: keys, schema.QUERY_ID: names, schema.IMAGE_URI: uris}, len(keys))


def filled(columns: dict[str, Sequence | pa.Array], n: int) -> pa.Table:
    """LISTED with these columns; null in the others."""
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(n, f.type) for f in LISTED]
    return pa.Table.from_arrays(arrays, schema=LISTED)
