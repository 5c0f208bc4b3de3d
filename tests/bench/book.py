"""The wardrobe in LookBook's layout for benches: products to learn from, others to choose by and others to state figures of,
with thumbnails of thousands more; and how well photos of people find what they wear among them."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from w2w.images.decode import decode
from w2w.metrics.retrieval import bootstrap
from w2w.models.config import EncoderConfig
from w2w.models.encoder import load_encoder
from w2w.training.encoders.augment import AugmentConfig, augment
from w2w.training.lookbook.pictures import Product, read_products
from w2w.wardrobe.garment import Garment, make_garment
from w2w.wardrobe.lookbook import CATEGORIES, write_lookbook
from w2w.wardrobe.photo import thumbnail

TRAIN, VAL, TEST = "train", "val", "test"
SEEDS = {TRAIN: 21, VAL: 23, TEST: 22}  # three shops without a common product
WORN = 3  # photos of a product that is asked for
PX = 200


@dataclass(frozen=True)
class Asked:
    """Photos and the place of each one's product in the gallery, which begins with the ``num`` products of the photos."""

    photos: list[str]
    products_Q: np.ndarray
    gallery: list[str]
    garments: list[Garment]
    num: int


class Book:
    """Rendered into ``folder`` on first use: about 0.1 s a photo. ``num``: products of each shop; ``worn``: photos of each
    product that is learnt from; the test's gallery has ``num_gallery`` products, that of val its own alone."""

    def __init__(self, folder: Path, num: Mapping[str, int], worn: int, num_gallery: int):
        products = {}
        for name, count in num.items():
            each = worn if name == TRAIN else WORN
            part = folder / f"{name}-{count}-{each}"
            if not (part / "done").exists():
                write_lookbook(part, SEEDS[name], count, each, PX)
                (part / "done").touch()
            products[name] = read_products(part, 1)
        self.products = products
        self.train, self.train_garments = products[TRAIN], shop(SEEDS[TRAIN], num[TRAIN])
        self.asked = {name: self._asked(folder, name, products[name], num_gallery) for name in (VAL, TEST)}

    def _asked(self, folder: Path, name: str, products: Sequence[Product], num_gallery: int) -> Asked:
        garments = shop(SEEDS[name], num_gallery if name == TEST else len(products))
        gallery = [p.clean for p in products]
        (folder / "more").mkdir(exist_ok=True)
        for number, garment in enumerate(garments[len(products) :], len(products)):
            file = folder / "more" / f"{number:06d}.jpg"
            if not file.exists():
                Image.fromarray(np.ascontiguousarray(thumbnail(garment, PX))).save(file, quality=90)
            gallery.append(str(file))
        owners_Q = np.repeat(np.arange(len(products)), [len(p.worn) for p in products])
        return Asked([w for p in products for w in p.worn], owners_Q, gallery, garments, len(products))


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


def mistaken(found: Found, asked: Asked) -> dict[str, object]:
    """Of the photos whose nearest thumbnail of a product asked for is another one's: what the two have in common, and how
    errors are spread."""
    nearest_Q = (found.photos_QD @ found.gallery_GD[: asked.num].T).argmax(1)
    right_Q = nearest_Q == asked.products_Q
    pairs = [(asked.garments[a], asked.garments[b]) for a, b in zip(asked.products_Q, nearest_Q) if a != b]
    traits = ("category", "kind", "pattern", "print", "colour_name")
    shared = {t: round(sum(getattr(a, t) == getattr(b, t) for a, b in pairs) / max(1, len(pairs)), 3) for t in traits}
    shared["all five"] = round(
        sum(all(getattr(a, t) == getattr(b, t) for t in traits) for a, b in pairs) / max(1, len(pairs)), 3
    )
    result: dict[str, object] = {"of errors, shared": shared}
    for trait in ("category", "pattern"):
        values = np.array([getattr(asked.garments[p], trait) for p in asked.products_Q])
        result[f"Recall@1 by {trait}"] = {v: round(float(right_Q[values == v].mean()), 3) for v in sorted(set(values))}
    return result


def over_seeds(runs: Sequence[Mapping]) -> list[dict]:
    """A line a recipe, in the order of their first runs, of runs ``{"recipe", "seed", "cpu_s"?, VAL: recall, TEST: {gallery:
    recall}}``: number of ``seeds``, mean ``val``, of each gallery of the test the (mean, lowest, highest), mean ``cpu_s``;
    ``chosen``: whether its mean val is the best of all lines, the first of equals. Only val chooses.

    Raises ValueError where a recipe was run twice with one seed, or recipes were asked of different galleries.
    """
    by_recipe: dict[str, list[Mapping]] = {}
    for run in runs:
        by_recipe.setdefault(run["recipe"], []).append(run)
    lines = []
    for recipe, mine in by_recipe.items():
        if len({r["seed"] for r in mine}) < len(mine):
            raise ValueError(f"{recipe}: one seed was run twice")
        if any(r[TEST].keys() != runs[0][TEST].keys() for r in mine):
            raise ValueError(f"{recipe}: was asked of other galleries than {runs[0]['recipe']}")
        values = {size: [r[TEST][size] for r in mine] for size in mine[0][TEST]}
        spent = [r["cpu_s"] for r in mine if "cpu_s" in r]
        lines.append(
            {
                "recipe": recipe,
                "seeds": len(mine),
                "cpu_s": sum(spent) / len(spent) if spent else 0,
                VAL: float(np.mean([r[VAL] for r in mine])),
                TEST: {size: (float(np.mean(v)), min(v), max(v)) for size, v in values.items()},
            }
        )
    best = max(range(len(lines)), key=lambda i: lines[i][VAL], default=None)
    return [line | {"chosen": i == best} for i, line in enumerate(lines)]
