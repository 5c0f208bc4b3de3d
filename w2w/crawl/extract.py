"""From a page's bytes to records and links, as its site's profile says."""

import html
import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

from bs4 import BeautifulSoup, Tag, XMLParsedAsHTMLWarning
from bs4.dammit import EncodingDetector
from bs4.exceptions import ParserRejectedMarkup

from w2w import ids
from w2w.crawl.profile import IMAGE, PAGE, SITEMAP, Field, Kind, Profile
from w2w.crawl.sitemap import read_sitemap
from w2w.crawl.structured import Fields, structured
from w2w.crawl.urls import canonical, redacted
from w2w.errors import Reject, RejectCode

_MANY = ("product_ids", "product_urls")
_URLS = ("url", "image", "product_urls")
_ID = {"product": "product_id", "post": "post_id"}
_REQUIRED = ("image",)  # without a picture neither a product nor a post is of any use here
_LINKS_ONLY = Kind()
_SYMBOLS = {
    "€": "EUR",
    "£": "GBP",
    "¥": "JPY",
    "₩": "KRW",
    "₹": "INR",
    "₽": "RUB",
    "US$": "USD",
    "$": "USD",
    "원": "KRW",
    "円": "JPY",
}
_MAX_LINKS = 20_000  # of one page
_NO_AI = {"noai", "noimageai"}
_ACCEPT = {
    "html": ("text/html", "application/xhtml+xml", ""),
    "json": ("application/json", "text/json", "application/feed+json", "application/vnd.api+json", "text/plain", ""),
}


@dataclass(frozen=True)
class Link:
    """A canonical URL that a page leads to, and by which kind of page it is to be read."""

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
    """What a page gives. ``problems``: why parts of it are no record, each naming the selector and the URL."""

    records: tuple[Record, ...] = ()
    links: tuple[Link, ...] = ()
    problems: tuple[str, ...] = ()
    refused: bool = False
    """The page itself asks not to be used for models."""


@dataclass
class _Found:
    records: list[Record] = field(default_factory=list)
    links: dict[str, Link] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def link(self, profile: Profile, url: str | None, kind: str | None) -> None:
        if url and kind and len(self.links) < _MAX_LINKS and profile.follows(url, kind):
            self.links.setdefault(url, Link(url, kind))


def accepted_types(profile: Profile, kind: str) -> tuple[str, ...]:
    """Beginnings of the content types that a page of this kind may have; "": none given."""
    if kind == IMAGE:
        return ("image/", "application/octet-stream", "binary/octet-stream", "")
    if kind == SITEMAP:
        return ()
    return _ACCEPT[profile.kinds.get(kind, _LINKS_ONLY).format]


def extract(profile: Profile, kind: str, url: str, content_type: str, body: bytes, respect_no_ai: bool = True) -> Extract:
    """Records and links of a page. Raises Reject where the page cannot be read at all."""
    if len(body) > (profile.max_page_bytes if kind != SITEMAP else len(body)):
        detail = f"{redacted(url)}: {len(body)} bytes, more than max_page_bytes={profile.max_page_bytes}"
        raise Reject(RejectCode.TOO_MANY_BYTES, detail)
    found = _Found()
    if kind == SITEMAP:
        pages, sitemaps = read_sitemap(body, redacted(url))
        for page in pages:
            link = canonical(page, url)
            found.link(profile, link, link and profile.kind_of(link))
        for sitemap in sitemaps:
            found.link(profile, canonical(sitemap, url), SITEMAP)
        return Extract(links=tuple(found.links.values()))
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


def price(text: str) -> tuple[str, str | None]:
    """Number (digits and a point) and currency of a price as people write it: ``1.299,00 €`` -> ("1299.00", "EUR").

    The last of two separators is the decimal one; a single one is, unless exactly three digits follow it. What holds no
    number comes back as it is.
    """
    code = re.search(r"\b([A-Z]{3})\b", text)
    currency = code[1] if code else next((c for symbol, c in _SYMBOLS.items() if symbol in text), None)
    number = re.search(r"\d[\d.,'\u00a0\u202f ]*", text)
    if not number:
        return text, currency
    digits = re.sub(r"[\s']", "", number[0]).rstrip(".,")
    separators = re.findall(r"[.,]", digits)
    last = max(digits.rfind("."), digits.rfind(","))
    is_decimal = bool(separators) and (len(set(separators)) == 2 or (len(separators) == 1 and len(digits) - last - 1 != 3))
    if not is_decimal:
        return re.sub(r"[.,]", "", digits), currency
    return re.sub(r"[.,]", "", digits[:last]) + "." + digits[last + 1 :], currency


# HTML


def decoded(body: bytes, content_type: str) -> str:
    """The page's text, in the first encoding that its bytes bear out: a byte order mark's, the header's, the page's own word,
    UTF-8; else windows-1252, as the HTML standard has it (section 13.2.3.2).

    A stray byte among many good characters is replaced; where nothing but ASCII decodes, the encoding is not believed.
    """
    plain, mark = EncodingDetector.strip_byte_order_mark(body)
    header = re.search(r"charset\s*=\s*[\"']?([\w.:-]+)", content_type, re.IGNORECASE)
    declared = EncodingDetector.find_declared_encoding(plain, is_html=True, search_entire_document=False)
    wide = b"\x00" in plain[:1000]  # only then is it UTF-16 or 32, whoever says so
    names = [mark, header and header[1], None if wide else declared, "utf-8"]
    for name in filter(None, names):
        if name.lower().startswith(("utf-16", "utf-32")) != wide:
            continue
        try:
            text = plain.decode(name, "replace")
        except (LookupError, ValueError):  # no codec of that name, or none of text
            continue
        bad = text.count("\ufffd")
        if not bad or sum(not c.isascii() for c in text) >= 10 * bad:
            return text.replace("\x00", "")
    return plain.decode("cp1252", "replace").replace("\x00", "")


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
    base = (canonical(str(base["href"]), url) if base else None) or url
    if kind.record != "none":
        parts = soup.select(kind.items) if kind.items else [soup]
        if not parts:
            found.problems.append(f"{redacted(url)}: items: selector {kind.items!r} matched nothing")
        machine = structured(soup, kind.record) if kind.structured and not kind.items else {}
        for part in parts:
            values = {name: _values(part, one, name) for name, one in kind.fields.items()}
            _add_record(found, profile, kind, url, base, values, machine, whole_page=not kind.items)
    if follow and kind.links:
        for tag in soup.select(kind.links):
            link = canonical(str(tag.get("href") or tag.get("src") or ""), base)
            found.link(profile, link, link and profile.kind_of(link))


def _values(part: Tag, one: Field, name: str) -> list[str]:
    """Every value for a field of many, else the first that says something."""
    values = []
    for tag in part.select(one.css):
        text = _attribute(tag, one.attribute) if one.attribute else tag.get_text(" ", strip=True)
        if value := _matched(text, one.pattern):
            values.append(value)
            if name not in _MANY:
                break
    return values


def _attribute(tag: Tag, name: str) -> str:
    value = tag.get(name, "")
    if name == "srcset":  # the last one is the largest, as a rule
        return str(value).split(",")[-1].strip().partition(" ")[0]
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
                values[name] = [t for t in texts if t][: None if name in _MANY else 1]
            _add_record(found, profile, kind, url, url, values, {}, whole_page=not kind.items)
    for path in kind.links.split(",") if kind.links != _LINKS_ONLY.links else []:
        for value in at_path(page, path.strip()):
            link = canonical(str(value), url) if isinstance(value, str) else None
            found.link(profile, link, link and profile.kind_of(link))


def at_path(value: object, path: str) -> list:
    """Everything that dotted keys lead to; lists are gone through on the way, and opened at the end."""
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
    machine: Fields,
    whole_page: bool,
) -> None:
    from_selectors = {name for name, texts in values.items() if texts}
    fields = {**machine, **{name: values[name] for name in from_selectors}}
    fields = {name: [_whole(text) for text in texts] for name, texts in fields.items()}
    for name in (*kind.fields, *_REQUIRED):
        required = name in _REQUIRED or kind.fields[name].required
        if required and not fields.get(name):
            where = f"{kind.fields[name].where} found nothing" if name in kind.fields else "it has no selector"
            also = "; no JSON-LD, microdata or OpenGraph has it" if kind.structured and whole_page else ""
            found.problems.append(f"{redacted(url)}: required field {name!r}: {where}{also}")
            return
    for name in _URLS:
        fields[name] = [u for text in fields.get(name, []) if (u := canonical(html.unescape(text), base))]
    fields["image"] = fields["image"][:1]
    if not fields["image"]:
        found.problems.append(f"{redacted(url)}: required field 'image': what was found is no URL")
        return
    if whole_page or not fields["url"]:
        fields["url"] = [url]
    if fields.get("price"):
        number, currency = price(fields["price"][0])
        fields["price"] = [number]
        if currency and not fields.get("currency"):
            fields["currency"] = [currency]
    identity = _ID[kind.record]
    if not fields.get(identity):
        fields[identity] = [f"url-{ids.digest(fields['url'][0] if whole_page else [fields['url'], fields['image']])}"]
    for name in (identity, "product_ids"):
        if fields.get(name):
            fields[name] = [profile.id_prefix + text for text in fields[name]]
    found.link(profile, fields["image"][0], IMAGE)
    if kind.record == "post":
        for link in fields["product_urls"]:
            found.link(profile, link, profile.kind_of(link))
    found.records.append(Record(kind.record, _ordered(fields)))


def _whole(text: str) -> str:
    """Without half surrogate pairs, which JSON can say and no table can hold."""
    return text.encode("utf-8", "replace").decode()


def _ordered(fields: Fields) -> Fields:
    """Without empty fields and repeats; lists of many sorted, for their order on a page means nothing."""
    kept = {name: list(dict.fromkeys(values)) for name, values in sorted(fields.items()) if values}
    return {name: sorted(values) if name in _MANY else values for name, values in kept.items()}


def kinds_of(links: Sequence[Link]) -> dict[str, list[str]]:
    """URLs by kind, for a person to look at."""
    by_kind: dict[str, list[str]] = {}
    for link in links:
        by_kind.setdefault(link.kind or PAGE, []).append(link.url)
    return by_kind
