"""A site profile: where a crawl of one site starts, which links it follows, and what it reads from each kind of page."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import soupsieve

from w2w import ids
from w2w.classes import check_classes
from w2w.config import check_label, check_name, in_file, parse
from w2w.errors import UsageError
from w2w.ingest.prices import CURRENCIES
from w2w.web.urls import TRACKING, ascii_netloc, authority, canonical, redacted, resolve, tracking_pattern

PAGE, IMAGE, SITEMAP, ROBOTS = "page", "image", "sitemap", "robots"  # kinds built into every profile
RECORDS = ("none", "product", "post")
FORMATS = ("html", "json")
PRODUCT_FIELDS = ("product_id", "title", "brand", "price", "currency", "category", "url", "image")
POST_FIELDS = ("post_id", "url", "image", "product_ids", "product_urls", "style")
_MAX_NUMBERED = 10_000_000
_READER = 2  # bump when the code reads other records from the same bytes: every page is then read again


@dataclass(frozen=True)
class Field:
    """Where to find a value on a page."""

    css: str = ""
    """CSS selector; the first element that matches."""
    attribute: str = ""
    """The element's attribute that holds the value; "": its text."""
    path: str = ""
    """In JSON: the keys that lead to the value, for example offer.price."""
    pattern: str = ""
    """Regular expression: the value is its first group, or the whole match."""
    required: bool = False
    """Without it the page is an error."""

    @property
    def where(self) -> str:
        """The selector as a person would write it, for errors."""
        if self.path:
            return f"path {self.path!r}"
        what = f"selector {self.css!r}" + (f", attribute {self.attribute!r}" if self.attribute else "")
        return what + (f", pattern {self.pattern!r}" if self.pattern else "")


@dataclass(frozen=True)
class Kind:
    """One kind of page."""

    record: str = "none"
    """What it describes: product, post, or none (only links)."""
    format: str = "html"
    """html or json."""
    items: str = ""
    """Selector (in JSON: path) of the parts that are one record each; "": the page is one record."""
    fields: dict[str, Field] = field(default_factory=dict)
    """Our field -> where to find it. Further names become attributes of a product."""
    structured: bool = True
    """Fields without a selector, or whose selector finds nothing, come from JSON-LD, microdata or OpenGraph."""
    links: str = "a[href], area[href], link[rel~=next][href]"
    """Selector of the links to consider; in JSON: paths, separated by commas; "": none."""


@dataclass(frozen=True)
class Rule:
    """Links whose canonical URL the pattern is found in are of this kind. The first rule that fits decides."""

    match: str
    """Regular expression."""
    kind: str = PAGE
    """One of kinds, or page, sitemap, image."""


@dataclass(frozen=True)
class Numbered:
    """Start URLs that count: pagination, or a range of ids."""

    url: str
    """With {n} in place of the number; {n:05d} pads it."""
    first: int = 1
    """The first number."""
    last: int = 1
    """The last number."""
    step: int = 1
    """Increment."""


@dataclass(frozen=True)
class Profile:
    """How to crawl one site."""

    name: str
    """Of the site: letters, digits, dots, dashes."""
    start: list[str] = field(default_factory=list)
    """URLs to start with."""
    numbered: list[Numbered] = field(default_factory=list)
    """URLs to start with that differ in a number."""
    sitemaps: list[str] = field(default_factory=list)
    """URLs of sitemap.xml files, also of indexes and compressed ones."""
    robots_sitemaps: bool = False
    """Also the sitemaps that robots.txt of the start URLs names."""
    hosts: list[str] = field(default_factory=list)
    """Hosts whose pages are fetched; []: those of the start URLs. *.shop.example matches every host below."""
    image_hosts: list[str] = field(default_factory=list)
    """Hosts whose images are fetched; []: any."""
    rules: list[Rule] = field(default_factory=list)
    """Which links are followed, and as what. A link without a matching rule is not."""
    kinds: dict[str, Kind] = field(default_factory=dict)
    """The site's kinds of pages."""
    id_prefix: str = ""
    """Put before every product_id and post_id, to keep sites apart that share a store."""
    category_map: dict[str, str] = field(default_factory=dict)
    """Their category (case ignored) -> ours: one of the seven classes, or etc. Empty: categories are kept, lower-cased."""
    category_default: str = "etc"
    """The category of products that have none."""
    currency: str = ""
    """ISO 4217 code of prices without a currency, or with an ambiguous one such as $."""
    tracking: list[str] = field(default_factory=lambda: list(TRACKING))
    """Query parameters that do not distinguish pages: URLs that differ in nothing else are one page. * matches anything."""
    max_page_bytes: int = 5 * 1024 * 1024
    """The largest page that is parsed."""

    def __post_init__(self):
        check_name(self.name, "the profile's name")
        named = {"id_prefix": self.id_prefix or "-", "category_default": self.category_default}
        for option, text in named.items():
            check_label(text, f"profile {self.name}: {option}")
        check_classes(self.category_map, f"profile {self.name}: category_map.")
        for kind, spec in self.kinds.items():
            _check_kind(self.name, kind, spec)
        known = {*self.kinds, PAGE, IMAGE, SITEMAP}
        for rule in self.rules:
            if rule.kind not in known:
                raise UsageError(f"profile {self.name}: rule {rule.match!r}: kind {rule.kind!r} is not one of {sorted(known)}")
            _check_pattern(self.name, f"rule {rule.match!r}", rule.match)
        if not (self.start or self.numbered or self.sitemaps):
            raise UsageError(f"profile {self.name}: no start, numbered or sitemaps: there is nowhere to start")
        for numbered in self.numbered:
            _check_numbered(self.name, numbered)
        if self.currency and self.currency not in CURRENCIES:
            raise UsageError(f"profile {self.name}: currency={self.currency}: not an ISO 4217 code, such as EUR")
        for url in (*self.start, *self.sitemaps):
            if resolve(url) is None:
                raise UsageError(f"profile {self.name}: {redacted(url)!r} is not an http or https URL without a user name")

    def version(self) -> str:
        """Digest of everything that decides how a page's bytes are read: pages are read again when it changes."""
        rules = [[r.match, r.kind] for r in self.rules]
        return ids.digest([_READER, self.kinds, rules, self.hosts, self.image_hosts, self.currency, sorted(self.tracking)])

    def starts(self) -> Iterator[tuple[str, str]]:
        """The (URL, kind) pairs to start with."""
        numbered = (p.url.format(n=n) for p in self.numbered for n in range(p.first, p.last + 1, p.step))
        for url in _resolved([*self.start, *numbered]):
            yield url, self.kind_of(url) or PAGE
        for url in _resolved(self.sitemaps):
            yield url, SITEMAP
        if self.robots_sitemaps:
            for origin in dict.fromkeys(url.split("/", 3)[0] + "//" + authority(url) for url in self._first_urls):
                yield f"{origin}/robots.txt", ROBOTS

    def key(self, url: str) -> str:
        """The canonical URL that identifies a page, whichever spelling of its URL was found first and is fetched."""
        return canonical(url, is_tracking=self._is_tracking) or url

    def kind_of(self, url: str) -> str | None:
        """The kind of page that a link to this URL leads to; None if no rule follows it."""
        key = self.key(url)
        return next((rule.kind for pattern, rule in zip(self._patterns, self.rules) if pattern.search(key)), None)

    def follows(self, url: str, kind: str) -> bool:
        """Whether the crawl fetches pages of this kind from the URL's host."""
        if kind == IMAGE:
            return not self.image_hosts or _is_among(authority(url), self._image_hosts)
        return _is_among(authority(url), self._hosts)

    @cached_property
    def _patterns(self) -> list[re.Pattern]:
        return [re.compile(rule.match) for rule in self.rules]

    @cached_property
    def _is_tracking(self) -> Callable[[str], object]:
        return tracking_pattern(self.tracking)

    @cached_property
    def _first_urls(self) -> list[str]:
        numbered = [n.url.format(n=n.first) for n in self.numbered]
        return _resolved([*self.start, *self.sitemaps, *numbered])

    @cached_property
    def _hosts(self) -> list[str]:
        return _spelled(self.hosts) or list(dict.fromkeys(authority(url) for url in self._first_urls))

    @cached_property
    def _image_hosts(self) -> list[str]:
        return _spelled(self.image_hosts)


def read_profile(path: str) -> Profile:
    """Reads a profile from a YAML file. Raises UsageError naming the file and the wrong key."""
    try:
        return parse(Profile, ["--config", path], "")
    except UsageError as e:
        raise UsageError(in_file(str(e), Profile, ["--config", path], "").replace("--config=", "--profile=")) from None


def _resolved(links: list[str]) -> list[str]:
    """The URLs of links that ``Profile`` has checked."""
    return [url for link in links if (url := resolve(link))]


def _spelled(hosts: list[str]) -> list[str]:
    """Hosts as they appear in URLs: *.Bücher.example is *.xn--bcher-kva.example."""
    return [one[: 2 * one.startswith("*.")] + (ascii_netloc(one.removeprefix("*."), 1) or one.lower()) for one in hosts]


def _is_among(host: str, hosts: list[str]) -> bool:
    name = host.rpartition(":")[0] if re.search(r":\d+\Z", host) else host
    return any(one in (host, name) or (one.startswith("*.") and name.endswith(one[1:])) for one in hosts)


def _check_kind(profile: str, name: str, kind: Kind) -> None:
    where = f"profile {profile}: kinds.{name}"
    if name in (IMAGE, SITEMAP, ROBOTS):
        raise UsageError(f"{where}: {name} is built into every profile; choose another name")
    if kind.record not in RECORDS:
        raise UsageError(f"{where}.record={kind.record}: must be one of {', '.join(RECORDS)}")
    if kind.format not in FORMATS:
        raise UsageError(f"{where}.format={kind.format}: must be one of {', '.join(FORMATS)}")
    if kind.record == "none" and (kind.fields or kind.items):
        raise UsageError(f"{where}: it has fields but record=none; set record: product or record: post")
    if kind.record == "post" and (unknown := set(kind.fields) - set(POST_FIELDS)):
        raise UsageError(f"{where}.fields.{min(unknown)}: the fields of a post are {', '.join(POST_FIELDS)}")
    for field_name, one in kind.fields.items():
        at = f"{where}.fields.{field_name}"
        if kind.format == "json" and not one.path:
            raise UsageError(f"{at}: in JSON a field has a path")
        if kind.format == "html" and not one.css:
            raise UsageError(f"{at}: a field of a page has a css selector")
        _check_selector(at, one.css)
        _check_pattern(profile, at, one.pattern)
    if kind.format == "html":
        _check_selector(f"{where}.items", kind.items)
        _check_selector(f"{where}.links", kind.links)


def _check_selector(where: str, css: str) -> None:
    if css:
        try:
            soupsieve.compile(css)
        except soupsieve.SelectorSyntaxError as e:
            raise UsageError(f"{where}: {css!r} is not a CSS selector: {str(e).splitlines()[0]}") from None


def _check_pattern(profile: str, where: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as e:
        raise UsageError(f"profile {profile}: {where}: not a regular expression: {e}") from None


def _check_numbered(profile: str, numbered: Numbered) -> None:
    where = f"profile {profile}: numbered {redacted(numbered.url)!r}"
    try:
        one, other = numbered.url.format(n=1), numbered.url.format(n=2)
    except (KeyError, IndexError, ValueError):
        raise UsageError(f"{where}: write {{n}} in place of the number") from None
    if one == other or resolve(one) is None:
        raise UsageError(f"{where}: must be a URL with {{n}} in it")
    if numbered.step < 1 or not 0 <= (numbered.last - numbered.first) // numbered.step < _MAX_NUMBERED:
        raise UsageError(f"{where}: first, last and step give no range of at most {_MAX_NUMBERED} numbers")
