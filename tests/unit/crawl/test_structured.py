"""Products as shops describe them for machines: which one is the page's, what it costs, and where its picture is."""

import json

import pytest

from w2w.crawl.extract import extract
from w2w.crawl.profile import Field, Kind, Profile

URL = "https://shop.example/coat?variant=2"
OG = '<meta property="og:image" content="/og.jpg"><meta property="og:price:amount" content="5.00"><meta property="og:price:currency" content="USD">'  # noqa: E501
OFFER = {"@type": "Offer", "price": "20.00", "priceCurrency": "EUR"}
COAT = {"@type": "Product", "name": "Coat", "sku": "S1", "image": "/i.jpg", "offers": OFFER}


def ld(*documents: object) -> str:
    texts = (one if isinstance(one, str) else json.dumps(one) for one in documents)
    return "".join(f'<script type="application/ld+json">{text}</script>' for text in texts)


def offers(offer: object) -> str:
    return ld({**COAT, "offers": offer})


def image(value: object) -> str:
    return OG + ld({**COAT, "image": value})


def read(page: str, currency: str = "", **fields: Field) -> dict[str, str]:
    """The first value of each field of the page's record."""
    site = Profile("x", start=["https://shop.example/"], kinds={"k": Kind("product", fields=fields)}, currency=currency)
    (record,) = extract(site, "k", URL, "text/html", page.encode()).records
    return {name: values[0].removeprefix("https://shop.example") for name, values in record.fields.items()}


GROUP = {
    "@type": "ProductGroup",
    "name": "Coat",
    "productGroupID": "G",
    "hasVariant": [{**COAT, "sku": f"V{n}", "image": f"/{n}.jpg", "offers": {**OFFER, "price": 10 + n}} for n in (1, 2)],
}


def test_a_group_is_a_product_and_its_variants_fill_its_gaps():
    got = read(ld(GROUP))
    assert (got["product_id"], got["title"], got["image"], got["price"], got["currency"]) == (
        "G",
        "Coat",
        "/1.jpg",
        "11",
        "EUR",
    )


def test_the_variant_whose_url_is_the_page_goes_first():
    mine = {**GROUP["hasVariant"][1], "url": URL}
    got = read(ld({**GROUP, "hasVariant": [GROUP["hasVariant"][0], {k: v for k, v in mine.items() if k != "name"}]}))
    assert (got["product_id"], got["title"], got["image"], got["price"]) == ("V2", "Coat", "/2.jpg", "12")
    got = read(ld({**COAT, "image": None, "isVariantOf": {"@type": "ProductGroup", "image": "/g.jpg"}}))
    assert got["image"] == "/g.jpg"


def test_variants_by_reference():
    variant = {"@type": "Product", "@id": "#v1", "image": "/v1.jpg", "offers": OFFER}
    got = read(ld({"@graph": [{**GROUP, "hasVariant": [{"@id": "#v1"}]}, variant]}))
    assert (got["product_id"], got["image"], got["price"]) == ("G", "/v1.jpg", "20.00")


@pytest.mark.parametrize("own", [URL, "/coat?utm_source=x&variant=2", "https://shop.example/coat?variant=2#details"])
def test_the_product_whose_url_is_the_page_goes_before_others(own):
    other = {**COAT, "sku": "O", "url": "/other", "name": "Other"}
    related = {"@type": "ItemList", "itemListElement": [{"@type": "ListItem", "item": other}]}
    assert read(ld(related, {**COAT, "url": own}))["product_id"] == "S1"
    assert read(ld(related, COAT))["product_id"] == "O"  # nothing tells them apart: the first
    canonical = '<link rel="canonical" href="/the-coat">'
    assert read(canonical + ld(related, {**COAT, "url": "/the-coat"}))["product_id"] == "S1"


def test_blocks_of_one_product_are_read_together_and_others_are_not():
    stub = {"@type": "Product", "name": "Coat", "aggregateRating": {"ratingValue": 4}}
    assert read(ld(stub, COAT))["price"] == "20.00"
    assert "price" not in read(ld({**stub, "image": "/i.jpg"}, {**COAT, "name": "Scarf"}))


IMAGE_OBJECT = {"@type": "ImageObject", "@id": "#primaryimage", "url": "/i1.jpg"}


@pytest.mark.parametrize("at", ["#primaryimage", URL + "#primaryimage", "?variant=2#primaryimage"])
@pytest.mark.parametrize("named", ["#primaryimage", URL + "#primaryimage"])
def test_an_image_by_reference(at, named):
    graph = [{**IMAGE_OBJECT, "@id": named}, {**COAT, "image": {"@id": at}}]
    assert read(OG + ld({"@graph": graph}))["image"] == "/i1.jpg"
    assert read(OG + ld(graph[1], graph[0]))["image"] == "/i1.jpg"  # in two scripts


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ({"@id": "#nowhere"}, "/og.jpg"),
        ({"@id": URL + "#nowhere"}, "/og.jpg"),
        (URL, "/og.jpg"),  # the page is no picture
        ({"@id": "/i/x.jpg"}, "/i/x.jpg"),
        ("data:image/png;base64,AAA", "/og.jpg"),
        ([], "/og.jpg"),
        ([None, "", {"@type": "ImageObject"}, "/x.jpg"], "/x.jpg"),
        ({"@type": "ImageObject", "url": ["/1.jpg", "/2.jpg"]}, "/1.jpg"),
        ({"contentUrl": {"@value": "/1.jpg"}}, "/1.jpg"),
        ([["/1.jpg"]], "/1.jpg"),
        ("/x.jpg?v=1&amp;w=2", "/x.jpg?v=1&w=2"),
        ("//cdn.example/x.jpg", "https://cdn.example/x.jpg"),
        (False, "/og.jpg"),
        (5, "/5"),
    ],
)
def test_the_first_picture_that_is_one(value, url):
    assert read(image(value))["image"] == url


def test_a_ring_of_references_ends():
    names = {n: {"@id": f"#{n}"} for n in "ab"}
    ring = [{"@id": f"#{n}", **dict.fromkeys(("url", "contentUrl", "image"), [names["a"], names["b"]] * 5)} for n in "ab"]
    assert read(OG + ld({"@graph": [*ring, {**COAT, "image": names["a"]}]}))["image"] == "/og.jpg"


@pytest.mark.parametrize(
    ("offer", "price", "currency"),
    [
        ({"price": "12.500", "priceCurrency": "KWD"}, "12.500", "KWD"),
        ({"price": 39.90, "priceCurrency": "eur"}, "39.9", "EUR"),
        ({"price": "1.5e2", "priceCurrency": "€"}, "150", "EUR"),
        ({"price": "1,299.00", "priceCurrency": ["", "SEK"]}, "1299.00", "SEK"),
        ({"price": "R$ 1.299,90"}, "1299.90", "BRL"),
        ([{"price": ""}, {"price": "7"}], "7", "USD"),
        ([{"price": 1, "url": "/coat?variant=1"}, {"price": 2, "url": "?variant=2"}], "2", "USD"),
        ({"@type": "AggregateOffer", "lowPrice": "9.90", "highPrice": "19", "priceCurrency": "EUR"}, "9.90", "EUR"),
        ({"@type": "AggregateOffer", "priceCurrency": "EUR", "offers": [{"price": None}, {"price": 7}]}, "7", "EUR"),
        ({"price": "", "priceSpecification": {"price": 50, "priceCurrency": "SEK"}}, "50", "SEK"),
        (
            {
                "priceSpecification": [
                    {"priceType": "https://schema.org/StrikethroughPrice", "price": 99, "priceCurrency": "EUR"},
                    {"price": 4, "referenceQuantity": {"value": 100}},
                    {"price": 79, "priceCurrency": "EUR"},
                ]
            },
            "79",
            "EUR",
        ),
        ([[]], "5.00", "USD"),
        ({"price": -1, "priceCurrency": "EUR"}, "5.00", "USD"),  # no price: the next source, with its currency
        ({"price": "1e400", "priceCurrency": "EUR"}, "5.00", "USD"),
        ({"price": "NaN", "priceCurrency": "EUR"}, "5.00", "USD"),
        ({"price": True}, "5.00", "USD"),
    ],
)
def test_the_first_price_that_is_one(offer, price, currency):
    got = read(OG + offers(offer))
    assert (got["price"], got["currency"]) == (price, currency)


def test_a_dollar_is_the_currency_of_the_page_then_of_the_profile():
    fields = {"price": Field(css="b"), "image": Field(css="img", attribute="src")}
    page = "<img src=/a.jpg><b>$ 12.50</b>"
    assert read(page, **fields)["currency"] == "USD"
    assert read(page, currency="AUD", **fields)["currency"] == "AUD"
    assert read(page + '<meta property="og:price:currency" content="CAD">', currency="AUD", **fields)["currency"] == "CAD"
    assert read("<img src=/a.jpg><b>R$ 12,50</b>", currency="AUD", **fields)["currency"] == "BRL"
    assert read("<img src=/a.jpg><b>12.50</b>", currency="AUD", **fields)["currency"] == "AUD"


@pytest.mark.parametrize(
    ("field", "price"),
    [
        (Field(css="b"), "12500"),
        (Field(css="i", attribute="content"), "12.500"),
        (Field(css="i", attribute="data-price"), "12.500"),
        (Field(css="i", attribute="title"), "12500"),
    ],
)
def test_what_a_selector_finds_is_text_unless_machines_read_it(field, price):
    page = '<img src=/a.jpg><b>12.500</b><i content="12.500" data-price="12.500" title="12.500">'
    assert read(page, price=field, image=Field(css="img", attribute="src"))["price"] == price


def test_a_selector_that_finds_nothing_usable_leaves_it_to_others():
    fields = {"price": Field(css="b"), "image": Field(css="img", attribute="src")}
    page = "<img src='data:image/gif;base64,R0'><b>Sold out</b>" + ld(COAT)
    site = Profile("x", start=["https://shop.example/"], kinds={"k": Kind("product", fields=fields)})
    found = extract(site, "k", URL, "", page.encode())
    assert found.records[0].fields["price"] == ["20.00"]
    assert found.records[0].fields["image"] == ["https://shop.example/i.jpg"]
    assert "field 'price': selector 'b' has no number: 'Sold out'" in found.problems[0]


MICRO = """<div itemscope itemtype="http://schema.org/Product"><a itemprop="name" href="/x">Coat</a><p itemprop=sku>M1</p>
<img itemprop="image" src="data:image/gif;base64,R0" data-src="/m.jpg">
<div itemprop="offers" itemscope itemtype="http://schema.org/Offer">{}</div></div>"""
RELATED = '<ul itemprop="isRelatedTo" itemscope itemtype="http://schema.org/Product"><li itemprop="name">Other</li></ul>'


@pytest.mark.parametrize(
    ("price_tag", "price", "currency"),
    [
        ('<span itemprop="price" content="12.500">KD 12</span><meta itemprop="priceCurrency" content="KWD">', "12.500", "KWD"),
        ('<span itemprop="price">1.299,00 €</span>', "1299.00", "EUR"),
        ('<span itemprop="price">$12.50</span><meta itemprop="priceCurrency" content="CAD">', "12.50", "CAD"),
        ('<span itemprop="price">$12.50</span>', "12.50", "USD"),
        ('<span itemprop="price">12.500</span>', "12500", None),
    ],
)
def test_microdata(price_tag, price, currency):
    got = read(RELATED + MICRO.format(price_tag))
    assert (got["title"], got["product_id"], got["image"]) == ("Coat", "M1", "/m.jpg")
    assert (got["price"], got.get("currency")) == (price, currency)


@pytest.mark.parametrize(
    "text",
    [
        '{"@type": "Product", "name": "a, }b", "image": ["/i.jpg",],}',
        '/* x */ {"@type": "Product", // c\n "name": "a, }b", "image": "/i.jpg"};',
        '//<![CDATA[\n{"@type": "Product", "name": "a, }b", "image": "/i.jpg"}\n//]]>',
        '/*<![CDATA[*/{"@type": "Product", "name": "a, }b", "image": "/i.jpg"}/*]]>*/',
        '<!-- <!-- {"@type": "Product", "name": "a, }b", "image": "/i.jpg"} --> -->',
        "{&quot;@type&quot;: &quot;Product&quot;, &quot;name&quot;: &quot;a, }b&quot;, &quot;image&quot;: &quot;/i.jpg&quot;}",
        '\ufeff{"@type": "Product", "name": "a, }b", "image": "/i.jpg"}',
        '[[{"@type": ["Thing", "schema:Product"], "schema:name": "a, }b", "schema:image": "/i.jpg"}]]',
        '[{"@type": ["http://schema.org/Product"], "http://schema.org/name": [{"@value": "a, }b"}],'
        ' "http://schema.org/image": [{"@id": "/i.jpg"}]}]',
        '{"@type": "ItemPage", "mainEntity": {"@type": "Product", "name": "a, }b", "image": "/i.jpg"}}',
    ],
)
def test_json_ld_as_it_is_found(text):
    got = read(ld(text))
    assert (got["title"], got["image"]) == ("a, }b", "/i.jpg")


@pytest.mark.parametrize(
    "text",
    [
        '"\\' * 100_000,
        "/*" * 100_000,
        " " * 200_000 + "x",
        "{" + ", " * 100_000,
        "[" * 100_000,
        json.dumps(
            {
                "@graph": [
                    {"@id": f"#{n}", "@type": "Product", "image": [{"@id": f"#{m}"} for m in range(60)]} for n in range(60)
                ]
            }
        ),
    ],
    ids=["quotes", "comments", "spaces", "commas", "brackets", "references"],
)
def test_hostile_json_ld_takes_no_time(text):
    assert read(OG + ld(text))["image"] == "/og.jpg"
