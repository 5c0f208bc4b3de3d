"""One safe, bounded HTTP GET: no URL or server can make it reach internal hosts, wait long or fill memory.

It talks HTTP/1.1 over its own socket (standard library only), because three promises need control of the socket: the address
that was checked is the one contacted (no DNS rebinding), every single read ends by the deadline (slow headers and bodies
alike), and the bytes on the wire are counted. Environment proxies are never used. Connections are kept for the next request to
the same origin. ``get`` retries and follows redirects; a crawler calls ``ask``, which does a single request, so that every
request can wait for its turn. ``get`` of files named in a list waits its turn too.
"""

import functools
import http.client
import random
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from w2w.errors import Reject, RejectCode, UsageError
from w2w.web.addresses import check_url, look_up, refused
from w2w.web.answers import Redirect, Response, TryLater, Validators, read_answer
from w2w.web.connections import IdleConnections, Origin, TooManyBytes, Wire, left
from w2w.web.politeness import PolitenessConfig, Report, Turns
from w2w.web.urls import PORTS, redacted

_HEADER_ALLOWANCE = 1024 * 1024  # bytes beyond max_bytes for status lines, headers, chunk sizes
_BACKOFF_S, _MAX_BACKOFF_S = 0.5, 30.0
_LEASE_MARGIN_S = 30.0  # a lease outlives its request by this
REFUSING = (429, 503)  # rate-limiting statuses


@dataclass(frozen=True)
class FetchConfig:
    """How to ask other people's servers for a file."""

    user_agent: str = "w2w"
    """The User-Agent that servers see; say who you are."""
    contact: str = ""
    """A URL or mail address where site owners can reach you, appended to user_agent."""
    connect_timeout_s: float = 10.0
    """Seconds to connect, TLS handshake included."""
    deadline_s: float = 60.0
    """Seconds for the whole request: look-up, redirects, body, retries and the waits between them."""
    max_bytes: int = 20 * 1024 * 1024
    """The largest body, after decompression."""
    max_redirects: int = 5
    """Redirects to follow; each is checked like the first URL."""
    retries: int = 3
    """Retries after 408, 429, 5xx and connection errors."""
    allow_private_hosts: tuple[str, ...] = ()
    """Host names, as in the URL, that may resolve to a private address."""
    respect_no_ai: bool = True
    """Skip what its owner marks with X-Robots-Tag: noai or noimageai."""
    keep_alive: int = 32
    """Idle connections kept open per host; 0 opens a new one for every request."""

    def __post_init__(self):
        for name in ("connect_timeout_s", "deadline_s", "max_bytes"):
            if getattr(self, name) <= 0:
                raise UsageError(f"fetch.{name}={getattr(self, name)}: must be above zero")
        for name in ("max_redirects", "retries", "keep_alive"):
            if getattr(self, name) < 0:
                raise UsageError(f"fetch.{name}={getattr(self, name)}: must not be negative")
        for name in ("user_agent", "contact"):
            if not getattr(self, name).isprintable() or not getattr(self, name).isascii():
                raise UsageError(f"fetch.{name}={getattr(self, name)!r}: printable ASCII only, it goes into an HTTP header")
        if self.contact and "@" not in self.contact and "://" not in self.contact:
            raise UsageError(f"fetch.contact={self.contact!r}: a URL or a mail address")

    def turns(self) -> Turns | None:
        """The turns that ``Fetcher.get`` waits for before each request; None: the caller takes care of them."""
        return None


@dataclass(frozen=True)
class ListedFetchConfig(FetchConfig):
    """How files named in a list are fetched: a feed's pictures, a public data set's photos.

    robots.txt does not decide whether they are: it is for clients that discover URLs by themselves (RFC 9309, section 1), and
    these were supplied to be fetched. X-Robots-Tag is obeyed, and no link is followed.
    """

    requests_per_s: float | None = 20.0
    """Requests per second from each worker to one host; null: limited by concurrency only. 429 and 503 slow it down."""
    concurrency: int = 8
    """Simultaneous requests from each worker to one host."""

    def __post_init__(self):
        super().__post_init__()
        if self.requests_per_s is not None and not self.requests_per_s > 0:
            raise UsageError(f"fetch.requests_per_s={self.requests_per_s:g}: above zero, or null for no limit")
        if self.concurrency < 1:
            raise UsageError(f"fetch.concurrency={self.concurrency}: at least 1")

    def turns(self) -> Turns:
        polite = PolitenessConfig(self.requests_per_s, concurrency=self.concurrency, max_wait_s=self.deadline_s)
        return Turns(polite, self.deadline_s + _LEASE_MARGIN_S)


@dataclass(frozen=True)
class Credentials:
    """Header lines that requests to one origin carry, and no others: a redirect elsewhere goes without them."""

    origin: Origin
    lines: tuple[str, ...] = field(repr=False)


class Fetcher:
    """``get`` or ``ask`` for a URL within the limits of ``config``. Thread-safe."""

    def __init__(self, config: FetchConfig = FetchConfig(), credentials: Credentials | None = None):
        self.config, self._credentials = config, credentials
        self._allowed = frozenset(h.strip("[]").lower() for h in config.allow_private_hosts)
        self._idle = IdleConnections(config.keep_alive)
        self._turns = config.turns()

    def __reduce__(self):  # connections do not travel to other processes
        return Fetcher, (self.config, self._credentials)

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:  # on the first https URL: loading the certificates takes longer than a small image
        return ssl.create_default_context()

    def close(self) -> None:
        """Closes idle connections."""
        self._idle.close()

    def ask(self, url: str, validators: Validators = Validators(), accept: Sequence[str] = ()) -> Response | Redirect:
        """One request, within ``deadline_s``: the response, or the redirect.

        ``accept`` are prefixes of the accepted content types; "" allows a response without one. Raises TryLater if another
        attempt may succeed, otherwise Reject as ``get`` does. UsageError: a public host, and no ``fetch.contact``.
        """
        try:
            return self._attempt(url, time.monotonic() + self.config.deadline_s, validators, accept)
        except TimeoutError:
            raise Reject(RejectCode.TOO_SLOW, f"{redacted(url)}: not done after {self.config.deadline_s:g} s") from None

    def get(self, url: str, validators: Validators = Validators()) -> Response:
        """The response; 304 if ``validators`` still hold.

        Raises Reject within ``deadline_s`` (plus scheduling, and waiting for a turn at the host): BLOCKED_URL, NOT_FOUND,
        FORBIDDEN, DISALLOWED, TOO_SLOW, TOO_MANY_BYTES, HOST_BUSY, or FETCH_FAILED once the retries are used up. Messages
        contain no user name, password or query string of a URL. Raises UsageError if the host is public and ``fetch.contact``
        is not set.
        """
        time_left = _TimeLeft(time.monotonic() + self.config.deadline_s)
        attempt = 0
        while True:
            try:
                return self._follow(url, time_left, validators)
            except TimeoutError:
                raise Reject(RejectCode.TOO_SLOW, f"{redacted(url)}: not done after {self.config.deadline_s:g} s") from None
            except TryLater as e:
                detail = f"{redacted(url)}: {e.detail}"
                if attempt == self.config.retries:
                    raise Reject(RejectCode.FETCH_FAILED, f"{detail} ({attempt + 1} attempts)") from None
                wait_s = max(backoff_s(attempt), e.wait_s or 0.0)
                if wait_s >= time_left.deadline - time.monotonic():
                    waiting = f"another attempt has to wait {wait_s:.0f} s, past the deadline"
                    raise Reject(RejectCode.FETCH_FAILED, f"{detail}; {waiting}") from None
                time.sleep(wait_s)
                attempt += 1

    def get_bytes(self, url: str) -> bytes:
        """The body alone."""
        return self.get(url).body

    def _follow(self, url: str, time_left: "_TimeLeft", validators: Validators) -> Response:
        redirects = 0
        while redirects <= self.config.max_redirects:
            try:
                result = self._in_turn(url, time_left, validators)
            except TryLater as e:
                if e.stale:
                    continue  # retries this request, not the whole chain of redirects
                raise
            if isinstance(result, Response):
                return result
            url, redirects = result.location, redirects + 1
        raise Reject(RejectCode.FETCH_FAILED, f"{redacted(url)}: more than {self.config.max_redirects} redirects")

    def _in_turn(self, url: str, time_left: "_TimeLeft", validators: Validators) -> Response | Redirect:
        """``_attempt``, once the host may be contacted; waiting for that does not count as request time."""
        if self._turns is None:
            return self._attempt(url, time_left.deadline, validators)
        _, host, port, _ = check_url(url)
        since = time.monotonic()
        lease = self._turns.take(f"{host}:{port}")
        time_left.deadline += time.monotonic() - since
        if lease is None:
            raise Reject(RejectCode.HOST_BUSY, f"{redacted(url)}: its host refuses or fails all requests")
        report = Report(lease.lease_id)
        try:
            result = self._attempt(url, time_left.deadline, validators)
            report = Report(lease.lease_id, answered=1)
            return result
        except TryLater as e:
            refused = e.status in REFUSING
            report = Report(lease.lease_id, failed=not (refused or e.stale), waits_s=(e.wait_s,) if refused else ())
            raise
        except Reject:
            report = Report(lease.lease_id, answered=1)
            raise
        finally:
            self._turns.report(report)

    def _attempt(
        self, url: str, deadline: float, validators: Validators = Validators(), accept: Sequence[str] = ()
    ) -> Response | Redirect:
        """One request on a kept or a new connection. Raises TimeoutError if the deadline passed."""
        scheme, host, port, target = check_url(url)
        origin, response, wire, sock = (scheme, host, port), None, None, self._idle.take((scheme, host, port))
        reused = sock is not None
        try:
            if sock is None:
                sock = self._connect(scheme, host, port, deadline, url)
            sock.settimeout(left(deadline))
            sock.sendall(self._request(scheme, host, port, target, validators))
            wire = Wire(sock, deadline, self.config.max_bytes + _HEADER_ALLOWANCE)
            response = http.client.HTTPResponse(wire, method="GET")  # type: ignore[arg-type]  # of a socket it needs makefile
            response.begin()
            agent, respect_no_ai = self.config.user_agent, self.config.respect_no_ai
            return read_answer(url, response, validators, accept, self.config.max_bytes, agent, respect_no_ai)
        except UsageError:  # a ValueError, but not the server's fault
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
                if response and wire and self.config.keep_alive and wire.is_reusable(response):
                    self._idle.give(origin, sock)
                else:
                    sock.close()

    def _request(self, scheme: str, host: str, port: int, target: str, validators: Validators) -> bytes:
        name = f"[{host}]" if ":" in host else host
        agent = f"{self.config.user_agent} (+{self.config.contact})" if self.config.contact else self.config.user_agent
        known = self._credentials
        lines = [
            f"GET {target} HTTP/1.1",
            f"Host: {name}" + ("" if port == PORTS[scheme] else f":{port}"),
            f"User-Agent: {agent}",
            "Accept: */*",
            "Accept-Encoding: gzip",
            *validators.headers(),
            *(known.lines if known and known.origin == (scheme, host, port) else ()),
            *([] if self.config.keep_alive else ["Connection: close"]),
        ]
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def _connect(self, scheme: str, host: str, port: int, deadline: float, url: str) -> socket.socket:
        addresses = look_up(host, port, deadline)
        if host not in self._allowed:
            for address in addresses:
                if why := refused(address):
                    raise Reject(RejectCode.BLOCKED_URL, f"{redacted(url)}: {address} is {why}; see fetch.allow_private_hosts")
        if not self.config.contact and not all(map(refused, addresses)):
            raise UsageError(
                f"fetch.contact is not set: {host} is a public host, and its owner must be able to reach you. "
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


@dataclass
class _TimeLeft:
    deadline: float


def backoff_s(attempt: int) -> float:
    """Seconds before the attempt after this one (counted from 0): exponential back-off, capped, with jitter."""
    return min(_MAX_BACKOFF_S, _BACKOFF_S * 2**attempt) * random.uniform(0.5, 1.0)
