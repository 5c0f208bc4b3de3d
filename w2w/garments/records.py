"""Records of published data sets' files: what is missing or strange in one becomes a sentence with the file's and its name."""

import json
from pathlib import Path

from w2w.errors import UsageError


class Record:
    """A JSON object of a file, whose missing or strange fields become sentences with both names."""

    def __init__(self, where: str, values: object):
        self.where = where
        if not isinstance(values, dict):
            raise UsageError(f"{where}: expected an object with fields, found {type(values).__name__}")
        self._values = values

    def get(self, name: str, kind: type | tuple[type, ...], default: object = ...) -> object:
        value = self._values.get(name, default)
        if value is ...:
            raise UsageError(f"{self.where}: field {name!r} is missing")
        if value is not default and not isinstance(value, kind):
            raise UsageError(f"{self.where}: field {name!r} is {value!r:.60}, not {_kind(kind)}")
        return value

    def items(self):
        return self._values.items()

    def numbers(self, name: str, count: int) -> tuple[float, ...]:
        return numbers(self.get(name, (list, tuple)), count, f"{self.where}: field {name!r}")


def _kind(kind: type | tuple[type, ...]) -> str:
    return " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))


def numbers(values: object, count: int, where: str) -> tuple[float, ...]:
    """The values as finite floats. Raises UsageError where they are not ``count`` numbers."""
    good = len(values) == count and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not good or any(v != v or abs(v) > 1e9 for v in values):
        raise UsageError(f"{where} is {values!r:.60}, not {count} numbers")
    return tuple(float(v) for v in values)


def from_xywh(box: tuple[float, ...]) -> tuple[float, float, float, float]:
    """(x, y, width, height) as (x0, y0, x1, y1)."""
    x, y, w, h = box
    return x, y, x + w, y + h


def read_json(path: Path) -> object:
    """The file's JSON. Raises UsageError naming the file."""
    try:
        return json.loads(read_text(path))
    except ValueError as e:
        raise UsageError(f"{path}: not valid JSON: {e}") from e


def read_text(path: Path) -> str:
    """UTF-8 with or without a mark. Raises UsageError naming the file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        raise UsageError(f"{path}: not UTF-8 text") from e
    except OSError as e:
        raise UsageError(f"{path}: cannot be read: {e.strerror}") from e
