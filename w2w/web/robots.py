"""robots.txt per RFC 9309: what it means when present, missing or unreachable, and which worker fetches it."""

import codecs
import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from urllib.parse import urlsplit

from w2w.errors import Reject, RejectCode
from w2w.web.answers import Validators
from w2w.web.robotstxt import Rules
from w2w.web.urls import authority, target_of

MAX_BYTES = 500 * 1024  # RFC 9309, section 2.5: at least this much is parsed, the rest is ignored
_KEPT_S = 24 * 3600.0  # section 2.4
_RETRY_S = 300.0  # for an unreachable one
_MAX_REMEMBERED = 64 * 1024  # characters of one robots.txt
_ASKING_S = 120.0  # after which a worker that was to fetch it is considered lost


@dataclass(frozen=True)
class Robots:
    """One origin's rules: ``text`` ("" = everything is allowed), or ``refusal``, why nothing may be fetched.

    ``validators``: let the server answer that it has not changed.
    """

    text: str = ""
    refusal: tuple[RejectCode, str] | None = None
    validators: Validators = Validators()

    def check(self, url: str, user_agent: str) -> Reject | None:
        """Why this URL must not be fetched; None if it may be."""
        if self.refusal:
            return Reject(*self.refusal)
        if _rules(self.text).allows(target_of(url), user_agent):
            return None
        return Reject(RejectCode.DISALLOWED, "robots.txt disallows it")

    def rule(self, url: str, user_agent: str) -> tuple[str, bool, str]:
        """The pattern that decides about this URL, whether it may be fetched, and whose group has it; "" if none matches."""
        rules = _rules(self.text)
        return *rules.deciding(target_of(url), user_agent), rules.addressed(user_agent)

    def signals(self, user_agent: str) -> list[str]:
        """The Content-Signal lines for this user agent."""
        return _rules(self.text).signals(user_agent)

    def crawl_delay_s(self, user_agent: str) -> float:
        """Seconds between two requests according to the rules: Crawl-delay or Request-rate, whichever is slower."""
        return _rules(self.text).delay_s(user_agent)

    def sitemaps(self) -> list[str]:
        return list(dict.fromkeys(_rules(self.text).sitemaps))


@functools.lru_cache(maxsize=256)
def _rules(text: str) -> Rules:
    return Rules(text)


def read_robots(body: bytes, validators: Validators = Validators()) -> Robots:
    """Rules from the body of a 2xx answer."""
    wide = body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return Robots(body[:MAX_BYTES].decode("utf-16" if wide else "utf-8-sig", "replace"), validators=validators)


def to_json(robots: dict[str, Robots]) -> bytes:
    """Rules by robots.txt URL, to be remembered until the next run: those with validators."""
    kept = {
        where: {"text": one.text, **asdict(one.validators)}
        for where, one in robots.items()
        if not one.refusal and one.validators != Validators() and len(one.text) <= _MAX_REMEMBERED
    }
    return json.dumps(kept, ensure_ascii=False).encode()


def from_json(text: bytes) -> dict[str, Robots]:
    """Reads what ``to_json`` wrote; {} if it is damaged, since rules can be fetched again."""
    try:
        rows = json.loads(text)
        return {where: Robots(row.pop("text"), validators=Validators(**row)) for where, row in rows.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def robots_after(failure: Reject) -> Robots:
    """The rules if robots.txt could not be read: all allowed after a 4xx, otherwise nothing (RFC 9309, 2.3.1)."""
    if failure.code in (RejectCode.NOT_FOUND, RejectCode.FORBIDDEN) or _is_4xx(failure.detail):
        return Robots()
    if failure.code in (RejectCode.BLOCKED_URL, RejectCode.HOST_BUSY):
        return Robots(refusal=(failure.code, failure.detail))
    return Robots(refusal=(RejectCode.ROBOTS_UNREACHABLE, f"robots.txt: {failure.detail}"))


def _is_4xx(detail: str) -> bool:
    status = detail.rpartition("HTTP ")[2][:3]
    return status.isdigit() and 400 <= int(status) < 500 and int(status) not in (408, 429)


def robots_url(url: str) -> str:
    """The robots.txt URL for this URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{authority(url)}/robots.txt"


class RobotsShelf:
    """Rules by robots.txt URL, fetched once: the first worker that needs them fetches them, the others wait for it."""

    def __init__(self, clock: Callable[[], float], remembered: Mapping[str, Robots] = MappingProxyType({})):
        self._clock, self._remembered = clock, dict(remembered)
        self._known: dict[str, tuple[Robots, float]] = {}
        self._asking: dict[str, float] = {}

    def take(self, where: str) -> Robots | None:
        """The rules, if known and fresh enough."""
        robots, since = self._known.get(where, (None, 0.0))
        if robots is None:
            return None
        kept_s = _RETRY_S if robots.refusal else _KEPT_S
        return robots if self._clock() - since < kept_s else None

    def is_your_turn(self, where: str) -> bool:
        """Whether the caller is to fetch them; false while another worker does."""
        now = self._clock()
        if now < self._asking.get(where, 0.0):
            return False
        self._asking[where] = now + _ASKING_S
        return True

    def before(self, where: str) -> Robots | None:
        """The rules as last read, however long ago."""
        return self._remembered.get(where)

    def remembered(self) -> dict[str, Robots]:
        """The latest rules of every origin that could be read."""
        return dict(self._remembered)

    def put(self, where: str, robots: Robots) -> None:
        self._known[where] = (robots, self._clock())
        if not robots.refusal:
            self._remembered[where] = robots
        self._asking.pop(where, None)
