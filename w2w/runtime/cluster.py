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
    with _no_stderr():
        if address and address != "local":
            ray.init(address=address, **quiet)
        else:
            store = config.object_store_mb * 2**20 if config.object_store_mb else None
            ray.init("local", num_cpus=config.num_cpus, object_store_memory=store, include_dashboard=False, **quiet)


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
