"""One spelling for each page: canonical URLs, and how far a crawl follows links before it calls them a trap."""

import re
from collections import Counter
from dataclasses import dataclass
from urllib.parse import quote, unquote, unquote_to_bytes, urljoin, urlsplit, urlunsplit

from w2w.errors import UsageError

MAX_CHARS = 2000
PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_.:-]{1,253}\Z", re.ASCII)
_PATH_SAFE, _QUERY_SAFE = "/:@!$&'()*+,;=~-._", "/:@!$'()*,;=~-._?"
# parameters that say where a visitor came from or who they are, never what the page shows
_TRACKING = re.compile(
    r"(utm_\w+|gclid|gclsrc|dclid|gbraid|wbraid|fbclid|msclkid|yclid|twclid|ttclid|igshid|mc_[ce]id|_hs(enc|mi)|mkt_tok|"
    r"srsltid|_ga|_gl|ref_src|phpsessid|jsessionid|sessionid|sid)\Z",
    re.IGNORECASE,
)
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character: JSON can say it, and no encoding can
_SESSION_PATH = re.compile(r";jsessionid=[^/]*", re.IGNORECASE)
_LOOKS_LIKE_HOST = re.compile(r"(?:[a-z0-9-]+\.)+[a-z]{2,24}(?::\d+)?(?:[/?#]|\Z)", re.IGNORECASE)
_FILE_ENDINGS = (".html", ".htm", ".php", ".asp", ".aspx", ".jsp", ".xml", ".json", ".jpg", ".jpeg", ".png", ".gif", ".webp")


def canonical(link: str, base: str = "") -> str | None:
    """The URL of a link, spelled so that the same page is the same text; None where it is no http or https URL.

    Lower-case host in ASCII (IDNA), no default port, fragment, dot segments, tracking parameters or user name; percent
    codes in upper case and only where needed; query parameters sorted. ``www.shop.example/a`` without a scheme is a link to
    that host where it starts with www. or the base's own host, or there is no base.
    """
    link = re.sub(r"[\x00-\x20\x7f]+", lambda m: "" if m[0].strip(" ") else " ", link).strip()
    if not link or link.startswith("#") or _SURROGATE.search(link):
        return None
    scheme = urlsplit(base).scheme if base else "https"
    if "://" not in link and _is_host(link, authority(base)):
        link = f"{scheme or 'https'}://{link}"
    try:
        if re.match(r"[a-z]+:///?(/|\Z)", link, re.IGNORECASE):
            return None  # urljoin would take http:// for the base itself
        parts = urlsplit(urljoin(base, link))
        host, port = parts.hostname or "", parts.port
        if not host.isascii():
            host = host[:253].encode("idna").decode("ascii")
    except ValueError:
        return None
    host = host.rstrip(".")
    if parts.scheme not in PORTS or "@" in parts.netloc or not _HOST.match(host) or port == 0:
        return None
    name = f"[{host}]" if ":" in host else host
    netloc = name if port is None or port == PORTS[parts.scheme] else f"{name}:{port}"
    path = _without_dots(_recoded(_SESSION_PATH.sub("", parts.path) or "/", _PATH_SAFE))
    url = urlunsplit((parts.scheme, netloc, path, _query(parts.query), ""))
    return url if len(url) <= MAX_CHARS else None


def redacted(url: str) -> str:
    """The URL as it may stand in a message: no user name, password, query (signatures, tokens) or control character."""
    try:
        parts = urlsplit(url)
        text = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "...." if parts.query else "", ""))
    except ValueError:
        return "(unreadable URL)"
    return "".join(c if c.isprintable() else "?" for c in text[:300])


def _is_host(link: str, here: str) -> bool:
    """Whether a link without a scheme names a host, ``here`` for one: what people write, and browsers read as a path."""
    name = re.split(r"[/?#]", link, maxsplit=1)[0].lower()
    if name == here != "":
        return True
    return bool(_LOOKS_LIKE_HOST.match(link)) and (name.startswith("www.") or not (here or name.endswith(_FILE_ENDINGS)))


def authority(url: str) -> str:
    """Host and port as politeness counts them; "" where there is none."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""


def _recoded(text: str, safe: str) -> str:
    """Percent codes only where needed, and in upper case: an encoded slash stays encoded, an encoded letter does not."""
    parts = re.split(r"(%[0-9A-F]{2})", re.sub(r"%[0-9A-Fa-f]{2}", lambda m: _code(m[0]), text))  # every second one is a code
    return "".join(part if i % 2 else quote(part, safe=safe) for i, part in enumerate(parts))


def _code(code: str) -> str:
    byte = unquote_to_bytes(code)
    return byte.decode() if byte.isalnum() or byte in (b"-", b".", b"_", b"~") else code.upper()


def _without_dots(path: str) -> str:
    """RFC 3986, section 5.2.4, for an absolute path."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for i, segment in enumerate(segments):
        last = i == len(segments) - 1
        if segment in (".", ".."):
            if segment == ".." and kept:
                kept.pop()
            if last:
                kept.append("")
        else:
            kept.append(segment)
    return "/" + "/".join(kept)


def _query(query: str) -> str:
    kept = []
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        if part and not _TRACKING.match(unquote(name)):
            kept.append(
                (_recoded(name.replace("+", "%20"), _QUERY_SAFE), equals, _recoded(value.replace("+", "%20"), _QUERY_SAFE))
            )
    return "&".join("".join(one) for one in sorted(kept))


@dataclass(frozen=True)
class Limits:
    """How far links are followed. What lies beyond is written down as excluded, and not asked for."""

    max_depth: int = 500
    """Links from a start URL."""
    max_urls_per_host: int = 1_000_000
    """URLs of one host, images not counted."""
    max_queries_per_path: int = 2_000
    """URLs that differ only in their query."""
    max_urls_per_pattern: int = 200_000
    """URLs whose paths differ only in their digits: what a calendar makes without end."""
    max_repeats: int = 3
    """Times that one segment may stand in a path: /a/b/a/b/a/b is a loop of relative links."""
    max_redirects: int = 5
    """Redirects in a row."""
    max_urls_below: dict[str, int] | None = None
    """Path prefix -> how many URLs below it, for example {/archive/: 500}."""

    def __post_init__(self):
        for name in ("max_depth", "max_urls_per_host", "max_queries_per_path", "max_urls_per_pattern", "max_repeats"):
            if getattr(self, name) < 0:
                raise UsageError(f"limits.{name}={getattr(self, name)}: must not be negative")


class Breadth:
    """Counts what was let in, and says what a further URL would go over. The order of asking decides: sort before."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._hosts: Counter[str] = Counter()
        self._paths: Counter[str] = Counter()
        self._patterns: Counter[str] = Counter()
        self._below: Counter[str] = Counter()

    def refusal(self, url: str, depth: int, redirects: int) -> str:
        """Why this URL is too much; "" where it is counted and let in."""
        limits, parts = self._limits, urlsplit(url)
        if why := self.too_far(depth, redirects):
            return why
        segments = [s for s in parts.path.split("/") if s]
        if segments and max(Counter(segments).values()) > limits.max_repeats:
            return f"a path segment more often than limits.max_repeats={limits.max_repeats}"
        if self._hosts[parts.netloc] >= limits.max_urls_per_host:
            return f"more than limits.max_urls_per_host={limits.max_urls_per_host}"
        path = f"{parts.netloc}{parts.path}"
        if parts.query and self._paths[path] >= limits.max_queries_per_path:
            return f"more than limits.max_queries_per_path={limits.max_queries_per_path}"
        pattern = re.sub(r"\d+", "0", path)
        if self._patterns[pattern] >= limits.max_urls_per_pattern:
            return f"more than limits.max_urls_per_pattern={limits.max_urls_per_pattern}"
        below = [prefix for prefix in limits.max_urls_below or {} if parts.path.startswith(prefix)]
        for prefix in below:
            if self._below[prefix] >= limits.max_urls_below[prefix]:
                return f"more than limits.max_urls_below of {limits.max_urls_below[prefix]} below {prefix}"
        self.count(url)
        return ""

    def too_far(self, depth: int, redirects: int) -> str:
        """Why a URL so far from the start is too much, whatever it is; "" where it is not."""
        if depth > self._limits.max_depth:
            return f"deeper than limits.max_depth={self._limits.max_depth}"
        if redirects > self._limits.max_redirects:
            return f"more than limits.max_redirects={self._limits.max_redirects} redirects"
        return ""

    def count(self, url: str) -> None:
        """Takes note of a URL that is in already."""
        parts = urlsplit(url)
        path = f"{parts.netloc}{parts.path}"
        self._hosts[parts.netloc] += 1
        if parts.query:
            self._paths[path] += 1
        self._patterns[re.sub(r"\d+", "0", path)] += 1
        for prefix in self._limits.max_urls_below or {}:
            if parts.path.startswith(prefix):
                self._below[prefix] += 1
