"""Loopback servers for the tests of this folder."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.unit.web.servers import Server
from w2w.web import fetch


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    with ExitStack() as stack:

        def start(reply: Callable | bytes, tls: ssl.SSLContext | None = None) -> Server:
            server = Server(reply if callable(reply) else lambda sock, head, n: sock.sendall(reply), tls)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_BACKOFF_S", 0.01)
