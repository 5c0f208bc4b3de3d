"""One safe, bounded HTTP GET: nothing it is told by a URL or a server can make it reach inside, wait long or fill memory.

It talks HTTP/1.1 over its own socket (standard library only), because three promises need the socket in hand: the address
that was checked is the address that is contacted (no DNS rebinding), every single read ends by the deadline (dripping
headers and bodies alike), and the bytes on the wire are counted. Environment proxies are never used. Connections are kept
for the next request to the same origin. ``get`` retries and follows redirects on its own; a crawler calls ``ask``, which does
one request and leaves both to it, so that every request can wait for its turn.
"""

import email.utils
import functools
import http.client
import ipaddress
import queue
import random
import re
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from w2w.crawl.connections import IdleConnections, TooManyBytes, Wire, left
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
_NO_AI = {"noai", "noimageai"}


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
    respect_no_ai: bool = True
    """Refuse what its owner marks with X-Robots-Tag: noai or noimageai."""
    keep_alive: int = 32
    """Connections kept open for each host between requests; 0 opens a new one every time."""

    def __post_init__(self):
        for name in ("connect_timeout_s", "deadline_s", "max_bytes"):
            if getattr(self, name) <= 0:
                raise UsageError(f"fetch.{name}={getattr(self, name)}: it must be above zero")
        for name in ("max_redirects", "retries", "keep_alive"):
            if getattr(self, name) < 0:
                raise UsageError(f"fetch.{name}={getattr(self, name)}: it must be zero or more")
        for name in ("user_agent", "contact"):
            if not getattr(self, name).isprintable() or not getattr(self, name).isascii():
                raise UsageError(f"fetch.{name}={getattr(self, name)!r}: printable ASCII only, it goes into an HTTP header")
        if self.contact and "@" not in self.contact and "://" not in self.contact:
            raise UsageError(f"fetch.contact={self.contact!r}: a URL or a mail address")


@dataclass(frozen=True)
class Response:
    """A 2xx answer, or 304 where validators were sent: the URL, its status, headers (lower-case names) and decoded body."""

    url: str
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Redirect:
    """The server points elsewhere: to ``location``, an absolute URL that nobody has checked yet."""

    url: str
    status: int
    location: str


@dataclass(frozen=True)
class Validators:
    """What the last answer said about its version; sent along, an unchanged page costs a 304 (RFC 9110, section 13)."""

    etag: str | None = None
    last_modified: str | None = None

    def headers(self) -> list[str]:
        values = [("If-None-Match", self.etag), ("If-Modified-Since", self.last_modified)]
        return [f"{name}: {value}" for name, value in values if value and value.isascii() and value.isprintable()]


class TryLater(Exception):
    """This request failed in a way that another may not; ``wait_s`` is what the server asked for, if it did.

    ``status`` is 0 where no answer came. ``stale``: a kept connection had been closed meanwhile, so that nothing was learned.
    """

    def __init__(self, detail: str, wait_s: float | None = None, status: int = 0, stale: bool = False):
        super().__init__(detail)
        self.detail, self.wait_s, self.status, self.stale = detail, wait_s, status, stale


class Fetcher:
    """``get`` or ``ask`` for a URL within the limits of ``config``. Safe to share between threads."""

    def __init__(self, config: FetchConfig = FetchConfig()):
        self.config = config
        self._allowed = frozenset(h.strip("[]").lower() for h in config.allow_private_hosts)
        self._idle = IdleConnections(config.keep_alive)

    def __reduce__(self):  # connections do not travel to other processes
        return Fetcher, (self.config,)

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:  # on the first https URL: loading the authorities takes longer than a small image
        return ssl.create_default_context()

    def close(self) -> None:
        """Closes the connections that wait for a next request."""
        self._idle.close()

    def ask(self, url: str, validators: Validators = Validators(), accept: Sequence[str] = ()) -> Response | Redirect:
        """One request, within ``deadline_s``: the answer, or where it redirects to.

        ``accept`` are the beginnings of the content types that are wanted; "" allows an answer without one. Raises TryLater
        where another attempt may succeed, else Reject as ``get`` does. UsageError: a public host, and no ``fetch.contact``.
        """
        try:
            return self._attempt(url, time.monotonic() + self.config.deadline_s, validators, accept)
        except TimeoutError:
            raise Reject(RejectCode.TOO_SLOW, f"{redacted(url)}: not done after {self.config.deadline_s:g} s") from None

    def get(self, url: str) -> Response:
        """Raises Reject within ``deadline_s`` (plus scheduling): BLOCKED_URL, NOT_FOUND, FORBIDDEN, DISALLOWED, TOO_SLOW,
        TOO_MANY_BYTES, or FETCH_FAILED once the retries are used up. Messages hold no user name, password or query string of
        a URL. Raises UsageError where the host is public and ``fetch.contact`` is not set.
        """
        deadline = time.monotonic() + self.config.deadline_s
        attempt = 0
        while True:
            try:
                return self._follow(url, deadline)
            except TimeoutError:
                raise Reject(RejectCode.TOO_SLOW, f"{redacted(url)}: not done after {self.config.deadline_s:g} s") from None
            except TryLater as e:
                detail = f"{redacted(url)}: {e.detail}"
                if attempt == self.config.retries:
                    raise Reject(RejectCode.FETCH_FAILED, f"{detail} ({attempt + 1} attempts)") from None
                wait_s = max(backoff_s(attempt), e.wait_s or 0.0)
                if wait_s >= deadline - time.monotonic():
                    waiting = f"another attempt has to wait {wait_s:.0f} s, past the deadline"
                    raise Reject(RejectCode.FETCH_FAILED, f"{detail}; {waiting}") from None
                time.sleep(wait_s)
                attempt += 1

    def get_bytes(self, url: str) -> bytes:
        """The body alone: the callable that takes a URL and gives bytes."""
        return self.get(url).body

    def _follow(self, url: str, deadline: float) -> Response:
        redirects = 0
        while redirects <= self.config.max_redirects:
            try:
                result = self._attempt(url, deadline)
            except TryLater as e:
                if e.stale:
                    continue  # the same request again, not the whole chain of redirects
                raise
            if isinstance(result, Response):
                return result
            url, redirects = result.location, redirects + 1
        raise Reject(RejectCode.FETCH_FAILED, f"{redacted(url)}: more than {self.config.max_redirects} redirects")

    def _attempt(
        self, url: str, deadline: float, validators: Validators = Validators(), accept: Sequence[str] = ()
    ) -> Response | Redirect:
        """One request on a kept or a new connection. Raises TimeoutError where the deadline passed."""
        scheme, host, port, target = check_url(url)
        origin, response, wire, sock = (scheme, host, port), None, None, self._idle.take((scheme, host, port))
        reused = sock is not None
        try:
            if sock is None:
                sock = self._connect(scheme, host, port, deadline, url)
            sock.settimeout(left(deadline))
            sock.sendall(self._request(scheme, host, port, target, validators))
            wire = Wire(sock, deadline, self.config.max_bytes + _HEADER_ALLOWANCE)
            response = http.client.HTTPResponse(wire, method="GET")
            response.begin()
            return self._answer(url, response, validators, accept)
        except UsageError:  # a ValueError that is no server's doing
            raise
        except TooManyBytes:
            raise Reject(RejectCode.TOO_MANY_BYTES, f"{redacted(url)}: more than {self.config.max_bytes} bytes") from None
        except ssl.SSLCertVerificationError as e:
            detail = f"{redacted(url)}: certificate refused: {e.verify_message}"
            raise Reject(RejectCode.FETCH_FAILED, detail) from None
        except TimeoutError as e:
            if time.monotonic() >= deadline:
                raise
            raise TryLater(f"timed out: {e}") from None
        except OSError as e:
            stale = reused and not (wire and wire.received)
            raise TryLater(f"connection failed: {e.strerror or type(e).__name__}", stale=stale) from None
        except (http.client.HTTPException, ValueError) as e:  # ValueError: a negative chunk size
            raise TryLater(f"not an HTTP answer: {type(e).__name__}") from None
        finally:
            if sock is not None:
                if response is not None and self.config.keep_alive and wire.is_reusable(response):
                    self._idle.give(origin, sock)
                else:
                    sock.close()

    def _request(self, scheme: str, host: str, port: int, target: str, validators: Validators) -> bytes:
        name = f"[{host}]" if ":" in host else host
        agent = f"{self.config.user_agent} (+{self.config.contact})" if self.config.contact else self.config.user_agent
        lines = [
            f"GET {target} HTTP/1.1",
            f"Host: {name}" + ("" if port == _PORTS[scheme] else f":{port}"),
            f"User-Agent: {agent}",
            "Accept: */*",
            "Accept-Encoding: gzip",
            *validators.headers(),
            *([] if self.config.keep_alive else ["Connection: close"]),
        ]
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def _connect(self, scheme: str, host: str, port: int, deadline: float, url: str) -> socket.socket:
        addresses = _look_up(host, port, deadline)
        if host not in self._allowed:
            for address in addresses:
                if why := _refused(address):
                    raise Reject(RejectCode.BLOCKED_URL, f"{redacted(url)}: {address} is {why}; see fetch.allow_private_hosts")
        if not self.config.contact and not all(map(_refused, addresses)):
            raise UsageError(
                f"fetch.contact is not set: {host} is a public host, and its owner has to be able to reach you. "
                f"Set --fetch.contact to a URL or a mail address."
            )
        failure: OSError = OSError("no address")
        for address in addresses:
            until = min(deadline, time.monotonic() + self.config.connect_timeout_s)
            try:
                sock = socket.create_connection((str(address), port), timeout=left(until))
            except OSError as e:
                failure = e
                continue
            if scheme == "http":
                return sock
            try:
                sock.settimeout(left(until))
                return self._tls.wrap_socket(sock, server_hostname=host)
            except BaseException:
                sock.close()
                raise
        raise failure

    def _answer(
        self, url: str, response: http.client.HTTPResponse, validators: Validators, accept: Sequence[str]
    ) -> Response | Redirect:
        status, where = response.status, redacted(url)
        if status in _REDIRECTS and (location := response.getheader("Location")):
            location = quote(location, safe=_TARGET_SAFE + "?#[]", encoding="latin-1")  # as http.client decoded it
            try:
                return Redirect(url, status, urljoin(url, location))
            except ValueError:
                raise Reject(RejectCode.BLOCKED_URL, f"{where}: redirects to something that is no URL") from None
        headers = {name.lower(): value for name, value in response.getheaders()}
        if status == 304 and validators != Validators():
            return Response(url, status, headers, b"")
        if status in (404, 410):
            raise Reject(RejectCode.NOT_FOUND, f"{where}: HTTP {status}")
        if status in (401, 403):
            raise Reject(RejectCode.FORBIDDEN, f"{where}: HTTP {status}")
        if status in (408, 429) or status >= 500:
            wait_s = _retry_after_s(response.getheader("Retry-After"), datetime.now(UTC))
            raise TryLater(f"HTTP {status}", wait_s, status)
        if not 200 <= status < 300:
            raise Reject(RejectCode.FETCH_FAILED, f"{where}: HTTP {status}")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if accept and not any(kind == wanted if not wanted else kind.startswith(wanted) for wanted in accept):
            raise Reject(
                RejectCode.WRONG_TYPE, f"{where}: {kind[:80] or 'no content type'}, wanted {', '.join(filter(None, accept))}"
            )
        if self.config.respect_no_ai and (
            tag := _refused_use(response.headers.get_all("X-Robots-Tag", []), self.config.user_agent)
        ):
            raise Reject(RejectCode.DISALLOWED, f"{where}: X-Robots-Tag: {tag}")
        return Response(url, status, headers, self._body(where, response))

    def _body(self, where: str, response: http.client.HTTPResponse) -> bytes:
        promised = response.length
        if promised is not None and promised > self.config.max_bytes:
            raise TooManyBytes
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
                raise TooManyBytes
        if promised is not None and received < promised:
            raise TryLater(f"the body ended {promised - received} bytes early")
        if inflate and received and not inflate.eof:
            raise TryLater(f"the {encoding} body ended early")
        return bytes(body)


def backoff_s(attempt: int) -> float:
    """Seconds before the attempt after this one (counted from 0): doubling, capped, with jitter."""
    return min(_MAX_BACKOFF_S, _BACKOFF_S * 2**attempt) * random.uniform(0.5, 1.0)


def _refused_use(tags: Sequence[str], user_agent: str) -> str:
    """The directive by which an X-Robots-Tag refuses use for models, in general or for this user agent; "" where none does."""
    for tag in tags:
        agent, colon, rest = tag.partition(":")
        if colon and agent.strip().lower() not in user_agent.lower():
            continue
        directives = {d.strip().lower() for d in (rest if colon else tag).split(",")}
        if refusing := directives & _NO_AI:
            return min(refusing)
    return ""


def check_url(url: str) -> tuple[str, str, int, str]:
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
        found = answer.get(timeout=left(deadline))
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
