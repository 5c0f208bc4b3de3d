"""A crawl on Ray: level by level, each level a run of the visiting stage under one doorkeeper that all workers share.

A visit is finished exactly when its row of ``pages`` is committed. Everything else (which links are new, which products and
posts exist) is derived from committed rows and can be derived again with the same result: a run that is killed at any point and
restarted fetches no finished page twice, and ends with the same tables.
"""

import functools
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema, storage
from w2w.crawl import frontier
from w2w.crawl.frontier import RecrawlConfig
from w2w.crawl.profile import Profile
from w2w.crawl.stage import VISIT_GIVES, VisitConfig, refused, visit
from w2w.engine.job import JobConfig, Run
from w2w.engine.run import run_stages
from w2w.engine.source import file_rows
from w2w.engine.tasks import Actor, cluster_cpus
from w2w.errors import Reject, RejectCode
from w2w.images.decode import DecodeLimits
from w2w.images.stage import INSPECT_GIVES, inspect
from w2w.ingest.digests import SeenKeys
from w2w.stage import Counts, Pool, Stage
from w2w.table import delta, erased, work
from w2w.table.doubles import is_own
from w2w.table.parts import Output
from w2w.table.sink import append_rows
from w2w.web.doorkeeper import Doorkeeper, Message, Reply
from w2w.web.fetch import FetchConfig, Fetcher
from w2w.web.politeness import PolitenessConfig
from w2w.web.robots import Robots, from_json, to_json
from w2w.web.urls import Breadth, Limits, authority

_LEASE_MARGIN_S = 30.0  # a lease outlives the longest request by this; then its worker is considered dead
_LEAST_ROWS = 8  # of a batch on a slow host
_ANSWERED = (frontier.State.FETCHED, frontier.State.UNCHANGED, frontier.State.REDIRECTED)
_LINK_COLUMNS = (schema.URL, schema.DEPTH, schema.REDIRECTS, schema.STATE, schema.LINKS)


@dataclass(frozen=True)
class CrawlSpec:
    """Everything that decides what a crawl does, apart from where it runs."""

    profile: Profile
    fetch: FetchConfig
    politeness: PolitenessConfig
    limits: Limits
    recrawl: RecrawlConfig
    visit: VisitConfig
    decode: DecodeLimits

    def version(self) -> str:
        """Identifies the site and how it is read: two runs of one version never write at the same time."""
        return f"{self.profile.name}-{self.profile.version()}"


@dataclass
class Crawled:
    """What a run did, for its summary."""

    counts: Counts = field(default_factory=Counts)
    versions: dict[str, int] = field(default_factory=dict)
    levels: int = 0


class Crawl:
    """One site's crawl: what the tables know of it, and what is due."""

    def __init__(self, run: Run, spec: CrawlSpec):
        self._run, self._spec, self._site = run, spec, spec.profile.name
        self._seen, self._breadth = SeenKeys(), Breadth(spec.limits)
        known = delta.read(run.store, schema.FRONTIER, schema.FRONTIER.schema.names, site=self._site)
        self._seen.add(known.column(schema.URL_ID).combine_chunks())
        frontier.recount(known, self._breadth)
        visits = delta.read(run.store, schema.PAGES, frontier.LAST_VISIT_COLUMNS, site=self._site)
        self._last = frontier.newest(visits)
        self._read_parts = self._parts_read_before()
        self.num_known = known.num_rows
        self.due = self._due(known)

    def begin(self) -> None:
        """Admits new start URLs and, if nothing is due, links that a killed run found but did not admit."""
        write = not self._run.config.dry_run
        self._admit(frontier.starts(self._spec.profile.starts()), [], write)
        if self.due.num_rows == 0 and write:
            self._admit_links()

    def visit_all(self, config: JobConfig, pool: Pool) -> Crawled:
        """Visits what is due and what is found on the way, at most ``config.limit`` URLs."""
        done, left = Crawled(), config.limit
        doorkeeper = _start_doorkeeper(self._run.run_id, self._spec, self._remembered_robots())
        while left is None or left > 0:
            rows = frontier.level(self.due)
            if rows.num_rows == 0:
                if not self._admit_links():
                    break
                continue
            whole = left is None or rows.num_rows <= left
            rows = rows if whole else rows.slice(0, left)
            counts, versions = self._visit_level(rows, done.levels, config, pool, doorkeeper)
            done.counts.add(counts)
            done.versions |= versions
            done.levels += 1
            left = None if left is None else left - rows.num_rows
            self.due = self.due.filter(pc.invert(pc.is_in(self.due.column(schema.KEY), value_set=rows.column(schema.KEY))))
            if whole:
                self._admit_links()
        storage.write_bytes(self._robots_file, to_json(doorkeeper.ask("robots")))
        doorkeeper.stop()
        return done

    @property
    def _robots_file(self) -> str:
        return storage.join(self._run.store, "_crawl", self._site, "robots.json")

    def _remembered_robots(self) -> dict[str, Robots]:
        """robots.txt of the last run: a cache, revalidated before use."""
        return from_json(storage.read_bytes(self._robots_file)) if storage.exists(self._robots_file) else {}

    def _due(self, rows: pa.Table) -> pa.Table:
        profile = self._spec.profile
        due = frontier.due(rows, self._last, time.time_ns() // 1000, self._spec.recrawl, profile.version())
        return frontier.with_kinds(due, profile)

    def _visit_level(self, rows: pa.Table, number: int, config: JobConfig, pool: Pool, doorkeeper: Actor):
        store, run_id = self._run.store, f"{self._run.run_id}-{number}"
        workers = pool.workers or max(1, int(cluster_cpus() // max(pool.num_cpus, 0.01)))
        item_rows = max(1, min(config.item_rows, math.ceil(rows.num_rows / (2 * workers))))
        batch_rows = min(pool.batch_rows, item_rows, self._rows_at_a_time(rows, config.commit_every_s, doorkeeper))
        try:
            work.write(store, run_id, [rows], frontier.VISIT_SCHEMA, item_rows)
            return run_stages(
                store,
                file_rows(work.folder(store, run_id), schema.KEY, schema.URL, item_rows),
                [Stage("visit", _visit, frontier.VISIT_SCHEMA.names, _GIVES, self._stage_args(doorkeeper))],
                [Output(schema.IMAGES, unique=schema.IMAGE_ID), Output(schema.PAGES)],
                self._run.lineage(self._spec.version(), [schema.FRONTIER]),
                pool=replace(pool, batch_rows=batch_rows),
                tolerance=config.tolerance,
                commit_every_s=config.commit_every_s,
                rows_per_part=1,  # a finished batch is written at once, so that its pages are never fetched again
            )
        finally:
            work.clean(store, run_id)

    def _rows_at_a_time(self, rows: pa.Table, seconds: float, doorkeeper: Actor) -> int:
        """Batch size: the rows of this level that its slowest host allows in ``seconds``; a killed worker repeats no more."""
        hosts = Counter(map(authority, rows.column(schema.URL).to_pylist()))
        intervals_s = doorkeeper.ask("intervals_s", list(hosts))
        slowest = max(count / rows.num_rows * intervals_s[host] for host, count in hosts.items())
        return max(_LEAST_ROWS, int(seconds / slowest)) if slowest else rows.num_rows

    def _stage_args(self, doorkeeper: Actor) -> dict:
        spec = self._spec
        return {
            "doorkeeper": doorkeeper,
            "profile": spec.profile,
            "visiting": spec.visit,
            "give_up_after": spec.recrawl.give_up_after,
            "run_id": self._run.run_id,
            "fetch": spec.fetch,
            "limits": spec.decode,
            "max_wait_s": spec.politeness.max_wait_s,
            "known": erased.read(self._run.store),
        }

    # links

    def _admit_links(self) -> bool:
        """Admits the links of all pages visited since the last call; returns whether there were new ones."""
        opened = delta.open_table(self._run.store, schema.PAGES)
        listed = [p for p in delta.parts(opened, site=self._site) if p.path not in self._read_parts]
        batches = delta.read_batches(self._run.store, schema.PAGES, _LINK_COLUMNS, listed)
        candidates = pa.concat_tables([frontier.CANDIDATE_SCHEMA.empty_table(), *(frontier.links_of(b) for b in batches)])
        self._read_parts |= {p.path for p in listed}
        return self._admit(candidates, [schema.PAGES], write=True)

    def _admit(self, candidates: pa.Table, read: list[schema.Table], write: bool) -> bool:
        """``read``: the tables that the candidates came from, read completely."""
        rows = frontier.admit(candidates, self._spec.profile, self._seen.add, self._breadth, time.time_ns() // 1000)
        if rows.num_rows and write:
            lineage = self._run.lineage(self._spec.version(), read)
            append_rows(self._run.store, Output(schema.FRONTIER), rows, lineage)
        self.num_known += rows.num_rows
        self.due = pa.concat_tables([self.due, self._due(rows)])
        return rows.num_rows > 0

    def _parts_read_before(self) -> set[str]:
        """Parts of ``pages`` whose links are in the frontier: those of the version that its last commit was made from.

        If that version is gone, none: the links are read again and found to be known.
        """
        opened = delta.open_table(self._run.store, schema.FRONTIER)
        for entry in delta.history(opened) if opened else []:
            lineage = entry["w2w"] or {}
            if lineage.get("stage_version", "").rpartition("-")[0] == self._site and "pages" in lineage.get("inputs", {}):
                try:
                    before = delta.open_table(self._run.store, schema.PAGES, lineage["inputs"]["pages"])
                except Exception:  # vacuumed or cleaned up; the exception depends on the version of deltalake
                    return set()
                return {p.path for p in delta.parts(before, site=self._site)}
        return set()


def start_pages_failed(store: str, site: str, run_id: str) -> dict[str, int]:
    """Reasons why a run could fetch none of the start pages that it visited, nor anything else, with their number; {} if it
    could."""
    listed = [p for p in delta.parts(delta.open_table(store, schema.PAGES), site=site) if is_own(p.path, run_id)]
    reasons: Counter[str] = Counter()
    for batch in delta.read_batches(store, schema.PAGES, (schema.STATE, schema.REASON, schema.DEPTH), listed):
        for state, reason, depth in zip(*(column.to_pylist() for column in batch.columns)):
            if state not in (frontier.State.FAILED, frontier.State.GIVEN_UP):
                return {}
            reasons[reason] += depth == 0
    return {reason: num for reason, num in reasons.items() if num}


def has_answered(store: str, site: str) -> bool:
    """Whether a page of the site was ever fetched."""
    states = delta.read(store, schema.PAGES, (schema.STATE,), site=site).column(0)
    return pc.any(pc.is_in(states, value_set=pa.array(map(str, _ANSWERED)))).as_py() or False


def states(store: str, site: str) -> dict[str, int]:
    """Number of the site's URLs by state and reason."""
    rows = url_states(store, site)
    counted: dict[str, int] = {}
    for state, reason in zip(rows.column(schema.STATE).to_pylist(), rows.column(schema.REASON).to_pylist()):
        name = f"{state} ({reason})" if reason and reason != frontier.OK else state
        counted[name] = counted.get(name, 0) + 1
    return dict(sorted(counted.items(), key=lambda kv: -kv[1]))


def url_states(store: str, site: str) -> pa.Table:
    """Every URL of the site's frontier with its current state: url, kind, depth, state, reason, detail."""
    columns = (schema.STATE, schema.REASON, schema.DETAIL)
    known = delta.read(store, schema.FRONTIER, (schema.URL_ID, schema.URL, schema.KIND, schema.DEPTH, *columns), site=site)
    visits = delta.read(store, schema.PAGES, (schema.URL_ID, schema.VISIT, *columns), site=site)
    last = frontier.newest(visits).drop_columns([schema.VISIT]).rename_columns([schema.URL_ID, *(f"last_{c}" for c in columns)])
    rows = known.join(last, keys=schema.URL_ID)
    visited = rows.column(f"last_{schema.STATE}").is_valid()
    for name in columns:
        now = pc.if_else(visited, rows.column(f"last_{name}"), rows.column(name))
        rows = rows.set_column(rows.schema.get_field_index(name), name, now)
    return rows.drop_columns([schema.URL_ID, *(f"last_{c}" for c in columns)]).sort_by(schema.URL)


# the workers


class _Doorkeeper:
    """The doorkeeper, as an actor keeps it."""

    def __init__(self, config: PolitenessConfig, user_agent: str, lease_s: float, remembered: dict[str, Robots]):
        self._doorkeeper = Doorkeeper(config, user_agent, lease_s, remembered=remembered)

    def intervals_s(self, hosts: list[str]) -> dict[str, float]:
        return self._doorkeeper.intervals_s(hosts)

    def robots(self) -> dict[str, Robots]:
        return self._doorkeeper.robots()

    def exchange(self, message: Message) -> Reply:
        return self._doorkeeper.exchange(message)


def _start_doorkeeper(run_id: str, spec: CrawlSpec, remembered: dict[str, Robots]) -> Actor:
    lease_s = spec.fetch.deadline_s + _LEASE_MARGIN_S
    return Actor(_Doorkeeper, spec.politeness, spec.fetch.user_agent, lease_s, remembered, name=f"doorkeeper-{run_id}")


@functools.lru_cache(maxsize=4)
def _fetcher(config: FetchConfig) -> Fetcher:
    """One per process, so that connections stay open from batch to batch."""
    return Fetcher(config)


_GIVES = pa.schema([*VISIT_GIVES, *INSPECT_GIVES])


def _visit(
    rows: pa.Table,
    *,
    doorkeeper: Actor,
    profile: Profile,
    visiting: VisitConfig,
    give_up_after: int,
    run_id: str,
    fetch: FetchConfig,
    limits: DecodeLimits,
    max_wait_s: float,
    known: erased.Erased,
) -> pa.Table:
    """The stage: visits, then examines the images fetched."""

    def exchange(message: Message) -> Reply:
        return doorkeeper.ask("exchange", message)

    visited = visit(
        rows.select(frontier.VISIT_SCHEMA.names),
        profile=profile,
        config=visiting,
        give_up_after=give_up_after,
        run_id=run_id,
        fetcher=_fetcher(fetch),
        exchange=exchange,
        max_wait_s=max_wait_s,
        erased=known,
    )
    return examine(visited, rows, limits, give_up_after)


def examine(visited: pa.Table, before: pa.Table, limits: DecodeLimits, give_up_after: int) -> pa.Table:
    """Adds width, height, format and pHash of the images; one that cannot be decoded becomes a rejected URL, without bytes."""
    here = pc.indices_nonzero(visited.column(schema.BYTES).is_valid()).to_pylist()
    looked = inspect(visited.select([schema.BYTES]).take(pa.array(here, pa.int64())), limits=limits).drop_columns(
        [schema.BYTES]
    )
    found: Sequence[dict] = looked.to_pylist()
    columns = {f.name: [None] * visited.num_rows for f in INSPECT_GIVES}
    replaced: dict[int, dict] = {}
    rows_before = before.select([schema.FAILURES, schema.STATE, schema.UNCHANGED]).to_pylist()
    for row, image in zip(here, found, strict=True):
        if image[schema.REJECT_CODE] is None:
            for name in columns:
                columns[name][row] = image[name]
        else:
            reject = Reject(RejectCode(image[schema.REJECT_CODE]), image[schema.REJECT_DETAIL] or "")
            replaced[row] = refused(rows_before[row], reject, give_up_after) | {schema.BYTES: None, schema.IMAGE_ID: None}
    for name in (
        (schema.STATE, schema.REASON, schema.DETAIL, schema.UNCHANGED, schema.BYTES, schema.IMAGE_ID) if replaced else ()
    ):
        values = visited.column(name).to_pylist()
        values = [replaced[i].get(name, v) if i in replaced else v for i, v in enumerate(values)]
        visited = visited.set_column(
            visited.schema.get_field_index(name), name, pa.array(values, visited.schema.field(name).type)
        )
    for f in INSPECT_GIVES:
        visited = visited.append_column(pa.field(f.name, f.type), pa.array(columns[f.name], f.type))
    return visited
