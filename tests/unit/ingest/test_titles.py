"""Titles without HTML, and what is said of a file that is no XML feed."""

import pyarrow as pa
import pytest

from w2w.errors import BadInput
from w2w.ingest.feed import FeedConfig, check_feed, column_names, read_feed
from w2w.ingest.normalise import without_markup


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("<b>Bold</b> &amp; soft", "Bold & soft"),
        ("Red<br/>tee", "Red tee"),
        ('<p class="x">One</p><p>two</p>', "One two"),
        ("&lt;strong&gt;Red&lt;/strong&gt; tee", "Red tee"),
        ("Caf&eacute; &#39;s", "Café 's"),
        ("Size <M> & <L>", "Size <M> & <L>"),
        ("a < b", "a < b"),
        ("AT&T", "AT&T"),
        ("<b></b>", None),
        (None, None),
        ("plain", "plain"),
    ],
)
def test_a_title_is_text(title, said):
    assert without_markup(pa.array([title, "x"], pa.string())).to_pylist() == [said, "x"]


def test_the_title_of_a_row(tmp_path):
    (tmp_path / "f.csv").write_text("product_id,title,image\n1,<b>Bold</b> &amp; soft,1.jpg\n")
    [batch] = read_feed(FeedConfig(uri=str(tmp_path / "f.csv")))
    assert batch.rows.column("title").to_pylist() == ["Bold & soft"]


@pytest.mark.parametrize("text", ["<!DOCTYPE html><html><body>x<br></body></html>", "<html><body><p>x</body></html>"])
def test_a_web_page_in_place_of_a_feed(tmp_path, text):
    (tmp_path / "f.xml").write_text(text)
    with pytest.raises(BadInput, match="a web page, not a feed"):
        check_feed(FeedConfig(uri=str(tmp_path / "f.xml")))


def test_xml_without_a_product(tmp_path):
    (tmp_path / "f.xml").write_text("<rss><channel><title>Shop</title></channel></rss>")
    with pytest.raises(BadInput, match="no product in it, which is an element item, entry,"):
        check_feed(FeedConfig(uri=str(tmp_path / "f.xml")))


def test_repeated_elements_are_named_once(tmp_path):
    more = "".join(f"<additional_image_link>https://x.test/{n}.jpg</additional_image_link>" for n in range(3))
    (tmp_path / "f.xml").write_text(f"<rss><item><id>1</id><image_link>https://x.test/1.jpg</image_link>{more}</item></rss>")
    names = column_names(FeedConfig(uri=str(tmp_path / "f.xml")))
    assert names == ["id", "image_link", "additional_image_link", "additional_image_link[]"]


def test_of_values_that_cannot_be_read_one_is_shown(tmp_path):
    (tmp_path / "f.csv").write_text('product_id,price,image\n1,5,1.jpg\n2,"ask \x1b us",2.jpg\n3,' + "x" * 300 + ",3.jpg\n")
    [batch] = read_feed(FeedConfig(uri=str(tmp_path / "f.csv")))
    [(column, said)] = batch.unread_examples().items()
    assert column == "price"
    assert said.startswith("2: not like 1299.90 or 1299.90 EUR: 'ask")
    assert "\x1b" not in said
    assert len(said) <= 160
