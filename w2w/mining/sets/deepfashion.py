"""The three sets called DeepFashion: In-Shop, Consumer-to-Shop (Liu et al. 2016) and DeepFashion2 (Ge et al. 2019)."""

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from w2w.errors import UsageError
from w2w.garments.records import Record, below, files_below, read_json
from w2w.garments.taxonomy import BOTTOM, DRESS, OUTER, TOP
from w2w.mining.sets.records import Anchor, Box, Classes, Photo, PublicSet, Shop, columns, corners, find
from w2w.mining.splits.shares import TEST, TRAIN, VAL

_CORNERS = ("x_1", "y_1", "x_2", "y_2")
_OPEN = ("denim", "suiting", "summer_wear")  # labels whose class depends on the part of the body
_BODY = {"1": TOP, "2": BOTTOM, "3": DRESS}  # clothes_type


class _DeepFashion(PublicSet):
    """Common to In-Shop and Consumer-to-Shop: a list of boxes with the clothes type, and labels in the pictures' paths."""

    def __init__(self, root: Path, images: Path | None, classes: Classes, boxes: str):
        self._classes = classes
        self._partition = find(root, "Eval/list_eval_partition.txt", "list_eval_partition.txt")
        self._box_file = find(root, f"Anno/{boxes}", boxes)
        self._images = images or find(root, "Img/img", "img").parent

    @cached_property
    def _boxes(self) -> dict[str, tuple[str, Box]]:
        """Clothes type and box of each picture: about 300 bytes each."""
        names = ("image_name", "clothes_type", *_CORNERS)
        return {name: (kind, corners(box, where)) for where, (name, kind, *box) in columns(self._box_file, names)}

    def _seen(self, name: str, where: str) -> tuple[str, str | None, Box]:
        """Label, class and box of a picture: img/WOMEN/Dresses/id_00000002/02_1_front.jpg."""
        if name not in self._boxes:
            raise UsageError(f"{where}: {name!r} has no line in {self._box_file}")
        if name.count("/") < 3:
            raise UsageError(f"{where}: {name!r} is not like img/GROUP/Label/id/picture.jpg")
        kind, box = self._boxes[name]
        if kind not in _BODY:
            raise UsageError(f"{self._box_file}: clothes_type {kind!r} of {name!r} is not one of {', '.join(_BODY)}")
        label = name.split("/")[-3]
        category = self._classes.of(label, where)
        if category is None and label.lower() in _OPEN:
            category = OUTER if (label.lower(), kind) == ("suiting", "1") else _BODY[kind]
        return label, category, box

    def _shop(self, name: str, item: str, split: str, where: str, *notes: tuple[str, str]) -> Shop:
        label, category, box = self._seen(name, where)
        said = (*notes, ("box_xyxy", " ".join(f"{v:g}" for v in box)))
        return Shop(name, item, below(self._images, name, where), label, category, split, notes=said)

    def _photo(self, name: str, item: str, split: str, shops: tuple[str, ...], where: str) -> Photo:
        label, category, box = self._seen(name, where)
        return Photo(name, below(self._images, name, where), split, (Anchor(item, shops, label, category, box),))


class InShop(_DeepFashion):
    """In-Shop Clothes Retrieval: pictures of a product from several sides.

    Gallery pictures are the shop's and query pictures are photos; of the training pictures, which have no such roles, the first
    view of each group (02_1_front of 02_1_front, 02_2_side, ...) is the shop's and the others are photos. Every shop picture of
    the item is a correct answer, as in the protocol.
    """

    def __init__(self, root: Path, images: Path | None, classes: Classes):
        super().__init__(root, images, classes, "list_bbox_inshop.txt")

    def _rows(self) -> Iterator[tuple[str, str, str, str]]:
        for where, (name, item, status) in columns(self._partition, ("image_name", "item_id", "evaluation_status")):
            if status not in ("train", "query", "gallery"):
                raise UsageError(f"{where}: evaluation_status {status!r} is not one of train, query, gallery")
            yield where, name, item, status

    @staticmethod
    def _view(name: str) -> tuple[str, str]:
        """The group of a picture (its item and the number before the view), and the view."""
        folder, _, file = name.rpartition("/")
        group, _, view = file.partition("_")
        return f"{folder}/{group}", view

    @cached_property
    def _listed(self) -> dict[str, tuple[str, str]]:
        """Item and status of each picture, from its first line; later lines of the same picture are ignored."""
        listed: dict[str, tuple[str, str]] = {}
        for _, name, item, status in self._rows():
            listed.setdefault(name, (item, status))
        return listed

    @cached_property
    def _first(self) -> dict[str, str]:
        """The first view of each group of training pictures."""
        first: dict[str, str] = {}
        for name, (_, status) in self._listed.items():
            if status == "train":
                group, view = self._view(name)
                first[group] = min(first.get(group, view), view)
        return first

    def _is_shop(self, name: str) -> bool:
        status = self._listed[name][1]
        if status != "train":
            return status == "gallery"
        group, view = self._view(name)
        return self._first[group] == view

    @cached_property
    def _shops_of(self) -> dict[str, list[str]]:
        found = defaultdict(list)
        for name, (item, _) in self._listed.items():
            if self._is_shop(name):
                found[item].append(name)
        return found

    def shops(self) -> Iterator[Shop]:
        for where, name, item, status in self._rows():
            if self._is_shop(name):
                yield self._shop(name, item, TRAIN if status == "train" else TEST, where, ("partition", status))

    def photos(self) -> Iterator[Photo]:
        for where, name, item, status in self._rows():
            if not self._is_shop(name):
                split = TRAIN if status == "train" else TEST
                yield self._photo(name, item, split, tuple(self._shops_of.get(item, ())), where)


class ConsumerToShop(_DeepFashion):
    """Consumer-to-Shop Clothes Retrieval: exactly the pairs listed, one per line."""

    def __init__(self, root: Path, images: Path | None, classes: Classes):
        super().__init__(root, images, classes, "list_bbox_consumer2shop.txt")

    def _rows(self) -> Iterator[tuple[str, str, str, str, str]]:
        names = ("image_pair_name_1", "image_pair_name_2", "item_id", "evaluation_status")
        for where, (consumer, shop, item, status) in columns(self._partition, names):
            if status not in (TRAIN, VAL, TEST):
                raise UsageError(f"{where}: evaluation_status {status!r} is not one of {TRAIN}, {VAL}, {TEST}")
            yield where, consumer, shop, item, status

    def shops(self) -> Iterator[Shop]:
        seen: set[tuple[str, str, str]] = set()
        for where, _, shop, item, status in self._rows():
            if (shop, item, status) not in seen:
                seen.add((shop, item, status))
                yield self._shop(shop, item, status, where)

    def photos(self) -> Iterator[Photo]:
        found: dict[str, tuple[str, str, str, list[str]]] = {}
        for where, consumer, shop, item, status in self._rows():
            first = found.setdefault(consumer, (where, item, status, []))
            if first[1:3] != (item, status):
                raise UsageError(f"{where}: {consumer!r} is {item}, {status}; on {first[0]} it is {first[1]}, {first[2]}")
            if shop not in first[3]:
                first[3].append(shop)
        for consumer, (where, item, status, shops) in found.items():
            yield self._photo(consumer, item, status, tuple(shops), where)


class DeepFashion2(PublicSet):
    """DeepFashion2 (README, "Data Organization"): one JSON per photo; boxes are corners. Items of a user's and a shop's photo
    are one product if pair_id and style match and style is above 0; style 0 has no counterpart anywhere."""

    _SPLITS = {"train": TRAIN, "validation": VAL}

    def __init__(self, root: Path, images: Path | None, classes: Classes):
        places = [root / "train" / "annos", root / "validation" / "annos", root / "annos", root]
        self._folders = [f for f in places if any(f.glob("*.json"))]
        if not self._folders:
            raise UsageError(f"set.path={root}: no *.json there, nor in train/annos, validation/annos or annos")
        for folder in self._folders:
            if folder.parent.name not in self._SPLITS:
                raise UsageError(f"set.path={root}: {folder} is not train/annos or validation/annos, so its split is not known")
        self._images, self._classes = images, classes

    def _records(self, source: str) -> Iterator[tuple[str, str, str, list[tuple[str, int, Record]]]]:
        """(name, image, split, [(product or "", position, item)]) of each photo from ``source``: user or shop."""
        for folder in self._folders:
            part = folder.parent.name
            for file in files_below(folder, (".json",), recursive=False):
                record = Record(str(file), read_json(file))
                if record.get("source", str) not in ("user", "shop"):
                    raise UsageError(f"{file}: source {record.get('source', str)!r} is neither user nor shop")
                pair = record.get("pair_id", int)
                if record.get("source", str) != source:
                    continue
                items = []
                for number in self._numbers(record):
                    item = Record(f"{file}: item{number}", record.get(f"item{number}", dict))
                    style = item.get("style", int)
                    items.append((f"{part}/{pair}/{style}" if style > 0 else "", number, item))
                image = (self._images / part / "image" if self._images else folder.parent / "image") / f"{file.stem}.jpg"
                yield f"{part}/{file.stem}", str(image), self._SPLITS[part], items

    @staticmethod
    def _numbers(record: Record) -> list[int]:
        names = [name for name, _ in record.items() if name.startswith("item")]
        for name in names:
            if not re.fullmatch(r"item[1-9][0-9]{0,8}", name):
                raise UsageError(f"{record.where}: field {name!r} is not like item1, item2")
        return sorted(int(name[4:]) for name in names)

    def _seen(self, item: Record) -> tuple[str, str | None, Box]:
        label = item.get("category_name", str)
        return label, self._classes.of(label, item.where), item.numbers("bounding_box", 4)

    @cached_property
    def _shops_of(self) -> dict[str, list[str]]:
        found = defaultdict(list)
        for name, _, _, items in self._records("shop"):
            for product, number, _ in items:
                if product:
                    found[product].append(f"{name}/item{number}")
        return found

    def shops(self) -> Iterator[Shop]:
        for name, image, split, items in self._records("shop"):
            for product, number, item in items:
                label, category, box = self._seen(item)
                yield Shop(f"{name}/item{number}", product or None, image, label, category, split, box)

    def photos(self) -> Iterator[Photo]:
        for name, image, split, items in self._records("user"):
            anchors = []
            for product, _, item in items:
                label, category, box = self._seen(item)
                if product:
                    anchors.append(Anchor(product, tuple(self._shops_of.get(product, ())), label, category, box))
            if anchors:
                yield Photo(name, image, split, tuple(anchors))
