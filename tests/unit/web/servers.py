"""Servers on the loopback interface that say what a test tells them, and what the tests of the fetcher share."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from w2w.errors import Reject, RejectCode
from w2w.web.fetch import FetchConfig, Fetcher

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


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    asked = []

    def resolve(host, port, put):
        asked.append(host)
        put([(None, None, 0, "", (address, port)) for address in addresses])

    monkeypatch.setattr("w2w.web.addresses._resolve", resolve)
    return asked
