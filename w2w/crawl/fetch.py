"""One safe, bounded HTTP GET: nothing it is told by a URL or a server can make it reach inside, wait long or fill memory.

It talks HTTP/1.1 over its own socket (standard library only), because three promises need the socket in hand: the address
that was checked is the address that is contacted (no DNS rebinding), every single read ends by the deadline (dripping
headers and bodies alike), and the bytes on the wire are counted. Environment proxies are never used. One connection a
request: politeness, caching and reuse belong to the crawler above it.
"""

import email.utils
import functools
import http.client
import io
import ipaddress
import queue
import random
import re
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from w2w.errors import Reject, RejectCode, UsageError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")  # all that is handed out; NAT64, mapped and local forms lie outside
# Global by the word of some Python version's ipaddress, yet not the public web: IETF assignments (RFC 6890; Oracle's metadata
# service is one), documentation, Teredo and 6to4, which carry an IPv4 address (RFC 4380, 3056), the 6to4 relay, and Azure's
# metadata service, which has a public address.
_REFUSED_NETWORKS = [
    ipaddress.ip_network(n)
    for n in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
]
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9._:-]{1,253}\Z", re.ASCII)  # a name, an IPv4 or (without brackets) an IPv6 address
_TARGET_SAFE = "/%:@!$&'()*+,;=~-._"  # what a request line may hold unquoted
_REDIRECTS = {301, 302, 303, 307, 308}
_CHUNK = 64 * 1024
_HEADER_ALLOWANCE = 1024 * 1024  # on top of max_bytes on the wire, for status lines, headers, chunk sizes
_BACKOFF_S, _MAX_BACKOFF_S = 0.5, 30.0


@dataclass(frozen=True)
class FetchConfig:
    """How to ask other people's servers for a file."""

    user_agent: str = "w2w"
    """The name servers see; say who you are."""
    contact: str = ""
    """A URL or mail address where their owners can reach you, appended to user_agent."""
    connect_timeout_s: float = 10.0
    """Seconds for one connection, TLS handshake included."""
    deadline_s: float = 60.0
    """Seconds for the whole request: look-up, redirects, body, retries and the waits between them."""
    max_bytes: int = 20 * 1024 * 1024
    """The largest body, after decompression."""
    max_redirects: int = 5
    """Redirects followed at most; each is checked like the first URL."""
    retries: int = 3
    """Further attempts after 408, 429, 5xx and connection errors."""
    allow_private_hosts: tuple[str, ...] = ()
    """Host names, as written in the URL, that may be on a private address."""

    def __post_init__(self):
        for name in ("connect_timeout_s", "deadline_s", "max_bytes"):
            if getattr(self, name) <= 0:
                raise UsageError(f"fetch.{name}={getattr(self, name)}: it must be above zero")
        for name in ("max_redirects", "retries"):
            if getattr(self, name) < 0:
                raise UsageError(f"fetch.{name}={getattr(self, name)}: it must be zero or more")
        for name in ("user_agent", "contact"):
            if not getattr(self, name).isprintable() or not getattr(self, name).isascii():
                raise UsageError(f"fetch.{name}={getattr(self, name)!r}: printable ASCII only, it goes into an HTTP header")


@dataclass(frozen=True)
class Response:
    """A 2xx answer: the URL after redirects, its status, headers (lower-case names) and decoded body."""

    url: str
    status: int
    headers: dict[str, str]
    body: bytes


class _Retry(Exception):
    """This attempt failed in a way that another may not; ``wait_s`` is what the server asked for, if it did."""

    def __init__(self, detail: str, wait_s: float | None = None):
        super().__init__(detail)
        self.detail, self.wait_s = detail, wait_s


class _Deadline(Exception):
    """The whole-request deadline passed."""


class _TooManyBytes(Exception):
    """More came over the wire than the cap allows."""


class Fetcher:
    """``get`` a URL within the limits of ``config``. Safe to share between threads."""

    def __init__(self, config: FetchConfig = FetchConfig()):
        self.config = config
        self._allowed = frozenset(h.strip("[]").lower() for h in config.allow_private_hosts)

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:  # on the first https URL: loading the authorities takes longer than a small image
        return ssl.create_default_context()

    def get(self, url: str) -> Response:
        """Raises Reject within ``deadline_s`` (plus scheduling): BLOCKED_URL, NOT_FOUND, FORBIDDEN, TOO_SLOW, TOO_MANY_BYTES,
        or FETCH_FAILED once the retries are used up. Messages hold no user name, password or query string of a URL.
        """
        deadline = time.monotonic() + self.config.deadline_s
        for attempt in range(self.config.retries + 1):
            try:
                return self._follow(url, deadline)
            except _Deadline:
                raise Reject(RejectCode.TOO_SLOW, f"{redacted(url)}: not done after {self.config.deadline_s:g} s") from None
            except _TooManyBytes:
                detail = f"{redacted(url)}: more than {self.config.max_bytes} bytes"
                raise Reject(RejectCode.TOO_MANY_BYTES, detail) from None
            except _Retry as e:
                detail = f"{redacted(url)}: {e.detail}"
                if attempt == self.config.retries:
                    raise Reject(RejectCode.FETCH_FAILED, f"{detail} ({attempt + 1} attempts)") from None
                backoff_s = min(_MAX_BACKOFF_S, _BACKOFF_S * 2**attempt) * random.uniform(0.5, 1.0)
                wait_s = max(backoff_s, e.wait_s or 0.0)
                if wait_s >= deadline - time.monotonic():
                    waiting = f"another attempt has to wait {wait_s:.0f} s, past the deadline"
                    raise Reject(RejectCode.FETCH_FAILED, f"{detail}; {waiting}") from None
                time.sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")

    def get_bytes(self, url: str) -> bytes:
        """The body alone: the callable that takes a URL and gives bytes."""
        return self.get(url).body

    def _follow(self, url: str, deadline: float) -> Response:
        for _ in range(self.config.max_redirects + 1):
            result = self._attempt(url, deadline)
            if isinstance(result, Response):
                return result
            url = result
        raise Reject(RejectCode.FETCH_FAILED, f"{redacted(url)}: more than {self.config.max_redirects} redirects")

    def _attempt(self, url: str, deadline: float) -> Response | str:
        """One request: its response, or the URL that it redirects to."""
        scheme, host, port, target = _parse(url)
        try:
            with self._connect(scheme, host, port, deadline, url) as sock:
                sock.sendall(self._request(scheme, host, port, target))
                wire = _Wire(sock, deadline, self.config.max_bytes + _HEADER_ALLOWANCE)
                response = http.client.HTTPResponse(wire, method="GET")
                response.begin()
                return self._answer(url, response)
        except ssl.SSLCertVerificationError as e:
            detail = f"{redacted(url)}: certificate refused: {e.verify_message}"
            raise Reject(RejectCode.FETCH_FAILED, detail) from None
        except TimeoutError as e:
            if time.monotonic() >= deadline:
                raise _Deadline from None
            raise _Retry(f"timed out: {e}") from None
        except OSError as e:
            raise _Retry(f"connection failed: {e.strerror or type(e).__name__}") from None
        except (http.client.HTTPException, ValueError) as e:  # ValueError: a negative chunk size
            raise _Retry(f"not an HTTP answer: {type(e).__name__}") from None

    def _request(self, scheme: str, host: str, port: int, target: str) -> bytes:
        name = f"[{host}]" if ":" in host else host
        agent = f"{self.config.user_agent} (+{self.config.contact})" if self.config.contact else self.config.user_agent
        lines = [
            f"GET {target} HTTP/1.1",
            f"Host: {name}" + ("" if port == _PORTS[scheme] else f":{port}"),
            f"User-Agent: {agent}",
            "Accept: */*",
            "Accept-Encoding: gzip",
            "Connection: close",
        ]
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def _connect(self, scheme: str, host: str, port: int, deadline: float, url: str) -> socket.socket:
        addresses = _look_up(host, port, deadline)
        if host not in self._allowed:
            for address in addresses:
                if why := _refused(address):
                    raise Reject(RejectCode.BLOCKED_URL, f"{redacted(url)}: {address} is {why}; see fetch.allow_private_hosts")
        failure: OSError = OSError("no address")
        for address in addresses:
            until = min(deadline, time.monotonic() + self.config.connect_timeout_s)
            try:
                sock = socket.create_connection((str(address), port), timeout=_left(until))
            except OSError as e:
                failure = e
                continue
            if scheme == "http":
                return sock
            try:
                sock.settimeout(_left(until))
                return self._tls.wrap_socket(sock, server_hostname=host)
            except BaseException:
                sock.close()
                raise
        raise failure

    def _answer(self, url: str, response: http.client.HTTPResponse) -> Response | str:
        status, where = response.status, redacted(url)
        if status in _REDIRECTS and (location := response.getheader("Location")):
            try:
                return urljoin(
                    url, quote(location, safe=_TARGET_SAFE + "?#[]", encoding="latin-1")
                )  # as http.client decoded it
            except ValueError:
                raise Reject(RejectCode.BLOCKED_URL, f"{where}: redirects to something that is no URL") from None
        if status in (404, 410):
            raise Reject(RejectCode.NOT_FOUND, f"{where}: HTTP {status}")
        if status in (401, 403):
            raise Reject(RejectCode.FORBIDDEN, f"{where}: HTTP {status}")
        if status in (408, 429) or status >= 500:
            raise _Retry(f"HTTP {status}", _retry_after_s(response.getheader("Retry-After"), datetime.now(UTC)))
        if not 200 <= status < 300:
            raise Reject(RejectCode.FETCH_FAILED, f"{where}: HTTP {status}")
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Response(url, status, headers, self._body(where, response))

    def _body(self, where: str, response: http.client.HTTPResponse) -> bytes:
        promised = response.length
        if promised is not None and promised > self.config.max_bytes:
            raise _TooManyBytes
        encoding = (response.getheader("Content-Encoding") or "identity").strip().lower()
        if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
            raise Reject(
                RejectCode.FETCH_FAILED, f"{where}: content encoding {encoding[:40]!r}, though only gzip was asked for"
            )
        inflate = None if encoding == "identity" else zlib.decompressobj(wbits=47)  # 47: gzip or zlib, by its header
        body, received = bytearray(), 0
        while chunk := response.read(_CHUNK):
            received += len(chunk)
            try:  # at most one byte over the cap is ever inflated, however small the bomb
                body += inflate.decompress(chunk, self.config.max_bytes + 1 - len(body)) if inflate else chunk
            except zlib.error:
                raise Reject(RejectCode.FETCH_FAILED, f"{where}: the body is not {encoding}") from None
            if len(body) > self.config.max_bytes:
                raise _TooManyBytes
        if promised is not None and received < promised:
            raise _Retry(f"the body ended {promised - received} bytes early")
        if inflate and received and not inflate.eof:
            raise _Retry(f"the {encoding} body ended early")
        return bytes(body)


class _Wire(io.RawIOBase):
    """A socket's reading side: every read ends by ``deadline``, and all together by ``max_bytes``."""

    def __init__(self, sock: socket.socket, deadline: float, max_bytes: int):
        self._sock, self._deadline, self._bytes_left = sock, deadline, max_bytes

    def makefile(self, mode: str) -> io.BufferedReader:  # all that HTTPResponse asks of a socket
        assert mode == "rb"
        return io.BufferedReader(self, _CHUNK)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        self._sock.settimeout(_left(self._deadline))
        count = self._sock.recv_into(buffer)
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise _TooManyBytes
        return count


def _left(deadline: float) -> float:
    """Seconds until ``deadline``. Raises TimeoutError where it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("deadline")
    return left


def _parse(url: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and request target. Raises Reject BLOCKED_URL for anything but a plain http or https URL."""

    def blocked(why: str) -> Reject:
        return Reject(RejectCode.BLOCKED_URL, f"{redacted(url)}: {why}")

    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname or ""
        if not host.isascii():
            host = host[:253].encode("idna").decode("ascii")
    except ValueError:  # UnicodeError of the idna codec included
        raise blocked("not a URL") from None
    if parts.scheme not in _PORTS:
        raise blocked("only http and https are fetched")
    if "@" in parts.netloc:
        raise blocked("a URL with a user name or password is not fetched")
    if not _HOST.match(host):
        raise blocked("not a host name")
    if port == 0:
        raise blocked("not a port")
    target = quote(parts.path or "/", safe=_TARGET_SAFE)
    if parts.query:
        target += "?" + quote(parts.query, safe=_TARGET_SAFE + "?")
    return parts.scheme, host, port or _PORTS[parts.scheme], target


def redacted(url: str) -> str:
    """The URL as it may stand in a message: no user name, password, query (signatures, tokens) or control character."""
    try:
        parts = urlsplit(url)
        text = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "...." if parts.query else "", ""))
    except ValueError:
        return "(unreadable URL)"
    return "".join(c if c.isprintable() else "?" for c in text[:300])


def _look_up(host: str, port: int, deadline: float) -> list[Address]:
    """Every address of ``host``, in the resolver's order, by the deadline (the resolver itself knows none)."""
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        pass
    answer: queue.SimpleQueue[list | OSError | UnicodeError] = queue.SimpleQueue()
    threading.Thread(target=_resolve, args=(host, port, answer.put), daemon=True, name="w2w-dns").start()
    try:
        found = answer.get(timeout=_left(deadline))
    except queue.Empty:
        raise TimeoutError("deadline") from None
    if isinstance(found, socket.gaierror) and found.errno == socket.EAI_NONAME:
        raise Reject(RejectCode.FETCH_FAILED, f"{host}: no such host")
    if isinstance(found, UnicodeError):
        raise Reject(RejectCode.BLOCKED_URL, f"{host[:100]}: not a host name")
    if isinstance(found, OSError):
        raise found
    return list(dict.fromkeys(ipaddress.ip_address(sockaddr[0].partition("%")[0]) for *_, sockaddr in found))


def _resolve(host: str, port: int, put: Callable[[list | OSError | UnicodeError], None]) -> None:
    try:
        put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as e:  # handed to the waiting thread
        put(e)


def _refused(address: Address) -> str:
    """Why this address is not contacted; "" where it may be."""
    if address.is_multicast:
        return "a multicast address"
    if any(address in network for network in _REFUSED_NETWORKS):
        return "a reserved, tunnel or metadata address"
    public = address.is_global and not address.is_reserved and (address.version == 4 or address in _PUBLIC_IPV6)
    return "" if public else "not a public address"


def _retry_after_s(header: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, section 10.2.3: seconds or a date); None where it says nothing."""
    if not header:
        return None
    if re.fullmatch(r"[0-9]{1,9}", header.strip()):
        return float(header)
    try:
        when = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - now).total_seconds())
