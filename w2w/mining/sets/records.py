"""Records of public data sets of pairs or outfits, in one form: product pictures, photos with garments, outfits, questions.

A set is read more than once and never held in memory: its methods yield plain records in file order. A file or record that
violates the set's documented format raises UsageError naming both.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from w2w import storage
from w2w.config import nearest
from w2w.errors import UsageError
from w2w.garments.records import numbers, parse_json, read_text
from w2w.garments.taxonomy import IGNORE, VOCABULARIES, TaxonomyConfig, mapping_of

Box = tuple[float, float, float, float]  # x0, y0, x1, y1
FILL_IN_BLANK, COMPATIBILITY = "fill_in_blank", "compatibility"


@dataclass(frozen=True)
class Shop:
    """One picture of a product. ``product``: what makes pictures one product; None if the set does not say.

    ``box``: the product's place in a picture that shows more. ``notes``: the set's further attributes.
    """

    name: str
    product: str | None
    image_uri: str
    label: str
    category: str | None  # None: not one of our classes
    split: str | None
    box: Box | None = None
    title: str | None = None
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Anchor:
    """One garment in a photo: ``shops`` names the pictures that show the same product. ``box`` None: the whole photo."""

    product: str
    shops: tuple[str, ...]
    label: str
    category: str | None
    box: Box | None


@dataclass(frozen=True)
class Photo:
    """A photo of somebody who wears products of the set."""

    name: str
    image_uri: str
    split: str
    anchors: tuple[Anchor, ...]


@dataclass(frozen=True)
class Item:
    """One piece of an outfit: the name of its Shop, its slot and class."""

    shop: str
    slot: str
    category: str | None


@dataclass(frozen=True)
class Outfit:
    """``why``: what is wrong with the set's record of it; "" if nothing is."""

    name: str
    items: tuple[Item, ...]
    split: str
    why: str = ""


@dataclass(frozen=True)
class Question:
    """``right``: position of the right answer, or 1 and 0 for compatible and incompatible items; None if the set's record does
    not say, and ``why`` gives the reason."""

    name: str
    kind: str
    items: tuple[Item, ...]
    answers: tuple[Item, ...]
    right: int | None
    split: str
    why: str = ""


class PublicSet:
    """An empty set: a reader overrides what its set has."""

    def digest(self) -> str:
        """Of the source of ``outfits`` and ``questions``."""
        return ""

    def shops(self) -> Iterator[Shop]:
        yield from ()

    def photos(self) -> Iterator[Photo]:
        yield from ()

    def outfits(self) -> Iterator[Outfit]:
        yield from ()

    def questions(self) -> Iterator[Question]:
        yield from ()


class Classes:
    """Maps a set's labels to our classes, by name."""

    def __init__(self, vocabulary: str, own: dict[str, str] | None):
        labels = {*VOCABULARIES[vocabulary], *(label.strip().lower() for label in own or {})}
        mapping = mapping_of(sorted(labels), TaxonomyConfig(vocabulary, own), f"set.classes of {vocabulary}")
        self._classes = {label: None if target == IGNORE else target for label, target in mapping.items()}
        self._vocabulary = vocabulary

    def of(self, label: str, where: str) -> str | None:
        """Our class, or None. Raises UsageError for a label that the set does not have."""
        try:
            return self._classes[label.strip().lower()]
        except KeyError:
            known = nearest(label.lower(), sorted(self._classes))
            raise UsageError(f"{where}: {label!r} is not a label of {self._vocabulary}.{known}") from None


def find(root: Path, *places: str) -> Path:
    """The first of the paths below ``root`` that exists. Raises UsageError naming them."""
    for place in places:
        if (root / place).exists():
            return root / place
    raise UsageError(f"set.path={root}: it has no {' or '.join(places)}")


def columns(path: Path, names: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """(where, values) of each line of one of DeepFashion's lists: number of lines, column names, then the lines.

    Columns in the file may be in any order, with others in between; values follow ``names``. A file whose number of lines
    differs from its first line is truncated: UsageError.
    """
    lines = enumerate(_lines(path), 1)
    _, first = next(lines, (1, ""))
    _, header = next(lines, (2, ""))
    if not re.fullmatch(r"[0-9]{1,9}", first):
        raise UsageError(f"{path}, line 1: {first[:60]!r} is not the number of lines that follow")
    there = header.split()
    missing = [name for name in names if name not in there]
    if missing:
        raise UsageError(f"{path}, line 2: no column {missing[0]!r}, only {header!r:.200}")
    at, count = [there.index(name) for name in names], 0
    for number, line in lines:
        values, where = line.split(), f"{path}, line {number}"
        if values:
            if len(values) != len(there):
                raise UsageError(f"{where}: {len(values)} values for {len(there)} columns: {line!r:.60}")
            count += 1
            yield where, [values[i] for i in at]
    if count != int(first):
        raise UsageError(f"{path}: line 1 promises {first} lines, and there are {count}: is the file whole?")


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line in file:
                yield line.strip()
    except UnicodeDecodeError as e:
        raise UsageError(f"{path}: not UTF-8 text") from e
    except OSError as e:
        raise UsageError(f"{path}: cannot be read: {e.strerror}") from e


def corners(values: list[str], where: str) -> Box:
    """Four numbers of a list's line as a box."""
    try:
        found = [float(v) for v in values]
    except ValueError:
        raise UsageError(f"{where}: {' '.join(values)!r} is not a box of four numbers") from None
    return numbers(found, 4, f"{where}: the box")


def members(path: Path) -> Iterator[tuple[str, object]]:
    """(where, value) of each element of a JSON list, or (name, value) of each field of a JSON object, one at a time: only the
    file's text is held in memory."""
    text = read_text(path)

    def skip(at: int, wanted: str) -> int:
        while at < len(text) and text[at] in " \t\r\n":
            at += 1
        if at >= len(text) or text[at] not in wanted:
            raise UsageError(f"{path}: not valid JSON: {' or '.join(map(repr, wanted))} expected at character {at}")
        return at

    def value(at: int) -> Any:
        while at < len(text) and text[at] in " \t\r\n":
            at += 1
        return parse_json(text, path, at)

    at = skip(0, "[{")
    named, close = text[at] == "{", "}" if text[at] == "{" else "]"
    count, at = 0, at + 1
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    if text[at : at + 1] == close:
        return _check_rest(text, at, path)
    while True:
        where: Any = f"{path}: [{count}]"
        if named:
            where, at = value(skip(at, '"'))
            if not storage.is_text(where):
                raise UsageError(f"{path}: field {where!r} holds half a character")
            at = skip(at, ":") + 1
        found, at = value(at)
        yield str(where), found
        count += 1
        at = skip(at, "," + close)
        if text[at] == close:
            return _check_rest(text, at, path)
        at += 1


def _check_rest(text: str, at: int, path: Path) -> None:
    if rest := text[at + 1 : at + 1000].strip(" \t\r\n"):
        raise UsageError(f"{path}: not valid JSON: {rest[:20]!r} after its end, at character {at + 1}")
