"""From bytes to records and links: selectors, machine-readable data, encodings, broken pages, feeds, sitemaps."""

import json

import pytest

from w2w.crawl.extract import Link, at_path, extract
from w2w.crawl.profile import Field, Kind, Profile, Rule
from w2w.errors import Reject, RejectCode

URL = "http://h/p/1"
RULES = [Rule("/p/", "product"), Rule("/style/", "post"), Rule("/list", "page"), Rule("/feed", "feed")]


def profile(**kinds: Kind) -> Profile:
    return Profile("x", start=["http://h/"], rules=[r for r in RULES if r.kind in ("page", *kinds)], kinds=kinds)


def of(kind: Kind) -> Profile:
    """A profile with this one kind, k."""
    return Profile("x", start=["http://h/"], kinds={"k": kind})


def one(kind: Kind, body: str | bytes, content_type: str = "") -> dict:
    """The fields of the page's only record."""
    found = extract(of(kind), "k", URL, content_type, body if isinstance(body, bytes) else body.encode())
    assert found.problems == ()
    (record,) = found.records
    return record.fields


PRODUCT = Kind(record="product")
LD = {
    "@context": "https://schema.org",
    "@graph": [
        {"@type": "WebPage"},
        {
            "@type": ["Product"],
            "name": "Coat &amp; belt",
            "sku": "S1",
            "brand": {"@type": "Brand", "name": "Loom"},
            "image": [{"@type": "ImageObject", "url": "/i/1.jpg"}, "/i/2.jpg"],
            "category": "Coats",
            "offers": [{"@type": "Offer", "price": 1299.5, "priceCurrency": "EUR"}],
        },
    ],
}


def test_json_ld():
    body = f'<script type="application/ld+json">\n<!-- {json.dumps(LD)} -->\n</script>'
    assert one(PRODUCT, body) == {
        "product_id": ["S1"],
        "title": ["Coat &amp; belt"],
        "brand": ["Loom"],
        "image": ["http://h/i/1.jpg"],
        "category": ["Coats"],
        "price": ["1299.5"],
        "currency": ["EUR"],
        "url": [URL],
    }


def test_selectors_go_before_json_ld_before_microdata_before_open_graph():
    body = """<meta property="og:title" content="og"><meta property="og:image" content="/og.jpg">
    <meta property="product:brand" content="og brand">
    <div itemscope itemtype="http://schema.org/Product"><b itemprop="name">micro</b><img itemprop="image" src="/m.jpg">
    <span itemprop="brand" itemscope itemtype="http://schema.org/Brand"><i itemprop="name">micro brand</i></span>
    <div itemprop="offers" itemscope><meta itemprop="price" content="5.00"></div></div>
    <script type="application/ld+json">{"@type": "Product", "name": "ld"}</script><h1> from  css </h1>"""
    assert one(PRODUCT, body)["title"] == ["ld"]
    assert one(Kind(record="product", fields={"title": Field(css="h1")}), body)["title"] == ["from css"]
    fields = one(PRODUCT, body)
    assert (fields["image"], fields["brand"], fields["price"]) == (["http://h/m.jpg"], ["micro brand"], ["5.00"])
    only_og = body.partition("<div")[0]
    assert one(PRODUCT, only_og)["brand"] == ["og brand"]


@pytest.mark.parametrize("bad", ['{"@type": "Product", "name": "half', "[" * 50_000, "null", '{"@type": 5, "x": NaN}', ""])
def test_broken_json_ld_is_passed_over(bad):
    body = f'<script type="application/ld+json">{bad}</script><meta property="og:image" content="/a.jpg">'
    assert one(PRODUCT, body)["image"] == ["http://h/a.jpg"]


def test_a_missing_field_names_selector_and_url():
    fields = {"title": Field(css="h1.title", required=True), "image": Field(css="img", attribute="src")}
    kind = Kind(record="product", fields=fields)
    found = extract(of(kind), "k", URL, "", b"<img src=/a.jpg>")
    assert found.records == ()
    (problem,) = found.problems
    assert "http://h/p/1: required field 'title': selector 'h1.title' found nothing" in problem
    assert "JSON-LD" in problem
    found = extract(of(kind), "k", URL, "", b"<h1 class=title>t</h1>")
    assert "required field 'image': selector 'img', attribute 'src' found nothing" in found.problems[0]


def test_items_patterns_and_attributes():
    body = "".join(
        f'<li class=card data-id={i}><a href="/p/{i}"><img srcset="/s/{i}.jpg 1x, /l/{i}.jpg 2x"></a><b>Colour: red</b>'
        f"<i>{'1.299,00 €' if i else ''}</i></li>"
        for i in range(3)
    )
    fields = {
        "product_id": Field(css="a", attribute="href", pattern=r"\d+$"),
        "url": Field(css="a", attribute="href"),
        "image": Field(css="img", attribute="srcset"),
        "price": Field(css="i"),
        "colour": Field(css="b", pattern=r"Colour: (\w+)"),
    }
    found = extract(of(Kind("product", items="li.card", fields=fields)), "k", URL, "", body.encode())
    assert [r.fields["product_id"] for r in found.records] == [["0"], ["1"], ["2"]]
    assert found.records[1].fields["image"] == ["http://h/l/1.jpg"]
    assert found.records[1].fields["url"] == ["http://h/p/1"]
    assert (found.records[1].fields["price"], found.records[1].fields["currency"]) == (["1299.00"], ["EUR"])
    assert found.records[1].fields["colour"] == ["red"]
    assert "price" not in found.records[0].fields


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("<title>é東</title><h1>é東</h1>".encode(), "text/html; charset=utf-8"),
        ("<meta charset=shift_jis><h1>東</h1>".encode("shift_jis"), "text/html"),
        ("<h1>東京の青いワンピース</h1>".encode("shift_jis"), 'text/html; charset="shift_jis"'),
        ("<h1>é</h1>".encode("latin-1"), "text/html; charset=iso-8859-1"),
        ("<h1>robe d'été à pois</h1>".encode("cp1252"), "text/html"),
        ("<h1>Платье</h1>".encode("utf-16"), "text/html"),
        ("<h1>Платье</h1>".encode("utf-16-le"), "text/html; charset=UTF-16LE"),
        ("<h1>é</h1>".encode("latin-1"), "text/html; charset=no-such-charset"),
        ("<h1>é</h1>".encode("latin-1"), "text/html; charset=utf-8"),
    ],
)
def test_encodings(body, content_type):
    kind = Kind("product", fields={"title": Field(css="h1")})
    og = '<meta property="og:image" content="/a.jpg">'
    codec = "utf-16-le" if content_type.endswith("16LE") else "utf-16" if body.startswith(b"\xff\xfe") else "ascii"
    tail = og.encode(codec)[2 if codec == "utf-16" else 0 :]
    title = one(kind, body + tail, content_type=content_type)["title"][0]
    assert title in ("é東", "東", "東京の青いワンピース", "é", "robe d'été à pois", "Платье")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\xff<<html><body",
        b"<div>" * 20_000,
        b"<!doctype html><![CDATA[x",
        b"<a href='\"<!-- <p>",
        b"\xff\xd8\xff\xe0JFIF",
    ],
)
def test_broken_html_breaks_nothing(body):
    found = extract(of(PRODUCT), "k", URL, "text/html", body)
    assert found.records == ()
    assert len(found.problems) == 1


LISTING = """<base href="/b/"><a href="p/1?utm_source=x">1</a><a href="p/1#top">same</a><a href=http://other/p/2>o</a><a>none</a>
<a href="/about">no rule</a><a href="javascript:x">js</a><link rel="next prefetch" href="/list?page=2"><area href=/p/3>"""


def test_links_follow_rules_and_hosts():
    found = extract(profile(product=PRODUCT), "page", "http://h/list", "", LISTING.encode())
    assert found.links == (
        Link("http://h/b/p/1", "product"),
        Link("http://h/list?page=2", "page"),
        Link("http://h/p/3", "product"),
    )
    nofollow = LISTING + '<meta name="robots" content="noindex, nofollow">'
    assert extract(profile(product=PRODUCT), "page", "http://h/list", "", nofollow.encode()).links == ()


def test_noai_in_the_page_is_respected_unless_switched_off():
    body = b'<meta name="Robots" content="noai"><meta property="og:image" content="/a.jpg">'
    site = of(PRODUCT)
    assert extract(site, "k", URL, "", body).refused
    assert extract(site, "k", URL, "", body, respect_no_ai=False).records


def test_a_post_and_its_products():
    kind = Kind(
        "post",
        fields={
            "post_id": Field(css="article", attribute="data-id"),
            "image": Field(css="img.photo", attribute="src"),
            "product_urls": Field(css="a.tagged", attribute="href"),
        },
    )
    body = """<article data-id=7><img class=photo src="/i.jpg"><a class=tagged href="/p/2?gclid=1">b</a>
    <a class=tagged href="/p/1">a</a><a class=tagged href="https://elsewhere.example/p/9">c</a></article>
    <script type="application/ld+json">{"@type":"SocialMediaPosting","mentions":[{"@type":"Product","sku":"S2"}]}</script>"""
    site = Profile("x", start=["http://h/"], kinds={"post": kind, "product": PRODUCT}, rules=RULES[:2], id_prefix="x:")
    found = extract(site, "post", "http://h/style/7", "", body.encode())
    (record,) = found.records
    assert record.fields["post_id"] == ["x:7"]
    assert record.fields["product_ids"] == ["x:S2"]
    assert record.fields["product_urls"] == ["http://h/p/1", "http://h/p/2", "https://elsewhere.example/p/9"]
    assert Link("http://h/i.jpg", "image") in found.links
    assert Link("http://h/p/2?gclid=1", "product") in found.links  # asked for as it is published
    assert "elsewhere" not in str(found.links)


def test_json_feed():
    kind = Kind(
        "product",
        format="json",
        items="items",
        fields={
            "product_id": Field(path="id"),
            "title": Field(path="title"),
            "image": Field(path="media.url"),
            "price": Field(path="_p.price"),
        },
        links="next_url, items.url",
    )
    page = {
        "next_url": "/feed?page=2",
        "items": [
            {"id": 1, "title": "a", "url": "/p/1", "media": [{"url": "/1.jpg"}, {"url": "/2.jpg"}], "_p": {"price": 9.90}},
            {"id": 2, "title": "no image"},
            "junk",
        ],
    }
    site = profile(feed=kind, product=PRODUCT)
    found = extract(site, "feed", "http://h/feed", "application/json", json.dumps(page).encode())
    assert [r.fields["product_id"] for r in found.records] == [["1"]]
    assert (found.records[0].fields["image"], found.records[0].fields["price"]) == (["http://h/1.jpg"], ["9.9"])
    assert "path 'media.url' found nothing" in found.problems[0]
    assert {link.url for link in found.links} == {"http://h/1.jpg", "http://h/feed?page=2", "http://h/p/1"}
    for bad in (b"{", b"[" * 100_000, b"\xff\xfe"):
        with pytest.raises(Reject) as caught:
            extract(site, "feed", "http://h/feed", "", bad)
        assert caught.value.code == RejectCode.MALFORMED_ROW


def test_at_path():
    assert at_path({"a": [{"b": 1}, {"b": [2, 3]}, {}]}, "a.b") == [1, 2, 3]
    assert at_path([1], "a") == []


def test_a_page_over_the_cap_is_not_parsed():
    site = Profile("x", start=["http://h/"], max_page_bytes=10)
    with pytest.raises(Reject) as caught:
        extract(site, "page", URL, "", b"x" * 11)
    assert caught.value.code == RejectCode.TOO_MANY_BYTES
