"""Public data sets of pairs and outfits: the supported formats, and how to open one."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from w2w import plugins, schema, storage
from w2w.config import check_name
from w2w.errors import UsageError
from w2w.mining.sets.benches import LookBench, Wardrobe
from w2w.mining.sets.deepfashion import ConsumerToShop, DeepFashion2, InShop
from w2w.mining.sets.kfashion import KFashion
from w2w.mining.sets.links import Links
from w2w.mining.sets.lists import PairList
from w2w.mining.sets.polyvore import VARIANTS, Polyvore
from w2w.mining.sets.posts import OwnPosts
from w2w.mining.sets.records import Classes, PublicSet
from w2w.mining.sets.street import LookBook, Street2Shop


@dataclass(frozen=True)
class SetConfig:
    """Which public data set is read, and how."""

    format: str = ""
    """street2shop, in-shop and consumer-to-shop (of DeepFashion), deepfashion2, k-fashion, lookbench, lookbook, polyvore,
    wardrobe, pairs (a CSV or folders of pairs or triplets), links (a CSV of what your own products are sold with), posts (your
    own photos of people, a CSV, JSON lines or a folder), or module:attribute, a set of your own."""
    path: str = ""
    """Its folder, as it is published; of pairs and posts also a CSV, of links the CSV."""
    images: str | None = None
    """Folder of its pictures. Default: where the set has them; street2shop has only URLs, which are asked."""
    source: str | None = None
    """Name of the set in the tables. Default: the format, for polyvore with the variant."""
    variant: str = "nondisjoint"
    """Of polyvore: nondisjoint (its splits share items, by design) or disjoint."""
    classes: dict[str, str] | None = None
    """The set's labels -> one of the seven classes or drop, where they are to be others than by default."""
    columns: dict[str, str] | None = None
    """Of pairs: anchor, positive, negative, category, product, split -> what the CSV calls it. Of links: product,
    linked, kind. Of posts: photo, post, products, links, url, style."""
    category: str | None = None
    """Of pairs: the class of those whose list says none."""
    key: str | None = None
    """Of links and posts: the attribute that they name products by, for example sku. Default: product_id."""
    kinds: list[str] | None = None
    """Of links: the kinds that say what goes with what. Default: related and crosssell; an upsell is bought instead."""
    val_share: float = 0.05
    """Of the products of a set that has no split (k-fashion, lookbook, pairs): how many go to val, by hash."""
    test_share: float = 0.1
    """Of the same, to test."""

    def __post_init__(self):
        if self.format:
            plugins.check("set", self.format, SETS)
        if self.variant not in VARIANTS:
            raise UsageError(f"set.variant={self.variant}: must be {' or '.join(VARIANTS)}")
        if self.source is not None:
            check_name(self.source, "set.source", 64)
        for option in ("columns", "category"):
            formats = ("pairs", "links", "posts")[: 3 if option == "columns" else 1]
            if getattr(self, option) is not None and self.format not in formats:
                raise UsageError(f"set.{option}: is of set.format={' or '.join(formats)}")
        if self.key is not None and self.format not in ("links", "posts"):
            raise UsageError("set.key: is of set.format=links or posts")
        if self.kinds is not None and self.format != "links":
            raise UsageError("set.kinds: is of set.format=links")
        if self.catalog == schema.OWN:
            raise UsageError(f"set.source={self.catalog}: that is what the store's own pairs and outfits are called")
        if min(self.val_share, self.test_share) < 0 or self.val_share + self.test_share > 1:
            raise UsageError(f"set.val_share={self.val_share}, set.test_share={self.test_share}: shares that sum to at most 1")

    @property
    def catalog(self) -> str:
        """Prefix of the ids of its products and photos, the same for all variants."""
        return self.source or plugins.short(self.format)

    @property
    def name(self) -> str:
        """The source of its pairs and outfits."""
        return f"{self.catalog}-{self.variant}" if self.format == "polyvore" and not self.source else self.catalog


def open_set(config: SetConfig) -> PublicSet:
    """Raises UsageError if the format is not given, or its files are missing."""
    if not config.format:
        raise UsageError(f"set.format: name the data set: {', '.join(SETS)}")
    root = Path(storage.absolute(config.path))
    if not config.path or not (os.path.isdir(root) or os.path.isfile(root)):  # Path.is_dir raises for a name that is too long
        raise UsageError(f"set.path={config.path}: no such folder")
    images = Path(storage.absolute(config.images)) if config.images else None
    if images and not os.path.isdir(images):
        raise UsageError(f"set.images={config.images}: no such folder")
    return plugins.find("set", config.format, SETS)(root, images, config)


def _classes(config: SetConfig) -> Classes:
    return Classes(config.format, config.classes)


# name -> opens the set's folder, given also the folder of its pictures if that is another one
SETS: dict[str, Callable[[Path, Path | None, SetConfig], PublicSet]] = {
    "street2shop": lambda root, images, c: Street2Shop(root, images, _classes(c)),
    "in-shop": lambda root, images, c: InShop(root, images, _classes(c)),
    "consumer-to-shop": lambda root, images, c: ConsumerToShop(root, images, _classes(c)),
    "deepfashion2": lambda root, images, c: DeepFashion2(root, images, _classes(c)),
    "k-fashion": lambda root, images, c: KFashion(root, images, _classes(c), (c.val_share, c.test_share)),
    "links": lambda root, images, c: Links(root, c.columns, c.kinds),
    "lookbench": lambda root, images, c: LookBench(root, c.classes),
    "lookbook": lambda root, images, c: LookBook(images or root, c.val_share, c.test_share),
    "pairs": lambda root, images, c: PairList(root, images, c.columns, c.category, (c.val_share, c.test_share)),
    "posts": lambda root, images, c: OwnPosts(root, images, c.columns),
    "polyvore": lambda root, images, c: Polyvore(root, images, _classes(c), c.variant),
    "wardrobe": lambda root, images, c: Wardrobe(root),
}
