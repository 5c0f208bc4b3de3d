"""sitemap.xml (sitemaps.org 0.9), indexes and compressed ones, read without ever expanding an entity."""

import zlib
from xml.parsers import expat

from w2w.errors import Reject, RejectCode

MAX_BYTES = 50 * 1024 * 1024  # what the protocol allows, uncompressed
_MAX_URLS = 50_000
_GZIP = b"\x1f\x8b"


def read_sitemap(body: bytes, url: str) -> tuple[list[str], list[str]]:
    """(page URLs, URLs of further sitemaps). A text file with one URL a line is a sitemap too. Raises Reject."""
    if body.startswith(_GZIP):
        body = _inflated(body, url)
    if b"<" not in body[:4096]:
        lines = body.decode("utf-8-sig", "replace").split()
        return [line for line in lines if line.startswith(("http://", "https://"))][:_MAX_URLS], []
    pages, sitemaps = [], []
    texts: list[str] = []
    path: list[str] = []

    def start(name: str, _: dict) -> None:
        path.append(name)
        texts.clear()

    def end(name: str) -> None:
        space, _, local = name.rpartition(" ")
        if local == "loc" and "sitemap-" not in space and len(pages) + len(sitemaps) < _MAX_URLS:
            parent = path[-2].rpartition(" ")[2] if len(path) > 1 else ""
            found = {"url": pages, "sitemap": sitemaps}.get(parent)
            if found is not None:
                found.append("".join(texts).strip())
        path.pop()
        texts.clear()

    def refuse(*_: object) -> None:
        raise Reject(RejectCode.MALFORMED_ROW, f"{url}: XML with a document type or entities is not read")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = texts.append
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(body, True)
    except expat.ExpatError as e:
        if not pages and not sitemaps:  # of a file that is cut off, what was read counts
            raise Reject(RejectCode.MALFORMED_ROW, f"{url}: not XML: {e}") from None
    return pages, sitemaps


def _inflated(body: bytes, url: str) -> bytes:
    inflate = zlib.decompressobj(wbits=31)
    try:
        text = inflate.decompress(body, MAX_BYTES + 1)
    except zlib.error:
        raise Reject(RejectCode.CORRUPT, f"{url}: not gzip") from None
    if len(text) > MAX_BYTES:
        raise Reject(RejectCode.TOO_MANY_BYTES, f"{url}: more than {MAX_BYTES} bytes when inflated")
    return text
