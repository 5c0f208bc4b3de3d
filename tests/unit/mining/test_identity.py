import pyarrow as pa
import pytest

from w2w import schema
from w2w.errors import UsageError
from w2w.mining.identity import product_keys

PRODUCTS = pa.table(
    [
        ["a.jpg", "b.jpg", "c.jpg", "d.jpg"],
        pa.array(
            [
                [("sku", "1"), ("colour", "red")],
                [("colour", "red"), ("sku", "1")],
                [("sku", "1"), ("colour", "")],
                None,
            ],
            pa.map_(pa.string(), pa.string()),
        ),
    ],
    names=[schema.PRODUCT_ID, schema.ATTRIBUTES],
)


def test_the_feed_knows_its_products():
    assert product_keys(PRODUCTS, []).to_pylist() == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]


def test_attributes_make_a_product():
    keys = product_keys(PRODUCTS, ["sku", "colour"]).to_pylist()
    assert keys[0] == keys[1] == "1\x1fred"
    assert keys[2:] == ["c.jpg", "d.jpg"]  # no colour, no attributes: nothing can be said to be the same


def test_an_attribute_that_nobody_has():
    with pytest.raises(UsageError, match="no product has an attribute 'size'"):
        product_keys(PRODUCTS, ["sku", "size"])


def test_no_products():
    assert product_keys(PRODUCTS.slice(0, 0), ["sku"]).to_pylist() == []
