"""Connections kept open between requests, and the reading side of one, limited in time, bytes and number."""

import http.client
import io
import select
import socket
import threading
import time
from collections import deque
from typing import Any

_CHUNK = 64 * 1024
_IDLE_S = 4.0  # below the shortest common keep-alive (Apache and Node close after 5 s)
_PATIENCE_S = 0.05  # for the rest of an error page: reconnecting takes about as long
_MAX_IDLE = 256  # over all hosts, since file descriptors are limited

Origin = tuple[str, str, int]  # scheme, host, port


class TooManyBytes(Exception):
    """More bytes came over the wire than the cap allows."""


class IdleConnections:
    """Idle connections by origin, newest first; at most ``per_origin`` of each. Thread-safe.

    A connection was opened to a checked address and cannot move to another, so reusing it needs no new look-up.
    """

    def __init__(self, per_origin: int):
        self._per_origin = per_origin
        self._lock = threading.Lock()
        self._idle: dict[Origin, deque[tuple[socket.socket, float]]] = {}
        self._count = 0

    def take(self, origin: Origin) -> socket.socket | None:
        """A connection that was recently open, or None."""
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
        """Keeps the connection, or closes it (or an older one) if there are enough."""
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
    """Whether an idle server has sent anything: that can only be a close or an unsolicited response."""
    try:
        return bool(select.select([sock], [], [], 0)[0])
    except (OSError, ValueError):
        return True


class Wire(io.RawIOBase):
    """A socket's reading side for one response: every read ends by ``deadline``; all of them read at most ``max_bytes``."""

    def __init__(self, sock: socket.socket, deadline: float, max_bytes: int):
        self._sock, self._deadline, self._bytes_left = sock, deadline, max_bytes
        self.received, self.spent, self.left_over = False, False, False

    def makefile(self, mode: str) -> io.BufferedReader:  # all that HTTPResponse needs of a socket
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
        """Whether the response was read to its end, nothing follows it, and the server keeps the connection open.

        Of an unwanted response, a short rest is read if it arrives at once; otherwise the connection is closed.
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
    """Tells the wire, at the end of a response, whether bytes follow it: they would be taken for the next response."""

    def close(self) -> None:
        if not self.closed:
            assert isinstance(self.raw, Wire)
            self.raw.spent = True
            self.raw.left_over = bool(self.peek(1))
        super().close()


def left(deadline: float) -> float:
    """Seconds until ``deadline``. Raises TimeoutError if it has passed."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("deadline")
    return seconds
