"""The fetcher against real servers on the loopback interface, most of them hostile: statuses, time, size."""

import gzip
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.unit.web.servers import answer, fetcher, rejected
from w2w.errors import RejectCode, UsageError
from w2w.web import addresses, answers
from w2w.web.fetch import FetchConfig

# what a good server gets and gives


def test_body_headers_and_request_line(serve):
    server = serve(answer("200 OK", b"jpeg", "Content-Type: image/jpeg"))
    response = fetcher(user_agent="shopbot", contact="https://example.org/bot").get(server.url + "/a b/ü.jpg?w=1&q=ä#top")
    assert (response.status, response.body, response.headers["content-type"]) == (200, b"jpeg", "image/jpeg")
    assert server.heads[0].startswith("GET /a%20b/%C3%BC.jpg?w=1&q=%C3%A4 HTTP/1.1\r\n")
    assert f"\r\nHost: 127.0.0.1:{server.port}\r\n" in server.heads[0]
    assert "\r\nUser-Agent: shopbot (+https://example.org/bot)\r\n" in server.heads[0]


def test_gzip_body_is_decoded(serve):
    server = serve(answer("200 OK", gzip.compress(b"x" * 5000), "Content-Encoding: gzip"))
    assert fetcher().get_bytes(server.url) == b"x" * 5000


def test_chunked_body_and_body_without_length(serve):
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert fetcher().get_bytes(serve(chunked).url) == b"abcde"
    assert fetcher().get_bytes(serve(b"HTTP/1.0 200 OK\r\n\r\nabc").url) == b"abc"


def test_relative_redirect_is_followed(serve):
    def reply(sock, head, n):
        sock.sendall(answer("302 Found", b"", "Location: ../new.jpg?v=2") if n == 1 else answer("200 OK", b"new"))

    server = serve(reply)
    response = fetcher().get(server.url + "/a/b/old.jpg")
    assert response.body == b"new"
    assert response.url == server.url + "/a/new.jpg?v=2"
    assert server.heads[1].startswith("GET /a/new.jpg?v=2 ")


def test_proxies_of_the_environment_are_not_used(serve, monkeypatch):
    proxy = serve(answer("200 OK", b"from the proxy"))
    monkeypatch.setenv("http_proxy", proxy.url)
    assert fetcher().get_bytes(serve(answer("200 OK", b"direct")).url) == b"direct"
    assert proxy.heads == []


# statuses and retries


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("404 Not Found", RejectCode.NOT_FOUND),
        ("410 Gone", RejectCode.NOT_FOUND),
        ("401 Unauthorized", RejectCode.FORBIDDEN),
        ("403 Forbidden", RejectCode.FORBIDDEN),
        ("400 Bad Request", RejectCode.FETCH_FAILED),
        ("304 Not Modified", RejectCode.FETCH_FAILED),
    ],
)
def test_status_becomes_a_code_without_retry(serve, status, code):
    server = serve(answer(status))
    with rejected(code, status[:3]):
        fetcher(retries=3).get(server.url)
    assert len(server.heads) == 1


def test_503_and_a_dropped_connection_are_retried(serve):
    def reply(sock, head, n):
        if n == 2:
            return  # closes without an answer
        sock.sendall(answer("503 Busy") if n == 1 else answer("200 OK", b"at last"))

    server = serve(reply)
    assert fetcher(retries=2).get_bytes(server.url) == b"at last"
    assert len(server.heads) == 3


def test_retries_end(serve):
    server = serve(answer("500 Oops"))
    with rejected(RejectCode.FETCH_FAILED, "HTTP 500", "3 attempts"):
        fetcher(retries=2).get(server.url)
    assert len(server.heads) == 3


def test_retry_after_is_honoured(serve):
    server = serve(
        lambda sock, head, n: sock.sendall(answer("429 Slow", b"", "Retry-After: 1") if n == 1 else answer("200 OK"))
    )
    started = time.monotonic()
    fetcher(retries=1).get(server.url)
    assert time.monotonic() - started >= 1.0


def test_retry_after_past_the_deadline_gives_up_at_once(serve):
    server = serve(answer("429 Slow", b"", "Retry-After: 3600"))
    started = time.monotonic()
    with rejected(RejectCode.FETCH_FAILED, "3600"):
        fetcher(retries=3).get(server.url)
    assert time.monotonic() - started < 30
    assert len(server.heads) == 1


def test_retry_after_forms():
    now = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
    later = (now + timedelta(seconds=90)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert answers._retry_after_s(later, now) == 90.0
    assert answers._retry_after_s("7", now) == 7.0
    assert answers._retry_after_s("Wed, 01 May 2019 12:00:00 GMT", now) == 0.0
    assert [answers._retry_after_s(header, now) for header in (None, "", "-5", "soon", "1e9")] == [None] * 5


def test_nobody_listening_is_fetch_failed():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with rejected(RejectCode.FETCH_FAILED, "refused", "2 attempts"):
        fetcher(retries=1).get(f"http://127.0.0.1:{port}/")


# time


def drip(start: bytes, piece: bytes) -> Callable[[socket.socket, str, int], None]:
    def reply(sock, head, n):
        sock.sendall(start)
        for _ in range(200):
            sock.sendall(piece)
            time.sleep(0.05)

    return reply


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"Trailer: x\r\n"),
    ],
    ids=["body", "chunks", "headers", "continue", "trailers"],
)
def test_dripping_ends_by_the_deadline(serve, start, piece):
    server = serve(drip(start, piece))
    started = time.monotonic()
    with rejected(RejectCode.TOO_SLOW, "0.4 s"):
        fetcher(deadline_s=0.4, retries=5).get(server.url)
    assert time.monotonic() - started < 60


def test_silent_server_and_silent_resolver_end_by_the_deadline(serve, monkeypatch):
    gone = threading.Event()
    server = serve(lambda sock, head, n: gone.wait(5))
    with rejected(RejectCode.TOO_SLOW):
        fetcher(deadline_s=0.3).get(server.url)
    monkeypatch.setattr(addresses, "_resolve", lambda host, port, put: gone.wait(5))
    with rejected(RejectCode.TOO_SLOW):
        fetcher(deadline_s=0.3).get("http://slow-dns.test/")
    gone.set()


# size


def test_declared_length_over_the_cap_is_refused_unread(serve):
    server = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
    with rejected(RejectCode.TOO_MANY_BYTES, "1000 bytes"):
        fetcher(max_bytes=1000).get(server.url)


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
    ],
    ids=["no length", "negative length", "negative chunk", "huge chunk"],
)
def test_endless_body_is_capped(serve, start):
    def reply(sock, head, n):
        sock.sendall(start)
        while True:
            sock.sendall(b"x" * 65536)

    with rejected(RejectCode.TOO_MANY_BYTES):
        fetcher(max_bytes=100_000).get(serve(reply).url)


def test_body_shorter_than_declared_is_not_taken_for_whole(serve):
    server = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    with rejected(RejectCode.FETCH_FAILED, "7 bytes early", "2 attempts"):
        fetcher(retries=1).get(server.url)


def test_body_longer_than_declared_is_cut_there(serve):
    assert fetcher().get_bytes(serve(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef").url) == b"abc"


def test_gzip_bomb_is_capped(serve):
    bomb = gzip.compress(bytes(20_000_000))
    assert len(bomb) < 20_000
    with rejected(RejectCode.TOO_MANY_BYTES):
        fetcher(max_bytes=100_000).get(serve(answer("200 OK", bomb, "Content-Encoding: gzip")).url)


def test_gzip_that_is_none_or_ends_early(serve):
    with rejected(RejectCode.FETCH_FAILED, "not gzip"):
        fetcher().get(serve(answer("200 OK", b"plain", "Content-Encoding: gzip")).url)
    with rejected(RejectCode.FETCH_FAILED, "ended early"):
        fetcher().get(serve(answer("200 OK", gzip.compress(b"abc" * 99)[:-9], "Content-Encoding: gzip")).url)
    with rejected(RejectCode.FETCH_FAILED, "'br'"):
        fetcher().get(serve(answer("200 OK", b"x", "Content-Encoding: br")).url)


@pytest.mark.parametrize(
    "head",
    [
        b"<html>",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500 + b"\r\n",
        b"HTTP/1.1 200 " + b"x" * 99_999,
    ],
    ids=["no HTTP", "negative chunk", "no status", "many headers", "long line"],
)
def test_what_is_no_http_is_fetch_failed(serve, head):
    with rejected(RejectCode.FETCH_FAILED, "not an HTTP answer"):
        fetcher().get(serve(head).url)


# config


@pytest.mark.parametrize(
    "settings", [{"deadline_s": 0}, {"max_bytes": -1}, {"retries": -1}, {"user_agent": "a\r\nX: y"}, {"contact": "café"}]
)
def test_bad_settings_name_themselves(settings):
    with pytest.raises(UsageError, match=next(iter(settings))):
        FetchConfig(**settings)
