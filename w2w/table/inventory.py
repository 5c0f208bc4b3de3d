"""What a store holds: its tables, their commits, their rejects."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from deltalake import DeltaTable

from w2w import schema
from w2w.table import delta


@dataclass(frozen=True)
class Held:
    """A table's current state; ``by``: the run that last wrote it."""

    table: str
    rows: int
    parts: int
    num_bytes: int
    version: int
    written_at: datetime
    by: str


@dataclass(frozen=True)
class Commit:
    """A version of a table, with the lineage that the job recorded: run, rows and input table versions; of a compaction or
    vacuum the run alone; None if no job wrote it."""

    version: int
    written_at: datetime
    operation: str
    run_id: str | None = None
    rows: int | None = None
    read_from: dict[str, int] = field(default_factory=dict)
    stage_version: str | None = None
    lineage: dict[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Rejected:
    """How many rows a stage rejected with one code, and examples: (row, reason). ``times`` counts attempts: transient failures
    are retried every night, and each failed attempt is recorded."""

    stage: str
    code: str
    rows: int
    times: int
    examples: tuple[tuple[str, str], ...]


def held(table: schema.Table, opened: DeltaTable) -> Held:
    parts, (newest,) = delta.parts(opened), history(opened, 1)
    size = sum(p.size for p in parts)
    by = newest.run_id or newest.operation
    return Held(table.name, sum(p.rows for p in parts), len(parts), size, opened.version(), newest.written_at, by)


def history(opened: DeltaTable, limit: int | None = None) -> list[Commit]:
    """The table's commits, newest first."""
    return [_commit(entry, entry["w2w"] or {}) for entry in delta.history(opened, limit)]


def _commit(entry: dict[str, Any], lineage: dict[str, Any]) -> Commit:
    return Commit(
        entry["version"],
        datetime.fromtimestamp(entry["timestamp"] / 1000, UTC),
        entry["operation"],
        lineage.get("run_id") or entry["run"],
        lineage.get("rows"),
        lineage.get("inputs", {}),
        lineage.get("stage_version"),
        entry["w2w"],
    )


def rejects(store: str, stage: str | None, num_examples: int) -> list[Rejected]:
    """By stage and code, the most frequent first."""
    columns = [schema.STAGE, schema.REJECT_CODE, schema.KEY, schema.REJECT_DETAIL, schema.SOURCE]
    where = {schema.STAGE: stage} if stage else {}
    keys: dict[tuple[str, str], set[int]] = {}
    times = Counter[tuple[str, str]]()
    examples: dict[tuple[str, str], list[tuple[str, str]]] = {}
    listed = delta.parts(delta.open_table(store, schema.REJECTS), **where)
    for batch in delta.read_batches(store, schema.REJECTS, columns, listed):
        for row in batch.to_pylist():
            group = (row[schema.STAGE], row[schema.REJECT_CODE])
            times[group] += 1
            seen, key = keys.setdefault(group, set()), hash(row[schema.KEY])
            if key not in seen and len(examples.setdefault(group, [])) < num_examples:
                examples[group].append((row[schema.SOURCE] or row[schema.KEY], row[schema.REJECT_DETAIL]))
            seen.add(key)
    order = sorted(keys, key=lambda group: -len(keys[group]))
    return [Rejected(*group, len(keys[group]), times[group], tuple(examples.get(group, ()))) for group in order]
