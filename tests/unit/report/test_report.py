"""Pages: nothing is loaded from outside, nothing from outside is trusted, and every state has a page."""

import re
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from bs4 import BeautifulSoup

from w2w import report
from w2w.cli.demo_page import run_report
from w2w.metrics import retrieval
from w2w.report import page as page_engine
from w2w.report.cards import Piece, product_card
from w2w.report.evaluation import Protocol, evaluation_report
from w2w.report.page import thumbnail
from w2w.search.page import QueryResult, search_report

EVIL = '<script>alert("x")</script><img src=http://evil.example/x onerror=alert(1)>'
PICTURE = simplejpeg.encode_jpeg(np.full((300, 200, 3), 120, np.uint8))


def page(path) -> BeautifulSoup:
    """The page, after checks that hold for each of them."""
    text = path.read_text(encoding="utf-8")
    soup = BeautifulSoup(text, "html.parser")
    assert soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"].startswith("default-src 'none'")
    for tag in soup.find_all(True):
        for name in ("src", "href", "action", "data"):
            assert str(tag.get(name, "data:")).startswith(("data:image/jpeg;base64,", "#", "search/", "data:"))
        assert not any(name.startswith("on") for name in tag.attrs)
    assert "url(" not in text
    assert "alert(" not in "".join(s.get_text() for s in soup.find_all("script"))
    return soup


def test_contact_sheet(tmp_path):
    hits = [
        product_card({"product_id": "p1", "title": EVIL}, PICTURE, "right answer", ["1", EVIL]),
        product_card({"product_id": "p2", "title": "plain"}, b"no image"),
        product_card({"product_id": "p3"}, None),
    ]
    queries = [
        QueryResult(EVIL, PICTURE, EVIL, hits, True, right=True),
        QueryResult("q2", None, "top", [hits[1]], True),
        QueryResult("q3", None, "bag", [], False),
    ]
    search_report(str(tmp_path / "r.html"), EVIL, {"model": EVIL, "rows": 1234567}, queries, 500, "sku and colour")
    soup = page(tmp_path / "r.html")
    assert len(soup.select("section.asked")) == 3
    assert len(soup.select(".product.sought")) == 1
    assert soup.select_one(".query .mark").get_text() == "✓ right answer"  # said by a sign and words, not by colour alone
    assert "1 / 2 shown queries whose nearest product has their sku and colour" in " ".join(soup.get_text(" ").split())
    assert "Not counted: 1 of the shown queries" in soup.get_text()
    assert "Similarity is 1 for the very same picture" in soup.get_text()
    assert all(image["alt"] for image in soup.select("img"))
    assert len(soup.select("section.asked[data-miss='1']")) == 1
    assert EVIL in soup.h1.get_text()
    assert "3 of 500 queries are shown" in soup.get_text()
    assert "1,234,567" in soup.get_text()
    assert "Nothing was found." in soup.get_text()


def test_contact_sheet_without_queries(tmp_path):
    search_report(str(tmp_path / "r.html"), "empty", {}, [], 0, "")
    assert "There are no queries to show." in page(tmp_path / "r.html").get_text()


def test_evaluation(tmp_path):
    rng = np.random.default_rng(0)
    truth = np.array(["top", EVIL, "top"], dtype=object)
    predicted = np.array(["top", "top", EVIL], dtype=object)
    protocols = [
        Protocol("in-shop", "same sku", retrieval.evaluate(np.eye(3, 5, dtype=bool), np.ones(3, int), truth, (1, 5), rng)),
        Protocol(
            "1-NN",
            EVIL,
            retrieval.class_accuracy(truth, predicted, truth, rng),
            (retrieval.confusion(truth, predicted, ["top", EVIL]), ["top", EVIL]),
        ),
    ]
    evaluation_report(str(tmp_path / "e.html"), "evaluation", {"recall@1": "0.500 [0.400, 0.600] of 3"}, protocols)
    soup = page(tmp_path / "e.html")
    assert [h.get_text() for h in soup.find_all("h2")] == ["in-shop", "1-NN", "Confusion matrix"]
    assert soup.select_one(".tiles").find_next_sibling().get_text().startswith("Recall@k: the share of queries")
    assert len(soup.select("table.heat tr")) == 3
    assert "0.333" in soup.get_text()


def test_a_learning_rate_is_not_nothing():
    numbers = (0.00003, -0.0004, 0.0005, 0.0, 1e-17, 12345, 12345.678)
    assert [page_engine._number(n) for n in numbers] == ["3e-05", "-0.0004", "0.001", "0.000", "0.000", "12,345", "12,345.7"]


def test_a_figure_without_an_interval_is_a_number_alone(tmp_path):
    row = {
        "group": None,
        "metric": "recall",
        "k": 1,
        "value": 0.5,
        "ci_low": float("nan"),
        "ci_high": float("nan"),
        "num_queries": 1,
    }
    table = retrieval.METRICS_SCHEMA.empty_table().from_pylist([row], retrieval.METRICS_SCHEMA)
    evaluation_report(str(tmp_path / "e.html"), "evaluation", {}, [Protocol("in-shop", "same sku", table)])
    soup = page(tmp_path / "e.html")
    assert "0.500" in soup.get_text()
    assert (soup.select("svg"), "nan" in soup.get_text()) == ([], False)


def test_run(tmp_path):
    job = {
        "job": "ingest",
        "rows_in": 3,
        "rows_out": 2,
        "rejects": {"empty": 1},
        "skipped": 0,
        "seconds": 1.5,
        "rows_per_s": 2.0,
    }
    plan = {
        "factory": "PCA64,SQ8",
        "recall": 0.98,
        "memory_mb": 3.0,
        "latency_ms": 0.1,
        "build_s": 2.0,
        "note": "",
        "chosen": True,
    }
    hits = [
        product_card({"product_id": "p", "title": EVIL}, PICTURE, "it is this one"),
        product_card({"product_id": "q"}, None),
    ]
    garment = {"number": 1, "name": EVIL, "picture": thumbnail(PICTURE), "hits": hits}
    wear = [{"pieces": [Piece("top", thumbnail(PICTURE), EVIL)], "says": EVIL, "score": 0.75}]
    opening = {"photo": thumbnail(PICTURE), "alt": EVIL, "garments": [garment], "wear": wear}
    links = {"contact sheet": "search/report.html"}
    run_report(
        str(tmp_path / "d.html"),
        "demo",
        EVIL,
        [job | {"facts": {"index": EVIL}}],
        {"tops": [plan], "none": []},
        opening,
        links,
    )
    soup = page(tmp_path / "d.html")
    assert "it is this one" in soup.select_one(".garment .sought").get_text()
    assert soup.main.find("section") == soup.main.find_all(True, recursive=False)[1]  # the look opens the page
    assert "0.75" in soup.select_one(".sets figure").get_text()
    assert soup.select_one("details table") is not None
    assert all(img["alt"] for img in soup.select("img"))
    assert "PCA64,SQ8" in soup.get_text()
    assert "1 empty" in soup.get_text()


@pytest.mark.parametrize("data", [None, b"", b"<html>", PICTURE[:200]])
def test_what_cannot_be_decoded_has_no_thumbnail(data):
    assert thumbnail(data) is None


def test_a_thumbnail_is_encoded_anew():
    tagged = PICTURE[:2] + b"\xff\xfe\x00\x0asecret!!" + PICTURE[2:]
    assert "secret" not in str(__import__("base64").b64decode(thumbnail(tagged).partition(",")[2]))


def test_no_grid_is_wider_than_a_phone():
    for template in Path(report.__file__).parents[1].rglob("*.j2"):
        widths = re.findall(r"minmax\((\d+)px", template.read_text(encoding="utf-8"))
        assert all(int(width) < 300 for width in widths), f"{template.name}: wrap it in min(..., 100%)"
