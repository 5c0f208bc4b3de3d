"""Ray itself: connect to a cluster or start a local one."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# Ray's C++ core prints warnings about its own internals into the user's terminal
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

import ray
import ray._private.node
import ray._private.utils

from w2w.errors import JobFailed

_STARTS = 3  # attempts
_own = False


@dataclass(frozen=True)
class RayConfig:
    """Where the work runs."""

    address: str | None = None
    """A running cluster, for example auto. Default: $RAY_ADDRESS (set inside ray job submit), else a local cluster."""
    num_cpus: int | None = None
    """CPUs of a local cluster. Default: all of this machine."""
    object_store_mb: int | None = None
    """Shared memory of a local cluster. Default: Ray's own rule."""


def connect(config: RayConfig) -> None:
    """Joins the cluster, or starts a local one; does nothing where this process already did."""
    if ray.is_initialized():
        return
    address = config.address or os.environ.get("RAY_ADDRESS")
    logging.getLogger("ray").setLevel(logging.ERROR)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address and address != "local":
        with _no_stderr():
            ray.init(address=address, **quiet)
        return
    store = config.object_store_mb * 2**20 if config.object_store_mb else None
    global _own
    _own = True
    for attempt in range(1, _STARTS + 1):
        try:
            with _no_stderr(), _only_what_is_used():
                ray.init("local", num_cpus=config.num_cpus, object_store_memory=store, include_dashboard=False, **quiet)
            return
        except Exception as e:  # Ray has no other class for it: a busy machine needs more than the 30 s that Ray waits
            if "timed out during startup" not in str(e):
                raise
            ray.shutdown()
            if attempt == _STARTS:
                raise JobFailed(f"Ray did not start in {_STARTS} attempts of 30 s: the machine is too busy") from e


def is_own() -> bool:
    """Whether this process started the cluster: then nobody else works on it, and it ends with this process."""
    return _own


@contextmanager
def _only_what_is_used() -> Iterator[None]:
    """A cluster of one job on one machine has no use for the autoscaler's monitor, the monitor of logs that nobody reads, a
    dashboard without pages, and the larger half of the node's agent: five processes of Python that ``ray.init`` starts and
    waits for, whatever its options. Without them it takes 7.6 s in place of 16 (2 cores). They are no public API: where a
    version of Ray has none of these names, it starts as it always did.
    """

    def nothing(self, *args, **options) -> None:
        pass

    def no_pages(self, *args, **options) -> None:
        self._webui_url = None

    instead = [
        (ray._private.node.Node, "start_monitor", nothing),
        (ray._private.node.Node, "start_log_monitor", nothing),
        (ray._private.node.Node, "start_api_server", no_pages),
        (ray._private.utils, "get_dashboard_dependency_error", lambda: ImportError("not used by a local cluster")),
    ]
    kept = [(owner, name, getattr(owner, name)) for owner, name, _ in instead if hasattr(owner, name)]
    try:
        for owner, name, replacement in instead:
            if hasattr(owner, name):
                setattr(owner, name, replacement)
        yield
    finally:
        for owner, name, original in kept:
            setattr(owner, name, original)


@contextmanager
def _no_stderr() -> Iterator[None]:
    """The C++ core greets on the process's stderr. What goes wrong is raised as an exception, and not lost."""
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
