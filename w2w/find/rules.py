"""The pure part of find: options, choice of garments in a photo, merging lists of hits, and messages when nothing was found."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from w2w import schema
from w2w.config import nearest
from w2w.errors import UsageError
from w2w.garments.found import Found
from w2w.garments.taxonomy import CATEGORIES, PERSON, class_called
from w2w.index.filters import texts
from w2w.index.spec import check_one_per

Hit = dict  # of schema.NEIGHBOUR
GARMENT, BOTH = "garment", "both"  # what is cut out; PERSON too
_PLURAL = {"bag": "bags", "bottom": "bottoms", "dress": "dresses", "hat": "hats", "outer": "outerwear", "top": "tops"}
NO_GARMENT = "no garment was found"


@dataclass(frozen=True)
class FindOptions:
    """What is looked for, and where."""

    LEAST = {"min_score": -1}

    index: str = "default"
    """Name of the index."""
    k: int = 5
    """Products of each garment; a product counts once, with its best picture, and a picture once, with its first product. On a
    page near-duplicates share a card."""
    one_per: str = "product"
    """What counts once: product, or group, the variants of a product (group_id)."""
    whole: bool = False
    """Search with the whole photo, in all categories, instead of its garments."""
    garment: str = ""
    """Only these garments: classes, or numbers as the page has them, for example top or 1,3."""
    per_class: int = 1
    """Garments of one class in a photo, highest score first: more than one for photos of several people."""
    category: str | None = None
    """Search in this category for every query. Default: each garment in the category of its class."""
    filter: dict[str, Any] = field(default_factory=dict)
    """Only products with these values: brand, price or any attribute, for example {brand: [Fjord, Plain], price: 10..50}."""
    min_score: float | None = None
    """Minimum cosine of a product."""
    weigh: dict[str, float] = field(default_factory=dict)
    """Parts of the vectors (shape, kind, colour, of encoders that have them) that count more or less: {colour: 2} for the same
    colours, {colour: 0} for the same shape in any."""
    text: str = ""
    """Words to search for, alone or together with photos. The encoder needs a text tower: CLIP, SigLIP."""
    text_weight: float = 0.5
    """Weight of the words beside a photo: 0 photo only, 1 words only."""
    cut_out: bool | None = None
    """Also search with each garment as it looks without the background; a product has the best of its scores. Default: with its
    own pixels, where the detector tells them. false: with the crop alone."""
    cut_out_by: str = ""
    """What is left on white: garment (its own pixels, by the detector, so that no other model runs), person (by the segmenter),
    or both, each searched with by itself. --cut_out alone: both."""
    padding: float = 0.0
    """Each side of a garment's crop grows by this share of its box."""

    def __post_init__(self):
        for name in ("k", "per_class"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name}={getattr(self, name)}: must be at least 1")
        for name, low, high in (("text_weight", 0, 1), ("padding", 0, 1), ("min_score", -1, 1)):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UsageError(f"--{name}={value}: a number between {low} and {high}")
        if self.whole and (self.garment or self.cut_out or self.cut_out_by):
            raise UsageError("--whole searches with the unchanged photo: omit --garment and --cut_out")
        if self.cut_out_by not in ("", GARMENT, PERSON, BOTH):
            raise UsageError(f"--cut_out_by={self.cut_out_by}: must be one of {GARMENT}, {PERSON}, {BOTH}")
        if self.cut_out_by and self.cut_out is False:
            raise UsageError(f"--cut_out=false cuts nothing out: omit --cut_out_by={self.cut_out_by}")
        chosen(self.garment)
        check_one_per(self.one_per)
        texts(self.filter)

    def decided(self, tells_pixels: bool) -> "FindOptions":
        """The same with ``cut_out`` and ``cut_out_by`` settled, whose defaults depend on what the detector tells."""
        by = self.cut_out_by or (BOTH if self.cut_out else "")
        if self.cut_out is None and tells_pixels and not self.whole:
            by = by or GARMENT
        return replace(self, cut_out=bool(by), cut_out_by=by)

    @property
    def by_garment(self) -> bool:
        """Whether each garment is cut out by its own pixels, once that is decided."""
        return self.cut_out_by in (GARMENT, BOTH)

    @property
    def by_person(self) -> bool:
        """Whether the person is cut out, which a segmenter does, once that is decided."""
        return self.cut_out_by in (PERSON, BOTH)

    @property
    def wanted(self) -> dict[str, list[str]]:
        """``filter`` as texts, a list for each name."""
        return texts(self.filter)


@dataclass(frozen=True)
class Garment:
    """A garment to search for: its number in the photo, from the top down, class, score, and box xyxy in the photo's pixels.
    The whole photo is number 0, without a class."""

    number: int
    category: str | None
    score: float | None
    box: tuple[float, float, float, float]


def chosen(text: str) -> tuple[set[str], set[int]]:
    """Classes and numbers in ``--garment``. Raises UsageError for anything else."""
    classes, numbers = set[str](), set[int]()
    for word in filter(None, (part.strip() for part in text.split(","))):
        if word.isdecimal():
            numbers.add(int(word))
        elif word in CATEGORIES:
            classes.add(word)
        else:
            meant = class_called(word)
            hint = f" Did you mean {meant!r}?" if meant else nearest(word, CATEGORIES)
            raise UsageError(f"--garment={text}: {word!r} is neither a class nor a number.{hint}")
    return classes, numbers


def garments_of(found: Found, options: FindOptions) -> list[Garment]:
    """The requested garments, numbered from the top of the photo down."""
    kept: list[int] = []
    for i in np.argsort(-found.scores_N, kind="stable").tolist():
        same = [j for j in kept if found.categories[j] == found.categories[i]]
        if found.categories[i] != PERSON and len(same) < options.per_class:
            kept.append(i)
    boxes = found.boxes_N4.tolist()
    kept.sort(key=lambda i: (boxes[i][1] + boxes[i][3], boxes[i][0] + boxes[i][2]))
    classes, numbers = chosen(options.garment)
    garments = [Garment(n, found.categories[i], float(found.scores_N[i]), tuple(boxes[i])) for n, i in enumerate(kept, 1)]
    return [g for g in garments if not options.garment or g.category in classes or g.number in numbers]


def with_words(vectors_ND: np.ndarray, words_D: np.ndarray, weight: float) -> np.ndarray:
    """Unit vectors (N, D): the weighted sum of photo and words, both of length 1."""
    mixed_ND = (1 - weight) * vectors_ND + weight * words_D
    return (mixed_ND / np.maximum(np.linalg.norm(mixed_ND, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def pictures_of(hits: Sequence[Hit]) -> list[Hit]:
    """One hit per picture, in order: of products that share it the first, with the others' ids."""
    first: dict[str, Hit] = {}
    for hit in hits:
        if hit[schema.IMAGE_ID] in first:
            first[hit[schema.IMAGE_ID]][schema.SAME_PICTURE].append(hit[schema.PRODUCT_ID])
        else:
            first[hit[schema.IMAGE_ID]] = hit | {schema.SAME_PICTURE: []}
    return list(first.values())


def best_of(
    lists: Sequence[Sequence[Hit]], k: int, min_score: float | None = None, key: Callable[[str], Hashable] = str
) -> list[Hit]:
    """The k best pictures of several lists of k hits each, every product with its best score; products of one ``key`` count
    once. Exact: any product among the k highest maxima is among the k of the list where it has its maximum."""
    best: dict[Hashable, Hit] = {}
    for hit in (hit for hits in lists for hit in hits):
        one = key(hit[schema.PRODUCT_ID])
        known = best.get(one)
        if known is None or hit[schema.SCORE] > known[schema.SCORE]:
            best[one] = hit
    ordered = sorted(best.values(), key=lambda h: (-h[schema.SCORE], h[schema.PRODUCT_ID], h[schema.IMAGE_ID]))
    kept = [h for h in pictures_of(ordered)[:k] if min_score is None or h[schema.SCORE] >= min_score]
    return [h | {schema.RANK: rank} for rank, h in enumerate(kept, 1)]


def plural(category: str | None) -> str:
    """Of a class, in sentences."""
    return _PLURAL.get(category or "", category or "")


def searched_as(options: FindOptions) -> str:
    """A sentence on the pictures that a garment was searched with, of options ``decided``; none for the photo's part alone."""
    if not options.cut_out:
        return ""
    on_person = "together with the person, cut out of the background"
    cut_out = {GARMENT: "cut out of its background", PERSON: on_person, BOTH: f"alone, and {on_person}"}
    return (
        "Each garment was searched for as it is in the photo and, where its outline is clear, also "
        f"{cut_out[options.cut_out_by]}. The highest similarity counts."
    )


def said_of(category: str | None, hits: Sequence[Hit] | None, options: FindOptions) -> str | None:
    """Why there is no product, as a sentence; None if there are some."""
    if hits:
        return None
    if hits is None:
        return f"you sell no {plural(category)}"
    if options.filter:
        return "no product passes the filter"
    return f"no product scores {options.min_score:g} or more" if options.min_score is not None else "no product was found"
