"""What came into a table since one of its versions, from the commits in its log: nothing of the table itself is read."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import unquote

from deltalake import DeltaTable

from w2w import ids, schema, storage
from w2w.table import delta

MOST_ENTRIES = 400  # of a log: beyond, reading the table is no slower
_READERS = 8
Entry = list[dict[str, Any]]  # the actions of a commit
Partition = Mapping[str, str]


@dataclass(frozen=True)
class At:
    """A version of a table; ``commit``: digest of what it did, which a table that was restored and written to since does not
    share."""

    table_id: str
    version: int
    commit: str


@dataclass(frozen=True)
class Changes:
    """Of commits: parts of the table that they ``added``, and those that only moved rows, ``merged``; ``merged_new``: some that
    they added are in these; ``removed``: rows went, or changed."""

    added: list[delta.Part]
    merged: list[delta.Part]
    merged_new: bool
    removed: bool

    @property
    def rows_since(self) -> list[delta.Part]:
        """Parts with all the rows that were added, and perhaps others."""
        return self.added + self.merged if self.merged_new else self.added

    def __bool__(self) -> bool:
        """Whether rows came, went or changed."""
        return bool(self.added) or self.merged_new or self.removed


def at(store: str, table: schema.Table, opened: DeltaTable | None) -> At | None:
    """The table as opened; None where there is none, or the log does not tell."""
    found = entries(store, table, opened.version(), opened.version()) if opened is not None else None
    return At(str(opened.metadata().id), opened.version(), _digest(found[0])) if opened is not None and found else None


def since(
    store: str,
    table: schema.Table,
    opened: DeltaTable | None,
    then: At,
    listed: Sequence[delta.Part],
    partition: Partition,
    after: int | None = None,
) -> Changes | str:
    """Changes after that version (or ``after``, which is no later) in a partition, of which the table has the ``listed`` parts;
    or why they cannot be told."""
    after = then.version if after is None else after
    if opened is None or str(opened.metadata().id) != then.table_id:
        return f"table {table.name!r} is another one than at the watermark"
    if (now := opened.version()) < then.version:
        return f"table {table.name!r} is at version {now}, before that of the watermark, {then.version}: was it restored?"
    first = min(after + 1, then.version)
    found = entries(store, table, first, opened.version())
    if found is None:
        return f"the log of table {table.name!r} does not reach back to the watermark"
    if _digest(found[then.version - first]) != then.commit:
        return f"version {then.version} of table {table.name!r} is another one than at the watermark: was it restored?"
    return changes(found[after + 1 - first :], listed, partition)


def standing(store: str, tables: Iterable[schema.Table]) -> dict[str, dict | None]:
    """As plain values where each table stands, None for one that is not there; without those whose log does not tell."""
    opened = {table.name: (table, delta.open_table(store, table)) for table in tables}
    found = {name: at(store, table, one) for name, (table, one) in opened.items()}
    return {name: asdict(where) if where else None for name, where in found.items() if where or opened[name][1] is None}


def stands(store: str, told: Mapping[str, Any], of: Iterable[tuple[schema.Table, Partition]]) -> bool:
    """Whether nothing came into these partitions, went or changed since ``standing`` told where their tables stand."""
    for table, partition in of:
        opened = delta.open_table(store, table)
        if table.name not in told or (opened is None) != (told[table.name] is None):
            return False
        if opened is None:
            continue
        try:
            then = At(**told[table.name])
        except TypeError:
            return False
        found = since(store, table, opened, then, delta.parts(opened, **partition), partition)
        if isinstance(found, str) or found:
            return False
    return True


def same_rows(store: str, table: schema.Table, opened: DeltaTable, version: int, **partition: str) -> bool:
    """Whether rows were only moved, if anything, since a version of the table."""
    found = entries(store, table, version + 1, opened.version())
    return found is not None and not changes(found, delta.parts(opened, **partition), partition)


def changes(of: Iterable[Entry], listed: Sequence[delta.Part], partition: Partition) -> Changes:
    live, added, merged, removed = {p.path: p for p in listed}, set[str](), set[str](), False
    for action in (action for entry in of for action in entry):
        told = action.get("add") or action.get("remove")
        if told is None or not (told.get("partitionValues") or {}).items() >= partition.items():
            continue
        if "add" in action:
            (added if told["dataChange"] else merged).add(unquote(told["path"]))
        else:
            removed |= bool(told["dataChange"])
    there, moved = ([live[path] for path in sorted(paths & set(live))] for paths in (added, merged))
    return Changes(there, moved, len(there) < len(added), removed)


def entries(store: str, table: schema.Table, first: int, last: int) -> list[Entry] | None:
    """The commits of these versions; None if there are too many, or one cannot be read."""
    if last - first > MOST_ENTRIES:
        return None
    log = storage.join(delta.uri(store, table), "_delta_log")
    with ThreadPoolExecutor(_READERS) as pool:
        try:
            return list(pool.map(_entry, (storage.join(log, f"{version:020d}.json") for version in range(first, last + 1))))
        except (FileNotFoundError, ValueError):
            return None


def _entry(where: str) -> Entry:
    return list(_actions(storage.read_bytes(where)))


def _actions(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.splitlines():
        if line.strip():
            yield json.loads(line)


def _digest(entry: Entry) -> str:
    told = [action.get("add") or action.get("remove") or {} for action in entry]
    when = [action["commitInfo"].get("timestamp") for action in entry if "commitInfo" in action]
    return ids.digest(sorted(one["path"] for one in told if one), when)
