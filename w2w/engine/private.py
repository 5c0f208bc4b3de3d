"""All of Ray's private names that w2w uses, in one file: with them a local cluster of its own starts in half the time.
``RayConfig.lean`` opts in; if Ray no longer has one of them, the normal start is used."""

import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing it costs the driver seconds
    from ray.train.torch import TorchTrainer

CHATTY = ("ray.data._internal.execution.streaming_executor", "ray.data._internal.progress")  # loggers
_UNUSED_CALLBACKS = ("PlacementGroupCleanerCallback", "DatasetsCallback")


def _nothing(*args: object, **options: object) -> None:
    pass


def _no_pages(node: Any, *args: object, **options: object) -> None:
    node._webui_url = None


def _no_dashboard() -> ImportError:
    return ImportError("not used by a local cluster")


_INSTEAD = (
    ("ray._private.node:Node", "start_monitor", _nothing),
    ("ray._private.node:Node", "start_log_monitor", _nothing),
    ("ray._private.node:Node", "start_api_server", _no_pages),
    ("ray._private.utils", "get_dashboard_dependency_error", _no_dashboard),
)


def _found(name: str) -> Any:
    """The object at ``module:attribute``, or None if there is none."""
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return None


@contextmanager
def only_what_is_used() -> Iterator[None]:
    """Starts only what a single job on one machine needs. Left out are the autoscaler's monitor, the log monitor, a dashboard
    without pages, and the larger half of the node's agent: five Python processes that ``ray.init`` otherwise starts and waits
    for whatever its options. Startup takes 7.6 s instead of 16 (2 cores)."""
    owners = [(_found(owner), name, replacement) for owner, name, replacement in _INSTEAD]
    kept = [(owner, name, getattr(owner, name), replacement) for owner, name, replacement in owners if hasattr(owner, name)]
    try:
        for owner, name, _, replacement in kept:
            setattr(owner, name, replacement)
        yield
    finally:
        for owner, name, original, _ in kept:
            setattr(owner, name, original)


def light_trainer() -> "type[TorchTrainer]":
    """Ray's trainer without two actors that a local cluster has no use for: one frees the workers' resources if the controller
    dies and waits 10 s at the end for a dashboard that is not there; the other serves Ray Data."""
    from ray.train.torch import TorchTrainer

    class LightTrainer(TorchTrainer):
        def _create_default_callbacks(self) -> list:
            return [c for c in super()._create_default_callbacks() if type(c).__name__ not in _UNUSED_CALLBACKS]

    return LightTrainer
