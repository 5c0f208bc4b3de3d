"""The picture report: boxes where they belong, everything escaped, rejects named."""

import numpy as np
import simplejpeg
from bs4 import BeautifulSoup

from w2w.garments.page import Box, Histogram, Key, Refused, Seen, colours_of, draw, garment_report, legend_of

PHOTO = simplejpeg.encode_jpeg(np.full((800, 400, 3), 90, np.uint8), 95)


def test_boxes_and_masks_are_drawn_in_the_shrunk_photo():
    mask = np.zeros((800, 400), bool)
    mask[400:, 200:] = True
    seen = Seen("a", PHOTO, [Box("top", "shirt", 0.9, (40, 80, 200, 320))], (20, 40, 380, 780), mask)
    picture = np.asarray(draw(seen, {"top": "#ff0000"})).astype(int)
    assert picture.shape == (420, 210, 3)
    assert (picture[100, 21] - (255, 0, 0) == 0).all()  # 40 * 210 / 400 = 21
    assert (picture[300, 50] == 31).all()  # outside the mask: dimmed
    assert (abs(picture[300, 150] - 90) <= 1).all()  # inside: the colour that it has
    assert (picture[300, 103:105] == 255).all()  # its outline
    assert draw(Seen("a", b"<html>"), {}) is None


def test_boxes_are_numbered_as_their_legend_is():
    boxes = [Box("top", "shirt", 0.4, (0, 0, 90, 90)), Box("bag", "bag", 0.9, (200, 200, 300, 300))]
    colours = colours_of(["top", "bag"])
    keys = legend_of(Seen("a", PHOTO, boxes), colours)
    assert [(k.number, k.text) for k in keys] == [(1, "bag 0.90"), (2, "top (shirt) 0.40")]
    assert keys[0].colour != keys[1].colour
    assert sum(k.dark for k in (Key(1, "", "#0072b2"), Key(2, "", "#f0e442"))) == 1


def test_page(tmp_path):
    page = tmp_path / "page.html"
    shirt = Box("top", "<i>shirt</i>", 0.87, (0, 0, 9, 9))
    photos = [Seen("<b>id</b>", PHOTO, [shirt], cutout=PHOTO, crops=[("top (boxes)", PHOTO)]), Seen("b", b"x")]
    counts = [("segment", "bad_mask", 7)]
    refused = [Refused("k" * 64, "segment", "bad_mask", "<script>alert(1)</script>", None)]
    histograms = [Histogram("Garments by class", {"top": 3, "bag": 1}), Histogram("empty", {})]
    garment_report(str(page), "Garments", {"photos": "1"}, {"store": "s"}, histograms, photos, refused, counts)
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    assert not soup.find_all("i")
    assert "alert" not in "".join(s.get_text() for s in soup.find_all("script"))
    assert len(soup.select(".seen")) == 2
    assert "no garment" in soup.select(".seen")[1].get_text()
    assert "0.87" in soup.select(".seen")[0].get_text()
    assert [row.get_text(" ", strip=True) for row in soup.select(".bars tr")] == ["top 3", "bag 1"]
    assert "bad_mask" in soup.select(".refused")[0].get_text()
    assert all(img.get("src", "data:image/jpeg").startswith("data:image/jpeg") for img in soup.find_all("img"))
