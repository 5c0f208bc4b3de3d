"""Fetching many URLs from one worker, each when its host allows: threads for the requests, one loop for scheduling.

The loop never sleeps while something can be done: it hands URLs to threads as leases arrive, requeues transient failures with a
delay, and calls the doorkeeper (shared by all workers) again when that can make a difference.
"""

import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from w2w.errors import Reject, RejectCode
from w2w.web.addresses import check_url
from w2w.web.answers import Redirect, Response, TryLater, Validators
from w2w.web.doorkeeper import Exchange, Message
from w2w.web.fetch import REFUSING, Fetcher, backoff_s
from w2w.web.politeness import Lease, Report
from w2w.web.robots import Robots, read_robots, robots_after, robots_url
from w2w.web.urls import authority, redacted

_SAME_PAGE_REDIRECTS = 5  # of a robots.txt (RFC 9309, section 2.3.1.2), or between spellings of one URL
_LONGEST_WAIT_S = 5.0
_GIVE_BACK_S = 0.1  # how long an ended lease may be kept from the other workers


@dataclass(frozen=True)
class Question:
    """A URL to fetch. ``follow``: redirects followed here; with 0 a redirect is the answer, unless it leads to another spelling
    of the same page's URL, by ``key``.

    ``only_robots``: fetches only the robots.txt of the URL's origin, which every question needs anyway.
    """

    url: str
    validators: Validators = Validators()
    accept: tuple[str, ...] = ()
    follow: int = 0
    only_robots: bool = False
    key: Callable[[str], str] = str


@dataclass(frozen=True)
class Answer:
    """The outcome of a question: a response, a redirect or why there is none. ``wait_s``: the last Retry-After; ``robots``: the
    rules of the URL's origin, if they were needed."""

    result: Response | Redirect | Reject | Robots
    attempts: int
    wait_s: float = 0.0
    robots: Robots | None = None


def ask_all(
    questions: Sequence[Question], fetcher: Fetcher, exchange: Exchange, threads: int, max_wait_s: float
) -> list[Answer]:
    """The answers, one per question and in their order, whatever happens.

    A URL whose Retry-After exceeds ``max_wait_s`` is not retried here: HOST_BUSY.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="w2w-fetch") as pool:
        return _Schedule(questions, fetcher, exchange, threads, max_wait_s, pool).run()


@dataclass(eq=False)
class _Job:
    question: Question
    place: int  # in the list of questions; -1 for a robots.txt
    url: str
    origin: str = ""  # the robots.txt that this job fetches, if place is -1
    attempts: int = 0
    hops: int = 0
    not_before: float = 0.0


@dataclass(eq=False)
class _Held:
    """A lease in use."""

    lease: Lease
    ends_at: float
    left: int | None
    under_way: int = 0
    answered: int = 0
    failed: int = 0

    def is_open(self, now: float) -> bool:
        return now < self.ends_at and self.under_way < self.lease.slots and self.left != 0

    def is_over(self, now: float) -> bool:
        return self.under_way == 0 and (now >= self.ends_at or self.left == 0)


class _Schedule:
    def __init__(
        self,
        questions: Sequence[Question],
        fetcher: Fetcher,
        exchange: Exchange,
        threads: int,
        max_wait_s: float,
        pool: ThreadPoolExecutor,
    ):
        self._fetcher, self._exchange, self._threads, self._pool = fetcher, exchange, threads, pool
        self._max_wait_s = max_wait_s
        self._agent, self._retries = fetcher.config.user_agent, fetcher.config.retries
        self._answers: dict[int, Answer] = {}  # by the question's place
        self._open = len(questions)
        self._under_way = 0
        self._ready: dict[str, deque[_Job]] = {}  # by host
        self._waiting: list[_Job] = []  # until their not_before
        self._parked: dict[str, list[_Job]] = {}  # by robots.txt
        self._robots: dict[str, Robots] = {}
        self._fetching_robots: set[str] = set()
        self._robots_before: dict[str, Robots] = {}
        self._held: dict[str, list[_Held]] = {}
        self._reports: list[Report] = []
        self._found: dict[str, Robots] = {}
        self._done: queue.SimpleQueue = queue.SimpleQueue()
        self._ask_at, self._asked_at = 0.0, 0.0
        for place, question in enumerate(questions):
            self._admit(_Job(question, place, question.url))

    def run(self) -> list[Answer]:
        try:
            while self._open:
                self._start()
                if self._should_ask():
                    self._ask()
                    self._take(0.0)  # a 429 that arrived meanwhile ends leases, even ones granted since then
                    self._start()
                self._wait()
        finally:
            self._give_back()
        return [answer for _, answer in sorted(self._answers.items())]

    # a job's life cycle

    def _admit(self, job: _Job) -> None:
        """Queues a job at its host, once its robots.txt allows it."""
        host = authority(job.url)
        try:
            check_url(job.url)
        except Reject as e:
            self._finish(job, e)
            return
        if job.place < 0:
            self._ready.setdefault(host, deque()).appendleft(job)
            return
        where = robots_url(job.url)
        if where not in self._robots:
            self._parked.setdefault(where, []).append(job)
        elif job.question.only_robots:
            robots = self._robots[where]
            self._finish(job, Reject(*robots.refusal) if robots.refusal else robots)
        elif refusal := self._robots[where].check(job.url, self._agent):
            self._finish(job, Reject(refusal.code, f"{redacted(job.url)}: {refusal.detail}"))
        else:
            self._ready.setdefault(host, deque()).append(job)

    def _finish(self, job: _Job, result: Any, wait_s: float = 0.0) -> None:
        if job.place >= 0:
            self._answers[job.place] = Answer(result, job.attempts, wait_s, self._robots.get(robots_url(job.url)))
            self._open -= 1
            return
        if isinstance(result, Reject):
            self._learn(job.origin, robots_after(result))
        elif result.status == 304:
            self._learn(job.origin, self._robots_before[job.origin])
        else:
            validators = Validators(result.headers.get("etag"), result.headers.get("last-modified"))
            self._learn(job.origin, read_robots(result.body, validators))
        self._found[job.origin] = self._robots[job.origin]

    def _learn(self, where: str, robots: Robots) -> None:
        self._robots[where] = robots
        self._fetching_robots.discard(where)
        for job in self._parked.pop(where, []):
            self._admit(job)

    def _receive(self, job: _Job, held: _Held, result: Any) -> None:
        """Handles what a thread returned."""
        self._under_way -= 1
        held.under_way -= 1
        now = time.monotonic()
        if not isinstance(result, TryLater):
            held.answered += not (isinstance(result, Reject) and result.code == RejectCode.TOO_SLOW)
            if isinstance(result, Redirect):
                self._redirected(job, result)
            else:
                self._finish(job, result)
            return
        if result.status in REFUSING:
            self._reports.append(Report(held.lease.lease_id, waits_s=(result.wait_s,), closed=False))
            for other in self._held.get(held.lease.host, ()):
                other.ends_at = now  # permissions granted to this worker before no longer hold
            self._ask_at = 0.0
        elif not result.stale:
            held.failed += 1
        if result.stale:
            job.attempts -= 1
            self._admit(job)
        elif (wait_s := result.wait_s or 0.0) > self._max_wait_s:
            said = f"{redacted(job.url)}: {result.detail}, and it asked for {wait_s:.0f} s"
            self._finish(job, Reject(RejectCode.HOST_BUSY, said), wait_s)
        elif job.attempts > self._retries:
            said = f"{redacted(job.url)}: {result.detail} ({job.attempts} attempts)"
            self._finish(job, Reject(RejectCode.FETCH_FAILED, said), wait_s)
        else:
            job.not_before = now + backoff_s(job.attempts - 1)
            self._waiting.append(job)

    def _redirected(self, job: _Job, redirect: Redirect) -> None:
        same = job.question.key(job.question.url) == job.question.key(redirect.location)
        follow = _SAME_PAGE_REDIRECTS if job.place < 0 or same else job.question.follow
        if redirect.location == job.url:
            self._finish(job, Reject(RejectCode.FETCH_FAILED, f"{redacted(job.url)}: redirects to itself"))
        elif not follow:
            self._finish(job, redirect)
        elif job.hops >= follow:
            self._finish(job, Reject(RejectCode.FETCH_FAILED, f"{redacted(job.url)}: more than {follow} redirects"))
        else:
            job.url, job.hops, job.attempts = redirect.location, job.hops + 1, 0
            self._admit(job)

    # threads

    def _start(self) -> None:
        """Hands jobs to threads, as far as leases and threads allow."""
        now = time.monotonic()
        late = [job for job in self._waiting if job.not_before <= now]
        self._waiting = [job for job in self._waiting if job.not_before > now]
        for job in late:
            self._admit(job)
        for host, jobs in self._ready.items():
            for held in self._held.get(host, ()):
                while jobs and self._under_way < self._threads and held.is_open(now):
                    self._launch(jobs.popleft(), held)

    def _launch(self, job: _Job, held: _Held) -> None:
        held.under_way += 1
        held.left = None if held.left is None else held.left - 1
        self._under_way += 1
        job.attempts += 1
        validators = job.question.validators if job.hops == 0 else Validators()
        accept = job.question.accept if job.place >= 0 else ()
        self._pool.submit(self._request, job, held, validators, accept)

    def _request(self, job: _Job, held: _Held, validators: Validators, accept: Sequence[str]) -> None:
        result: object
        try:
            result = self._fetcher.ask(job.url, validators, accept)
        except (Reject, TryLater) as e:
            result = e
        except BaseException as e:  # raised again by the loop, since a thread pool would swallow it
            result = _Raised(e)
        self._done.put((job, held, result))

    def _wait(self) -> None:
        """Waits for results of threads while there is nothing else to do."""
        now = time.monotonic()
        wake_at = min([j.not_before for j in self._waiting], default=float("inf"))
        if (any(self._ready.values()) and self._under_way < self._threads) or self._parked:
            wake_at = min(wake_at, self._ask_at)
        if self._held:
            wake_at = min(wake_at, max(now, self._asked_at) + _GIVE_BACK_S)
        timeout_s = min(_LONGEST_WAIT_S, max(0.0, wake_at - now))
        if not self._open or (not timeout_s and not self._under_way):
            return
        self._take(max(timeout_s, 0.001))

    def _take(self, timeout_s: float) -> None:
        """Collects results of threads, waiting up to this long for the first."""
        try:
            taken = self._done.get(block=timeout_s > 0, timeout=timeout_s)
            while True:
                job, held, result = taken
                if isinstance(result, _Raised):
                    raise result.error
                self._receive(job, held, result)
                taken = self._done.get_nowait()
        except queue.Empty:
            pass

    # the doorkeeper

    def _should_ask(self) -> bool:
        if any(report.waits_s for report in self._reports) or self._found:
            return True
        now = time.monotonic()
        if now >= self._ask_at and (self._wanted() or self._robots_wanted()):
            return True
        return now - self._asked_at >= _GIVE_BACK_S and self._has_ended_leases(now)

    def _has_ended_leases(self, now: float) -> bool:
        return any(held.is_over(now) for leases in self._held.values() for held in leases)

    def _wanted(self) -> dict[str, int]:
        free = self._threads - self._under_way
        return {host: min(len(jobs), free) for host, jobs in self._ready.items() if jobs} if free else {}

    def _robots_wanted(self) -> tuple[str, ...]:
        return tuple(where for where in self._parked if where not in self._fetching_robots)

    def _ask(self) -> None:
        now = time.monotonic()
        self._close_leases(now)
        reply = self._exchange(Message(tuple(self._reports), self._wanted(), dict(self._found), self._robots_wanted()))
        self._reports, self._found = [], {}
        self._asked_at = now = time.monotonic()
        self._ask_at = now + reply.wait_s
        for lease in reply.leases:
            self._held.setdefault(lease.host, []).append(_Held(lease, now + lease.use_within_s, lease.requests))
        for where, robots in reply.robots.items():
            self._learn(where, robots)
        for where, before in reply.robots_to_fetch.items():
            self._fetching_robots.add(where)
            self._robots_before[where] = before or Robots()
            self._admit(_Job(Question(where, self._robots_before[where].validators), -1, where, origin=where))
        for host in reply.too_busy:
            for job in list(self._ready.pop(host, ())):
                said = f"{redacted(job.url)}: its host refuses or fails all requests"
                self._finish(job, Reject(RejectCode.HOST_BUSY, said))

    def _close_leases(self, now: float) -> None:
        for host, leases in list(self._held.items()):
            over = [held for held in leases if held.is_over(now)]
            self._reports += [Report(held.lease.lease_id, held.answered, failed=held.failed) for held in over]
            self._held[host] = [held for held in leases if not held.is_over(now)]
            if not self._held[host]:
                del self._held[host]

    def _give_back(self) -> None:
        """Closes leases that have nothing in flight; if an exception was raised, they expire by themselves."""
        self._close_leases(float("inf"))
        if self._reports or self._found:
            self._exchange(Message(tuple(self._reports), {}, dict(self._found)))


@dataclass(frozen=True)
class _Raised:
    error: BaseException
