"""What a night of a feed writes: pending rows' pictures, changes of products whose picture is broken, and what is withdrawn."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from w2w import schema, storage
from w2w.engine.job import Run
from w2w.engine.run import run_stages
from w2w.engine.source import Source, file_rows
from w2w.errors import TooManyRejects
from w2w.ingest import cursor, nights
from w2w.ingest.changes import (
    WITHOUT_PICTURE,
    owned,
    with_last_picture,
    withdrawn,
)
from w2w.ingest.flow import Night, with_a_picture
from w2w.ingest.more import LOADED
from w2w.ingest.permits import PERMITS, Standing, owners_word
from w2w.ingest.stage import NEWS
from w2w.ingest.warnings import WARNINGS, warn
from w2w.stage import Counts
from w2w.table import delta, snapshot, work
from w2w.table.current import CurrentRows
from w2w.table.doubles import is_own
from w2w.table.parts import Output, write_part
from w2w.table.pictures import feed_pictures
from w2w.table.sink import Lineage, append_rows


class Load:
    """The work that ``night`` has found, for ``w2w ingest`` with ``config``."""

    def __init__(self, run: Run, config: Any, night: Night):
        self._run, self._config, self._feed, self._night = run, config, config.feed, night

    def __call__(self) -> tuple[Counts, dict[str, int]]:
        """Loads and checks the pending rows' pictures, and commits; then does what is left for the feed's other rows.

        Raises TooManyRejects above the tolerance: by then all changes are written, with the good pictures, nothing is
        withdrawn, and no product counts as missing that night.
        """
        run, config, night, lineage = self._run, self._config, self._night, self._run.lineage(self._night.version, [])
        source = self._source().first(config.limit)
        counts, versions = Counts(), {}
        try:
            if not source.is_done(config.tolerance):
                run.begin()
                counts, versions = run_stages(
                    run.store,
                    source,
                    night.stages(),
                    [
                        Output(schema.IMAGES, schema.IMAGE_ID, only=schema.BYTES),
                        Output(schema.IMAGES, schema.IMAGE_ID, nested=LOADED),
                        WARNINGS,
                        Output(schema.PERMISSIONS, nested=PERMITS),
                        Output(schema.PRODUCTS, only=NEWS),
                    ],
                    lineage,
                    pool=config.pool,
                    tolerance=config.tolerance,
                    commit_every_s=config.commit_every_s,
                )
        except TooManyRejects:
            self._write(list(self._without_picture(self._is_left)), [], lineage)
            self._count(night.listed_again, lineage)
            raise
        versions |= self._settle(counts, lineage)
        versions |= self._hear_owner(lineage)
        if night.rechecks and night.on_web and source.num_rows == night.pending:
            row = {schema.SOURCE: self._feed.id, schema.CHECKED_AT: nights.now_us(), schema.RUN_ID: run.run_id}
            rows = pa.Table.from_pylist([row], schema=schema.RECHECKS.schema)
            versions |= append_rows(run.store, Output(schema.RECHECKS), rows, lineage)
        if night.files and source.num_rows == night.pending:  # with a limit, the rest of them is still to be done
            rows = cursor.rows(night.files, self._feed.id, nights.now_us(), run.run_id)
            versions |= append_rows(run.store, Output(schema.CHANGE_FILES), rows, lineage)
        return counts, versions

    def _source(self) -> Source:
        folder, skipped = work.folder(self._run.store, self._run.run_id), self._night.listed - self._night.pending
        return file_rows(folder, schema.KEY, schema.SOURCE, self._config.item_rows, skipped, self._night.refused)

    def _settle(self, counts: Counts, lineage: Lineage) -> dict[str, int]:
        """Writes the other changes of products whose new picture is broken, and withdraws missing products, in one commit."""
        store = self._run.store
        held, rows = list(self._without_picture(self._is_rejected if counts.rejected else None)), []
        if self._night.current.num_adopted:
            now = CurrentRows(store, schema.PRODUCTS)
            adopted = (self._night.current.adopted(batch) for batch in now.batches(schema.PRODUCTS.schema.names))
            rows += [owned(batch, self._feed.id) for batch in adopted]
        if self._night.gone is not None and self._night.num_gone:
            rows.append(withdrawn(self._night.gone))
        versions = self._write(held, rows, lineage)
        return versions | self._count(self._night.absences, lineage)

    def _count(self, absences: pa.Table | None, lineage: Lineage) -> dict[str, int]:
        """Writes for how many nights products have been missing; nothing for None."""
        if absences is None:
            return {}
        receipts = write_part(self._run.store, Output(schema.ABSENCES), absences, lineage.run_id)
        return {schema.ABSENCES.name: snapshot.replace(self._run.store, schema.ABSENCES, receipts, lineage, self._feed.id)[1]}

    def _hear_owner(self, lineage: Lineage) -> dict[str, int]:
        """Writes what ``feed.use`` changes for pictures that this run did not ask for, such as files."""
        config, standing = self._config, Standing(self._run.store)
        said_before = any(row[schema.OWNER_SAYS] and row[schema.FEED] == self._feed.id for row in standing.rows)
        if not self._feed.use.told() and not said_before:
            return {}
        pictures = feed_pictures(self._run.store, self._feed.id)
        rows = owners_word(standing, pictures, self._feed.id, self._feed.use, config.fetch.respect_no_ai, lineage.run_id)
        return append_rows(self._run.store, Output(schema.PERMISSIONS), rows, lineage) if rows.num_rows else {}

    def _write(self, held: list[pa.Table], rows: list[pa.Table], lineage: Lineage) -> dict[str, int]:
        """``held``: work rows, whose products keep their pictures; ``rows``: of `products`."""
        without = [with_last_picture(r) for r in held]
        c = schema.ROW_DIGEST
        told = [warn(r.set_column(r.schema.get_field_index(c), c, w[c]), run_id=lineage.run_id) for r, w in zip(held, without)]
        rows = [*without, *rows]
        if not sum(r.num_rows for r in rows):
            return {}
        versions = append_rows(self._run.store, WARNINGS, pa.concat_tables(told), lineage) if sum(map(len, told)) else {}
        return versions | append_rows(self._run.store, Output(schema.PRODUCTS), pa.concat_tables(rows), lineage)

    def _without_picture(self, which: Callable[[], Callable] | None) -> Iterator[pa.Table]:
        """Rows whose product has an earlier picture and lacks their other changes: those rejected by earlier runs, and those of
        this run whose keys ``which`` selects."""
        yield from self._night.held
        if which is None:
            return
        tells = which()
        folder = work.folder(self._run.store, self._run.run_id)
        system = storage.filesystem(folder)[0]
        for info in storage.list_files(folder, recursive=False):
            with pq.ParquetFile(info.path, filesystem=system) as file:
                for batch in file.iter_batches():
                    rows = pa.Table.from_batches([batch])
                    yield with_a_picture(rows.filter(tells(rows.column(schema.KEY))))

    def _is_rejected(self) -> Callable[[pa.ChunkedArray], pa.ChunkedArray]:
        """Which of the keys this run has rejected."""
        listed = delta.parts(delta.open_table(self._run.store, schema.REJECTS), **{schema.STAGE: "ingest"})
        batches = delta.read_batches(self._run.store, schema.REJECTS, [schema.KEY, schema.RUN_ID], listed)
        mine = [b.filter(pc.equal(b.column(schema.RUN_ID), self._run.run_id)).column(schema.KEY) for b in batches]
        keys = pa.chunked_array([c for m in mine for c in m.chunks], pa.string())
        return partial(pc.is_in, value_set=keys)

    def _is_left(self) -> Callable[[pa.ChunkedArray], pa.ChunkedArray]:
        """Which of the keys this run has not written: a hopeless run stops long before it has read all."""
        if self._config.limit is not None:
            return self._is_rejected()
        store, columns = self._run.store, [schema.PRODUCT_ID, schema.ROW_DIGEST]
        listed = delta.parts(delta.open_table(store, schema.PRODUCTS))
        own = [p for p in listed if is_own(p.path, self._run.run_id)]
        batches = delta.read_batches(store, schema.PRODUCTS, columns, own)
        keys = [pc.binary_join_element_wise(b[0], pc.utf8_rtrim(b[1], WITHOUT_PICTURE), "@") for b in batches]
        written = pa.chunked_array([c for k in keys for c in k.chunks], pa.string())
        return lambda column: pc.invert(pc.is_in(column, value_set=written))


def broken(run: Run) -> dict[str, int]:
    """Pictures beside the front that this run could not load, by code."""
    listed = [p for p in delta.parts(delta.open_table(run.store, schema.WARNINGS)) if is_own(p.path, run.run_id)]
    columns = [schema.COLUMN, schema.REJECT_CODE]
    codes = Counter[str]()
    for rows in delta.read_batches(run.store, schema.WARNINGS, columns, listed):
        codes.update(rows.filter(pc.equal(rows.column(0), schema.IMAGE_LIST)).column(1).to_pylist())
    return dict(codes)


def newly_said(run: Run) -> int:
    """Rows that this run wrote to `permissions`."""
    listed = delta.parts(delta.open_table(run.store, schema.PERMISSIONS))
    return sum(part.rows for part in listed if is_own(part.path, run.run_id))
