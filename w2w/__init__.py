"""w2w ("what to wear"): a batch data platform on Ray for fashion images.

Jobs are functions of the same names, with their options as keywords: ``w2w.embed(store=..., encoder={"name": ...})``.
``w2w.open(store)`` reads what they wrote; ``w2w.load_encoder()`` and the like load a model into this process.
"""

import importlib
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

_FOUND_IN = {
    "JobFailed": "errors",
    "UsageError": "errors",
    "explain": "api.images",
    "load_detector": "api.images",
    "load_encoder": "api.images",
    "load_finder": "api.find",
    "load_scorer": "api.images",
    "load_segmenter": "api.images",
    "open": "api.store",
}
_BOTH = (
    "bridge",
    "check",
    "crawl",
    "erase",
    "export",
    "find",
    "gallery",
    "index",
    "ingest",
    "nightly",
    "plan",
    "recommend",
    "search",
    "similar",
    "style",
)  # packages that share a job's name


def __getattr__(name: str) -> Any:
    if name in _FOUND_IN:
        return getattr(importlib.import_module(f"w2w.{_FOUND_IN[name]}"), name)
    if name in _BOTH:
        return importlib.import_module(f"w2w.{name}")
    if name == "__all__":
        return sorted([*_FOUND_IN, *_jobs().NAMES])
    # ``from w2w import schema`` looks here first, even in a worker that has imported nothing yet
    if not name.startswith("_") and find_spec(f"w2w.{name}") is None and name in _jobs().NAMES:
        return _jobs().function(name)
    raise AttributeError(f"module 'w2w' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*(n for n in globals() if n.startswith("__")), *_FOUND_IN, *_jobs().NAMES])


def _jobs() -> Any:
    return importlib.import_module("w2w.api.jobs")


class _Module(ModuleType):
    def __reduce__(self) -> tuple:  # functions that refer to it are sent to workers, and only plain modules are pickled by name
        return importlib.import_module, (self.__name__,)


class _Package(_Module):
    """Makes packages that share a job's name callable: ``w2w.index(store=...)`` beside ``import w2w.index.search``."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _BOTH and isinstance(value, ModuleType):
            value.__class__ = _Called
        super().__setattr__(name, value)


class _Called(_Module):
    def __call__(self, **options: Any) -> Any:
        return _jobs().function(self.__name__.rpartition(".")[2])(**options)


sys.modules[__name__].__class__ = _Package
