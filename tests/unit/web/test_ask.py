"""One request at a time: kept connections, validators, content types, marks against models, contact."""

import gzip
import pickle
import time

import pytest

from tests.unit.web.servers import answer, fetcher, rejected, resolve_to
from tests.unit.web.webs import Page, serve
from w2w.errors import RejectCode, UsageError
from w2w.web import connections
from w2w.web.answers import Redirect, Response, TryLater, Validators
from w2w.web.connections import IdleConnections


def test_connections_are_kept_between_requests_and_redirects():
    pages = {"/a": Page(b"a"), "/gone": Page(status=404), "/moved": Page(status=302, headers={"Location": "/a"})}
    with serve(pages) as web:
        client = fetcher()
        for _ in range(3):
            assert client.get_bytes(web.url + "/moved") == b"a"
            with rejected(RejectCode.NOT_FOUND):
                client.get(web.url + "/gone")
        assert len(web.asked) == 9
        assert web.connections == 1
        client.close()
        client.get(web.url + "/a")
        assert web.connections == 2


def test_keep_alive_can_be_switched_off():
    with serve({"/a": Page(b"a")}) as web:
        client = fetcher(keep_alive=0)
        client.get(web.url + "/a")
        client.get(web.url + "/a")
        assert web.connections == 2
        assert web.headers[0]["Connection"] == "close"


def test_bytes_after_an_answer_are_never_the_next_answer(serve):
    """``serve`` of conftest answers once a connection: were it reused, the forged second answer would be read."""
    forged = answer("200 OK", b"forged")
    server = serve(lambda sock, head, n: sock.sendall(answer("200 OK", b"good") + forged) or time.sleep(0.05))
    client = fetcher()
    assert [client.get_bytes(server.url) for _ in range(3)] == [b"good"] * 3
    assert len(server.heads) == 3


def test_an_answer_that_was_not_read_is_not_left_in_the_connection():
    pages = {"/big": Page(b"x" * 300_000, status=404), "/type": Page(b"y" * 300_000), "/a": Page(b"a")}
    with serve(pages) as web:
        client = fetcher()
        for _ in range(3):
            with rejected(RejectCode.NOT_FOUND):
                client.get(web.url + "/big")
            with rejected(RejectCode.WRONG_TYPE):
                client.ask(web.url + "/type", accept=("image/",))
            assert client.get_bytes(web.url + "/a") == b"a"


def test_a_connection_closed_meanwhile_is_replaced_and_no_attempt_is_lost(serve, monkeypatch):
    server = serve(answer("200 OK", b"x"))  # closes after each answer, without saying so
    client = fetcher(retries=0)
    assert [client.get_bytes(server.url) for _ in range(5)] == [b"x"] * 5
    monkeypatch.setattr(connections, "_says_something", lambda sock: False)  # as if the news came only now
    assert [client.get_bytes(server.url) for _ in range(5)] == [b"x"] * 5
    with pytest.raises(TryLater) as caught:
        client.ask(server.url)
    assert caught.value.stale


def test_idle_connections_are_bounded():
    class Socket:
        closed = False

        def close(self):
            self.closed = True

        def fileno(self):
            return -1

    kept = IdleConnections(per_origin=2)
    sockets = [Socket() for _ in range(3)]
    for sock in sockets:
        kept.give(("http", "h", 80), sock)
    assert [s.closed for s in sockets] == [True, False, False]
    kept.close()
    assert all(s.closed for s in sockets)


def test_validators_make_a_304():
    page = Page(b"a", headers={"ETag": '"v1"', "Last-Modified": "Wed, 01 May 2024 12:00:00 GMT"})
    with serve({"/a": page}) as web:
        client = fetcher()
        first = client.ask(web.url + "/a")
        known = Validators(first.headers["etag"], first.headers["last-modified"])
        again = client.ask(web.url + "/a", known)
        assert (again.status, again.body) == (304, b"")
        assert web.headers[1]["If-None-Match"] == '"v1"'
        assert web.headers[1]["If-Modified-Since"] == "Wed, 01 May 2024 12:00:00 GMT"
        page.headers["ETag"] = '"v2"'
        assert client.ask(web.url + "/a", known).status == 200


def test_a_validator_cannot_carry_a_header():
    assert Validators('"x"\r\nCookie: a', "ü").headers() == []


def test_a_redirect_is_told_and_not_followed():
    with serve({"/a": Page(status=301, headers={"Location": "b?x#y"})}) as web:
        assert fetcher().ask(web.url + "/a") == Redirect(web.url + "/a", 301, web.url + "/b?x")
        assert web.paths() == ["/a"]


def test_ask_neither_waits_nor_retries():
    with serve({"/busy": Page(status=429, headers={"Retry-After": "30"}), "/oops": Page(status=500)}) as web:
        for path, status, wait_s in (("/busy", 429, 30.0), ("/oops", 500, None)):
            with pytest.raises(TryLater) as caught:
                fetcher(retries=5).ask(web.url + path)
            assert (caught.value.status, caught.value.wait_s) == (status, wait_s)
        assert len(web.asked) == 2


@pytest.mark.parametrize(
    ("header", "accept", "ok"),
    [
        ("text/html; charset=x", ("text/html",), True),
        ("IMAGE/JPEG", ("image/",), True),
        ("image/jpeg", ("text/html",), False),
        (None, ("text/html",), False),
        (None, ("text/html", ""), True),
        ("application/pdf", (), True),
    ],
)
def test_content_type_is_checked_before_the_body(serve, header, accept, ok):
    server = serve(answer("200 OK", b"x", *([f"Content-Type: {header}"] if header else [])))
    if ok:
        assert isinstance(fetcher().ask(server.url, accept=accept), Response)
    else:
        with rejected(RejectCode.WRONG_TYPE, "wanted"):
            fetcher().ask(server.url, accept=accept)


@pytest.mark.parametrize(
    ("tags", "refused"),
    [
        (["noai"], True),
        (["noindex, NoImageAI"], True),
        (["w2w: noai"], True),
        (["otherbot: noai"], False),
        (["noindex", "nofollow"], False),
        (["noindex", "noai"], True),
    ],
)
def test_owners_mark_against_models_is_respected(serve, tags, refused):
    server = serve(answer("200 OK", b"x", *(f"X-Robots-Tag: {t}" for t in tags)))
    if refused:
        with rejected(RejectCode.DISALLOWED, "X-Robots-Tag"):
            fetcher().get(server.url)
    assert refused or fetcher().get_bytes(server.url) == b"x"
    assert fetcher(respect_no_ai=False).get_bytes(server.url) == b"x"


@pytest.mark.parametrize(
    ("tag", "refused"),
    [
        ("W2W: noindex, noai", True),  # what follows the name is for that agent
        ("otherbot: noindex, noai", False),
        ("otherbot: noindex, w2w: noai", True),
        ("w2w: noindex, otherbot: noai", False),
        ("w2w/1.0: noai", True),  # the product token alone counts (RFC 9309, section 2.2.1)
        ("w2wbot: noai", False),
        ("w2: noai", False),
        ("*: noai", True),
        ("unavailable_after: 25 Jun 2030 15:00:00 GMT, noai", True),  # a directive with a value, not an agent
        ("max-snippet: 20, noai", True),
        ("otherbot: max-snippet: 20, noai", False),
    ],
)
def test_a_mark_is_for_the_agent_that_it_names(serve, tag, refused):
    server = serve(answer("200 OK", b"x", f"X-Robots-Tag: {tag}"))
    get = fetcher(user_agent="W2W/2.0 (catalog)").get_bytes
    if refused:
        with rejected(RejectCode.DISALLOWED, "X-Robots-Tag"):
            get(server.url)
    else:
        assert get(server.url) == b"x"


def test_a_public_host_is_not_asked_without_a_contact(monkeypatch):
    resolve_to(monkeypatch, "93.184.215.14")
    with pytest.raises(UsageError, match=r"fetch\.contact is not set.*--fetch\.contact"):
        fetcher().get("http://shop.test/a.jpg")
    with pytest.raises(UsageError, match="URL or a mail"):
        fetcher(contact="me")


def test_gzip_on_a_kept_connection():
    with serve({"/a": Page(gzip.compress(b"abc" * 99), headers={"Content-Encoding": "gzip"})}) as web:
        client = fetcher()
        assert [client.get_bytes(web.url + "/a") for _ in range(2)] == [b"abc" * 99] * 2
        assert web.connections == 1


def test_a_fetcher_travels_without_its_connections():
    with serve({"/a": Page(b"a")}) as web:
        client = fetcher()
        client.get(web.url + "/a")
        assert pickle.loads(pickle.dumps(client)).get_bytes(web.url + "/a") == b"a"
        assert web.connections == 2
