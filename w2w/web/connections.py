"""Connections kept open between requests, and the reading side of one: bounded in time, in bytes and in number."""

import http.client
import io
import select
import socket
import threading
import time
from collections import deque
from typing import Any

_CHUNK = 64 * 1024
_IDLE_S = 4.0  # shorter than the shortest keep-alive in wide use (Apache and Node close after 5 s)
_PATIENCE_S = 0.05  # for the rest of an error page: a new connection takes about as long
_MAX_IDLE = 256  # over all hosts: file descriptors are few

Origin = tuple[str, str, int]  # scheme, host, port


class TooManyBytes(Exception):
    """More came over the wire than the cap allows."""


class IdleConnections:
    """Open connections by origin, the youngest first; at most ``per_origin`` of each. Safe to share between threads.

    A connection was made to an address that was checked, and cannot move to another: taking it again needs no new look-up.
    """

    def __init__(self, per_origin: int):
        self._per_origin = per_origin
        self._lock = threading.Lock()
        self._idle: dict[Origin, deque[tuple[socket.socket, float]]] = {}
        self._count = 0

    def take(self, origin: Origin) -> socket.socket | None:
        """One that was open a moment ago; None where there is none."""
        while True:
            with self._lock:
                waiting = self._idle.get(origin)
                if not waiting:
                    return None
                sock, since = waiting.pop()
                self._count -= 1
                if not waiting:
                    del self._idle[origin]
            if time.monotonic() - since < _IDLE_S and not _says_something(sock):
                return sock
            sock.close()

    def give(self, origin: Origin, sock: socket.socket) -> None:
        """Keeps it, or closes it (or an older one) where there are enough."""
        closing = None
        with self._lock:
            if self._count >= _MAX_IDLE or not self._per_origin:
                closing = sock
            else:
                waiting = self._idle.setdefault(origin, deque())
                if len(waiting) >= self._per_origin:
                    closing = waiting.popleft()[0]
                    self._count -= 1
                waiting.append((sock, time.monotonic()))
                self._count += 1
        if closing:
            closing.close()

    def close(self) -> None:
        with self._lock:
            idle, self._idle, self._count = self._idle, {}, 0
        for waiting in idle.values():
            for sock, _ in waiting:
                sock.close()


def _says_something(sock: socket.socket) -> bool:
    """An idle server has nothing to say but that it closes, or an answer that nobody asked for."""
    try:
        return bool(select.select([sock], [], [], 0)[0])
    except (OSError, ValueError):
        return True


class Wire(io.RawIOBase):
    """A socket's reading side for one answer: every read ends by ``deadline``, and all together by ``max_bytes``."""

    def __init__(self, sock: socket.socket, deadline: float, max_bytes: int):
        self._sock, self._deadline, self._bytes_left = sock, deadline, max_bytes
        self.received, self.spent, self.left_over = False, False, False

    def makefile(self, mode: str) -> io.BufferedReader:  # all that HTTPResponse asks of a socket
        assert mode == "rb"
        return _Reader(self, _CHUNK)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.spent:
            return 0
        self._sock.settimeout(left(self._deadline))
        count = self._sock.recv_into(buffer)
        self.received = self.received or count > 0
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise TooManyBytes
        return count

    def is_reusable(self, response: http.client.HTTPResponse) -> bool:
        """Whether the answer was read to its end, nothing follows it, and the server keeps the connection.

        Of an answer that nobody wanted to read, a short rest is taken if it comes at once; else the connection ends.
        """
        if response.will_close:
            return False
        self._deadline = min(self._deadline, time.monotonic() + _PATIENCE_S)
        self.spent = not response.length or response.length > _CHUNK
        try:
            while response.read(_CHUNK):
                pass
        except (http.client.HTTPException, ValueError, OSError, TooManyBytes):
            return False
        return response.isclosed() and not response.length and not self.left_over


class _Reader(io.BufferedReader):
    """Tells the wire, when the answer has ended, whether bytes follow it: those would be taken for the next answer."""

    def close(self) -> None:
        if not self.closed:
            assert isinstance(self.raw, Wire)
            self.raw.spent = True
            self.raw.left_over = bool(self.peek(1))
        super().close()


def left(deadline: float) -> float:
    """Seconds until ``deadline``. Raises TimeoutError where it has passed."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("deadline")
    return seconds
