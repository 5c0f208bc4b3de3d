"""``w2w.open``: tables in any shape, history and lineage, indexes to search."""

import importlib.util
import io
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

import w2w
from tests.unit.api.conftest import NUM_PRODUCTS
from w2w.models.config import EncoderConfig

DIM = 256  # of the default encoder


def test_tables_are_read_in_any_shape(store):
    opened = w2w.open(store)
    assert {"products", "images", "embeddings"} <= set(opened.tables())
    products = opened.table("products")
    rows = products.arrow(["product_id", "price", "active"])
    assert rows.num_rows == NUM_PRODUCTS + 2  # the price that changed, the product that is gone
    now = products.polars(["product_id", "price"], current=True)
    assert (now.height, now.columns) == (NUM_PRODUCTS - 1, ["product_id", "price"])
    assert now.filter(pl.col("product_id") == "p1")["price"].to_list() == [9.0]
    assert products.arrow(["product_id"], version=1).num_rows == NUM_PRODUCTS
    assert opened.table("images").arrow().schema.names == opened.table("images").schema.names
    assert products.arrow("title", current=True).column_names == ["title"]
    if importlib.util.find_spec("pandas"):
        assert len(products.pandas(["price"])) == NUM_PRODUCTS + 2
    else:
        with pytest.raises(w2w.UsageError, match="pip install pandas"):
            products.pandas()


def test_history_and_lineage_say_where_rows_come_from(store):
    opened = w2w.open(store)
    newest, *older = opened.table("products").history()
    assert newest.version == len(older)
    assert newest.run_id.startswith("ingest-")
    assert sum(c.rows or 0 for c in [newest, *older]) == NUM_PRODUCTS + 2
    lineage = opened.table("embeddings").lineage()
    assert (lineage["job"], set(lineage["inputs"]), lineage["config"]["encoder"]["name"]) == (
        "embed", {"images"}, EncoderConfig().name,
    )  # fmt: skip
    assert opened.table("embeddings").lineage(version=0) is None  # that it was created with


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda s: s.table("product"), r"no table 'product'\. Did you mean 'products'"),
        (lambda s: s.table("pairs"), "no table 'pairs' at .* yet"),
        (lambda s: s.table("products").arrow(["prize"]), r"no column 'prize'\. Did you mean 'price'"),
        (lambda s: s.table("products").arrow(version=99), "no version 99: its newest is"),
        (lambda s: s.table("images").arrow(current=True), "has no history"),
        (lambda s: s.index("none"), "no index is published there"),
        (lambda s: s.index("../x"), r"index='\.\./x': letters, digits"),
        (lambda s: s.index(version="1"), "there is no version '1'"),
        (lambda s: s.index().search(np.ones((1, 7), np.float32)), "have 7 dimensions"),
        (lambda s: s.index().search(np.full((1, DIM), np.nan, np.float32)), "NaN"),
        (lambda s: s.index().search(np.ones((1, DIM), np.float32), k=0), "k=0"),
        (lambda s: s.index().search(np.ones((1, DIM), np.float32), category="shoe"), "Did you mean 'shoes'"),
        (lambda s: s.index().search(b"<html>"), r"images\[0\]"),
        (lambda s: s.index().search([1.5]), r"images\[0\] is a float"),
        (lambda s: w2w.open(""), "give a local path"),
    ],
)
def test_mistakes_are_sentences(store, ask, said):
    with pytest.raises(w2w.UsageError, match=said):
        ask(w2w.open(store))


def test_a_place_without_tables_is_an_empty_store(tmp_path):
    assert w2w.open(str(tmp_path / "none")).tables() == []
    assert not (tmp_path / "none").exists()


def test_images_and_vectors_find_the_same_products(store, shop):
    files = [shop.folder / f"{n}.jpg" for n in (0, 3, 7)]
    encoder, index = w2w.load_encoder(), w2w.open(store).index()
    hits = index.search(files, k=3, encoder=encoder)
    assert hits.column_names == ["query", "rank", "product_id", "image_id", "category", "score"]
    assert hits.filter(pa.compute.equal(hits["rank"], 1))["product_id"].to_pylist() == ["p0", "p3", "p7"]
    assert hits.equals(index.search(encoder(files), k=3))
    some = index.search(files, k=2, category="shoes", encoder=encoder)
    assert set(some["category"].to_pylist()) == {"shoes"}
    single = index.search(encoder(files)[0], k=1)
    assert single["product_id"].to_pylist() == ["p0"]


def test_vectors_are_those_of_the_jobs_whatever_an_image_is(store, shop):
    encoder = w2w.load_encoder()
    opened = w2w.open(store)
    images = opened.table("images").arrow(["image_id", "bytes"])
    rows = opened.table("embeddings").arrow(["owner_id", "model_version", "vector"])
    theirs = dict(zip(rows["owner_id"].to_pylist(), rows["vector"].to_pylist()))
    assert set(rows["model_version"].to_pylist()) == {encoder.model_version}
    ours = encoder(images["bytes"].to_pylist(), batch_images=7)
    assert (ours.shape, ours.dtype) == ((NUM_PRODUCTS, encoder.dim), np.float32)
    np.testing.assert_allclose(ours, np.array([theirs[i] for i in images["image_id"].to_pylist()]), atol=2e-3)
    path = shop.folder / "0.jpg"
    data = path.read_bytes()
    opened_image = Image.open(io.BytesIO(data))
    pixels = np.asarray(opened_image)
    kinds = encoder([path, str(path), data, opened_image, pixels])
    assert np.abs(kinds - kinds[0]).max() < 2e-3  # decoders differ by a grey level
    assert np.array_equal(encoder(path), encoder([path]))
    assert encoder([]).shape == (0, encoder.dim)
    mistakes: list[Any] = [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), 5, None, "nowhere.jpg", b""]
    for wrong in mistakes:
        with pytest.raises(w2w.UsageError, match=r"images\[1\]"):
            encoder([path, wrong])


def test_a_pil_image_is_turned_upright_and_set_on_white():
    from w2w.api.images import pixels

    turned = Image.new("RGB", (20, 30), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    held = io.BytesIO()
    turned.save(held, "jpeg", exif=exif, quality=95)
    assert pixels(Image.open(io.BytesIO(held.getvalue())), None).shape == (20, 30, 3)
    assert pixels(Image.new("RGBA", (20, 20), (0, 0, 0, 0)), None).min() == 255
