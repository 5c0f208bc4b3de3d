"""Whatever a page, a link, a robots.txt or a sitemap says: a value or a Reject, never anything else."""

import json
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from w2w.crawl.extract import extract
from w2w.crawl.profile import Field, Kind, Profile, Rule
from w2w.crawl.sitemap import read_sitemap
from w2w.errors import Reject
from w2w.ingest.prices import CURRENCIES, machine_price, written_price
from w2w.web.encodings import decoded
from w2w.web.robots import read_robots
from w2w.web.urls import MAX_CHARS, authority, canonical, resolve

URL = "http://h/p/1"
KINDS = {
    "product": Kind(
        "product", fields={"title": Field(css="h1"), "price": Field(css="b"), "image": Field(css="img", attribute="src")}
    ),
    "post": Kind("post", items="li", fields={"product_urls": Field(css="a", attribute="href")}),
    "feed": Kind(
        "product", format="json", items="a.b", fields={"image": Field(path="c.d"), "price": Field(path="c")}, links="a, e.f"
    ),
}
SITE = Profile("x", start=["http://h/"], rules=[Rule(".", "product")], kinds=KINDS)
PIECES = [
    "http://", "HTTPS:", "//", "h", "H.", "example.com", "www.", ":80", ":", "@", "u:p@", "/", "..", ".", "%2f", "%zz",
    "%C3%BC", "ü", "?", "a=1", "&", "b", "=", "utm_source=x", "#", ";jsessionid=1", " ", "\n", "\x00", "[", "]", "::1", "\\",
    "+", "\ud800",
]  # fmt: skip
TAGS = [
    "<h1>", "</h1>", "<b>1.299,00 €", "<li>", "<a href='/p/2'>", '<img src="/a.jpg">', "<img src='//[x'>",
    "<base href='http://[::1'>", "<script type='application/ld+json'>", '{"@type":"Product","image":', '"/a.jpg",',
    '"\\ud800"}',
    '[{"@type":["Product"],"offers":[[]],"brand":{"name":{}}}]', '"name":', "</script>",
    "<meta property='og:image' content='/b.jpg'>", "<meta name=robots content='nofollow'>", "<meta charset=utf-16>",
    "<div itemscope itemtype='x/Product'>", "<i itemprop='image offers' itemscope>", "<!--", "<![CDATA[", "&#0;", "&#xD800;",
    "\x00", "é", "<template>",
]  # fmt: skip

links = st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=60)


@settings(max_examples=400, deadline=None)
@given(links, st.sampled_from(["", "http://h/a/b?c=d", "https://[2001:db8::1]:8443/x"]))
def test_a_canonical_url_is_canonical(link, base):
    url, published = canonical(link, base), resolve(link, base)
    if published is not None:
        assert resolve(published) == published
        assert canonical(published) == url
    if url is not None:
        assert resolve(url) == url
        assert url.startswith(("http://", "https://"))
        assert url.isascii()
        assert url.isprintable()
        assert " " not in url
        assert len(url) <= MAX_CHARS
        assert "@" not in authority(url)
        assert canonical(url) == url
        assert canonical(url, "http://other/") == url


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(TAGS), max_size=25).map("".join),
    st.sampled_from(["utf-8", "utf-16", "shift_jis", "latin-1"]),
    st.sampled_from(["product", "post", "page"]),
)
def test_pages(text, encoding, kind):
    try:
        found = extract(SITE, kind, URL, f"text/html; charset={encoding}", text.encode(encoding, "replace"))
    except Reject:
        return
    for record in found.records:
        record.to_json().encode()
        assert record.fields["image"]
    assert all(resolve(link.url) == link.url for link in found.links)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(["product", "post", "feed", "sitemap", "page"]), st.text(max_size=20))
def test_bytes(body, kind, content_type):
    decoded(body, content_type).encode("utf-8", "surrogatepass")
    try:
        extract(SITE, kind, URL, content_type, body)
    except Reject:
        pass
    try:
        read_sitemap(b"<urlset><url><loc>" + body, "u")
    except Reject:
        pass
    robots = read_robots(b"User-agent: *\n" + body)
    robots.check(URL, "w2w")
    assert robots.crawl_delay_s("w2w") >= 0


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["/a.jpg", "1.5", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcdef"), inner, max_size=4),
    max_leaves=15,
)


@settings(max_examples=150, deadline=None)
@given(values)
def test_json(value):
    extract(SITE, "feed", URL, "application/json", json.dumps(value).encode())
    data = json.dumps({"@type": "Product", "name": "\ud800", "image": value, "offers": value, "brand": value})
    body = f'<script type="application/ld+json">{data}</script>'
    found = extract(SITE, "product", URL, "", body.encode())
    for record in found.records:
        record.to_json().encode()


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="0123456789., '\u00a0€$EURxe+-%\u2019\u0663", max_size=20))
def test_prices(text):
    for price in (written_price(text), machine_price(text)):
        assert not price.number or re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,40})?", price.number)
        assert price.currency == "" or price.currency in CURRENCIES
