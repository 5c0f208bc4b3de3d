"""K-Fashion (AI Hub): photos of outfits, with a box per garment and the outfit's style."""

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from w2w import ids
from w2w.garments import kfashion
from w2w.garments.kfashion import KPhoto
from w2w.mining.sets.records import Classes, Item, Outfit, Photo, PublicSet, Shop
from w2w.mining.splits.shares import split_of


class KFashion(PublicSet):
    """Without product ids: every garment's box is a picture of its own, with the outfit's style as an attribute, and two or
    more garments (slots) of one photo are a worn outfit. Splits are drawn by photo."""

    def __init__(self, root: Path, images: Path | None, classes: Classes, shares: tuple[float, float]):
        self._root, self._images, self._classes, self._shares = root, images, classes, shares

    def _photos(self) -> Iterator[tuple[KPhoto, str, list[Shop]]]:
        """Each photo with its split and its garments of our classes."""
        for photo in kfashion.read(self._root, self._images):
            split = split_of(pa.array([photo.name], pa.string()), *self._shares)[0]
            style = (("style", ", ".join(photo.styles)),) if photo.styles else ()
            counts: Counter[str] = Counter()
            shops = []
            for label, box in photo.boxes:
                if category := self._classes.of(label, photo.where):
                    name = ids.numbered(f"{photo.name}/{category}", counts)
                    shops.append(Shop(name, None, photo.image, label, category, split, box, notes=style))
            yield photo, split, shops

    def digest(self) -> str:
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return ids.digest_rows([s.name, s.category, s.split] for _, _, shops in self._photos() for s in shops)

    def shops(self) -> Iterator[Shop]:
        for _, _, shops in self._photos():
            yield from shops

    def photos(self) -> Iterator[Photo]:
        for photo, split, _ in self._photos():
            yield Photo(photo.name, photo.image, split, ())

    def outfits(self) -> Iterator[Outfit]:
        for photo, split, shops in self._photos():
            first = {shop.category: shop for shop in reversed(shops) if shop.category}
            if len(first) > 1:
                items = tuple(Item(first[c].name, c, c) for c in sorted(first))
                yield Outfit(photo.name, items, split)
