"""The crawl against the wardrobe site and its hostile twin; what the servers' request logs prove."""

import math
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.cluster import hostile
from tests.cluster.crawls import config, crawled, tables, write_profile
from tests.cluster.test_kill import end_session, environment
from tests.unit.web.webs import Page, serve
from w2w import schema
from w2w.crawl.flow import url_states
from w2w.crawl.frontier import RecrawlConfig, State
from w2w.crawl.stage import VisitConfig
from w2w.errors import JobFailed, RejectCode, UsageError
from w2w.stage import Pool
from w2w.table import delta
from w2w.table.current import current_products
from w2w.wardrobe import site
from w2w.wardrobe.pages import Site
from w2w.wardrobe.shop import change_shop, write_shop
from w2w.web.hosts import WELL_KNOWN
from w2w.web.urls import canonical

ROOT = Path(__file__).parents[2]
SEED, NUM_PRODUCTS, NUM_POSTS = 3, 24, 4
RATE, CONCURRENCY, PAUSE_S = 80.0, 8, 3.0

pytestmark = pytest.mark.timeout(600)

# how the hostile twin's table names ends, and how a crawl does
REASONS = {
    "gone": {RejectCode.NOT_FOUND},
    "forbidden": {RejectCode.FORBIDDEN},
    "failed": {RejectCode.FETCH_FAILED, RejectCode.HOST_BUSY, RejectCode.OVER_LIMIT},
    "slow": {RejectCode.TOO_SLOW},
    "big": {RejectCode.TOO_MANY_BYTES},
    "blocked": {RejectCode.BLOCKED_URL},
    "robots": {RejectCode.DISALLOWED},
    "noai": {RejectCode.DISALLOWED},
    "type": {RejectCode.WRONG_TYPE, RejectCode.NOT_AN_IMAGE},
    "empty": {RejectCode.EMPTY},
    "truncated": {RejectCode.TRUNCATED},
    "extract": {RejectCode.MISSING_FIELD},
}


@pytest.fixture
def shop(tmp_path) -> Path:
    write_shop(tmp_path / "shop", SEED, NUM_PRODUCTS, NUM_POSTS, size_px=48, num_broken=3)
    return tmp_path / "shop"


def robots_of(server: site.Served) -> str:
    return urllib.request.urlopen(f"{server.url}/robots.txt").read().decode()


def by_path(store: Path, server: site.Served) -> dict[str, dict]:
    return {canonical(row["url"]).removeprefix(server.url): row for row in url_states(str(store), "wardrobe").to_pylist()}


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.soak), pytest.param(4, marks=pytest.mark.slow)])
def test_hostile_site_is_crawled_politely_to_the_end(shop, tmp_path, workers):
    with hostile.serve(shop, tmp_path / "requests.jsonl", latency_s=0.02, page_size=60) as server:
        profile, store = write_profile(tmp_path, server.url), tmp_path / "store"
        settings = config(store, profile, rate=RATE, concurrency=CONCURRENCY, workers=workers, item_rows=16, patience_s=3.0)
        summary = crawled(settings)
        lines = server.requests()
        robots = robots_of(server)
    assert summary.counts.read == summary.counts.out
    limits = {"retries": 2, "robots": robots, "host_pause_s": PAUSE_S}
    assert hostile.check_politeness(lines, RATE, CONCURRENCY, **limits) == []
    assert sum(line["target"] == "/robots.txt" for line in lines) == 1
    states = by_path(store, server)
    assert all(row["state"] != State.QUEUED for row in states.values())
    assert all(row["reason"] for row in states.values())
    wrong = [
        f"{path}: {end} was {states.get(path)}" for path, end in hostile.expected(shop).items() if not fits(path, end, states)
    ]
    assert wrong == []
    products = current_products(str(store), ["product_id", "title", "brand"]).to_pylist()
    titles = {f"/p/{row['product_id']}": row["title"] for row in products}
    for path, title in hostile.TITLES.items():
        assert titles[path] == title or (path == "/p/wrong-charset" and path in titles), path
    assert not any(hostile.POISON in (title or "") for title in titles.values())
    connections = {line["connection"] for line in lines if "connection" in line}
    assert len(connections) < len(lines) / 2  # kept alive, as far as the traps let them


def fits(path: str, end: hostile.End, states: dict[str, dict]) -> bool:
    row = states.get(path)
    if end.state == "never":
        return row is None or (row["state"] == State.EXCLUDED and row["reason"] == RejectCode.DISALLOWED)
    if row is None:
        return False
    if end.state == "done":
        return row["state"] == (State.REDIRECTED if "moved" in path else State.FETCHED)
    if path.startswith(("/p/to-", "/p/loop-", "/p/endless-hops")):  # where they lead is another URL, or none that is followed
        return row["state"] in (State.REDIRECTED, State.EXCLUDED)
    if path == "/sitemap-bomb.xml.gz":  # 32 MB of nothing are under the 50 MB that a sitemap may have
        return row["state"] == State.REJECTED
    return not end.kinds or row["reason"] in set().union(*(REASONS[kind] for kind in end.kinds))


def test_second_crawl_costs_304s_and_a_changed_site_its_changes(shop, tmp_path):
    with site.serve(shop, tmp_path / "requests.jsonl") as server:
        profile, store = write_profile(tmp_path, server.url), tmp_path / "store"
        first = crawled(config(store, profile))
        before, num_first = tables(store), len(server.requests())
        assert len(before["products"]) == NUM_PRODUCTS
        assert len(before["posts"]) == NUM_POSTS
        assert first.products_changed == NUM_PRODUCTS
        truth = Site(shop).posts()
        posts = delta.read(str(store), schema.POSTS, ["post_id", "product_ids"]).to_pylist()
        assert {row["post_id"]: tuple(row["product_ids"]) for row in posts} == {
            name: tuple(sorted(set(post.product_ids))) for name, post in truth.items()
        }

        at_once = RecrawlConfig(after_s=0.0)
        young = crawled(config(store, profile))
        assert young.counts.read == 0  # nothing is due yet
        assert [line["target"] for line in server.requests()[num_first:]] == []

        crawled(config(store, profile, recrawl=at_once))
        again = server.requests()[num_first:]
        assert len(again) == num_first
        missing = ("/style/post-900000", WELL_KNOWN)  # a start URL that only the hostile twin has; a file that few hosts have
        assert {line["status"] for line in again if line["target"] not in missing} == {304}
        assert all(line["if_none_match"] for line in again if line["target"] not in missing)
        after = tables(store)
        for name in ("products", "posts", "images", "frontier", "rejects"):
            assert after[name] == before[name], name
        assert delta.count_rows(delta.open_table(str(store), schema.PRODUCTS)) == NUM_PRODUCTS
        assert delta.count_rows(delta.open_table(str(store), schema.POSTS)) == NUM_POSTS

        changed = change_shop(shop, SEED, NUM_PRODUCTS, 0.05, 1, size_px=48)
        num_second = len(server.requests())
        third = crawled(config(store, profile, recrawl=at_once))
        fetched = {line["target"] for line in server.requests()[num_second:] if line["status"] == 200}
        pages = {f"/p/{product_id}" for product_id in changed} | {f"/images/{product_id}.jpg" for product_id in changed}
        assert {t for t in fetched if not re.match(r"/(robots|sitemap)", t)} == pages
        assert third.products_changed == len(changed) == math.ceil(0.05 * NUM_PRODUCTS)
        assert third.posts_changed == 0
        rows = delta.read(str(store), schema.PRODUCTS, ["product_id"]).column("product_id").to_pylist()
        assert sorted(p for p in set(rows) if rows.count(p) == 2) == sorted(changed)
        assert len(rows) == NUM_PRODUCTS + len(changed)
        assert len(tables(store)["images"]) == len(before["images"]) + len(changed)

        gone = sorted(Site(shop).products())[0]
        lines = (shop / "products.csv").read_text("utf-8").splitlines(keepends=True)
        (shop / "products.csv").write_text("".join(line for line in lines if not line.startswith(gone)), "utf-8")
        last = crawled(config(store, profile, recrawl=at_once))
        assert last.withdrawn == 1
        current = current_products(str(store), ["product_id", "active"]).to_pylist()
        assert [row["product_id"] for row in current if not row["active"]] == [gone]


@pytest.mark.slow
def test_killed_crawl_goes_on_where_it_stopped(shop, tmp_path):
    with site.serve(shop, tmp_path / "requests.jsonl", latency_s=0.05) as server:
        profile = write_profile(tmp_path, server.url)
        quick = {"commit_every_s": 0.1, "pool": Pool(workers=2, batch_rows=8), "visit": VisitConfig(threads=4)}
        crawled(config(tmp_path / "whole", profile, concurrency=4, **quick))
        killed = tmp_path / "killed"
        process = start_crawl(killed, profile)
        try:
            wait_for_pages(process, killed, 20)
        finally:
            end_session(process.pid)
            process.wait()
        finished = pages_of(killed)
        assert 20 <= len(finished) < len(pages_of(tmp_path / "whole"))
        num_asked = settled(server)
        crawled(config(killed, profile, concurrency=4, **quick))
        asked = [server.url + line["target"] for line in server.requests()[num_asked:]]
    assert set(asked) & finished - {f"{server.url}/robots.txt"} == set()
    assert len(asked) == len(set(asked))
    expected, got = tables(tmp_path / "whole"), tables(killed)
    for name in expected:
        assert got[name] == expected[name], name


def start_crawl(store: Path, profile: Path) -> subprocess.Popen:
    options = [f"--store={store}", f"--profile={profile}", '--fetch.allow_private_hosts=["127.0.0.1"]', "--pool.batch_rows=8"]
    options += ["--politeness.requests_per_s=null", "--politeness.concurrency=4", "--commit_every_s=0.1", "--item_rows=16"]
    options += ["--visit.threads=4", "--limits.max_depth=40", "--ray.num_cpus=2", "--ray.address=local"]
    log = (store.parent / "killed.log").open("ab")
    return subprocess.Popen(
        [sys.executable, "jobs/crawl.py", *options],
        cwd=ROOT,
        env=environment() | {"PYTHONPATH": os.pathsep.join([str(ROOT)])},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def pages_of(store: Path) -> set[str]:
    return set(delta.read(str(store), schema.PAGES, ["url"]).column("url").to_pylist())


def wait_for_pages(process: subprocess.Popen, store: Path, count: int) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, (store.parent / "killed.log").read_text()[-3000:]
        if (store / "pages").exists() and delta.count_rows(delta.open_table(str(store), schema.PAGES)) >= count:
            return
        time.sleep(0.02)
    raise AssertionError("the crawl committed no pages in time")


def settled(server: site.Served) -> int:
    """Lines in the log once those of requests that the kill cut off are written."""
    time.sleep(0.5)
    return len(server.requests())


def test_public_host_without_a_contact_is_a_sentence(tmp_path):
    (tmp_path / "p.yaml").write_text("name: x\nstart: ['http://93.184.215.14:9/']\n")
    with pytest.raises(UsageError, match=r"fetch\.contact is not set"):
        crawled(config(tmp_path / "store", tmp_path / "p.yaml"))


def test_limit_and_dry_run(shop, tmp_path):
    with site.serve(shop, tmp_path / "requests.jsonl") as server:
        profile, store = write_profile(tmp_path, server.url), tmp_path / "store"
        planned = crawled(config(store, profile, dry_run=True))
        assert planned.due == 4
        assert not store.exists()
        assert server.requests() == []
        limited = crawled(config(store, profile, limit=6))
        assert limited.counts.read == 6


def test_try_shows_one_page_and_writes_nothing(shop, tmp_path, capsys):
    with site.serve(shop, tmp_path / "requests.jsonl") as server:
        profile, store = write_profile(tmp_path, server.url), tmp_path / "store"
        (post_id, post), *_ = Site(shop).posts().items()
        assert crawled(config(store, profile, try_=f"{server.url}/style/{post_id}")) is None
        said = capsys.readouterr().out
        assert all(product_id in said for product_id in post.product_ids)
        assert f"{len(set(post.product_ids))} links to product" in said
        assert [line["target"] for line in server.requests()] == ["/robots.txt", f"/style/{post_id}"]
    assert not store.exists()


@pytest.mark.slow
def test_a_site_that_is_down_is_no_crawl_of_nothing(tmp_path):
    """Nothing is known of it: the job fails. Something is: a warning, and what is known stays."""
    with serve({"/shop": Page(status=500)}) as web:
        (tmp_path / "p.yaml").write_text(
            f'name: small\nstart: ["{web.url}/shop"]\nrules:\n  - {{match: "/p/[^/?]+$", kind: product}}\nkinds:\n  product:\n'
            "    record: product\n    fields:\n      title: {css: h1}\n      image: {css: img, attribute: src}\n"
        )
        again = RecrawlConfig(after_s=0.0, retry_after_s=0.0)
        settings = config(tmp_path / "store", tmp_path / "p.yaml", recrawl=again)
        why = r"no start page of site small could be fetched \(1 fetch_failed\): is it there\? The next run asks again"
        with pytest.raises(JobFailed, match=why) as failed:
            crawled(settings)
        assert failed.value.result.states == {"failed (fetch_failed)": 1}
        web.pages["/shop"] = Page(b"<a href=/p/1>x</a>")
        web.pages["/p/1"] = Page(b"<h1>a shirt</h1><img src=/1.jpg>")
        assert crawled(settings).warning is None
        web.pages.clear()
        web.pages |= {path: Page(status=500) for path in ("/shop", "/p/1", "/1.jpg")}
        down = crawled(settings)
        assert down.warning.startswith("no start page of site small could be fetched")
