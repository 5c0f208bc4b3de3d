"""`w2w check --links`: which links are broken, asked for as a crawl would."""

import pytest

import w2w
from tests.unit.check.stores import rows_of
from tests.unit.check.test_check import checks
from tests.unit.recommend.stores import append
from tests.unit.web.webs import Page, serve
from w2w import schema
from w2w.check.job import Config, main
from w2w.errors import UsageError
from w2w.table import delta
from w2w.wardrobe.garment import make_garment
from w2w.web.fetch import FetchConfig
from w2w.web.politeness import PolitenessConfig

PAGES = {
    "/robots.txt": Page(b"User-agent: *\nDisallow: /private", headers={"Content-Type": "text/plain"}),
    "/fine": Page(b"<p>a dress</p>"),
    "/long": Page(b"x" * (3 << 20)),
    "/moved": Page(status=301, headers={"Location": "/fine"}),
    "/sold-out": Page(status=302, headers={"Location": "/"}),
    "/": Page(b"welcome"),
    "/manual.pdf": Page(b"%PDF", headers={"Content-Type": "application/pdf"}),
    "/no-bots": Page(status=403),
    "/noai": Page(b"<p>a hat</p>", headers={"X-Robots-Tag": "noai"}),
    "/broken": Page(status=500),
}
PATHS = ("/fine", "/gone", "/long", "/moved", "/sold-out", "/manual.pdf", "/no-bots", "/private", "/noai", "/broken", "/fine")


def products(base: str) -> list[dict]:
    rows = rows_of([make_garment(5, n) for n in range(len(PATHS) + 2)], [b"picture"] * (len(PATHS) + 2))
    links = [*(f"{base}{path}" for path in PATHS), "ftp://shop.example/dress", None]
    return [row | {"url": link} for row, link in zip(rows, links)]


def test_links_that_lead_to_no_page_are_told(tmp_path):
    store = str(tmp_path)
    polite = PolitenessConfig(requests_per_s=None)
    with serve(dict(PAGES)) as web:
        append(store, schema.PRODUCTS, products(web.url))
        config = Config(store=store, only=["broken_link"], politeness=polite)
        result = main(config)
        assert result.left_out == ("broken_link: it asks the shop's servers, politely: --links=N for at most N links a night",)
        fetch = FetchConfig(allow_private_hosts=("127.0.0.1",), retries=0)
        first = main(Config(store=store, only=["broken_link"], politeness=polite, fetch=fetch, links=4))
        assert first.to_ask == 4
        assert first.left_out == ("broken_link: 7 that are not asked yet: --links=N",)
        second = main(Config(store=store, only=["broken_link"], politeness=polite, fetch=fetch, links=7))
        assert second.left_out == ()
        asked = web.paths()
        found = checks(store)["broken_link"]
        assert {row["url"].removeprefix(web.url) for row in found.values()} == {
            "/gone",
            "/sold-out",
            "/manual.pdf",
            "/broken",
            "ftp://shop.example/dress",
        }
        assert "/private" not in asked
        assert asked.count("/moved") == 1
        details = {row["url"].removeprefix(web.url): row["detail"] for row in found.values()}
        assert details["/sold-out"] == f"Its link: {web.url}/sold-out leads to the front page."
        assert "HTTP 404" in details["/gone"]
        web.pages["/gone"] = Page(b"back")
        third = main(Config(store=store, only=["broken_link"], politeness=polite, fetch=fetch, links=50))
        assert (third.to_ask, third.gone, third.new) == (11, 1, 0)
    assert len(delta.read(store, schema.LINKS_ASKED, [schema.URL])) == 11


def test_private_addresses_are_not_contacted_and_public_ones_need_a_contact(tmp_path):
    store = str(tmp_path)
    with serve(dict(PAGES)) as web:
        append(store, schema.PRODUCTS, products(web.url)[:1])
        result = main(Config(store=store, links=5))
        assert (web.asked, result.findings["broken_link"]) == ([], 1)
    assert "allow_private_hosts" in checks(store)["broken_link"]["p000"]["detail"]
    with pytest.raises(UsageError, match="links"):
        w2w.check(store=store, links=-1)
