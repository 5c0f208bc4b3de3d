"""Pairs that a training changed: the largest changes first, worse and better apart, with the pictures of both answers."""

import numpy as np
import pytest
from bs4 import BeautifulSoup

from tests.unit.gallery.stores import append, pictures
from w2w import schema
from w2w.training.encoders.flow import Measured, PairTable
from w2w.training.encoders.flow_shown import changed
from w2w.training.page import Figures, encoder_report

NUM, K = 15, 8
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def table(tmp_path) -> PairTable:
    store, images = str(tmp_path / "tables"), pictures(2 * NUM)
    append(
        store,
        schema.GARMENTS,
        [{"garment_id": f"g{i}", "crop": images[i], "box_xyxy": [0.0] * 4, "stage_version": "1"} for i in range(NUM)],
    )
    append(store, schema.IMAGES, [{"image_id": f"i{i}", "bytes": images[NUM + i], "fetched_at": 0} for i in range(NUM)])
    given = {"category": "top", "active": True, "title": EVIL, "fetched_at": 0}
    append(store, schema.PRODUCTS, [given | {"product_id": f"p{i}", "image_id": f"i{i}"} for i in range(NUM)])
    return PairTable(store, {"garments": 1, "images": 1}, (), None)


def measured(ranks: list[int]) -> Measured:
    """Each pair's picture at its rank, 0: not found; other pictures elsewhere."""
    relevant_QK = np.array([[rank == k + 1 for k in range(K)] for rank in ranks])
    found = [[f"i{q}" if rank == k + 1 else f"i{(q + k + 1) % NUM}" for k in range(6)] for q, rank in enumerate(ranks)]
    names, asked = np.array(["top"] * NUM), [f"g{q}" for q in range(NUM)]
    return Measured(relevant_QK, names, NUM, asked, found, [f"i{q}" for q in range(NUM)])


def test_the_largest_changes_come_first_and_at_most_ten(table):
    before, after = [1] * 12 + [0, 3, 2], [2, 0, 4, *[3] * 9, 1, 2, 2]
    worse, better = changed(table, measured(before), measured(after))
    assert [first.query_id for first, _ in worse] == ["g1", "g2", *(f"g{q}" for q in range(3, 11))]
    assert [first.query_id for first, _ in better] == ["g12", "g13"]  # and the last did not change
    first, second = worse[0]
    assert (first.said, second.said) == ("before: first right picture at rank 1", "after: none among the first 8")
    assert [card.mark != "" for card in first.hits] == [True, False, False, False, False, False]
    assert [card.product_id for card in second.hits][:2] == ["p1", "p2"]  # what was sought, then what was found
    assert second.hits[0].mark
    assert first.image
    assert all(card.image for card in first.hits)
    assert [card.mark != "" for card in better[0][0].hits] == [True, *[False] * 5]


def test_nothing_changed_is_nothing_to_show(table):
    assert changed(table, measured([1] * NUM), measured([1] * NUM)) == ([], [])


def test_the_page_shows_both_answers_of_each(table, tmp_path):
    changes = changed(table, measured([1] * NUM), measured([2, *[1] * (NUM - 1)]))
    row = {"value": 0.5, "ci_low": 0.1, "ci_high": 0.9}
    encoder_report(str(tmp_path / "p.html"), "t", {}, {}, {}, [Figures(n, ["R"], [(None, 1, [row])]) for n in "bag"], changes)
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    page = BeautifulSoup(text, "html.parser")
    assert "<script>alert" not in text
    assert [h.get_text() for h in page.select("h2")][:3] == [
        "What got worse",
        "Before and after, on the test pairs",
        "What got worse, pair by pair: 1",
    ]
    assert [p.get_text() for p in page.select(".said")] == [
        "before: first right picture at rank 1",
        "after: first right picture at rank 2",
    ]
    assert len(page.select(".query")) == 1
    assert len(page.select(".query .product")) == 12
