"""Snapshots: tables that a run computes whole and replaces in one commit.

Workers write parts as for every table; nothing is visible until the driver commits them all in place of the previous ones. A
run that dies leaves the table unchanged. Older versions stay readable until ``vacuum`` removes them.

A table partitioned by source holds one snapshot per source: re-mining the store's own data keeps the rows of public data sets,
and vice versa.
"""

import json
from collections.abc import Sequence

from deltalake import DeltaTable

from w2w import schema
from w2w.errors import JobFailed
from w2w.stage import Counts
from w2w.table import changes, delta
from w2w.table.sink import Lineage, application, by_others, commit_parts, lost_to


def current(store: str, table: schema.Table, source: str = schema.OWN) -> dict | None:
    """The lineage of the table's current snapshot (that of ``source``, if there are several), with its version as ``at``; or
    None."""
    opened, within = delta.open_table(store, table), _within(table, source)
    entries = delta.history(opened) if opened is not None else []
    made = (e["w2w"] | {"at": e["version"]} for e in entries if e["w2w"] and e["w2w"].get("within") == within)
    return next(made, None)


def replace(
    store: str, table: schema.Table, receipts: Sequence[dict], lineage: Lineage, source: str = schema.OWN
) -> tuple[Counts, int]:
    """Makes the parts that ``receipts`` name the table's content; returns the counts and the table's new version.

    In a table partitioned by source, only the rows of ``source`` are replaced, and all parts must belong to it. Receipts of
    rejects are appended first, once per stage version: if a run dies in between, only the second step is repeated.
    """
    counts, within = Counts(), _within(table, source)
    for receipt in receipts:
        if receipt["counts"]:
            counts.add(Counts.from_json(receipt["counts"]))
    kept, rejected = ([r for r in receipts if r["path"] and r["table"] == t.name] for t in (table, schema.REJECTS))
    strangers = {r["partition"] for r in kept if within and json.loads(r["partition"]) != within}
    assert not strangers, f"rows of {strangers} in a snapshot of {within}"
    rejects = delta.create_table(store, schema.REJECTS)

    def unless_written(opened: DeltaTable, now: DeltaTable, left: Sequence[dict]) -> Sequence[dict]:
        return left if now.transaction_version(application(lineage)) is None else []

    def unless_replaced(opened: DeltaTable, now: DeltaTable, left: Sequence[dict]) -> Sequence[dict]:
        for other in by_others(opened, now, lineage):
            if other.get("within") == within:
                raise lost_to(other, store, table)
        return left

    rejected = unless_written(rejects, rejects, rejected)
    commit_parts(store, schema.REJECTS, rejects, rejected, lineage, counts, unless_written)
    opened = delta.open_for_commit(store, table, lineage.seen)
    opened = commit_parts(store, table, opened, kept, lineage, counts, unless_replaced, "overwrite", within)
    return counts, opened.version()


def add_layer(store: str, table: schema.Table, receipts: Sequence[dict], lineage: Lineage, source: str, at: int) -> int:
    """Adds the parts to the content of ``source``, which is that of the table's version ``at``; returns the new version. Raises
    JobFailed if another run has changed it since."""
    within = _within(table, source)

    def unless_changed(opened: DeltaTable, now: DeltaTable, left: Sequence[dict]) -> Sequence[dict]:
        for other in by_others(opened, now, lineage):
            if other.get("within") == within:
                raise lost_to(other, store, table)
        if not changes.same_rows(store, table, now, at, **(within or {})):
            raise JobFailed(f"table {table.name!r} was changed while this run was at work: run it again")
        return left

    opened = delta.existing(store, table, at)
    counts = Counts(*[sum(r["rows"] for r in receipts)] * 2)
    return commit_parts(store, table, opened, receipts, lineage, counts, unless_changed, within=within).version()


def _within(table: schema.Table, source: str) -> dict[str, str] | None:
    return {schema.SOURCE: source} if table.partition_by == (schema.SOURCE,) else None
