"""Among the attributes of a product stands what was not read into a column, once; five columns in the feed's own words, too."""

import json

import pytest

from tests.unit.ingest.test_families import MAGENTO, WOO
from tests.unit.ingest.test_headings import CENEO, HEUREKA, SHOPIFY, P, read
from tests.unit.ingest.test_more import GOOGLE
from tests.unit.ingest.test_more import SHOPIFY as SHOPIFY_CSV
from w2w.ingest.paths import Read

NESTED = {
    "sku": "a",
    "name": "Tee",
    "brand": {"name": "Acme", "country": "PT"},
    "price": {"amount": 19.9, "currency": "EUR"},
    "category": {"name": "Tops"},
    "images": [{"src": f"{P}/1.jpg", "alt": "front"}, {"src": f"{P}/2.jpg"}],
    "sizes": ["S", "M"],
    "attributes": {"colour": "red", "fit": "slim", "care": {"wash": 30}},
    "shipping": {"price": 3},
    "color code": "r1",
}
LEFT = {
    "attributes.care.wash": "30",
    "attributes.fit": "slim",
    "brand.country": "PT",
    "color code": "r1",
    "images": '[{"alt": "front"}]',
    "shipping": '{"price": "3"}',
}
NAMED = [{"name": "Color", "value": "red"}, {"name": "Size", "options": ["S", "M"]}, {"key": "fit", "value": "slim"}]
AWIN = "aw_product_id,product_name,merchant_image_url,alternate_image,search_price,colour,fabric\n"
BIGCOMMERCE = (
    "Item Type,Product Name,Product Code/SKU,Category,Price,Sale Price,Product Image File - 1,Product Image File - 2,Weight\n"
)


def attributes(tmp_path, name: str, text: str, **options) -> dict[str, dict[str, str]]:
    rows, rejects = read(tmp_path / name, text, **options)
    assert rejects == []
    return {row["product_id"]: dict(row["attributes"]) for row in rows}


@pytest.mark.parametrize("fault", [{}, {"title": {"de": "x"}}, {"inStock": True}])
def test_of_nested_json_what_was_not_read_is_left(tmp_path, fault):
    """A fault makes its rows be read as text first."""
    found = attributes(tmp_path, "p.jsonl", json.dumps(NESTED | fault))["a"]
    more = {"inStock": "true"} if "inStock" in fault else {"title": '{"de": "x"}'} if fault else {}  # no column of ours
    assert found == LEFT | more


def test_of_a_list_of_names_and_values_the_others_are_left(tmp_path):
    record = {"id": "a", "image": "1.jpg", "attributes": NAMED, "meta": [{"name": "x", "value": "y"}]}
    rows, _ = read(tmp_path / "p.json", json.dumps([record]))
    assert (rows[0]["title"], rows[0]["colour"], rows[0]["size"]) == (None, "red", "S, M")
    assert dict(rows[0]["attributes"]) == {"attributes.fit": "slim", "meta": '[{"name": "x", "value": "y"}]'}


def test_of_several_values_of_which_one_is_read_the_others_are_left(tmp_path):
    record = {"id": "a", "image": "1.jpg", "brands": [{"name": "Acme"}, {"name": "Other"}], "colours": ["red", "blue"]}
    rows, _ = read(tmp_path / "p.json", json.dumps([record]), columns={"brand": "brands[].name"})
    assert (rows[0]["brand"], rows[0]["colour"]) == ("Acme", "red, blue")
    assert dict(rows[0]["attributes"]) == {"brands": '[{"name": "Other"}]'}


def test_attributes_that_are_named_are_kept_as_they_are(tmp_path):
    found = attributes(tmp_path, "p.jsonl", json.dumps(NESTED), attributes=["brand", "price.amount"])["a"]
    assert found == {"brand": '{"country": "PT", "name": "Acme"}', "price.amount": "19.9"}


@pytest.mark.parametrize(
    ("name", "text", "options", "wanted"),
    [
        ("products.json", json.dumps(SHOPIFY), {}, {"1": {"images": '[{"id": "5"}, {"id": "6"}]', "variants": "*"}}),
        ("heureka.xml", HEUREKA, {}, {"a": {}}),
        ("ceneo.xml", CENEO, {}, {"a": {"avail": "1", "stock": "5"}}),
        ("awin.csv", f"{AWIN}1,Dress,{P}/1.jpg,{P}/2.jpg,9,red,wool\n", {}, {"1": {"colour": "red", "fabric": "wool"}}),
        (
            "bc.csv",
            f"{BIGCOMMERCE}Product,Dress,D1,Women,9,8,{P}/1.jpg,{P}/2.jpg,2\n",
            {},
            {"D1": {"Item Type": "Product", "Weight": "2"}},
        ),
        (
            "magento.csv",
            MAGENTO.replace("style=Full Zip", '"style=Full Zip,color=Black, new,length=10,5"'),
            {"image_root": P},
            {"MH": {"additional_attributes": "style=Full Zip,length=10,5", "is_in_stock": "1"}, "MH-S": {"is_in_stock": "1"}},
        ),
    ],
)
def test_exports_of_other_systems(tmp_path, name, text, options, wanted):
    found = attributes(tmp_path, name, text, currency="EUR", **options)
    told = ("attribute_set_code", "product_type", "product_online", "visibility", "configurable_variations")
    told += ("configurable_variation_labels",)
    for product_id, left in wanted.items():
        mine = {n: "*" if left.get(n) == "*" else v for n, v in found[product_id].items() if n not in told}
        assert mine == {n: v for n, v in left.items() if n not in told}


def test_pictures_prices_and_options_are_no_attributes_of_tables(tmp_path):
    for name, text, gone in (
        ("s.csv", SHOPIFY_CSV, ("Image", "Variant Price", "Variant Image", "Option2")),
        ("g.tsv", GOOGLE, ("image", "additional", "sale")),
        ("w.csv", WOO, ("Images", "Sale price", "Date sale", "Attribute 1")),
    ):
        found = attributes(tmp_path, name, text, currency="EUR")
        for one in found.values():
            assert not [column for column in one if column.startswith(gone)]
    assert [one for one in found.values() if one.get("In stock?")], "in the feed's own words"


def test_an_option_that_is_no_colour_or_size_is_left(tmp_path):
    text = "Handle,Title,Variant Price,Image Src,Option1 Name,Option1 Value,Option2 Name,Option2 Value\n"
    text += f"a,Tee,9,{P}/1.jpg,Color,Red,Material,Wool\n"
    assert attributes(tmp_path, "s.csv", text, currency="EUR") == {"a": {"Option2 Name": "Material", "Option2 Value": "Wool"}}


def test_xml_that_pairs_a_name_with_a_value_elsewhere_keeps_both(tmp_path):
    text = f"<shop><product><id>a</id><image>{P}/1.jpg</image><price><unit_name>each</unit_name><value>9 EUR</value></price>"
    rows, _ = read(tmp_path / "p.xml", text + "</product></shop>")
    assert rows[0]["price"] == 9


@pytest.mark.parametrize(
    ("row", "paths", "left"),
    [
        ({"a": {"b": 1}}, ["a.b"], {}),
        ({"a": {"b": 1, "c": None}}, ["a.b"], {}),
        ({"a": {"b": 1, "c": [1]}}, ["a.b"], {"a.c": [1]}),
        ({"a": [1, 2]}, ["a[]"], {}),
        ({"a": [[1], 2]}, ["a[]"], {"a": [[1]]}),
        ({"a": [{"b": 1}, {"c": 2}]}, ["a[].b"], {"a": [{"c": 2}]}),
        ({"a": "text"}, ["a.b"], {"a": "text"}),
        ({"a": {"b": 1}, "a.b": 2}, ["x"], {"a": {"b": 1}, "a.b": 2}),
        ({}, ["a.b"], {}),
    ],
)
def test_what_is_left(row, paths, left):
    assert Read.of([], paths).left(row) == left
