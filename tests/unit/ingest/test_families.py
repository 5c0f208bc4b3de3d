"""Products whose variants are rows of their own: WooCommerce's variations, Magento's simple products of a configurable one."""

from datetime import datetime

import pytest

from w2w.ingest import nights
from w2w.ingest.feed import FeedConfig, read_feed

X = "https://x.test"
# the headings and cells of WooCommerce's own exporter, fewer
WOO = """ID,Type,SKU,Name,Published,"In stock?","Sale price","Regular price","Date sale price starts","Date sale price ends",\
Categories,Images,Parent,"Attribute 1 name","Attribute 1 value(s)"
1,variable,tee,Tee,1,0,,,,,"Clothing, Clothing > Tshirts",https://x.test/1.jpg,,Color,"Red, Green, Blue"
2,variation,tee-red,Tee - Red,1,0,,30,,,,https://x.test/red.jpg,tee,Color,Red
3,"variation, virtual",tee-green,Tee - Green,1,1,20,40,,,,https://x.test/1.jpg,tee,Color,Green
4,variation,tee-blue,Tee - Blue,-1,1,,5,,,,,tee,Color,Blue
5,variable,,Cap,1,1,,,,,Accessories,,,,
6,variation,,Cap 1,1,0,9,19,2026-01-01,2026-02-01,,https://x.test/cap.jpg,id:5,,
7,variation,,Cap 2,1,backorder,,15.50,,,,,id:5,,
8,variable,bare,Bare,1,1,,,,,"Shoes\\, Boots > Men",https://x.test/8.jpg,,,
9,variation,lost-1,Lost,1,1,,3,,,,https://x.test/9.jpg,nobody,,
,simple,by-sku,By SKU,1,1,,7,,,Sale,https://x.test/10.jpg,,,
"""
MAGENTO = """sku,store_view_code,attribute_set_code,product_type,categories,name,product_online,price,special_price,visibility,\
base_image,additional_attributes,is_in_stock,additional_images,configurable_variations,configurable_variation_labels
MH-XS,,Top,simple,"Default Category/Men,Default Category/Men/Tops",Hoodie XS,1,52.0000,,Not Visible Individually,/mh-xs.jpg,\
"color=Black,size=XS",0,,,
MH-S,,Top,simple,Default Category/Men,Hoodie S,1,60.0000,49.0000,"Catalog, Search",/mh-s.jpg,"color=Gray,size=S",1,,,
MH-S,de,Top,simple,,Hoodie S,,1.0000,,,,,,,,
MH-M,,Top,simple,,Hoodie M,2,10.0000,,Not Visible Individually,/mh-m.jpg,,1,,,
MH,,Top,configurable,"Default Category/Men,Default Category/Men/Tops",Hoodie,1,,,"Catalog, Search",/mh.jpg,style=Full Zip,1,\
/mh-2.jpg,"sku=MH-XS,size=XS,color=Black| sku=MH-S,size=S,color=Gray|sku=MH-M,size=M,color=Black|sku=MH-L,size=L,color=Black",\
"size=Size,color=Color"
OFF,,Top,configurable,Default Category/Men,Off,1,,,"Catalog, Search",/off.jpg,,0,,"sku=MH-S,size=S",size=Size
"""


def read(tmp_path, name: str, text: str, **options) -> tuple[dict[str, dict], list]:
    (tmp_path / name).write_text(text)
    batches = list(read_feed(FeedConfig(uri=str(tmp_path / name), image_root=X, **options)))
    assert [r for b in batches for r in b.rejects.to_pylist()] == []
    return {r["product_id"]: r for b in batches for r in b.rows.to_pylist()}, batches


def of(row: dict, *names: str) -> tuple:
    return tuple(row[name] for name in names)


PRICES = ("price", "regular_price", "sale_price")


def test_a_woocommerce_product_costs_what_its_cheapest_variation_does(tmp_path):
    rows, batches = read(tmp_path, "wc.csv", WOO)
    assert set(rows) == {"1", "5", "8", "by-sku"}
    assert of(rows["1"], *PRICES, "availability") == (20, 40, 20, "in_stock")
    assert of(rows["5"], *PRICES, "availability") == (15.5, None, None, "backorder")  # its sale is over
    assert of(rows["1"], "group_id", "colour") == ("1", "Red, Green, Blue")
    assert of(rows["by-sku"], "group_id", "price") == (None, 7)
    assert sum(b.num_left_out for b in batches) == 6
    assert sum(b.num_orphans for b in batches) == 1


def test_a_woocommerce_sale_counts_between_its_dates(tmp_path, monkeypatch):
    at = datetime.fromisoformat("2026-01-15T12:00+00:00")
    monkeypatch.setattr(nights, "now_us", lambda: int(at.timestamp() * 1e6))
    rows, _ = read(tmp_path, "wc.csv", WOO)
    assert of(rows["5"], *PRICES) == (9, 19, 9)


def test_pictures_of_variations_are_pictures_of_their_product(tmp_path):
    rows, _ = read(tmp_path, "wc.csv", WOO)
    assert rows["1"]["image_uri"] == f"{X}/1.jpg"
    assert [of(p, "uri", "role") for p in rows["1"]["more"]] == [(f"{X}/red.jpg", "variant")]
    assert of(rows["5"], "image_uri", "more") == (f"{X}/cap.jpg", None)


def test_a_product_without_a_priced_variant_is_warned_of(tmp_path):
    rows, _ = read(tmp_path, "wc.csv", WOO)
    assert rows["8"]["price"] is None
    assert [of(w, "column", "code", "detail") for w in rows["8"]["warned"]] == [
        ("price", "missing_field", "no variant of it in the feed has a price")
    ]
    assert [rows[i]["warned"] for i in ("1", "5", "by-sku")] == [None] * 3


def test_a_decimal_comma_is_told_from_the_variations(tmp_path):
    text = WOO.replace("15.50", '"15,50"').replace(",30,", ',"19,90",')
    rows, _ = read(tmp_path, "wc.csv", text)
    assert of(rows["5"], *PRICES) == (15.5, None, None)
    assert of(rows["1"], *PRICES) == (19.9, None, None)


def test_magento_simple_products_price_their_configurable_one(tmp_path):
    rows, batches = read(tmp_path, "m.csv", MAGENTO)
    assert set(rows) == {"MH-S", "MH", "OFF"}  # a variant that is visible is a product, too
    assert of(rows["MH"], *PRICES, "availability") == (49, 60, 49, "in_stock")
    assert of(rows["MH"], "colour", "size") == ("Black, Gray", "XS, S, M, L")
    assert of(rows["MH-S"], "group_id", "colour", "price") == ("MH", "Gray", 49)
    assert of(rows["MH"], "group_id", "category") == ("MH", "default category/men/tops")
    assert of(rows["OFF"], "price", "availability") == (49, "out_of_stock")
    assert [p["uri"].removeprefix(X) for p in rows["MH"]["more"]] == ["/mh-2.jpg", "/mh-xs.jpg", "/mh-s.jpg"]
    assert sum(b.num_left_out for b in batches) == 3


def test_variants_may_be_anywhere_in_a_long_feed(tmp_path):
    head, *rows = WOO.splitlines()
    fill = [f"{n},simple,s{n},S,1,1,,5,,,Hats,https://x.test/{n}.jpg,,," for n in range(100, 160)]
    (tmp_path / "wc.csv").write_text("\n".join([head, *rows[1:4], *fill, rows[0], *rows[4:]]) + "\n")
    found = [r for b in read_feed(FeedConfig(uri=str(tmp_path / "wc.csv")), batch_rows=7) for r in b.rows.to_pylist()]
    assert [r["price"] for r in found if r["product_id"] == "1"] == [20]
    assert len(found) == 64


@pytest.mark.parametrize(
    ("cell", "known", "category"),
    [
        ("Clothing, Clothing > Tshirts", {"Clothing": "outer", "Clothing > Tshirts": "top"}, "top"),
        ("Clothing > Tshirts, Clothing", {"Clothing": "outer", "Clothing > Tshirts": "top"}, "top"),
        ("Sale > Summer > Last chance, Clothing > Tshirts", {"Clothing": "top"}, "top"),
        ("Sale, Tshirts", {"Tshirts": "top"}, "top"),
        ("Sale,New", {"Tshirts": "top"}, "etc"),
        ("Clothing, Clothing > Tshirts, Sale", {}, "clothing > tshirts"),
        ("Shoes\\, Boots > Men", {"Shoes, Boots": "shoes"}, "shoes"),
    ],
)
def test_of_several_categories_the_deepest_that_is_mapped_counts(tmp_path, cell, known, category):
    text = f'ID,Type,Name,Categories,Images,Regular price\n1,simple,T,"{cell}",https://x.test/1.jpg,5\n'
    rows, [batch] = read(tmp_path, "wc.csv", text, category_map=known)
    assert rows["1"]["category"] == category
    if known and category == "etc":
        assert batch.unmapped == {"Sale": 1}
