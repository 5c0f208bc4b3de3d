"""A feed on the web: fetched if it has changed, kept in the store, and refused if it is none.

The copy lies in ``_feeds/FEED`` of the store: the feed, and ``about.json``, which says what it is a copy of. A run that dies in
between leaves a copy that its ``about.json`` does not describe: the next one fetches the feed again.
"""

import base64
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from w2w import storage
from w2w.errors import BadInput, JobFailed, Reject, RejectCode, UsageError
from w2w.ingest.config import FeedConfig
from w2w.ingest.feed import READERS, check_feed, check_options, kind_of
from w2w.ingest.images import is_web
from w2w.web.addresses import check_url
from w2w.web.answers import Response, Validators
from w2w.web.fetch import Credentials, FetchConfig, Fetcher
from w2w.web.urls import redacted

FOLDER, _ABOUT = "_feeds", "about.json"
_PIECE = 1 << 20
_COMPRESSED = {b"\x1f\x8b": ("gz", "gzip"), b"\x28\xb5\x2f\xfd": ("zst", "zstd"), b"BZh": ("bz2", "bz2")}
_TYPES = {"csv": "csv", "tab-separated-values": "csv", "json": "jsonl", "x-ndjson": "jsonl", "jsonl": "jsonl"}
_TYPES |= {"xml": "xml", "rss+xml": "xml", "atom+xml": "xml"}
_SUFFIX = {"csv": "csv", "jsonl": "jsonl", "xml": "xml", "parquet": "parquet"}  # of the copy
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html[\s>])", re.I | re.S)
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, section 5.1
_OURS = {"host", "user-agent", "accept-encoding", "if-none-match", "if-modified-since", "connection", "content-length"}


@dataclass(frozen=True)
class Fetched:
    """``feed`` is a file. ``told``: since when it is as it is, or how much was fetched; None if it is not on the web."""

    feed: FeedConfig
    told: str | None = None


def check(feed: FeedConfig, fetch: FetchConfig) -> None:
    """Raises UsageError for all that can be told before the feed is fetched; checks a feed elsewhere altogether."""
    if not is_web(feed.uri):
        for name in ("headers_env", "auth_env"):
            if getattr(feed, name):
                raise UsageError(f"feed.{name}: only for a feed on the web, and feed.uri={feed.uri} is none")
        check_feed(feed)
        return
    check_options(feed)
    if feed.kind in READERS and feed.kind not in _SUFFIX:
        raise UsageError(f"feed.kind={feed.kind}: of the web, only csv, jsonl, xml and parquet are fetched")
    for name in ("max_mb", "deadline_s"):
        if getattr(feed, name) <= 0:
            raise UsageError(f"feed.{name}={getattr(feed, name)}: must be above zero")
    _credentials(feed, fetch)


@contextmanager
def at_hand(
    feed: FeedConfig,
    fetch: FetchConfig,
    store: str = "",
    keep: bool = True,
    judge: Callable[[FeedConfig], Any] = check_feed,
) -> Iterator[Fetched]:
    """The feed as a file. One on the web is fetched, unless the copy in the store is still what the server has; with ``keep``
    it becomes that copy once ``judge`` has let it pass, else it is gone after the block. UsageErrors of the block name the URL
    instead of the copy.

    Raises JobFailed for a feed that cannot be fetched, or is a web page, empty or cut off; UsageError as ``judge``.
    """
    if not is_web(feed.uri):
        yield Fetched(feed)
        return
    shown = redacted(feed.uri)
    with tempfile.TemporaryDirectory(prefix="w2w-feed-") as folder:
        place = ""
        try:
            copy = _Copy(store, feed)
            answer = _answer(feed, fetch, copy.validators)
            if answer.status == 304 or hashlib.sha256(answer.body).hexdigest() == copy.about.get("sha256"):
                place = copy.uri
                read = _as_file(feed, place)
                judge(read)
                if keep and answer.status != 304:
                    copy.describe(answer)
                told = f"unchanged since {copy.about['fetched_at']}"
            else:
                name = _name(feed, answer)
                place = storage.join(folder, name)
                storage.write_bytes(place, answer.body)
                read = _as_file(feed, place)
                judge(read)
                if keep:
                    place = copy.replace(name, answer)
                    read = _as_file(feed, place)
                told = f"fetched, {len(answer.body):,} bytes"
            answer = replace(answer, body=b"")
            yield Fetched(read, told)
        except (UsageError, BadInput) as e:
            raise type(e)(str(e).replace(place, shown) if place else str(e)) from None


def _as_file(feed: FeedConfig, place: str) -> FeedConfig:
    folder = re.split(r"[?#]", feed.uri, maxsplit=1)[0].rpartition("/")[0]
    return replace(feed, uri=place, image_root=feed.image_root or folder, headers_env={}, auth_env="")


def _answer(feed: FeedConfig, fetch: FetchConfig, known: Validators) -> Response:
    limits = replace(fetch, max_bytes=feed.max_mb << 20, deadline_s=feed.deadline_s)
    fetcher = Fetcher(limits, _credentials(feed, fetch))
    try:
        return fetcher.get(feed.uri, known)
    except Reject as e:
        asked = "does the feed need other credentials (feed.headers_env, feed.auth_env)? "
        more = {RejectCode.FORBIDDEN: asked, RejectCode.TOO_MANY_BYTES: "feed.max_mb allows more. "}
        more |= {RejectCode.TOO_SLOW: "feed.deadline_s allows more. "}
        shown = redacted(feed.uri)
        why = e.detail.removeprefix(f"{shown}: ")
        said = f"feed.uri={shown}: the feed was not fetched: {why}. {more.get(e.code, '')}Nothing was done."
        raise (UsageError if e.code == RejectCode.BLOCKED_URL else JobFailed)(said) from None
    finally:
        fetcher.close()


def _credentials(feed: FeedConfig, fetch: FetchConfig) -> Credentials | None:
    """What the environment says for feed.headers_env and feed.auth_env. Raises UsageError where it says nothing."""
    try:
        scheme, host, port, _ = check_url(feed.uri)
    except Reject as e:
        hint = "; put USER:PASSWORD into an environment variable and name it in feed.auth_env" if "password" in e.detail else ""
        raise UsageError(f"feed.uri: {e.detail}{hint}") from None
    lines = []
    for name, variable in feed.headers_env.items():
        if not _HEADER.fullmatch(name) or name.lower() in _OURS:
            raise UsageError(f"feed.headers_env.{name}: not a header that can be set")
        lines.append(f"{name}: {_secret(f'feed.headers_env.{name}', variable)}")
    if feed.auth_env:
        if any(name.lower() == "authorization" for name in feed.headers_env):
            raise UsageError("feed.auth_env, feed.headers_env.Authorization: both say who asks")
        told = _secret("feed.auth_env", feed.auth_env)
        if ":" not in told:
            raise UsageError(f"feed.auth_env={feed.auth_env}: the environment variable must hold USER:PASSWORD")
        lines.append(f"Authorization: Basic {base64.b64encode(told.encode()).decode()}")
    allowed = {h.strip("[]").lower() for h in fetch.allow_private_hosts}
    if lines and scheme != "https" and host not in allowed:
        raise UsageError(f"feed.uri={redacted(feed.uri)}: credentials are sent over https alone")
    return Credentials((scheme, host, port), tuple(lines)) if lines else None


def _secret(option: str, variable: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        raise UsageError(f"{option}={variable}: there is no such environment variable, or it is empty")
    if not value.isascii() or not value.isprintable():
        raise UsageError(f"{option}={variable}: the environment variable must hold printable ASCII only, it goes into a header")
    return value


def _name(feed: FeedConfig, answer: Response) -> str:
    """The name of the copy: what kind of feed it is, and how compressed. Raises JobFailed for what is none."""
    where = f"feed.uri={redacted(feed.uri)}"
    body, read = answer.body, None
    packed = next((names for magic, names in _COMPRESSED.items() if body.startswith(magic)), None)
    if body.startswith(b"PK\x03\x04"):
        raise BadInput(f"{where}: the server sends a zip archive, which is not read: offer the feed as it is, or as .gz")
    if packed:
        try:
            with pa.input_stream(pa.py_buffer(body), compression=packed[1]) as stream:
                start = read = stream.read(_PIECE)
                while read:
                    read = stream.read(_PIECE)
        except OSError as e:
            raise BadInput(f"{where}: the {packed[0]} file cannot be read to its end: {e}. Nothing was done.") from None
    else:
        start = body[:_PIECE]
    if not start.strip():
        raise BadInput(f"{where}: the server sends an empty file. Nothing was done.")
    if _PAGE.match(start):
        page = "a web page instead of a feed: an error, or a log-in?"
        raise BadInput(f"{where}: the server sends {page} Nothing was done.")
    path = re.split(r"[?#]", feed.uri, maxsplit=1)[0]
    offered = re.search(r'filename="?([^";]+)', answer.headers.get("content-disposition", ""))
    told = answer.headers.get("content-type", "").partition(";")[0].strip().lower().rpartition("/")[2]
    guesses = (kind_of(path), kind_of(offered[1]) if offered else None, _TYPES.get(told))
    kind = feed.kind if feed.kind != "auto" else next((guess for guess in guesses if guess in _SUFFIX), None)
    if kind is None:
        raise UsageError(
            f"{where}: neither its name nor its type ({told or 'none'}) tells what it is; set feed.kind to csv ..."
        )
    return f"feed.{_SUFFIX.get(kind, kind.rpartition(':')[2].lower())}" + (f".{packed[0]}" if packed else "")


class _Copy:
    """The copy of a feed in the store. ``about``: what it is a copy of; {} if there is none, or none that is whole."""

    def __init__(self, store: str, feed: FeedConfig):
        self._folder = storage.join(store, FOLDER, feed.id) if store else ""
        self._url, self._shown = hashlib.sha256(feed.uri.encode()).hexdigest(), redacted(feed.uri)
        self.about = self._read() if store else {}
        self.uri = storage.join(self._folder, self.about["file"]) if self.about else ""

    @property
    def validators(self) -> Validators:
        return Validators(self.about.get("etag"), self.about.get("last_modified"))

    def _read(self) -> dict[str, Any]:
        try:
            about = json.loads(storage.read_bytes(storage.join(self._folder, _ABOUT)))
            data = storage.read_bytes(storage.join(self._folder, about["file"]))
            is_it = (about["url"], about["sha256"]) == (self._url, hashlib.sha256(data).hexdigest())
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return {}
        return about if is_it else {}

    def replace(self, name: str, answer: Response) -> str:
        """Makes the answer the copy; returns where it is."""
        place = storage.join(self._folder, name)
        storage.write_bytes(place, answer.body)
        before = self.about.get("file", name)
        self.about = {"file": name, "sha256": hashlib.sha256(answer.body).hexdigest()}
        self.about |= {"fetched_at": f"{datetime.fromtimestamp(time.time(), UTC):%Y-%m-%d %H:%M} UTC"}
        self.describe(answer)
        if before != name:
            storage.delete(storage.join(self._folder, before))
        return place

    def describe(self, answer: Response) -> None:
        """Notes the version that the server gives. Without a length, nobody knows that an uncompressed answer came whole: it
        is fetched again the next time."""
        headers = answer.headers
        whole = "content-length" in headers or "chunked" in headers.get("transfer-encoding", "").lower()
        whole = whole or self.about["file"].endswith((".gz", ".zst", ".bz2")) or "content-encoding" in headers
        version = {"etag": headers.get("etag"), "last_modified": headers.get("last-modified")} if whole else {}
        self.about |= {"url": self._url, "from": self._shown, "etag": None, "last_modified": None} | version
        storage.write_bytes(storage.join(self._folder, _ABOUT), json.dumps(self.about, indent=1).encode())
