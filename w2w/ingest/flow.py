"""One night of a feed: what is new work, what remains to be done, and what the feed no longer lists.

A run that dies is repeated by running it again: what is pending, kept back or missing follows from the feed and the tables
alone.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.engine.job import Run
from w2w.errors import BadInput, RejectCode, TooManyRejects
from w2w.images.stage import INSPECT_GIVES, inspect
from w2w.ingest import cursor, nights
from w2w.ingest.changes import (
    CURRENT_COLUMNS,
    LAST_IMAGE_ID,
    LAST_IMAGE_LIST,
    LAST_IMAGE_URI,
    PICTURE_COLUMNS,
    CurrentProducts,
    LastPictures,
    LastRows,
)
from w2w.ingest.feed import FeedBatch, change_files, is_deletions, is_folder_of_changes, read_as, read_feed
from w2w.ingest.images import is_web_each
from w2w.ingest.loading import load_stage, without_erased
from w2w.ingest.more import MORE_GIVES, MORE_NEEDS, load_more
from w2w.ingest.outlook import Outlook
from w2w.ingest.partial import SAID_BEFORE, completed
from w2w.ingest.permits import PERMIT_GIVES, PERMIT_NEEDS, Standing, permit, stood_of
from w2w.ingest.readable import LAST_COLUMNS, Values
from w2w.ingest.stage import STANDING, WORK_SCHEMA, with_standing, work_rows
from w2w.ingest.trial import Trial
from w2w.ingest.warnings import WARN_GIVES, WARN_NEEDS, warn
from w2w.shown import line
from w2w.stage import Stage
from w2w.table import delta, erased, work
from w2w.table.current import CurrentRows
from w2w.table.pending import rejected_keys

_MOST_NAMES, _TOLD_NAMES = 10_000, 20  # of categories that are counted, and said
STAGE_CODE = 1  # bump when the same bytes would be judged differently


class Night:
    """A feed compared with the store. ``config`` is that of ``w2w ingest``."""

    def __init__(self, run: Run, config: Any):
        self._run, self._config, self._feed = run, config, config.feed
        self.files: dict[str, int] | None = None  # of a folder of changes: those to be applied, and their sizes
        if is_folder_of_changes(self._feed):
            applied = delta.read(run.store, schema.CHANGE_FILES, cursor.APPLIED, source=self._feed.id)
            self.files = cursor.pending(self._feed.uri, change_files(self._feed), applied)
        self.version = ids.digest(STAGE_CODE, config.decode, config.fetch.max_bytes)
        self._products = CurrentRows(run.store, schema.PRODUCTS)
        self.current = CurrentProducts(_together(self._products, CURRENT_COLUMNS), self._feed.id)
        self._erased = erased.read(run.store)
        self._last: LastPictures | None = None
        self._before: LastRows | None = None
        self._standing = Standing(run.store)
        self._use = config.feed.use.told(config.fetch.respect_no_ai)
        self._rejected = rejected_keys(run.store, "ingest", self.version).read()
        checked = delta.read(run.store, schema.RECHECKS, [schema.CHECKED_AT], source=self._feed.id).column(0)
        due = nights.recheck_is_due(_microseconds(checked), nights.now_us(), config.fetch.recheck_nights)
        self.rechecks = due and config.limit is None  # with a limit, the same rows would come every time
        self.held: list[pa.Table] = []  # permanently rejected by a run that ended before their other changes were written
        self.on_web = False
        self._unmapped = Counter[str]()  # categories that the feed's map lacks, by rows
        self._categories: dict[str, Counter[str]] = {}  # ours -> theirs, with their rows
        self.trial = None
        if config.dry_run:
            respected = config.fetch.respect_no_ai
            self.trial = Trial(Outlook(run.store, self._feed.id, self._standing, self._feed.use, respected))
        self._unread_examples: dict[str, str] = {}  # column -> one of them, and why
        self._unread = Counter[str]()  # values that are null because they could not be read, by column
        self._values, self._not_compared = Values(), ""
        self.deletions = self.superseded = 0  # rows that say that a product is gone; of products of which a later row counts
        self.orphans = 0  # rows of variants whose product is not in the feed
        self.erased = 0  # rows of products that were erased
        self.listed = self.refused = self.unreadable = self.aside = self.left_out = self.pictures_out = self.rechecked = (
            self.pending
        ) = 0
        self.missing: pa.Table | None = None  # rows of products that a full feed does not list
        self.gone: pa.Table | None = None  # those to be withdrawn
        self.absences: pa.Table | None = None
        self.listed_again: pa.Table | None = None

    def read(self) -> None:
        """Reads the feed and writes its work files (none in a dry run). Raises UsageError if too many products are missing."""
        run, config = self._run, self._config
        self.pending = work.write(run.store, run.run_id, self._work(), WORK_SCHEMA, config.item_rows, count_only=config.dry_run)
        self._judge_values()
        self._judge_missing()

    def _judge_values(self) -> None:
        rate, feed = self._feed.max_unread_rate, self._feed
        if rate < 1 and (suspects := self._values.suspects(rate, self._config.min_rejects)):
            last = self._products.batches(LAST_COLUMNS)
            self._not_compared = self._values.judge(suspects, last, feed.id, feed.uri, rate) or ""

    def _work(self) -> Iterator[pa.Table]:
        seen = Counter[str]()
        for batch in read_feed(self._feed, files=None if self.files is None else list(self.files)):
            batch = self._completed(self._ours(self._allowed(batch)))
            rows = work_rows(batch, seen)
            self.listed += rows.num_rows
            self.unreadable += batch.num_unreadable
            self.aside += batch.num_aside
            self.left_out += batch.num_left_out
            self.orphans += batch.num_orphans
            self.pictures_out += batch.num_pictures_out
            self.superseded += batch.num_superseded
            self.deletions += batch.deleted.num_rows
            self._unread += batch.unread
            self._unread_examples = batch.unread_examples() | self._unread_examples
            self._values.add(batch.rows)
            if len(self._unmapped) < _MOST_NAMES:
                self._unmapped += batch.unmapped
            for ids_ in (batch.rows.column(schema.PRODUCT_ID), batch.rejects.column(schema.KEY)):
                self.current.list(ids_.combine_chunks())
            self.current.delete(batch.deleted.column(schema.PRODUCT_ID).combine_chunks())
            same = self.current.unchanged(rows)
            kept = self.current.kept(rows, same)
            failed = pc.and_not(pc.is_in(rows.column(schema.KEY), value_set=self._rejected), same)
            web = is_web_each(rows.column(schema.IMAGE_URI))
            self.on_web |= pc.any(web).as_py() or False
            again = pc.and_(web, pc.or_(same, failed)) if self.rechecks else pa.array(np.zeros(rows.num_rows, bool))
            new = pc.invert(pc.or_(same, failed))
            self.rechecked += pc.sum(again).as_py() or 0
            self.refused += pc.sum(pc.and_not(failed, again)).as_py() or 0
            held = pc.and_not(pc.and_not(failed, again), kept)
            if wanted := pc.any(pc.or_(pc.or_(new, again), held)).as_py():
                last = self._last_pictures(rows)
                rows = with_standing(rows, self._feed.id, kept, same, last, self._stood(last))
                self.held.append(with_a_picture(rows.filter(held)))
            pending = rows.filter(pc.or_(new, again)) if wanted else rows.slice(0, 0)
            if self.trial:
                self.trial.add(pending)
                for ours, theirs in batch.categories.items():
                    self._categories[ours] = self._categories.get(ours, Counter()) + theirs
            yield pending

    def _allowed(self, batch: FeedBatch) -> FeedBatch:
        """The batch without products that were erased, nor rejects of them, which would write their ids down again."""
        known = self._erased
        if not known.knows(schema.PRODUCT_ID):
            return batch
        details = batch.rejects.column(schema.REJECT_DETAIL)
        named = pc.struct_field(pc.extract_regex(details, r"product_id '(?P<id>.*?)'"), "id")
        bad = known.mask(schema.PRODUCT_ID, batch.rejects.column(schema.KEY)) | known.mask(schema.PRODUCT_ID, named)
        rows = known.mask(schema.PRODUCT_ID, batch.rows.column(schema.PRODUCT_ID))
        self.erased += int(rows.sum() + bad.sum())
        return replace(batch, rows=batch.rows.filter(pa.array(~rows)), rejects=batch.rejects.filter(pa.array(~bad)))

    def _ours(self, batch: FeedBatch) -> FeedBatch:
        """The batch without rows of products that another feed owns."""
        for of in ("rows", "deleted"):
            product_ids = getattr(batch, of).column(schema.PRODUCT_ID).combine_chunks()
            others = self.current.others(product_ids)
            if others.null_count < len(others):
                said = pc.binary_join_element_wise("product_id '", product_ids, "' belongs to feed '", others, "'", "")
                batch = batch.refuse(others.is_valid(), RejectCode.DUPLICATE_KEY, said, of)
        return batch

    def _completed(self, batch: FeedBatch) -> FeedBatch:
        """The batch with what a feed of changes leaves unsaid."""
        if not self._feed.changes or not batch.rows.num_rows:
            return batch
        if self._before is None:
            fields = pa.schema([f.with_nullable(True) for f in SAID_BEFORE])
            self._before = LastRows(self._products.batches([schema.PRODUCT_ID, *fields.names]), fields)
        return completed(batch, self._before.of(batch.rows.column(schema.PRODUCT_ID).combine_chunks()))

    def _last_pictures(self, rows: pa.Table) -> pa.Table:
        if self._last is None:
            self._last = LastPictures(self._products.batches(PICTURE_COLUMNS))
        return self._last.of(pc.fill_null(rows.column(schema.PRODUCT_ID), "").combine_chunks())

    def _stood(self, last: pa.Table) -> pa.Array:
        front, uri, lists = (last.column(c).combine_chunks() for c in (LAST_IMAGE_ID, LAST_IMAGE_URI, LAST_IMAGE_LIST))
        return stood_of(self._standing, front, uri, lists)

    # what is missing

    @property
    def is_held_back(self) -> bool:
        """Whether nothing may be withdrawn, because unreadable rows may be the missing ones."""
        return self._feed.full and self.unreadable > self._feed.max_unreadable

    def _judge_missing(self) -> None:
        config, have, num_deleted = self._config, len(self.current), self.current.num_deleted
        num_missing = self.current.num_unlisted if self._feed.full else 0
        meant, rate, num = config.withdraw_missing, config.max_withdrawn_rate, num_missing + num_deleted
        are = " or ".join(["missing"] * (num_missing > 0) + ["said to be gone"] * (num_deleted > 0))
        said = f"feed.uri={self._feed.uri}: {num} of the {have} active products of feed {self._feed.id!r} are {are}"
        if meant is not None and num > meant:
            raise BadInput(f"{said}, more than withdraw_missing={meant}: nothing was done")
        if meant is None and num > max(1 if rate else 0, rate * have):
            raise BadInput(
                f"{said}, more than max_withdrawn_rate={rate:g} allows: is the file complete? Nothing was done. If these "
                f"are to go, --withdraw_missing={num} withdraws them in this run; --max_withdrawn_rate allows more."
            )
        self.gone = self._rows_of(self.current.deleted, num_deleted)
        if not self._feed.full:
            return
        self.missing = self._rows_of(self.current.unlisted, num_missing)
        before = delta.read(self._run.store, schema.ABSENCES, schema.ABSENCES.schema.names, source=self._feed.id)
        after = nights.count_absences(before, self.missing.column(schema.PRODUCT_ID), self._feed.id, nights.now_us())
        enough = pc.greater_equal(after.column(schema.NIGHTS), self._feed.grace_nights if meant is None else 0)
        still = pc.is_in(before.column(schema.PRODUCT_ID), value_set=self.missing.column(schema.PRODUCT_ID).combine_chunks())
        self.listed_again = _if_changed(before, before.filter(still))
        if self.is_held_back:
            self.absences = self.listed_again
            return
        self.gone = pa.concat_tables([self.gone, self.missing.filter(enough)])
        self.absences = _if_changed(before, after.filter(pc.invert(enough)))

    def _rows_of(self, which: Callable[[pa.Table], pa.Table], num: int) -> pa.Table:
        """The ``num`` rows of the catalog that ``which`` selects."""
        found = (which(batch) for batch in self._products.batches(schema.PRODUCTS.schema.names) if num)
        return pa.concat_tables([schema.PRODUCTS.schema.empty_table(), *found])

    def told(self) -> dict[str, Any]:
        """Fields of the job's result."""
        held = f"more than feed.max_unreadable={self._feed.max_unreadable} rows cannot be read"
        return {
            "pictures_asked_for_again": self.rechecked or None,
            "rejected_before": self.refused or None,
            "rows_without_a_readable_id": self.unreadable or None,
            "read_as": self._read_as(),
            "change_files": None if self.files is None else len(self.files),
            "rows_superseded": self.superseded or None,
            "deletions": self.deletions or None,
            "deletions_of_no_product": self.deletions - self.current.num_deleted or None,
            "rows_of_no_product": self.left_out or None,
            "variants_without_their_product": self.orphans or None,
            "rows_of_erased_products": self.erased or None,
            "pictures_beyond_the_most": self.pictures_out or None,
            "values_not_read": dict(self._unread),
            "of_those_not_read": [f"{column}, such as {said}" for column, said in sorted(self._unread_examples.items())],
            "values_not_compared": self._not_compared or None,
            "unmapped_categories": {line(name)[:80]: rows for name, rows in self._unmapped.most_common(_TOLD_NAMES)},
            "other_files_of_a_sample": self.aside or None,
            "missing": None if self.missing is None else self.missing.num_rows,
            "withdrawn": None if self.missing is None and not self.deletions else self.num_gone,
            "held_back": held if self.missing is not None and self.is_held_back else self._waiting(),
            "adopted": self.current.num_adopted or None,
        }

    @property
    def num_gone(self) -> int:
        return 0 if self.gone is None else self.gone.num_rows

    def _read_as(self) -> str | None:
        if self.files is None:
            return read_as(self._feed)
        tables = [file for file in self.files if not is_deletions(file)]
        return read_as(replace(self._feed, uri=tables[-1])) if tables else None

    def _waiting(self) -> str | None:
        left = 0 if self.missing is None else self.missing.num_rows + self.current.num_deleted - self.num_gone
        nights = f"{self._feed.grace_nights} nights in a row (feed.grace_nights; runs within 12 hours are one night)"
        return f"{left} missing products, which are withdrawn after {nights}" if left else None

    # the work

    def num_pending(self, limit: int | None) -> int:
        return min(self.pending, limit or self.pending)

    def stages(self) -> list[Stage]:
        config = self._config
        loading = load_stage(config.fetch, config.pool, self._run.run_id)
        kept = {name: loading.args[name] for name in ("fetch", "max_bytes")}  # one fetcher: its limits are a worker's
        return [
            loading,
            *without_erased(self._erased),
            Stage("inspect", inspect, (schema.BYTES,), INSPECT_GIVES, {"limits": config.decode}),
            Stage("load more", load_more, MORE_NEEDS, MORE_GIVES, kept | {"limits": config.decode, "erased": self._erased}),
            Stage("permit", permit, PERMIT_NEEDS, PERMIT_GIVES, {"use": self._use, "run_id": self._run.run_id}),
            Stage("warn", warn, WARN_NEEDS, WARN_GIVES, {"run_id": self._run.run_id}),
        ]

    def tried(self) -> dict[str, Any]:
        """Fields of a dry run's result: what some products would be, and all of them come to."""
        most = sorted(self._categories, key=lambda ours: (-self._categories[ours].total(), ours))[:_TOLD_NAMES]
        named = {line(ours): self._categories[ours].most_common(_TOLD_NAMES) for ours in sorted(most)}
        categories = {ours: {line(theirs)[:80] or "none": rows for theirs, rows in some} for ours, some in named.items()}
        if self.trial is None:
            return {}
        gone = None if self.gone is None else self.gone.column(schema.PRODUCT_ID)
        more = {"more_categories": len(self._categories) - len(most) or None}
        return {"categories": categories} | more | self.trial.told(self.stages()) | self.trial.outlook.told(gone)

    def check_rejects(self, result: Any) -> None:
        """Raises TooManyRejects, with ``result``, where a run would reject too much, as far as a dry run can tell."""
        if self.trial is None:
            return
        try:
            self._config.tolerance.check(self.trial.rejects, self.listed, self.refused, self.trial.examples, by_code=True)
        except TooManyRejects as e:
            e.result = result
            raise


def _if_changed(before: pa.Table, after: pa.Table) -> pa.Table | None:
    order = schema.PRODUCT_ID
    return None if after.sort_by(order).equals(before.sort_by(order)) else after


def with_a_picture(rows: pa.Table) -> pa.Table:
    """Those whose product has an earlier picture and lacks their other changes."""
    news = pc.and_(rows.column(STANDING).is_null(), rows.column(schema.REJECT_CODE).is_null())
    return rows.filter(pc.and_(news, rows.column(LAST_IMAGE_ID).is_valid()))


def _together(products: CurrentRows, columns) -> pa.Table:
    return pa.concat_tables([schema.PRODUCTS.empty(columns), *products.batches(columns)])


def _microseconds(times: pa.ChunkedArray) -> np.ndarray:
    return times.cast(pa.int64()).to_numpy()
