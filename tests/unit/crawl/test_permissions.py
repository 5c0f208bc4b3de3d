"""What a crawl is told of the use of pictures: by a visit, and in table `permissions` in the end."""

from dataclasses import replace

import pytest

from tests.unit.crawl.test_harvest import LINEAGE, SITE, Store
from tests.unit.crawl.test_visit import look, row
from tests.unit.web.webs import Page, serve
from w2w import schema
from w2w.crawl.harvest import harvest
from w2w.crawl.schedule import Answer
from w2w.crawl.tdm import TdmFiles
from w2w.errors import Reject, RejectCode
from w2w.table import delta
from w2w.table.permitted import SEARCH, TRAINING, permitted
from w2w.web.answers import Response
from w2w.web.doorkeeper import Doorkeeper, Message
from w2w.web.hosts import WELL_KNOWN
from w2w.web.permission import UNREACHABLE, Asked, Headers, Rules
from w2w.web.politeness import PolitenessConfig
from w2w.web.robots import Robots

JPEG = {"Content-Type": "image/jpeg"}
ONE, NINE = f"{1:064d}", f"{9:064d}"


def said(got: dict) -> Asked:
    return Asked.from_json(got["said"])


def test_a_visit_remembers_what_was_said_whatever_came_of_it():
    pages = {
        "/a.jpg": Page(b"a", headers=JPEG | {"TDM-Reservation": "1", "ETag": '"1"'}),
        "/b.jpg": Page(b"b", headers=JPEG | {"X-Robots-Tag": "noai"}),
        "/no/c.jpg": Page(b"c", headers=JPEG),
        "/robots.txt": Page(b"User-agent: *\nContent-Signal: search=no\nDisallow: /no\n"),
        "/.well-known/tdmrep.json": Page(b'[{"location": "/a", "tdm-reservation": 0}]'),
        "/p/1": Page(b"<h1>coat</h1>"),
    }
    with serve(pages) as web:
        paths = ["/a.jpg", "/b.jpg", "/no/c.jpg"]
        a, b, c, page = look(web, *(row(web.url + path, "image") for path in paths), row(web.url + "/p/1"), run_id="r1")
        assert said(a) == Asked(Headers(tdm_reservation="1"), Rules("", "search=no", "0"))
        assert (b["state"], said(b).headers) == ("excluded", Headers("noai"))
        assert (c["state"], said(c)) == ("excluded", Asked(None, Rules("*: disallow /no", "search=no", "")))
        assert page["said"] is None
        assert web.paths().count("/.well-known/tdmrep.json") == 1
        known = {"visit": 1, "etag": '"1"', "content_digest": a["content_digest"], "state": "fetched"}
        web.pages["/a.jpg"] = Page(headers={"ETag": '"1"'})
        (again,) = look(web, row(web.url + "/a.jpg", "image", **known), run_id="r1")
        assert (again["state"], said(again).headers) == ("unchanged", None)
        assert web.paths().count("/.well-known/tdmrep.json") == 1


def refused(store: Store) -> tuple[set[str], set[str]]:
    return tuple(set(permitted(store.uri, use).refused.to_pylist()) for use in (SEARCH, TRAINING))


@pytest.fixture
def store(tmp_path) -> Store:
    made = Store(str(tmp_path))
    made.product(1)
    made.post("http://h/p/1")
    return made


def visited(store: Store, number: int, asked: Asked | None, state: str = "fetched") -> None:
    got = {"image_id": f"{number:064d}"} if state == "fetched" else {}
    store.add(f"http://h/{number}.jpg", state, kind="image", said=asked and asked.to_json(), **got)


def test_pages_become_permissions_and_the_newest_of_each_kind_counts(store):
    rules = Rules("*: allow /", "ai-train=no", "")
    visited(store, 1, Asked(Headers("noindex"), rules))
    visited(store, 9, None)  # by an earlier w2w
    store.harvest()
    assert refused(store) == ({ONE}, {ONE})
    assert store.rows(schema.PERMISSIONS) == 1
    store.harvest()
    assert store.rows(schema.PERMISSIONS) == 1
    visited(store, 1, Asked(None, Rules(UNREACHABLE, "", UNREACHABLE)), "unchanged")
    store.harvest()
    assert refused(store) == ({ONE}, {ONE})
    visited(store, 1, Asked(None, replace(rules, robots_signal="")), "unchanged")
    store.harvest()
    assert refused(store) == ({ONE}, set())
    visited(store, 1, Asked(Headers(tdm_reservation="0"), None, partly=True), "unchanged")
    store.harvest()
    assert refused(store) == ({ONE}, set())
    visited(store, 1, Asked(Headers("all"), None, partly=True), "unchanged")
    visited(store, 9, Asked(None, Rules("*: disallow /9")), "excluded")
    store.harvest()
    assert refused(store) == ({NINE}, {NINE})
    reasons = delta.read(store.uri, schema.PERMISSIONS, [schema.URI, schema.FEED, schema.REASON]).to_pylist()
    why = "search: robots.txt disallows it. training: robots.txt disallows it"
    assert {schema.URI: "http://h/9.jpg", schema.FEED: "site:x", schema.REASON: why} in reasons


def test_the_owner_of_a_site_says_it_of_all_its_pictures(store):
    visited(store, 1, Asked(Headers(tdm_reservation="1"), Rules()))
    visited(store, 9, None)
    for use, found in (("", (set(), {ONE})), ("training=allowed", (set(), set())), ("training=refused", (set(), {ONE, NINE}))):
        harvest(store.uri, SITE, LINEAGE, use)
        assert refused(store) == found
    harvest(store.uri, SITE, LINEAGE)
    assert refused(store) == (set(), {ONE})


def test_one_worker_asks_for_a_hosts_file_and_tells_the_others():
    keeper = Doorkeeper(PolitenessConfig(requests_per_s=None), "w2w", 60.0)
    keeper.exchange(Message(robots_found={"http://h/robots.txt": Robots("User-agent: *\nCrawl-delay: 2")}))
    urls = ["http://h/1.jpg", "http://h/2.jpg", "https://h/3.jpg"]
    first, second = TdmFiles(urls, "run-a", keeper.exchange), TdmFiles(urls, "run-b", keeper.exchange)  # as two processes
    assert first.ours == [f"{scheme}://h{WELL_KNOWN}" for scheme in ("http", "https")]
    assert second.ours == []
    body = b'[{"location": "/1", "tdm-reservation": 1}]'
    gone = Reject(RejectCode.FETCH_FAILED, "x: HTTP 503")
    first.learn([Answer(Response(first.ours[0], 200, {}, body), 1), Answer(gone, 1)])
    second.learn([])
    for files in (first, second, TdmFiles(urls, "run-b", keeper.exchange)):
        assert [files.of(url) and files.of(url).says("/1") for url in urls] == ["1", "1", None]
    assert keeper.intervals_s(["h"]) == {"h": 2.0}
