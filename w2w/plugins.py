"""Looking up code by name: built in, ``module:attribute``, or an entry point ``KIND.NAME`` of group ``w2w.plugins``.

A lookup runs the module, so names come from options and config files and never from data: no table, manifest or checkpoint
names code. They travel to workers as strings and are looked up again there.
"""

import difflib
import functools
import hashlib
import importlib
import importlib.metadata
import re
import sys
from collections.abc import Iterable, Mapping
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from pathlib import Path
from typing import Any

from w2w.errors import UsageError

GROUP = "w2w.plugins"
OPTIONS = {  # kind -> the option that names one
    "encoder": "encoder.name",
    "detector": "detector.name",
    "loss": "learn.loss",
    "recipe": "recipe",
    "reader": "feed.kind",
    "annotations": "annotations.format",
    "set": "set.format",
    "stage": "stage",
}
_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_CODE = (*SOURCE_SUFFIXES, *(s for s in EXTENSION_SUFFIXES if s != ".so"))  # without torch's gigabyte of libraries
_loaded: dict[str, str] = {}  # in this process: module -> digest of its code


def find(kind: str, name: str, built_in: Mapping[str, Any], others: Iterable[str] = ()) -> Any:
    """The class or function of that name. Strings in ``built_in`` are ``module:attribute``, imported on demand. ``others``:
    further kinds of names that the caller accepts, for the error message.

    Raises UsageError for an unknown name, or if its module or attribute does not exist.
    """
    if name in built_in:
        found = built_in[name]
        return _imported(kind, name, found) if isinstance(found, str) else found
    return _outside(kind, name, [*built_in, *others])[1]


def check(kind: str, name: str, built_in: Mapping[str, Any]) -> None:
    """Raises as ``find`` does, without importing what is built in."""
    if name not in built_in:
        find(kind, name, built_in)


def version_of(kind: str, name: str, built_in: Mapping[str, Any]) -> tuple[str, ...]:
    """What distinguishes external code, for version digests; () for built-in code. The object's own ``version`` if it declares
    one, otherwise the sha256 of the sources of its package (or module).

    Raises UsageError if the sources are not those that this process loaded.
    """
    if name in built_in:
        return ()
    reference, found = _outside(kind, name, built_in)
    declared = getattr(found, "version", None)
    if isinstance(declared, str):
        return (f"{reference}@{declared}",)
    modules = {reference.partition(":")[0], getattr(found, "__module__", None) or reference.partition(":")[0]}
    return (reference, *(_unchanged(kind, name, m) for m in sorted(modules)))


def short(name: str) -> str:
    """The attribute of ``module:attribute``; other names unchanged."""
    return name.rpartition(":")[2]


def installed(kind: str) -> dict[str, set[str]]:
    """Name -> ``module:attribute`` of a kind's entry points; several if packages claim the same name."""
    found: dict[str, set[str]] = {}
    for point in importlib.metadata.entry_points(group=GROUP):
        if point.name.startswith(f"{kind}."):
            found.setdefault(point.name.removeprefix(f"{kind}."), set()).add(f"{point.module}:{point.attr}")
    return found


def _reference(kind: str, name: str, known: Iterable[str]) -> str:
    if _REFERENCE.fullmatch(name):
        return name
    here = installed(kind)
    if len(here.get(name, ())) == 1:
        return min(here[name])
    if name in here:
        raise UsageError(f"{OPTIONS[kind]}={name}: several packages have one: name it as {', '.join(sorted(here[name]))}")
    names = [*known, *here]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UsageError(f"{OPTIONS[kind]}={name}: unknown.{hint} Allowed: {', '.join([*names, 'module:attribute'])}")


def _outside(kind: str, name: str, known: Iterable[str]) -> tuple[str, Any]:
    """``module:attribute`` and the object it names."""
    reference = _reference(kind, name, known)
    found, module = _imported(kind, name, reference), reference.partition(":")[0]
    if module not in _loaded:
        _loaded[module] = _code_digest(module)
    return reference, found


def _imported(kind: str, name: str, reference: str) -> Any:
    option, (module, _, attribute) = f"{OPTIONS[kind]}={name}", reference.partition(":")
    if module == "__main__":
        raise UsageError(f"{option}: workers cannot import what a script or notebook defines: put it into a module")
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as e:  # a foreign module may raise anything
        raise UsageError(
            f"{option}: module {module!r} cannot be imported: {type(e).__name__}: {e}. It must be installed, or on "
            "PYTHONPATH, on every machine of the cluster"
        ) from e
    for part in attribute.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, [n for n in dir(found) if not n.startswith("_")], n=1)
            raise UsageError(f"{option}: {module} has no {attribute}.{f' Did you mean {close[0]!r}?' if close else ''}")
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(f"{option}: {reference} is a {type(found).__name__}; must be a class or function")
    return found


def _unchanged(kind: str, name: str, module: str) -> str:
    """The digest of the module's code, which is the code that this process runs."""
    now = _code_digest(module)
    if not now:
        raise UsageError(f"{OPTIONS[kind]}={name}: {module} has no source file: give it a `version`, a string of your own")
    if _loaded.setdefault(module, now) != now:
        raise UsageError(f"{OPTIONS[kind]}={name}: the code of {module} has changed since this process loaded it: restart it")
    return now


def _code_digest(module: str) -> str:
    """sha256 of the sources and extension modules of the module's package; "" if it has no file."""
    parts = module.split(".")
    tops = (sys.modules.get(".".join(parts[:i])) for i in range(1, len(parts) + 1))
    file = next((f for top in tops if (f := getattr(top, "__file__", None))), None)  # a namespace package has none
    if not file:
        return ""
    root = Path(file).parent
    files = sorted(f for f in root.rglob("*") if f.name.endswith(_CODE)) if Path(file).stem == "__init__" else [Path(file)]
    return _digest(tuple((f.relative_to(root).as_posix(), str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files))


@functools.cache
def _digest(files: tuple[tuple[str, str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, path, size, _ in files:
        digest.update(f"{name} {size}\n".encode() + Path(path).read_bytes())
    return digest.hexdigest()
