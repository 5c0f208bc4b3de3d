"""Whom the fetcher contacts: no private address by any spelling, redirect or name, and no host without its certificate."""

import ipaddress
import socket
import ssl
from datetime import UTC, datetime, timedelta

import pytest

from tests.unit.web.servers import answer, fetcher, rejected, resolve_to
from w2w.errors import Reject, RejectCode
from w2w.web import addresses
from w2w.web.fetch import FetchConfig, Fetcher


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
    assert addresses.refused(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_public_addresses_are_contacted(address):
    assert addresses.refused(ipaddress.ip_address(address)) == ""


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


def test_redirect_whose_kept_connection_is_gone_is_followed_from_where_it_was(serve):
    def reply(sock, head, _):
        if "GET /new " in head:
            sock.sendall(answer("200 OK", b"x"))
        else:
            sock.sendall(answer("302 Found", b"", "Location: /new"))
            sock.recv(4096)  # takes the next request on this connection, and closes it without a word

    server = serve(reply)
    assert fetcher().get(f"{server.url}/old").body == b"x"
    assert [head.split()[1] for head in server.heads] == ["/old", "/new"]


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
    with pytest.raises(Reject) as slash:
        fetcher().get("http://bob:hunt/er2hunter2@127.0.0.1/a.jpg")
    for e in (caught, redirected, missing, slash):
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


class Asked(ssl.SSLContext):
    asked_names: list[str | None]


@pytest.fixture
def tls_server(serve, authority, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
    resolve_to(monkeypatch, "127.0.0.1")
    context = Asked(ssl.PROTOCOL_TLS_SERVER)
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
