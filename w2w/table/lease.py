"""One night at a time: a lease in the store, which its holder renews. What a run that lost it would commit is refused.

Kleppmann, Designing Data-Intensive Applications, chapter 8, "The leader and the lock": each holder has a larger token, and the
newest token alone may write. No clock is compared with another machine's: a holder is dead if its lease does not change while
it is watched.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from w2w import storage
from w2w.errors import Changed, JobFailed, StorageFailed
from w2w.shown import line

SECONDS = 60.0  # without a sign of life, after which another run may take over
_BEATS = 4  # in that time


@dataclass(frozen=True)
class Holder:
    """Who holds a lease. ``machine`` and ``pid`` tell a later run on the same machine that this one is dead."""

    token: int
    run_id: str
    host: str
    machine: str
    pid: int
    since: str
    beat: int = 0
    ended: bool = False

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_bytes(data: bytes | None) -> "Holder | None":
        """None for what is no lease."""
        try:
            found = Holder(**json.loads(data or b"{}"))
        except (ValueError, TypeError, RecursionError):
            return None
        kinds = {"token": int, "pid": int, "beat": int, "ended": bool}
        return found if all(isinstance(v, kinds.get(n, str)) for n, v in asdict(found).items()) else None

    def is_dead(self) -> bool:
        """Whether the process is known to be gone; False where that cannot be told from here."""
        if self.ended:
            return True
        if self.machine != _machine() or self.pid <= 0:
            return False
        try:
            os.kill(self.pid, 0)
        except OSError as e:
            return isinstance(e, ProcessLookupError)
        return False

    def __str__(self) -> str:
        return line(f"{self.run_id} (process {self.pid} on {self.host}, since {self.since})")


class Lease:
    """A held lease: renewed in a thread of its own until ``end``."""

    def __init__(self, uri: str, mine: Holder, seconds: float):
        self._uri, self._mine, self._seconds = uri, mine, seconds
        self._data = mine.to_bytes()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises JobFailed if another run has taken the lease over."""
        now = Holder.from_bytes(_read(self._uri))
        if now is None or now.token != self._mine.token:
            raise JobFailed(
                f"{self._mine.run_id} gave no sign of life for {self._seconds:.0f} s, and {now or 'nobody'} holds the "
                "night now: nothing more is written by this run; what it had committed is kept"
            )

    def end(self) -> None:
        self._over.set()
        self._thread.join()
        try:
            self._write(replace(self._mine, ended=True))
        except (Changed, StorageFailed):
            pass  # another holds it, or the next run waits until it is over

    def _renew(self) -> None:
        beat = 0
        while not self._over.wait(self._seconds / _BEATS):
            beat += 1
            try:
                self._write(replace(self._mine, beat=beat))
            except Changed:
                return  # lost: the next check tells
            except StorageFailed:
                continue

    def _write(self, holder: Holder) -> None:
        """Raises Changed if another run has taken the lease over."""
        data = holder.to_bytes()
        try:
            storage.replace_if(self._uri, data, self._data)
        except Changed:
            now = _read(self._uri)
            found = Holder.from_bytes(now)
            if found is None or found.token != self._mine.token:
                raise
            storage.replace_if(self._uri, data, now)  # an earlier write of this run was done, and its answer lost
        self._data = data


_held: dict[str, Lease] = {}  # by store


def check(uri: str) -> None:
    """Raises JobFailed if this process held the night of the store, or of the one that ``uri`` lies in, and has lost it.
    Without a lease, nothing is asked."""
    for store, lease in _held.items():
        if uri == store or uri.startswith(storage.join(store, "")):
            lease.check()


@contextmanager
def hold(
    store: str, run_id: str, say: Callable[[str], None], seconds: float = SECONDS, sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Holds the night of the store. Raises JobFailed if another run lives that holds it; one that gives no sign of life for
    ``seconds`` s, or is known to be dead, loses it."""
    uri = storage.join(store, "leases", "night.json")
    seen = _read(uri)
    before = Holder.from_bytes(seen)
    if seen is not None and not (before and before.is_dead()):
        say(f"another night holds this store: {before or uri}; waiting at most {seconds:.0f} s for a sign of life")
        seen = _watch(uri, seen, seconds, sleep)
        before = Holder.from_bytes(seen)
    since = datetime.now(UTC).isoformat(timespec="seconds")
    mine = Holder((before.token if before else 0) + 1, run_id, socket.gethostname(), _machine(), os.getpid(), since)
    try:
        storage.replace_if(uri, mine.to_bytes(), seen)
    except Changed:
        raise _busy(Holder.from_bytes(_read(uri))) from None
    _held[store] = lease = Lease(uri, mine, seconds)
    try:
        yield
    finally:
        del _held[store]
        lease.end()


def _watch(uri: str, seen: bytes, seconds: float, sleep: Callable[[float], None]) -> bytes | None:
    """The lease once its holder is dead. Raises JobFailed if it lives."""
    for _ in range(4 * _BEATS):
        sleep(seconds / (4 * _BEATS))
        now = _read(uri)
        if now != seen:
            holder = Holder.from_bytes(now)
            if holder and not holder.ended:
                raise _busy(holder)
            return now
    return seen


def _busy(holder: Holder | None) -> JobFailed:
    return JobFailed(f"another night is at work on this store: {holder or 'unknown'}. Run this again when it has ended")


def _read(uri: str) -> bytes | None:
    try:
        return storage.read_bytes(uri)
    except FileNotFoundError:
        return None


def _machine() -> str:
    """Equal for processes that see each other's numbers, until the machine restarts."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = str(uuid.getnode())
    return f"{boot}/{socket.gethostname()}"
