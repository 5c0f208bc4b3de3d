"""Streaming, exactly-once commits: workers write parts, the driver adds them to the Delta log every few seconds.

Readers do not see a part until a commit names it, so a worker that dies, or a batch that Ray runs twice, leaves at worst a file
for ``vacuum``. A driver that dies loses what was not committed yet; the next run computes those rows again. Order within one
commit round: the other tables, then rejects, and last the table whose keys mark a source row as done. A crash in between
therefore repeats work and never loses or duplicates a row:

- the last table and the rejects are read back as "done" keys, so a row is counted in exactly one of them;
- a table with ``unique`` (content-addressed images) drops ids that it already holds, which a repeat would write again.

Every commit carries a transaction id for the table, so that Delta refuses one that has not seen all others; rows that another
run wrote meanwhile are then removed, whatever its job and options. It also carries a transaction id of the run's application,
which identifies a commit whose answer was lost and makes a second run of the same work fail.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction

from w2w import schema, storage
from w2w.errors import JobFailed, StorageFailed
from w2w.shown import without_secrets
from w2w.stage import Counts
from w2w.table import changes, delta, erased, lease, marks
from w2w.table.doubles import Others, has_history, is_own
from w2w.table.parts import RECEIPT_SCHEMA, Output, write_part

FENCE = "w2w"  # carried by every commit to every table
_TRIES, _PAUSE_S, _LONGEST_PAUSE_S = 10, 0.5, 20.0  # retries of a failed commit: about two minutes
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_GUARDED = (schema.PRODUCTS, schema.POSTS, schema.IMAGES)
_UNIQUE_BYTES = 32  # of an id: 128 bits of a sha256 in hex


@dataclass(frozen=True)
class Lineage:
    """What a commit records about itself in the Delta log."""

    job: str
    run_id: str
    stage: str
    stage_version: str
    config: dict
    inputs: dict[str, int]  # table name -> version read
    w2w_version: str
    git_revision: str | None = None
    standing: dict[str, Any] = field(default_factory=dict)  # of the inputs (``changes.standing``), and what was found there
    seen: Mapping[str, int] = field(default_factory=dict, repr=False)  # delta.FirstSeen of the run; not recorded

    def about(self) -> dict:
        """The recorded lineage, without secrets in the options."""
        return without_secrets({name: value for name, value in vars(self).items() if name != "seen"})


def application(lineage: Lineage) -> str:
    """The committing application, for Delta's application transactions (protocol section "Transaction Identifiers")."""
    return f"w2w/{lineage.job}/{lineage.stage_version}"


def to_action(receipt: dict) -> AddAction:
    partition, now_ms = json.loads(receipt["partition"]), int(time.time() * 1000)
    return AddAction(receipt["path"], receipt["size"], partition, now_ms, True, receipt["stats"])


class Overtaken(Exception):
    """Other runs have committed to the table since it was opened."""


def commit_parts(
    store: str,
    table: schema.Table,
    opened: DeltaTable,
    receipts: Sequence[dict],
    lineage: Lineage,
    counts: Counts,
    settle: Callable[[DeltaTable, DeltaTable, Sequence[dict]], Sequence[dict]],
    mode: Literal["append", "overwrite"] = "append",
    within: dict[str, str] | None = None,
    mark: marks.Mark | None = None,
) -> DeltaTable:
    """Adds the parts to the table's log, or replaces the existing ones (those in the partition ``within``, if given); returns
    the table after the commit. ``mark``: what the commit says to be done with it.

    If others have committed since the table was opened, ``settle(opened, now, receipts)`` returns the receipts that are still
    to be added, or raises, and the mark is dropped. If none are left, nothing is committed.
    """
    marker = time.time_ns()
    while receipts or mark or mode == "overwrite":
        try:
            _commit(store, table, opened, receipts, lineage, counts, marker, mode, within, mark)
            break
        except Overtaken:
            now = delta.existing(store, table)
            receipts, opened, mark = settle(opened, now, receipts), now, None
    return opened


def _commit(
    store: str,
    table: schema.Table,
    opened: DeltaTable,
    receipts: Sequence[dict],
    lineage: Lineage,
    counts: Counts,
    marker: int,
    mode: Literal["append", "overwrite"],
    within: dict[str, str] | None,
    mark: marks.Mark | None = None,
) -> None:
    app = application(lineage)
    about = lineage.about() | {
        "rows": sum(r["rows"] for r in receipts),
        "run_rows_in": counts.read,
        "run_rejects": counts.rejects,
        "within": within,
    }
    transactions = [Transaction(FENCE, marker), Transaction(app, marker)]
    if mark:
        about["mark"] = mark.about()
        transactions.append(Transaction(mark.application, opened.version() + 1))
    properties = CommitProperties(custom_metadata={"w2w": json.dumps(about, default=str)}, app_transactions=transactions)
    where = delta.uri(store, table)
    lease.check(store)
    for attempt in range(_TRIES):
        try:
            opened.create_write_transaction(
                [to_action(r) for r in receipts],
                mode,
                opened.schema(),
                partition_by=list(table.partition_by),
                partition_filters=[(column, "=", value) for column, value in within.items()] if within else None,
                commit_properties=properties,
            )
            break
        except (DeltaError, OSError) as e:
            now = delta.open_table(store, table)
            if now is None:
                raise StorageFailed(f"table {where!r} is gone") from e
            if now.transaction_version(app) == marker:
                break  # it was written, but the answer was lost
            if now.version() > opened.version():
                raise Overtaken from e
            if attempt == _TRIES - 1 or not storage.is_s3(store):
                raise StorageFailed(f"cannot write to table {where!r}: {delta.reason(e)}") from e
            time.sleep(min(_LONGEST_PAUSE_S, _PAUSE_S * 2**attempt))
    delta.asked(where, opened.update_incremental)


def by_others(opened: DeltaTable, now: DeltaTable, lineage: Lineage) -> list[dict]:
    """Lineage of the commits that other runs made between these two versions."""
    entries = delta.history(now, now.version() - opened.version())
    return [e["w2w"] for e in entries if e["w2w"] and e["w2w"].get("run_id") != lineage.run_id]


def lost_to(about: dict, store: str, table: schema.Table) -> JobFailed:
    return JobFailed(
        f"another run of {about['job']!r}, {about['run_id']}, wrote to {delta.uri(store, table)!r} at the same time. Nothing "
        f"was duplicated. Wait until it has ended, then run this again: it resumes where that one stopped."
    )


class Committer:
    """Collects receipts in the driver and commits them. Not thread-safe; one per job run.

    A second run of the same job and stage version on the same tables is detected at its next commit and raises JobFailed. Rows
    that any other run has committed meanwhile are left out, as are products, posts and pictures that were erased.
    """

    def __init__(self, store: str, outputs: Sequence[Output], lineage: Lineage, every_s: float = 20.0):
        self._store, self._lineage, self._every_s = store, lineage, every_s
        # rejects are committed before the table whose keys mark a row as done
        self._outputs = [*outputs[:-1], Output(schema.REJECTS), outputs[-1]]
        self._tables = {o.table.name: delta.open_for_commit(store, o.table, lineage.seen) for o in self._outputs}
        self._others = {o.table.name: Others(store, o.table, o.unique, lineage.run_id) for o in self._outputs}
        self._newest: dict[str, tuple[set[str], int]] = {o.table.name: (set(), -1) for o in self._outputs}  # of these parts
        self._waiting: dict[str, list[dict]] = {o.table.name: [] for o in self._outputs}
        unique = {o.table.name: (o.table, o.unique) for o in self._outputs if o.unique}  # a table may have several outputs
        self._known = {name: _KnownIds(store, *known) for name, known in unique.items()}
        self._last_commit = time.monotonic()
        self._has_results, self._alone = False, True  # of the last output: this run committed some, and no other run did
        self.counts = Counts()

    def add(self, receipts: pa.Table) -> None:
        """Takes a worker's receipts; commits if the last commit is at least ``every_s`` seconds old."""
        for receipt in receipts.to_pylist():
            if receipt["counts"]:
                self.counts.add(Counts.from_json(receipt["counts"]))
            if receipt["path"]:
                self._waiting[receipt["table"]].append(receipt)
        if time.monotonic() - self._last_commit >= self._every_s:
            self.commit()

    def commit(self, mark: marks.Mark | None = None, bare: bool = False) -> None:
        """Makes everything received so far visible: one Delta append per table. ``mark``: what is then done. It is left out
        where this run has no results (unless ``bare``), or not it alone wrote some: then the mark of an earlier run still tells
        the truth."""
        known = erased.read(self._store)
        for output in self._outputs:
            name = output.table.name
            receipts = [kept for r in self._waiting[name] for kept in self._without_erased(output, r, known)]
            if output.unique:
                receipts = [kept for r in receipts for kept in self._drop_known(output, r)]
            receipts = self._settled(output, self._tables[name], receipts)

            def settle(opened: DeltaTable, now: DeltaTable, left: Sequence[dict], output: Output = output) -> list[dict]:
                self._alone &= output is not self._outputs[-1]
                for other in by_others(opened, now, self._lineage):
                    if (other["job"], other["stage_version"]) == (self._lineage.job, self._lineage.stage_version):
                        raise lost_to(other, self._store, output.table)
                if output.table is not schema.REJECTS:  # a row may be rejected several times: transient failures are retried
                    self._others[output.table.name].note(opened, now)
                return self._settled(output, now, left)

            told, before = None, self._tables[name].version()
            if output is self._outputs[-1]:
                self._has_results |= bool(receipts)
                told = self._told(mark, bare)
            self._tables[name] = commit_parts(
                self._store, output.table, self._tables[name], receipts, self._lineage, self.counts, settle, mark=told
            )
            if output is self._outputs[-1] and receipts:
                self._alone &= self._tables[name].version() == before + 1
            self._waiting[name] = []
        self._last_commit = time.monotonic()

    def _told(self, mark: marks.Mark | None, bare: bool) -> marks.Mark | None:
        if mark is None or not ((self._has_results or bare) and self._alone):
            return None
        rejects = changes.at(self._store, schema.REJECTS, self._tables[schema.REJECTS.name])
        return replace(mark, rejects=rejects) if rejects else None

    def version(self, table: schema.Table) -> int:
        return self.opened(table).version()

    def opened(self, table: schema.Table) -> DeltaTable:
        return self._tables[table.name]

    def _without_erased(self, output: Output, receipt: dict, known: erased.Erased) -> list[dict]:
        """The part without what must not come back; no file of that stays."""
        column = output.table.key[0]
        if output.table not in _GUARDED or not known.knows(column):
            return [receipt]
        rows = pa.concat_tables(delta.read_batches(self._store, output.table, [column], [_part(receipt)]))
        mask = known.mask(column, rows.column(column))
        kept = self._rewritten(output, receipt, ~mask)
        if mask.any():
            storage.delete(storage.join(delta.uri(self._store, output.table), receipt["path"]))
        return kept

    def _drop_known(self, output: Output, receipt: dict) -> list[dict]:
        return self._rewritten(output, receipt, self._known[output.table.name].add(receipt["unique_ids"]))

    def _settled(self, output: Output, opened: DeltaTable, receipts: Sequence[dict]) -> list[dict]:
        """Drops rows that others have written, and makes the remaining ones later than anything that others have written.

        fetched_at decides which row of a product is newest, and clocks differ: a row written after another gets a later
        timestamp, whatever this machine's clock says.
        """
        others = self._others[output.table.name]
        kept = [k for r in receipts for k in self._rewritten(output, r, ~others.repeated([_part(r)]))]
        if not kept or not has_history(output.table):
            return kept
        looked, newest = self._newest[output.table.name]
        theirs = [p for p in delta.parts(opened) if p.path not in looked and not is_own(p.path, self._lineage.run_id)]
        newest = max(newest, delta.newest_stamp(self._store, output.table, theirs))
        self._newest[output.table.name] = looked | {p.path for p in theirs}, newest
        return [k for r in kept for k in self._rewritten(output, r, after_us=newest)]

    def _rewritten(self, output: Output, receipt: dict, keep: np.ndarray | None = None, after_us: int = -1) -> list[dict]:
        """The part without the dropped rows and with timestamps above ``after_us``; the same part if that changes nothing."""
        if keep is not None and not keep.any():
            return []
        late = has_history(output.table) and _oldest_us(receipt) <= after_us
        if not late and (keep is None or keep.all()):
            return [receipt]
        columns = output.table.schema.names
        rows = pa.concat_tables(delta.read_batches(self._store, output.table, columns, [_part(receipt)]))
        if keep is not None:
            rows = rows.filter(pa.array(keep))
        if late:
            stamps = pc.max_element_wise(rows.column(schema.FETCHED_AT).cast(pa.int64()), after_us + 1).cast(schema.TIME)
            rows = rows.set_column(columns.index(schema.FETCHED_AT), rows.schema.field(schema.FETCHED_AT), stamps)
        return write_part(self._store, Output(output.table, output.unique), rows, self._lineage.run_id)


def _part(receipt: dict) -> delta.Part:
    return delta.Part(receipt["path"], receipt["rows"], receipt["size"], tuple(json.loads(receipt["partition"]).items()))


def _oldest_us(receipt: dict) -> int:
    at = datetime.fromisoformat(json.loads(receipt["stats"])["minValues"][schema.FETCHED_AT])
    return (at - _EPOCH) // timedelta(microseconds=1)


def append_rows(store: str, output: Output, rows: pa.Table, lineage: Lineage) -> dict[str, int]:
    """Commits rows held by the driver; returns {table name: new version}."""
    committer = Committer(store, [output], lineage)
    committer.add(pa.Table.from_pylist(write_part(store, output, rows, lineage.run_id), schema=RECEIPT_SCHEMA))
    committer.commit()
    return {output.table.name: committer.version(output.table)}


def append_mark(store: str, output: Output, lineage: Lineage, mark: marks.Mark) -> dict[str, int]:
    """Commits what is done, without rows; returns {table name: new version}: {} where another run wrote there meanwhile."""
    committer = Committer(store, [output], lineage)
    committer.commit(mark, bare=True)
    opened, version = committer.opened(output.table), committer.version(output.table)
    return {output.table.name: version} if opened.transaction_version(mark.application) == version else {}


class _KnownIds:
    """Ids that are in a content-addressed table or were written by this run.

    Sorted 32-byte prefixes (128 bits of the sha256), merged when the unsorted tail outgrows a tenth: 32 B per id, 3.2 GB at
    100M images, only in the driver and only while a job that adds images runs.
    """

    def __init__(self, store: str, table: schema.Table, unique: str):
        listed = delta.parts(delta.open_table(store, table))
        batches = [_prefixes(b.column(0)) for b in delta.read_batches(store, table, [unique], listed)]
        self._sorted = np.sort(np.concatenate([np.empty(0, f"S{_UNIQUE_BYTES}"), *batches]))
        self._tail: set[bytes] = set()

    def add(self, ids: Sequence[str]) -> np.ndarray:
        """bool, shape (len(ids),): True for new ids. ``ids`` has no duplicates; all are known afterwards."""
        prefixes = _prefixes(pa.array(ids))
        at = np.searchsorted(self._sorted, prefixes)
        at[at == len(self._sorted)] = 0
        known = self._sorted[at] == prefixes if len(self._sorted) else np.zeros(len(ids), bool)
        known |= np.fromiter((p in self._tail for p in prefixes.tolist()), bool, len(ids))
        self._tail.update(prefixes[~known].tolist())
        if len(self._tail) > max(100_000, len(self._sorted) // 10):
            self._sorted = np.sort(np.concatenate([self._sorted, np.fromiter(self._tail, self._sorted.dtype, len(self._tail))]))
            self._tail = set()
        return ~known


def _prefixes(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    return pc.utf8_slice_codeunits(column, 0, _UNIQUE_BYTES).to_numpy(zero_copy_only=False).astype(f"S{_UNIQUE_BYTES}")
