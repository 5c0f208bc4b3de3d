"""Feeds as shop systems write them go in without an option beyond their name."""

import json

import pytest

from w2w.errors import UsageError
from w2w.ingest.feed import FeedConfig, check_feed, read_as, read_feed

SHOPIFY = """Handle,Title,Body (HTML),Vendor,Type,Published,Variant SKU,Variant Price,Image Src,Status
red-tee,Red tee,<p>Soft</p>,Acme,Tshirts,true,RT-S,22.90,https://x.test/1.jpg,active
red-tee,,,,,,RT-M,19.90,https://x.test/2.jpg,
red-tee,,,,,,,,https://x.test/3.jpg,
jeans,Jeans,,Acme,Jeans,true,J-1,49.00,https://x.test/4.jpg,active
draft,Draft,,Acme,Jeans,true,D-1,49.00,https://x.test/5.jpg,draft
"""
WOOCOMMERCE = """ID,Type,SKU,Name,Published,Sale price,Regular price,Categories,Images,Parent
11,variable,RT,Red tee,1,,,"Clothing > Tshirts, Sale","https://x.test/1.jpg, https://x.test/2.jpg",
12,variation,RT-S,Red tee S,1,,19.90,,https://x.test/1.jpg,id:11
13,simple,J,Jeans,1,39.00,49.00,Clothing > Jeans,https://x.test/4.jpg,
14,simple,D,Draft,-1,,49.00,Clothing > Jeans,https://x.test/5.jpg,
"""
MAGENTO = """sku,store_view_code,attribute_set_code,product_type,categories,name,price,special_price,visibility,base_image
RT,,Default,configurable,"Default Category/Tshirts,Default Category/Sale",Red tee,19.90,,"Catalog, Search",/r/t.jpg
RT,de,Default,configurable,,Rotes Shirt,,,,
RT-S,,Default,simple,Default Category/Tshirts,Red tee S,19.90,,Not Visible Individually,/r/t.jpg
J,,Default,simple,Default Category/Jeans,Jeans,49.00,39.00,"Catalog, Search",/j.jpg
"""
GOOGLE = """id\ttitle\tlink\timage link\tprice\tsale price\tproduct type\tbrand
a\tRed tee\thttps://x.test/a\thttps://x.test/1.jpg\t19.90 EUR\t\tApparel > Tshirts\tAcme
b\tJeans\thttps://x.test/b\thttps://x.test/4.jpg\t49.00 EUR\t39.00 EUR\tApparel > Jeans\tAcme
"""
RSS = """<?xml version="1.0"?><rss version="2.0" xmlns:g="http://base.google.com/ns/1.0"><channel><title>Shop</title>
<item><g:id>a</g:id><title>Red &amp; tee</title><link>https://x.test/a</link><g:image_link>https://x.test/1.jpg</g:image_link>
<g:additional_image_link>https://x.test/2.jpg</g:additional_image_link>
<g:additional_image_link>https://x.test/3.jpg</g:additional_image_link>
<g:price>19.90 EUR</g:price>
<g:shipping><g:price>4.90 EUR</g:price></g:shipping><g:product_type>Apparel &gt; Tshirts</g:product_type></item>
<item><g:id>b</g:id><title>Jeans</title><g:image_link>https://x.test/4.jpg</g:image_link><g:price>49.00 EUR</g:price>
<g:sale_price>39.00 EUR</g:sale_price></item></channel></rss>"""
ATOM = """<feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0"><title>Shop</title>
<entry><g:id>a</g:id><title>Red tee</title><link href="https://x.test/a"/><g:image_link>https://x.test/1.jpg</g:image_link>
<g:price>19.90 EUR</g:price></entry></feed>"""
NESTED = [
    {
        "sku": "a",
        "name": "Red tee",
        "brand": {"name": "Acme"},
        "price": {"amount": 19.9},
        "images": [{"src": "https://x.test/1.jpg"}],
    },
    {
        "sku": "b",
        "name": "Jeans",
        "brand": None,
        "price": {"amount": 39},
        "images": [{"src": "https://x.test/4.jpg"}, {"src": "z"}],
    },
]


def read(path, content: str | bytes, **options) -> tuple[list[dict], list[dict]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    config = FeedConfig(uri=str(path), **options)
    check_feed(config)
    batches = list(read_feed(config))
    return ([r for b in batches for r in b.rows.to_pylist()], [r for b in batches for r in b.rejects.to_pylist()])


def of(rows: list[dict], *names: str) -> list[tuple]:
    return [tuple(row[name] for name in names) for row in rows]


SAID = ("product_id", "title", "price", "currency", "category", "image_uri")


def test_shopify_has_a_row_for_each_variant_and_picture(tmp_path):
    rows, rejects = read(tmp_path / "products_export.csv", SHOPIFY, currency="EUR", category_map={"Tshirts": "top"})
    assert of(rows, *SAID, "brand") == [
        ("red-tee", "Red tee", 19.9, "EUR", "top", "https://x.test/1.jpg", "Acme"),
        ("jeans", "Jeans", 49.0, "EUR", "etc", "https://x.test/4.jpg", "Acme"),
    ]
    assert rejects == []
    assert dict(rows[0]["attributes"])["Variant SKU"] == "RT-S"
    assert sum(batch.num_left_out for batch in read_feed(FeedConfig(uri=str(tmp_path / "products_export.csv")))) == 3
    said = read_as(FeedConfig(uri=str(tmp_path / "products_export.csv")))
    assert said.startswith("shopify, product_id = Handle, ")


def test_woocommerce_lists_variations_pictures_and_categories(tmp_path):
    rows, rejects = read(tmp_path / "wc.csv", WOOCOMMERCE)
    assert of(rows, *SAID) == [
        ("11", "Red tee", 19.9, None, "clothing > tshirts", "https://x.test/1.jpg"),
        ("13", "Jeans", 39.0, None, "clothing > jeans", "https://x.test/4.jpg"),
    ]
    assert rejects == []


def test_magento_repeats_products_for_store_views(tmp_path):
    (tmp_path / "r").mkdir()
    rows, rejects = read(
        tmp_path / "m.csv", MAGENTO, image_root="https://x.test/media/", category_map={"Default Category/Jeans": "bottom"}
    )
    assert of(rows, "product_id", "price", "category") == [("RT", 19.9, "etc"), ("J", 39.0, "bottom")]
    assert rejects == []


@pytest.mark.parametrize(("name", "content"), [("g.tsv", GOOGLE), ("g.txt", GOOGLE), ("g.xml", RSS)])
def test_google_merchant(tmp_path, name, content):
    rows, rejects = read(tmp_path / name, content, category_map={"Apparel": "top"})
    assert of(rows, "product_id", "price", "currency", "image_uri") == [
        ("a", 19.9, "EUR", "https://x.test/1.jpg"),
        ("b", 39.0, "EUR", "https://x.test/4.jpg"),
    ]
    assert rows[0]["category"] == "top"
    assert rows[0]["url"] == "https://x.test/a"
    assert rejects == []


def test_pictures_beyond_the_first_are_no_attributes(tmp_path):
    rows, _ = read(tmp_path / "g.xml", RSS)
    assert rows[0]["title"] == "Red & tee"
    assert [one["uri"] for one in rows[0]["more"]] == ["https://x.test/2.jpg", "https://x.test/3.jpg"]
    kept = dict(rows[0]["attributes"])
    assert not [name for name in kept if name.startswith("additional")]
    assert kept["shipping.price"] == "4.90 EUR"


def test_atom_has_its_link_in_an_attribute(tmp_path):
    rows, _ = read(tmp_path / "g.xml", ATOM)
    assert of(rows, "product_id", "title", "url") == [("a", "Red tee", "https://x.test/a")]


@pytest.mark.parametrize(
    ("name", "text"), [("p.jsonl", "\n".join(map(json.dumps, NESTED))), ("p.json", json.dumps(NESTED, indent=1))]
)
def test_nested_json(tmp_path, name, text):
    rows, rejects = read(tmp_path / name, text)
    assert of(rows, "product_id", "title", "price", "image_uri") == [
        ("a", "Red tee", 19.9, "https://x.test/1.jpg"),
        ("b", "Jeans", 39.0, "https://x.test/4.jpg"),
    ]
    assert rejects == []
    rows, _ = read(tmp_path / name, text, columns={"brand": "brand.name"}, attributes=["price.amount"])
    assert of(rows, "brand", "attributes") == [("Acme", [("price.amount", "19.9")]), (None, [("price.amount", "39")])]


def test_an_array_is_read_in_pieces(tmp_path):
    many = [{"id": str(i), "image": f"{i}.jpg", "text": "x" * 1000, "price": i} for i in range(2000)]
    rows, rejects = read(tmp_path / "p.json", json.dumps(many))
    assert [row["product_id"] for row in rows] == [row["id"] for row in many]
    assert rejects == []
    rows, rejects = read(tmp_path / "p.json", json.dumps([*many[:2], 7, *many[2:4]]))
    assert len(rows) == 4
    assert [r["detail"] for r in rejects] == ["a JSON str, not an object"]


def test_cp1252_with_semicolons_and_decimal_commas(tmp_path):
    text = "sku;name;price;image_url\n1;Blusén;1.299,90 €;1.jpg\n2;Schuhe für;12,50;2.jpg\n" * 1
    rows, rejects = read(tmp_path / "p.csv", text.encode("cp1252"))
    assert of(rows, "product_id", "title", "price", "currency") == [
        ("1", "Blusén", 1299.9, "EUR"),
        ("2", "Schuhe für", 12.5, None),
    ]
    assert rejects == []
    assert "cp1252" in read_as(FeedConfig(uri=str(tmp_path / "p.csv")))


def test_what_is_said_counts_before_what_is_told(tmp_path):
    rows, _ = read(tmp_path / "p.csv", SHOPIFY, columns={"product_id": "Variant SKU", "title": "Handle"}, attributes=["Vendor"])
    assert of(rows, "product_id", "title", "attributes") == [
        ("RT-S", "red-tee", [("Vendor", "Acme")]),
        ("J-1", "jeans", [("Vendor", "Acme")]),
    ]
    plain = "product_id,image,handle,title,variant price,image src\n1,a.jpg,h,t,2,b.jpg\n"
    rows, _ = read(tmp_path / "q.csv", plain)
    assert of(rows, "product_id", "price") == [("1", None)]  # our own names are there: nothing is told
    with pytest.raises(UsageError, match=r"feed\.preset=shopfiy"):
        check_feed(FeedConfig(uri=str(tmp_path / "p.csv"), preset="shopfiy"))


def products_json(*products: dict) -> str:
    """Shopify's products.json, each product with one picture and one variant unless it says otherwise."""
    usual = {"title": "t", "vendor": "Acme", "product_type": "Tops", "status": "active", "published_at": "2026-01-01T00:00:00Z"}
    own = [
        usual | {"id": n, "handle": f"h{n}", "images": [{"src": f"https://x.test/{n}.jpg"}], "variants": [variant()]} | one
        for n, one in enumerate(products)
    ]
    return json.dumps({"products": own})


def variant(price: str = "20.00", compare: str | None = None, picture: str | None = None) -> dict:
    image = None if picture is None else {"id": 1, "src": picture}
    return {"id": 5, "price": price, "compare_at_price": compare, "featured_image": image, "available": True}


@pytest.mark.parametrize("preset", ["", "shopify", "shopify_json"])
def test_products_json_leaves_out_what_is_not_on_sale(tmp_path, preset):
    text = products_json({}, {"status": "draft"}, {"status": "archived"}, {"published_at": None}, {"status": "active"})
    (tmp_path / "products.json").write_text(text)
    batches = list(read_feed(FeedConfig(uri=str(tmp_path / "products.json"), currency="EUR", preset=preset)))
    rows = [row for batch in batches for row in batch.rows.to_pylist()]
    assert [(row["product_id"], row["brand"], row["availability"]) for row in rows] == [
        ("0", "Acme", "in_stock"),
        ("4", "Acme", "in_stock"),
    ]
    assert sum(batch.num_left_out for batch in batches) == 3
    assert read_as(FeedConfig(uri=str(tmp_path / "products.json"))).startswith("shopify_json")


@pytest.mark.parametrize(
    ("variants", "said"),
    [
        ([variant("20.00", "30.00")], (20.0, 20.0, 30.0)),
        ([variant("20.00", "0.00")], (20.0, None, None)),
        ([variant("20.00", "15.00")], (20.0, None, None)),
        ([variant("20.00")], (20.0, None, None)),
        ([variant("25.00", "90.00"), variant("20.00", "30.00")], (20.0, 20.0, 30.0)),
        ([variant("25.00", "90.00"), variant("20.00")], (20.0, None, None)),
        ([variant("1,299.00", "1,499.00"), variant("1,100.00", "1,200.00")], (1100.0, 1100.0, 1200.0)),
        ([variant("9.00", "10.00"), variant("20.00", "30.00")], (9.0, 9.0, 10.0)),
    ],
)
def test_a_sale_in_products_json_is_that_of_the_cheapest_variant(tmp_path, variants, said):
    (tmp_path / "products.json").write_text(products_json({"variants": variants}))
    [row] = [r for b in read_feed(FeedConfig(uri=str(tmp_path / "products.json"), currency="EUR")) for r in b.rows.to_pylist()]
    assert tuple(row[name] for name in ("price", "sale_price", "regular_price")) == said


def test_pictures_of_variants_in_products_json(tmp_path):
    images = [{"src": f"https://x.test/{n}.jpg"} for n in range(3)]
    variants = [variant(picture="https://x.test/2.jpg"), variant(picture="https://x.test/v.jpg"), variant()]
    (tmp_path / "products.json").write_text(products_json({"images": images, "variants": variants}, {"images": images[:1]}))
    rows = [r for b in read_feed(FeedConfig(uri=str(tmp_path / "products.json"))) for r in b.rows.to_pylist()]
    assert [(one["uri"][-5:], one["role"]) for one in rows[0]["more"]] == [
        ("1.jpg", "additional"),
        ("2.jpg", "variant"),
        ("v.jpg", "variant"),
    ]
    assert rows[1]["more"] is None
