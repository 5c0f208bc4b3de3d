"""Importing a public data set: pictures and photos by workers, exactly once; then pairs, outfits and questions, each a snapshot
of the set's own."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.engine.job import JobConfig, Run
from w2w.engine.run import run_stages
from w2w.engine.snapshot import Made, commit_snapshot, written
from w2w.engine.source import file_rows
from w2w.errors import Reject
from w2w.garments.stage import ITEMS
from w2w.images.decode import DecodeLimits
from w2w.images.stage import INSPECT_GIVES, inspect
from w2w.ingest.loading import PictureFetch, without_erased
from w2w.ingest.permits import PERMIT_GIVES, PERMITS, SAID, permit_each
from w2w.ingest.stage import LOAD_GIVES, LOAD_NEEDS, load
from w2w.mining.sets import rows as of
from w2w.mining.sets.posts import Catalog, would_be_rejected
from w2w.mining.sets.records import PublicSet
from w2w.stage import REJECTED_SCHEMA, Counts, Pool, Stage
from w2w.table import delta, erased, snapshot, work
from w2w.table.current import current_products
from w2w.table.parts import Output
from w2w.table.pending import rejected_keys, table_keys
from w2w.table.sink import Lineage
from w2w.table.tolerance import Tolerance
from w2w.web.fetch import FetchConfig, Fetcher
from w2w.web.permission import UseConfig

# columns that the image-loading stage expects
_LOADING = [f for f in LOAD_NEEDS if f.name != schema.IMAGE_URI]


@dataclass(frozen=True)
class Reading:
    """How a set's pictures are read; ``catalog`` and ``source`` as in ``SetConfig``, ``version`` of the record reader."""

    catalog: str
    source: str
    version: str
    crop_px: int
    decode: DecodeLimits
    fetch: FetchConfig
    pool: Pool


class Pictures:
    """A table that receives a set's rows with their pictures (``products`` or ``posts``): what exists, what is pending."""

    def __init__(
        self, run: Run, reading: Reading, table: schema.Table, rows: Iterable[pa.Table], kind: pa.Schema, own: bool = False
    ):
        """``own``: of the shop's own photos, of which a dry run tells what would be rejected."""
        self._own = own
        self._run, self._reading, self._table, self._rows = run, reading, table, rows
        self._kind = pa.schema([*(f.with_nullable(True) for f in kind), *_LOADING])
        self.skipped = self.pending = self._refused = 0
        self.would_be_rejected = Counter[str]()

    def write(self, config: JobConfig) -> int:
        """Writes the pending rows to work files (in a dry run it only counts them); returns their number."""
        store = self._run.store
        there = newest(store, self._table, self._reading.catalog)
        done = pc.binary_join_element_wise(there.column(self._table.key[0]), there.column(schema.ROW_DIGEST), "@")
        refused = rejected_keys(store, self._run.job, self._reading.version).read()
        finished = pa.concat_arrays([pa.array([], pa.string()), *done.chunks, *refused.chunks])

        known, key = erased.read(store), self._table.key[0]

        def pending() -> Iterator[pa.Table]:
            for rows in of.once(key, self._rows):
                batch = rows.filter(pa.array(~known.mask(key, rows.column(key))))
                self.skipped += rows.num_rows - batch.num_rows
                wanted = batch.filter(pc.invert(pc.is_in(batch.column(schema.KEY), value_set=finished)))
                self.skipped += batch.num_rows - wanted.num_rows
                self._refused += pc.sum(pc.is_in(batch.column(schema.KEY), value_set=refused)).as_py() or 0
                for f in _LOADING:
                    if f.name not in wanted.column_names:
                        wanted = wanted.append_column(f, pa.nulls(wanted.num_rows, f.type))
                if config.dry_run and self._own:
                    self.would_be_rejected += would_be_rejected(wanted)
                yield wanted

        self.pending = work.write(store, self._folder, pending(), self._kind, config.item_rows, config.dry_run)
        return self.pending

    @property
    def _folder(self) -> str:
        return f"{self._run.run_id}/{self._table.name}"

    def load(self, config: JobConfig, lineage: Lineage) -> tuple[Counts, dict[str, int]]:
        """Loads, checks and crops the pending rows' pictures, and commits."""
        reading, images = self._reading, Output(schema.IMAGES, unique=schema.IMAGE_ID)
        loading = {
            "max_bytes": reading.fetch.max_bytes,
            "fetch": PictureFetch(Fetcher(reading.fetch), self._run.run_id),
            "batch_rows": reading.pool.batch_rows,
        }
        stages = [
            Stage("load", load, self._kind.names, LOAD_GIVES, loading, streams=True),
            *without_erased(erased.read(self._run.store)),
            Stage("inspect", inspect, (schema.BYTES,), INSPECT_GIVES, {"limits": reading.decode}),
        ]
        outputs = [images, Output(self._table)]
        if self._table is schema.PRODUCTS:
            stages.insert(
                1, Stage("cut", of.cut_products, (schema.BOX, *of.CUT_GIVES.names), of.CUT_GIVES, {"limits": reading.decode})
            )
        else:
            cutting = {"stage_version": reading.version, "crop_px": reading.crop_px, "limits": reading.decode}
            stages.append(Stage("cut", of.cut_anchors, (of.ANCHORS, schema.IMAGE_ID, schema.BYTES), of.ANCHOR_GIVES, cutting))
            outputs.insert(1, Output(schema.GARMENTS, unique=schema.GARMENT_ID, nested=ITEMS))
        said = {
            "feed": f"set:{reading.catalog}",
            "use": UseConfig().told(reading.fetch.respect_no_ai),
            "run_id": self._run.run_id,
        }
        stages.append(Stage("permit", permit_each, (schema.IMAGE_ID, schema.IMAGE_URI, SAID), PERMIT_GIVES, said))
        outputs.insert(1, Output(schema.PERMISSIONS, nested=PERMITS))
        folder = work.folder(self._run.store, self._folder)
        return run_stages(
            self._run.store,
            file_rows(folder, schema.KEY, schema.IMAGE_URI, config.item_rows, self.skipped, self._refused).first(config.limit),
            stages,
            outputs,
            lineage,
            pool=reading.pool,
            tolerance=config.tolerance,
            commit_every_s=config.commit_every_s,
        )


def own_catalog(store: str, key: str | None) -> Catalog:
    """The active products of the store, by ``product_id`` or an attribute, and by their address: about 300 bytes each."""
    columns = [schema.PRODUCT_ID, schema.URL, schema.ATTRIBUTES, schema.ACTIVE]
    named, at = dict[str, str](), dict[str, str]()
    for row in current_products(store, columns).sort_by(schema.PRODUCT_ID).to_pylist():
        name = dict(row[schema.ATTRIBUTES] or []).get(key) if key else row[schema.PRODUCT_ID]
        if row[schema.ACTIVE]:
            named.setdefault(name or row[schema.PRODUCT_ID], row[schema.PRODUCT_ID])
            at.setdefault(row[schema.URL] or row[schema.PRODUCT_ID], row[schema.PRODUCT_ID])
    return Catalog(named, at)


def check_records(public: PublicSet) -> None:
    """Raises UsageError if outfits or questions cannot be read, before anything is committed: they are built only after the
    pictures of products and photos are committed."""
    for _ in chain(public.outfits(), public.questions()):
        pass


def newest(store: str, table: schema.Table, catalog: str) -> pa.Table:
    """Id, image_id and row_digest of the newest active rows of a set's products or posts, by id: about 200 bytes each."""
    key = table.key[0]
    names = [key, schema.IMAGE_ID, schema.ROW_DIGEST, schema.ACTIVE, schema.FETCHED_AT]
    opened = delta.open_table(store, table)
    batches = delta.read_batches(store, table, names, delta.parts(opened))
    kept = [b.filter(pc.starts_with(b.column(key), f"{catalog}/")) for b in batches]
    found = pl.from_arrow(pa.concat_tables([table.empty(names), *kept]))
    found = found.sort(key, schema.FETCHED_AT).unique(key, keep="last", maintain_order=True).filter(pl.col(schema.ACTIVE))
    return found.select(names[:3]).to_arrow().cast(pa.schema([(c, pa.string()) for c in names[:3]]))


def known_of(store: str, reading: Reading) -> tuple[of.Known, str]:
    """The set's contents in the store, and a digest of them."""
    digest = hashlib.sha256()
    maps = []
    for table in (schema.PRODUCTS, schema.POSTS):
        there = newest(store, table, reading.catalog)
        columns = [c.to_pylist() for c in there.columns]
        for row in zip(*columns):
            digest.update(ids.digest(row).encode())
        maps.append(dict(zip(columns[0], columns[1])))
    garments = table_keys(store, schema.GARMENTS, schema.GARMENT_ID, stage_version=reading.version).read().to_pylist()
    digest.update(str(len(garments)).encode())
    return of.Known(maps[0], maps[1], set(garments)), digest.hexdigest()


def write_snapshots(
    run: Run, public: PublicSet, reading: Reading, lineage: Lineage, tolerance: Tolerance
) -> tuple[Counts, dict[str, int], dict[str, Any]]:
    """Pairs, outfits and questions of the set, as far as its pictures are in the store. Returns the counts, the tables'
    versions, and the outcome for each. A table that has this very snapshot, or for which the set has nothing, is left alone.

    Raises JobFailed, and leaves the table unchanged, above ``tolerance``.
    """
    known, there = known_of(run.store, reading)
    catalog, source = reading.catalog, reading.source
    snapshots = (
        (schema.PAIRS, lambda: of.pairs(public.photos(), known, catalog, source, reading.version)),
        (schema.OUTFITS, lambda: of.outfits(public.outfits(), known, catalog, source)),
        (schema.QUESTIONS, lambda: of.questions(public.questions(), known, catalog, source)),
    )
    total, versions, rows_of, unchanged = Counts(), {}, {}, []
    for table, rows in snapshots:
        version = ids.digest(reading.version, source, table.name, there, public.digest())
        one = Lineage(**{**lineage.__dict__, "stage_version": version})
        before = snapshot.current(run.store, table, source)
        if before and before["stage_version"] == version:
            rows_of[table.name] = before["rows"]
            unchanged.append(table.name)
            continue
        receipts = [r for batch in of.gathered(table, rows()) for r in written(run.store, table, made(table, *batch), one)]
        if not receipts and not before:
            continue
        counts, version_of = commit_snapshot(run.store, table, receipts, one, tolerance, source)
        versions |= version_of
        total.add(counts)
        rows_of[table.name] = counts.out
    return total, versions, {"rows": rows_of, "unchanged": tuple(unchanged)}


def made(table: schema.Table, rows: pa.Table, rejects: list[tuple[str, Reject]]) -> Made:
    """A batch of ``gathered`` as a snapshot takes it."""
    columns = [[key for key, _ in rejects], [None] * len(rejects)]
    columns += [[r.code.value for _, r in rejects], [r.detail for _, r in rejects], [table.name] * len(rejects)]
    rejected = pa.table([pa.array(c, pa.string()) for c in columns], schema=REJECTED_SCHEMA)
    return Made(rows, rejected, rows.num_rows + len(rejects))
