"""Which products a filter lets through."""

import numpy as np
import pyarrow as pa
import pytest

from w2w import schema
from w2w.errors import UsageError
from w2w.index.filters import NEEDS, allowed, seen_columns, texts

ROWS = [
    {"product_id": "a", "brand": "Fjord & Co", "price": 10.0, "category": "top", "attributes": {"size": "38", "colour": "Red"}},
    {"product_id": "b", "brand": "Fjord & Co", "price": 50.0, "category": "top", "attributes": {"size": "39,5"}},
    {"product_id": "c", "brand": None, "price": None, "category": "shoes", "attributes": {"colour": "blue", "size": "40.5"}},
    {
        "product_id": "d",
        "brand": "Plain",
        "price": 10.01,
        "category": "shoes",
        "attributes": {"availability": "In Stock"},
        "colour": "Blue",
        "availability": "in_stock",
        "sale_price": 8.0,
    },
    {
        "product_id": "gone",
        "brand": "Plain",
        "price": 10.0,
        "category": "top",
        "attributes": {"colour": "red"},
        "active": False,
    },
]
PRODUCTS = pa.Table.from_pylist([{"active": True} | row for row in ROWS], schema=schema.PRODUCTS.fields(NEEDS))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, "abcd"),
        ({"brand": ["fjord & CO"]}, "ab"),
        ({"brand": ["Plain", "Fjord & Co"], "category": ["top"]}, "ab"),
        ({"price": ["10..50"]}, "abd"),
        ({"price": ["..10"]}, "a"),
        ({"price": ["10.005.."]}, "bd"),
        ({"price": ["50", "..10"]}, "ab"),
        ({"size": ["38", "39,5"]}, "ab"),
        ({"brand": [""]}, ""),
        ({"size": ["38..41"]}, "ac"),
        ({"colour": ["RED", "blue"]}, "acd"),
        ({"availability": ["in_stock"], "sale_price": ["..9"]}, "d"),
        ({"availability": ["in stock"]}, "d"),
        ({"colour": ["red"], "price": ["20.."]}, ""),
        ({"brand": [".."]}, ""),
    ],
)
def test_a_filter_lets_through(wanted, found):
    assert [p for p, ok in zip(PRODUCTS["product_id"].to_pylist(), allowed(PRODUCTS, wanted)) if ok] == list(found)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"color": ["red"]}, "--filter.color: no product has it. Did you mean 'colour'?"),
        ({"brand": []}, "name at least one value"),
        ({"price": ["cheap"]}, "--filter.price: 'cheap' is neither a number nor a range, LOW..HIGH"),
        ({"sale_price": ["cheap"]}, "--filter.sale_price: 'cheap' is neither a number nor a range, LOW..HIGH"),
        (
            {"group_id": ["g"]},
            "--filter.group_id: no product has it. Did you mean 'product_id'?",
        ),
        ({"price": ["10", "abc..50"]}, "'abc..50' is neither"),
        ({"size": ["41..38"]}, "--filter.size: 41..38 begins above its end"),
    ],
)
def test_a_filter_that_cannot_be(wanted, said):
    with pytest.raises(UsageError) as error:
        allowed(PRODUCTS, wanted)
    assert said in str(error.value)
    assert allowed(PRODUCTS.slice(0, 0), {"colour": ["red"]}).tolist() == []


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        ({"brand": True}, "a"),  # YAML's word for a brand called On
        ({"brand": [False, "x"]}, "b"),
        ({"price": 1e9}, "a"),
        ({"price": [1e-5]}, "b"),
        ({"care.wash": np.int64(30)}, "a"),
        ({"größe [EU]": ("38", "39")}, "ab"),
        ({"care": {"wash": 30}}, "a"),  # as a command line has care.wash
        ({7: "x"}, "b"),
    ],
)
def test_values_as_yaml_and_programs_have_them(chosen, found):
    rows = [
        {"product_id": "a", "brand": "On", "price": 1e9, "attributes": {"care.wash": "30", "größe [EU]": "38"}},
        {"product_id": "b", "brand": "no", "price": 0.00001, "attributes": {"7": "X", "größe [EU]": "39.0"}},
    ]
    products = pa.Table.from_pylist([{"active": True} | row for row in rows], schema=PRODUCTS.schema)
    assert [p for p, ok in zip("ab", allowed(products, texts(chosen))) if ok] == list(found)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ("red", "--filter: 'red' does not name a column or attribute"),
        ({"brand": None}, "--filter.brand: None is neither text nor a number"),
        ({"brand": [["a"]]}, "--filter.brand: ['a'] is neither text"),
        ({"brand": "\udcff"}, "--filter.brand: '\\udcff' is not text"),
    ],
)
def test_values_that_are_none(chosen, said):
    with pytest.raises(UsageError) as error:
        texts(chosen)
    assert said in str(error.value)


def test_a_hundred_thousand_values():
    """Of a list of ids, of numbers, of ranges: one look at each product, not one for each value."""
    many = 100_000
    rows = [{"product_id": f"P{i}", "price": i / 2, "active": True, "attributes": {}} for i in range(100)]
    products = pa.Table.from_pylist(rows, schema=PRODUCTS.schema)
    ids = [f"p{i}" for i in range(0, 2 * many, 2)]
    assert allowed(products, {"product_id": ids}).tolist() == [i % 2 == 0 for i in range(100)]
    assert allowed(products, {"price": [str(i) for i in range(many)]}).tolist() == [i % 2 == 0 for i in range(100)]
    ranges = [f"{i}..{i + 0.5}" for i in range(3, many, 3)] + ["40..44", "..-1", "1..1"]
    wanted = [any(low <= i / 2 <= low + 0.5 for low in range(3, 60, 3)) or 40 <= i / 2 <= 44 or i == 2 for i in range(100)]
    assert allowed(products, {"price": ranges}).tolist() == wanted


def test_what_pictures_show_is_filtered_by():
    said: dict[str, list[tuple[str, str | None]]] = {
        "i1": [("colour", "red"), ("type", None)],
        "i2": [("type", "Heels")],
        "i3": [("colour", "Blue")],
        "i4": [],
    }
    rows = [
        {"owner_id": image, "tags": [{"attribute": name, "value": value, "score": 1.0} for name, value in tags]}
        for image, tags in said.items()
    ]
    tagged = pa.Table.from_pylist(rows, schema=schema.TAGGED.fields(["owner_id", "tags"]))
    images = pa.chunked_array([pa.array(["i1", None, "i3"]), pa.array(["i4", "i1"])])
    seen = seen_columns(images, tagged, ["seen_colour", "brand", "seen_type"])
    assert {name: column.to_pylist() for name, column in seen.items()} == {
        "seen_colour": ["red", None, "Blue", None, "red"],
        "seen_type": [None] * 5,
    }
    let_through = allowed(PRODUCTS, {"seen_colour": ["RED", "blue"], "category": ["top", "shoes"]}, seen)
    assert [p for p, ok in zip(PRODUCTS["product_id"].to_pylist(), let_through) if ok] == ["a", "c"]  # "gone" is not sold
    with pytest.raises(UsageError, match=r"--filter\.seen_color: .*Did you mean 'seen_colour'\?"):
        seen_columns(images, tagged, ["seen_color"])
    with pytest.raises(UsageError, match=r"--filter\.seen_colour: 'w2w tag' gave no picture"):
        seen_columns(images, tagged.slice(3), ["seen_colour"])
