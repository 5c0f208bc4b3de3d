"""The stage that gets a feed row's image, and the rows that go into it."""

import itertools
import queue
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa

from w2w import ids, schema
from w2w.errors import Reject, RejectCode, attempt
from w2w.images.stage import with_rejects
from w2w.ingest.feed import FEED_SCHEMA, FeedBatch
from w2w.ingest.images import load_image
from w2w.ingest.raw import IMAGE_OFFSET, IMAGE_SIZE

_THREADS = 32  # a worker's images are asked for side by side
_AHEAD = 2  # batches that may be on their way while the next stages work
_HELD_BYTES = 64 << 20

# A feed row as work: ``key`` names product and content, so that a rejected row is tried again when anything about it changes.
# A row that the feed's reader rejected has its key, its source and its fault alone.
WORK_SCHEMA = pa.schema(
    [pa.field(schema.KEY, pa.string())]
    + [f.with_nullable(True) for f in FEED_SCHEMA]
    + [(c, pa.string()) for c in (schema.REJECT_CODE, schema.REJECT_DETAIL)]
)
# what `load` looks at: where the image is, and whether the row is rejected already
LOAD_NEEDS = pa.schema(
    [
        (schema.IMAGE_URI, pa.string()),
        (IMAGE_OFFSET, pa.int64()),
        (IMAGE_SIZE, pa.int64()),
        (schema.REJECT_CODE, pa.string()),
        (schema.REJECT_DETAIL, pa.string()),
    ]
)
LOAD_GIVES = pa.schema(
    [schema.IMAGES.schema.field(c) for c in (schema.IMAGE_ID, schema.BYTES, schema.SOURCE_URI)]
    + [schema.PRODUCTS.schema.field(c) for c in (schema.ACTIVE, schema.FETCHED_AT)]
)


def work_rows(batch: FeedBatch, seen: Counter[str]) -> pa.Table:
    """A feed batch in WORK_SCHEMA. Rows that the feed reader rejected travel along, so that they are counted, and written to
    the rejects table, by the same mechanism as all others. ``seen``: rejected keys of the feed's batches so far, by which two
    rows with one id and one fault stay two.
    """
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


def loadable(rows: pa.Table) -> pa.Table:
    """Rows with an image_uri and what else ``load`` looks at: whole files, none of them rejected."""
    for f in LOAD_NEEDS:
        if f.name not in rows.column_names:
            rows = rows.append_column(f.name, pa.nulls(rows.num_rows, f.type))
    return rows


def load(
    tables: Iterator[pa.Table], *, max_bytes: int, fetch: Callable[[str], bytes], batch_rows: int = 64
) -> Iterator[pa.Table]:
    """Reads every row's image, ``_THREADS`` at a time, and gives the rows as they come, up to ``batch_rows`` together: one that
    drips holds up nobody. Rows that already have a reject code keep it."""

    def one(uri: str, offset: int | None, size: int | None, code: str | None, detail: str | None) -> bytes | Reject:
        if code is not None:
            return Reject(RejectCode(code), detail or "")
        return attempt(load_image, uri, offset, size, max_bytes=max_bytes, fetch=fetch)

    came: queue.SimpleQueue[tuple[tuple[int, int], Future]] = queue.SimpleQueue()
    held: list[pa.Table] = []
    ready: list[tuple[tuple[int, int], bytes | Reject]] = []
    waiting = 0

    def wait_until(most: int) -> Iterator[pa.Table]:
        nonlocal waiting, ready
        while waiting > most:
            at, future = came.get()
            ready.append((at, future.result()))
            waiting -= 1
            if len(ready) == batch_rows or sum(len(r) for _, r in ready if isinstance(r, bytes)) > _HELD_BYTES:
                yield _loaded(held, ready)
                ready = []

    with ThreadPoolExecutor(_THREADS) as pool:
        for table in tables:
            held.append(table)
            for i, row in enumerate(zip(*(table.column(c).to_pylist() for c in LOAD_NEEDS.names))):
                at = (len(held) - 1, i)
                pool.submit(one, *row).add_done_callback(lambda future, at=at: came.put((at, future)))
            waiting += table.num_rows
            yield from wait_until(_AHEAD * batch_rows)
        yield from wait_until(0)
    if ready:
        yield _loaded(held, ready)


def _loaded(held: Sequence[pa.Table], ready: Sequence[tuple[tuple[int, int], bytes | Reject]]) -> pa.Table:
    """The rows that are ready, (number of the table, row) each, with what was found; in their order, so that where nothing
    is slow nothing changes places."""
    ready = sorted(ready, key=lambda r: r[0])
    of = itertools.groupby((at for at, _ in ready), key=lambda at: at[0])
    rows = pa.concat_tables([held[t].take(pa.array([i for _, i in places])) for t, places in of])
    rejects = [f if isinstance(f, Reject) else None for _, f in ready]
    blobs = [None if r else f for (_, f), r in zip(ready, rejects)]
    n, now = rows.num_rows, pa.scalar(time.time_ns() // 1000, schema.TIME)
    columns = {
        schema.IMAGE_ID: pa.array([None if b is None else ids.image_id(b) for b in blobs], pa.string()),
        schema.BYTES: pa.array(blobs, pa.binary()),
        schema.SOURCE_URI: rows.column(schema.IMAGE_URI),
        schema.ACTIVE: pa.repeat(pa.scalar(True), n),
        schema.FETCHED_AT: pa.repeat(now, n),
    }
    rows = rows.drop_columns([schema.REJECT_CODE, schema.REJECT_DETAIL])
    for name, values in columns.items():
        rows = rows.append_column(name, values)
    return with_rejects(rows, rejects)
