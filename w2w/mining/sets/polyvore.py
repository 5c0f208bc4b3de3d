"""Polyvore Outfits (Vasileva et al. 2018): outfits of catalog pictures, and questions about them.

The nondisjoint variant shares items between its splits by design; the disjoint one does not. Products are the same for both.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from w2w import ids
from w2w.errors import UsageError
from w2w.garments.records import Record, read_text
from w2w.mining.sets.records import (
    COMPATIBILITY,
    FILL_IN_BLANK,
    Classes,
    Item,
    Outfit,
    PublicSet,
    Question,
    Shop,
    find,
    members,
)
from w2w.mining.shares import TEST, TRAIN, VAL

VARIANTS = ("nondisjoint", "disjoint")
_FILES = {"train": TRAIN, "valid": VAL, "test": TEST}


class Polyvore(PublicSet):
    """Items are named by their pictures (images/{item_id}.jpg), outfits list them, questions name them as {set_id}_{index}."""

    def __init__(self, root: Path, images: Path | None, classes: Classes, variant: str):
        self._metadata = find(root, "polyvore_item_metadata.json")
        self._folder = find(root, variant)
        self._images = images or find(root, "images")
        self._classes = classes

    def digest(self) -> str:
        files = sorted(f for f in self._folder.iterdir() if f.suffix in (".json", ".txt"))
        return ids.digest([(f.name, ids.image_id(f.read_bytes())) for f in files])

    def _records(self) -> Iterator[tuple[str, Record, str, str | None]]:
        """(item_id, record, semantic category, our class)."""
        for item_id, value in members(self._metadata):
            record = Record(f"{self._metadata}: item {item_id}", value)
            label = record.get("semantic_category", str)
            yield item_id, record, label, self._classes.of(label, record.where)

    @cached_property
    def _items(self) -> dict[str, Item]:
        """About 300 bytes an item."""
        return {item_id: Item(item_id, label, category) for item_id, _, label, category in self._records()}

    def _item(self, item_id: str, where: str) -> Item:
        if item_id not in self._items:
            raise UsageError(f"{where}: item {item_id!r} is not in {self._metadata}")
        return self._items[item_id]

    def shops(self) -> Iterator[Shop]:
        for item_id, record, label, category in self._records():
            title = record.get("title", str, "") or record.get("url_name", str, "")
            yield Shop(item_id, item_id, str(self._images / f"{item_id}.jpg"), label, category, None, title=title or None)

    def _outfits(self, split: str) -> Iterator[tuple[str, str, dict[str, Item]]]:
        """(where, set_id, item by its index) of a split's outfits."""
        file = find(self._folder, f"{split}.json")
        for where, value in members(file):
            record = Record(where, value)
            set_id = record.get("set_id", str)
            items = {}
            for i, entry in enumerate(record.get("items", list)):
                one = Record(f"{where} (set {set_id}): items[{i}]", entry)
                items[str(one.get("index", int))] = self._item(one.get("item_id", str), one.where)
            yield where, set_id, items

    def outfits(self) -> Iterator[Outfit]:
        for name, split in _FILES.items():
            for _, set_id, items in self._outfits(name):
                yield Outfit(set_id, tuple(items.values()), split)

    def questions(self) -> Iterator[Question]:
        for name, split in _FILES.items():
            places = {f"{set_id}_{index}": item for _, set_id, items in self._outfits(name) for index, item in items.items()}
            blanks, lines = (self._folder / f"{file}_{name}" for file in ("fill_in_blank", "compatibility"))
            if blanks.with_suffix(".json").exists():
                yield from self._blanks(blanks.with_suffix(".json"), places, split)
            if lines.with_suffix(".txt").exists():
                yield from self._lines(lines.with_suffix(".txt"), places, split)

    def _blanks(self, file: Path, places: dict[str, Item], split: str) -> Iterator[Question]:
        """The right answer is the one of the question's own set; in the file it comes first, so that the answers are put into
        an order that says nothing: by a digest of question and answer."""
        for number, (where, value) in enumerate(members(file)):
            record = Record(where, value)
            asked, answers = (record.get(field, list) for field in ("question", "answers"))
            record.get("blank_position", int)
            if not asked or len(answers) < 2:
                raise UsageError(f"{where}: {len(asked)} items and {len(answers)} answers are no question")
            sets = {_set_of(place, where) for place in asked}
            shuffled = sorted(answers, key=lambda a: ids.digest(asked, a, length=32))
            right = [i for i, a in enumerate(shuffled) if _set_of(a, where) in sets]
            clear = len(sets) == len(right) == 1
            why = "" if clear else f"{len(right)} answers are of the question's {len(sets)} sets ({where})"
            items, given = (tuple(_at(places, place, where) for place in some) for some in (asked, shuffled))
            yield Question(f"{split}/{number}", FILL_IN_BLANK, items, given, right[0] if clear else None, split, why)

    def _lines(self, file: Path, places: dict[str, Item], split: str) -> Iterator[Question]:
        for number, line in enumerate(read_text(file).splitlines(), 1):
            words, where = line.split(), f"{file}, line {number}"
            if not words:
                continue
            if words[0] not in ("0", "1") or len(words) < 3:
                raise UsageError(f"{where}: {line!r:.60} is not 0 or 1 and two items or more")
            items = tuple(_at(places, place, where) for place in words[1:])
            yield Question(f"{split}/{number}", COMPATIBILITY, items, (), int(words[0]), split)


def _set_of(place: object, where: str) -> str:
    if not isinstance(place, str) or "_" not in place:
        raise UsageError(f"{where}: {place!r} is not like {{set_id}}_{{index}}")
    return place.rpartition("_")[0]


def _at(places: dict[str, Item], place: str, where: str) -> Item:
    if place not in places:
        raise UsageError(f"{where}: there is no outfit with an item {place!r} in this split")
    return places[place]
