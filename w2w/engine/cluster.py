"""Ray itself: connect to a cluster or start a local one."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

# Ray's C++ core prints warnings about its own internals on the user's terminal
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told what runs here, unless the user says so

import ray

from w2w.engine.private import only_what_is_used
from w2w.errors import JobFailed

_STARTS = 3  # attempts
_own = _lean = False


@dataclass(frozen=True)
class RayConfig:
    """Where the work runs."""

    LEAST = {"num_cpus": 1, "object_store_mb": 75}

    address: str | None = None
    """A running cluster, for example auto. Default: $RAY_ADDRESS (set inside ray job submit), else a local cluster."""
    num_cpus: int | None = None
    """CPUs of a local cluster. Default: all of this machine."""
    object_store_mb: int | None = None
    """Shared memory of a local cluster. Default: Ray's own rule."""
    lean: bool = False
    """Start a local cluster in half the time, without services that a single job does not use. Relies on private names of Ray,
    and falls back to a normal start if they are gone. W2W_RAY_LEAN=1 in the environment does the same."""


def connect(config: RayConfig) -> None:
    """Joins the cluster or starts a local one; a no-op if this process already did."""
    if ray.is_initialized():
        return
    with _own_signals():
        _connect(config)


def _connect(config: RayConfig) -> None:
    address = config.address or os.environ.get("RAY_ADDRESS")
    logging.getLogger("ray").setLevel(logging.ERROR)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address and address != "local":
        with _no_stderr():
            ray.init(address=address, **quiet)
        return
    store = config.object_store_mb * 2**20 if config.object_store_mb else None
    global _own, _lean
    _own, _lean = True, config.lean or os.environ.get("W2W_RAY_LEAN") == "1"
    for attempt in range(1, _STARTS + 1):
        try:
            with _no_stderr(), only_what_is_used() if _lean else nullcontext():
                ray.init("local", num_cpus=config.num_cpus, object_store_memory=store, include_dashboard=False, **quiet)
            return
        except Exception as e:  # Ray raises no more specific class: a busy machine needs more than Ray's 30 s
            slow = "timed out during startup" in str(e)
            if not slow and (not _lean or attempt == _STARTS):
                raise
            ray.shutdown()
            _lean = _lean and slow  # any other error may come from a service that the lean start left out
            if attempt == _STARTS:
                raise JobFailed(f"Ray did not start in {_STARTS} attempts of 30 s: the machine is too busy") from e


def num_cpus() -> float | None:
    """CPUs of the cluster that this process is connected to, if any."""
    return ray.cluster_resources().get("CPU") if ray.is_initialized() else None


def is_lean() -> bool:
    """Whether this process started its cluster without the services that a single job does not need."""
    return _lean


def is_own() -> bool:
    """Whether this process started the cluster, which then ends with it and runs no other job."""
    return _own


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray answers SIGTERM by ending the process at once, without a word of what was done; also while it starts."""
    before, stopped = signal.getsignal(signal.SIGTERM), False
    try:
        yield
    except SystemExit as e:
        if e.code != signal.SIGTERM or not callable(before):
            raise
        stopped = True
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
    if stopped and callable(before):
        before(signal.SIGTERM, None)


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Silences the C++ core, which greets on the process's stderr. Failures are raised as exceptions, so none is lost."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
