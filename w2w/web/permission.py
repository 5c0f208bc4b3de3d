"""What a place on the web says of the use of a picture, and what follows: may search use it, may training?

Read are X-Robots-Tag, Content-Signal (contentsignals.org: a header, or a line of robots.txt), TDM-Reservation and TDM-Policy
(TDM Reservation Protocol, W3C Community Group Report, 2024: headers, or /.well-known/tdmrep.json), and whether robots.txt lets
us fetch. Only what has a meaning here is kept, spelled our way, so that nothing of what a server sends travels further as it
is.
"""

import email.utils
import json
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime

from w2w.errors import UsageError
from w2w.web.robotstxt import matches, pattern_of, product_token, target_as_matched

STATED, GRANTED, ALLOWED, REFUSED = "stated", "granted", "allowed", "refused"  # values of UseConfig
UNREACHABLE = "unreachable"  # in place of what a file of the host says
LISTED = " (listed)"  # ends a rule of robots.txt that was not asked whether the address may be fetched: a feed lists it
_IGNORED = "fetch.respect_no_ai=false"
NO_AI = ("noai", "noimageai")
_NO_INDEX = ("noindex", "noimageindex", "none")
_AFTER = "unavailable_after"
_RESERVED = {"0": "0", "1": "1", "true": "1"}  # of a tdmrep.json
_YES = ("all", "index")  # what an X-Robots-Tag says that takes an earlier no back
_VALUED = {_AFTER, "max-snippet", "max-image-preview", "max-video-preview"}  # directives that contain a colon
_SIGNALS = ("search", "ai-input", "ai-train")
_MOST_CHARS = 300  # of a policy's address, and of a rule
_MOST_RULES = 1000  # of a tdmrep.json
_MOST_BYTES = 256 * 1024


@dataclass(frozen=True)
class UseConfig:
    """What the pictures of a source may be used for."""

    search: str = STATED
    """stated: unless the place that a picture comes from says no; granted: only if it says yes; allowed, refused: as you, the
    owner, say, whatever the place says."""
    training: str = STATED
    """The same of training."""

    def __post_init__(self):
        for name in ("search", "training"):
            if getattr(self, name) not in (STATED, GRANTED, ALLOWED, REFUSED):
                raise UsageError(f"use.{name}={getattr(self, name)!r}: stated, granted, allowed or refused")

    def told(self, respect_no_ai: bool = True) -> str:
        """As the ledger records it, with ``FetchConfig.respect_no_ai``; "" for the defaults."""
        said = [f"{name}={value}" for name, value in asdict(self).items() if value != STATED]
        return ", ".join([*said, *([] if respect_no_ai else [_IGNORED])])


@dataclass(frozen=True)
class Headers:
    """What the headers of one answer say. "" where they say nothing."""

    robots_tag: str = ""  # directives of X-Robots-Tag that are for us
    content_signal: str = ""  # search=yes, ai-train=no
    tdm_reservation: str = ""  # 0 or 1
    tdm_policy: str = ""


@dataclass(frozen=True)
class Rules:
    """What the files of a host say of one of its addresses. "" where they say nothing, UNREACHABLE where nobody knows."""

    robots_rule: str = ""  # whose group, allow or disallow, and the pattern that decides; LISTED: it does not count
    robots_signal: str = ""  # the group's Content-Signal
    tdm_rule: str = ""  # tdmrep.json: 0 or 1, and the policy

    @property
    def disallowed(self) -> bool:
        rule = self.robots_rule.partition(": ")[2]
        return rule.startswith("disallow ") and not rule.endswith(LISTED)


@dataclass(frozen=True)
class Statement:
    """All that is said of a picture at one place, and by its owner (``UseConfig.told``)."""

    headers: Headers = Headers()
    rules: Rules = Rules()
    use: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str | None) -> "Statement":
        plain = json.loads(text) if text else {}
        return Statement(_of(Headers, plain.get("headers")), _of(Rules, plain.get("rules")), plain.get("use", ""))

    @staticmethod
    def of(heard: dict[str, str], use: str) -> "Statement":
        """``heard``: as of ``Asked.heard``."""
        return Statement(_of(Headers, heard), _of(Rules, heard), use)

    def after(self, asked: "Asked", use: str) -> "Statement":
        """What stands now that a place was asked again: a file that cannot be reached says what it said before."""
        heard, now = asked.heard(), asked.rules or self.rules
        headers = replace(self.headers, **{f.name: heard[f.name] for f in fields(Headers) if f.name in heard})
        if now.robots_rule == UNREACHABLE:
            before = self.rules
            now = replace(now, robots_rule=before.robots_rule or UNREACHABLE, robots_signal=before.robots_signal)
        if now.tdm_rule == UNREACHABLE and self.rules.tdm_rule:
            now = replace(now, tdm_rule=self.rules.tdm_rule)
        return Statement(headers, now, use)


@dataclass(frozen=True)
class Asked:
    """What one fetch was told. ``headers``: None where none were seen; ``rules``: None where the host's files were not looked
    at; ``partly``: the headers are of a 304, which may leave some out, so that what these said before still holds."""

    headers: Headers | None = None
    rules: Rules | None = None
    partly: bool = False

    def heard(self) -> dict[str, str]:
        """What is known now, by the names of ``Headers`` and ``Rules``."""
        headers, rules = self.headers or Headers(), self.rules or Rules(UNREACHABLE, "", UNREACHABLE)
        found = {} if self.headers is None else {n: told for n, told in vars(headers).items() if told or not self.partly}
        if headers.tdm_reservation:
            found["tdm_policy"] = headers.tdm_policy
        if rules.robots_rule != UNREACHABLE:
            found |= {"robots_rule": rules.robots_rule, "robots_signal": rules.robots_signal}
        return found if rules.tdm_rule == UNREACHABLE else found | {"tdm_rule": rules.tdm_rule}

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> "Asked":
        plain = json.loads(text)
        headers, rules = plain.get("headers"), plain.get("rules")
        return Asked(headers and _of(Headers, headers), rules and _of(Rules, rules), plain.get("partly", False))


def _of(kind: type, plain: dict | None):
    known = {f.name for f in fields(kind)}
    return kind(**{name: value for name, value in (plain or {}).items() if name in known})


@dataclass(frozen=True)
class Verdict:
    """What a picture may be used for. ``until``: search may use it until then; None: without an end."""

    search: bool
    training: bool
    reason: str
    until: datetime | None = None


def judge(said: Statement) -> Verdict:
    """The owner's word counts first, then every no: a header's over that of a file of the host where both speak of the same
    (Content-Signal, TDM), otherwise whichever."""
    owner = said.use.split(", ")
    use = UseConfig(**dict(part.split("=") for part in owner if part and part != _IGNORED))
    tag, until = said.headers.robots_tag.split(", "), _until(said.headers.robots_tag)
    noes: dict[str, list[str]] = {"search": [], "training": []}
    yes: set[str] = set()
    if said.rules.disallowed:
        for of in noes.values():
            of.append("robots.txt disallows it")
    if _IGNORED not in owner and (mark := next((d for d in tag if d in NO_AI), "")):
        for of in noes.values():
            of.append(f"X-Robots-Tag: {mark}")
    noes["search"] += [f"X-Robots-Tag: {d}" for d in tag if d in _NO_INDEX]
    signals = _signals(said.rules.robots_signal) | _signals(said.headers.content_signal)
    for name, of in (("search", "search"), ("ai-train", "training")):
        where = "Content-Signal" if name in _signals(said.headers.content_signal) else "robots.txt: Content-Signal"
        if signals.get(name) == "no":
            noes[of].append(f"{where}: {name}=no")
        elif signals.get(name) == "yes":
            yes.add(of)
    file = said.rules.tdm_rule.partition(" ")[0]
    if (said.headers.tdm_reservation or file) == "1":
        noes["training"].append("TDM-Reservation: 1" if said.headers.tdm_reservation else "tdmrep.json: tdm-reservation 1")
    elif (said.headers.tdm_reservation or file) == "0":
        yes.add("training")
    may, why = {}, []
    for of, found in noes.items():
        meant = getattr(use, of)
        if meant in (ALLOWED, REFUSED):
            may[of], found = meant == ALLOWED, [f"use.{of}={meant}"]
        elif meant == GRANTED and not found and of not in yes:
            may[of], found = False, [f"nothing grants it (use.{of}=granted)"]
        else:
            may[of] = not found
        why += [f"{of}: {'; '.join(found)}"] if found else []
    return Verdict(may["search"], may["training"], ". ".join(why), until if use.search in (STATED, GRANTED) else None)


# headers


def read_headers(get_all: Callable[[str], Sequence[str]], user_agent: str) -> Headers:
    """``get_all``: the values of a header, by its name. Any value can be read; what contradicts itself says no."""
    signals = signals_of(get_all("Content-Signal"))
    tdm = [value.strip() for value in get_all("TDM-Reservation") if value.strip()]
    policy = next((p for p in map(_policy, get_all("TDM-Policy")) if p), "")
    reserved = "" if not tdm else "0" if set(tdm) == {"0"} else "1"
    return Headers(", ".join(directives(get_all("X-Robots-Tag"), user_agent)), signals, reserved, policy)


def directives(tags: Sequence[str], user_agent: str) -> list[str]:
    """The directives of X-Robots-Tag headers that matter here and are for everybody or for this user agent, each once; all, if
    they allow and forbid nothing. Semicolons, blanks, quotes and control characters around a directive hide none."""
    ours, noes, yes, found = product_token(user_agent).lower(), (*NO_AI, *_NO_INDEX), False, dict[str, None]()
    for tag in tags:
        meant, parts = True, deque(re.split("[,;]", tag.lower()))
        while parts:
            before, colon, rest = parts.popleft().partition(":")
            name = _bare(before)
            if colon and name not in (*_VALUED, *noes):  # "bot: noai": from here on, directives are for that bot
                meant = name in ("", "*") or product_token(name) == ours
                before, _, rest = rest.partition(":")
                name = _bare(before)
            until = _date(rest) if name == _AFTER else None
            if name == _AFTER and not until and parts and (until := _date(f"{rest},{parts[0]}")):
                parts.popleft()  # of RFC 822 and 850 dates, which have a comma
            words = re.findall(r"[\w-]+", name) if meant else []
            if words and words[0] not in _VALUED:
                found |= dict.fromkeys(word for word in words if word in noes)
                yes = yes or any(word in _YES for word in words)
            elif words and until:
                found[f"{_AFTER}: {until.isoformat()}"] = None
    return list(found) or [_YES[0]] * yes


def _bare(text: str) -> str:
    """Without what is around the first and the last letter, digit or star."""
    found = re.search(r"[\w*](?:.*[\w*])?", text, re.DOTALL)
    return found[0] if found else ""


def _date(text: str) -> datetime | None:
    text = _bare(text)[:60]
    for read in (datetime.fromisoformat, email.utils.parsedate_to_datetime):
        try:
            when = read(text.upper() if read is datetime.fromisoformat else text)
            return (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC).replace(microsecond=0)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    return None


def _until(robots_tag: str) -> datetime | None:
    dates = [_date(part.partition(": ")[2]) for part in robots_tag.split(", ") if part.startswith(_AFTER)]
    return min(filter(None, dates), default=None)


def signals_of(values: Sequence[str]) -> str:
    """Content-Signal as we spell it: search=yes, ai-train=no. Of yes and no, no counts; anything else says nothing."""
    found: dict[str, str] = {}
    for name, value in re.findall(
        r"(?<![\w-])(search|ai-input|ai-train)[^\w,;=-]*=[^\w,;=-]*(yes|no)(?![\w-])", ",".join(values).lower()
    ):
        found[name] = "no" if "no" in (value, found.get(name)) else "yes"
    return ", ".join(f"{name}={found[name]}" for name in _SIGNALS if name in found)


def _signals(told: str) -> dict[str, str]:
    return dict(part.split("=") for part in told.split(", ")) if told else {}


def _policy(value: str) -> str:
    value = value.strip()
    return value[:_MOST_CHARS] if re.fullmatch(r"(?i:https?)://[!-?A-~]+", value) else ""  # printable ASCII but for @


# files of a host


class TdmFile:
    """A parsed /.well-known/tdmrep.json. Any bytes can be parsed; what is no rule says nothing."""

    def __init__(self, body: bytes = b""):
        self._rules: list[tuple[str, str]] = []  # pattern, what it says
        try:
            listed = json.loads(body[:_MOST_BYTES]) if body.strip() else []
        except (ValueError, RecursionError):
            listed = []
        for rule in listed[:_MOST_RULES] if isinstance(listed, list) else ():
            location, reserved = (rule.get("location"), rule.get("tdm-reservation")) if isinstance(rule, dict) else (None, None)
            reserved = _RESERVED.get(_bare(str(reserved)).lower()) if isinstance(reserved, str | int) else None
            if isinstance(location, str) and reserved:
                policy = rule.get("tdm-policy")
                told = f"{reserved} {_policy(policy) if isinstance(policy, str) else ''}".strip()
                self._rules.append((pattern_of(location[:2000]), told))

    def says(self, target: str) -> str:
        """0 or 1 and the policy, for path and query ``target``: the longest matching pattern counts, of equal ones a 1."""
        target = target_as_matched(target)
        found = [(len(pattern), told) for pattern, told in self._rules if matches(pattern, target)]
        return max(found, default=(0, ""))[1]
