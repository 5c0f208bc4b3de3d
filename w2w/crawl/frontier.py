"""What a crawl knows and fetches next: pure functions over the rows of ``frontier`` (URLs found) and ``pages`` (visits).

A crawl goes level by level: all due URLs of the smallest depth, then what they link to. Links are admitted only once their
whole level is visited, in sorted order, so that the same site gives the same frontier regardless of kills and resumes.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.crawl.profile import IMAGE, ROBOTS, SITEMAP, Profile
from w2w.errors import RejectCode, UsageError
from w2w.web.urls import Breadth, authority


class State(StrEnum):
    """State of a URL."""

    QUEUED = "queued"  # found, not visited yet
    FETCHED = "fetched"  # read; its records and links are in this row
    UNCHANGED = "unchanged"  # as when it was fetched
    REDIRECTED = "redirected"  # its link is where it points
    GONE = "gone"  # 404 or 410
    EXCLUDED = "excluded"  # not fetched, or its owner does not allow its use
    REJECTED = "rejected"  # fetched, but not what the profile promises
    FAILED = "failed"  # retried by a later run
    GIVEN_UP = "given_up"  # failed too often


OK, NOT_MODIFIED, SAME_CONTENT, MOVED = "ok", "not_modified", "same_content", "moved"  # reasons that are not reject codes
# Failures that say nothing about the URL: they do not count towards giving up.
NOT_ITS_FAULT = frozenset({RejectCode.HOST_BUSY, RejectCode.ROBOTS_UNREACHABLE})
_STATES = {
    RejectCode.NOT_FOUND: State.GONE,
    RejectCode.DISALLOWED: State.EXCLUDED,
    RejectCode.BLOCKED_URL: State.EXCLUDED,
    RejectCode.FORBIDDEN: State.FAILED,
    RejectCode.FETCH_FAILED: State.FAILED,
    RejectCode.TOO_SLOW: State.FAILED,
    RejectCode.HOST_BUSY: State.FAILED,
    RejectCode.ROBOTS_UNREACHABLE: State.FAILED,
}
_NEVER = np.iinfo(np.int64).max
_MOST_DOUBLINGS = 16


@dataclass(frozen=True)
class RecrawlConfig:
    """When a URL is visited again."""

    after_s: float = 20 * 3600.0
    """Seconds after its last visit. More recent visits count as done, including those of a killed run."""
    at_most_s: float = 14 * 24 * 3600.0
    """The wait for an unchanged page doubles each time, up to this."""
    retry_after_s: float = 3600.0
    """Seconds after a failed visit, doubled each time."""
    give_up_after: int = 5
    """Consecutive failed visits after which a URL is given up."""

    def __post_init__(self):
        for name in ("after_s", "at_most_s", "retry_after_s"):
            if getattr(self, name) < 0:
                raise UsageError(f"recrawl.{name}={getattr(self, name):g}: must not be negative")
        if self.give_up_after < 1:
            raise UsageError(f"recrawl.give_up_after={self.give_up_after}: at least 1")


# A URL to visit, with what is known from its last visit.
_REMEMBERED = (
    schema.VISIT,
    schema.STATE,
    schema.REASON,
    schema.FAILURES,
    schema.UNCHANGED,
    schema.ETAG,
    schema.LAST_MODIFIED,
    schema.CONTENT_DIGEST,
)
_CARRIED = (schema.URL_ID, schema.URL, schema.KIND, schema.DEPTH, schema.REDIRECTS)
VISIT_SCHEMA = pa.schema(
    [
        pa.field(schema.KEY, pa.string()),
        *(schema.FRONTIER.schema.field(name) for name in _CARRIED),
        *(pa.field(name, schema.PAGES.schema.field(name).type) for name in _REMEMBERED),
    ]
)
LAST_VISIT_COLUMNS = (schema.URL_ID, *_REMEMBERED, schema.FETCHED_AT, schema.NOT_BEFORE, schema.READ_BY)
CANDIDATE_SCHEMA = schema.FRONTIER.fields([schema.URL, schema.KIND, schema.DEPTH, schema.REDIRECTS, schema.FOUND_ON])


def url_id(key: str) -> str:
    """The id of a page, by its canonical URL."""
    return hashlib.sha256(key.encode()).hexdigest()


def state_after(code: RejectCode, failures: int, give_up_after: int) -> State:
    """The state that a reject code leads to, given the number of consecutive failed visits."""
    state = _STATES.get(code, State.REJECTED)
    return State.GIVEN_UP if state == State.FAILED and failures >= give_up_after else state


def newest(visits: pa.Table) -> pa.Table:
    """Each URL's last visit, sorted by url_id."""
    visits = visits.sort_by([(schema.URL_ID, "ascending"), (schema.VISIT, "descending")])
    ids = visits.column(schema.URL_ID).combine_chunks()
    if visits.num_rows < 2:
        return visits
    first = pa.concat_arrays([pa.array([True]), pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1))])
    return visits.filter(first)


def due(frontier: pa.Table, last_visits: pa.Table, now_us: int, config: RecrawlConfig, read_by: str) -> pa.Table:
    """The URLs to fetch now in VISIT_SCHEMA: by depth, then longest due first, alternating between hosts.

    ``frontier`` has the columns of FRONTIER, ``last_visits`` (one row per URL) LAST_VISIT_COLUMNS. A page that another version
    of the profile read is fetched without validators: a 304 would keep what that version read.
    """
    queued = frontier.filter(pc.equal(frontier.column(schema.STATE), State.QUEUED.value)).select([*_CARRIED, schema.HOST])
    if queued.num_rows == 0:
        return VISIT_SCHEMA.empty_table()
    rows = queued.join(last_visits.select(LAST_VISIT_COLUMNS), keys=schema.URL_ID).combine_chunks()
    due_at = _due_at(rows, config)
    order = np.lexsort((rows.column(schema.URL).to_numpy(), due_at, rows.column(schema.DEPTH).to_numpy()))
    order = order[due_at[order] <= now_us]
    rows = rows.take(pa.array(order))
    rows = rows.take(pa.array(_taking_turns(rows)))
    other = pc.and_(pc.not_equal(rows.column(schema.READ_BY), read_by), pc.not_equal(rows.column(schema.KIND), IMAGE))
    for name in (schema.ETAG, schema.LAST_MODIFIED, schema.CONTENT_DIGEST):
        values = pc.if_else(pc.fill_null(other, False), pa.scalar(None, pa.string()), rows.column(name))
        rows = rows.set_column(rows.schema.get_field_index(name), name, values)
    visit = pc.add(pc.fill_null(rows.column(schema.VISIT), -1), pa.scalar(1, pa.int32()))
    key = pc.binary_join_element_wise(rows.column(schema.URL_ID), visit.cast(pa.string()), "@")
    zero = pa.scalar(0, pa.int32())
    filled = {schema.KEY: key, schema.VISIT: visit} | {
        name: pc.fill_null(rows.column(name), zero) for name in (schema.FAILURES, schema.UNCHANGED)
    }
    columns = [filled[f.name] if f.name in filled else rows.column(f.name) for f in VISIT_SCHEMA]
    return pa.table([c.cast(f.type) for c, f in zip(columns, VISIT_SCHEMA)], schema=VISIT_SCHEMA)


def with_kinds(rows: pa.Table, profile: Profile) -> pa.Table:
    """The rows with the kinds that the profile gives their URLs now: it may have changed since they were found."""
    kinds = rows.column(schema.KIND).to_pylist()
    urls = rows.column(schema.URL).to_pylist()
    now = [kind if kind in (IMAGE, SITEMAP, ROBOTS) else profile.kind_of(url) or kind for url, kind in zip(urls, kinds)]
    return rows.set_column(rows.schema.get_field_index(schema.KIND), rows.schema.field(schema.KIND), pa.array(now, pa.string()))


def _due_at(rows: pa.Table, config: RecrawlConfig) -> np.ndarray:
    """When each row is due, microseconds since 1970: int64, shape (n,). 0 if it was never visited."""

    def numbers(name: str) -> np.ndarray:
        return pc.fill_null(rows.column(name).cast(pa.int64()), 0).to_numpy()

    visited = rows.column(schema.FETCHED_AT).is_valid().to_numpy()
    state = pc.fill_null(rows.column(schema.STATE), "").to_numpy(zero_copy_only=False)
    doubled = np.minimum(np.exp2(np.minimum(numbers(schema.UNCHANGED), _MOST_DOUBLINGS)) * config.after_s, config.at_most_s)
    wait_s = np.maximum(doubled, config.after_s)
    failed = np.exp2(np.clip(numbers(schema.FAILURES) - 1, 0, _MOST_DOUBLINGS)) * config.retry_after_s
    wait_s = np.where(state == State.FAILED.value, failed, wait_s)
    due_at = numbers(schema.FETCHED_AT) + (wait_s * 1e6).astype(np.int64)
    due_at = np.maximum(due_at, numbers(schema.NOT_BEFORE))
    due_at[state == State.GIVEN_UP.value] = _NEVER
    return np.where(visited, due_at, 0)


def _taking_turns(rows: pa.Table) -> np.ndarray:
    """Row order that alternates between hosts within each depth, so that a batch of work waits for many hosts at once."""
    hosts = rows.column(schema.HOST).combine_chunks().dictionary_encode().indices.to_numpy()
    depths = rows.column(schema.DEPTH).to_numpy()
    by_host = np.lexsort((np.arange(len(hosts)), hosts, depths))
    same = np.zeros(len(hosts), bool)
    same[1:] = (hosts[by_host][1:] == hosts[by_host][:-1]) & (depths[by_host][1:] == depths[by_host][:-1])
    starts = np.maximum.accumulate(np.where(same, 0, np.arange(len(hosts))))
    turn = np.empty(len(hosts), np.int64)
    turn[by_host] = np.arange(len(hosts)) - starts
    return np.lexsort((np.arange(len(hosts)), turn, depths))


def level(rows: pa.Table) -> pa.Table:
    """The due URLs of the smallest depth, visited before any other."""
    if rows.num_rows == 0:
        return rows
    depths = rows.column(schema.DEPTH)
    return rows.filter(pc.equal(depths, pc.min(depths)))


def links_of(visits: pa.Table) -> pa.Table:
    """The links of visited pages as candidates, in CANDIDATE_SCHEMA. Needs url, depth, redirects, state and links."""
    links = visits.column(schema.LINKS).combine_chunks()
    if len(links) == 0:
        return CANDIDATE_SCHEMA.empty_table()
    page = pc.list_parent_indices(links)
    flat = pc.list_flatten(links)
    moved = pc.equal(visits.column(schema.STATE), State.REDIRECTED.value)
    in_a_row = pc.if_else(moved, pc.add(visits.column(schema.REDIRECTS), pa.scalar(1, pa.int32())), pa.scalar(0, pa.int32()))
    columns = {
        schema.URL: pc.struct_field(flat, schema.URL),
        schema.KIND: pc.struct_field(flat, schema.KIND),
        schema.DEPTH: pc.add(visits.column(schema.DEPTH), pa.scalar(1, pa.int32())).take(page),
        schema.REDIRECTS: in_a_row.take(page),
        schema.FOUND_ON: visits.column(schema.URL).take(page),
    }
    return pa.table([columns[f.name] for f in CANDIDATE_SCHEMA], schema=CANDIDATE_SCHEMA)


def starts(urls: Iterable[tuple[str, str]]) -> pa.Table:
    """Start URLs with their kinds as candidates."""
    distinct = dict(reversed(list(urls)))
    rows = [
        {schema.URL: u, schema.KIND: k, schema.DEPTH: 0, schema.REDIRECTS: 0, schema.FOUND_ON: None}
        for u, k in distinct.items()
    ]
    return pa.Table.from_pylist(rows, schema=CANDIDATE_SCHEMA)


def admit(
    candidates: pa.Table, profile: Profile, is_new: Callable[[pa.Array], np.ndarray], breadth: Breadth, now_us: int
) -> pa.Table:
    """Rows of one site for ``frontier``: one for each new page, queued or excluded by the limits.

    Of several spellings of a page's URL the first found is fetched; of those found together, the shortest. ``is_new`` returns a
    mask of the ids that it has not seen before, and remembers them.
    """
    order = [
        (schema.DEPTH, "ascending"),
        (schema.URL, "ascending"),
        (schema.REDIRECTS, "ascending"),
        (schema.FOUND_ON, "ascending"),
    ]
    rows = candidates.sort_by(order).to_pylist()
    first: dict[str, dict] = {}
    for row in rows:
        known = first.setdefault(url_id(profile.key(row[schema.URL])), row)
        if row[schema.DEPTH] == known[schema.DEPTH] and len(row[schema.URL]) < len(known[schema.URL]):
            known |= row
    admitted = []
    for key, is_first in zip(first, is_new(pa.array(list(first), pa.string())).tolist()):
        if is_first:
            known_as = {schema.SITE: profile.name, schema.URL_ID: key}
            admitted.append(known_as | _frontier_row(first[key], breadth, now_us))
    return pa.Table.from_pylist(admitted, schema=schema.FRONTIER.schema)


def _frontier_row(row: dict, breadth: Breadth, now_us: int) -> dict:
    url, depth = row[schema.URL], row[schema.DEPTH]
    if depth == 0:
        why = ""
        breadth.count(url)
    elif row[schema.KIND] in (IMAGE, SITEMAP, ROBOTS):
        why = breadth.too_far(depth, row[schema.REDIRECTS])
    else:
        why = breadth.refusal(url, depth, row[schema.REDIRECTS])
    return row | {
        schema.HOST: authority(url),
        schema.STATE: State.EXCLUDED.value if why else State.QUEUED.value,
        schema.REASON: RejectCode.OVER_LIMIT.value if why else "",
        schema.DETAIL: why or None,
        schema.FOUND_AT: now_us,
    }


def recount(frontier: pa.Table, breadth: Breadth) -> None:
    """Counts in ``breadth`` what was admitted before."""
    counted = pc.invert(pc.is_in(frontier.column(schema.KIND), value_set=pa.array([IMAGE, SITEMAP, ROBOTS])))
    counted = pc.and_(counted, pc.equal(frontier.column(schema.STATE), State.QUEUED.value))
    for url in frontier.column(schema.URL).filter(counted).to_pylist():
        breadth.count(url)
