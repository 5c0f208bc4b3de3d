"""Street2Shop (Hadi Kiapour et al. 2015) and LookBook (Yoo et al. 2016)."""

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from w2w.errors import UsageError
from w2w.garments.records import Record, files_below, from_xywh, numbers, read_text
from w2w.garments.taxonomy import TOP
from w2w.images.lookbook import read_name
from w2w.images.sniff import SUFFIXES
from w2w.ingest.images import is_web
from w2w.mining.sets.records import Anchor, Classes, Photo, PublicSet, Shop, find, members
from w2w.mining.splits.shares import TEST, TRAIN, split_of

_NUMBER = re.compile(r"[0-9]{1,18}")


class Street2Shop(PublicSet):
    """photos.txt with a URL per photo, and per category train_pairs, test_pairs (a box in a street photo, a product) and
    retrieval (a product's photos). Every photo of the product in the category is correct: retrieval is within a known category.

    ``images``: a folder of downloaded photos, named by number (0000000001.jpg or 1.jpg); without it the URLs are fetched (many
    are dead).
    """

    def __init__(self, root: Path, images: Path | None, classes: Classes):
        self._list = find(root, "photos.txt", "photos/photos.txt", "meta/photos.txt")
        self._json = find(root, "meta/json", "json")
        self._folder, self._classes = images, classes
        if not any(self._json.glob("retrieval_*.json")):
            raise UsageError(f"set.path={root}: no retrieval_*.json in {self._json}")

    @cached_property
    def _uris(self) -> dict[int, str]:
        """Where each photo is: about 200 bytes each."""
        here = {}
        if self._folder:
            files = (f for f in self._folder.iterdir() if f.suffix.lower() in SUFFIXES)
            here = {int(f.stem): str(f) for f in files if _NUMBER.fullmatch(f.stem)}
        uris = {}
        for number, line in enumerate(read_text(self._list).splitlines(), 1):
            photo, comma, url = line.strip().partition(",")
            if not (_NUMBER.fullmatch(photo) and comma and is_web(url)):
                if line.strip():
                    raise UsageError(f"{self._list}, line {number}: {line!r:.60} is not like 0000000001,http://...")
                continue
            missing = str(self._folder / f"{photo}.jpg") if self._folder else url
            uri = here.get(int(photo), missing)
            if uris.setdefault(int(photo), uri) != uri:
                raise UsageError(f"{self._list}, line {number}: photo {photo} came before, with another URL")
        return uris

    def _uri(self, photo: int, where: str) -> str:
        if photo not in self._uris:
            raise UsageError(f"{where}: photo {photo} is not in {self._list}")
        return self._uris[photo]

    def _files(self, kind: str) -> Iterator[tuple[str, str | None, Iterator[Record]]]:
        """(category, our class, records) of each file of a kind."""
        for file in sorted(self._json.glob(f"{kind}_*.json")):
            label = file.stem.removeprefix(f"{kind}_")
            yield label, self._classes.of(label, str(file)), (Record(where, value) for where, value in members(file))

    @cached_property
    def _products(self) -> dict[int, str]:
        """The split of each product that occurs in a pair."""
        splits: dict[int, str] = {}
        for split in (TEST, TRAIN):
            for _, _, records in self._files(f"{split}_pairs"):
                splits |= {record.get("product", int): split for record in records}
        return splits

    @cached_property
    def _shops_of(self) -> dict[tuple[str, int], list[str]]:
        found = defaultdict(dict)  # a dict keeps the order and drops repeats
        for label, _, records in self._files("retrieval"):
            for record in records:
                product, photo = record.get("product", int), record.get("photo", int)
                found[label, product][f"{label}/{product}/{photo}"] = None
        return {key: list(names) for key, names in found.items()}

    def shops(self) -> Iterator[Shop]:
        for label, category, records in self._files("retrieval"):
            seen: set[str] = set()
            for record in records:
                product, photo = record.get("product", int), record.get("photo", int)
                name = f"{label}/{product}/{photo}"
                if name not in seen:
                    seen.add(name)
                    yield Shop(name, str(product), self._uri(photo, record.where), label, category, self._products.get(product))

    def photos(self) -> Iterator[Photo]:
        for split in (TRAIN, TEST):
            found: dict[int, dict[Anchor, None]] = defaultdict(dict)
            where = {}
            for label, category, records in self._files(f"{split}_pairs"):
                for record in records:
                    photo, product = record.get("photo", int), record.get("product", int)
                    box = Record(f"{record.where}: bbox", record.get("bbox", dict))
                    sides = numbers([box.get(side, (int, float)) for side in ("left", "top", "width", "height")], 4, box.where)
                    shops = tuple(self._shops_of.get((label, product), ()))
                    found[photo][Anchor(str(product), shops, label, category, from_xywh(sides))] = None
                    where.setdefault(photo, record.where)
            for photo, anchors in found.items():
                yield Photo(f"{split}/{photo}", self._uri(photo, where[photo]), split, tuple(anchors))


class LookBook(PublicSet):
    """A folder of PID000001_CLEAN1_IID000000.jpg: CLEAN1 is the product's picture, CLEAN0 somebody who wears it.

    It has neither boxes nor labels (all products are tops) nor splits (drawn by the product's hash).
    """

    def __init__(self, root: Path, val_share: float, test_share: float):
        folder = find(root, "data", ".")
        self._folder, self._shares = folder, (val_share, test_share)
        self._files: list[tuple[str, str, str]] = []
        for name in (f.name for f in files_below(folder, (".jpg",), recursive=False)):
            product, clean = read_name(folder / name)
            self._files.append((name, product, "1" if clean else "0"))
        if not self._files:
            raise UsageError(f"set.path={root}: no *.jpg there, nor in data")

    def _split(self, product: str) -> str:
        return split_of(pa.array([f"lookbook/{product}"]), *self._shares)[0]

    @cached_property
    def _shops_of(self) -> dict[str, list[str]]:
        found = defaultdict(list)
        for name, product, clean in self._files:
            if clean == "1":
                found[product].append(name)
        return found

    def shops(self) -> Iterator[Shop]:
        for name, product, clean in self._files:
            if clean == "1":
                yield Shop(name, product, str(self._folder / name), TOP, TOP, self._split(product))

    def photos(self) -> Iterator[Photo]:
        for name, product, clean in self._files:
            if clean == "0":
                anchor = Anchor(product, tuple(self._shops_of.get(product, ())), TOP, TOP, None)
                yield Photo(name, str(self._folder / name), self._split(product), (anchor,))
