"""The stage that loads a feed row's image, and the rows that it works on."""

import itertools
import queue
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.errors import Reject, RejectCode, attempt
from w2w.ingest.changes import LAST_FINGERPRINT, LAST_IMAGE_ID, LAST_IMAGE_URI, LAST_PICTURE
from w2w.ingest.feed import FEED_SCHEMA, FeedBatch
from w2w.ingest.images import is_web, load_image
from w2w.ingest.permits import SAID, SAID_TYPE, STOOD
from w2w.ingest.raw import IMAGE_OFFSET, IMAGE_SIZE
from w2w.stage import with_rejects
from w2w.web.answers import NoAi
from w2w.web.permission import Asked

_THREADS = 32  # images that a worker loads in parallel
_AHEAD = 2  # batches in flight while the next stages work
_HELD_BYTES = 64 << 20

# A feed row as work: ``key`` identifies product and content, so that a rejected row is retried when anything about it changes.
# A row that the feed's reader rejected has only its key, source and fault. The others carry the catalog's current state
# (STANDING) and their product's last picture.
STANDING = "standing"
NEWS = "news"  # null in a row without changes: only the picture was checked, and it is the same
KEPT, SAME = "kept", "same"  # everything but the picture; everything, so that only the picture is checked again
WORK_SCHEMA = pa.schema(
    [pa.field(schema.KEY, pa.string())]
    + [f.with_nullable(True) for f in FEED_SCHEMA]
    + [(c, pa.string()) for c in (schema.FEED, STANDING, schema.REJECT_CODE, schema.REJECT_DETAIL)]
    + list(LAST_PICTURE)
    + [pa.field(STOOD, SAID_TYPE)]
)
# what `load` reads: where the image is, and whether the row is rejected already
LOAD_NEEDS = pa.schema(
    [
        (schema.IMAGE_URI, pa.string()),
        (IMAGE_OFFSET, pa.int64()),
        (IMAGE_SIZE, pa.int64()),
        (schema.REJECT_CODE, pa.string()),
        (schema.REJECT_DETAIL, pa.string()),
        *(LAST_PICTURE.field(c) for c in (LAST_IMAGE_ID, LAST_IMAGE_URI, LAST_FINGERPRINT)),
    ]
)
LOAD_GIVES = pa.schema(
    [schema.IMAGES.schema.field(c) for c in (schema.IMAGE_ID, schema.BYTES, schema.SOURCE_URI)]
    + [schema.PRODUCTS.schema.field(c) for c in (schema.ACTIVE, schema.FETCHED_AT)]
    + [schema.PRODUCTS.schema.field(schema.IMAGE_FINGERPRINT), pa.field(NEWS, pa.bool_()), pa.field(SAID, pa.string())]
)
# Called with a URL and the known fingerprint of its picture, or "": returns the bytes, or None if the picture is unchanged, the
# current fingerprint, "" if the server gives none, and what was said of its use.
Fetch = Callable[[str, str], tuple[bytes | None, str, Asked]]


def work_rows(batch: FeedBatch, seen: Counter[str]) -> pa.Table:
    """A feed batch in WORK_SCHEMA. Rows that the feed reader rejected travel along, so that they are counted and written to the
    rejects table like all others. ``seen``: rejected keys of the feed's batches so far, by which two rows with one id and one
    fault stay two."""
    good = batch.rows
    keys = pa.array(
        [f"{p}@{d}" for p, d in zip(good.column(schema.PRODUCT_ID).to_pylist(), good.column(schema.ROW_DIGEST).to_pylist())],
        pa.string(),
    )
    good = good.append_column(schema.KEY, keys)
    bad = batch.rejects
    said = zip(bad.column(schema.KEY).to_pylist(), bad.column(schema.REJECT_DETAIL).to_pylist())
    keys = pa.array([ids.numbered(f"{key}@{ids.digest(detail)}", seen) for key, detail in said], pa.string())
    bad = bad.drop_columns([schema.KEY]).append_column(schema.KEY, keys)
    rows = pa.concat_tables([good, bad], promote_options="default")
    nulls = [rows.column(f.name) if f.name in rows.column_names else pa.nulls(rows.num_rows, f.type) for f in WORK_SCHEMA]
    return pa.table([c.cast(f.type) for c, f in zip(nulls, WORK_SCHEMA)], names=WORK_SCHEMA.names)


def with_standing(rows: pa.Table, feed: str, kept: pa.Array, same: pa.Array, pictures: pa.Table, stood: pa.Array) -> pa.Table:
    """Rows in WORK_SCHEMA with their current state in the catalog. ``pictures``: LAST_PICTURE, row for row, and ``stood`` what
    was said of their use (STOOD)."""
    n = rows.num_rows
    standing = pc.if_else(same, SAME, pc.if_else(kept, KEPT, pa.scalar(None, pa.string())))
    columns = {schema.FEED: pa.repeat(pa.scalar(feed), n), STANDING: standing}
    columns |= {name: pictures.column(name) for name in LAST_PICTURE.names} | {STOOD: stood}
    return pa.table([columns.get(f.name, rows.column(f.name)) for f in WORK_SCHEMA], schema=WORK_SCHEMA)


def loadable(rows: pa.Table) -> pa.Table:
    """Rows with an image_uri and the other columns that ``load`` reads: whole files, none of them rejected."""
    for f in LOAD_NEEDS:
        if f.name not in rows.column_names:
            rows = rows.append_column(f.name, pa.nulls(rows.num_rows, f.type))
    return rows


@dataclass(frozen=True)
class _Found:
    """``data`` is None if the picture is unchanged."""

    image_id: str
    data: bytes | None
    fingerprint: str | None  # None if the feed's reader has it
    said: Asked | None = None  # None for a file


def fetched(fetch: Fetch, uri: str, known: str | None, again: bool) -> tuple[bytes | None, str, Asked]:
    """As ``fetch``. A picture of which its owner says now that it is not for AI models is what it was, if it was there before
    (``again``): nothing new is taken in, and what was said goes into `permissions`, which no job passes by."""
    try:
        return fetch(uri, known or "")
    except NoAi as e:
        if not again:
            raise
        return None, known or "", Asked(e.said)


def load(tables: Iterator[pa.Table], *, max_bytes: int, fetch: Fetch, batch_rows: int = 64) -> Iterator[pa.Table]:
    """Loads every row's image, ``_THREADS`` at a time, and yields rows as they arrive, up to ``batch_rows`` together, so that a
    slow one delays no other. Rows that already have a reject code keep it. An unchanged picture comes without bytes; on the web
    it is revalidated by its fingerprint if it still has the same URL."""

    def one(uri, offset, size, code, detail, last_id, last_uri, last_fingerprint) -> _Found | Reject:
        if code is not None:
            return Reject(RejectCode(code), detail or "")
        again = bool(last_id) and last_uri == uri
        return attempt(found, uri, offset, size, last_id, last_fingerprint if again else "", again)

    def found(uri, offset, size, last_id, known, again) -> _Found:
        if not is_web(uri):
            data, fingerprint, said = load_image(uri, offset, size, max_bytes=max_bytes), None, None
        else:
            data, fingerprint, said = fetched(fetch, uri, known, again)
        image_id = last_id if data is None else ids.image_id(data)
        return _Found(image_id, None if image_id == last_id else data, fingerprint, said)

    came: queue.SimpleQueue[tuple[tuple[int, int], Future]] = queue.SimpleQueue()

    def arrived(at: tuple[int, int], future: Future) -> None:
        came.put((at, future))

    held: list[pa.Table] = []
    ready: list[tuple[tuple[int, int], _Found | Reject]] = []
    waiting = 0

    def wait_until(most: int) -> Iterator[pa.Table]:
        nonlocal waiting, ready
        while waiting > most:
            at, future = came.get()
            ready.append((at, future.result()))
            waiting -= 1
            if len(ready) == batch_rows or sum(len(r.data or b"") for _, r in ready if isinstance(r, _Found)) > _HELD_BYTES:
                yield _loaded(held, ready)
                ready = []

    with ThreadPoolExecutor(_THREADS) as pool:
        for table in tables:
            held.append(table)
            for i, row in enumerate(zip(*(table.column(c).to_pylist() for c in LOAD_NEEDS.names))):
                at = (len(held) - 1, i)
                pool.submit(one, *row).add_done_callback(partial(arrived, at))
            waiting += table.num_rows
            yield from wait_until(_AHEAD * batch_rows)
        yield from wait_until(0)
    if ready:
        yield _loaded(held, ready)


def _loaded(held: Sequence[pa.Table], ready: Sequence[tuple[tuple[int, int], _Found | Reject]]) -> pa.Table:
    """The rows that are ready, (table number, row) each, with their images; in order, so that nothing is reordered unless
    something is slow."""
    ready = sorted(ready, key=lambda r: r[0])
    of = itertools.groupby((at for at, _ in ready), key=lambda at: at[0])
    rows = pa.concat_tables([held[t].take(pa.array([i for _, i in places])) for t, places in of])
    rejects = [f if isinstance(f, Reject) else None for _, f in ready]
    found = [f if isinstance(f, _Found) else None for _, f in ready]
    n, now = rows.num_rows, pa.scalar(time.time_ns() // 1000, schema.TIME)
    columns = {
        schema.IMAGE_ID: pa.array([f and f.image_id for f in found], pa.string()),
        schema.BYTES: pa.array([f and f.data for f in found], pa.binary()),
        schema.SOURCE_URI: rows.column(schema.IMAGE_URI),
        schema.ACTIVE: pa.repeat(pa.scalar(True), n),
        schema.FETCHED_AT: pa.repeat(now, n),
        schema.IMAGE_FINGERPRINT: _fingerprints(rows, found),
        NEWS: _news(rows, found),
        SAID: pa.array([f.said.to_json() if f and f.said else None for f in found], pa.string()),
    }
    rows = rows.drop_columns([c for c in (*columns, schema.REJECT_CODE, schema.REJECT_DETAIL) if c in rows.column_names])
    for name, values in columns.items():
        rows = rows.append_column(name, values)
    return with_rejects(rows, rejects)


def _fingerprints(rows: pa.Table, found: Sequence[_Found | None]) -> pa.Array:
    """The fingerprints of web pictures, merged with those that the feed's reader has; never null."""
    known = rows.column(schema.IMAGE_FINGERPRINT).to_pylist() if schema.IMAGE_FINGERPRINT in rows.column_names else None
    said = [f and f.fingerprint for f in found]
    return pa.array([k or "" if s is None else s for s, k in zip(said, known or [""] * len(said))], pa.string())


def _news(rows: pa.Table, found: Sequence[_Found | None]) -> pa.Array:
    """NEWS: null if the catalog has the row and its picture. A first fingerprint of a picture counts as news."""
    n = len(found)
    standing = rows.column(STANDING).to_pylist() if STANDING in rows.column_names else [None] * n
    last = rows.column(LAST_FINGERPRINT).to_pylist() if LAST_FINGERPRINT in rows.column_names else [None] * n
    old = [s == SAME and f and f.data is None and (k or not f.fingerprint) for s, f, k in zip(standing, found, last)]
    return pa.array([None if o else True for o in old], pa.bool_())
