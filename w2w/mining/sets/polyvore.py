"""Polyvore Outfits (Vasileva et al. 2018): outfits of catalog pictures, and questions about them.

The nondisjoint variant shares items between its splits by design; the disjoint one does not. Products are the same for both.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from w2w import ids
from w2w.errors import UsageError
from w2w.garments.records import Record, below, read_text
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
from w2w.mining.splits.shares import TEST, TRAIN, VAL

VARIANTS = ("nondisjoint", "disjoint")
_FILES = {"train": TRAIN, "valid": VAL, "test": TEST}


class Polyvore(PublicSet):
    """Items are identified by their pictures (images/{item_id}.jpg), outfits list them, questions refer to {set_id}_{index}."""

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
        """About 300 bytes per item. Of two records of one item the first counts, as for products."""
        items: dict[str, Item] = {}
        for item_id, _, label, category in self._records():
            items.setdefault(item_id, Item(item_id, label, category))
        return items

    def _item(self, item_id: str, where: str) -> Item:
        if item_id not in self._items:
            raise UsageError(f"{where}: item {item_id!r} is not in {self._metadata}")
        return self._items[item_id]

    def shops(self) -> Iterator[Shop]:
        for item_id, record, label, category in self._records():
            title = record.get("title", str, "") or record.get("url_name", str, "")
            image = below(self._images, f"{item_id}.jpg", record.where)
            yield Shop(item_id, item_id, image, label, category, None, title=title or None)

    def _outfits(self, split: str) -> Iterator[tuple[str, str, list[tuple[str, Item]]]]:
        """(where, set_id, items with the positions that questions refer to) of a split's outfits."""
        file = find(self._folder, f"{split}.json")
        for where, value in members(file):
            record = Record(where, value)
            set_id = record.get("set_id", str)
            items = []
            for i, entry in enumerate(record.get("items", list)):
                one = Record(f"{where} (set {set_id}): items[{i}]", entry)
                items.append((f"{set_id}_{one.get('index', int)}", self._item(one.get("item_id", str), one.where)))
            yield where, set_id, items

    def outfits(self) -> Iterator[Outfit]:
        for name, split in _FILES.items():
            for where, set_id, items in self._outfits(name):
                places = [place for place, _ in items]
                twice = next((place for place in places if places.count(place) > 1), None)
                why = f"{twice} is two items ({where})" if twice else ""
                yield Outfit(set_id, tuple(item for _, item in items), split, why)

    def questions(self) -> Iterator[Question]:
        for name, split in _FILES.items():
            places: dict[str, Item | None] = {}  # None: several items, so that the reference is ambiguous
            for _, _, items in self._outfits(name):
                for place, item in items:
                    places[place] = None if place in places else item
            blanks, lines = (self._folder / f"{file}_{name}" for file in ("fill_in_blank", "compatibility"))
            if blanks.with_suffix(".json").exists():
                yield from self._blanks(blanks.with_suffix(".json"), places, split)
            if lines.with_suffix(".txt").exists():
                yield from self._lines(lines.with_suffix(".txt"), places, split)

    def _blanks(self, file: Path, places: dict[str, Item | None], split: str) -> Iterator[Question]:
        """The right answer comes from the question's own set; the file lists it first, so the answers are shuffled by a digest
        of question and answer."""
        for number, (where, value) in enumerate(members(file)):
            record = Record(where, value)
            asked, answers = (record.get(field, list) for field in ("question", "answers"))
            record.get("blank_position", int)
            if not asked or len(answers) < 2:
                raise UsageError(f"{where}: {len(asked)} items and {len(answers)} answers are not a question")
            sets = {_set_of(place, where) for place in asked}
            for answer in answers:
                _set_of(answer, where)
            shuffled = sorted(answers, key=lambda a: ids.digest(asked, a, length=32))
            right = [i for i, a in enumerate(shuffled) if _set_of(a, where) in sets]
            clear = len(sets) == len(right) == 1
            why = "" if clear else f"{len(right)} answers are of the question's {len(sets)} sets ({where})"
            yield _question(f"{split}/{number}", places, (asked, shuffled), right[0] if clear else None, split, where, why)

    def _lines(self, file: Path, places: dict[str, Item | None], split: str) -> Iterator[Question]:
        for number, line in enumerate(read_text(file).splitlines(), 1):
            words, where = line.split(), f"{file}, line {number}"
            if not words:
                continue
            if words[0] not in ("0", "1") or len(words) < 3:
                raise UsageError(f"{where}: {line!r:.60} is not 0 or 1 and two items or more")
            yield _question(f"{split}/{number}", places, (words[1:], []), int(words[0]), split, where)


def _set_of(place: object, where: str) -> str:
    if not isinstance(place, str) or "_" not in place:
        raise UsageError(f"{where}: {place!r} is not like {{set_id}}_{{index}}")
    return place.rpartition("_")[0]


def _question(
    name: str,
    places: dict[str, Item | None],
    asked: tuple[Sequence[str], Sequence[str]],
    right: int | None,
    split: str,
    where: str,
    why: str = "",
) -> Question:
    """``asked``: references to the items and answers; only fill-in-the-blank questions have answers."""
    for place in (*asked[0], *asked[1]):
        if place not in places:
            raise UsageError(f"{where}: there is no outfit with an item {place!r} in this split")
        if places[place] is None and not why:
            right, why = None, f"{place} is two items ({where})"
    items, answers = (tuple(item for place in some if (item := places[place])) for some in asked)
    return Question(name, FILL_IN_BLANK if asked[1] else COMPATIBILITY, items, answers, right, split, why)
