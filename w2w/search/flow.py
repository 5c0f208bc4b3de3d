"""Search queries: images of a feed, fetched and embedded on the way, or garments with stored vectors."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.engine.job import Run
from w2w.engine.source import Source, file_rows, pending_rows, with_beside
from w2w.errors import UsageError
from w2w.ingest.feed import check_feed, read_feed
from w2w.ingest.loading import load_stage
from w2w.ingest.stage import WORK_SCHEMA, work_rows
from w2w.models.flow import embed_stages
from w2w.search.pictures import feed_pictures
from w2w.stage import Stage
from w2w.table import delta, work
from w2w.table.delta import need_table
from w2w.table.pending import Keys, holding, values_by_key

FEED, GARMENTS, ANCHORS = "feed", "garments", "anchors"  # values of --of
_EMBED = "'w2w embed --of garments' with this --encoder"


@dataclass(frozen=True)
class Queries:
    """All queries by key, the number still pending, and how they get their vectors. ``source`` is called when there is work; it
    may write work files."""

    keys: pa.ChunkedArray
    num_pending: int
    source: Callable[[], Source]
    stages: Sequence[Stage]
    pictures: Callable[[set[str]], dict[str, bytes]]
    tables: tuple[schema.Table, ...]
    num_without: int = 0  # anchors without a vector


def check_queries(config: Any) -> None:
    """Raises UsageError for an unknown --of, and for a missing feed."""
    if config.of not in (FEED, GARMENTS, ANCHORS):
        raise UsageError(f"--of={config.of}: must be one of {FEED}, {GARMENTS}, {ANCHORS}")
    if config.of == FEED:
        check_feed(config.feed)


def queries_of(run: Run, config: Any, model: str, done: Sequence[Keys]) -> AbstractContextManager[Queries]:
    """The queries that ``config.of`` names, except those whose keys are in ``done``. Their work files are deleted after the
    block."""
    return _feed(run, config, done) if config.of == FEED else _garments(run, config, model, done)


def pictures_of(config: Any, store: str, wanted: set[str]) -> dict[str, bytes]:
    """The images of these queries: of the feed, or crops of garments."""
    if config.of == FEED:
        return feed_pictures(config.feed, config.fetch, wanted)
    return values_by_key(store, schema.GARMENTS, wanted, schema.CROP)


@contextmanager
def _feed(run: Run, config, done: Sequence[Keys]) -> Iterator[Queries]:
    done = [replace(keys, batches=[keys.read()]) for keys in done]
    finished, failed = _finished(done), _finished([keys for keys in done if keys.rejected])
    asked: list[pa.Array] = []
    seen = Counter[str]()

    def pending() -> Iterator[pa.Table]:
        for batch in read_feed(config.feed):
            rows = work_rows(batch, seen)
            asked.extend(rows.column(schema.KEY).chunks)
            yield rows.filter(pc.invert(pc.is_in(rows.column(schema.KEY), value_set=finished)))

    try:
        num_rows = work.write(run.store, run.run_id, pending(), WORK_SCHEMA, config.item_rows, count_only=config.dry_run)
        keys = pa.chunked_array(asked, pa.string())
        before = (len(keys) - num_rows, pc.sum(pc.is_in(keys, value_set=failed)).as_py() or 0)
        yield Queries(
            keys,
            num_rows,
            lambda: file_rows(work.folder(run.store, run.run_id), schema.KEY, schema.SOURCE, config.item_rows, *before),
            [
                load_stage(config.fetch, config.pool),
                *embed_stages(config.encoder, config.decode, schema.PRODUCT_ID, "query"),
            ],
            partial(pictures_of, config, run.store),
            (schema.PRODUCTS,),
        )
    finally:
        work.clean(run.store, run.run_id)


def _asked_garments(store: str, of: str, model: str) -> pa.Table:
    """garment_id, category, image_id: the anchors of `pairs`, each with the class in its pair, and, unless only these are
    wanted, every other garment with a vector of that model."""
    columns = [schema.GARMENT_ID, schema.CATEGORY]
    anchors = delta.read(store, schema.PAIRS, [*columns, schema.ANCHOR_IMAGE_ID]).rename_columns([*columns, schema.IMAGE_ID])
    if of == ANCHORS:
        need_table(store, schema.PAIRS, "mine")
        rows = anchors
    else:
        need_table(store, schema.GARMENTS, "detect")
        others = delta.read(store, schema.GARMENTS, anchors.column_names)
        made = holding(store, schema.EMBEDDINGS, others.column(0), model_version=model)[0]
        rows = pa.concat_tables([anchors, others.filter(pc.is_in(others.column(0), value_set=made))])
        if others.num_rows and not rows.num_rows:
            raise UsageError(f"no garment has a vector of model version {model}: run {_EMBED}")
    rows = rows.combine_chunks()
    return rows.take(pc.index_in(pc.unique(rows.column(0)), value_set=rows.column(0)))


@contextmanager
def _garments(run: Run, config: Any, model: str, done: Sequence[Keys]) -> Iterator[Queries]:
    """Garments by their stored vectors: nothing is decoded again. In the driver: 300 bytes per garment."""
    garments = _asked_garments(run.store, config.of, model)
    keys = garments.column(schema.GARMENT_ID)
    read, among = [schema.OWNER_ID, schema.VECTOR], Keys([keys], len(keys))
    done = [replace(some, batches=[some.read()]) for some in done]
    finished = _finished(done)
    num_done = pc.sum(pc.is_in(keys, value_set=finished)).as_py() or 0
    source = pending_rows(
        run.store, schema.EMBEDDINGS, read, done, schema.OWNER_ID, config.item_rows, among, model_version=model
    )
    missing = len(keys) - num_done - source.num_rows
    if missing == len(keys) and missing:
        raise UsageError(f"no anchor has a vector of model version {model}: run {_EMBED}")
    beside = pa.table(
        {
            schema.OWNER_ID: keys,
            schema.KEY: keys,
            schema.CATEGORY: garments.column(schema.CATEGORY),
            schema.ATTRIBUTES: pa.nulls(len(keys), schema.NEIGHBOURS.schema.field(schema.ATTRIBUTES).type),
            schema.IMAGE_URI: garments.column(schema.IMAGE_ID),
        }
    )
    folder = work.folder(run.store, run.run_id)
    try:
        yield Queries(
            keys,
            source.num_rows,
            lambda: with_beside(source, run.store, schema.EMBEDDINGS, beside, folder),
            [],
            partial(pictures_of, config, run.store),
            (schema.PAIRS, schema.GARMENTS, schema.EMBEDDINGS),
            missing,
        )
    finally:
        work.clean(run.store, run.run_id)


def _finished(done: Sequence[Keys]) -> pa.ChunkedArray:
    return pa.chunked_array([c for keys in done for c in keys.read().chunks], pa.string())
