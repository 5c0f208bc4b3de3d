"""The hostile twin does what its table says, and the check of the log finds every planted violation."""

import http.client
import itertools
import re
import select
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from bs4 import BeautifulSoup

from tests.cluster import hostile
from tests.cluster.hostile import CANARY, NEVER, REPEATS, TITLES, TRAPS, allowed, check_politeness, page_of
from tests.unit.web.servers import fetcher
from w2w.errors import Reject, RejectCode
from w2w.wardrobe.shop import write_shop
from w2w.wardrobe.site import Served

# what the fetcher alone can know, as reject codes
CODES = {
    "gone": RejectCode.NOT_FOUND,
    "forbidden": RejectCode.FORBIDDEN,
    "failed": RejectCode.FETCH_FAILED,
    "slow": RejectCode.TOO_SLOW,
    "big": RejectCode.TOO_MANY_BYTES,
    "blocked": RejectCode.BLOCKED_URL,
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    write_shop(folder, seed=3, num_products=21, num_posts=2, size_px=32, num_broken=3)
    return folder


@pytest.fixture(scope="module")
def twin(shop, tmp_path_factory):
    with hostile.serve(shop, tmp_path_factory.mktemp("log") / "requests.jsonl") as server:
        yield server


@pytest.fixture
def fresh(shop, tmp_path):
    """A twin that nobody has asked anything."""
    with hostile.serve(shop, tmp_path / "requests.jsonl") as server:
        yield server


def ask(server: Served, target: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    connection.request("GET", target, headers=headers)
    return connection.getresponse()


def raw(server: Served, target: str, seconds: float = 1.0) -> bytes:
    """What comes over the wire in that time, b"RST" for a reset."""
    got, until = b"", time.monotonic() + seconds
    with socket.create_connection(("127.0.0.1", urlsplit(server.url).port)) as sock:
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        while (left := until - time.monotonic()) > 0 and select.select([sock], [], [], left)[0]:
            try:
                piece = sock.recv(65536)
            except ConnectionResetError:
                return got + b"RST"
            if not piece:
                break
            got += piece
    return got


# the twin


def test_every_trap_is_reachable_and_expected(twin, shop):
    expected, found, target = hostile.expected(shop), set(), "/shop?page=1"
    found |= set(re.findall(rb'src="(.*?)"', ask(twin, f"/style/{hostile.LINKS}").read()))
    while target:
        page = BeautifulSoup(ask(twin, target).read(), "html.parser")
        found |= {a["href"] for a in page.select("a.product")} | {i["src"] for i in page.select("img")}
        target = (following := page.select_one("a.next")) and following["href"]
    sitemap = ask(twin, "/sitemap.xml").read().decode()
    found |= {loc.removeprefix(twin.url) for loc in re.findall("<loc>(.*?)</loc>", sitemap)}
    assert set(TRAPS) <= found
    assert set(TRAPS) <= set(expected)
    assert {path for path in found if isinstance(path, str) and path.startswith(("/p/", "/images/"))} <= set(expected)
    for path in TRAPS:
        name = path.rpartition("/")[2].removesuffix(".jpg")
        assert name in hostile.__doc__ or path in hostile.__doc__ or name.startswith("to-"), f"{path} is not in the table"


@pytest.mark.parametrize(
    ("end", "good", "bad"),
    [
        (hostile.DONE, "ok", "missing_field"),
        (hostile.rejected("slow", "big"), "too_many_bytes", "ok"),
        (hostile.rejected(), "empty", "ok"),
        (NEVER, None, "ok"),
        (NEVER, "disallowed", "not_found"),
    ],
)
def test_ends_agree_with_reasons(end, good, bad):
    assert hostile.agrees(end, good)
    assert not hostile.agrees(end, bad)


def test_the_fetcher_ends_as_expected(fresh, shop):
    expected = hostile.expected(shop)
    get = fetcher(deadline_s=4.0, retries=2, max_bytes=1 << 20).get

    def end(path: str) -> str:
        try:
            get(fresh.url + path)
            return "done"
        except Reject as e:
            return next((kind for kind, code in CODES.items() if code == e.code), "?")

    paths = [*TRAPS, "/p/endless-hops", "/p/w3-000003"]
    with ThreadPoolExecutor(len(paths)) as pool:
        ends = dict(zip(paths, pool.map(end, paths)))
    for path, got in ends.items():
        kinds = set(expected[path].kinds) - {"moved", "limit"}
        if path == "/sitemap-bomb.xml.gz" or not kinds <= set(CODES):
            continue  # only who reads the answer can tell
        assert got in (kinds or {"done"}), path
    lines = fresh.requests()
    assert [line for line in lines if line["target"] == CANARY] == []
    found = check_politeness(lines, 1e9, len(paths), repeats=REPEATS)
    assert [f for f in found if "w3-000000" not in f] == []  # two traps lead there


def test_retry_after_has_both_forms(fresh):
    seconds = ask(fresh, "/p/busy-seconds")
    assert (seconds.status, seconds.getheader("Retry-After")) == (429, "1")
    assert ask(fresh, "/p/busy-date").getheader("Retry-After").endswith(" GMT")
    assert [ask(fresh, f"/p/{name}").status for name in ("busy-seconds", "busy-date")] == [200, 200]
    assert [ask(fresh, "/p/burst").status for _ in range(3)] == [503, 503, 200]
    assert [line["retry_after"] for line in fresh.requests()][:1] == ["1"]


def test_what_goes_over_the_wire(twin):
    assert raw(twin, "/p/tls").startswith(b"\x15\x03\x01")
    assert raw(twin, "/p/reset").endswith(b"RST")
    assert raw(twin, "/p/silent", 0.3) == b""
    assert 1 <= len(raw(twin, "/p/drip-body", 0.5).partition(b"\r\n\r\n")[2]) <= 6
    assert raw(twin, "/p/continues", 0.3).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
    head, _, rest = raw(twin, "/p/length-poison", 0.3).partition(b"\r\n\r\n")
    length = int(re.search(rb"Content-Length: (\d+)", head)[1])
    assert rest[length - 8 : length] == b"</html>\n"
    assert rest[length:].startswith(b"HTTP/1.1 200 OK")
    assert hostile.POISON.encode() in rest[length:]
    assert b"Content-Length" not in raw(twin, "/p/length-missing").partition(b"\r\n\r\n")[0]
    assert len(raw(twin, "/p/gzip-bomb")) < 200_000


@pytest.mark.parametrize("path", list(TITLES))
def test_titles_in_other_encodings(twin, path):
    codecs = {"latin-1": "cp1252", "shift-jis": "shift_jis", "utf-16": "utf-16", "wrong": "cp1252"}
    codec = next(codec for name, codec in codecs.items() if name in path)
    codec = "utf-16-le" if path.endswith("utf-16-header") else codec
    response = ask(twin, path)
    page = BeautifulSoup(response.read().decode(codec), "html.parser")
    assert page.select_one("h1.title").text == TITLES[path]
    declared = re.search("charset=(.*)", response.getheader("Content-Type"))
    assert (declared is not None) == path.endswith(("-header", "-charset"))


@pytest.mark.parametrize("path", ["/p/broken-html", "/p/json-ld-broken", "/p/json-ld-deep", "/p/og-only", "/p/microdata-only"])
def test_damaged_pages_still_say_what_they_sell(twin, path):
    page = BeautifulSoup(ask(twin, path).read(), "html.parser")
    title = page.find("meta", property="og:title") or page.select_one("[itemprop=name]")
    assert (title.get("content") or title.text) == f"Trap {path[3:]}"


def test_the_changing_picture_changes(twin):
    first, second = ask(twin, "/images/trap-changing.jpg"), ask(twin, "/images/trap-changing.jpg")
    assert first.getheader("ETag") != second.getheader("ETag")
    assert first.read() != second.read()


def test_endless_paths_go_on(twin):
    target, seen = hostile.ENDLESS_STARTS[0], []
    for _ in range(14):
        seen.append(target)
        target = re.search('rel="next" href="(.*?)"', ask(twin, target).read().decode())[1]
    assert seen[-1] == "/style/calendar/2026-02"
    assert b'href="/style/visit/2"' in ask(twin, "/style/visit/1").read()


def test_links_of_every_kind(twin, shop):
    page = BeautifulSoup(ask(twin, f"/style/{hostile.LINKS}").read(), "html.parser")
    links = [a["href"] for a in page.select("a.tagged")]
    same = [page_of(link.strip().replace("//127", "http://127", 1) if link.startswith("//") else link) for link in links[1:12]]
    assert [p for p in same if p not in ("/p/w3-000000", "../p/w3-000000")] == ["/../p/w3-000000"] * same.count(
        "/../p/w3-000000"
    )
    assert {"javascript:alert(1)", "file:///etc/passwd", "http://[::1", ""} <= set(links)
    assert hostile.expected(shop)["/p/credentials"] == NEVER


def test_a_connection_to_a_private_address_is_noted(fresh):
    location = urlsplit(ask(fresh, "/p/to-localhost").getheader("Location"))
    assert location.hostname == "localhost"
    socket.create_connection(("127.0.0.1", location.port)).close()
    until = time.monotonic() + 5
    while time.monotonic() < until and not any(line["target"] == CANARY for line in fresh.requests()):
        time.sleep(0.02)
    assert any("private address" in what for what in check_politeness(fresh.requests(), 1e9, 9))


# the check of the log


NUMBERS = itertools.count(1)


def line(start: float, target: str = "", *, seconds: float = 0.1, status: int = 200, host: str = "shop:80", **more) -> dict:
    number, end = next(NUMBERS), start + seconds
    made = {"number": number, "start": start, "end": end, "wall_start": start, "wall_end": end, "host": host}
    return made | {"target": target or f"/p/{number}", "status": status, "retry_after": None, "cut": False} | more


def test_a_polite_log_is_found_polite():
    log = [line(t / 2) for t in range(20)] + [line(t / 2, host="other") for t in range(20)]
    log += [line(20, "/a", status=503, retry_after="3"), line(23.2, "/a"), line(30, "/b", status=0, cut=True), line(31, "/b")]
    assert check_politeness(log, 2.0, 1, robots="User-agent: *\nDisallow: /c") == []


def test_rate_over_the_bucket_is_found():
    polite = [line(0.0, seconds=0)] * 5 + [line(0.5 * n, seconds=0) for n in range(1, 20)]
    assert check_politeness([x | {"number": i, "target": f"/{i}"} for i, x in enumerate(polite)], 2.0, 9, burst=5) == []
    assert "rate" in check_politeness([line(0.2 * n) for n in range(20)], 2.0, 9)[0]
    assert "rate" in check_politeness([line(0.0) for n in range(6)], 0.5, 9, burst=5)[0]
    slow_start = [line(0.0), line(100.0), line(100.01), line(100.02), line(100.03)]
    assert "rate" in check_politeness(slow_start, 1.0, 9, burst=3)[0]  # an idle bucket holds no more than its burst
    fifth_more = [line(n / 2.4) for n in range(60)]
    assert "rate" in check_politeness(fifth_more, 2.0, 9)[0]


def test_arrivals_may_bunch_by_the_slack():
    bunched = [line(0.0), line(1.15), line(2.0), line(3.0)]  # the second came late
    assert check_politeness(bunched, 1.0, 9, slack_s=0.2) == []
    assert check_politeness([line(0.0), line(0.7), line(1.7)], 1.0, 9, slack_s=0.2) != []


def test_hosts_have_buckets_of_their_own():
    log = [line(n, host=f"h{k}") for n in range(5) for k in range(5)]
    assert check_politeness(log, 1.0, 1) == []
    assert check_politeness([x | {"host": "H0" if x["host"] == "h1" else x["host"]} for x in log], 1.0, 1) != []


def test_concurrency_over_the_cap_is_found():
    log = [line(0.0, seconds=10), line(1.0, seconds=1), line(1.5, seconds=1), line(3.0, seconds=1), line(4.0, seconds=1)]
    assert check_politeness(log, 9, 3) == []
    assert ["concurrency: 3 in flight" in x for x in check_politeness(log, 9, 2)] == [True]
    one_after_the_other = [line(float(n), seconds=1.0) for n in range(5)]
    assert check_politeness(one_after_the_other, 9, 1) == []


def test_a_client_that_goes_away_is_noticed_late():
    log = [line(0.0, seconds=2.1, cut=True), line(2.0)]
    assert check_politeness(log, 9, 1) == []
    assert check_politeness([line(0.0, seconds=3.1, cut=True), line(2.0)], 9, 1) != []


@pytest.mark.parametrize("again", ["/p/a", "/p/a?utm_source=x", "/p/./a", "/p/%61", "/p/a;jsessionid=9", "/p/a?msclkid=2"])
def test_a_page_asked_twice_is_found(again):
    assert "asked again" in check_politeness([line(0, "/p/a"), line(9, again)], 1, 1)[0]
    assert check_politeness([line(0, "/p/a"), line(9, again)], 1, 1, repeats={"/p/a": 1}) == []
    assert check_politeness([line(0, "/p/a"), line(9, again, host="other")], 1, 1) == []


@pytest.mark.parametrize("status", [200, 301, 304, 403, 404, 410])
def test_final_answers_are_not_asked_for_again(status):
    assert "asked again" in check_politeness([line(0, "/a", status=status), line(9, "/a")], 1, 1)[0]


@pytest.mark.parametrize("failure", [{"status": 503}, {"status": 429}, {"status": 0}, {"status": 200, "cut": True}])
def test_more_retries_than_stated_are_found(failure):
    log = [line(9 * n, "/a", **failure) for n in range(3)]
    assert check_politeness([*log, line(99, "/a")], 1, 1, retries=3) == []
    assert "4 times" in check_politeness([*log, line(99, "/a")], 1, 1, retries=2)[0]
    assert "3 times" in check_politeness(log, 1, 1, retries=1)[0]


def test_retry_after_that_was_not_waited_for_is_found():
    asked = line(0, "/a", status=429, retry_after="5")
    assert check_politeness([asked, line(5.2, "/a")], 9, 9) == []
    assert "Retry-After" in check_politeness([asked, line(4.9, "/a")], 9, 9)[0]
    dated = line(1000.0, "/a", status=503, retry_after=formatdate(1007, usegmt=True))
    assert check_politeness([dated, line(1007.0, "/a")], 9, 9) == []
    assert "Retry-After" in check_politeness([dated, line(1006.0, "/a")], 9, 9)[0]


def test_a_pause_of_the_whole_host_is_asked_for_where_stated():
    log = [line(0, "/a", status=429, retry_after="60"), line(0.15, "/on-its-way"), line(4.0, "/b")]
    assert check_politeness(log, 9, 9) == []
    assert ["/b" in x for x in check_politeness(log, 9, 9, host_pause_s=5)] == [True]
    assert check_politeness(log, 9, 9, host_pause_s=3) == []


def test_disallowed_and_private_are_found():
    robots = "User-agent: *\nDisallow: /account/\nAllow: /account/help\nDisallow: /*sort=\n"
    log = [line(0, "/account/help"), line(2, "/account/x"), line(4, "/shop?page=1&sort=price"), line(6, "/accounts")]
    found = check_politeness(log, 1, 1, robots=robots)
    assert [x.rpartition(" ")[2] for x in found] == ["/account/x", "/shop?page=1&sort=price"]
    assert "private" in check_politeness([{"target": CANARY, "host": "::1:9"}], 1, 1)[0]


@pytest.mark.parametrize(
    ("robots", "target", "wanted"),
    [
        ("", "/x", True),
        ("User-agent: *\nDisallow: /", "/x", False),
        ("User-agent: *\nDisallow:", "/x", True),
        ("User-agent: other\nDisallow: /", "/x", True),
        ("User-agent: other\nUser-agent: W2W\nDisallow: /x", "/x1", False),
        ("User-agent: *\nDisallow: /\n\nUser-agent: w2w\nAllow: /", "/x", True),
        ("User-agent: *\nDisallow: /\n\nUser-agent: w2w\nDisallow:", "/x", True),
        ("User-agent: *\nDisallow: /a # note\nAllow: /a/b", "/a/b", True),
        ("User-agent: *\nDisallow: /*.gif$", "/x.gif", False),
        ("User-agent: *\nDisallow: /*.gif$", "/x.gif?y", True),
        ("User-agent: *\nCrawl-delay: 1\nDisallow: /a\nAllow: /a", "/a", True),
    ],
)
def test_robots_rules(robots, target, wanted):
    assert allowed(robots, target) is wanted
