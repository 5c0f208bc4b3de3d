"""Reads what a night wrote: the parts that came since the evening, and of everything before only what they are about."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema, storage
from w2w.nightly.rules import Changes, Rows, changes
from w2w.report.page import page_of
from w2w.table import changes as log_since
from w2w.table import delta
from w2w.table.pending import lookup, values_by_key

NIGHT = "night.json"  # beside the page
_SHOWN = [schema.TITLE, schema.BRAND, schema.PRICE, schema.CURRENCY, schema.CATEGORY, schema.URL, schema.AVAILABILITY]
_AT_ONCE = 16_384
_NIGHTS = 13  # that are looked through for what the index was
_OF_A_SECOND = 8  # runs whose names do not say which was the last
_EXAMPLES = 3  # of rows rejected with one code
_ASKED = ("find", "search", "style", "evaluate")  # stages whose rows somebody asked about: nothing of the shop
_MOST_ROWS = 3_000_000  # of one night that are compared with what was before: 105 bytes each, twice


@dataclass(frozen=True)
class Rejected:
    """Rows of one stage and code: their number, and examples (row, reason)."""

    stage: str
    code: str
    rows: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Told:
    """What the page shows of the tables. ``new``, ``back``, ``gone`` and ``changed``: numbers of products; ``shown``: of each
    of these some, as (row now, row before or None). ``products``: on sale now, None if not counted."""

    new: int = 0
    back: int = 0
    gone: int = 0
    changed: int = 0
    what: Mapping[str, int] = field(default_factory=dict)
    shown: Mapping[str, list[tuple[dict[str, Any], dict[str, Any] | None]]] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    rejected: tuple[Rejected, ...] = ()
    written: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    """By table: rows, parts and bytes that came."""
    rewritten: int = 0
    """Products with a new row that looks as the one before."""
    too_many: bool = False
    """More rows came than are compared: all are counted as new."""
    unread: bool = False
    """What changed could not be read."""

    def counts(self) -> dict[str, int]:
        """By the words of the night's sentence."""
        rejected = sum(r.rows for r in self.rejected)
        return {"new": self.new, "back": self.back, "changed": self.changed, "withdrawn": self.gone, "rejected": rejected}


def versions(store: str) -> dict[str, int]:
    """The version of every table that there is."""
    tables = [*schema.TABLES.values(), *delta.own_tables(store).values()]
    return {t.name: found.version() for t in tables if (found := delta.open_table(store, t)) is not None}


def evening(store: str, run_id: str) -> dict[str, int]:
    """The versions up to which nights have been told, of the last page: what a killed night did stands on the next one. Of a
    table that was restored or made anew, its version now; of one that came since, none."""
    now, last = versions(store), earlier(store, run_id, 1)
    told = last[0].get("tables") if last else {}
    if not isinstance(told, dict):  # of a w2w that did not write them
        return now
    known = {name: version for name, version in told.items() if isinstance(version, int) and version >= 0}
    return {name: min(known[name], version) for name, version in now.items() if name in known}


def published_before(store: str, run_id: str) -> str | None:
    """The index version that the last night with that step told of; None if none of the last ones did."""
    told = (night.get("index") for night in earlier(store, run_id, _NIGHTS))
    return next((one["published"] for one in told if isinstance(one, dict) and isinstance(one.get("published"), str)), None)


def since(store: str, evening: Mapping[str, int], examples: int) -> Told:
    """What came after ``evening`` (``versions`` of then). At most ``examples`` products of each kind are shown."""
    came = {}
    for name in versions(store):
        table = schema.TABLES.get(name) or delta.own_tables(store)[name]
        if parts := _came(store, table, evening.get(name)):
            came[name] = parts
    written = {name: (sum(p.rows for p in some), len(some), sum(p.size for p in some)) for name, some in came.items()}
    rejected = _rejected(store, came.get(schema.REJECTS.name, ()))
    parts = came.get(schema.PRODUCTS.name, ())
    if not parts:
        return Told(rejected=rejected, written=written)
    version = evening.get(schema.PRODUCTS.name)
    then = [] if version is None else delta.parts(delta.open_table(store, schema.PRODUCTS, version))
    stamp = delta.newest_stamp(store, schema.PRODUCTS, then)
    found, product_ids, too_many = _compared(store, parts, stamp)
    chosen = {"new": found.new, "back": found.back, "gone": found.gone, "changed": found.changed}
    some = {kind: [product_ids[int(i)].as_py() for i in rows[:examples]] for kind, rows in chosen.items()}
    rows = _rows(store, [one for listed in some.values() for one in listed])
    shown = {kind: [_now_and_before(rows[one], stamp) for one in listed] for kind, listed in some.items()}
    images = {now[schema.IMAGE_ID] for listed in shown.values() for now, _ in listed} - {None}
    return Told(
        len(found.new),
        len(found.back),
        len(found.gone),
        len(found.changed),
        what=found.what,
        rewritten=found.rewritten,
        shown=shown,
        pictures=values_by_key(store, schema.IMAGES, images, schema.BYTES),
        rejected=rejected,
        written=written,
        too_many=too_many,
    )


def _came(store: str, table: schema.Table, version: int | None) -> list[delta.Part]:
    """Parts with all the rows that came after a version, and others where parts were merged; None: with all rows."""
    opened = delta.open_table(store, table)
    listed = delta.parts(opened)
    if opened is None or version is None:
        return listed
    entries = log_since.entries(store, table, version + 1, opened.version())
    if entries is None:
        before = {part.path for part in delta.parts(delta.open_table(store, table, version))}
        return [part for part in listed if part.path not in before]
    return log_since.changes(entries, listed, {}).rows_since


def _compared(store: str, parts: Iterable[delta.Part], stamp: int) -> tuple[Changes, pa.ChunkedArray, bool]:
    """The changes since the newest row of the evening, ``stamp``; the night's product ids, which they number; whether these
    were too many. What was before is read from the table as it is now: the evening's parts may have been merged and deleted."""
    columns, tonight, names = list(Rows.COLUMNS), [], []
    for batch in delta.read_batches(store, schema.PRODUCTS, columns, list(parts), _AT_ONCE):
        came = batch.filter(pa.array(_stamps(batch) > stamp))
        tonight.append(Rows.of(came))
        names += came.column(schema.PRODUCT_ID).chunks
    now, before = Rows.joined(tonight), []
    too_many = stamp >= 0 and len(now.ids_N) > _MOST_ROWS
    wanted, every = np.unique(now.ids_N), delta.parts(delta.open_table(store, schema.PRODUCTS))
    for batch in delta.read_batches(store, schema.PRODUCTS, columns, [] if too_many else every, _AT_ONCE):
        mine = np.isin(ids.hash_keys(batch.column(schema.PRODUCT_ID)), wanted) & (_stamps(batch) <= stamp)
        if mine.any():
            before.append(Rows.of(batch.filter(pa.array(mine))))
    return changes(now, Rows.joined(before)), pa.chunked_array(names, pa.string()), too_many


def _stamps(rows: pa.Table) -> np.ndarray:
    return rows.column(schema.FETCHED_AT).cast(pa.int64()).to_numpy()


def _rows(store: str, product_ids: list[str]) -> dict[str, list[dict[str, Any]]]:
    """All rows of these products, the newest first."""
    columns = [schema.PRODUCT_ID, schema.FETCHED_AT, schema.IMAGE_ID, *_SHOWN]
    rows = lookup(store, schema.PRODUCTS, pa.array(product_ids, pa.string()), columns).sort_by(
        [(schema.FETCHED_AT, "descending")]
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        found.setdefault(row[schema.PRODUCT_ID], []).append(row)
    return found


def _now_and_before(rows: list[dict[str, Any]], stamp: int) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """``stamp``: of the newest row of the evening, microseconds."""
    before = (row for row in rows[1:] if int(row[schema.FETCHED_AT].timestamp() * 1e6) <= stamp)
    return rows[0], next(before, None)


def _rejected(store: str, parts: Iterable[delta.Part]) -> tuple[Rejected, ...]:
    """Of what is the shop's; the most frequent first."""
    columns = [schema.STAGE, schema.REJECT_CODE, schema.KEY, schema.SOURCE, schema.REJECT_DETAIL]
    counts: dict[tuple[str, str], int] = {}
    examples: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for batch in delta.read_batches(store, schema.REJECTS, columns, list(parts), _AT_ONCE):
        grouped = (
            batch.select([schema.STAGE, schema.REJECT_CODE])
            .group_by([schema.STAGE, schema.REJECT_CODE])
            .aggregate([([], "count_all")])
        )
        for row in grouped.to_pylist():
            group = (row[schema.STAGE], row[schema.REJECT_CODE])
            if row[schema.STAGE] in _ASKED:
                continue
            counts[group] = counts.get(group, 0) + row["count_all"]
            kept = examples.setdefault(group, [])
            if len(kept) < _EXAMPLES:
                same = pc.and_(*(pc.equal(batch.column(c), v) for c, v in zip((schema.STAGE, schema.REJECT_CODE), group)))
                some = batch.filter(same).slice(0, _EXAMPLES - len(kept)).to_pylist()
                kept += [(r[schema.SOURCE] or r[schema.KEY], r[schema.REJECT_DETAIL] or "") for r in some]
    order = sorted(counts, key=lambda group: (-counts[group], group))
    return tuple(Rejected(*group, counts[group], tuple(examples[group])) for group in order)


def earlier(store: str, run_id: str, most: int) -> list[dict[str, Any]]:
    """What the nights before this one have left beside their pages, the newest first; what cannot be read is passed over."""
    folder = page_of(store, "nightly", run_id).rsplit("/", 2)[0]
    found: list[dict[str, Any]] = []
    for name in sorted(storage.list_folders(folder), reverse=True):
        if len(found) >= max(most, _OF_A_SECOND):
            break
        if name == run_id:
            continue
        try:
            night = json.loads(storage.read_bytes(storage.join(folder, name, NIGHT)))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(night, dict):
            found.append(night)
    ended = [night.get("ended") for night in found]
    order = sorted(range(len(found)), key=lambda n: -when if isinstance(when := ended[n], int | float) else 0)
    return [found[n] for n in order[:most]]
