"""The visiting stage: one row for each URL, whatever came of it; and one page shown."""

import json
import zlib

import pyarrow as pa
import pytest

from tests.unit.web.servers import LOCAL, fetcher
from tests.unit.web.webs import Page, serve
from w2w.crawl import frontier
from w2w.crawl.frontier import VISIT_SCHEMA
from w2w.crawl.profile import Field, Kind, Profile, Rule
from w2w.crawl.stage import VISIT_GIVES, VisitConfig, visit
from w2w.crawl.trial import show_trial
from w2w.errors import JobFailed
from w2w.web.doorkeeper import Doorkeeper
from w2w.web.fetch import FetchConfig
from w2w.web.politeness import PolitenessConfig

QUICK = PolitenessConfig(requests_per_s=None, max_wait_s=1.0)
GOOD = b'<h1>coat</h1><meta property="og:image" content="/i.jpg"><a href="/p/2">x</a>'


def profile(url: str) -> Profile:
    kinds = {"product": Kind("product", fields={"title": Field(css="h1", required=True)})}
    return Profile("x", start=[url + "/"], rules=[Rule("/p/", "product"), Rule("/list")], kinds=kinds)


def row(url: str, kind: str = "product", **known) -> dict:
    base = {"key": "k", "url_id": frontier.url_id(url), "url": url, "kind": kind, "depth": 1, "redirects": 0, "visit": 0}
    return base | {"failures": 0, "unchanged": 0} | known


def look(web, *rows: dict, keep_content: bool = False, give_up_after: int = 3, run_id: str = "run", **settings) -> list[dict]:
    keeper = Doorkeeper(QUICK, "w2w", 60.0)
    table = visit(
        pa.Table.from_pylist(list(rows), schema=VISIT_SCHEMA),
        profile=profile(web.url),
        config=VisitConfig(threads=4, keep_content=keep_content),
        give_up_after=give_up_after,
        run_id=run_id,
        fetcher=fetcher(**settings),
        exchange=keeper.exchange,
        max_wait_s=QUICK.max_wait_s,
    )
    assert table.schema.names == VISIT_GIVES.names
    assert table.num_rows == len(rows)
    return table.to_pylist()


def test_a_page_gives_records_links_and_validators():
    with serve({"/p/1": Page(GOOD, headers={"ETag": '"1"'})}) as web:
        (got,) = look(web, row(web.url + "/p/1"), keep_content=True)
    assert (got["state"], got["reason"], got["status"], got["etag"]) == ("fetched", "ok", 200, '"1"')
    assert json.loads(got["records"][0])["title"] == ["coat"]
    assert {(link["url"][len(web.url) :], link["kind"]) for link in got["links"]} == {("/i.jpg", "image"), ("/p/2", "product")}
    assert zlib.decompress(got["content"]) == GOOD
    assert (got["site"], got["run_id"], got["read_by"]) == ("x", "run", profile(web.url).version())
    assert got["bytes"] is None


def test_a_new_image_brings_its_bytes():
    with serve({"/i.jpg": Page(b"jpeg", headers={"Content-Type": "image/jpeg"})}) as web:
        (got,) = look(web, row(web.url + "/i.jpg", "image"))
        assert (got["state"], got["bytes"], got["source_uri"]) == ("fetched", b"jpeg", web.url + "/i.jpg")
        known = {"visit": 1, "state": "fetched", "content_digest": got["content_digest"]}
        (again,) = look(web, row(web.url + "/i.jpg", "image", **known))
        assert (again["state"], again["reason"]) == ("unchanged", "same_content")
        assert (again["bytes"], again["image_id"], again["unchanged"]) == (None, None, 1)


def test_304_keeps_what_was_known():
    with serve({"/p/1": Page(GOOD, headers={"ETag": '"1"'})}) as web:
        known = {"visit": 1, "etag": '"1"', "content_digest": "d", "state": "unchanged", "unchanged": 3}
        (got,) = look(web, row(web.url + "/p/1", **known))
        assert (got["state"], got["reason"], got["status"], got["unchanged"]) == ("unchanged", "not_modified", 304, 4)
        assert (got["etag"], got["content_digest"], got["records"], got["links"]) == ('"1"', "d", [], [])
        known |= {"state": "rejected", "reason": "missing_field"}
        (got,) = look(web, row(web.url + "/p/1", **known))
        assert (got["state"], got["reason"]) == ("rejected", "missing_field")


def test_a_failure_forgets_nothing_and_is_given_up_in_the_end():
    known = {"visit": 5, "etag": '"1"', "content_digest": "d", "state": "failed"}
    with serve({"/p/1": Page(status=500)}) as web:
        (got,) = look(web, row(web.url + "/p/1", failures=1, **known))
        assert (got["state"], got["reason"], got["failures"], got["etag"]) == ("failed", "fetch_failed", 2, '"1"')
        assert "/p/1: HTTP 500" in got["detail"]
        (got,) = look(web, row(web.url + "/p/1", failures=2, **known))
        assert got["state"] == "given_up"


def test_a_busy_host_is_not_the_urls_fault():
    with serve({"/p/1": Page(status=429, headers={"Retry-After": "3600"})}) as web:
        (got,) = look(web, row(web.url + "/p/1", failures=2))
    assert (got["state"], got["reason"], got["failures"]) == ("failed", "host_busy", 2)
    assert got["not_before"].timestamp() > got["fetched_at"].timestamp() + 3500


@pytest.mark.parametrize(
    ("location", "state", "reason", "followed"),
    [
        ("/p/2?utm_source=x#top", "redirected", "moved", ["/p/2?utm_source=x"]),
        ("http://169.254.169.254/latest", "redirected", "moved", []),
        ("/p/1", "failed", "fetch_failed", []),
        ("file:///etc/passwd", "excluded", "blocked_url", []),
    ],
)
def test_a_redirect_is_a_link(location, state, reason, followed):
    with serve({"/p/1": Page(status=302, headers={"Location": location})}) as web:
        (got,) = look(web, row(web.url + "/p/1"))
        assert (got["state"], got["reason"]) == (state, reason)
        assert [link["url"] for link in got["links"]] == [web.url + path for path in followed]
        assert web.paths() == ["/robots.txt", "/p/1"]


def test_another_spelling_of_the_same_page_is_followed_at_once():
    pages = {
        "/p/1?b=2&a=1": Page(status=301, headers={"Location": "/p/1?a=1&b=2&utm_source=x"}),
        "/p/1?a=1&b=2&utm_source=x": Page(GOOD),
        "/p/ring": Page(status=302, headers={"Location": "/p/ring?gclid=1"}),
        "/p/ring?gclid=1": Page(status=302, headers={"Location": "/p/ring"}),
        "/p/barred": Page(status=302, headers={"Location": "/p/barred?gclid=1"}),
        "/robots.txt": Page(b"User-agent: *\nDisallow: /p/barred?"),
    }
    with serve(pages) as web:
        got, ring, barred = look(web, *(row(web.url + path) for path in ("/p/1?b=2&a=1", "/p/ring", "/p/barred")))
        assert (got["state"], got["url"]) == ("fetched", web.url + "/p/1?b=2&a=1")
        assert json.loads(got["records"][0])["url"] == [web.url + "/p/1?b=2&a=1"]
        assert (ring["state"], ring["reason"]) == ("failed", "fetch_failed")
        assert (barred["state"], barred["reason"]) == ("excluded", "disallowed")
        assert "/p/barred?gclid=1" not in web.paths()


def test_robots_are_asked_of_the_url_as_it_is_published():
    pages = {
        "/robots.txt": Page(b"User-agent: *\nDisallow: /*?sort="),
        "/list": Page(b'<a href="/list?sort=price&amp;page=2">'),
    }
    with serve(pages) as web:
        (listed,) = look(web, row(web.url + "/list", "page"))
        (link,) = listed["links"]
        assert link["url"] == web.url + "/list?sort=price&page=2"
        (got,) = look(web, row(link["url"], "page"))
        assert (got["state"], got["reason"]) == ("excluded", "disallowed")
        assert not [path for path in web.paths() if "?" in path]


def test_a_sitemap_with_a_fault_is_told_and_its_links_are_followed():
    body = b"<urlset><url><loc>/p/1</loc></url><url><loc>/p/<</loc></url><url><loc>/p/2</loc></url></urlset>"
    with serve({"/s.xml": Page(body), "/rss.xml": Page(b"<rss/>")}) as web:
        got, feed = look(web, row(web.url + "/s.xml", "sitemap"), row(web.url + "/rss.xml", "sitemap"))
    assert (got["state"], got["reason"]) == ("rejected", "malformed_row")
    assert "not XML" in got["detail"]
    assert [link["url"] for link in got["links"]] == [web.url + "/p/1", web.url + "/p/2"]
    assert "an RSS feed, not a sitemap" in feed["detail"]


def test_every_end_has_a_state_and_a_reason():
    pages = {
        "/robots.txt": Page(b"User-agent: *\nDisallow: /p/no\nSitemap: /s.xml"),
        "/p/pdf": Page(b"%PDF", headers={"Content-Type": "application/pdf"}),
        "/p/bare": Page(b"<p>sold out"),
        "/p/noai": Page(GOOD, headers={"X-Robots-Tag": "noai"}),
        "/p/meta": Page(GOOD + b'<meta name=robots content="noimageai">'),
        "/p/gone": Page(status=410),
        "/p/slow": Page(seconds=3.0),
    }
    with serve(pages) as web:
        paths = ["/p/no", "/p/pdf", "/p/bare", "/p/noai", "/p/meta", "/p/gone", "/p/slow"]
        got = look(web, *(row(web.url + path) for path in paths), row(web.url + "/robots.txt", "robots"), deadline_s=2.0)
    assert [(g["state"], g["reason"]) for g in got] == [
        ("excluded", "disallowed"),
        ("rejected", "wrong_type"),
        ("rejected", "missing_field"),
        ("excluded", "disallowed"),
        ("excluded", "disallowed"),
        ("gone", "not_found"),
        ("failed", "too_slow"),
        ("fetched", "ok"),
    ]
    assert "required field 'title': selector 'h1' found nothing" in got[2]["detail"]
    assert [link["kind"] for link in got[7]["links"]] == ["sitemap"]
    assert web.paths().count("/robots.txt") == 1
    assert "/p/no" not in web.paths()


def test_a_trial_shows_records_and_links(capsys):
    with serve(
        {"/p/1": Page(GOOD), "/p/bare": Page(b"<p>sold out"), "/moved": Page(status=301, headers={"Location": "/p/1"})}
    ) as web:
        fetch = FetchConfig(allow_private_hosts=LOCAL, retries=0)
        show_trial(profile(web.url), web.url + "/p/1", fetch, QUICK)
        said = capsys.readouterr().out
        assert "coat" in said
        assert "1 links to product" in said
        assert f"{web.url}/i.jpg" in said
        with pytest.raises(JobFailed, match="required field 'title': selector 'h1' found nothing"):
            show_trial(profile(web.url), web.url + "/p/bare", fetch, QUICK)
        with pytest.raises(JobFailed, match="not_found"):
            show_trial(profile(web.url), web.url + "/p/none", fetch, QUICK)
