"""Interpreting an HTTP response: a body, a redirect, a reject, or a failure to retry later."""

import email.utils
import http.client
import re
import string
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from w2w.errors import Reject, RejectCode
from w2w.web.connections import TooManyBytes
from w2w.web.permission import NO_AI, Headers, read_headers
from w2w.web.urls import redacted, resolve

_REDIRECTS = {301, 302, 303, 307, 308}
_CHUNK = 64 * 1024


@dataclass(frozen=True)
class Response:
    """A 2xx response, or a 304 to validators: the URL, its status, headers (lower-case names) and decoded body. ``said``: what
    its headers say of the use of the body."""

    url: str
    status: int
    headers: dict[str, str]
    body: bytes
    said: Headers = Headers()


@dataclass(frozen=True)
class Redirect:
    """A redirect to ``location``, an absolute URL that has not been checked yet."""

    url: str
    status: int
    location: str


@dataclass(frozen=True)
class Validators:
    """The last response's version; sent along, it turns an unchanged page into a 304 (RFC 9110, section 13)."""

    etag: str | None = None
    last_modified: str | None = None

    def headers(self) -> list[str]:
        values = [("If-None-Match", self.etag), ("If-Modified-Since", self.last_modified)]
        return [f"{name}: {value}" for name, value in values if value and value.isascii() and value.isprintable()]


class NoAi(Reject):
    """The owner does not want it to be used for AI models. ``said``: as of a Response at ``url``."""

    def __init__(self, detail: str, url: str, said: Headers):
        super().__init__(RejectCode.DISALLOWED, detail)
        self.url, self.said = url, said


class TryLater(Exception):
    """This request failed, but another may succeed; ``wait_s`` is the server's Retry-After, if any.

    ``status`` is 0 if there was no response. ``stale``: a kept connection had been closed, so the failure says nothing.
    """

    def __init__(self, detail: str, wait_s: float | None = None, status: int = 0, stale: bool = False):
        super().__init__(detail)
        self.detail, self.wait_s, self.status, self.stale = detail, wait_s, status, stale


def read_answer(
    url: str,
    response: http.client.HTTPResponse,
    validators: Validators,
    accept: Sequence[str],
    max_bytes: int,
    agent: str,
    respect_no_ai: bool,
) -> Response | Redirect:
    """The response whose head was read, with its decoded body. Raises Reject, TryLater, TooManyBytes, and read errors.

    ``agent``: our name, for directives that address us; ``respect_no_ai``: whether no-AI directives are refusals.
    """
    status, where = response.status, redacted(url)
    if status in _REDIRECTS and (location := response.getheader("Location")):
        location = quote(location, safe=string.punctuation, encoding="latin-1")  # as http.client decoded it
        if target := resolve(location, url):
            return Redirect(url, status, target)
        raise Reject(RejectCode.BLOCKED_URL, f"{where}: redirects to something other than an http or https URL")
    headers = {name.lower(): value for name, value in response.getheaders()}
    if status == 304 and validators != Validators():
        return Response(url, status, headers, b"", read_headers(_values_of(response), agent))
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
    said = read_headers(_values_of(response), agent)
    if respect_no_ai and (tag := next((d for d in said.robots_tag.split(", ") if d in NO_AI), "")):
        raise NoAi(f"{where}: X-Robots-Tag: {tag} (fetch.respect_no_ai)", url, said)
    return Response(url, status, headers, _read_body(where, response, max_bytes), said)


def _values_of(response: http.client.HTTPResponse) -> Callable[[str], list[str]]:
    return lambda name: response.headers.get_all(name, [])


def _read_body(where: str, response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    promised = response.length
    if promised is not None and promised > max_bytes:
        raise TooManyBytes
    encoding = (response.getheader("Content-Encoding") or "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
        raise Reject(RejectCode.FETCH_FAILED, f"{where}: content encoding {encoding[:40]!r}, though only gzip was asked for")
    inflate = None if encoding == "identity" else zlib.decompressobj(wbits=47)  # 47: gzip or zlib, by its header
    body, received = bytearray(), 0
    while chunk := response.read(_CHUNK):
        received += len(chunk)
        try:  # inflates at most one byte over the cap, whatever the compression ratio
            body += inflate.decompress(chunk, max_bytes + 1 - len(body)) if inflate else chunk
        except zlib.error:
            raise Reject(RejectCode.FETCH_FAILED, f"{where}: the body is not {encoding}") from None
        if len(body) > max_bytes:
            raise TooManyBytes
    if promised is not None and received < promised:
        raise TryLater(f"the body ended {promised - received} bytes early")
    if inflate and received and not inflate.eof:
        raise TryLater(f"the {encoding} body ended early")
    return bytes(body)


def _retry_after_s(header: str | None, now: datetime) -> float | None:
    """Seconds in a Retry-After header (RFC 9110, section 10.2.3: seconds or a date); None if there is none."""
    if not header:
        return None
    if re.fullmatch(r"[0-9]{1,9}", header.strip()):
        return float(header)
    try:
        when = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - now).total_seconds())
