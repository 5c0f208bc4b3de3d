"""The config that `w2w init` writes is one that `w2w nightly` takes."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from w2w.cli import init
from w2w.config import parse
from w2w.errors import UsageError
from w2w.ingest.feed import FeedConfig, check_feed
from w2w.nightly import job as nightly
from w2w.usage import options

ROW = {"SKU": "1", "Product Name": "Shirt: red #1", "imageURL": "a.jpg", "Prix": "5"}
COLUMNS = {"product_id": "SKU", "title": "Product Name", "image": "imageURL", "price": "Prix"}


def night_of(folder) -> nightly.Config:
    return parse(nightly.Config, [f"{folder}/night.yaml"], "w2w nightly")


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_feeds_columns_are_ours(tmp_path, suffix):
    feed = tmp_path / f"feed.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist([ROW]), feed)
    else:
        mark = "\t" if suffix == "tsv" else ";"
        lines = [json.dumps(ROW)] if suffix == "jsonl" else [mark.join(ROW), mark.join(ROW.values())]
        feed.write_text("\n".join(lines) + "\n")
    init.main(init.Config(str(tmp_path / "new" / "shop"), feed=str(feed)))
    night = night_of(tmp_path / "new" / "shop")
    assert night.feed.columns == COLUMNS
    assert (night.feed.uri, night.store) == (str(feed), str(tmp_path / "new" / "shop" / "store"))
    assert not (tmp_path / "new" / "shop" / "store").exists()
    check_feed(night.feed)
    text = (tmp_path / "new" / "shop" / "night.yaml").read_text()
    assert "  use: {search: stated, training: stated}" in text
    assert "allowed" in text


def test_what_names_do_not_tell_is_asked_for(tmp_path):
    feed = tmp_path / "feed.csv"
    feed.write_text("nummer,bild\n1,a.jpg\n")
    with pytest.raises(UsageError, match=r"which column is product_id\? Say --columns.product_id=NAME; it has nummer, bild"):
        init.main(init.Config(str(tmp_path / "new"), feed=str(feed)))
    assert not (tmp_path / "new").exists()
    told = {"product_id": "nummer", "image": "bild"}
    init.main(init.Config(str(tmp_path / "new"), feed=str(feed), columns=told))
    assert night_of(tmp_path / "new").feed == FeedConfig(uri=str(feed), columns=told)


def test_paths_work_from_anywhere(tmp_path, monkeypatch):
    """ ".." is gone, unless a link before it leads elsewhere."""
    (tmp_path / "here").mkdir()
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "here" / "link").symlink_to(tmp_path / "far" / "deep")
    for folder in ("", "far"):
        (tmp_path / folder / "feed.csv").write_text("id,image\n1,a.jpg\n")
    monkeypatch.chdir(tmp_path / "here")
    init.main(init.Config("../there", feed="../feed.csv", store="../stores/s"))
    night = night_of(tmp_path / "there")
    assert (night.feed.uri, night.store) == (str(tmp_path / "feed.csv"), str(tmp_path / "stores" / "s"))
    init.main(init.Config(".", feed="link/../feed.csv"))
    assert night_of(tmp_path / "here").feed.uri == str(tmp_path / "far" / "feed.csv")


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "night.yaml").write_text("mine")
    with pytest.raises(UsageError, match="already exists and is kept"):
        init.main(init.Config(str(tmp_path)))
    assert (tmp_path / "night.yaml").read_text() == "mine"


@pytest.mark.parametrize("options_", [{"feed": "/no/such.csv"}, {"dir": "s3://bucket/x"}, {"dir": ""}])
def test_mistakes(tmp_path, options_):
    with pytest.raises(UsageError):
        init.main(init.Config(**{"dir": str(tmp_path / "new")} | options_))
    assert list(tmp_path.iterdir()) == []


def test_without_a_feed_it_is_the_defaults_with_their_texts(tmp_path):
    init.main(init.Config(str(tmp_path), store="s3://bucket/w2w"))
    night = night_of(tmp_path)
    assert night == nightly.Config("s3://bucket/w2w", feed=FeedConfig(uri=f"{tmp_path}/products.csv"))
    text = " ".join((tmp_path / "night.yaml").read_text().replace("#", " ").split())
    told = {option.name: option.text for option in options(nightly.Config)}
    for name in ("store", "feed", "feed.uri", "feed.full", "encoder.name", "index.target_recall"):
        assert told[name] in text, name


def test_each_column_is_taken_once():
    assert init.guess(["id", "sku", "image", "image_url", "x"]) == {"product_id": "id", "image": "image"}
    assert init.guess(["id", "Image", "image"], taken=["id"]) == {"image": "Image"}
    assert init.guess([]) == {}


def test_classes_are_read_off_the_column_that_says_most(tmp_path):
    """Not the first that is called a category; rows without a class stay in the map's default."""
    feed = tmp_path / "feed.csv"
    rows = ["1,Apparel,Tshirts,a.jpg", "2,Apparel,Jeans,b.jpg", "3,Footwear,Casual Shoes,c.jpg", "4,Apparel,Lehenga,d.jpg"]
    feed.write_text("\n".join(["id,category,product_type,image", *rows]) + "\n")
    init.main(init.Config(str(tmp_path / "a"), feed=str(feed)))
    night = night_of(tmp_path / "a").feed
    assert night.columns == {"product_id": "id", "category": "product_type"}
    assert night.category_map == {"tshirts": "top", "jeans": "bottom", "casual shoes": "shoes"}
    init.main(init.Config(str(tmp_path / "b"), feed=str(feed), columns={"category": "category"}))
    assert night_of(tmp_path / "b").feed.category_map == {"footwear": "shoes"}
    feed.write_text("id,category,image\n1,toys,a.jpg\n")
    init.main(init.Config(str(tmp_path / "c"), feed=str(feed)))
    assert night_of(tmp_path / "c").feed == FeedConfig(uri=str(feed), columns={"product_id": "id"})


def test_numbered_pictures_are_one_column_of_ours(tmp_path):
    feed = tmp_path / "feed.csv"
    feed.write_text("sku,name,image1,image 2,note\n1,T,a.jpg,b.jpg,x\n")
    init.main(init.Config(str(tmp_path / "shop"), feed=str(feed)))
    assert night_of(tmp_path / "shop").feed.columns == {"product_id": "sku", "title": "name", "image": ["image1", "image 2"]}


def test_what_a_preset_reads_is_no_attribute(tmp_path, capsys):
    more = "".join(f"<g:additional_image_link>{n}.jpg</g:additional_image_link>" for n in range(2))
    item = f"<item><g:id>1</g:id><title>t</title><g:image_link>a.jpg</g:image_link>{more}<g:fit>slim</g:fit></item>"
    (tmp_path / "f.xml").write_text(f'<rss xmlns:g="http://base.google.com/ns/1.0"><channel>{item}</channel></rss>')
    init.main(init.Config(dir=str(tmp_path / "shop"), feed=str(tmp_path / "f.xml")))
    said = capsys.readouterr().out
    assert "Kept as attributes: fit\n" in said
    assert "No column for: brand, price," in said


def test_products_json_of_shopify(tmp_path):
    variants = [{"price": "20.00", "compare_at_price": "30.00"}]
    product = {"id": 1, "title": "t", "handle": "h", "published_at": "2026-01-01", "product_type": "Tops", "variants": variants}
    text = json.dumps({"products": [product | {"images": [{"src": "https://x.test/1.jpg"}]}]})
    (tmp_path / "products.json").write_text(text)
    feed = init.mapped(str(tmp_path / "products.json"), {}, "")
    assert (feed.preset, feed.category_map) == ("shopify_json", {"tops": "top"})
    check_feed(feed)
