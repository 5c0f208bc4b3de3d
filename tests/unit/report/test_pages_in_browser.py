"""Pages of measuring and training in a headless Chromium: nothing is wrong with hostile, long and wide values at any width."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import simplejpeg

from tests import chromium
from w2w.evaluation.compare import Gain
from w2w.evaluation.page import Board, compare_page, leaderboard_page
from w2w.garments.page import Box, Seen
from w2w.metrics.detection import AP_SCHEMA
from w2w.metrics.retrieval import METRICS_SCHEMA
from w2w.mining.audit.page import Leak, audit_report
from w2w.mining.outfits.page import Piece, Worn, outfit_sheet
from w2w.mining.pairs.page import Counted, Pair, Reason, Rejected, Side, mining_report
from w2w.report.cards import product_card
from w2w.report.evaluation import Failure, Protocol, evaluation_report
from w2w.report.page import thumbnail
from w2w.training.lookbook.page import Found, lookbook_report
from w2w.training.outfits.page import Judged, PublishedTable, compatibility_report
from w2w.training.page import Curve, Figures, detector_report, encoder_report

pytestmark = pytest.mark.skipif(chromium.program() is None, reason="no Chromium on this machine")
EVIL = "<img src=http://evil.example/x onerror=alert(1)> " + "w" * 120
PICTURE = simplejpeg.encode_jpeg(np.full((300, 60, 3), 90, np.uint8))
KS = (1, 5, 10, 20, 50)


def failure(said: str) -> Failure:
    row = {"title": EVIL, "brand": EVIL, "price": 123456789.0, "currency": "EUR", "url": "https://shop.example/"}
    hits = [
        product_card(
            row | {"product_id": f"{i}" * 64}, PICTURE, "right answer" if i == 2 else "", ["1", EVIL], "3 colours", [row]
        )
        for i, row in enumerate([row | {"product_id": "q" * 64}] * 6)
    ]
    return Failure("q" * 64, EVIL, thumbnail(PICTURE), said, hits)


def figure(value: float, **more: object) -> dict:
    return {"value": value, "ci_low": value - 0.1, "ci_high": value + 0.1} | more


def evaluation(out: str) -> None:
    rows = [
        figure(0.5, group=group, metric=name, k=k, num_queries=12345)
        for group in (None, EVIL, "top")
        for name in ("recall", "nDCG")
        for k in KS
    ]
    table = pa.Table.from_pylist(rows, METRICS_SCHEMA)
    labels = [f"{name} {EVIL}" for name in "abcdefgh"]
    matrix = np.arange(64).reshape(8, 8)
    worst = [failure(EVIL)] * 2
    protocols = [Protocol(EVIL, EVIL, table, worst=worst), Protocol("classes", "says", table, (matrix, labels), worst=worst)]
    evaluation_report(out, EVIL, {f"recall@{k}": "0.512 [0.123, 0.987] of 12,345" for k in KS}, protocols)


def comparison(out: str) -> None:
    gains = [
        Gain(group, name, 0.5, 0.4, -0.1, -0.2, 0.1, 12345) for name in ("recall@1", EVIL) for group in (None, EVIL, "top")
    ]
    pairs = [(failure("A"), failure(EVIL))]
    photos = [tuple(Failure("q", EVIL, thumbnail(PICTURE), side, None) for side in "AB")]
    compare_page(out, EVIL, True, (EVIL, "B"), {"set": EVIL}, gains, (pairs, photos))


def encoder(out: str) -> None:
    rows = [(group, 99, [figure(0.5)] * 5) for group in (None, EVIL, "top")]
    worse = [(group, 99, [figure(-0.2)] * 5) for group in (None, EVIL, "top")]
    names = [f"Recall@{k}" for k in KS]
    tables = [Figures(when, names, some) for when, some in (("before", rows), ("after", rows), ("gain", worse))]
    lines = {"Loss": [Curve(EVIL, [(1, 2.0), (2, 1.0)]), Curve("b", [(1, 1.0), (2, 1.0)])]}
    changes = [(failure("before"), failure("after"))] * 2
    encoder_report(out, EVIL, dict.fromkeys(names, "0.500 → 0.400"), {"model": EVIL}, lines, tables, (changes, changes))


def scorer(out: str) -> None:
    rows = [{"threshold": t / 10, "worn": 0.75, "modified": 0.125, "told": 0.8125} for t in range(5, 10)]
    theirs = PublishedTable(
        [{"threshold": 0.7, "original": 0.25, "modified": 0.1, "pair": 0.3}], {0.7: (0.4,) * 3}, np.ones(9), 0.3
    )
    made = Judged(EVIL, EVIL, {"AUC": 0.9, "FITB": 0.5}, np.linspace(0, 1, 50), np.linspace(-1, 0, 50), rows, published=theirs)
    lines = {"Loss": [Curve("score of worn", [(1, 2.0), (2, 1.0)])]}
    compatibility_report(out, EVIL, [EVIL], {"model": EVIL}, [made], lines)


def leaderboard(out: str) -> None:
    from datetime import UTC, datetime

    given = {"model": EVIL, "model_version": "v" * 64, "num_queries": 12345, "evaluated_at": datetime.now(UTC)}
    rows = [figure(0.5, metric="recall", k=k, **given) for k in KS]
    leaderboard_page(out, [Board("street2shop", EVIL, "test", "d" * 64, [rows, rows])])


def detector(out: str) -> None:
    rows = [
        {"source": None, "category": group, "metric": name, "value": 0.5, "num_truths": 12345}
        for group in (None, EVIL)
        for name in ("mAP", "AP50", "AP75")
    ]
    lines = {"Loss": [Curve(EVIL, [(1, 2.0), (20000, 1.0)])]}
    seen = [Seen(EVIL, PICTURE, [Box("top", EVIL, 0.9, (4, 4, 30, 30))]), Seen("q" * 64, PICTURE)]
    detector_report(out, EVIL, {EVIL: "0.812, 0.701"}, {EVIL: EVIL}, lines, pa.Table.from_pylist(rows, AP_SCHEMA), seen)


def lookbook(out: str) -> None:
    picture = np.full((20, 20, 3), 90, np.uint8)
    pairs = [{"of": EVIL, "number": 40, "precision": 0.5, "true positives": 123456789}]
    top = [{"of": EVIL, "products": 7, "k": k, "value": 0.5, "ci_low": 0.125, "ci_high": 0.875} for k in KS]
    found = Found(pairs, top, [(picture, [(picture, i == 2) for i in range(5)])] * 2, [picture] * 2)
    lookbook_report(out, EVIL, EVIL, {EVIL: "0.5"}, {EVIL: EVIL}, {"Loss": [Curve(EVIL, [(1, 2.0), (2, 1.0)])]}, found)


def mining(out: str) -> None:
    side = Side(EVIL, PICTURE, EVIL)
    seen = Seen("p", PICTURE, [Box("top", EVIL, 0.9, (4, 4, 30, 30))])
    reason = Reason("not_detected", EVIL, EVIL, 12345, [Rejected(EVIL, seen, side, "https://posts.example/")])
    pair = Pair(EVIL, "train", side, side, (EVIL, "score 0.91"), (side,) * 8, "https://posts.example/")
    counted = Counted({EVIL: {"train": 12345, "val": 1, "test": 1}}, {EVIL: 12345})
    mining_report(out, {EVIL: "1"}, {EVIL: EVIL}, counted, [reason], [pair], [pair], {"top": "#e69f00"})


def outfits(out: str) -> None:
    pieces = tuple(Piece(slot, EVIL, PICTURE, EVIL, slot == "top") for slot in ("top", "bottom", "shoes"))
    outfit_sheet(out, EVIL, {EVIL: 1}, {EVIL: EVIL}, [Worn("o" * 64, "test", pieces, (pieces,) * 3)])


def audit(out: str) -> None:
    leak = Leak(EVIL, "p" * 64, ("train", "test"), ((PICTURE, EVIL), (None, EVIL)), EVIL)
    audit_report(out, EVIL, {EVIL: EVIL}, [(EVIL, "train, test", 12345)], [leak], 12345)


PAGES = [evaluation, comparison, encoder, scorer, leaderboard, detector, lookbook, mining, outfits, audit]


@pytest.mark.parametrize("write", PAGES, ids=lambda f: f.__name__)
def test_nothing_is_wrong(browser, tmp_path, write: Callable[[str], None]):
    file = Path(tmp_path / "page.html")
    write(str(file))
    for width in chromium.WIDTHS:
        for dark in (False, True):
            page = browser.page(width, dark)
            page.open(file.as_uri())
            assert page.faults() == [], f"{width} px, {'dark' if dark else 'light'}"


def test_long_names_of_classes_leave_room_for_figures(browser, tmp_path):
    file = Path(tmp_path / "page.html")
    evaluation(str(file))
    page = browser.page(chromium.WIDTHS[1])
    page.open(file.as_uri())
    for selector, most in ((".query .photo b", 128), (".heat .turn", 192), (".heat tr:last-child th", 40)):
        heights = page.evaluate(f"[...document.querySelectorAll({selector!r})].map((e) => e.getBoundingClientRect().height)")
        assert heights
        assert max(heights) <= most, selector


def test_an_interval_and_a_date_are_broken_nowhere(browser, tmp_path):
    file = Path(tmp_path / "page.html")
    leaderboard(str(file))
    lines = """[...document.querySelectorAll('.cell .faint, td.whole')].map((e) => {
      const inside = document.createRange();
      inside.selectNodeContents(e);
      return inside.getClientRects().length;
    })"""
    for width in chromium.WIDTHS:
        page = browser.page(width)
        page.open(file.as_uri())
        assert page.evaluate(lines) == [1] * 12


@pytest.mark.parametrize("write", [encoder, scorer], ids=lambda f: f.__name__)
def test_charts_are_seen_whole_and_named_on_a_phone(browser, tmp_path, write: Callable[[str], None]):
    file = Path(tmp_path / "page.html")
    write(str(file))
    for width in chromium.WIDTHS:
        page = browser.page(width)
        page.open(file.as_uri())
        boxes = page.evaluate("[...document.querySelectorAll('svg.plot')].map((e) => e.getBoundingClientRect().toJSON())")
        assert boxes
        assert all(0 <= box["left"] < box["left"] + 100 < box["right"] <= width for box in boxes)
        words = "[...document.querySelectorAll('.along, .of-phone, .chart .shape')].filter((e) => e.checkVisibility())"
        said = page.evaluate(f"{words}.map((e) => e.textContent).join()")
        assert ("step 1" in said, "1.000" in said) == (True, True)
        assert "Beside the name of a line: its last value." in page.evaluate("document.body.innerText")
