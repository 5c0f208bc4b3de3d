"""Streaming, exactly-once commits: workers write parts, the driver names them in the Delta log every few seconds.

A part that no commit names does not exist for readers, so a worker that dies, or a batch that Ray runs twice, leaves at
worst a file for ``vacuum``. A driver that dies loses what was not committed yet; the next run computes those rows again.
Order within one commit round: tables named first, then rejects, and last the table whose keys mark a source row as done.
A crash between them therefore repeats work and never loses or doubles a row:

- the last table and the rejects are read back as "done" keys, so a row counts once in one of them;
- a table with ``unique`` (content-addressed images) drops ids that it already holds, which a repeat would write again.
"""

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction

from w2w import schema, storage
from w2w.errors import JobFailed
from w2w.table import delta

_ROW_GROUP_BYTES = 64 << 20
_UNIQUE_BYTES = 32  # of the id: 128 bits of a sha256 in hex

RECEIPT_SCHEMA = pa.schema(
    [
        pa.field("table", pa.string()),
        pa.field("path", pa.string()),
        pa.field("rows", pa.int64()),
        pa.field("size", pa.int64()),
        pa.field("partition", pa.string()),  # JSON
        pa.field("stats", pa.string()),  # JSON, Delta's per-file statistics
        pa.field("unique_ids", pa.list_(pa.string())),
        pa.field("counts", pa.string()),  # JSON, of the batch: rows read, per stage, rejects by code; on one receipt a batch
    ]
)


@dataclass(frozen=True)
class Output:
    """One table that a job writes. ``unique``: a content id that must stand in the table once, whoever sends it again.

    ``nested``: the column whose lists hold the table's rows, for a stage that makes any number of them from one.
    """

    table: schema.Table
    unique: str | None = None
    nested: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """What the output takes of a stage's result."""
        return (self.nested,) if self.nested else tuple(self.table.schema.names)


@dataclass(frozen=True)
class Lineage:
    """What a commit says about itself, kept in the Delta log."""

    job: str
    run_id: str
    stage: str
    stage_version: str
    config: dict
    inputs: dict[str, int]  # table name -> version read
    w2w_version: str
    git_revision: str | None = None


def write_part(store: str, output: Output, rows: pa.Table, run_id: str) -> list[dict]:
    """Writes the rows as Parquet parts, one a partition, and returns their receipts. Runs in a worker.

    ``rows`` has the table's columns (others are ignored). Within the rows, the first of each ``unique`` id is kept.
    """
    table = output.table
    if output.nested:
        rows = _unnested(rows.column(output.nested))
    rows = pa.Table.from_arrays([rows.column(f.name).cast(f.type) for f in table.schema], schema=table.schema)
    if output.unique:
        rows = _first_of_each(rows.filter(pc.is_valid(rows.column(output.unique))), output.unique)
    if rows.num_rows == 0:
        return []
    if not table.partition_by:
        return [_write(store, output, rows, {}, run_id)]
    (column,) = table.partition_by
    values = pc.unique(rows.column(column)).to_pylist()
    return [_write(store, output, rows.filter(pc.equal(rows.column(column), v)), {column: v}, run_id) for v in values]


def _unnested(lists: pa.ChunkedArray) -> pa.Table:
    structs = pc.list_flatten(lists)
    return pa.concat_tables([pa.Table.from_struct_array(c) for c in structs.chunks] or [_no_rows(structs.type)])


def _no_rows(kind: pa.StructType) -> pa.Table:
    return pa.schema(list(kind)).empty_table()


def _first_of_each(rows: pa.Table, column: str) -> pa.Table:
    _, first = np.unique(np.asarray(rows.column(column).to_pylist(), dtype=object).astype(str), return_index=True)
    return rows if len(first) == rows.num_rows else rows.take(pa.array(np.sort(first)))


def _write(store: str, output: Output, rows: pa.Table, partition: dict[str, str], run_id: str) -> dict:
    table = output.table
    folder = "/".join(f"{k}={v}" for k, v in partition.items())
    path = "/".join(filter(None, [folder, f"{run_id}-{uuid.uuid4().hex}.parquet"]))
    system, root = storage.filesystem(delta.uri(store, table))
    if not storage.is_s3(store):
        system.create_dir(f"{root}/{folder}" if folder else root, recursive=True)
    stored = rows.drop_columns(list(partition))
    row_bytes = max(1, stored.nbytes // max(1, stored.num_rows))
    with system.open_output_stream(f"{root}/{path}") as sink:
        pq.write_table(
            stored,
            sink,
            row_group_size=max(1, _ROW_GROUP_BYTES // row_bytes),
            compression={_leaf(f): "none" if f.name == schema.BYTES else "zstd" for f in stored.schema},
            use_dictionary=[c for c in (schema.CATEGORY, schema.OWNER_KIND, schema.FORMAT) if c in stored.column_names],
            column_encoding={_leaf(f): "BYTE_STREAM_SPLIT" for f in stored.schema if f.name == schema.VECTOR} or None,
            write_statistics=[c for c in table.key if c in stored.column_names],
            store_schema=False,
        )
    return {
        "table": table.name,
        "path": path,
        "rows": rows.num_rows,
        "size": system.get_file_info(f"{root}/{path}").size,
        "partition": json.dumps(partition),
        "stats": json.dumps({"numRecords": rows.num_rows}),
        "unique_ids": rows.column(output.unique).to_pylist() if output.unique else None,
        "counts": None,
    }


def _leaf(f: pa.Field) -> str:
    if pa.types.is_list(f.type):
        return f"{f.name}.list.element"
    if pa.types.is_map(f.type):
        return f"{f.name}.key_value.value"
    return f.name


@dataclass
class Counts:
    """What happened to the rows, summed over the batches that reached the driver."""

    read: int = 0  # rows taken from the source
    out: int = 0  # rows that passed every stage
    rejects: dict[str, int] = field(default_factory=dict)  # by code
    stages: dict[str, int] = field(default_factory=dict)  # rows that entered each stage

    def add(self, other: "Counts") -> None:
        self.read += other.read
        self.out += other.out
        for mine, theirs in ((self.rejects, other.rejects), (self.stages, other.stages)):
            for k, v in theirs.items():
                mine[k] = mine.get(k, 0) + v

    @property
    def rejected(self) -> int:
        return sum(self.rejects.values())

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Counts":
        return Counts(**json.loads(text))


def application(lineage: Lineage) -> str:
    """Who commits, for Delta's application transactions (protocol section "Transaction Identifiers")."""
    return f"w2w/{lineage.job}/{lineage.stage_version}"


def commit_parts(
    store: str,
    table: schema.Table,
    opened: DeltaTable,
    receipts: Sequence[dict],
    lineage: Lineage,
    counts: Counts,
    app: str,
    mode: Literal["append", "overwrite"] = "append",
    within: dict[str, str] | None = None,
) -> None:
    """Names the parts in the table's log, beside those before or in place of them (of those in the partition ``within``, where
    it is given). Raises JobFailed where another run of the same application came between."""
    now_ms = int(time.time() * 1000)
    actions = [AddAction(r["path"], r["size"], json.loads(r["partition"]), now_ms, True, r["stats"]) for r in receipts]
    marker = time.time_ns()
    about = asdict(lineage) | {
        "rows": sum(r["rows"] for r in receipts),
        "run_rows_in": counts.read,
        "run_rejects": counts.rejects,
        "within": within,
    }
    properties = CommitProperties(
        custom_metadata={"w2w": json.dumps(about, default=str)}, app_transactions=[Transaction(app, marker)]
    )
    try:
        opened.create_write_transaction(
            actions,
            mode,
            opened.schema(),
            partition_by=list(table.partition_by),
            partition_filters=[(column, "=", value) for column, value in within.items()] if within else None,
            commit_properties=properties,
        )
        opened.update_incremental()
        lost = opened.transaction_version(app) != marker
    except CommitFailedError as e:
        if "concurrent transaction" not in str(e).lower():
            raise
        lost = True
    if lost:
        raise JobFailed(
            f"another run of {lineage.job!r} wrote to {delta.uri(store, table)!r} at the same time. "
            f"Nothing was doubled. Wait until it has ended, then run this again: it goes on where that one stopped."
        )


class Committer:
    """Collects receipts in the driver and commits them. Not thread-safe: one a job run.

    A second run of the same job against the same tables is noticed at its next commit and raises JobFailed, before it can
    double a row.
    """

    def __init__(self, store: str, outputs: Sequence[Output], lineage: Lineage, every_s: float = 20.0):
        self._store, self._lineage, self._every_s = store, lineage, every_s
        # rejects go before the table whose keys mark a row as done
        self._outputs = [*outputs[:-1], Output(schema.REJECTS), outputs[-1]]
        self._tables = {o.table.name: delta.create_table(store, o.table) for o in self._outputs}
        self._app = application(lineage)
        self._transactions = {n: t.transaction_version(self._app) for n, t in self._tables.items()}
        self._waiting: dict[str, list[dict]] = {o.table.name: [] for o in self._outputs}
        self._known = {o.table.name: _KnownIds(store, o) for o in self._outputs if o.unique}
        self._last_commit = time.monotonic()
        self.counts = Counts()
        self.committed = Counts()

    def add(self, receipts: pa.Table) -> None:
        """Takes a worker's receipts; commits when the last commit is ``every_s`` seconds old."""
        for receipt in receipts.to_pylist():
            if receipt["counts"]:
                self.counts.add(Counts.from_json(receipt["counts"]))
            if receipt["path"]:
                self._waiting[receipt["table"]].append(receipt)
        if time.monotonic() - self._last_commit >= self._every_s:
            self.commit()

    def commit(self) -> None:
        """Makes everything that has arrived visible: one Delta append a table."""
        for output in self._outputs:
            receipts = self._waiting[output.table.name]
            if output.unique:
                receipts = [kept for r in receipts for kept in self._drop_known(output, r)]
            if receipts:
                opened = self._tables[output.table.name]
                commit_parts(self._store, output.table, opened, receipts, self._lineage, self.counts, self._app)
            self._waiting[output.table.name] = []
        self.committed = Counts.from_json(self.counts.to_json())
        self._last_commit = time.monotonic()

    def version(self, table: schema.Table) -> int:
        return self._tables[table.name].version()

    def _drop_known(self, output: Output, receipt: dict) -> list[dict]:
        ids = receipt["unique_ids"]
        new = self._known[output.table.name].add(ids)
        if new.all():
            return [receipt]
        if not new.any():
            return []
        system, root = storage.filesystem(delta.uri(self._store, output.table))
        rows = pq.read_table(f"{root}/{receipt['path']}", filesystem=system)
        return write_part(self._store, output, rows.filter(pa.array(new)), self._lineage.run_id)


def append_rows(store: str, output: Output, rows: pa.Table, lineage: Lineage) -> dict[str, int]:
    """Commits rows that the driver holds; the table's new version by name."""
    committer = Committer(store, [output], lineage)
    committer.add(pa.Table.from_pylist(write_part(store, output, rows, lineage.run_id), schema=RECEIPT_SCHEMA))
    committer.commit()
    return {output.table.name: committer.version(output.table)}


class _KnownIds:
    """Ids that stand in a content-addressed table or were written by this run.

    Sorted 32-byte prefixes (128 bits of the sha256), merged when the unsorted tail outgrows a tenth: 32 B an id, 3.2 GB at
    100M images, in the driver alone and only while a job that adds images runs.
    """

    def __init__(self, store: str, output: Output):
        listed = delta.parts(delta.open_table(store, output.table))
        batches = [_prefixes(b.column(0)) for b in delta.read_batches(store, output.table, [output.unique], listed)]
        self._sorted = np.sort(np.concatenate([np.empty(0, f"S{_UNIQUE_BYTES}"), *batches]))
        self._tail: set[bytes] = set()

    def add(self, ids: Sequence[str]) -> np.ndarray:
        """bool, shape (len(ids),): True where the id was not known. ``ids`` has no doubles; all are known afterwards."""
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
