"""Records in data set files: a missing or strange field becomes an error message with the names of file and record."""

import json
import os
import reprlib
from collections.abc import ItemsView, Iterable
from pathlib import Path
from typing import Any

from w2w import storage
from w2w.errors import UsageError

_MAX_NUMBER = 1e9  # of a coordinate


class Record:
    """A JSON object of a file, whose missing or strange fields raise errors that name both."""

    def __init__(self, where: str, values: object):
        self.where = where
        if not isinstance(values, dict):
            raise UsageError(f"{where}: expected an object with fields, found {type(values).__name__}")
        self._values = values

    def get(self, name: str, kind: type | tuple[type, ...], default: object = ...) -> Any:
        value = self._values.get(name, default)
        if value is ...:
            raise UsageError(f"{self.where}: field {name!r} is missing")
        if value is default:
            return value
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, kind) or (isinstance(value, bool) and bool not in kinds):
            raise UsageError(f"{self.where}: field {name!r} is {shown(value)}, not {' or '.join(k.__name__ for k in kinds)}")
        if isinstance(value, str) and not storage.is_text(value):
            raise UsageError(f"{self.where}: field {name!r} is {shown(value)}, which holds half a character")
        return value

    def items(self) -> ItemsView[str, Any]:
        return self._values.items()

    def numbers(self, name: str, count: int) -> Any:
        return numbers(self.get(name, (list, tuple)), count, f"{self.where}: field {name!r}")


def shown(value: object) -> str:
    """The start of a value of any size and depth, even self-referencing."""
    return f"{reprlib.repr(value):.60}"


def numbers(values: Any, count: int, where: str) -> Any:
    """A tuple of ``count`` finite floats. Raises UsageError if they are not ``count`` numbers."""
    good = len(values) == count and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not good or any(v != v or abs(v) > _MAX_NUMBER for v in values):
        raise UsageError(f"{where} is {shown(values)}, not {count} numbers")
    return tuple(float(v) for v in values)


def below(folder: Path, name: str, where: str) -> str:
    """The path of a file in a folder, as named by a record. Raises UsageError for a name that leads out of it."""
    path, root = os.path.normpath(folder / name), os.path.normpath(folder)
    if not path.startswith(f"{root.rstrip('/')}/"):
        raise UsageError(f"{where}: {shown(name)} is not a file in {folder}")
    return str(folder / name)


def from_xywh(box: tuple[float, ...]) -> tuple[float, float, float, float]:
    """(x, y, width, height) as (x0, y0, x1, y1)."""
    x, y, w, h = box
    return x, y, x + w, y + h


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object without duplicate fields, of which Python would silently keep the last."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"field {next(n for n in names if names.count(n) > 1)!r} is duplicated in one object")
    return values


JSON = json.JSONDecoder(object_pairs_hook=_once)


def parse_json(text: str, where: object, at: int | None = None) -> object:
    """The text's JSON value; with ``at``, the value that starts there and its end. Raises UsageError."""
    try:
        return JSON.decode(text) if at is None else JSON.raw_decode(text, at)
    except RecursionError:
        raise UsageError(f"{where}: not valid JSON: nested too deeply") from None
    except ValueError as e:
        raise UsageError(f"{where}: not valid JSON: {e}") from e


def read_json(path: Path) -> object:
    """The file's JSON. Raises UsageError naming the file."""
    return parse_json(read_text(path), path)


def read_text(path: Path) -> str:
    """UTF-8 with or without a mark. Raises UsageError naming the file."""
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path}: not a plain file")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        raise UsageError(f"{path}: not UTF-8 text") from e
    except OSError as e:
        raise UsageError(f"{path}: cannot be read: {e.strerror}") from e


def files_below(folder: Path, endings: Iterable[str], recursive: bool = True) -> list[Path]:
    """The files with these suffixes, in order. Raises UsageError if a name is not UTF-8, or is not a file."""
    unusable: list[tuple[str, str]] = []
    found = storage.list_files(str(folder), recursive, unusable)
    for path, why in sorted(unusable):
        if path.lower().endswith(tuple(endings)):
            raise UsageError(f"{path}: {why}")
    return [Path(f.path) for f in found if f.path.lower().endswith(tuple(endings))]
