"""Watermarks: up to which version of its input a stage has done every row. The next run looks only at what came since.

A mark stands in the metadata of a run's last commit to the table whose keys mark a row as done, so it is there exactly if the
results are. It names the input's version, the parts that hold rows whose failure was transient, and how many rows were rejected
for good. What is read then are the log entries since: parts that were added to the input, to the results (by a run that was
killed) and to `rejects`. Compaction moves rows and changes none, and its commits say so (Delta Lake's ``dataChange``).

Where anything else happened, all rows are compared with all results: a table was restored, recreated, overwritten or had rows
taken out; its log is gone; parts that count as new were merged with others; another run committed results meanwhile.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from w2w import schema
from w2w.errors import TRANSIENT
from w2w.stage import Counts
from w2w.table import changes, delta
from w2w.table.changes import At, Changes
from w2w.table.doubles import has_history
from w2w.table.pending import Keys, Stored, pending_mask

_MOST_AGAIN = 256  # parts in a mark


@dataclass(frozen=True)
class Mark:
    """All rows of version ``source`` of the input are done, or were rejected for good, but for those of the parts ``again``
    that run ``run_id`` rejected for the time being. ``work``: the stage, its version and the input; ``made``: the table of its
    results; ``rejects_before`` and ``rejects``: that table's version before the run (-1: it was not there) and after it;
    ``rejected``: rows of the input that were rejected for good."""

    work: str
    made: str
    source: At
    rejects_before: int
    rejected: int
    rejects: At | None = None
    run_id: str = ""
    again: tuple[str, ...] = ()

    @property
    def application(self) -> str:
        """For Delta's application transactions: the number is the version of the commit that carries the mark."""
        return f"w2w-mark/{self.work}"

    def about(self) -> dict:
        return asdict(self)

    @staticmethod
    def parse(told: dict) -> "Mark":
        """Raises KeyError, TypeError or ValueError for what is no mark."""
        at = {name: At(**told[name]) if told[name] else None for name in ("source", "rejects")}
        return Mark(**{**told, **at, "again": tuple(told["again"])})

    def after(self, run_id: str, counts: Counts, parts: Iterable[str]) -> "Mark | None":
        """The mark of a run that worked on every pending row, in these parts."""
        again = sum(n for code, n in counts.rejects.items() if code in TRANSIENT)
        open_parts = tuple(sorted(set(parts))) if again else ()
        if len(open_parts) > _MOST_AGAIN:
            return None
        return replace(self, run_id=run_id, again=open_parts, rejected=self.rejected + counts.rejected - again)


@dataclass(frozen=True)
class Looked:
    """``pending``: bool, of each row of the input; ``rejected``: number of rows that were rejected for good; ``num_read``: rows
    that were looked at."""

    pending: np.ndarray
    rejected: int
    num_read: int


@dataclass(frozen=True)
class Work:
    """A stage's input, ``listed`` parts of ``opened``, and its results and rejects."""

    store: str
    table: schema.Table
    opened: DeltaTable
    listed: list[delta.Part]
    partition: Mapping[str, str]
    made: Stored
    refused: Stored

    @staticmethod
    def of(
        store: str,
        table: schema.Table,
        opened: DeltaTable | None,
        listed: list[delta.Part],
        partition: Mapping[str, str],
        done: Sequence[Keys],
    ) -> "Work | None":
        """None where there can be no mark: keys of the input come several times, or results are more than one table's keys."""
        made, refused = ([k.stored for k in done if k.stored and k.rejected == rejected] for rejected in (False, True))
        known = schema.TABLES.get(table.name) is table and not has_history(table)
        if opened is None or not known or len(made) != 1 or len(refused) != 1 or len(done) != 2:
            return None
        return Work(store, table, opened, listed, partition, made[0], refused[0])

    @property
    def name(self) -> str:
        within = ",".join(f"{column}={value}" for column, value in sorted(self.partition.items()))
        of_stage = self.refused.partition[schema.STAGE], self.refused.stage_version
        return "/".join(filter(None, [*of_stage, self.table.name, within]))

    def mark(self, rejected: int) -> Mark | None:
        """For a run that is to work on all that is pending now. None if the log does not tell which version that is."""
        rejects = delta.open_table(self.store, schema.REJECTS)
        source = changes.at(self.store, self.table, self.opened)
        before = rejects.version() if rejects is not None else -1
        return Mark(self.name, self.made.table.name, source, before, rejected) if source else None

    def look(self) -> Looked | str:
        """What is pending, by the mark; or why all rows must be looked at: empty if there is no mark yet."""
        made, refused = self.made, self.refused
        opened = delta.open_table(self.store, made.table)
        number = opened.transaction_version(f"w2w-mark/{self.name}") if opened is not None else None
        if opened is None or number is None:
            return ""
        entries = changes.entries(self.store, made.table, number, opened.version())
        mark = _mark_in(entries[0], self.name) if entries else None
        if entries is None or mark is None or mark.rejects is None:
            return f"the log of table {made.table.name!r} no longer has the watermark of {self.name}"
        results = changes.changes(entries[1:], delta.parts(opened, **made.partition), made.partition)
        came = changes.since(self.store, self.table, self.opened, mark.source, self.listed, self.partition)
        if isinstance(came, str):
            return came
        rejects = delta.open_table(self.store, schema.REJECTS)
        listed = delta.parts(rejects, **refused.partition)
        where = (listed, refused.partition, mark.rejects_before)
        rejected = changes.since(self.store, schema.REJECTS, rejects, mark.rejects, *where)
        if isinstance(rejected, str):
            return rejected
        for name, some in ((self.table.name, came), (made.table.name, results), (schema.REJECTS.name, rejected)):
            if some.removed:
                return f"rows were taken out of table {name!r}, or changed, since the watermark"
        if came.merged_new or not set(mark.again) <= {p.path for p in self.listed}:
            return f"new parts of table {self.table.name!r} were merged with others since the watermark"
        return self._looked(mark, came, results, rejected)

    def _looked(self, mark: Mark, came: Changes, results: Changes, rejected: Changes) -> Looked:
        pending = np.zeros(sum(p.rows for p in self.listed), bool)
        new, start, some, at = {p.path for p in came.added}, 0, [], []
        for part in self.listed:
            if part.path in new or part.path in mark.again:
                some.append(part)
                at.append(np.arange(start, start + part.rows))
            start += part.rows
        if not some:
            return Looked(pending, mark.rejected, 0)
        rows = np.concatenate(at)
        keys = Keys([b.column(0) for b in delta.read_batches(self.store, self.table, [self.table.key[0]], some)], len(rows))
        is_new = np.concatenate([np.full(part.rows, part.path in new) for part in some])
        later = rejected.rows_since
        if mark.again:
            tried = _tried_in_vain(self.store, later, mark.run_id, self.refused.stage_version)
            is_new |= ~pending_mask(keys, [Keys([tried], len(tried))])
        final = self.refused.keys(later)
        final = replace(final, batches=[final.read()])
        failed = ~pending_mask(keys, [final]) & is_new
        pending[rows] = is_new & pending_mask(keys, [self.made.keys(results.rows_since), final])
        return Looked(pending, mark.rejected + int(failed.sum()), len(rows))


def _tried_in_vain(store: str, listed: Sequence[delta.Part], run_id: str, stage_version: str) -> pa.ChunkedArray:
    """Keys that the run rejected for the time being."""
    columns = [schema.KEY, schema.STAGE_VERSION, schema.RUN_ID, schema.REJECT_CODE]
    transient = pa.array([code.value for code in TRANSIENT])
    found: list[pa.Array] = []
    for rows in delta.read_batches(store, schema.REJECTS, columns, listed):
        own = pc.and_(pc.equal(rows.column(1), stage_version), pc.equal(rows.column(2), run_id))
        found += rows.column(0).filter(pc.and_(own, pc.is_in(rows.column(3), value_set=transient))).chunks
    return pa.chunked_array(found, pa.string())


def _mark_in(entry: changes.Entry, work: str) -> Mark | None:
    for action in entry:
        try:
            mark = Mark.parse(json.loads(action["commitInfo"]["w2w"])["mark"])
        except (KeyError, TypeError, ValueError):
            continue
        return mark if mark.work == work else None
    return None
