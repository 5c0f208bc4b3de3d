"""Which pictures search or training may use, as table `permissions` says. Every job that indexes, shows, mines or trains on
pictures chooses them through here (tests/unit/test_permitted.py)."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.errors import UsageError
from w2w.table.current import CurrentRows

SEARCH, TRAINING = schema.SEARCH, schema.TRAINING
_NONE = pa.array([], pa.string())
_REASONS = 3  # that are named


@dataclass(frozen=True)
class Permitted:
    """All pictures but ``refused``, image ids in order. A picture that was fetched from several places may be used if none of
    them refuses it; one without a row of `permissions` may."""

    use: str = SEARCH
    refused: pa.Array = field(default_factory=lambda: _NONE)

    def mask(self, image_ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """bool, shape (n,): whether each picture may be used. True for null."""
        if not len(self.refused):
            return np.ones(len(image_ids), bool)
        return ~pc.is_in(image_ids, value_set=self.refused).to_numpy(zero_copy_only=False)

    def of(self, rows: pa.Table, columns: Sequence[str] = (schema.IMAGE_ID,)) -> pa.Table:
        """The rows of which every picture in these columns may be used."""
        if not len(self.refused):
            return rows
        return rows.filter(pa.array(np.logical_and.reduce([self.mask(rows.column(c)) for c in columns])))

    def of_lists(self, rows: pa.Table, column: str) -> pa.Table:
        """The rows of which every picture in a list (of structs with image_id) may be used."""
        if not len(self.refused):
            return rows
        lists = rows.column(column).combine_chunks()
        bad = ~self.mask(pc.list_flatten(lists).field(schema.IMAGE_ID))
        kept = np.ones(rows.num_rows, bool)
        kept[pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)[bad]] = False
        return rows.filter(pa.array(kept))

    @property
    def num(self) -> int | None:
        """Number of refused pictures; None for none, as results leave it out."""
        return len(self.refused) or None

    def allows(self, image_id: str | None) -> bool:
        return image_id not in self._set

    @cached_property
    def _set(self) -> frozenset[str]:
        return frozenset(self.refused.to_pylist())

    @property
    def told(self) -> tuple[str, ...]:
        """For the version of what is made without them; nothing where all may be used, so that nothing is made anew."""
        return (f"without {ids.digest_rows(self.refused.to_pylist())}",) if len(self.refused) else ()


def why_refused(refused: int, total: int | None = None, what: str = "pictures") -> str:
    """In place of, or after, what would be said of data of which training may not use so many; "" where it may use all."""
    of = "" if total is None else f" of {total:,}"
    return f"{refused:,}{of} {what} may not be used for training (table `permissions`, feed.use.training)" if refused else ""


@contextmanager
def explained(why: Callable[[], str]) -> Iterator[None]:
    """Ends a UsageError about the data with ``why``: as of ``why_refused``."""
    try:
        yield
    except UsageError as e:
        more = why()
        raise (UsageError(f"{e}; {more}") if more else e) from None


def permitted(store: str, use: str) -> Permitted:
    """``use``: SEARCH or TRAINING. In memory: 70 bytes per refused picture, and a byte per row of `permissions`."""
    refused = [pa.chunked_array([], pa.string()), *(rows.column(0) for rows in refusals(store, use))]
    found = pc.unique(pa.chunked_array([chunk for some in refused for chunk in some.chunks], pa.string()))
    return Permitted(use, found.take(pc.array_sort_indices(found)))


def refusals(store: str, use: str, columns: Sequence[str] = ()) -> Iterator[pa.Table]:
    """image_id and ``columns`` of the places that refuse a use, in batches."""
    assert use in (SEARCH, TRAINING), use
    now = pa.scalar(time.time_ns() // 1000, schema.TIME)
    read = list(dict.fromkeys([schema.IMAGE_ID, use, schema.UNTIL, *columns]))
    for rows in CurrentRows(store, schema.PERMISSIONS).batches(read):
        yield rows.filter(pc.invert(_may(rows, use, now))).select([schema.IMAGE_ID, *columns])


@dataclass
class Reasons:
    """Why pictures may not be used for something, and whose word could change it."""

    use: str
    by: Counter[str] = field(default_factory=Counter)
    """Reasons, with their number of places."""
    feeds: set[str] = field(default_factory=set)
    """Sources of the places that refuse it, but for those whose owner does."""

    @classmethod
    def of(cls, store: str, use: str, image_ids: pa.Array | pa.ChunkedArray) -> "Reasons":
        """Of these pictures, all of which are refused."""
        found = cls(use)
        for rows in refusals(store, use, [schema.REASON, schema.FEED]):
            mine = rows.filter(pc.is_in(rows.column(0), value_set=pc.unique(image_ids)))
            for one in mine.group_by([schema.REASON, schema.FEED]).aggregate([([], "count_all")]).to_pylist():
                found.add(one[schema.REASON] or "", one[schema.FEED] or "", one["count_all"])
        return found

    def add(self, reason: str, feed: str, places: int = 1) -> None:
        """``reason``: as of table `permissions`, of both uses."""
        said = re.search(rf"(?:^|\. ){self.use}: (.*?)(?:\. (?:{SEARCH}|{TRAINING}): |$)", reason)
        why = said[1] if said else "X-Robots-Tag: unavailable_after"  # which the reason leaves out
        self.by[why] += places
        if why != f"use.{self.use}=refused":
            self.feeds.add(feed)

    def sentence(self, pictures: int, so: str = "") -> str:
        """For people: how many pictures, why, ``so`` what follows, and the option that would change it."""
        commonest = sorted(self.by.items(), key=lambda kv: (-kv[1], kv[0]))
        why = "; ".join(reason for reason, _ in commonest[:_REASONS])
        more = len(self.by) - _REASONS
        why = f" ({why}{f'; {more} more reasons' if more > 0 else ''})" if why else ""
        options = [f"feed.use.{self.use}: allowed"] if any(not of_crawl(feed) for feed in self.feeds) else []
        options += [f"use.{self.use}: allowed of the crawl"] if any(map(of_crawl, self.feeds)) else []
        if_yours = f"; if they are your own, {' and '.join(options)} says so" if options else ""
        return f"{self.use} may not use {pictures:,} picture{'s' if pictures != 1 else ''}{why}{so}{if_yours}"


def of_crawl(feed: str) -> bool:
    """Whether a source is the crawl of a site."""
    return feed.startswith("site:")


def _may(rows: pa.Table, use: str, now: pa.Scalar) -> pa.ChunkedArray:
    """bool: what each row of `permissions` says of a use."""
    if use == TRAINING:
        return rows.column(use)
    return pc.and_not(rows.column(use), pc.fill_null(pc.less(rows.column(schema.UNTIL), now), False))


@dataclass(frozen=True)
class Said:
    """Number of places of pictures of which table `permissions` says the same."""

    search: bool
    training: bool
    reason: str
    rows: int


def counted(store: str) -> list[Said]:
    """What table `permissions` says now, most frequent first."""
    now, found = pa.scalar(time.time_ns() // 1000, schema.TIME), Counter[tuple[bool, bool, str]]()
    for rows in CurrentRows(store, schema.PERMISSIONS).batches([SEARCH, TRAINING, schema.UNTIL, schema.REASON]):
        told = {SEARCH: _may(rows, SEARCH, now), TRAINING: rows.column(TRAINING), schema.REASON: rows.column(schema.REASON)}
        for one in pa.table(told).group_by([*told]).aggregate([([], "count_all")]).to_pylist():
            found[one[SEARCH], one[TRAINING], one[schema.REASON] or ""] += one["count_all"]
    return [Said(*said, num) for said, num in sorted(found.items(), key=lambda kv: (-kv[1], kv[0]))]
