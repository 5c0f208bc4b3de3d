"""Snapshots: tables that a run computes whole and replaces in one commit.

Workers write parts as they do for every table; nothing is visible until the driver names them all, in place of those
before. A run that dies leaves the table as it was. Older versions stay readable until ``vacuum`` removes them.
"""

from collections.abc import Sequence

from w2w import schema
from w2w.table import delta
from w2w.table.sink import Counts, Lineage, application, commit_parts


def current(store: str, table: schema.Table) -> dict | None:
    """The lineage of the snapshot that the table holds; None where it holds none."""
    opened = delta.open_table(store, table)
    entries = delta.history(opened) if opened is not None else []
    return next((e["w2w"] for e in entries if e["w2w"]), None)


def replace(store: str, table: schema.Table, receipts: Sequence[dict], lineage: Lineage) -> tuple[Counts, int]:
    """Makes the parts that ``receipts`` name what the table holds; returns the counts and the table's new version.

    Receipts of rejects are appended first, once a stage version: a run that died between the two repeats only the second.
    """
    app, counts = application(lineage), Counts()
    for receipt in receipts:
        if receipt["counts"]:
            counts.add(Counts.from_json(receipt["counts"]))
    kept, rejected = ([r for r in receipts if r["path"] and r["table"] == t.name] for t in (table, schema.REJECTS))
    rejects = delta.create_table(store, schema.REJECTS)
    if rejected and rejects.transaction_version(app) is None:
        commit_parts(store, schema.REJECTS, rejects, rejected, lineage, counts, app)
    opened = delta.create_table(store, table)
    commit_parts(store, table, opened, kept, lineage, counts, app, "overwrite")
    return counts, opened.version()
