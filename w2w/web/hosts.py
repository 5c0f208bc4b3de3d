"""What the hosts of listed pictures say of their use: robots.txt and /.well-known/tdmrep.json, asked for once a host."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from w2w.errors import Reject
from w2w.web.permission import LISTED, UNREACHABLE, Rules, TdmFile, signals_of
from w2w.web.robots import Robots, read_robots, robots_after
from w2w.web.urls import authority, target_of

WELL_KNOWN = "/.well-known/tdmrep.json"
_RETRY_S = 3600.0  # for a file that could not be reached: each attempt may take a whole deadline, and what it said before holds
_MOST_RULE = 200  # characters of a rule


def tdm_url(url: str) -> str:
    """The tdmrep.json URL for this URL."""
    return f"{urlsplit(url).scheme}://{authority(url)}{WELL_KNOWN}"


def rules_of(url: str, user_agent: str, robots: Robots, tdm: TdmFile | None, listed: bool) -> Rules:
    """What a host's files say of one of its addresses. ``listed``: it was named to us, so that robots.txt, which is for
    clients that find addresses themselves, does not decide whether it is fetched; what it says is recorded all the same."""
    told = UNREACHABLE if tdm is None else tdm.says(target_of(url))
    if robots.refusal:
        return Rules(UNREACHABLE, tdm_rule=told)
    rule, allowed, group = robots.rule(url, user_agent)
    text = f"{group}: {'allow' if allowed else 'disallow'} {rule[:_MOST_RULE]}{LISTED if listed else ''}" if rule else ""
    return Rules(text, signals_of(robots.signals(user_agent)), told)


@dataclass
class _Host:
    lock: threading.Lock = field(default_factory=threading.Lock)
    robots: Robots | None = None
    tdm: TdmFile | None = None
    asked_at: float = float("-inf")

    def is_known(self, now: float) -> bool:
        whole = self.robots is not None and not self.robots.refusal and self.tdm is not None
        return whole or now - self.asked_at < _RETRY_S


class Hosts:
    """``get`` is ``Fetcher.get``, which takes care of limits and turns. Thread-safe: of several threads that need a host's
    files one fetches them, the others wait."""

    def __init__(self, user_agent: str, clock: Callable[[], float] = time.monotonic):
        self._user_agent, self._clock = user_agent, clock
        self._hosts: dict[str, _Host] = {}
        self._lock = threading.Lock()

    def rules(self, url: str, get: Callable[[str], bytes]) -> Rules:
        """``get``: the body of a URL, or a Reject."""
        with self._lock:
            host = self._hosts.setdefault(f"{urlsplit(url).scheme}://{authority(url)}", _Host())
        with host.lock:
            if not host.is_known(self._clock()):
                host.robots, host.tdm = _robots(url, get), _tdm(url, get)
                host.asked_at = self._clock()
            robots, tdm = host.robots, host.tdm
        assert robots is not None
        return rules_of(url, self._user_agent, robots, tdm, listed=True)


def _robots(url: str, get: Callable[[str], bytes]) -> Robots:
    try:
        return read_robots(get(f"{urlsplit(url).scheme}://{authority(url)}/robots.txt"))
    except Reject as e:
        return robots_after(e)


def _tdm(url: str, get: Callable[[str], bytes]) -> TdmFile | None:
    try:
        body = get(tdm_url(url))
    except Reject as e:
        return tdm_after(e)
    return TdmFile(body)


def tdm_after(failure: Reject) -> TdmFile | None:
    """What a tdmrep.json says that could not be read: nothing after a 4xx, as with robots.txt; None: nobody knows."""
    return None if robots_after(failure).refusal else TdmFile()
