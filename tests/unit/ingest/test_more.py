"""What else a feed says of a product: further pictures, variants, stock, reduced prices."""

import json

import pytest

from tests.unit.ingest.test_presets import of, read
from w2w import schema
from w2w.errors import UsageError
from w2w.ingest.feed import FeedConfig, check_feed, read_feed
from w2w.ingest.pictures import listed

SHOPIFY = """Handle,Title,Vendor,Type,Published,Option1 Name,Option1 Value,Option2 Name,Option2 Value,Variant SKU,Variant Inventory Qty,Variant Inventory Policy,Variant Price,Variant Compare At Price,Image Src,Image Position,Variant Image,Status,Google Shopping / Gender
tee,Tee,Acme,Tshirts,true,Size,S,Color,Red,T-S,0,deny,19.90,29.90,https://x.test/1.jpg,1,https://x.test/2.jpg,active,female
tee,,,,,,M,,Red,T-M,3,deny,19.90,,https://x.test/3.jpg,3,https://x.test/2.jpg,,
tee,,,,,,L,,Blue,T-L,0,deny,19.90,,https://x.test/2.jpg,2,https://x.test/2.jpg,,
hat,Hat,Acme,Hats,true,Title,Default Title,,,H,0,deny,9.00,,https://x.test/4.jpg,1,,active,
bag,Bag,Acme,Bags,true,Title,Default Title,,,B,-2,continue,9.00,9.00,https://x.test/5.jpg,,,active,
"""  # noqa: E501
SHOPIFY_PICTURES = [("https://x.test/2.jpg", "variant"), ("https://x.test/3.jpg", "additional")]
GOOGLE = (
    "id\ttitle\tlink\timage link\tadditional image link\tprice\tsale price\titem group id\tavailability\tgender\tcolor\tsize\n"
    "a-s\tTee\thttps://x.test/a\thttps://x.test/1.jpg\thttps://x.test/2.jpg,https://x.test/3.jpg\t19.90 EUR\t12.00 EUR\ta\t"
    "in stock\tfemale\tRed\tS\n"
    "b\tHat\thttps://x.test/b\thttps://x.test/4.jpg\t\t9.00 EUR\t\t\tpreorder\t\t\t\n"
)
RSS = """<rss xmlns:g="http://base.google.com/ns/1.0"><channel><item><g:id>a-s</g:id><title>Tee</title>
<g:image_link>https://x.test/1.jpg</g:image_link><g:additional_image_link>https://x.test/2.jpg</g:additional_image_link>
<g:additional_image_link>https://x.test/3.jpg</g:additional_image_link><g:price>19.90 EUR</g:price>
<g:sale_price>12.00 EUR</g:sale_price><g:item_group_id>a</g:item_group_id><g:availability>in_stock</g:availability>
<g:gender>female</g:gender><g:color>Red</g:color><g:size>S</g:size></item>
<item><g:id>b</g:id><title>Hat</title><g:image_link>https://x.test/4.jpg</g:image_link><g:price>9.00 EUR</g:price>
<g:availability>preorder</g:availability></item></channel></rss>"""
WOO = """ID,Type,Name,Published,Sale price,Regular price,Categories,Images,In stock?,Attribute 1 name,Attribute 1 value(s)
1,variable,Tee,1,12.00,19.90,Tshirts,"https://x.test/1.jpg, https://x.test/2.jpg, https://x.test/3.jpg",1,Size,"S, M"
2,simple,Hat,1,,9.00,Hats,https://x.test/4.jpg,backorder,,
"""
SAID = ("product_id", "price", "sale_price", "regular_price", "group_id", "availability", "gender", "colour", "size")


def more(rows: list[dict]) -> list[list[tuple[str, str]]]:
    return [[(p["uri"], p["role"]) for p in row["more"] or []] for row in rows]


@pytest.mark.parametrize("block_bytes", [400, 1 << 20])
def test_shopify_gathers_variants_and_pictures_of_a_handle(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr("w2w.ingest.delimited.CSV_BLOCK_BYTES", block_bytes)
    rows, rejects = read(tmp_path / "s.csv", SHOPIFY, currency="EUR")
    assert of(rows, *SAID) == [
        ("tee", 19.9, 19.9, 29.9, None, "in_stock", "female", "Red, Blue", "S, M, L"),
        ("hat", 9.0, None, None, None, "out_of_stock", None, None, None),
        ("bag", 9.0, None, None, None, "in_stock", None, None, None),
    ]
    assert more(rows) == [SHOPIFY_PICTURES, [], []]
    assert rejects == []
    assert [r["warned"] for r in rows] == [None] * 3


@pytest.mark.parametrize(("name", "content"), [("g.tsv", GOOGLE), ("g.xml", RSS)])
def test_google_says_group_stock_sale_and_further_pictures(tmp_path, name, content):
    rows, _ = read(tmp_path / name, content)
    assert of(rows, *SAID, "currency") == [
        ("a-s", 12.0, 12.0, 19.9, "a", "in_stock", "female", "Red", "S", "EUR"),
        ("b", 9.0, None, None, None, "preorder", None, None, None, "EUR"),
    ]
    assert more(rows) == [[("https://x.test/2.jpg", "additional"), ("https://x.test/3.jpg", "additional")], []]
    assert dict(rows[0]["attributes"])["color"] == "Red"  # what is filtered and tagged by today


def test_woocommerce_lists_pictures_stock_and_options(tmp_path):
    rows, _ = read(tmp_path / "w.csv", WOO)
    assert of(rows, *SAID) == [
        ("1", 12.0, 12.0, 19.9, None, "in_stock", None, None, "S, M"),
        ("2", 9.0, None, None, None, "backorder", None, None, None),
    ]
    assert more(rows) == [[("https://x.test/2.jpg", "additional"), ("https://x.test/3.jpg", "additional")], []]


@pytest.mark.parametrize("fault", [{}, {"title": {"de": "x"}}, {"availability": True}])
def test_nested_json_lists_pictures_and_sizes(tmp_path, fault):
    records = [
        {"sku": "a", "images": [{"src": "1.jpg"}, {"src": "2.jpg"}, {"src": "1.jpg"}], "sizes": ["S", "M"]} | fault,
        {"sku": "b", "images": [{"src": "3.jpg"}], "colour": "Red"},
    ]
    rows, rejects = read(tmp_path / "p.jsonl", "\n".join(map(json.dumps, records)))
    assert rejects == []
    assert [[p[0].rpartition("/")[2] for p in one] for one in more(rows)] == [["2.jpg"], []]
    assert of(rows, "size", "colour") == [("S, M", None), (None, "Red")]
    rows, _ = read(tmp_path / "q.jsonl", '{"product_id": "a", "image": "1.jpg", "images": ["1.jpg", "4.jpg"]}')
    assert more(rows) == [[(str(tmp_path / "4.jpg"), "additional")]]


def test_our_own_names_are_read_and_what_cannot_be_is_said(tmp_path):
    text = (
        "product_id,image,price,sale_price,availability,images,colour\n"
        '1,1.jpg,10,12,12,2.jpg|3.jpg,red\n2,2.jpg,10,x,maybe,"../../etc/passwd, 4.jpg",\n3,3.jpg,,8,0,,\n'
    )
    rows, rejects = read(tmp_path / "p.csv", text)
    assert of(rows, "price", "sale_price", "regular_price", "availability", "colour") == [
        (10.0, None, None, "in_stock", "red"), (10.0, None, None, None, None), (8.0, 8.0, None, "out_of_stock", None),
    ]  # fmt: skip
    assert [len(one) for one in more(rows)] == [2, 1, 0]
    assert [(w["column"], w["code"]) for w in rows[1]["warned"]] == [
        ("sale_price", "bad_value"), ("availability", "bad_value"), ("images", "blocked_url"),
    ]  # fmt: skip
    assert rejects == []


def test_further_pictures_have_a_most(tmp_path):
    text = f"product_id,image,images\n1,0.jpg,{' | '.join(f'{n}.jpg' for n in range(6))}\n2,7.jpg,\n"
    (tmp_path / "p.csv").write_text(text)
    [batch] = read_feed(FeedConfig(uri=str(tmp_path / "p.csv"), max_pictures=3))
    assert [len(one or []) for one in batch.rows.column("more").to_pylist()] == [2, 0]
    assert batch.num_pictures_out == 3
    with pytest.raises(UsageError, match=r"feed\.max_pictures=0"):
        check_feed(FeedConfig(uri=str(tmp_path / "p.csv"), max_pictures=0))


def test_a_digest_covers_what_is_new_and_only_where_it_is_there(tmp_path):
    def digest(name: str, header: str, line: str) -> str:
        rows, _ = read(tmp_path / name, f"product_id,image{header}\n1,1.jpg{line}\n", attributes=[])
        return rows[0][schema.ROW_DIGEST]

    plain = digest("a.csv", "", "")
    assert digest("b.csv", ",colour,images,sale_price", ",,,") == plain
    others = [
        ("colour", "red"),
        ("size", "red"),
        ("images", "2.jpg"),
        ("images", "3.jpg"),
        ("group_id", "g"),
        ("sale_price", "3"),
    ]
    digests = {plain, *(digest(f"{n}.csv", f",{name}", f",{value}") for n, (name, value) in enumerate(others))}
    assert len(digests) == 1 + len(others)
    (tmp_path / "2.jpg").write_bytes(b"now it is there")
    assert digest("c.csv", ",images", ",2.jpg") not in digests


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("https://x.test/1.jpg, https://x.test/2.jpg", ["https://x.test/1.jpg", "https://x.test/2.jpg"]),
        ("https://x.test/w_1,h_2/a.jpg,https://x.test/b.jpg", ["https://x.test/w_1,h_2/a.jpg", "https://x.test/b.jpg"]),
        ("https://x.test/1.jpg|s3://b/2.jpg\nhttp://y/3", ["https://x.test/1.jpg", "s3://b/2.jpg", "http://y/3"]),
        ("a b.jpg; c.jpg,,d.jpg", ["a b.jpg", "c.jpg", "d.jpg"]),
        ('["a.jpg", {"url": " b.jpg "}, 7, null, {"alt": "x"}, ""]', ["a.jpg", "b.jpg"]),
        ('["a.jpg"', ['["a.jpg"']),
        (" , |", []),
    ],
)
def test_a_list_of_pictures_is_parted_as_shops_part_it(text, values):
    assert [value for value, _ in listed(text)] == values
