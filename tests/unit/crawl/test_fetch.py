"""The fetcher against real servers on the loopback interface, most of them hostile."""

import gzip
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from w2w.crawl import fetch
from w2w.crawl.fetch import FetchConfig, Fetcher
from w2w.errors import Reject, RejectCode, UsageError

LOCAL = ("127.0.0.1",)


class Server:
    """Answers each connection with ``reply(socket, request_head, number_of_this_connection)``; keeps the request heads."""

    def __init__(self, reply: Callable[[socket.socket, str, int], None], tls: ssl.SSLContext | None = None):
        self.reply, self.tls, self.heads, self.stopping = reply, tls, [], threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while True:
            sock, _ = self.listener.accept()
            if self.stopping.is_set():
                sock.close()
                return
            try:
                with self.tls.wrap_socket(sock, server_side=True) if self.tls else sock as sock:
                    head = b""
                    while b"\r\n\r\n" not in head and (chunk := sock.recv(4096)):
                        head += chunk
                    self.heads.append(head.decode())
                    self.reply(sock, self.heads[-1], len(self.heads))
            except OSError:  # the client went away, which is what many tests want
                pass

    def stop(self) -> None:
        self.stopping.set()
        socket.create_connection(("127.0.0.1", self.port)).close()
        self.thread.join()
        self.listener.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    with ExitStack() as stack:

        def start(reply: Callable | bytes, tls: ssl.SSLContext | None = None) -> Server:
            server = Server(reply if callable(reply) else lambda sock, head, n: sock.sendall(reply), tls)
            stack.callback(server.stop)
            return server

        yield start


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]).encode() + body


def fetcher(**settings: object) -> Fetcher:
    return Fetcher(FetchConfig(**{"allow_private_hosts": LOCAL, "deadline_s": 5.0, "retries": 0, **settings}))


@contextmanager
def rejected(code: RejectCode, *words: str) -> Iterator[None]:
    with pytest.raises(Reject) as caught:
        yield
    assert caught.value.code == code, caught.value
    for word in words:
        assert word in caught.value.detail


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_BACKOFF_S", 0.01)


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
    assert time.monotonic() - started < 2.0
    assert len(server.heads) == 1


def test_retry_after_forms():
    now = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
    later = (now + timedelta(seconds=90)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert fetch._retry_after_s(later, now) == 90.0
    assert fetch._retry_after_s("7", now) == 7.0
    assert fetch._retry_after_s("Wed, 01 May 2019 12:00:00 GMT", now) == 0.0
    assert [fetch._retry_after_s(header, now) for header in (None, "", "-5", "soon", "1e9")] == [None] * 5


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
    assert time.monotonic() - started < 1.5


def test_silent_server_and_silent_resolver_end_by_the_deadline(serve, monkeypatch):
    gone = threading.Event()
    server = serve(lambda sock, head, n: gone.wait(5))
    with rejected(RejectCode.TOO_SLOW):
        fetcher(deadline_s=0.3).get(server.url)
    monkeypatch.setattr(fetch, "_resolve", lambda host, port, put: gone.wait(5))
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


# where it goes


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://example.org/a", "gopher://x/", "data:,x", "//host/a", "a.jpg", "", "http:///a"]
)
def test_other_schemes_are_refused(url):
    with rejected(RejectCode.BLOCKED_URL):
        fetcher().get(url)


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://a b/", "http://h:0/", "http://h:99999/", "http://h\\@127.0.0.1/", "http://[fe80::1%25eth0]/"]
)
def test_malformed_urls_are_refused(url):
    with rejected(RejectCode.BLOCKED_URL):
        fetcher().get(url)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "0x7f.1",
        "2130706433",
        "0177.0.0.1",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "localhost",
    ],
)
def test_spellings_of_loopback_are_refused_without_a_connection(serve, host):
    server = serve(answer("200 OK", b"secret"))
    with rejected(RejectCode.BLOCKED_URL):
        Fetcher(FetchConfig(retries=0)).get(f"http://{host}:{server.port}/")
    assert server.heads == []


INSIDE = """
    10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.100.100.200 168.63.129.16 0.0.0.0 224.0.0.1 240.0.0.1 255.255.255.255
    192.0.0.192 198.18.0.1 192.88.99.1 ::1 :: fe80::1 fc00::1 fd00:ec2::254 ff02::1 fec0::1 ::ffff:10.0.0.1 ::127.0.0.1
    ::ffff:8.8.8.8 2002:7f00:1:: 2001:0:7f00:1:: 64:ff9b::7f00:1 64:ff9b:1::7f00:1 2001:db8::1 100::1
"""


@pytest.mark.parametrize("address", INSIDE.split())
def test_addresses_that_lead_inside_are_refused(address):
    assert fetch._refused(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_public_addresses_are_contacted(address):
    assert fetch._refused(ipaddress.ip_address(address)) == ""


def test_redirect_to_a_private_address_makes_no_connection(serve):
    inside = serve(answer("200 OK", b"secret"))
    outside = serve(answer("302 Found", b"", f"Location: http://localhost:{inside.port}/admin"))
    with rejected(RejectCode.BLOCKED_URL, "localhost"):
        fetcher(retries=3).get(outside.url)
    assert len(outside.heads) == 1
    assert inside.heads == []


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/", "http://[::ffff:127.0.0.1]/", "http://[bad"])
def test_redirect_is_checked_like_a_url(serve, location):
    with rejected(RejectCode.BLOCKED_URL):
        fetcher().get(serve(answer("301 Moved", b"", f"Location: {location}")).url)


def test_redirect_loop_ends(serve):
    server = serve(answer("302 Found", b"", "Location: /again"))
    with rejected(RejectCode.FETCH_FAILED, "more than 4 redirects"):
        fetcher(max_redirects=4).get(server.url)
    assert len(server.heads) == 5


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    asked = []

    def resolve(host, port, put):
        asked.append(host)
        put([(None, None, 0, "", (address, port)) for address in addresses])

    monkeypatch.setattr(fetch, "_resolve", resolve)
    return asked


def test_one_private_address_among_public_ones_is_enough(monkeypatch):
    resolve_to(monkeypatch, "93.184.215.14", "10.0.0.5")
    with rejected(RejectCode.BLOCKED_URL, "10.0.0.5"):
        fetcher().get("http://shop.test/a.jpg")


def test_name_is_resolved_once_so_it_cannot_change_between_check_and_connection(serve, monkeypatch):
    server = serve(answer("200 OK", b"x"))
    asked = resolve_to(monkeypatch, "127.0.0.1")
    real = socket.getaddrinfo

    def numeric_only(host, *rest, **named):
        ipaddress.ip_address(host)  # connecting must not look the name up again
        return real(host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", numeric_only)
    assert fetcher(allow_private_hosts=("shop.test",)).get_bytes(f"http://shop.test:{server.port}/a") == b"x"
    assert asked == ["shop.test"]
    assert f"\r\nHost: shop.test:{server.port}\r\n" in server.heads[0]


def test_next_address_is_tried_when_the_first_does_not_answer(serve, monkeypatch):
    server = serve(answer("200 OK", b"x"))
    resolve_to(monkeypatch, "::1", "127.0.0.1")
    assert fetcher(allow_private_hosts=("shop.test",)).get_bytes(f"http://shop.test:{server.port}/a") == b"x"


def test_messages_hold_no_secrets(serve):
    with pytest.raises(Reject) as caught:
        fetcher().get("http://bob:hunter2@127.0.0.1/a.jpg?X-Signature=topsecret")
    assert caught.value.code == RejectCode.BLOCKED_URL
    server = serve(answer("302 Found", b"", "Location: http://bob:hunter2@localhost/a?sig=topsecret"))
    with pytest.raises(Reject) as redirected:
        fetcher().get(server.url)
    with pytest.raises(Reject) as missing:
        fetcher().get(serve(answer("404 No")).url + "/a.jpg?sig=topsecret")
    for e in (caught, redirected, missing):
        assert "hunter2" not in str(e.value)
        assert "bob" not in str(e.value)
        assert "topsecret" not in str(e.value)
    assert "/a.jpg" in str(missing.value)


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A certificate authority of our own: its file, and a server context for a host name."""
    pytest.importorskip("cryptography", reason="makes the test certificates")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    folder = tmp_path_factory.mktemp("tls")
    now = datetime.now(UTC)

    def certificate(name: str, key, issuer: str, issuer_key, ca: bool) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        )
        return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    ca_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    (folder / "ca.pem").write_bytes(certificate("ca.test", ca_key, "ca.test", ca_key, True))
    (folder / "server.pem").write_bytes(
        server_key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate("shop.test", server_key, "ca.test", ca_key, False)
    )
    return folder


@pytest.fixture
def tls_server(serve, authority, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
    resolve_to(monkeypatch, "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem")
    context.asked_names = []
    context.sni_callback = lambda sock, name, ctx: context.asked_names.append(name)
    return serve(answer("200 OK", b"over tls"), tls=context)


def test_tls_names_and_checks_the_host_not_the_address(tls_server):
    client = fetcher(allow_private_hosts=("shop.test",))
    assert client.get_bytes(f"https://shop.test:{tls_server.port}/") == b"over tls"
    assert tls_server.tls.asked_names == ["shop.test"]
    assert f"\r\nHost: shop.test:{tls_server.port}\r\n" in tls_server.heads[0]


def test_certificate_of_another_host_is_refused_without_retry(tls_server):
    with rejected(RejectCode.FETCH_FAILED, "certificate refused"):
        fetcher(allow_private_hosts=("other.test",), retries=3).get(f"https://other.test:{tls_server.port}/")
    assert tls_server.tls.asked_names == ["other.test"]
    assert tls_server.heads == []


def test_certificate_of_an_unknown_authority_is_refused(tls_server, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with rejected(RejectCode.FETCH_FAILED, "certificate refused"):
        fetcher(allow_private_hosts=("shop.test",)).get(f"https://shop.test:{tls_server.port}/")


# config


@pytest.mark.parametrize(
    "settings", [{"deadline_s": 0}, {"max_bytes": -1}, {"retries": -1}, {"user_agent": "a\r\nX: y"}, {"contact": "café"}]
)
def test_bad_settings_name_themselves(settings):
    with pytest.raises(UsageError, match=next(iter(settings))):
        FetchConfig(**settings)
