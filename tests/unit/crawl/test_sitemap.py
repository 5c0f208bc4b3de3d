"""Sitemaps: what is listed, what is wrong with those written by hand, and what is refused."""

import gzip

import pytest

from w2w.crawl.extract import Link, extract
from w2w.crawl.profile import Kind, Profile, Rule
from w2w.crawl.sitemap import MAX_URLS, read_sitemap
from w2w.errors import Reject, RejectCode

SPACE = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:image="http://www.google.com/schemas/sitemap-image/1.1"'
PICTURE = "<image:image><image:loc>http://h/i.jpg</image:loc></image:image>"
MAP = f"<urlset {SPACE}><url>{PICTURE}<loc> http://h/p/1?a=1&amp;b=2 </loc></url>"
ONE = "http://h/p/1?a=1&b=2"


def url(*addresses: str) -> str:
    return "".join(f"<url><loc>{address}</loc></url>" for address in addresses)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_sitemaps_indexes_and_lists(pack):
    found = read_sitemap(pack(f"{MAP}</urlset>".encode()), "u")
    assert (found.pages, found.sitemaps, found.problem) == ([ONE], [], "")
    index = f"<sitemapindex {SPACE}><sitemap><loc>http://h/s1.xml.gz</loc></sitemap></sitemapindex>"
    assert read_sitemap(pack(index.encode()), "u").sitemaps == ["http://h/s1.xml.gz"]
    found = read_sitemap(pack(b"http://h/a\r\nHTTP://h/b\n"), "u")
    assert (found.pages, found.problem) == (["http://h/a", "HTTP://h/b"], "")


@pytest.mark.parametrize("encoding", ["euc-kr", "shift_jis", "gb2312", "big5", "utf-8", "utf-16", "iso-8859-1", "no-such-one"])
def test_any_encoding_of_the_web(encoding):
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n<urlset {SPACE}>{url("http://h/p1", "http://h/p2")}</urlset>'
    found = read_sitemap(text.encode("ascii" if encoding == "no-such-one" else encoding), "u")
    assert (found.pages, found.problem) == (["http://h/p1", "http://h/p2"], "")


def test_the_header_and_the_file_may_name_the_encoding():
    text = f"<urlset {SPACE}>{url('http://h/서울')}</urlset>"
    assert read_sitemap(text.encode("euc-kr"), "u", "text/xml; charset=EUC-KR").pages == ["http://h/서울"]
    assert read_sitemap(f'<?xml version="1.0" encoding="euc-kr"?>{text}'.encode("euc-kr"), "u").pages == ["http://h/서울"]


@pytest.mark.parametrize(
    "between",
    [
        "http://h/x?a=1&b=2",  # the ampersand of a query, as it stands in an address bar
        "<![CDATA[http://h/x?a=1&b=2]]>",
        "http://h/x?a=1&#38;b=2",
        "http://h/x?a=1\x08&amp;b=2",  # no XML may hold it
        "http://h/x<!-- here -->?a=1&amp;b=2",
    ],
)
def test_what_one_means_is_read(between):
    found = read_sitemap(f"\ufeff\n<urlset {SPACE}>{url('http://h/1', between, 'http://h/2')}</urlset>".encode(), "u")
    assert (found.pages, found.problem) == (["http://h/1", "http://h/x?a=1&b=2", "http://h/2"], "")


@pytest.mark.parametrize(
    ("middle", "read"),
    [
        (url("http://h/b<c"), ["http://h/1", "http://h/2"]),
        ("<url><loc>http://h/x</url>", ["http://h/1", "http://h/2"]),
        ("</urlset>", ["http://h/1", "http://h/2"]),
        (url("http://h/&#0;"), ["http://h/1", "http://h/2"]),
    ],
)
def test_a_place_that_is_no_xml_costs_what_stands_there_and_is_told(middle, read):
    found = read_sitemap(f"<urlset {SPACE}>{url('http://h/1')}{middle}{url('http://h/2')}</urlset>".encode(), "u")
    assert found.pages == read
    assert found.problem.startswith("u: not XML: ")


def test_a_sitemap_that_is_cut_off_gives_whole_entries_and_is_told():
    found = read_sitemap(f"{MAP}<url><loc>http://h/p/2".encode(), "u")
    assert found.pages == [ONE]
    assert "not XML" in found.problem
    packed = gzip.compress(f"<urlset {SPACE}>{url(*(f'http://h/{n * 7919 % 10007}' for n in range(3000)))}</urlset>".encode())
    found = read_sitemap(packed[:3000], "u")
    assert len(found.pages) > 100
    assert found.problem == "u: the gzip data is truncated"


def test_all_members_of_a_gzip_file_are_read():
    halves = [f"<urlset {SPACE}>{url('http://h/1')}", f"{url('http://h/2')}</urlset>"]
    packed = b"".join(gzip.compress(half.encode()) for half in halves)
    assert read_sitemap(packed, "u").pages == ["http://h/1", "http://h/2"]


def test_more_than_the_protocol_allows_is_told():
    found = read_sitemap(f"<urlset>{url(*(f'http://h/{n}' for n in range(MAX_URLS + 5)))}</urlset>".encode(), "u")
    assert len(found.pages) == MAX_URLS
    assert found.problem == f"u: more than {MAX_URLS} URLs: the rest is ignored"


@pytest.mark.parametrize(
    ("body", "code", "why"),
    [
        (b'<!DOCTYPE x [<!ENTITY a "aaaa">]><urlset><url><loc>&a;</loc></url></urlset>', RejectCode.MALFORMED_ROW, "entities"),
        (b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><urlset/>', RejectCode.MALFORMED_ROW, "document type"),
        (b"<!doctype html><html><body>404", RejectCode.MALFORMED_ROW, "<html>, not a sitemap"),
        (b"<rss version='2.0'><channel><item><link>http://h/a</link>", RejectCode.MALFORMED_ROW, "an RSS feed, not a sitemap"),
        (b"<?xml version='1.0'?><feed xmlns='http://www.w3.org/2005/Atom'/>", RejectCode.MALFORMED_ROW, "an Atom feed"),
        (b'{"urls": []}', RejectCode.MALFORMED_ROW, "neither XML nor lines of URLs"),
        (b"", RejectCode.MALFORMED_ROW, "neither XML nor lines of URLs"),
        (b"\x1f\x8bnot gzip", RejectCode.CORRUPT, "not gzip"),
        (gzip.compress(bytes(60 * 2**20)), RejectCode.TOO_MANY_BYTES, "when inflated"),
    ],
    ids=["entity", "external", "html", "rss", "atom", "json", "empty", "no gzip", "bomb"],
)
def test_what_is_no_sitemap_is_refused(body, code, why):
    with pytest.raises(Reject) as caught:
        read_sitemap(body, "u")
    assert caught.value.code == code
    assert why in caught.value.detail


def test_links_are_chosen_by_rules_and_a_problem_is_kept():
    site = Profile("x", start=["http://h/"], rules=[Rule("/p/", "product")], kinds={"product": Kind()})
    found = extract(site, "sitemap", "http://h/sitemap.xml", "", f"{MAP}<url><loc>http://h/x</loc></url>".encode())
    assert found.links == (Link(ONE, "product"),)
    (problem,) = found.problems
    assert problem.startswith("http://h/sitemap.xml: not XML")


def test_all_links_of_a_large_sitemap_are_followed():
    site = Profile("x", start=["http://h/"], rules=[Rule("/p/")])
    body = f"<urlset>{url(*(f'http://h/p/{n}' for n in range(30_000)))}</urlset>".encode()
    assert len(extract(site, "sitemap", "http://h/sitemap.xml", "", body).links) == 30_000
