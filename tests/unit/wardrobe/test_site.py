"""The shop as a web site: every page, conditional requests, the request log, and the end of its process."""

import csv
import gzip
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import pytest
from bs4 import BeautifulSoup

from w2w.wardrobe.pages import Reply, Site
from w2w.wardrobe.shop import change_shop, write_shop
from w2w.wardrobe.site import PROFILE, Served, last_port, not_modified, read_log, serve

PRODUCTS, POSTS = 42, 5
PAGES = ("/", "/shop?page=1", "/style?page=1", "/p/w3-000013", "/style/post-000002", "/images/w3-000001.jpg")
PAGES += (
    "/posts/000001.jpg",
    "/robots.txt",
    "/sitemap.xml",
    "/sitemap-products-1.xml",
    "/sitemap-posts-1.xml.gz",
    "/feed.json",
)


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    write_shop(folder, seed=3, num_products=PRODUCTS, num_posts=POSTS, size_px=64, num_broken=3)
    return folder


@pytest.fixture(scope="module")
def served(drawn, tmp_path_factory):
    with serve(drawn, tmp_path_factory.mktemp("log") / "requests.jsonl", page_size=10, crawl_delay_s=1.5) as server:
        yield server


@pytest.fixture
def shop(drawn, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(drawn, tmp_path / "shop"))


def ask(server: Served, target: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    try:
        connection.request(method, target, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def rows(folder: Path) -> dict[str, dict]:
    with open(folder / "products.csv", encoding="utf-8", newline="") as f:
        return {row["product_id"]: row for row in csv.DictReader(f)}


def whole_site(folder: Path) -> dict[str, Reply]:
    """Every page and picture that links from the start page lead to, in this process."""
    site, found, ahead, base = Site(folder), {}, ["/"], "http://shop.test"
    while ahead:
        url = ahead.pop()
        parts = urlsplit(url)
        query = dict(pair.split("=") for pair in parts.query.split("&") if pair)
        reply = found[url] = site.reply(parts.path, query, base)
        if reply.content_type.startswith("text/html"):
            for match in re.findall(r'(?:href|src)="([^"]*)"', reply.body.decode()):
                link = urljoin(f"{base}{url}", match.replace("&amp;", "&")).removeprefix(base)
                if link.startswith("/") and link not in found and link not in ahead:
                    ahead.append(link)
    return found


# pages


def test_every_link_leads_to_a_page(drawn):
    found = whole_site(drawn)
    assert {path: reply.status for path, reply in found.items() if reply.status != 200} == {}
    assert {f"/p/{p}" for p in rows(drawn)} | {f"/style/post-{i:06d}" for i in range(POSTS)} <= set(found)
    assert {"/account/orders", "/account/help", "/cart?add=w3-000000", "/shop?page=1&sort=price"} <= set(found)


def test_pages_are_the_same_each_time(drawn):
    assert whole_site(drawn) == whole_site(drawn)


@pytest.mark.parametrize("number", [0, 13, 29])
def test_a_product_page_says_what_the_feed_says(served, drawn, number):
    row = rows(drawn)[f"w3-{number:06d}"]
    page = BeautifulSoup(ask(served, f"/p/{row['product_id']}").body, "html.parser")
    data = json.loads(page.find("script", type="application/ld+json").string)
    assert (data["@type"], data["name"], data["sku"], data["brand"]["name"]) == (
        "Product",
        row["title"],
        row["sku"],
        row["brand"],
    )
    assert data["offers"] | {"price": row["price"], "priceCurrency": "EUR"} == data["offers"]
    assert (data["category"], data["image"]) == (row["category"], [f"{served.url}/{row['image']}"])
    meta = {m["property"]: m["content"] for m in page.find_all("meta", property=True)}
    assert (meta["og:title"], meta["og:image"]) == (row["title"], f"{served.url}/{row['image']}")
    assert (meta["product:price:amount"], meta["product:price:currency"]) == (row["price"], "EUR")
    assert page.select_one("h1.title").text == page.title.text == row["title"]
    assert (page.select_one(".price .amount").text, page.select_one(".brand").text) == (row["price"], row["brand"])
    assert page.find("link", rel="canonical")["href"] == f"{served.url}/p/{row['product_id']}"


def test_a_post_links_what_is_worn_and_not_where(served, drawn):
    for line in (drawn / "posts.jsonl").read_text("utf-8").splitlines():
        post = json.loads(line)
        body = ask(served, f"/style/{post['post_id']}").body
        page = BeautifulSoup(body, "html.parser")
        worn = [f"/p/{item['product_id']}" for item in post["items"]]
        assert [a["href"] for a in page.select("a.tagged")] == worn
        assert page.select_one("img.photo")["src"] == "/" + post["image"]
        data = json.loads(page.find("script", type="application/ld+json").string)
        assert [m["url"] for m in data["mentions"]] == [served.url + path for path in worn]
        assert not re.search(rb"box|rle|visible", body)


def test_listings_hold_everything_once(served, drawn):
    for path, link, wanted in (
        ("/shop", "a.product", [f"/p/{p}" for p in rows(drawn)]),
        ("/style", "a.post", [f"/style/post-{i:06d}" for i in range(POSTS)]),
    ):
        seen, target = [], f"{path}?page=1"
        while target:
            page = BeautifulSoup(ask(served, target).body, "html.parser")
            seen += [a["href"] for a in page.select(link)]
            following = page.select_one("a.next")
            target = following and following["href"]
        assert seen == wanted
    assert ask(served, "/shop").body == ask(served, "/shop?page=1").body


def test_robots_names_rules_delay_and_sitemap(served):
    text = ask(served, "/robots.txt").body.decode()
    for line in ("Disallow: /account/", "Allow: /account/help", "Crawl-delay: 1.5", f"Sitemap: {served.url}/sitemap.xml"):
        assert line in text.splitlines()


def test_sitemap_lists_every_page(served, drawn):
    index = ask(served, "/sitemap.xml").body.decode()
    listed = []
    for part in re.findall(r"<loc>(.*?)</loc>", index):
        body = ask(served, part.removeprefix(served.url)).body
        body = gzip.decompress(body) if part.endswith(".gz") else body
        listed += re.findall(r"<url><loc>(.*?)</loc><lastmod>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ</lastmod>", body.decode())
    wanted = [f"/p/{p}" for p in rows(drawn)] + [f"/style/post-{i:06d}" for i in range(POSTS)]
    assert listed == [served.url + path for path in wanted]


def test_a_long_sitemap_has_parts(drawn, monkeypatch):
    monkeypatch.setattr("w2w.wardrobe.pages._URLS_A_SITEMAP", 20)
    parts = re.findall(r"<loc>http://x(.*?)</loc>", Site(drawn).reply("/sitemap.xml", {}, "http://x").body.decode())
    assert parts == [*(f"/sitemap-products-{n}.xml" for n in (1, 2, 3)), "/sitemap-posts-1.xml.gz"]
    sizes = [Site(drawn).reply(part, {}, "http://x").body.count(b"<url>") for part in parts[:3]]
    assert sizes == [20, 20, 5]


def test_feed_pages_hold_everything_once(served, drawn):
    items, target = [], "/feed.json"
    while target:
        feed = json.loads(ask(served, target).body)
        items += feed["items"]
        target = feed.get("next_url", "").removeprefix(served.url)
    assert [(i["id"], i["title"], i["_product"]["price"]) for i in items] == [
        (r["product_id"], r["title"], r["price"]) for r in rows(drawn).values()
    ]
    assert items[0]["image"] == f"{served.url}/images/w3-000000.jpg"


@pytest.mark.parametrize(
    "target",
    ["/p/none", "/style/post-999999", "/images/none.jpg", "/shop?page=6", "/shop?page=0", "/shop?page=x", "/posts.jsonl"]
    + ["/products.csv", "/images/../products.csv", "/images/%2e%2e/posts.jsonl", "/images/", "/queries/000000-top.jpg", "/%00"],
)
def test_what_is_not_there_is_404(served, target):
    assert ask(served, target).status == 404


def test_pictures_are_the_files(served, drawn):
    for path in ("images/w3-000004.jpg", "images/w3-broken-1.jpg", "posts/000003.jpg"):
        answer = ask(served, "/" + path)
        assert (answer.status, answer.headers["Content-Type"]) == (200, "image/jpeg")
        assert answer.body == (drawn / path).read_bytes()


# conditional requests


@pytest.mark.parametrize("target", PAGES)
def test_unchanged_is_304(served, target):
    whole = ask(served, target)
    assert whole.status == 200
    for headers in (
        {"If_None_Match": whole.headers["ETag"]},
        {"If_None_Match": f'"other", W/{whole.headers["ETag"]}'},
        {"If_Modified_Since": whole.headers["Last-Modified"]},
        {"If_None_Match": whole.headers["ETag"], "If_Modified_Since": "Mon, 01 Jan 2001 00:00:00 GMT"},
    ):
        again = ask(served, target, **headers)
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", whole.headers["ETag"])
        assert "Content-Length" not in again.headers
    for headers in (
        {"If_None_Match": '"other"', "If_Modified_Since": whole.headers["Last-Modified"]},  # the ETag decides
        {"If_Modified_Since": "Mon, 01 Jan 2001 00:00:00 GMT"},
        {"If_Modified_Since": "yesterday"},
    ):
        assert ask(served, target, **headers).body == whole.body


def test_an_error_is_never_304(served):
    assert ask(served, "/p/none", If_None_Match="*").status == 404
    assert not_modified(Reply(200, b"", modified=1.0), "*", None)


def test_head_is_get_without_its_body(served):
    get, head = ask(served, "/p/w3-000001"), ask(served, "/p/w3-000001", "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert {**head.headers, "Date": ""} == {**get.headers, "Date": ""}


def test_exactly_what_changed_has_another_etag(shop):
    before = {path: reply.etag for path, reply in whole_site(shop).items()}
    changed = change_shop(shop, 3, PRODUCTS, 0.05, 1, size_px=64)
    after = {path: reply.etag for path, reply in whole_site(shop).items()}
    assert {p for p in after if after[p] != before[p]} == {f for c in changed for f in (f"/p/{c}", f"/images/{c}.jpg")}


def test_a_running_server_sees_the_change(shop, tmp_path):
    with serve(shop, tmp_path / "log.jsonl") as server:
        etag = ask(server, "/shop?page=1").headers["ETag"]
        text = (shop / "products.csv").read_text("utf-8").replace(",top,", ",hat,", 1)
        (shop / "products.csv").write_text(text.replace("w3-000001", "w3-100001"), "utf-8")
        assert ask(server, "/shop?page=1", If_None_Match=etag).status == 200
        assert (ask(server, "/p/w3-100001").status, ask(server, "/p/w3-000001").status) == (200, 404)


# the log


def test_a_connection_is_kept_and_the_log_tells(served):
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=10)
    agent = f"test/{time.monotonic_ns()}"
    etags = []
    for target in ("/p/w3-000001?a=%20b", "/images/w3-000002.jpg", "/p/none"):
        connection.request("GET", target, headers={"User-Agent": agent, "If-None-Match": '"x"'})
        response = connection.getresponse()
        etags.append((response.read(), response.getheader("ETag")))
    connection.close()
    lines = [line for line in served.requests() if line["user_agent"] == agent]
    assert [line["target"] for line in lines] == ["/p/w3-000001?a=%20b", "/images/w3-000002.jpg", "/p/none"]
    assert [line["status"] for line in lines] == [200, 200, 404]
    assert len({line["connection"] for line in lines}) == 1
    for line, (body, _) in zip(lines, etags):
        assert (line["method"], line["host"], line["if_none_match"]) == ("GET", urlsplit(served.url).netloc, '"x"')
        assert len(body) < line["bytes"] < len(body) + 1000
        assert 0 <= line["end"] - line["start"] < 5
        assert abs(line["wall_start"] - time.time()) < 60
        assert (line["in_flight"], line["cut"], line["if_modified_since"]) == (1, False, None)


def test_requests_side_by_side_are_seen_as_such(drawn, tmp_path):
    with serve(drawn, tmp_path / "log.jsonl", latency_s=0.3) as server, ThreadPoolExecutor(4) as pool:
        assert {a.status for a in pool.map(lambda n: ask(server, f"/p/w3-{n:06d}"), range(4))} == {200}
        lines = server.requests()
    assert sorted(line["in_flight"] for line in lines) == [1, 2, 3, 4]
    assert max(line["start"] for line in lines) < min(line["end"] for line in lines)


def test_other_methods_are_refused_and_logged(served):
    answer = ask(served, "/p/w3-000001", "POST", b"GET /p/none HTTP/1.1\r\n\r\n")
    assert (answer.status, answer.headers["Connection"]) == (405, "close")
    assert served.requests()[-1]["method"] == "POST"


def test_a_line_half_written_is_left_out(tmp_path):
    (tmp_path / "log").write_text('{"number": 1}\n{"numb')
    assert read_log(tmp_path / "log") == [{"number": 1}]


def test_a_hostile_host_header_does_not_reach_the_page(served):
    assert b"<script>x" not in ask(served, "/p/w3-000001", Host='"><script>x').body


# the process


def gone(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True  # dead, and only nobody has asked
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


def test_the_process_ends_with_the_block_and_keeps_its_port(drawn, tmp_path):
    with serve(drawn, tmp_path / "log.jsonl") as server:
        ask(server, "/")
    assert gone(server.pid)
    with serve(drawn, tmp_path / "log.jsonl", port=urlsplit(server.url).port) as again:
        ask(again, "/robots.txt")
        assert again.url == server.url
    assert [line["target"] for line in server.requests()] == ["/", "/robots.txt"]


def test_the_process_ends_when_its_parent_is_killed(drawn, tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from w2w.wardrobe.site import serve\n"
        "with serve(Path(sys.argv[1]), Path(sys.argv[2])) as s: print(s.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(drawn), str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    assert gone(pid)


def test_a_folder_that_is_no_shop_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="did not start"), serve(tmp_path, tmp_path / "log"):
        pass


def test_a_profile_of_the_site_is_written_before_its_address_is_said(drawn, tmp_path):
    with serve(drawn, tmp_path / "log.jsonl", profile=tmp_path / "profile.yaml") as server:
        assert (tmp_path / "profile.yaml").read_text(encoding="utf-8") == PROFILE.format(url=server.url)


def test_the_last_port_is_taken_again_where_it_is_free(tmp_path):
    profile = tmp_path / "profile.yaml"
    assert last_port(profile) == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        profile.write_text(PROFILE.format(url=f"http://127.0.0.1:{port}"), encoding="utf-8")
        assert last_port(profile) == 0
    assert last_port(profile) == port
