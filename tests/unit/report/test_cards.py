"""The parts that all pages share: a product card, an outfit, a picture stored once, a page that is never too large."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from bs4 import BeautifulSoup
from PIL import Image

from w2w import report
from w2w.report import page
from w2w.report.cards import Piece, price_text, product_card, ranked, web_link

EVIL = '"><script>alert(1)</script>'
RED, BLUE = (simplejpeg.encode_jpeg(np.full((300, 200, 3), c, np.uint8)) for c in ((200, 0, 0), (0, 0, 200)))
TEMPLATES = sorted(Path(report.__file__).parents[1].rglob("*.j2"))
STYLE = (Path(report.__file__).parent / "style.css.j2").read_text(encoding="utf-8")
TEMPLATE = """{% extends "report/base.html.j2" %}{% from "report/parts.html.j2" import product, composition, picture %}
{% block content %}{% for c in cards %}{{ product(c) }}{% endfor %}{{ composition(pieces) }}{% endblock %}"""


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """Renders cards and pieces; gives the parsed page and its file."""
    monkeypatch.setattr(page._environment, "loader", _with(page._environment.loader))

    def show(cards=(), pieces=()):
        file = tmp_path / "page.html"
        page.write_page(str(file), "test.html.j2", title="t", cards=cards, pieces=pieces)
        return BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser"), file

    return show


def _with(loader):
    from jinja2 import ChoiceLoader, DictLoader

    return ChoiceLoader([DictLoader({"test.html.j2": TEMPLATE}), loader])


def test_a_card_says_what_a_product_is(shown):
    row = {"product_id": "a" * 64, "title": "Red <b>dress</b>", "brand": "東風", "price": 1234.5, "currency": "EUR"}
    sought = product_card(row | {"url": "https://shop.example/1?a=1&b=2"}, RED, mark="it is this one", notes=["1", "0.912"])
    soup, _ = shown([sought, product_card({"product_id": "p2", "url": "javascript:alert(1)", "title": None}, b"<html>")])
    first, second = soup.select(".product")
    assert first.select_one(".name").get_text() == first.select_one(".name")["title"] == "Red <b>dress</b>"
    assert first.select_one("a")["href"] == "https://shop.example/1?a=1&b=2"
    assert first.select_one(".price").get_text() == "1,234.50 EUR"
    assert first.select_one(".id")["title"] == "a" * 64
    assert first.select_one(".id").get_text() == "a" * 12 + "…"
    assert first.select_one("img")["alt"] == "Red <b>dress</b>"
    assert "1 · 0.912" in first.get_text()
    assert ("sought" in first["class"], first.select_one(".mark").get_text()) == (True, "✓ it is this one")
    assert ("sought" in second["class"], second.select(".mark, a, img, .price")) == (False, [])
    assert second.select_one("[role=img]")["aria-label"] == "no picture: p2"
    assert second.get_text(" ", strip=True) == "no picture p2"  # without a title its id stands once


def test_hostile_rows_are_text(shown):
    row = dict.fromkeys(["product_id", "title", "brand", "currency"], EVIL)
    soup, _ = shown([product_card(row, RED, mark=EVIL, notes=[EVIL])], [Piece("top", None, EVIL)])
    assert all("alert" not in script.get_text() for script in soup.select("script"))
    assert soup.select_one(".name").get_text() == EVIL


@pytest.mark.parametrize(
    ("price", "currency", "text"),
    [
        (9, "EUR", "9.00 EUR"),
        (12000, "JPY", "12,000 JPY"),
        (9.5, None, "9.50"),
        (None, "EUR", ""),
        (float("nan"), "EUR", ""),
        (float("inf"), "EUR", ""),
    ],
)
def test_prices(price, currency, text):
    assert price_text(price, currency) == text


def test_only_web_addresses_are_links():
    assert web_link("HTTPS://shop.example/") == "HTTPS://shop.example/"
    assert [web_link(u) for u in (None, "", "data:text/html,x", " javascript:alert(1)", "s3://b/k", "//evil.example")] == [
        None
    ] * 6


def test_a_picture_is_stored_once_and_shown_as_often_as_it_is_used(shown):
    cards = [product_card({"product_id": f"p{i}"}, RED if i % 2 else BLUE) for i in range(10)]
    soup, file = shown(cards)
    images = soup.select(".product img")
    stored = {i["data-picture"]: i["src"] for i in images if i.get("src")}
    assert len(stored) == 2
    assert [i.get("src") or stored[i["data-again"]] for i in images] == [c.image for c in cards]
    assert file.read_text().count("base64,") == 2


def test_a_page_that_would_be_too_large_has_smaller_pictures(shown):
    rng = np.random.default_rng(0)
    noise = [simplejpeg.encode_jpeg(rng.integers(0, 255, (300, 240, 3), np.uint8)) for _ in range(40)]
    cards = [product_card({"product_id": f"p{i}"}, data) for i, data in enumerate(noise)]
    page._MOST_BYTES, kept = 600_000, page._MOST_BYTES
    try:
        soup, file = shown(cards)
    finally:
        page._MOST_BYTES = kept
    assert 400_000 < file.stat().st_size <= 600_000
    sides = {max(_opened(i["src"]).size) for i in soup.select(".product img[src]")}
    assert len(soup.select(".product img")) == 40
    assert all(page._LEAST_SIDE_PX <= side < 240 for side in sides)


def _opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_an_outfit_says_which_piece_was_changed(shown):
    uri = page.thumbnail(RED)
    soup, _ = shown([], [Piece("dress", uri, "a dress"), Piece("shoes", None, "shoes, replaced", changed=True)])
    dress, shoes = soup.select(".outfit > *")
    assert {"dress"} < set(dress["class"])
    assert "changed" not in dress["class"]
    assert {"shoes", "changed", "none"} < set(shoes["class"])


def test_a_page_of_a_run_is_also_the_latest(tmp_path):
    for run in ("audit-1", "audit-2"):
        uri = page.page_of(str(tmp_path / "reports"), "audit", run)
        assert uri == str(tmp_path / "reports" / "reports" / "audit" / run / "index.html")
        page.write_page(uri, "mining/audit/page.html.j2", title=run, facts={}, counts=[], leaks=[], num_leaks=0)
    folder = tmp_path / "reports" / "reports" / "audit"
    assert sorted(p.name for p in folder.iterdir()) == ["audit-1", "audit-2", "latest.html"]
    assert (folder / "latest.html").read_bytes() == (folder / "audit-2" / "index.html").read_bytes()
    assert not (tmp_path / "reports" / "latest.html").exists()


def test_one_visual_language():
    """Sizes and colours have names, and these stand in one file; what a template draws in is black or white."""
    sizes = set(re.findall(r"--\w+: \d+px", STYLE))
    assert len(sizes) == 4
    for template in TEMPLATES:
        text = template.read_text(encoding="utf-8")
        assert set(re.findall(r"font(?:-size)?: *([^ ;/]+)", text)) <= {
            "inherit",
            *(f"var({s.partition(':')[0]})" for s in sizes),
        }
        if template.name != "style.css.j2":
            assert not set(re.findall(r"(?<!&)#[0-9a-f]{3,6}\b", text)) - {"#fff", "#000"}, template
        assert set(re.findall(r"var\((--\w+)\)", text)) <= set(re.findall(r"(--\w+):", STYLE)), template


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast(scheme):
    """WCAG 2.2, 1.4.3: text has 4.5 : 1 against what it stands on."""
    colours = dict(re.findall(r"--(\w+): (#\w{6})", re.findall(r":root \{.*?\}", STYLE)[scheme]))
    for text in ("ink", "faint", "accent", "warn"):
        for ground in ("ground", "card"):
            assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


def _contrast(one: str, other: str) -> float:
    dark, light = sorted(map(_luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_links_to_other_jobs_pages_hold_from_the_latest_page_too(tmp_path):
    uri = page.page_of(str(tmp_path), "night", "night-1")
    facts = {"why": 'href="../../../../etc/passwd"'}
    page.write_page(uri, "mining/audit/page.html.j2", title="a", facts=facts, counts=[], leaks=[], num_leaks=0)
    latest = (tmp_path / "reports" / "night" / "latest.html").read_text()
    assert "href=&#34;../../../../etc/passwd" in latest  # what a page says is never an address


def test_numbers_of_a_found_product_have_names():
    assert ranked(3, 0.4567) == ("similarity 0.46", "rank 3")
    assert ranked(None, 0.4567) == ("similarity 0.46",)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (59.97, "1 min 0 s"), (123.8, "2 min 4 s"), (3600, "1 h 0 min"), (4000, "1 h 6 min")],
)
def test_a_time_has_its_unit(seconds, said):
    assert page.duration(seconds) == said


def test_figures_are_explained_by_their_names():
    said = page.explained(["Recall@1", "fine recall@5", "MRR"])
    assert said.startswith("Recall@k: the share of queries")
    assert (said.count("Recall@k"), said.count("MRR"), said.count("nDCG")) == (1, 1, 0)
    assert page.explained(["loss", "recaller"]) == ""
