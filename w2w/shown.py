"""Sanitising text that is shown to people or written about a run: no secrets, and no control characters for the terminal.

Feeds, sites and error messages of libraries may hold URLs with passwords and signatures, and titles with escape sequences. All
text passes through here at the one place where it is printed, logged or written to a log.
"""

import logging
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

_HIDDEN = "***"
_USER = re.compile(
    r"""([a-z][a-z0-9+.-]{0,40}://)(?:
    [^\s/?#'"<>]*@                                                   # as RFC 3986 has it
    |(?!\[|(?:localhost|[^\s/?#:@'"<>]*\.[^\s/?#:@'"<>]*):\d*[/?#])  # no host and port: a password with a / ? or # in it
    [^\s/?#:@'"<>]{0,200}:[^\s'"<>]{0,2000}@
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_SECRET_WORDS = {"sig", "auth", "authorization", "pwd", "passwd", "credentials", "session"}
_SECRET_ENDS = ("signature", "token", "password", "secret", "credential", "apikey", "api_key", "access_key", "access_key_id")
_PARAMETER = re.compile(r"([?&;#])([\w.~-]{1,60})=([^&;#\s'\"<>]*[^&;#\s'\"<>:.,)\]}])")
_HEADER = re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)


def without_secrets(value: Any) -> Any:
    """The same text, or nested dicts and lists of text, with user names, passwords, tokens and signatures as ``***``."""
    if isinstance(value, str):
        value = _USER.sub(rf"\1{_HIDDEN}@", value)
        value = _PARAMETER.sub(lambda m: f"{m[1]}{m[2]}={_HIDDEN if _is_secret(m[2]) else m[3]}", value)
        return _HEADER.sub(rf"\1 {_HIDDEN}", value)
    if isinstance(value, dict):
        return {k: _HIDDEN if v and isinstance(v, str) and _is_secret(str(k)) else without_secrets(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(v) for v in value]
    return value


def _is_secret(name: str) -> bool:
    """Whether a parameter or option is secret: X-Amz-Signature, sig, hf_token, AWSAccessKeyId; not tokenizer, sigma, author."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])|[-.]", "_", name).lower()
    return name.endswith(_SECRET_ENDS) or not _SECRET_WORDS.isdisjoint(name.split("_"))


def printable(text: str, keep: str = "") -> str:
    """The text with control characters, direction marks, line breaks and lone surrogates escaped, except those in ``keep``."""
    if text.isprintable():
        return text
    return "".join(c if c in keep or unicodedata.category(c) not in _UNSEEN else _escape(c) for c in text)


_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_ON_PAGES = "\n\t\xad\u200b\u200e\u200f\ufeff"  # neither seen nor reordering anything: Arabic and Hebrew titles have marks


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode() if char not in "\u200c\u200d" else char  # joiners spell words and emoji


def line(text: object) -> str:
    """One printable line."""
    return printable(str(without_secrets(str(text))))


class LogLines(logging.Formatter):
    """Log records as lines; a traceback keeps its line breaks."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return lines(super().formatException(ei))


def on_page(text: str) -> str:
    """Text of others on a page, where direction overrides would reorder what stands beside it."""
    return printable(str(without_secrets(text)), keep=_ON_PAGES)


def lines(text: str) -> str:
    """Multi-line text: a traceback, a config."""
    return printable(str(without_secrets(text)), keep="\n\t")


class Terminal(Console):
    """A console that sanitises everything it prints with ``line``."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(line(text), **options)


_quiet = ContextVar("quiet", default=False)


def is_quiet() -> bool:
    """Whether tables and progress are suppressed."""
    return _quiet.get()


@contextmanager
def quiet(wanted: bool = True) -> Iterator[None]:
    """Within this context, ``terminal`` prints nothing and no progress is shown."""
    before = _quiet.set(wanted)
    try:
        yield
    finally:
        _quiet.reset(before)


def terminal(**options: Any) -> Terminal:
    """Standard output, as wide as the terminal; in a file or pipe, lines are not wrapped."""
    width = None if sys.stdout.isatty() else 200
    return Terminal(**{"highlight": False, "markup": False, "width": width, "quiet": is_quiet()} | options)


class Patient:
    """A stream whose reader may go away: later output is silently dropped (``| head -3``)."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._lose()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._lose()

    def _lose(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
