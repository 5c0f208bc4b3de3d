"""What a run's workers share: request slots at hosts, and robots.txt. One call carries a worker's reports and requests."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from w2w.web.politeness import Lease, Politeness, PolitenessConfig, Report
from w2w.web.robots import Robots, RobotsShelf, robots_url
from w2w.web.urls import authority

_POLL_S = 0.05  # between calls while other workers hold all slots of a host


@dataclass(frozen=True)
class Message:
    """A worker's reports, slots wanted by host, robots.txt fetched, and robots.txt needed, by URL."""

    reports: tuple[Report, ...] = ()
    wanted: dict[str, int] = field(default_factory=dict)
    robots_found: dict[str, Robots] = field(default_factory=dict)
    robots_wanted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reply:
    """Leases, known robots.txt, those that this worker is to fetch (with the previous rules, if remembered), hosts given up for
    this run, and the seconds after which to call again."""

    leases: tuple[Lease, ...]
    robots: dict[str, Robots]
    robots_to_fetch: dict[str, Robots | None]
    too_busy: tuple[str, ...]
    wait_s: float


Exchange = Callable[[Message], Reply]


class Doorkeeper:
    """Answers one worker at a time."""

    def __init__(
        self,
        config: PolitenessConfig,
        user_agent: str,
        lease_s: float,
        clock: Callable[[], float] = time.monotonic,
        remembered: Mapping[str, Robots] = MappingProxyType({}),
    ):
        self._politeness = Politeness(config, lease_s, clock)
        self._shelf = RobotsShelf(clock, remembered)
        self._user_agent = user_agent

    def robots(self) -> dict[str, Robots]:
        """Every robots.txt that could be read, to be remembered for the next run."""
        return self._shelf.remembered()

    def intervals_s(self, hosts: Sequence[str]) -> dict[str, float]:
        """Current seconds between two requests to each host."""
        return {host: self._politeness.interval_s(host) for host in hosts}

    def exchange(self, message: Message) -> Reply:
        for report in message.reports:
            self._politeness.report(report)
        for where, robots in message.robots_found.items():
            self._shelf.put(where, robots)
            if where == robots_url(where):  # and not another file that a host has once
                self._politeness.set_crawl_delay(authority(where), robots.crawl_delay_s(self._user_agent))
        known = {where: robots for where in message.robots_wanted if (robots := self._shelf.take(where)) is not None}
        missing = (where for where in message.robots_wanted if where not in known)
        to_fetch = {where: self._shelf.before(where) for where in missing if self._shelf.is_your_turn(where)}
        leases, waits_s, too_busy = [], [], []
        for host, count in message.wanted.items():
            if self._politeness.is_too_busy(host):
                too_busy.append(host)
                continue
            granted = self._politeness.acquire(host, count)
            leases += granted
            if sum(lease.slots for lease in granted) < count:
                waits_s.append(self._politeness.wait_s(host) or _POLL_S)
        if len(known) + len(to_fetch) < len(message.robots_wanted):
            waits_s.append(_POLL_S)
        return Reply(tuple(leases), known, to_fetch, tuple(too_busy), min(waits_s, default=0.0))
