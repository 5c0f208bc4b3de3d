"""The page of find: what it folds together, and that nothing hostile gets through."""

from pathlib import Path

import numpy as np
import pytest
from bs4 import BeautifulSoup

from tests.unit.gallery.stores import append, pictures
from w2w import ids, schema
from w2w.find.answers import Answer, Catalog, Piece, Product
from w2w.find.explained import Explained
from w2w.find.page import find_report
from w2w.find.rules import FindOptions
from w2w.models.reasons import Reason

EVIL = "Evil <script>alert(1)</script> Shirt"


def test_near_duplicates_and_colours_are_one_card_with_the_others_below(tmp_path):
    images = pictures(4)
    names = [ids.image_id(data) for data in images]
    titles = [f"{EVIL} Red", f"{EVIL} Blue", "Plain", "Plain again", "Same picture"]
    rows = [
        {"product_id": f"p{i}", "title": title, "category": "top", "active": True, "image_id": names[min(i, 3)]}
        | {
            "attributes": [("colour", ("Red", "Blue", "Grey", "Grey", "Grey")[i])],
            "url": "javascript:alert(1)",
            "fetched_at": 0,
        }
        for i, title in enumerate(titles)
    ]
    store = str(tmp_path / "tables")
    append(store, schema.PRODUCTS, rows)
    append(store, schema.IMAGES, [{"image_id": n, "bytes": d, "fetched_at": 0} for n, d in zip(names, images)])
    append(store, schema.DUPLICATES, [{"image_id": n, "cluster_id": names[2], "cluster_size": 2} for n in names[2:]])
    catalog = Catalog(store)
    hits = [
        {
            "product_id": f"p{i}",
            "image_id": names[i],
            "category": "top",
            "rank": i + 1,
            "score": 0.9 - i / 10,
            "same_picture": [],
        }
        for i in range(4)
    ]
    hits[3]["same_picture"] = ["p4", "gone"]
    piece = Piece(1, "top", 0.9, (10.0, 10.0, 50.0, 90.0), tuple(map(catalog.product, hits)))
    answers = [(Answer("far/<b>/photo.jpg", 72, 96, (piece,)), images[0]), (Answer("no.jpg", 9, 9, (), "no garment"), None)]
    find_report(str(tmp_path / "page.html"), store, catalog, answers, 2, {"photos": 2}, FindOptions())
    text = Path(tmp_path / "page.html").read_text(encoding="utf-8")
    page = BeautifulSoup(text, "html.parser")
    assert "<script>alert(1)" not in text
    assert "javascript:" not in text
    cards = page.select(".product")
    assert [card["data-product"] for card in cards] == ["p0", "p2"]
    assert [card.select_one("summary").get_text() for card in cards] == ["2 colours", "3 more with this picture"]
    below = [[p.get_text().split()[0:2] for p in card.select(".others p")] for card in cards]
    assert below == [[["Evil", "<script>alert(1)</script>"]], [["Plain", "again"], ["Same", "picture"], ["gone"]]]
    assert "similarity 0.90" in cards[0].get_text()
    assert "Similarity is 1 for the very same picture" in page.main.p.get_text()  # before the photos
    assert [c.get_text() for c in page.select("figcaption")] == ["photo.jpg", "no.jpg"]
    assert page.select_one("figcaption")["title"] == "far/<b>/photo.jpg"
    assert "no garment" in page.get_text()


class Told:
    """In the place of ``Reasons``: counts what is explained."""

    def __init__(self):
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, query, results, titles):
        there = [title for result, title in zip(results, titles) if result is not None]
        self.asked.append(tuple(there))
        return [Reason("", "", 0.5, True, title) for title in there]


def test_a_photo_that_stays_on_the_page_is_explained_once():
    def answer(photo: str, *images: str) -> Answer:
        products = tuple(Product(n, f"p-{i}", i, "top", 0.5, None, None, None, None, None) for n, i in enumerate(images, 1))
        return Answer(photo, 9, 9, (Piece(1, "top", 0.9, (0.0, 0.0, 9.0, 9.0), products), Piece(2, "hat", 0.9, None, ())))

    reasons, pictures = Told(), {"a": b"a", "b": b"b", "c": b"c"}
    explained = Explained(2, reasons, lambda photo: {1: [np.zeros((2, 2, 3), np.uint8)] * 2})
    first, second = (answer("1.jpg", "a", "b", "c"), b"1"), (answer("2.jpg", "c"), b"2")
    titles = [[[r.title for r in of[1]] for of in explained(shown, pictures)] for shown in ([first], [second, first])]
    assert titles == [[["p-a", "p-b"]], [["p-c"], ["p-a", "p-b"]]]
    assert reasons.asked == [("p-a", "p-b")] * 2 + [("p-c",)] * 2, "each garment twice: as it is, and cut out"
    explained([first, (first[0], b"the photo was changed")], pictures)
    assert len(reasons.asked) == 6
    assert [r.title for r in explained([first], {"b": b"b"})[0][1]] == ["p-b"], "the other picture has been erased"
    assert explained([(first[0], None)], pictures) == [{}], "the photo cannot be read"
    explained([second], pictures)
    assert len(reasons.asked) == 10, "what has left the page is forgotten"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "also cut out of its background. The highest similarity counts."),
        ({"cut_out_by": "person"}, "also together with the person, cut out of the background."),
        ({"cut_out": True}, "also alone, and together with the person, cut out of the background."),
        ({"cut_out": False}, None),
        ({"whole": True}, None),
    ],
)
def test_the_page_says_where_garments_were_searched_cut_out(tmp_path, options, said):
    store = str(tmp_path / "tables")
    append(store, schema.PRODUCTS, [{"product_id": "p", "active": True, "fetched_at": 0}])
    product = Product(1, "p", "i", "top", 0.5, None, None, None, None, None)
    number, box = (0, None) if options.get("whole") else (1, (0.0, 0.0, 9.0, 9.0))
    for products in ((product,), ()):
        answer = Answer("1.jpg", 9, 9, (Piece(number, "top", 0.9, box, products),))
        facts, decided = {}, FindOptions(**options).decided(tells_pixels=True)
        find_report(str(tmp_path / "page.html"), store, Catalog(store), [(answer, None)], 1, facts, decided)
        page = BeautifulSoup((tmp_path / "page.html").read_text(encoding="utf-8"), "html.parser").get_text()
        if said and products:
            assert said in page
        else:
            assert "searched for as" not in page
