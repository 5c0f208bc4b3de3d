"""URLs: what a link requests, the canonical key of its page, and the limits that stop crawler traps."""

import ipaddress
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit, urlunsplit

import idna

from w2w.errors import UsageError
from w2w.shown import without_secrets

MAX_CHARS = 2000
PORTS = {"http": 80, "https": 443}
# parameters that identify the visitor's origin or session, never the page's content
TRACKING = (
    *("utm_*", "gclid", "gclsrc", "dclid", "gbraid", "wbraid", "srsltid", "_ga", "_gl", "fbclid", "igshid", "msclkid", "yclid"),
    *("twclid", "ttclid", "mc_cid", "mc_eid", "_hsenc", "_hsmi", "mkt_tok", "phpsessid", "jsessionid"),
)
_HOST = re.compile(r"[a-z0-9_.:-]{1,253}\Z", re.ASCII)
_PATH_SAFE, _QUERY_SAFE = "/:@!$&'()*+,;=~-._", "/:@!$'()*,;=~-._?"
# what browsers leave unchanged (URL standard, path and query percent-encode sets)
_PUBLISHED_PATH, _PUBLISHED_QUERY = "%/:@!$&'()*+,;=~-._|[]\\", "%/:@!$&'()*+,;=~-._|[]\\?^`{}"
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a surrogate pair: possible in JSON, but not encodable
_SESSION_PATH = re.compile(r";jsessionid=[^/]*", re.IGNORECASE)
_LOOKS_LIKE_HOST = re.compile(r"(?:[a-z0-9-]+\.)+[a-z]{2,24}(?::\d+)?(?:[/?#]|\Z)", re.IGNORECASE)
_FILE_ENDINGS = (".html", ".htm", ".php", ".asp", ".aspx", ".jsp", ".xml", ".json", ".jpg", ".jpeg", ".png", ".gif", ".webp")
_PARTS = re.compile(r"(?:([a-z][a-z0-9+.-]*):)?(?://([^/?#]*))?([^?#]*)(\?[^#]*)?", re.IGNORECASE)  # RFC 3986, appendix B
_AS_IT_IS = re.compile(  # most URLs: already canonical
    r"https?://[a-z0-9-]+(?:\.[a-z0-9-]+)*(?=/)(?:/[A-Za-z0-9_~-]+(?:\.[A-Za-z0-9_~-]+)*)*/?\Z", re.ASCII
)


def resolve(link: str, base: str = "") -> str | None:
    """The URL that a browser requests when it follows a link on the page ``base``; None if it is not an http or https URL.

    Per the URL standard (url.spec.whatwg.org): path and query stay as published, except dot segments and characters that no
    request may contain; the host is lower-case ASCII (UTS #46) without a default port; no fragment. Two exceptions:
    ``www.shop.example/a`` without a scheme is a link to that host if it starts with www. or the base's own host, or if there is
    no base; and an IPv4 address stays as it is written.
    """
    if _AS_IT_IS.match(link) and len(link) <= MAX_CHARS:
        return link
    link = re.sub(r"[\t\n\r]", "", link.strip("".join(map(chr, range(33)))))
    if not link or link.startswith("#") or _SURROGATE.search(link):
        return None
    before, mark, after = link.partition("?")
    link = before.partition("#")[0].replace("\\", "/") + (mark + after if "#" not in before else "")
    base_scheme, base_netloc, base_path, base_query = _parts(base)
    scheme = (base_scheme or "https").lower()
    if "://" not in link and _is_host(link, authority(base)):
        link = f"{scheme}://{link}"
    named = re.match(r"(https?):(?!//[^/])(/*)", link, re.IGNORECASE)
    if named:  # http:a and http:///a: a path if the base has this scheme, otherwise always a host
        relative = base and named[1].lower() == scheme and not named[2].startswith("//")
        link = link[len(named[1]) + 1 :] if relative else f"{named[1]}://{link[named.end() :]}"
    elif link.startswith("///"):
        link = "//" + link.lstrip("/")
    own_scheme, netloc, own_path, query = _parts(link)
    if own_scheme:
        scheme = own_scheme.lower()
    if scheme not in PORTS:
        return None
    if netloc is None:
        if own_scheme or base_netloc is None:
            return None
        netloc = base_netloc
        if not own_path:
            own_path, query = base_path, base_query if query is None else query
        elif not own_path.startswith("/"):
            own_path = base_path.rpartition("/")[0] + "/" + own_path
    host = ascii_netloc(netloc, PORTS[scheme])
    if host is None:
        return None
    path = _without_dots(quote(own_path or "/", safe=_PUBLISHED_PATH))
    url = f"{scheme}://{host}{path}{quote(query or '', safe=_PUBLISHED_QUERY)}"
    return url if len(url) <= MAX_CHARS else None


def canonical(link: str, base: str = "", is_tracking: Callable[[str], object] | None = None) -> str | None:
    """The key of the page that a link leads to: all spellings of its URL give the same text, which is itself a URL.

    ``resolve``, and then: percent codes in upper case and only where needed; query parameters sorted, without those that
    ``is_tracking`` (by default TRACKING). For requests, use ``resolve``: servers may tell spellings apart.
    """
    url = resolve(link, base)
    if url is None or _AS_IT_IS.match(url):
        return url
    scheme, netloc, path, query, _ = urlsplit(url)
    path = _without_dots(recoded(_SESSION_PATH.sub("", path) or "/", _PATH_SAFE))
    url = urlunsplit((scheme, netloc, path, _query(query, is_tracking or _is_tracking), ""))
    return url if len(url) <= MAX_CHARS else None


def _parts(url: str) -> tuple[str | None, str | None, str, str | None]:
    """Scheme, authority, path, and query with its question mark."""
    scheme, netloc, path, query = next(_PARTS.finditer(url)).groups()  # every part may be missing: there is a match
    return scheme, netloc, path, query


def tracking_pattern(names: Iterable[str]) -> Callable[[str], object]:
    """Whether a parameter's name matches one of ``names``, ignoring case; ``*`` matches any characters."""
    listed = "|".join(re.escape(name).replace(r"\*", ".*") for name in names)
    return re.compile(rf"(?:{listed})\Z" if listed else r"(?!)", re.IGNORECASE | re.DOTALL).match


_is_tracking = tracking_pattern(TRACKING)


def target_of(url: str) -> str:
    """Path and query, as requested."""
    _, _, path, query = _parts(url)
    return (path or "/") + (query or "")


def ascii_netloc(netloc: str, default_port: int) -> str | None:
    """Host and port of a URL; None if there is no host, or a user name."""
    match = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]*))?", netloc)
    if not match or "@" in netloc:
        return None
    port = int(match[2].lstrip("0")[:6] or "0") if match[2] else default_port
    host = ascii_host(match[1])
    if not host or not 0 < port < 65536:
        return None
    return host if port == default_port else f"{host}:{port}"


def ascii_host(host: str) -> str:
    """A host's name in lower-case ASCII (UTS #46), an IPv6 address normalised and in brackets; "" for neither."""
    try:
        if host.startswith("["):
            return "" if "%" in host else f"[{ipaddress.IPv6Address(host[1:-1])}]"
        host = unquote(host, errors="strict")
        if not host.isascii():
            labels = unicodedata.normalize("NFC", idna.uts46_remap(host[:253], std3_rules=False)).split(".")
            if any(one.startswith("xn--") and not one.isascii() for one in labels):
                return ""
            host = ".".join(one if one.isascii() else "xn--" + one.encode("punycode").decode() for one in labels)
    except ValueError:  # UnicodeError included
        return ""
    host = host.lower().rstrip(".")
    return host if _HOST.match(host) and ":" not in host else ""


def redacted(url: str) -> str:
    """The URL for use in messages: without user name, password, query (signatures, tokens) and control characters."""
    try:
        parts = urlsplit(without_secrets(url))
        text = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "...." if parts.query else "", ""))
    except ValueError:
        return "(unreadable URL)"
    return "".join(c if c.isprintable() else "?" for c in text[:300])


def _is_host(link: str, here: str) -> bool:
    """Whether a link without a scheme starts with a host, such as ``here``; browsers take such links for paths."""
    name = re.split(r"[/?#]", link, maxsplit=1)[0].lower()
    if name == here != "":
        return True
    return bool(_LOOKS_LIKE_HOST.match(link)) and (name.startswith("www.") or not (here or name.endswith(_FILE_ENDINGS)))


def authority(url: str) -> str:
    """Host and port as used for politeness; "" if there is none."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""


def recoded(text: str, safe: str) -> str:
    """Percent codes only where needed, in upper case: an encoded slash stays encoded, an encoded letter does not."""
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
        dots = segment.lower().replace("%2e", ".") if len(segment) < 7 else segment
        if dots in (".", ".."):
            if dots == ".." and kept:
                kept.pop()
            if last:
                kept.append("")
        else:
            kept.append(segment)
    return "/" + "/".join(kept)


def _query(query: str, is_tracking: Callable[[str], object]) -> str:
    kept = []
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        if part and not is_tracking(unquote(name)):
            kept.append(
                (recoded(name.replace("+", "%20"), _QUERY_SAFE), equals, recoded(value.replace("+", "%20"), _QUERY_SAFE))
            )
    return "&".join("".join(one) for one in sorted(kept))


@dataclass(frozen=True)
class Limits:
    """How far links are followed. URLs beyond the limits are recorded as excluded, and not fetched."""

    max_depth: int = 500
    """Links from a start URL."""
    max_urls_per_host: int = 1_000_000
    """URLs of one host, images not counted."""
    max_queries_per_path: int = 2_000
    """URLs that differ only in their query."""
    max_urls_per_pattern: int = 200_000
    """URLs whose paths differ only in digits, as an endless calendar's do."""
    max_repeats: int = 3
    """Times that one segment may occur in a path: /a/b/a/b/a/b is a loop of relative links."""
    max_redirects: int = 5
    """Consecutive redirects."""
    max_urls_below: dict[str, int] | None = None
    """Path prefix -> how many URLs below it, for example {/archive/: 500}."""

    def __post_init__(self):
        for name in ("max_depth", "max_urls_per_host", "max_queries_per_path", "max_urls_per_pattern", "max_repeats"):
            if getattr(self, name) < 0:
                raise UsageError(f"limits.{name}={getattr(self, name)}: must not be negative")


class Breadth:
    """Counts admitted URLs and says which limit a further URL would exceed. The order of calls matters: sort before."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._hosts: Counter[str] = Counter()
        self._paths: Counter[str] = Counter()
        self._patterns: Counter[str] = Counter()
        self._below: Counter[str] = Counter()

    def refusal(self, url: str, depth: int, redirects: int) -> str:
        """The limit that this URL exceeds; "" if it is counted and admitted."""
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
        for prefix, most in (limits.max_urls_below or {}).items():
            if parts.path.startswith(prefix) and self._below[prefix] >= most:
                return f"more than limits.max_urls_below={most} below {prefix}"
        self.count(url)
        return ""

    def too_far(self, depth: int, redirects: int) -> str:
        """The limit that a URL this far from the start exceeds, whatever the URL; "" if none."""
        if depth > self._limits.max_depth:
            return f"deeper than limits.max_depth={self._limits.max_depth}"
        if redirects > self._limits.max_redirects:
            return f"more than limits.max_redirects={self._limits.max_redirects} redirects"
        return ""

    def count(self, url: str) -> None:
        """Counts a URL that was admitted before."""
        parts = urlsplit(url)
        path = f"{parts.netloc}{parts.path}"
        self._hosts[parts.netloc] += 1
        if parts.query:
            self._paths[path] += 1
        self._patterns[re.sub(r"\d+", "0", path)] += 1
        for prefix in self._limits.max_urls_below or {}:
            if parts.path.startswith(prefix):
                self._below[prefix] += 1
