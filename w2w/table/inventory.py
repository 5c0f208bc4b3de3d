"""What a store holds, as tables for a person: rows, commits, rejects."""

import time

from rich.console import Group
from rich.table import Table as RichTable

from w2w import schema
from w2w.table import delta


def overview(opened: list, store: str) -> RichTable:
    """A line a table: rows, parts, size, and who wrote it last."""
    shown = RichTable("table", "rows", "parts", "MB", "version", "last written", "by", title=store, title_justify="left")
    for table, found in opened:
        parts, newest = delta.parts(found), delta.history(found, 1)[0]
        size = sum(p.size for p in parts) / 1e6
        written = time.strftime("%Y-%m-%d %H:%M", time.localtime(newest["timestamp"] / 1000))
        by = (newest["w2w"] or {}).get("run_id", newest["operation"])
        shown.add_row(
            table.name, f"{sum(p.rows for p in parts):,}", str(len(parts)), f"{size:,.1f}", str(found.version()), written, by
        )
    return shown


def history(table: schema.Table, found) -> RichTable:
    """A line a commit, newest first, with its lineage."""
    shown = RichTable("version", "time", "operation", "run", "rows", "read from", "stage version", title=table.name)
    for entry in delta.history(found):
        lineage = entry["w2w"] or {}
        inputs = ", ".join(f"{name}@{version}" for name, version in lineage.get("inputs", {}).items())
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["timestamp"] / 1000))
        rows = f"{lineage['rows']:,}" if "rows" in lineage else ""
        shown.add_row(
            str(entry["version"]),
            when,
            entry["operation"],
            lineage.get("run_id", ""),
            rows,
            inputs,
            lineage.get("stage_version", ""),
        )
    return shown


def rejects(store: str, stage: str | None, num_examples: int) -> RichTable:
    """A line a stage and code, with how many rows and a few of them."""
    columns = [schema.STAGE, schema.REJECT_CODE, schema.KEY, schema.REJECT_DETAIL, schema.SOURCE]
    where = {schema.STAGE: stage} if stage else {}
    counts: dict[tuple[str, str], int] = {}
    examples: dict[tuple[str, str], list[dict]] = {}
    listed = delta.parts(delta.open_table(store, schema.REJECTS), **where)
    for batch in delta.read_batches(store, schema.REJECTS, columns, listed):
        for row in batch.to_pylist():
            group = (row[schema.STAGE], row[schema.REJECT_CODE])
            counts[group] = counts.get(group, 0) + 1
            if len(examples.setdefault(group, [])) < num_examples:
                examples[group].append(row)
    shown = RichTable("stage", "code", "rows", "for example", title="rejects", title_justify="left")
    for group, n in sorted(counts.items(), key=lambda kv: -kv[1]):
        lines = [f"{r[schema.SOURCE] or r[schema.KEY]}: {r[schema.REJECT_DETAIL]}" for r in examples[group]]
        shown.add_row(group[0], group[1], f"{n:,}", Group(*lines))
    return shown
