"""sitemap.xml (sitemaps.org 0.9), indexes and compressed ones, parsed without ever expanding an entity."""

import re
import zlib
from dataclasses import dataclass, field
from xml.parsers import expat

from w2w.errors import Reject, RejectCode
from w2w.web.encodings import decoded

MAX_BYTES = 50 * 1024 * 1024  # the protocol's limit, uncompressed
MAX_URLS = 50_000
_GZIP = b"\x1f\x8b"
_FEEDS = {"rss": "an RSS feed", "RDF": "an RSS feed", "feed": "an Atom feed"}
_ROOT = re.compile(r"<((?:\w+:)?(?:urlset|sitemapindex))(?=[\s/>])")
_ENTRY = re.compile(rb"<(?:\w+:)?(?:url|sitemap)(?=[\s/>])")
_MOST_FAULTS = 100  # faults in one file that are skipped
_AMPERSAND = re.compile(  # every ampersand that starts no reference, and CDATA, in which none does
    r"<!\[CDATA\[.*?(?:\]\]>|\Z)|&(?!(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9a-fA-F]{1,6});)", re.DOTALL
)
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


@dataclass
class Sitemap:
    """``pages``: URLs of pages, ``sitemaps``: of further sitemaps. ``problem``: why the list may be incomplete; "": it is
    not."""

    pages: list[str] = field(default_factory=list)
    sitemaps: list[str] = field(default_factory=list)
    problem: str = ""


def read_sitemap(body: bytes, url: str, content_type: str = "") -> Sitemap:
    """Reads a sitemap; a text file with one URL per line is one too. Raises Reject if it is not a sitemap.

    Many are written by hand: bare ampersands are tolerated, and malformed XML costs only the entries it touches.
    """
    problem = ""
    if body.startswith(_GZIP):
        body, problem = _inflated(body, url)
    text = decoded(body, content_type)
    found = _from_xml(text, url) if "<" in text[:4096] else _from_lines(text, url)
    if len(found.pages) + len(found.sitemaps) > MAX_URLS:
        problem = problem or f"more than {MAX_URLS} URLs: the rest is ignored"
        found.pages, found.sitemaps = found.pages[:MAX_URLS], found.sitemaps[:MAX_URLS]
    found.problem = f"{url}: {problem or found.problem}" if problem or found.problem else ""
    return found


def _from_lines(text: str, url: str) -> Sitemap:
    lines = text.split()
    pages = [line for line in lines if re.match("https?://", line, re.IGNORECASE)]
    if not pages:
        raise Reject(RejectCode.MALFORMED_ROW, f"{url}: not a sitemap: neither XML nor lines of URLs")
    other = len(lines) - len(pages)
    return Sitemap(pages, problem=f"{other} words in it are not http or https URLs" if other else "")


def _from_xml(text: str, url: str) -> Sitemap:
    root = _ROOT.search(text)
    if not root:
        first = re.search(r"<(?![?!/])(?:\w+:)?(\w{1,40})", text)
        what = _FEEDS.get(first[1], f"<{first[1]}>") if first else "no element"
        raise Reject(RejectCode.MALFORMED_ROW, f"{url}: {what}, not a sitemap")
    if re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise Reject(RejectCode.MALFORMED_ROW, f"{url}: XML with a document type or entities is not accepted")
    xml = _NOT_XML.sub("", _AMPERSAND.sub(lambda m: "&amp;" if m[0] == "&" else m[0], text[root.start() :])).encode()
    found, begin = Sitemap(), b""
    for _ in range(_MOST_FAULTS):
        stopped = _parse(begin + xml, found)
        if stopped is None or len(found.pages) + len(found.sitemaps) > MAX_URLS:
            break
        message, at = stopped
        found.problem = found.problem or f"not XML: {message}"
        at -= len(begin)
        following = _ENTRY.search(xml, at)
        if not following:
            break
        begin, xml = f"<{root[1]}>".encode(), xml[following.start() :]
    return found


def _parse(xml: bytes, found: Sitemap) -> tuple[str, int] | None:
    """Adds the complete entries to ``found``; returns the error and its byte offset, or None."""
    texts: list[str] = []
    path: list[str] = []
    entry: dict[str, str] = {}

    def start(name: str, _: dict) -> None:
        path.append(name.rpartition(":")[2])
        texts.clear()

    def end(_: str) -> None:
        name = path.pop()
        if name == "loc" and path[1:] in (["url"], ["sitemap"]):
            entry.setdefault("loc", "".join(texts).strip())
        elif name in ("url", "sitemap") and len(path) == 1 and (link := entry.pop("loc", "")):
            (found.pages if name == "url" else found.sitemaps).append(link)
        texts.clear()

    parser = expat.ParserCreate(encoding="utf-8")
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = texts.append
    try:
        parser.Parse(xml, True)
    except expat.ExpatError as e:
        return str(e), parser.ErrorByteIndex
    return None


def _inflated(body: bytes, url: str) -> tuple[bytes, str]:
    """The decompressed text of all members of the file, and why it may be incomplete."""
    text = b""
    while body.startswith(_GZIP):
        inflate = zlib.decompressobj(wbits=31)
        try:
            text += inflate.decompress(body, MAX_BYTES + 1 - len(text))
        except zlib.error:
            if text:
                return text, "the gzip data is damaged"
            raise Reject(RejectCode.CORRUPT, f"{url}: not gzip") from None
        if len(text) > MAX_BYTES:
            raise Reject(RejectCode.TOO_MANY_BYTES, f"{url}: more than {MAX_BYTES} bytes when inflated")
        if not inflate.eof:
            return text, "the gzip data is truncated"
        body = inflate.unused_data
    return text, ""
