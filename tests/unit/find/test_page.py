"""The page of find: what it folds together, and that nothing hostile gets through."""

from pathlib import Path

from bs4 import BeautifulSoup

from tests.unit.gallery.stores import append, pictures
from w2w import ids, schema
from w2w.find.answers import Answer, Catalog, Piece
from w2w.find.page import find_report

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
    find_report(str(tmp_path / "page.html"), store, catalog, answers, 2, {"photos": 2})
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
