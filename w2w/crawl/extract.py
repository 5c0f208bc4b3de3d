"""From a page's bytes to records and links, according to its site's profile."""

import html
import json
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bs4 import BeautifulSoup, Tag, XMLParsedAsHTMLWarning
from bs4.exceptions import ParserRejectedMarkup

from w2w import ids
from w2w.crawl.profile import IMAGE, PAGE, SITEMAP, Field, Kind, Profile
from w2w.crawl.sitemap import MAX_URLS, read_sitemap
from w2w.crawl.srcset import largest
from w2w.crawl.structured import Fields, structured
from w2w.errors import Reject, RejectCode
from w2w.ingest.prices import currency_code, machine_price, written_price
from w2w.web.encodings import decoded
from w2w.web.urls import redacted, resolve

_MANY = ("product_ids", "product_urls")
_URLS = ("url", "image", "product_urls")
_ID = {"product": "product_id", "post": "post_id"}
_REQUIRED = ("image",)  # a product or post without a picture is of no use here
_LINKS_ONLY = Kind()
_MAX_LINKS = 20_000  # of one page; a sitemap has its own limit
_MAX_VALUES = 100  # of a field
_FOR_MACHINES = re.compile(r"(content|value|data-.*)\Z")  # attributes that people do not see
_NO_AI = {"noai", "noimageai"}
_ACCEPT = {
    "html": ("text/html", "application/xhtml+xml", ""),
    "json": ("application/json", "text/json", "application/feed+json", "application/vnd.api+json", "text/plain", ""),
}


@dataclass(frozen=True)
class Link:
    """A URL that a page links to, as published, and the kind of page to read it as."""

    url: str
    kind: str


@dataclass(frozen=True)
class Record:
    """A product or post: our fields, each with its values."""

    record: str
    fields: Fields

    def to_json(self) -> str:
        return json.dumps({"record": self.record, **self.fields}, ensure_ascii=False, sort_keys=True)


@dataclass(frozen=True)
class Extract:
    """What a page yields. ``problems``: why parts of it are not records, each naming the selector and the URL."""

    records: tuple[Record, ...] = ()
    links: tuple[Link, ...] = ()
    problems: tuple[str, ...] = ()
    refused: bool = False
    """The page itself asks not to be used for models."""


@dataclass
class _Found:
    records: list[Record] = field(default_factory=list)
    links: dict[str, Link] = field(default_factory=dict)  # by canonical URL
    problems: list[str] = field(default_factory=list)

    def link(self, profile: Profile, url: str | None, kind: str | None, most: int = _MAX_LINKS) -> None:
        if url and kind and profile.follows(url, kind):
            key = profile.key(url)
            known = self.links.get(key)
            if known and len(known.url) <= len(url):
                return
            if known or len(self.links) < most:
                self.links[key] = Link(url, kind)  # the shortest of several spellings
            elif (problem := f"more than {most} links: the others are not followed") not in self.problems:
                self.problems.append(problem)


def accepted_types(profile: Profile, kind: str) -> tuple[str, ...]:
    """Prefixes of the content types that a page of this kind may have; "": none given."""
    if kind == IMAGE:
        return ("image/", "application/octet-stream", "binary/octet-stream", "")
    if kind == SITEMAP:
        return ()
    return _ACCEPT[profile.kinds.get(kind, _LINKS_ONLY).format]


def extract(profile: Profile, kind: str, url: str, content_type: str, body: bytes, respect_no_ai: bool = True) -> Extract:
    """Records and links of a page. Raises Reject if the page cannot be read at all."""
    if len(body) > (profile.max_page_bytes if kind != SITEMAP else len(body)):
        detail = f"{redacted(url)}: {len(body)} bytes, more than max_page_bytes={profile.max_page_bytes}"
        raise Reject(RejectCode.TOO_MANY_BYTES, detail)
    found = _Found()
    if kind == SITEMAP:
        sitemap = read_sitemap(body, redacted(url), content_type)
        for page in sitemap.pages:
            link = resolve(page, url)
            found.link(profile, link, link and profile.kind_of(link), MAX_URLS)
        for another in sitemap.sitemaps:
            found.link(profile, resolve(another, url), SITEMAP, MAX_URLS)
        return Extract(links=tuple(found.links.values()), problems=(sitemap.problem,) if sitemap.problem else ())
    spec = profile.kinds.get(kind, _LINKS_ONLY)
    if spec.format == "json":
        _read_json(found, profile, spec, url, body)
    else:
        soup = _soup(body, content_type, url)
        directives = _robots_directives(soup)
        if respect_no_ai and directives & _NO_AI:
            return Extract(refused=True)
        _read_html(found, profile, spec, url, soup, follow="nofollow" not in directives and "none" not in directives)
    return Extract(tuple(found.records), tuple(found.links.values()), tuple(found.problems))


# HTML


def _soup(body: bytes, content_type: str, url: str) -> BeautifulSoup:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)
        try:
            return BeautifulSoup(decoded(body, content_type), "lxml")
        except (ParserRejectedMarkup, RecursionError, AssertionError) as e:
            raise Reject(RejectCode.CORRUPT, f"{redacted(url)}: no parser reads this page: {type(e).__name__}") from None


def _robots_directives(soup: BeautifulSoup) -> set[str]:
    tags = soup.find_all("meta", attrs={"name": re.compile(r"^(robots|w2w)$", re.IGNORECASE)})
    return {d.strip().lower() for tag in tags for d in str(tag.get("content", "")).split(",")}


def _read_html(found: _Found, profile: Profile, kind: Kind, url: str, soup: BeautifulSoup, follow: bool) -> None:
    base = soup.find("base", href=True)
    base = (resolve(str(base["href"]), url) if base else None) or url
    if kind.record != "none":
        parts = soup.select(kind.items) if kind.items else [soup]
        if not parts:
            found.problems.append(f"{redacted(url)}: items: selector {kind.items!r} matched nothing")
        is_page = _is_page(profile, url, base, soup)
        machine = structured(soup, kind.record, url, is_page) if kind.structured and not kind.items else []
        for part in parts:
            values = {name: _values(part, one, name) for name, one in kind.fields.items()}
            _add_record(found, profile, kind, url, base, values, machine, is_page)
    if follow and kind.links:
        for tag in soup.select(kind.links):
            link = resolve(str(tag.get("href") or tag.get("src") or ""), base)
            found.link(profile, link, link and profile.kind_of(link))


def _is_page(profile: Profile, url: str, base: str, soup: BeautifulSoup) -> Callable[[str], bool]:
    """Whether a URL is this page's: the requested one, or one that the page declares as its own."""
    own = [str(tag.get("href")) for tag in soup.select('link[rel~="canonical" i][href]')[:1]]
    own += [str(tag.get("content")) for tag in soup.select('meta[property="og:url" i][content]')[:1]]
    keys = {profile.key(u) for u in (url, *(resolve(text, base) for text in own)) if u}
    return lambda link: (target := resolve(link, base)) is not None and profile.key(target) in keys


def _values(part: Tag, one: Field, name: str) -> list[str]:
    """Every non-empty value for a field."""
    values = []
    for tag in part.select(one.css, limit=0 if name in _MANY else _MAX_VALUES):
        text = _attribute(tag, one.attribute) if one.attribute else tag.get_text(" ", strip=True)
        if value := _matched(text, one.pattern):
            values.append(value)
    return values


def _attribute(tag: Tag, name: str) -> str:
    value = tag.get(name, "")
    if name.endswith("srcset"):
        return largest(str(value))
    return " ".join(value) if isinstance(value, list) else str(value)


def _matched(text: str, pattern: str) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    if not pattern:
        return text
    match = re.search(pattern, text)
    return (match[1] if match.re.groups else match[0]) or "" if match else ""


# JSON


def _read_json(found: _Found, profile: Profile, kind: Kind, url: str, body: bytes) -> None:
    try:
        page = json.loads(body, parse_float=str, parse_int=str)
    except (ValueError, RecursionError) as e:
        raise Reject(RejectCode.MALFORMED_ROW, f"{redacted(url)}: not JSON: {e}"[:300]) from None
    if kind.record != "none":
        parts = [p for p in at_path(page, kind.items) if isinstance(p, dict)] if kind.items else [page]
        if not parts:
            found.problems.append(f"{redacted(url)}: items: path {kind.items!r} leads to nothing")
        for part in parts:
            values = {}
            for name, one in kind.fields.items():
                texts = [
                    _matched(str(v), one.pattern) for v in at_path(part, one.path) if not isinstance(v, dict | bool | None)
                ]
                values[name] = [t for t in texts if t][: None if name in _MANY else _MAX_VALUES]
            _add_record(found, profile, kind, url, url, values, [], lambda link: resolve(link, url) == url)
    for path in kind.links.split(",") if kind.links != _LINKS_ONLY.links else []:
        for value in at_path(page, path.strip()):
            link = resolve(value, url) if isinstance(value, str) else None
            found.link(profile, link, link and profile.kind_of(link))


def at_path(value: object, path: str) -> list:
    """Everything that dotted keys lead to; lists are traversed on the way and flattened at the end."""
    values = [value]
    for name in path.split("."):
        opened = [one for v in values for one in (v if isinstance(v, list) else [v])]
        values = [v[name] for v in opened if isinstance(v, dict) and name in v]
    return [one for v in values for one in (v if isinstance(v, list) else [v])]


# records


def _add_record(
    found: _Found,
    profile: Profile,
    kind: Kind,
    url: str,
    base: str,
    values: Fields,
    machine: list[Fields],
    is_page: Callable[[str], bool],
) -> None:
    """Builds a record from the first usable value of each field: from selectors, then from the ``machine`` sources in turn."""
    whole_page = not kind.items
    sources = [_priced(kind, values), *machine]
    fields = {}
    for name in dict.fromkeys(name for source in sources for name in source):
        usable = (_usable(name, source.get(name, []), base, is_page) for source in sources)
        fields[name] = next((texts for texts in usable if texts), [])
    fields.pop("guess", None)
    priced = next((source for source in sources if source.get("price")), {})
    named = [*values.get("currency", []), *(code for source in (priced, *sources) for code in source.get("currency", []))]
    if priced or named:
        codes = (*map(currency_code, named), profile.currency, *priced.get("guess", []))
        fields["currency"] = [code for code in codes if code][:1]
    for name in (*kind.fields, *_REQUIRED):
        required = name in _REQUIRED or kind.fields[name].required
        if required and not fields.get(name):
            where = kind.fields[name].where if name in kind.fields else ""
            told = [text for source in sources for text in source.get(name, [])]
            why = f"{where} found nothing" if where else "it has no selector"
            also = "; no JSON-LD, microdata or OpenGraph has it" if kind.structured and whole_page else ""
            if told or values.get(name):
                why, also = f"what {where or 'the page'} says is none: {(told or values[name])[0][:80]!r}", ""
            found.problems.append(f"{redacted(url)}: required field {name!r}: {why}{also}")
            return
    if values.get("price") and not sources[0].get("price"):
        said = values["price"][0][:80]
        found.problems.append(f"{redacted(url)}: field 'price': {kind.fields['price'].where} has no number: {said!r}")
    fields["image"] = fields["image"][:1]
    if whole_page or not fields.get("url"):
        fields["url"] = [url]
    identity = _ID[kind.record]
    if not fields.get(identity):
        page, picture = profile.key(fields["url"][0]), profile.key(fields["image"][0])
        fields[identity] = [f"url-{ids.digest(page if whole_page else [[page], [picture]])}"]
    for name in (identity, "product_ids"):
        if fields.get(name):
            fields[name] = [profile.id_prefix + text for text in fields[name]]
    found.link(profile, fields["image"][0], IMAGE)
    if kind.record == "post":
        for link in fields.get("product_urls", []):
            found.link(profile, link, profile.kind_of(link))
        fields["product_urls"] = [profile.key(link) for link in fields.get("product_urls", [])]
    found.records.append(Record(kind.record, _ordered(fields)))


def _priced(kind: Kind, values: Fields) -> Fields:
    """What selectors found, with the first valid price as a number, and the currency that it names."""
    if not values.get("price"):
        return values
    is_machine = kind.format == "json" or _FOR_MACHINES.match(kind.fields["price"].attribute)
    prices = map(machine_price if is_machine else written_price, values["price"])
    price = next((p for p in prices if p.number), None)
    if price is None:
        return values | {"price": []}
    currency = values.get("currency") or ([price.currency] if price.currency else [])
    return values | {"price": [price.number], "currency": currency, "guess": [price.guess]}


def _usable(name: str, texts: list[str], base: str, is_page: Callable[[str], bool]) -> list[str]:
    """The values that are valid for the field."""
    texts = [whole for text in texts if (whole := _whole(text).strip())]
    if name not in _URLS:
        return texts if name in _MANY else texts[:1]
    urls = [link for text in texts if (link := resolve(html.unescape(text), base))]
    return [link for link in urls if not is_page(link)] if name == "image" else urls


def _whole(text: str) -> str:
    """Without half surrogate pairs, which JSON allows and no table can store."""
    return text.encode("utf-8", "replace").decode()


def _ordered(fields: Fields) -> Fields:
    """Without empty fields and repeats; multi-valued fields are sorted, since their order on a page means nothing."""
    kept = {name: list(dict.fromkeys(values)) for name, values in sorted(fields.items()) if values}
    return {name: sorted(values) if name in _MANY else values for name, values in kept.items()}


def kinds_of(links: Sequence[Link]) -> dict[str, list[str]]:
    """URLs by kind, for display."""
    by_kind: dict[str, list[str]] = {}
    for link in links:
        by_kind.setdefault(link.kind or PAGE, []).append(link.url)
    return by_kind
