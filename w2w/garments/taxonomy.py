"""Seven classes, and how the labels of every data set and published detector map to them: always by name, never by number.

A label becomes a class, an ignore region (it may be one of ours: detecting it is neither right nor wrong), or nothing. Sources:
the categories that each data set's annotation files list; `yainage90/fashion-visual-search` @c8ae4bb for the choice of 7 (its
label order differs between its own models, so that numbers are not interchangeable).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from w2w.classes import BAG, BOTTOM, CATEGORIES, DRESS, HAT, OUTER, SHOES, TOP
from w2w.classes import ETC as ETC
from w2w.config import nearest
from w2w.errors import UsageError

PERSON = "person"  # label of general detectors: not a garment, but a person's box
IGNORE = "ignore"  # a region in which a detection counts neither as right nor as wrong

_SAME = {c: c for c in CATEGORIES}

_MODANET = {
    "bag": BAG,
    "belt": None,
    "boots": SHOES,
    "footwear": SHOES,
    "outer": OUTER,
    "dress": DRESS,
    "sunglasses": None,
    "pants": BOTTOM,
    "top": TOP,
    "shorts": BOTTOM,
    "skirt": BOTTOM,
    "headwear": HAT,
    "scarf/tie": None,
    "scarf & tie": None,  # as the README spells it
}

_FASHIONPEDIA_PARTS = (
    "hood",
    "collar",
    "lapel",
    "epaulette",
    "sleeve",
    "pocket",
    "neckline",
    "buckle",
    "zipper",
    "applique",
    "bead",
    "bow",
    "flower",
    "fringe",
    "ribbon",
    "rivet",
    "ruffle",
    "sequin",
    "tassel",
)
_FASHIONPEDIA_EXTRAS = (
    "glasses",
    "headband, head covering, hair accessory",
    "tie",
    "glove",
    "watch",
    "belt",
    "leg warmer",
    "sock",
    "scarf",
    "umbrella",
)
_FASHIONPEDIA = {
    "shirt, blouse": TOP,
    "top, t-shirt, sweatshirt": TOP,
    "sweater": TOP,
    "cardigan": OUTER,
    "jacket": OUTER,
    "vest": OUTER,
    "pants": BOTTOM,
    "shorts": BOTTOM,
    "skirt": BOTTOM,
    "coat": OUTER,
    "dress": DRESS,
    "jumpsuit": IGNORE,
    "cape": OUTER,
    "hat": HAT,
    "tights, stockings": IGNORE,
    "shoe": SHOES,
    "bag, wallet": BAG,
    **dict.fromkeys(_FASHIONPEDIA_EXTRAS + _FASHIONPEDIA_PARTS),
}

_DEEPFASHION2 = {
    "short sleeve top": TOP,
    "long sleeve top": TOP,
    "short sleeve outwear": OUTER,
    "long sleeve outwear": OUTER,
    "vest": TOP,
    "sling": TOP,
    "shorts": BOTTOM,
    "trousers": BOTTOM,
    "skirt": BOTTOM,
    "short sleeve dress": DRESS,
    "long sleeve dress": DRESS,
    "vest dress": DRESS,
    "sling dress": DRESS,
}

_K_FASHION = {"아우터": OUTER, "하의": BOTTOM, "원피스": DRESS, "상의": TOP}

_STREET2SHOP = {
    "bags": BAG,
    "dresses": DRESS,
    "footwear": SHOES,
    "hats": HAT,
    "leggings": BOTTOM,
    "pants": BOTTOM,
    "skirts": BOTTOM,
    "outerwear": OUTER,
    "tops": TOP,
    "belts": None,
    "eyewear": None,
}

_POLYVORE = {
    "bags": BAG,
    "bottoms": BOTTOM,
    "all-body": DRESS,
    "hats": HAT,
    "outerwear": OUTER,
    "shoes": SHOES,
    "tops": TOP,
    **dict.fromkeys(("jewellery", "sunglasses", "accessories", "scarves")),
}

# DeepFashion (Liu et al. 2016): the folders of its two retrieval benchmarks. Ambiguous labels (denim or suit trousers and
# jackets, summer wear) are resolved by each photo's clothes type: upper body, lower body, full body.
_IN_SHOP = {
    "blouses_shirts": TOP,
    "cardigans": OUTER,
    "denim": None,
    "dresses": DRESS,
    "graphic_tees": TOP,
    "jackets_coats": OUTER,
    "jackets_vests": OUTER,
    "leggings": BOTTOM,
    "pants": BOTTOM,
    "rompers_jumpsuits": IGNORE,
    "shirts_polos": TOP,
    "shorts": BOTTOM,
    "skirts": BOTTOM,
    "suiting": None,
    "sweaters": TOP,
    "sweatshirts_hoodies": TOP,
    "tees_tanks": TOP,
}
_CONSUMER_TO_SHOP = {
    "blouse": TOP,
    "chiffon": TOP,
    "coat": OUTER,
    "dress": DRESS,
    "jeans": BOTTOM,
    "lace_dress": DRESS,
    "lace_shirt": TOP,
    "leggings": BOTTOM,
    "pants": BOTTOM,
    "polo_shirt": TOP,
    "skirt": BOTTOM,
    "sleeveless_dress": DRESS,
    "summer_wear": None,
    "suspenders_skirt": DRESS,
    "t_shirt": TOP,
    "tank_top": TOP,
}

# Clothing Co-Parsing (Yang, Luo, Lin 2014): labels whose class is not in the file's own supercategory
_CCP_IGNORED = ("accessories", "bodysuit", "intimate", "romper", "scarf", "stockings", "suit", "swimwear", "tights", "belt")

# Of COCO's 80 classes, the clothes and the person; the other 75 are ignored.
_COCO = {PERSON: PERSON, "backpack": BAG, "handbag": BAG, "suitcase": None, "tie": None, "umbrella": None}

# the vocabulary of each data set, and of detectors trained on it
VOCABULARIES: dict[str, Mapping[str, str | None]] = {
    "w2w": _SAME,
    "modanet": _MODANET,
    "fashionpedia": _FASHIONPEDIA,
    "deepfashion2": _DEEPFASHION2,
    "k-fashion": _K_FASHION,
    "street2shop": _STREET2SHOP,
    "polyvore": _POLYVORE,
    "in-shop": _IN_SHOP,
    "consumer-to-shop": _CONSUMER_TO_SHOP,
    "coco": _COCO,
}
_OPEN = frozenset({"coco"})  # vocabularies of which only these labels concern us


# nouns that shops use, in the singular
_NOUNS = {
    BAG: "bag handbag backpack rucksack clutch tote purse satchel duffel",
    BOTTOM: "bottom bottomwear pant trouser jean short skirt legging jegging capri chino churidar jogger culotte slack",
    DRESS: "dress gown sundress",
    HAT: "hat cap beanie headwear beret fedora",
    OUTER: "outer outerwear jacket coat blazer cardigan waistcoat parka trenchcoat anorak windbreaker gilet raincoat overcoat",
    SHOES: "shoe footwear sneaker trainer boot bootie heel flat sandal flop flipflop loafer pump slipper mule clog espadrille",
    TOP: "top topwear tshirt tee shirt blouse sweatshirt sweater pullover jumper hoodie polo kurta tunic tank camisole vest",
}
_CLASS_OF = {noun: c for c, nouns in _NOUNS.items() for noun in nouns.split()}


def class_called(text: str) -> str | None:
    """The class of a shop's own category name, by its last known noun: "Men's Casual Shoes" are shoes, a "shirt dress" is a
    dress. None if no word is known."""
    for word in reversed(re.findall(r"[a-z]+", re.sub(r"\bt[ -]?shirt", "tshirt", text.lower()))):
        for noun in (word, word.removesuffix("s"), word.removesuffix("es")):
            if noun in _CLASS_OF:
                return _CLASS_OF[noun]
    return None


@dataclass(frozen=True)
class TaxonomyConfig:
    """How labels become our seven classes."""

    vocabulary: str = "auto"
    """w2w, modanet, fashionpedia, deepfashion2, k-fashion, street2shop, polyvore, in-shop, consumer-to-shop, coco, or auto: the
    one with the labels."""
    classes: dict[str, str] | None = None
    """Further labels: label -> one of the seven classes, person, ignore or drop. They override the vocabulary."""
    seed: bool = False
    """The mapping of the published detector: sweater and jumpsuit dropped, tights as bottom; photos with three shoes left
    out."""
    jumpsuit: str = IGNORE
    """Fashionpedia's jumpsuit: ignore, dress or drop."""
    tights: str = IGNORE
    """Fashionpedia's tights and stockings: ignore (often under a skirt, which is the bottom), bottom or drop."""

    def __post_init__(self):
        if self.vocabulary not in ("auto", *VOCABULARIES):
            raise UsageError(f"vocabulary={self.vocabulary}: unknown.{nearest(self.vocabulary, ['auto', *VOCABULARIES])}")
        for option, allowed in (("jumpsuit", (IGNORE, DRESS, "drop")), ("tights", (IGNORE, BOTTOM, "drop"))):
            if getattr(self, option) not in allowed:
                raise UsageError(f"{option}={getattr(self, option)}: must be one of {', '.join(allowed)}")
        for label, target in (self.classes or {}).items():
            if target not in (*CATEGORIES, PERSON, IGNORE, "drop"):
                raise UsageError(f"classes.{label}={target}: must be one of {', '.join((*CATEGORIES, PERSON, IGNORE, 'drop'))}")


def mapping_of(
    labels: Iterable[str], config: TaxonomyConfig = TaxonomyConfig(), where: str = "the model"
) -> dict[str, str | None]:
    """Label -> one of CATEGORIES, PERSON, IGNORE, or None for nothing, for every label that ``where`` lists.

    Compared ignoring case and surrounding blanks. ``auto`` takes the smallest vocabulary that has all labels; COCO's counts if
    it has a person. Raises UsageError naming the unknown labels.
    """
    labels = list(dict.fromkeys(labels))
    own = {_plain(label): None if target == "drop" else target for label, target in (config.classes or {}).items()}
    asked = [label for label in labels if _plain(label) not in own]
    name = _fitting(asked) if config.vocabulary == "auto" else config.vocabulary
    known = _words(name, config) if name else {}
    if name in _OPEN:
        known = dict.fromkeys(map(_plain, asked)) | {k: v for k, v in known.items() if k in set(map(_plain, asked))}
    known |= own
    strange = [label for label in labels if _plain(label) not in known]
    if strange:
        nowhere = [label for label in strange if not any(_plain(label) in words for words in VOCABULARIES.values())]
        strange = nowhere or strange
        shown = ", ".join(map(repr, strange[:6])) + (", ..." if len(strange) > 6 else "")
        raise UsageError(
            f"{where} has labels that no one vocabulary has: {shown}. Say what they are with taxonomy.classes: "
            f"{{{strange[0]!r}: {TOP}, ...}} ({', '.join((*CATEGORIES, PERSON, IGNORE, 'drop'))})"
        )
    return {label: known[_plain(label)] for label in labels}


def street_target(label: str, supercategory: str) -> str | None:
    """Clothing Co-Parsing: the file's supercategory is the class; possible clothes without one are an ignore region."""
    return supercategory or (IGNORE if label in _CCP_IGNORED else None)


def _plain(label: str) -> str:
    return label.strip().lower()


def _fitting(labels: list[str]) -> str | None:
    wanted = set(map(_plain, labels))
    closed = [(len(words), name) for name, words in VOCABULARIES.items() if name not in _OPEN and wanted <= set(words)]
    if closed:
        return min(closed)[1]
    return "coco" if PERSON in wanted else None


def _words(name: str, config: TaxonomyConfig) -> dict[str, str | None]:
    words = dict(VOCABULARIES[name])
    if name == "fashionpedia":
        chosen = {"jumpsuit": config.jumpsuit, "tights, stockings": config.tights}
        if config.seed:
            chosen = {"sweater": "drop", "jumpsuit": "drop", "tights, stockings": BOTTOM}
        words |= {label: None if target == "drop" else target for label, target in chosen.items()}
    return words
