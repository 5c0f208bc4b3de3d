"""How many pictures of a feed search and training may not use: after a run, and in a dry run as far as it is known before."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.ingest.changes import LAST_IMAGE_ID, LAST_IMAGE_LIST, LAST_IMAGE_URI
from w2w.ingest.images import is_web_each
from w2w.ingest.permits import PERMITS, Standing, statement_of
from w2w.ingest.pictures import MORE
from w2w.table.permitted import Reasons, permitted, refusals
from w2w.table.pictures import feed_pictures
from w2w.web.permission import ALLOWED, GRANTED, REFUSED, STATED, Asked, Statement, UseConfig, Verdict, judge

USES = (schema.SEARCH, schema.TRAINING)
_ROW = "row"


def after_a_run(store: str, feed: str) -> dict[str, Any]:
    """Fields of the job's result: the pictures of the feed's active products that each use may not have."""
    refused = {use: permitted(store, use).refused for use in USES}
    either = pa.concat_arrays(list(refused.values()))
    if not len(either):
        return {}
    some = [rows.column(0).filter(pc.is_in(rows.column(0), value_set=either)) for rows in feed_pictures(store, feed)]
    mine = pc.unique(pa.chunked_array([chunk for one in some for chunk in one.chunks], pa.string()))
    of = {use: mine.filter(pc.is_in(mine, value_set=refused[use])) for use in USES}
    return _told({use: (len(some), Reasons.of(store, use, some)) for use, some in of.items() if len(some)})


def _told(found: Mapping[str, tuple[int, Reasons]]) -> dict[str, Any]:
    there = {use: one for use, one in found.items() if one[0]}
    why = [reasons.sentence(num) for num, reasons in there.values()]
    return {"not_permitted": {use: num for use, (num, _) in there.items()}, "why_not_permitted": why}


class Outlook:
    """The same of a dry run, as far as the store, the owner's word and what the dry run fetches tell. A new picture is told by
    its address. In memory: 20 bytes per picture of the feed, and per place that refuses a use.

    ``use``: the owner's word; ``respect_no_ai``: of the fetch.
    """

    def __init__(self, store: str, feed: str, standing: Standing, use: UseConfig, respect_no_ai: bool):
        self._store, self._feed, self._standing, self._use = store, feed, standing, use
        word = use.told(respect_no_ai)
        before_it_is_asked = UseConfig(**{name: STATED if one == GRANTED else one for name, one in asdict(use).items()})
        self._verdicts = [judge(statement_of(row).after(Asked(), word)) for row in standing.rows]
        self._file = self._numbered(judge(Statement(use=word if use.told() else "")))
        self._web = self._numbered(judge(Statement(use=before_it_is_asked.told())))
        self._changed: list[pa.ChunkedArray] = []  # ids of products whose pictures are those of their new rows
        none = np.empty(0, np.uint64)
        # of each picture at its place, later ones outweighing earlier ones: hashes of place and picture, number of its verdict
        self._pictures: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = [(none, none, np.empty(0, np.int32))]
        self._known = [none]  # addresses of new pictures that were tried

    def _numbered(self, verdict: Verdict) -> int:
        self._verdicts.append(verdict)
        return len(self._verdicts) - 1

    def add(self, rows: pa.Table) -> None:
        """``rows``: of WORK_SCHEMA, that will be products with these pictures."""
        if not rows.num_rows:
            return
        self._changed.append(rows.column(schema.PRODUCT_ID))
        places = _places(rows)
        self._stored(places.filter(places.column(schema.IMAGE_ID).is_valid()))
        new = places.filter(places.column(schema.IMAGE_ID).is_null()).column(schema.URI)
        at, web = ids.hash_keys(new), is_web_each(new).to_numpy()
        self._pictures.append((at, at, np.where(web, self._web, self._file).astype(np.int32)))

    def _stored(self, places: pa.Table) -> None:
        """``places``: image_id and uri."""
        number = self._standing.find(*places.select([schema.IMAGE_ID, schema.URI]).columns)
        number = np.where(number < 0, self._file, number).astype(np.int32)
        self._pictures.append((_hashes(places), ids.hash_keys(places.column(schema.IMAGE_ID)), number))

    def tried(self, rows: pa.Table, good: Iterable[Mapping[str, Any]]) -> None:
        """``rows``: of WORK_SCHEMA, those that were tried; ``good``: what became of them, rows of `products` with PERMITS."""
        self._known.append(ids.hash_keys(_places(rows).column(schema.URI)))
        good = list(good)
        for row in good:
            self._stored(pa.Table.from_pylist(row[schema.IMAGE_LIST], schema=_PLACE))
        for row in good:  # of a picture that products share one row says what it is now
            for permit in row[PERMITS] or []:
                own = permit[schema.SEARCH], permit[schema.TRAINING], permit[schema.REASON] or "", permit[schema.UNTIL]
                self._verdicts.append(Verdict(*own))
            said = pa.Table.from_pylist(row[PERMITS] or [], schema=_PLACE)
            numbers = np.arange(len(self._verdicts) - said.num_rows, len(self._verdicts), dtype=np.int32)
            self._pictures.append((_hashes(said), ids.hash_keys(said.column(schema.IMAGE_ID)), numbers))

    def told(self, gone: pa.ChunkedArray | None) -> dict[str, Any]:
        """Fields of the job's result. ``gone``: ids of products that are withdrawn."""
        some = [*self._changed, *([] if gone is None else [gone])]
        left_out = pa.chunked_array([chunk for one in some for chunk in one.chunks], pa.string())
        before, self._pictures = self._pictures, []
        for rows in feed_pictures(self._store, self._feed, left_out):
            self._stored(rows)
        place_N, image_N, number_N = (np.concatenate(one) for one in zip(*self._pictures, *before))
        place_N, last = np.unique(place_N[::-1], return_index=True)
        image_N, number_N = image_N[::-1][last], number_N[::-1][last]
        still = ~(np.isin(place_N, np.concatenate(self._known)) & (place_N == image_N))  # a new picture's place is its address
        place_N, image_N, number_N = place_N[still], image_N[still], number_N[still]
        asked = {name: one in (ALLOWED, REFUSED) for name, one in asdict(self._use).items()}
        unknown = int((number_N == self._web).sum()) if not all(asked.values()) else 0
        found = {use: self._refused(use, place_N, image_N, number_N) for use in USES}
        return _told(found) | {"use_not_known": unknown or None}

    def _refused(self, use: str, place_N: np.ndarray, image_N: np.ndarray, number_N: np.ndarray) -> tuple[int, Reasons]:
        reasons, now = Reasons(use), datetime.fromtimestamp(time.time(), UTC)
        may = np.array([_may(verdict, use, now) for verdict in self._verdicts], bool)
        for number, num in zip(*np.unique(number_N[~may[number_N]], return_counts=True)):
            standing = self._standing.rows
            feed = standing[number][schema.FEED] or "" if number < len(standing) else self._feed
            reasons.add(self._verdicts[number].reason, feed, int(num))
        refused = [image_N[~may[number_N]]]
        for rows in refusals(self._store, use, [schema.URI, schema.REASON, schema.FEED]):  # of other places
            images = ids.hash_keys(rows.column(schema.IMAGE_ID))
            of_others = np.isin(images, image_N) & ~np.isin(_hashes(rows), place_N)
            refused.append(images[of_others])
            for one in rows.filter(pa.array(of_others)).to_pylist():
                reasons.add(one[schema.REASON] or "", one[schema.FEED] or "")
        return len(np.unique(np.concatenate(refused))), reasons


_PLACE = pa.schema([(schema.IMAGE_ID, pa.string()), (schema.URI, pa.string())])


def _may(verdict: Verdict, use: str, now: datetime) -> bool:
    if use == schema.TRAINING:
        return verdict.training
    return verdict.search and not (verdict.until and verdict.until < now)


def _hashes(places: pa.Table) -> np.ndarray:
    return ids.hash_keys(ids.joined(places.select([schema.IMAGE_ID, schema.URI]).columns, "\n", "\x1b"))


def _places(rows: pa.Table) -> pa.Table:
    """uri of every picture of rows of WORK_SCHEMA, and the image_id that the product had there; null if it is new there."""
    numbers, lists, last = (
        pa.array(np.arange(rows.num_rows)),
        *(rows.column(c).combine_chunks() for c in (MORE, LAST_IMAGE_LIST)),
    )
    row = pa.concat_arrays([numbers, numbers.take(pc.list_parent_indices(lists))])
    uris = pa.concat_arrays([rows.column(schema.IMAGE_URI).combine_chunks(), pc.list_flatten(lists).field(schema.URI)])
    known_row = pa.concat_arrays([numbers, numbers.take(pc.list_parent_indices(last))])
    pairs = ((LAST_IMAGE_URI, schema.URI), (LAST_IMAGE_ID, schema.IMAGE_ID))
    both = [pa.concat_arrays([rows.column(c).combine_chunks(), pc.list_flatten(last).field(field)]) for c, field in pairs]
    known = pa.table([known_row, *both], names=[_ROW, schema.URI, schema.IMAGE_ID])
    known = known.group_by([_ROW, schema.URI]).aggregate([(schema.IMAGE_ID, "max")])
    known = known.rename_columns([_ROW, schema.URI, schema.IMAGE_ID])
    return pa.table([row, uris], names=[_ROW, schema.URI]).join(known, [_ROW, schema.URI]).select([schema.IMAGE_ID, schema.URI])
