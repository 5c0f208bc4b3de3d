"""The shared parts in a headless Chromium: nothing wrong at any width, pictures enlarge by mouse and keyboard."""

import time
from datetime import UTC, datetime

import numpy as np
import pytest
import simplejpeg

from tests import chromium
from w2w.report import cards
from w2w.search.answers import read_answers
from w2w.search.page import QueryResult, search_report

pytestmark = pytest.mark.skipif(chromium.program() is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def sheet(tmp_path_factory):
    """A search page: 12 queries that share their pictures, hostile titles, long ids."""
    pictures = [simplejpeg.encode_jpeg(np.full((300, 200 + 9 * i, 3), 20 * i, np.uint8)) for i in range(8)]
    title = 'Very long title " <img src=http://evil.example/x onerror=alert(1)> ' + "w" * 200
    row = {"title": title, "brand": "O'Hara & <b>sons</b>", "price": 1e9, "currency": "EUR", "url": "https://shop.example/"}
    hits = [
        cards.product_card(row | {"product_id": str(i) * 64}, data, "right answer" if i == 3 else "", ["1", "0.9", "w" * 40])
        for i, data in enumerate(pictures)
    ]
    queries = [QueryResult(f"{i}" + "q" * 80, pictures[i % 8], "top<b>", hits, True, right=bool(i % 2)) for i in range(12)]
    file = tmp_path_factory.mktemp("page") / "search.html"
    search_report(str(file), "What was found: " + "w" * 99, {"store": "s3://" + "b" * 99}, queries, 12, "sku")
    return file


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", chromium.WIDTHS)
def test_nothing_is_wrong(browser, sheet, width, dark):
    shown = browser.page(width, dark)
    shown.open(sheet.as_uri())
    assert shown.faults() == []
    assert shown.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")  # also those stored once


def test_faults_are_seen(browser, tmp_path):
    """What the other tests rely on: a page with every mistake."""
    bad = """<img src="http://evil.example/x.png"><button></button><a href="#"> </a><input id="a"><p id="a">
    <div style="width: 3000px">wide</div><script>console.error("said"); missing();</script>"""
    (tmp_path / "bad.html").write_text(bad)
    shown = browser.page(390)
    shown.open((tmp_path / "bad.html").as_uri())
    found = "\n".join(shown.faults())
    for fault in ("no alt", "no name: <button", "no name: <a", "no name: <input", "id twice: a", "no language", "not one h1"):
        assert fault in found
    for fault in ("px too wide", "outside request: http://evil.example/x.png", "said", "missing is not defined"):
        assert fault in found


def test_pictures_are_enlarged_by_mouse_and_keyboard(browser, sheet):
    shown = browser.page()
    shown.open(sheet.as_uri())
    shown.evaluate("document.querySelectorAll('.product .picture')[9].click()")  # a picture that is stored elsewhere
    big = "document.querySelector('dialog[open] img')"
    assert shown.evaluate(f"{big}.naturalWidth") > 0
    assert shown.evaluate(f"{big}.alt").startswith("Very long title")
    shown.press("Escape")
    shown.until("document.querySelectorAll('dialog').length === 0")
    shown.evaluate("document.querySelector('.product .picture').focus()")
    shown.press("Enter")
    assert shown.evaluate(f"{big} !== null")
    shown.press("Enter")  # on the only thing there is to press: close
    shown.until("document.querySelectorAll('dialog').length === 0")


def test_misses_and_classes_are_filtered(browser, sheet):
    shown = browser.page()
    shown.open(sheet.as_uri())
    count = "[...document.querySelectorAll('.asked')].filter((q) => q.offsetHeight).length"
    assert shown.evaluate(count) == 12
    shown.evaluate("document.querySelector('[data-misses]').click()")
    assert shown.evaluate(count) == 6
    assert shown.evaluate("document.querySelector('[data-misses]').getAttribute('aria-pressed')") == "true"


def test_answers_are_judged_saved_and_read(browser, sheet, tmp_path):
    """From the click to the rows of `judgements`: what the page saves is what `w2w judge-answers` reads."""
    shown = browser.page()
    shown.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    shown.open(sheet.as_uri())
    press = "[...document.querySelectorAll('button')].filter((b) => b.textContent === {!r})[{}].click()"
    shown.evaluate(press.format("judge the answers", 0))
    assert shown.faults() == []
    for text, number in (("same", 0), ("similar", 1), ("similar", 1), ("similar", 2), ("same", 2)):  # twice: taken back
        shown.evaluate(press.format(text, number))
    assert shown.evaluate("document.querySelector('[role=status]').textContent") == "2 judged"
    assert shown.evaluate("document.querySelectorAll('button[aria-pressed=true]').length") == 3  # with "all" of the filters
    shown.evaluate(press.format("save", 0))
    file, end = tmp_path / "judgements.json", time.monotonic() + 20
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.05)
    kind, rows = read_answers(file.read_bytes(), "f", datetime.now(UTC))
    assert (kind, rows.column("verdict").to_pylist()) == ("feed", ["same", "same"])
    assert rows.column("product_id").to_pylist() == ["0" * 64, "2" * 64]
    shown.open("about:blank")
    shown.open(sheet.as_uri())  # what was clicked is still there
    shown.evaluate(press.format("judge the answers", 0))
    assert shown.evaluate("document.querySelector('[role=status]').textContent") == "2 judged"
    shown.evaluate(press.format("not ours", 0))  # all that was said of the query's products is taken back
    assert shown.evaluate("document.querySelector('[role=status]').textContent") == "1 judged"
