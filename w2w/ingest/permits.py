"""Rows of `permissions`: what stands, and what a fetch or the owner's word changes."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import astuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.ingest.digests import SeenKeys, digests, find, sort
from w2w.table.current import CurrentRows
from w2w.web.permission import Asked, Headers, Rules, Statement, UseConfig, judge

_BETWEEN = "\n"
_HEADERS = (schema.ROBOTS_TAG, schema.CONTENT_SIGNAL, schema.TDM_RESERVATION, schema.TDM_POLICY)
_RULES = (schema.ROBOTS_RULE, schema.ROBOTS_SIGNAL, schema.TDM_RULE)
_ROW = pa.struct(list(schema.PERMISSIONS.schema))


def key_of(image_id: str, uri: str) -> str:
    return ids.digest(image_id, uri, length=32)


def statement_of(row: dict) -> Statement:
    """What a row of `permissions` says."""
    headers = Headers(*(row[name] or "" for name in _HEADERS))
    return Statement(headers, Rules(*(row[name] or "" for name in _RULES)), row[schema.OWNER_SAYS] or "")


def permission(image_id: str, uri: str, feed: str, said: Statement, run_id: str) -> dict:
    """The row of a picture at a place."""
    found, now = judge(said), time.time_ns() // 1000
    told = dict(zip((*_HEADERS, *_RULES), (*astuple(said.headers), *astuple(said.rules)))) | {schema.OWNER_SAYS: said.use}
    row = {name: value or None for name, value in told.items()}
    row |= {schema.SEARCH: found.search, schema.TRAINING: found.training, schema.REASON: found.reason}
    row |= {schema.UNTIL: found.until, schema.IMAGE_ID: image_id, schema.URI: uri, schema.FEED: feed}
    row[schema.PERMISSION_ID] = key_of(image_id, uri)
    row[schema.ROW_DIGEST] = ids.digest(feed, told, found.search, found.training, found.reason, str(found.until))
    return row | {schema.FETCHED_AT: now, schema.RUN_ID: run_id}


class Standing:
    """What stands, of every picture and place: 20 bytes each, and every distinct statement of a feed once."""

    def __init__(self, store: str):
        self._distinct: dict[str, int] = {}
        self.rows: list[dict] = []  # of the distinct statements
        highs, lows, which = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
        own = (schema.PERMISSION_ID, schema.FETCHED_AT, schema.RUN_ID)
        columns = [name for name in schema.PERMISSIONS.schema.names if name not in own]
        for batch in CurrentRows(store, schema.PERMISSIONS).batches(columns):
            high, low = _keys(batch.column(schema.IMAGE_ID), batch.column(schema.URI))
            highs.append(high)
            lows.append(low)
            which.append(self._of(batch))
        self._run, order = sort((np.concatenate(highs), np.concatenate(lows)))
        self._which = np.concatenate(which)[order]

    def __len__(self) -> int:
        return len(self._which)

    def _of(self, batch: pa.Table) -> np.ndarray:
        """The number of each row's statement. Statements are few, so that only their digests are looked at row by row."""
        once = batch.column(schema.ROW_DIGEST).combine_chunks().dictionary_encode()
        first = np.full(len(once.dictionary), -1)
        codes = once.indices.to_numpy()
        first[codes[::-1]] = np.arange(len(codes))[::-1]
        new = batch.take(pa.array(first)).to_pylist()
        numbers = [self._distinct.setdefault(row[schema.ROW_DIGEST], len(self._distinct)) for row in new]
        for number, row in zip(numbers, new):
            if number == len(self.rows):
                self.rows.append(row)
        return np.array(numbers, np.int32)[codes]

    def find(self, image_ids: pa.Array | pa.ChunkedArray, uris: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Index into ``rows`` of what stands of each picture at each place, int64, shape (n,); -1: nothing."""
        at = find(self._run, _keys(image_ids, uris))
        return np.where(at >= 0, np.append(self._which, -1)[at], -1)

    def texts(self, image_ids: pa.Array | pa.ChunkedArray, uris: pa.Array | pa.ChunkedArray) -> pa.Array:
        """JSON of each statement; null where there is none."""
        at = self.find(image_ids, uris)
        told = pa.array([statement_of(row).to_json() for row in self.rows], pa.string())
        return told.take(pa.array(at, mask=at < 0)) if len(told) else pa.nulls(len(at), pa.string())


def _keys(image_ids, uris) -> tuple[np.ndarray, np.ndarray]:
    text = ids.joined([image_ids, uris], _BETWEEN, "\x1b")
    return digests(text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text)


def owners_word(
    standing: Standing, pictures: Iterable[pa.Table], feed: str, use: UseConfig, respect_no_ai: bool, run_id: str
) -> pa.Table:
    """Rows of `permissions` for pictures (image_id, uri) of a feed of which its owner says otherwise now than what stands."""
    made, told = [schema.PERMISSIONS.schema.empty_table()], use.told(respect_no_ai)
    seen = SeenKeys()
    for listed in pictures:  # those that several products share once
        names = ids.joined([listed.column(schema.IMAGE_ID), listed.column(schema.URI)], _BETWEEN, "\x1b")
        names = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
        rows = listed.filter(pa.array(seen.add(names)))
        at = standing.find(rows.column(schema.IMAGE_ID), rows.column(schema.URI))
        for number in np.unique(at):
            if number < 0 and not use.told():
                continue
            before = Statement() if number < 0 else statement_of(standing.rows[number])
            if (now := before.after(Asked(), told)) != before:
                made.append(_repeated(permission("", "", feed, now, run_id), rows.filter(pa.array(at == number))))
    return pa.concat_tables(made)


def _repeated(one: dict, pictures: pa.Table) -> pa.Table:
    image_ids, uris = pictures.column(schema.IMAGE_ID), pictures.column(schema.URI)
    keys = [key_of(i, u) for i, u in zip(image_ids.to_pylist(), uris.to_pylist())]
    own = {schema.IMAGE_ID: image_ids, schema.URI: uris, schema.PERMISSION_ID: pa.array(keys, pa.string())}
    columns = [own.get(f.name, pa.repeat(pa.scalar(one[f.name], f.type), pictures.num_rows)) for f in schema.PERMISSIONS.schema]
    return pa.table(columns, schema=schema.PERMISSIONS.schema)


# the stage: what the fetches of this run were told, beside what stood

SAID = schema.SAID  # JSON of Asked, of the picture that a stage has loaded; null for a file
SAID_LIST = "said_of"  # of all pictures of a product that were asked for
STOOD = "stood"  # what stood of its last pictures: JSON of Statement
SAID_TYPE = pa.list_(pa.struct([(schema.IMAGE_ID, pa.string()), (schema.URI, pa.string()), (SAID, pa.string())]))
PERMITS = "permits"  # rows of `permissions`
PERMIT_GIVES = pa.schema([pa.field(PERMITS, pa.list_(_ROW))])
PERMIT_NEEDS = (SAID_LIST, STOOD, schema.FEED)


def permit(rows: pa.Table, *, use: str, run_id: str) -> pa.Table:
    """Adds PERMITS: for each picture of which now something else is said than stood, or of which nothing stood."""
    told = (rows.column(name).to_pylist() for name in PERMIT_NEEDS)
    made = [_permits(said or [], stood or [], feed, use, run_id) for said, stood, feed in zip(*told)]
    made = list(_once(made))
    return rows.append_column(PERMIT_GIVES.field(0), pa.array(made, PERMIT_GIVES.field(0).type))


def _once(made: Iterable[list[dict]]) -> Iterator[list[dict]]:
    """The same lists without what an earlier one has: pictures that several products share."""
    seen = set()
    for some in made:
        named = [(one[schema.PERMISSION_ID], one[schema.ROW_DIGEST]) for one in some]
        yield [one for one, name in zip(some, named) if name not in seen]
        seen.update(named)


def _permits(said: list[dict], stood: list[dict], feed: str, use: str, run_id: str) -> list[dict]:
    at_place = {one[schema.URI]: one[SAID] for one in stood}
    known = {(one[schema.IMAGE_ID], one[schema.URI]): one[SAID] for one in stood}
    made = {}
    for one in said:
        place = one[schema.IMAGE_ID], one[schema.URI]
        now = Statement.from_json(at_place.get(one[schema.URI])).after(Asked.from_json(one[SAID]), use)
        if known.get(place) != now.to_json():
            made[place] = permission(*place, feed, now, run_id)
    return list(made.values())


def permit_each(rows: pa.Table, *, feed: str, use: str, run_id: str) -> pa.Table:
    """Adds PERMITS of rows with one picture each, of which nothing stood: those of a set that is read once."""
    columns = (rows.column(name).to_pylist() for name in (schema.IMAGE_ID, schema.IMAGE_URI, SAID))
    one = [[{schema.IMAGE_ID: i, schema.URI: uri, SAID: said}] if said else [] for i, uri, said in zip(*columns)]
    made = [_permits(said, [], feed, use, run_id) for said in one]
    return rows.append_column(PERMIT_GIVES.field(0), pa.array(made, PERMIT_GIVES.field(0).type))


def stood_of(standing: Standing, fronts: pa.Array, uris: pa.Array, lists: pa.Array) -> pa.Array:
    """STOOD of each row: of its last front picture, and of all in its list (`schema.PICTURE`)."""
    count = len(fronts)
    if not len(standing):
        return pa.nulls(count, SAID_TYPE)
    rows = np.concatenate([np.arange(count), pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)])
    flat = pc.list_flatten(lists)
    image_ids, places = (
        pa.concat_arrays([front, flat.field(name)]) for front, name in ((fronts, schema.IMAGE_ID), (uris, schema.URI))
    )
    told = standing.texts(pc.fill_null(image_ids, ""), pc.fill_null(places, ""))
    there = np.flatnonzero(told.is_valid().to_numpy(zero_copy_only=False))
    there = there[np.argsort(rows[there], kind="stable")]
    offsets = np.searchsorted(rows[there], np.arange(count + 1)).astype(np.int32)
    entries = pa.StructArray.from_arrays(
        [a.take(pa.array(there)) for a in (image_ids, places, told)], fields=list(SAID_TYPE.value_type)
    )
    return pa.ListArray.from_arrays(pa.array(offsets), entries).cast(SAID_TYPE)
