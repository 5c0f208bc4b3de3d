"""Ray itself: connect to a cluster or start a local one."""

import logging
import os
from dataclasses import dataclass

# Ray's C++ core prints warnings about its own internals into the user's terminal
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

import ray
import ray.data


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
    if address and address != "local":
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    else:
        store = config.object_store_mb * 2**20 if config.object_store_mb else None
        ray.init(
            address="local",
            num_cpus=config.num_cpus,
            object_store_memory=store,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # w2w shows its own, in rows
    context.print_on_execution_start = False
