"""Rate and concurrency limits per host, shared by every worker of a run.

Plain logic with an injected clock; its owner makes the calls one at a time. Workers get leases. A lease that is never returned
(its worker was killed) expires, so a dead worker does not hold a slot for ever.
"""

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from w2w.errors import UsageError

_SLOW_DOWN, _RECOVER, _MAX_FACTOR = 2.0, 0.95, 64.0
_LEAST_INTERVAL_S = 0.05  # starting point for doubling when a host without rate limit refuses
_PAUSE_S = 0.5  # after a 429 or 503 without Retry-After, times the factor
_MAX_REFUSALS, _MAX_FAILURES = 6, 20  # consecutive, before a host is left to a later run
_BLOCK_S = 0.5  # how long a lease of a host without rate limit admits new requests: bounds the delay of a hold
_POLL_S = 0.05  # between calls of a thread that waits for another's slot
_SINGLE_S = 2.0  # how long a lease for one request may wait in its worker


@dataclass(frozen=True)
class PolitenessConfig:
    """How a host is treated, by all workers of the run together."""

    requests_per_s: float | None = 1.0
    """Requests per second to one host; null: limited by concurrency only."""
    burst: int = 1
    """Requests that may be sent at once after a pause."""
    concurrency: int = 4
    """Simultaneous requests to one host."""
    max_wait_s: float = 120.0
    """Longest Retry-After to wait for; a URL with a longer one is left to a later run."""
    max_crawl_delay_s: float = 60.0
    """Longest Crawl-delay of a robots.txt that is obeyed."""

    def __post_init__(self):
        if self.requests_per_s is not None and not self.requests_per_s > 0:
            raise UsageError(f"politeness.requests_per_s={self.requests_per_s:g}: above zero, or null for no limit")
        for name in ("burst", "concurrency"):
            if getattr(self, name) < 1:
                raise UsageError(f"politeness.{name}={getattr(self, name)}: at least 1")
        for name in ("max_wait_s", "max_crawl_delay_s"):
            if getattr(self, name) < 0:
                raise UsageError(f"politeness.{name}={getattr(self, name):g}: must not be negative")


@dataclass(frozen=True)
class Lease:
    """Allows ``slots`` concurrent requests to ``host``, started within ``use_within_s``: ``requests`` in all, None = any."""

    lease_id: int
    host: str
    slots: int
    requests: int | None
    use_within_s: float


@dataclass(frozen=True)
class Report:
    """Outcome of a lease: requests that were answered, and those that failed on the way.

    ``waits_s``: one entry per 429 or 503, with its Retry-After, if any. ``closed``: none of its requests is in flight, and none
    will start.
    """

    lease_id: int
    answered: int = 0
    failed: int = 0
    waits_s: tuple[float | None, ...] = ()
    closed: bool = True


@dataclass
class _Host:
    next_at: float = 0.0  # theoretical arrival time of the generic cell rate algorithm: a token bucket in one number
    held_until: float = 0.0
    slowed_at: float = float("-inf")
    factor: float = 1.0
    crawl_delay_s: float = 0.0
    refusals: int = 0  # slow-downs since the last answer
    failures: int = 0  # failed connections since then
    leases: dict[int, tuple[int, float, float]] = field(default_factory=dict)  # id -> slots, granted at, expires at


class Politeness:
    """Grants leases and learns from reports.

    On 429 and 503 a host's interval doubles and its concurrency halves, once for all requests in flight together; every success
    takes 5 % of that back. Retry-After holds the host until then.
    """

    def __init__(self, config: PolitenessConfig, lease_s: float, clock: Callable[[], float]):
        self._config, self._lease_s, self._clock = config, lease_s, clock
        self._hosts: dict[str, _Host] = {}
        self._host_of: dict[int, str] = {}
        self._ids = itertools.count()

    def acquire(self, host: str, wanted: int) -> list[Lease]:
        """At most ``wanted`` slots, as many as the host allows now; none if it is held, full or not due yet."""
        now, account = self._clock(), self._account(host)
        if now < account.held_until:
            return []
        interval_s = self._interval_s(account)
        free = self._concurrency(account) - sum(slots for slots, *_ in account.leases.values())
        if interval_s == 0:
            # half of the free slots, so that a second worker finds some
            slots = min(wanted, -(-free // 2))
            return [self._grant(host, account, slots, None, _BLOCK_S)] if slots > 0 else []
        granted = []
        while len(granted) < min(wanted, free) and account.next_at - self._burst_s(account) <= now:
            account.next_at = max(now, account.next_at) + interval_s
            granted.append(self._grant(host, account, 1, 1, _SINGLE_S))
        return granted

    def report(self, report: Report) -> None:
        """Records a report; one for an expired lease still slows its host down."""
        host = self._host_of.get(report.lease_id)
        if host is None:
            return
        now, account = self._clock(), self._hosts[host]
        granted_at = account.leases.get(report.lease_id, (0, now, 0))[1]
        for wait_s in report.waits_s:
            if granted_at > account.slowed_at:
                account.factor = min(_MAX_FACTOR, account.factor * _SLOW_DOWN)
                account.slowed_at = now
                account.refusals += 1
            wait_s = _PAUSE_S * account.factor if wait_s is None else wait_s
            account.held_until = max(account.held_until, now + min(wait_s, self._config.max_wait_s))
        if report.answered:
            account.factor = max(1.0, account.factor * _RECOVER**report.answered)
            account.refusals = account.failures = 0
        else:
            account.failures += report.failed
        if report.closed:
            account.leases.pop(report.lease_id, None)
            del self._host_of[report.lease_id]

    def set_crawl_delay(self, host: str, seconds: float) -> None:
        """Sets the Crawl-delay of the host's robots.txt, capped at ``max_crawl_delay_s``."""
        self._account(host).crawl_delay_s = min(seconds, self._config.max_crawl_delay_s)

    def interval_s(self, host: str) -> float:
        """Current seconds between two requests to this host; 0 if only its concurrency is limited."""
        return self._interval_s(self._account(host))

    def wait_s(self, host: str) -> float:
        """Seconds until it is worth asking again; 0 if only a slot is missing, which may be freed at any time."""
        account = self._account(host)
        due_at = max(account.held_until, account.next_at - self._burst_s(account) if self._interval_s(account) else 0.0)
        return max(0.0, due_at - self._clock())

    def is_too_busy(self, host: str) -> bool:
        """Whether the host has refused or failed so often without a success that it is left to a later run."""
        account = self._account(host)
        return account.refusals >= _MAX_REFUSALS or account.failures >= _MAX_FAILURES

    def _account(self, host: str) -> _Host:
        account = self._hosts.setdefault(host, _Host())
        now = self._clock()
        for lease_id in [i for i, (*_, expires_at) in account.leases.items() if expires_at <= now]:
            del account.leases[lease_id]
        return account

    def _interval_s(self, account: _Host) -> float:
        asked = 1.0 / self._config.requests_per_s if self._config.requests_per_s else 0.0
        interval_s = max(asked, account.crawl_delay_s)
        return interval_s if account.factor == 1.0 else max(interval_s, _LEAST_INTERVAL_S) * account.factor

    def _burst_s(self, account: _Host) -> float:
        calm = account.factor == 1.0 and account.crawl_delay_s == 0
        return (self._config.burst - 1) * self._interval_s(account) if calm else 0.0

    def _concurrency(self, account: _Host) -> int:
        return max(1, int(self._config.concurrency / account.factor))

    def _grant(self, host: str, account: _Host, slots: int, requests: int | None, use_within_s: float) -> Lease:
        lease, now = Lease(next(self._ids), host, slots, requests, use_within_s), self._clock()
        account.leases[lease.lease_id] = (slots, now, now + self._lease_s)
        self._host_of[lease.lease_id] = host
        return lease


class Turns:
    """Makes the threads of one worker wait for their turns at a host."""

    def __init__(
        self,
        config: PolitenessConfig,
        lease_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._politeness, self._lock, self._sleep = Politeness(config, lease_s, clock), threading.Lock(), sleep

    def take(self, host: str) -> Lease | None:
        """A lease for one request, to be reported when it has ended; None if the host is left to a later run."""
        while True:
            with self._lock:
                if self._politeness.is_too_busy(host):
                    return None
                if granted := self._politeness.acquire(host, 1):
                    return granted[0]
                wait_s = self._politeness.wait_s(host)
            self._sleep(wait_s or _POLL_S)

    def report(self, report: Report) -> None:
        with self._lock:
            self._politeness.report(report)
