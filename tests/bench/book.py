"""The wardrobe in LookBook's layout for benches: train products, test products, thumbnails of thousands of others; and how well
photos of people find what they wear among them."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from w2w.images.decode import decode
from w2w.metrics.retrieval import bootstrap
from w2w.models.encoder import EncoderConfig, load_encoder
from w2w.training.encoders.augment import AugmentConfig, augment
from w2w.training.lookbook.pictures import read_products
from w2w.wardrobe.garment import Garment, make_garment
from w2w.wardrobe.lookbook import CATEGORIES, write_lookbook
from w2w.wardrobe.photo import thumbnail

SEEDS = {"train": 21, "test": 22}  # two shops: no product is in both
WORN = {"train": 2, "test": 3}  # photos of a product
PX = 200


class Book:
    """Rendered into ``folder`` on first use: about 0.1 s a photo. The gallery begins with the test products, in their order."""

    def __init__(self, folder: Path, num_train: int, num_test: int, num_gallery: int):
        for name, count in (("train", num_train), ("test", num_test)):
            if not (folder / name / "done").exists():
                write_lookbook(folder / name, SEEDS[name], count, WORN[name], PX)
                (folder / name / "done").touch()
        self.train, self.test = (read_products(folder / name, 1) for name in ("train", "test"))
        self.train_garments, self.garments = shop(SEEDS["train"], num_train), shop(SEEDS["test"], num_gallery)
        self.photos = [w for p in self.test for w in p.worn]
        self.products_Q = np.repeat(np.arange(num_test), [len(p.worn) for p in self.test])
        self.gallery = [p.clean for p in self.test]
        (folder / "more").mkdir(exist_ok=True)
        for number, garment in enumerate(self.garments[num_test:], num_test):
            file = folder / "more" / f"{number:06d}.jpg"
            if not file.exists():
                Image.fromarray(np.ascontiguousarray(thumbnail(garment, PX))).save(file, quality=90)
            self.gallery.append(str(file))


@dataclass
class Found:
    """What a recipe makes of the test photos and the gallery, unit vectors, and what is to be said beside the figures."""

    photos_QD: np.ndarray
    gallery_GD: np.ndarray
    says: dict = field(default_factory=dict)


def shop(seed: int, count: int) -> list[Garment]:
    """The first ``count`` products of the kinds that LookBook has, in the order in which write_lookbook numbers them."""
    found, number = [], 0
    while len(found) < count:
        garment = make_garment(seed, number)
        found += [garment] if garment.category in CATEGORIES else []
        number += 1
    return found


def vectors(config: EncoderConfig, files: Sequence[str], copy: int = 0, clean: Set[str] = frozenset()) -> np.ndarray:
    """float32 (N, D), of length 1. ``copy``: of pictures augmented in that manner; those in ``clean`` are not worn."""
    encoder = load_encoder(config)

    def seen(number: int, file: str) -> np.ndarray:
        image = decode(Path(file).read_bytes())
        rng = np.random.default_rng([copy, number])
        return encoder.prepare(augment(image, AugmentConfig(), rng, file not in clean) if copy else image)

    numbered = list(enumerate(files))
    parts = (np.stack([seen(*one) for one in numbered[start : start + 64]]) for start in range(0, len(files), 64))
    return np.concatenate([encoder.encode(part) for part in parts])


def ranks_of(found: Found, products_Q: np.ndarray, size: int, num_test: int) -> np.ndarray:
    """How many products of a gallery of ``size`` score better than the one that is worn, (Q,); those that tie count half.

    Galleries up to the number of test products are parts of those, one after the other, each with its own photos.
    """
    ranks_Q = np.empty(len(products_Q))
    for start in range(0, num_test, size):
        mine = np.flatnonzero((products_Q >= start) & (products_Q < start + size))
        gallery_GD = found.gallery_GD[start : start + size] if size <= num_test else found.gallery_GD[:size]
        scores = found.photos_QD[mine] @ gallery_GD.T
        own_Q = scores[np.arange(len(mine)), products_Q[mine] - start]
        before, ties = (scores > own_Q[:, None]).sum(1), (scores == own_Q[:, None]).sum(1) - 1
        ranks_Q[mine] = before + ties / 2
    return ranks_Q


def recall(ranks_Q: np.ndarray, products_Q: np.ndarray, k: int, seed: int = 0) -> list[float]:
    """[share of photos whose product is among the first k, and its 95 % interval], products drawn, not photos: the photos of
    one are alike."""
    hits_Q = (ranks_Q < k).astype(float)
    means_P = np.bincount(products_Q, hits_Q) / np.bincount(products_Q)
    low, high = bootstrap(means_P, np.random.default_rng(seed))
    return [round(float(v), 4) for v in (means_P.mean(), low, high)]


def mistaken(found: Found, book: Book, size: int = 300) -> dict[str, object]:
    """Of the photos whose nearest thumbnail is another product's: what the two have in common, and how errors are spread."""
    nearest_Q = (found.photos_QD @ found.gallery_GD[:size].T).argmax(1)
    right_Q = nearest_Q == book.products_Q
    pairs = [(book.garments[a], book.garments[b]) for a, b in zip(book.products_Q, nearest_Q) if a != b]
    traits = ("category", "kind", "pattern", "print", "colour_name")
    shared = {t: round(sum(getattr(a, t) == getattr(b, t) for a, b in pairs) / max(1, len(pairs)), 3) for t in traits}
    shared["all five"] = round(
        sum(all(getattr(a, t) == getattr(b, t) for t in traits) for a, b in pairs) / max(1, len(pairs)), 3
    )
    result: dict[str, object] = {"of errors, shared": shared}
    for trait in ("category", "pattern"):
        values = np.array([getattr(book.garments[p], trait) for p in book.products_Q])
        result[f"Recall@1 by {trait}"] = {v: round(float(right_Q[values == v].mean()), 3) for v in sorted(set(values))}
    return result
