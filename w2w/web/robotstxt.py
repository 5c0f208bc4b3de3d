"""Parsing robots.txt (RFC 9309): groups of user agents, and which of a group's paths decides."""

import re
from dataclasses import dataclass, field

from w2w.web.urls import recoded

# common misspellings of the names: google/robotstxt accepts these too
_NAMES = {
    "user-agent": re.compile(r"user[- ]?agent\Z", re.IGNORECASE),
    "disallow": re.compile(r"(disallow|dissallow|dissalow|disalow|diasllow|disallaw)\Z", re.IGNORECASE),
    "allow": re.compile(r"allow\Z", re.IGNORECASE),
    "sitemap": re.compile(r"site-?map\Z", re.IGNORECASE),
    "crawl-delay": re.compile(r"crawl-?delay\Z", re.IGNORECASE),
    "request-rate": re.compile(r"request-?rate\Z", re.IGNORECASE),
    "content-signal": re.compile(r"content-?signals?\Z", re.IGNORECASE),
}
_LINE = re.compile(r"[ \t]*([^:#]*?)[ \t]*:[ \t]*(.*)", re.DOTALL)
_NO_COLON = re.compile(r"[ \t]*(\S+)[ \t]+([^\s#]+)[ \t]*\Z")
_TOKEN = re.compile(r"[A-Za-z0-9_.-]+")  # the RFC allows no digits and dots, but names of crawlers have them
_MAX_LINE = 16 * 1024  # characters; google/robotstxt reads as many bytes
_SAFE = "/:@!&'()+,;=~-._?"  # in a pattern, * and a final $ are special; %2A and %24 are the literal characters
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass
class _Group:
    """Rules for one user agent: ``paths`` are (path pattern, whether it is allowed); ``signals`` its Content-Signal lines."""

    paths: list[tuple[str, bool]] = field(default_factory=list)
    delay_s: float = 0.0
    signals: list[str] = field(default_factory=list)


class Rules:
    """A parsed robots.txt. Any text can be parsed."""

    def __init__(self, text: str):
        self._groups: dict[str, _Group] = {}  # by product token in lower case; "*" for everyone else
        self.sitemaps: list[str] = []
        named: list[_Group] = []
        closed = False  # by a path: the next user-agent line starts a new group; other lines do not close it (section 2.2.4)
        for line in re.split(r"\r\n|\r|\n", text):
            name, value = _name_and_value(line)
            if name == "user-agent":
                named, closed = ([] if closed else named), False
                if token := ("*" if re.match(r"\*(\s|\Z)", value) else product_token(value).lower()):
                    named.append(self._groups.setdefault(token, _Group()))
            elif name in ("allow", "disallow"):
                closed = True
                for group in named if value else ():
                    group.paths.append((pattern_of(value), name == "allow"))
            elif name == "sitemap" and value:
                self.sitemaps.append(value)
            elif name == "content-signal":
                for group in named:
                    group.signals.append(value)
            elif name in ("crawl-delay", "request-rate"):
                for group in named:
                    group.delay_s = max(group.delay_s, _delay_s(value))

    def allows(self, target: str, user_agent: str) -> bool:
        """Whether path and query ``target`` may be fetched: the longest matching pattern decides; on a tie, Allow."""
        return self.deciding(target, user_agent)[1]

    def deciding(self, target: str, user_agent: str) -> tuple[str, bool]:
        """The pattern that decides whether ``target`` may be fetched, and whether it may; "" if none matches."""
        target = target_as_matched(target)
        found = [
            (len(pattern), allowed, pattern) for pattern, allowed in self._group(user_agent).paths if matches(pattern, target)
        ]
        _, allowed, pattern = max(found, default=(0, True, ""))
        return pattern, allowed

    def signals(self, user_agent: str) -> list[str]:
        """The Content-Signal lines for this user agent."""
        return self._group(user_agent).signals

    def addressed(self, user_agent: str) -> str:
        """How the file calls the group that is for this user agent: its name, or *; "" if there is none."""
        return next((name for name in (product_token(user_agent).lower(), "*") if name in self._groups), "")

    def delay_s(self, user_agent: str) -> float:
        """Seconds between two requests, by Crawl-delay or Request-rate; 0 if neither is given."""
        return self._group(user_agent).delay_s

    def _group(self, user_agent: str) -> _Group:
        return self._groups.get(product_token(user_agent).lower()) or self._groups.get("*") or _Group()


def product_token(user_agent: str) -> str:
    """The name without version and comment: Bot for ``Bot/1.0 (x)``; "" if there is none."""
    match = _TOKEN.match(user_agent)
    return match[0] if match else ""


def _name_and_value(line: str) -> tuple[str, str]:
    """One of _NAMES (or "") and its value; a missing colon is tolerated if unambiguous."""
    line = line[:_MAX_LINE].lstrip("\ufeff").partition("#")[0]
    for match in filter(None, (_LINE.match(line), _NO_COLON.match(line))):
        for name, spelled in _NAMES.items():
            if spelled.match(match[1]):
                return name, match[2].strip(" \t\x00\x0b\x0c")
    return "", ""


def target_as_matched(target: str) -> str:
    """A path and query as ``matches`` takes it."""
    return recoded(target or "/", _SAFE)


def pattern_of(path: str) -> str:
    """The pattern, percent-encoded like a target, so that both can be compared character by character."""
    end = "$" if path.endswith("$") else ""
    return "*".join(recoded(part, _SAFE) for part in path.removesuffix("$").split("*")) + end


def matches(pattern: str, target: str) -> bool:
    """``*`` matches anything, a final ``$`` the end. Each part is matched as early as possible, without backtracking."""
    whole = pattern.endswith("$")
    first, *others = (pattern[:-1] if whole else pattern).split("*")
    if not target.startswith(first):
        return False
    at = len(first)
    for part in others[: -1 if whole else None]:
        found = target.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    if not whole:
        return True
    return target.endswith(others[-1]) and len(target) - len(others[-1]) >= at if others else at == len(target)


def _delay_s(value: str) -> float:
    """Seconds for ``2.5`` or ``1/10m`` (requests per time); 0 for anything else."""
    match = re.match(r"([0-9]{1,6}(?:\.[0-9]{0,6})?)[ \t]*(?:/[ \t]*([0-9]{1,6})[ \t]*([smhd]?))?", value, re.IGNORECASE)
    if not match:
        return 0.0
    first = float(match[1])
    if match[2] is None:
        return first
    return int(match[2]) * _SECONDS[match[3].lower()] / first if first else 0.0
