"""What lies inside the objects and lists of a JSON row, by its path: brand.name, images[].src, options.Size."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

NAME, _VALUE = ("name", "key", "code", "label", "attribute"), ("value", "values", "option", "options")


def plain_row(row: dict[str, object], into: int = 3) -> dict[str, object]:
    """The row with the values inside its objects and lists as well, by their paths: brand.name, images[].src. Of a list the
    first element counts, but for one of names and values: options.Size."""
    found: dict[str, object] = dict(row)
    for name, value in row.items():
        first = value[0] if isinstance(value, list) and value else value
        path = f"{name}[]" if isinstance(value, list) else name
        if isinstance(first, dict) and into > 1:
            found |= {f"{path}.{inner}": v for inner, v in plain_row(first, into - 1).items()}
        elif isinstance(value, list):
            found[path] = first
        if isinstance(value, list):
            for inner, said in named(value):
                found.setdefault(f"{name}.{inner}", said)
    return found


def named(values: list) -> Iterator[tuple[str, object]]:
    """Of a list such as [{name: Colour, value: red}] each name and value."""
    for one in values:
        name = next((one[k] for k in NAME if isinstance(one.get(k), str)), None) if isinstance(one, dict) else None
        said = next((one[k] for k in _VALUE if one.get(k) is not None), None) if name else None
        if name and said is not None:
            yield name, said


def all_at(row: object, path: str) -> list[object]:
    """Every value at a path: images[].src of each of the images."""
    name, _, rest = path.partition(".")
    value = row.get(name.removesuffix("[]")) if isinstance(row, dict) else None
    inner = value if isinstance(value, list) and name.endswith("[]") else [] if value is None else [value]
    return [found for one in inner for found in all_at(one, rest)] if rest else list(inner)


def is_path(name: str) -> bool:
    return "." in name or "[" in name


@dataclass(frozen=True)
class Read:
    """The paths that are read into columns: ``first`` of a list's first element alone, ``each`` of all of them."""

    first: frozenset[str]
    each: frozenset[str]

    @classmethod
    def of(cls, first: Iterable[str], each: Iterable[str]) -> "Read":
        every = frozenset(filter(is_path, each))
        return cls(every | frozenset(filter(is_path, first)), every)

    def left(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row without what is read inside its objects and lists. What is left of an object stands under its path."""
        touched = {re.split(r"[.\[]", path, maxsplit=1)[0] for path in self.first}
        if not any(isinstance(row.get(name), dict | list) for name in touched):
            return row
        found: dict[str, Any] = {}
        for name, value in row.items():
            is_read = name in touched and isinstance(value, dict | list)
            found |= _leaves(name, _left(value, name, self.first, self.each)) if is_read else {name: value}
        return found


def _left(value: Any, path: str, read: frozenset[str], later: frozenset[str]) -> Any:
    """What is left of the value at a path; None if nothing is. ``later``: what is read of a list from its second element on."""
    if isinstance(value, dict):
        inner = {name: _left(one, f"{path}.{name}", read, later) for name, one in value.items()}
        return {name: one for name, one in inner.items() if one is not None} or None
    if isinstance(value, list):
        called = [next((f"{path}.{name}" for name, _ in named([one])), "") for one in value]
        rest = [one for one, name in zip(value, called) if name not in read]
        if len(rest) < len(value) and len(inner := dict(named(rest))) == len(rest):
            return inner or None
        kept = (_left(one, f"{path}[]", later if n else read, later) for n, one in enumerate(rest))
        return [one for one in kept if one is not None] or None
    return None if path in read else value


def _leaves(path: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {name: one for inner, v in value.items() for name, one in _leaves(f"{path}.{inner}", v).items()}
    return {} if value is None else {path: value}
