"""The shared styles in a headless Chromium: what stands where, on a desk and on a phone."""

import base64
import io

import numpy as np
import pytest
import simplejpeg
from jinja2 import ChoiceLoader, DictLoader
from PIL import Image

from tests import chromium
from w2w.report import page
from w2w.report.cards import Piece, product_card
from w2w.report.page import thumbnail

pytestmark = pytest.mark.skipif(chromium.program() is None, reason="no Chromium on this machine")
PICTURE = simplejpeg.encode_jpeg(np.full((300, 200, 3), 90, np.uint8))
DESK, PHONE = chromium.WIDTHS
TEMPLATE = """{% extends "report/base.html.j2" %}
{% from "report/parts.html.j2" import change, composition, fact_list, line, query_row, tile_list %}
{% block content %}{{ tile_list(tiles) }}
<div class="sets">{% for pieces in outfits %}<figure>{{ composition(pieces) }}</figure>{% endfor %}</div>
{% for cards in rows %}{{ line(cards) }}{% endfor %}{{ query_row("q1", "top", image, rows[0]) }}
<div class="scroll"><table><tr><td>{{ name }}</td><td class="n" id="figure">12,345</td><td class="shape">bar</td></tr>
<tr><td>top</td>
<td id="change">{{ change(gain) }}</td>{% for _ in range(9) %}<td>{{ change(gain) }}</td>{% endfor %}</tr></table></div>
{{ fact_list(facts) }}{% endblock %}"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    sold = {"title": "Green camouflage shirt dress with a belt", "price": 1234.5, "currency": "EUR"}
    brands = ("東風", "O'Hara", "Fjord & Co of the North " * 3, "w" * 99, None, "A", "B")
    others = {2: {"title": "قميص نسائي أنيق من الكتان مع أزرار وجيب"}, 3: {"brand": None, "price": None}, 5: {"price": None}}
    cards = [
        product_card(
            sold | {"product_id": f"p{i}", "brand": brand} | others.get(i, {}),
            PICTURE,
            "right answer" if i == 1 else "",
            ["similarity 0.50"],
        )
        for i, brand in enumerate(brands)
    ]
    image = thumbnail(PICTURE)
    outfit = [Piece(slot, image, slot) for slot in ("top", "bottom", "shoes")]
    file = tmp_path_factory.mktemp("layout") / "page.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page._environment, "loader", ChoiceLoader([DictLoader({"t": TEMPLATE}), page._environment.loader]))
        values = {"tiles": {"Recall@1": "0.631 → 0.615", "shown queries whose nearest product has their sku": 12}}
        values |= {"outfits": [outfit] * 5, "image": image}
        values |= {"rows": [cards[:6], cards[:4]], "name": "w" * 300, "facts": {"of": "such as " + "a1" * 32 + ": none"}}
        gain = {"before": 0.8, "after": 0.6, "gain": -0.2, "low": -0.6, "high": 0.0}
        page.write_page(str(file), "t", title="t", gain=gain, **values)
    return file


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def shown(request, browser, file):
    tab = browser.page(request.param)
    tab.open(file.as_uri())
    assert tab.faults() == []
    tab.width = request.param
    return tab


def boxes(tab, selector: str) -> list[dict]:
    """Where those that are seen stand: left, right, top and bottom, in pixels."""
    return tab.evaluate(
        f"[...document.querySelectorAll({selector!r})].map((e) => e.getBoundingClientRect().toJSON()).filter((b) => b.width)"
    )


def test_a_mark_hides_no_picture_and_is_seen_whole(shown):
    marks, pictures = boxes(shown, ".line .sought > .mark"), boxes(shown, ".line .sought > .picture")
    lines = boxes(shown, ".line:has(.mark)")
    assert len(marks) == len(pictures) == len(lines) == 3
    for mark, picture, line in zip(marks, pictures, lines):
        assert line["top"] <= mark["top"] < mark["bottom"] <= picture["top"]


def test_cards_are_equally_wide_however_many_a_row_has(shown):
    widths = {round(box["width"]) for box in boxes(shown, "main > .line .product")}
    assert len(widths) == 1
    assert 136 <= widths.pop() <= 200


def test_prices_of_a_row_stand_on_one_height(shown):
    tops = [round(box["top"]) for box in boxes(shown, ".line .price")[:4]]
    assert len(set(tops)) == 1


def test_what_is_said_of_products_stands_on_one_height_also_where_one_has_no_price(shown):
    tops = [round(box["top"]) for box in boxes(shown, ".line .product > .row:last-child")[:6]]
    assert len(set(tops)) == 1


def test_an_arabic_title_is_set_from_right_to_left(shown):
    said = "[...document.querySelectorAll('.line .name')].slice(0, 4).map((e) => getComputedStyle(e).direction)"
    assert shown.evaluate(said) == ["ltr", "ltr", "rtl", "ltr"]


def test_two_outfits_stand_side_by_side_on_a_phone(shown):
    first, second, *_ = boxes(shown, ".sets .outfit")
    assert first["top"] == second["top"]
    assert first["right"] < second["left"] < second["right"] <= shown.width


def test_figures_at_the_head_stand_side_by_side(shown):
    first, second = boxes(shown, ".tile")
    assert first["top"] == second["top"]


def test_a_query_has_its_name_beside_it_on_a_phone(shown):
    (picture,), (name,) = boxes(shown, ".query > .photo .picture"), boxes(shown, ".query > .photo b")
    beside = name["left"] >= picture["right"]
    assert beside == (shown.width == PHONE)
    assert beside or name["top"] >= picture["bottom"]


def test_a_long_name_leaves_room_for_its_figures(shown):
    (figure,) = boxes(shown, "#figure")
    assert figure["left"] < shown.width * 0.75
    assert len(boxes(shown, "td.shape")) == (shown.width == DESK)  # a phone has no room for bars


def test_a_change_and_its_interval_are_broken_nowhere(shown):
    assert [round(box["height"]) < 30 for box in boxes(shown, "#change > .whole")] == [True, True]


def test_a_digest_among_facts_is_short_and_whole_on_hover(shown):
    said = "[...document.querySelectorAll('.facts [title]')].map((e) => [e.textContent, e.title])"
    assert shown.evaluate(said) == [["such as a1a1a1a1a1a1…: none", "such as " + "a1" * 32 + ": none"]]


def brightness(tab, box: dict) -> float:
    clip = {"x": box["right"] - 3, "y": box["top"], "width": 2, "height": box["height"], "scale": 1}
    shot = tab.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)["data"]
    return float(np.asarray(Image.open(io.BytesIO(base64.b64decode(shot))).convert("L")).mean())


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_wide_table_has_a_shaded_edge_until_its_last_column_is_seen(browser, file, dark):
    tab = browser.page(PHONE, dark)
    tab.open(file.as_uri())
    (box,) = boxes(tab, ".scroll")
    before = brightness(tab, box)
    tab.evaluate("document.querySelector('.scroll').scrollTo(9999, 0)")
    assert abs(brightness(tab, box) - before) > 20


def test_the_names_of_rows_stay_where_they_are_when_a_table_is_moved(shown):
    first = boxes(shown, ".scroll td:first-child")
    shown.evaluate("document.querySelector('.scroll').scrollTo(200, 0)")
    assert boxes(shown, ".scroll td:first-child") == first
