"""The static site in a headless Chromium, opened from its folder: nothing is wrong in any view, search, filters, keyboard."""

import pytest

from tests import chromium
from tests.unit.gallery.conftest import NUM, SHOWN
from w2w.gallery import job

pytestmark = pytest.mark.skipif(chromium.program() is None, reason="no Chromium on this machine")
CARDS = "[...document.querySelectorAll('.cards .product')].map((c) => c.querySelector('.name').textContent)"


@pytest.fixture(scope="module")
def site(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    job.main(job.Config(store=store, out=str(out), side_px=64, title="Spring <b>& summer</b>"))
    return out


@pytest.fixture(scope="module")
def browser():
    with chromium.browser() as found:
        yield found


def go(page, site, view=""):
    """Opens the site at a view, and waits until it is drawn."""
    page.open((site / "index.html").as_uri() + view)
    page.until(f"document.getElementById('site').dataset.drawn === {view!r}")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", chromium.WIDTHS)
def test_nothing_is_wrong_in_any_view(browser, site, width, dark):
    page = browser.page(width, dark)
    for view in (
        "",
        "#p=p00009",
        "#p=p00008",
        "#p=p00001",
        "#p=p00006",
        "#p=p00012",
        "#view=outfits",
        "#view=looks",
        "#q=nothing+like+it",
        "#p=gone",
    ):
        go(page, site, view)
        assert page.faults() == [], view


def test_hostile_titles_are_text(browser, site):
    page = browser.page()
    go(page, site, "#p=p00001")
    shown = page.evaluate("document.querySelector('h2').textContent")
    assert shown == SHOWN
    assert page.evaluate("document.querySelectorAll('.one a').length") == 0  # its address is no web address
    assert page.evaluate("document.querySelector('h1').textContent") == "Spring <b>& summer</b>"
    go(page, site, "#p=" + "%3Cimg%20src%3Dx%3E")
    assert page.evaluate("document.querySelectorAll('img').length") == 0


def test_search_and_filters(browser, site):
    page = browser.page()
    go(page, site)
    assert len(page.evaluate(CARDS)) == NUM - 1

    def ask(**values):
        for name, value in values.items():
            page.evaluate(f"document.forms[0].elements[{name!r}].value = {value!r}")
        page.evaluate("document.forms[0].dispatchEvent(new Event('input'))")
        return page.evaluate(CARDS)

    linen = ask(q="LINEN  réd")  # attributes, accents and case
    assert len(linen) == 3
    assert all("Red" in title for title in linen)
    assert page.evaluate("location.hash") == "#q=LINEN++r%C3%A9d"
    assert ask(q="linen red nowhere") == []
    assert "Nothing matches" in page.evaluate("document.body.innerText")
    assert ask(q="", category="shoes", colour="white") == ["White shoes number 14", "White shoes number 34"]
    assert ask(category="", colour="", **{"from": "10", "to": "11"}) == [SHOWN]  # 0 and 11 have no price, 1 costs 11


def test_prices_are_filtered_and_sorted_and_what_has_none_comes_last(browser, site):
    page = browser.page()
    go(page, site, "#sort=cheap&from=12&to=14")
    assert page.evaluate("[...document.querySelectorAll('.cards .price')].map((p) => p.textContent)") == [
        f"{n}.00 EUR" for n in (12, 13, 14)
    ]
    for order, first in (("cheap", "11.00 EUR"), ("dear", "49.00 EUR")):
        go(page, site, f"#sort={order}")
        prices = page.evaluate("[...document.querySelectorAll('.cards .price')].map((p) => p.textContent)")
        assert (prices[0], prices[-1]) == (first, "")


def test_a_product_leads_to_its_likes_by_keyboard_and_back(browser, site):
    page = browser.page()
    go(page, site, "#category=top")
    page.evaluate("document.querySelector('.cards .product').focus()")
    page.press("Enter")
    page.until("document.querySelectorAll('.one').length === 1")
    assert page.evaluate("document.activeElement.tagName") == "H2"  # read aloud, and where the keyboard goes on
    likes = page.evaluate(CARDS)
    assert len(likes) > 4
    page.evaluate("document.querySelector('.cards .product').click()")
    page.until(f"document.querySelector('h2').textContent === {likes[0]!r}")
    page.evaluate("[...document.querySelectorAll('a')].find((a) => a.textContent === 'back to the list').click()")
    page.until("document.querySelectorAll('.filters').length === 1")
    assert page.evaluate("document.forms[0].elements.category.value") == "top"


def test_a_part_that_is_gone_is_a_sentence(browser, site):
    [detail] = (site / "data").glob("detail-0-*.js")
    hidden = detail.rename(detail.with_suffix(".away"))
    page = browser.page()
    try:
        page.open((site / "index.html").as_uri() + "#p=p00009")
        page.until("document.querySelector('[role=alert]') !== null")
        assert "A part of this catalog is missing: detail-0" in page.evaluate("document.body.innerText")
    finally:
        hidden.rename(detail)
