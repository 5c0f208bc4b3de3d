"""Where answers are computed: photos go through the same stages in this process, or on workers into table `found`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.engine.job import Run
from w2w.engine.run import run_pending
from w2w.engine.source import Source, file_rows, pending_rows
from w2w.find import answers as told
from w2w.find.answers import Answer, Catalog
from w2w.find.finder import Plan
from w2w.find.inorder import InOrder, rejects_of
from w2w.find.photos import LISTED, filled
from w2w.find.stage import FIND_GIVES, LOOK_GIVES, FindProducts, look, of_table
from w2w.images.decode import DecodeLimits
from w2w.ingest.loading import load_stage
from w2w.ingest.stage import loadable
from w2w.results import Summary
from w2w.stage import Pool, Stage, batches
from w2w.table import delta, work
from w2w.table.current import current_posts
from w2w.table.delta import need_table
from w2w.table.parts import Output
from w2w.table.pending import Keys, lookup_batches, rejected_keys, table_keys
from w2w.web.fetch import FetchConfig

STAGE = "find"
R = TypeVar("R", bound=Summary)
_OF_TABLE = (schema.IMAGE_ID, schema.BYTES, schema.SOURCE_URI)
_NAMED = schema.FOUND.fields([schema.KEY, schema.QUERY_ID, schema.IMAGE_URI])


@dataclass(frozen=True)
class How:
    """How photos are read, and where they are worked on."""

    fetch: FetchConfig
    decode: DecodeLimits
    longest_px: int
    pool: Pool
    gpu_pool: Pool | None = None


def stages(plan: Plan, words: np.ndarray | None, how: How, run_id: str, from_table: bool = False) -> list[Stage]:
    """A photo's location -> its bytes -> pixels -> garments with products."""
    table = Stage("name", of_table, (schema.IMAGE_ID, schema.SOURCE_URI), _NAMED)
    settings = {"limits": how.decode, "longest_px": how.longest_px}
    arguments = {"plan": plan, "words_D": words, "run_id": run_id}
    return [
        table if from_table else load_stage(how.fetch, how.pool),
        Stage("decode", look, (schema.BYTES,), LOOK_GIVES, settings),
        Stage(STAGE, FindProducts, tuple(LOOK_GIVES.names), FIND_GIVES, arguments, how.gpu_pool),
    ]


@dataclass(frozen=True)
class Asked:
    """All requested photos, in order: LISTED, or rows of table `images` by their ids."""

    listed: pa.Table
    from_table: bool = False

    @property
    def num(self) -> int:
        return self.listed.num_rows

    def first(self, limit: int | None) -> "Asked":
        """At most this many."""
        return replace(self, listed=self.listed.slice(0, limit))

    def num_of(self, some: Sequence[Keys]) -> int:
        """Number of photos with one of these keys."""
        known = pa.chunked_array([c for keys in some for c in keys.read().chunks], pa.string())
        return pc.sum(pc.is_in(self.listed.column(schema.KEY), value_set=known)).as_py() or 0

    @property
    def names(self) -> dict[str, str]:
        """Key -> display name of the photo."""
        return dict(zip(*(self.listed.column(c).to_pylist() for c in (schema.KEY, schema.QUERY_ID))))

    def tables(self, store: str) -> Iterator[pa.Table]:
        """Input of the first stage."""
        if not self.from_table:
            return iter([loadable(self.listed)])
        ids = self.listed.column(schema.KEY).combine_chunks()
        return lookup_batches(store, schema.IMAGES, ids, _OF_TABLE, batch_rows=64)


def asked_of_table(store: str, of: str) -> Asked:
    """The photos of table `images`: all, or those of active posts."""
    need_table(store, schema.IMAGES, "ingest")
    if of == "posts":
        need_table(store, schema.POSTS, "crawl")
        posts = current_posts(store, [schema.IMAGE_ID, schema.ACTIVE])
        ids = pc.unique(posts.filter(posts.column(schema.ACTIVE)).column(schema.IMAGE_ID))
    else:
        ids = pc.unique(delta.read(store, schema.IMAGES, [schema.IMAGE_ID]).column(0).combine_chunks())
    return Asked(filled({schema.KEY: ids, schema.QUERY_ID: ids, schema.IMAGE_URI: ids}, len(ids)), True)


class Here:
    """The stages in this process: photos in, answers out, in the photos' order."""

    def __init__(self, plan: Plan, words: np.ndarray | None, how: How, run_id: str, catalog: Catalog, from_table: bool = False):
        self._batch_rows = how.pool.batch_rows
        self._through = InOrder(
            stages(plan, words, replace(how, gpu_pool=None), run_id, from_table),
            schema.IMAGES.schema if from_table else loadable(LISTED.empty_table()).schema,
            schema.FOUND.schema.names,
            lambda rows: told.answers(rows, catalog, plan.options),
            told.unreadable,
            schema.IMAGE_ID if from_table else schema.KEY,
        )

    def __call__(
        self, store: str, asked: Asked, shown: int = 0, seen: Callable[[int, int], None] | None = None
    ) -> tuple[list[Answer], dict[str, bytes]]:
        """As ``InOrder``."""
        tables = asked.tables(store)
        tables = batches(tables, self._batch_rows) if asked.from_table else tables
        return self._through(tables, asked.names, shown, *filter(None, [seen]))


def on_workers(run: Run, result: R, plan: Plan, words: np.ndarray | None, how: How, asked: Asked) -> R:
    """Answers the photos that are not yet in table `found`, writing them there."""
    steps = stages(plan, words, how, run.run_id, asked.from_table)
    inputs = [schema.PRODUCTS, *([schema.IMAGES] if asked.from_table else [])]
    outputs = [Output(schema.FOUND)]
    try:
        return run_pending(run, result, _pending(run, plan, asked), steps, outputs, plan.search_version, inputs, how.pool)
    finally:
        work.clean(run.store, run.run_id)


def finished(store: str, plan: Plan) -> list[Keys]:
    """The photos answered under this plan, and those that could not be read."""
    version = plan.search_version
    done = table_keys(store, schema.FOUND, schema.KEY, search_version=version)
    return [replace(keys, batches=[keys.read()]) for keys in (done, rejected_keys(store, STAGE, version))]


def _pending(run: Run, plan: Plan, asked: Asked) -> Source:
    done, item_rows = finished(run.store, plan), run.config.item_rows
    if asked.from_table:
        among = Keys([asked.listed.column(schema.KEY)], asked.listed.num_rows)
        return pending_rows(run.store, schema.IMAGES, _OF_TABLE, done, schema.SOURCE_URI, item_rows, among)
    made, failed = (pc.is_in(asked.listed.column(schema.KEY), value_set=keys.read()) for keys in done)
    rows = loadable(asked.listed.filter(pc.invert(pc.or_(made, failed))))
    work.write(run.store, run.run_id, [rows], rows.schema, item_rows)
    num_failed = pc.sum(failed).as_py() or 0
    folder = work.folder(run.store, run.run_id)
    return file_rows(folder, schema.KEY, schema.IMAGE_URI, item_rows, asked.listed.num_rows - rows.num_rows, num_failed)


def stored_answers(store: str, plan: Plan, catalog: Catalog, asked: Asked) -> Iterator[Answer]:
    """The photos' rows in table `found`, in order, and those that could not be read. The rows are held in memory, about 2 KB
    per photo; the answers are not."""
    keys, names = asked.listed.column(schema.KEY), asked.names
    listed = delta.parts(delta.open_table(store, schema.FOUND), search_version=plan.search_version)
    read = delta.read_batches(store, schema.FOUND, schema.FOUND.schema.names, listed)
    mine = [rows.filter(pc.is_in(rows.column(schema.KEY), value_set=keys)) for rows in read]
    found = pa.concat_tables([schema.FOUND.schema.empty_table(), *mine])
    place = dict(zip(found.column(schema.KEY).to_pylist(), range(found.num_rows)))
    columns = [schema.KEY, schema.REJECT_CODE, schema.REJECT_DETAIL, schema.STAGE_VERSION]
    bad = delta.read(store, schema.REJECTS, columns, stage=STAGE)
    bad = bad.filter(pc.equal(bad.column(schema.STAGE_VERSION), plan.search_version))
    rejected = {key: (code, detail) for key, code, detail in rejects_of(bad)}
    for key, name in names.items():
        if key in place:
            yield from told.answers(found.slice(place[key], 1), catalog, plan.options)
        elif key in rejected:
            yield told.unreadable(name, *rejected[key])


def photo_bytes(store: str, asked: Asked, how: How, shown: int) -> dict[str, bytes]:
    """The first photos that are still readable, by their keys."""
    first = asked.first(shown)
    load = load_stage(how.fetch, how.pool)
    if first.from_table:
        tables = first.tables(store)
        return {k: v for t in tables for k, v in zip(*(t.column(c).to_pylist() for c in (schema.IMAGE_ID, schema.BYTES)))}
    loaded = list(load.run(first.tables(store), **load.args))
    return {k: v for t in loaded for k, v in zip(*(t.column(c).to_pylist() for c in (schema.KEY, schema.BYTES)))}
