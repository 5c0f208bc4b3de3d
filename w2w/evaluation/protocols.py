"""The protocols of `w2w evaluate`: queries, gallery, what counts as a hit, ranks, and source.

A protocol is a constant: figures under one name are comparable. The gallery is every product of the split that `w2w convert`
has read, including those that answer no query.
"""

from dataclasses import dataclass
from typing import TypeAlias

from w2w import schema
from w2w.config import nearest
from w2w.errors import UsageError
from w2w.mining.sets.rows import PRODUCT
from w2w.mining.splits.shares import TEST, VAL

LABEL, PARTITION = "label", "partition"  # attributes of a set's products
QUERY = "query"  # a partition: query pictures, not part of the gallery
CROPS, PHOTOS, PRODUCTS = "crops", "photos", "products"


@dataclass(frozen=True)
class Hit:
    """A gallery picture is a hit if all ``same`` are known and equal in query and picture."""

    metric: str
    same: tuple[str, ...]
    ks: tuple[int, ...]


@dataclass(frozen=True)
class Retrieval:
    """Pictures ranked by cosine, exactly."""

    says: str
    source: str
    set: str  # a format of `w2w convert`
    hits: tuple[Hit, ...]
    split: str = TEST
    queries: str = CROPS
    """CROPS: the annotated garments of table `pairs`; PHOTOS: the whole photos that they are on; PRODUCTS: the set's pictures
    of partition QUERY."""
    within: str | None = None
    """The attribute that a query and its gallery share; pictures without it are in every gallery."""
    all_splits: bool = False
    """Whether products of every split are the gallery."""
    clusters: str = PRODUCT
    """Queries that share it are resampled together."""
    macro: bool = False
    """Also the mean over the groups."""

    @property
    def most(self) -> int:
        """The last rank considered."""
        return max(k for hit in self.hits for k in hit.ks)


@dataclass(frozen=True)
class Looks:
    """Experiments 1 and 2 of "Clothing Recommendation" on the products of LookBook."""

    says: str
    source: str
    galleries: tuple[int, ...]
    """Products to choose from; none: whether a pair is the same."""
    set: str = "lookbook"
    split: str = TEST
    least_worn: int = 10


@dataclass(frozen=True)
class OutfitQuestions:
    """Fill in the blank and compatibility: from table `questions`, or, of a store's own outfits, made of table `outfits`."""

    says: str
    source: str
    variant: str
    set: str = "polyvore"
    split: str = TEST


@dataclass(frozen=True)
class Attributes:
    """What `w2w tag` says of products, against what the store's feeds say."""

    says: str
    source: str
    set: str = schema.OWN
    split: str = TEST


AProtocol: TypeAlias = Retrieval | Looks | OutfitQuestions | Attributes


def _same_product(*ks: int) -> tuple[Hit, ...]:
    return (Hit("recall", (PRODUCT,), ks),)


_POLYVORE = (
    "Fill in the blank: the share of questions whose right answer scores best among those given, ties counting as guesses. "
    "Compatibility: the area under the ROC curve."
)
PROTOCOLS: dict[str, AProtocol] = {
    "street2shop": Retrieval(
        "A garment's box in a street photo is looked for among all shop photos of its own category, as the set calls it. A hit "
        "shows the same product.",
        "Hadi Kiapour et al. 2015, Where to Buy It, section 6: top-20 item retrieval accuracy",
        "street2shop",
        _same_product(1, 5, 10, 20),
        within=LABEL,
        all_splits=True,
        macro=True,
    ),
    "deepfashion2": Retrieval(
        "A customer's garment, by its true box, is looked for among all garments of the validation set's shop photos, of every "
        "category. A hit has its pair and style.",
        "Ge et al. 2019, DeepFashion2; deepfashion2_retrieval_test.py of its repository, by ground truth boxes",
        "deepfashion2",
        _same_product(1, 5, 10, 15, 20),
        split=VAL,
    ),
    "in-shop": Retrieval(
        "Whole pictures of the query partition are looked for among those of the gallery partition. A hit shows the same item.",
        "Liu et al. 2016, DeepFashion, section 5, in-shop clothes retrieval; the ranks in common use (Yuan et al. 2017, HDC)",
        "in-shop",
        _same_product(1, 10, 20, 30),
        queries=PHOTOS,
    ),
    "consumer-to-shop": Retrieval(
        "A customer's garment, by its box, is looked for among all shop pictures of the test split. A hit shows the same item.",
        "Liu et al. 2016, DeepFashion, section 5, consumer-to-shop: top-20 retrieval accuracy",
        "consumer-to-shop",
        _same_product(1, 10, 20, 50),
    ),
    "lookbench": Retrieval(
        "A query is looked for in its subset's gallery and the noise. Coarse: the same category; fine: the same main attribute "
        "too, as the published figures count (its text speaks of all attributes). Overall: every query counts the same.",
        "LookBench, arXiv 2601.14706, tables 3, 7 and 8",
        "lookbench",
        (
            Hit("fine recall", (LABEL, "main_attribute"), (1,)),
            Hit("coarse recall", (LABEL,), (1,)),
            Hit("fine nDCG", (LABEL, "main_attribute"), (5,)),
        ),
        queries=PRODUCTS,
        within="subset",
    ),
    "wardrobe": Retrieval(
        "A garment of the synthetic shop's street posts, by its true box, is looked for among all products of its class. A hit "
        "shows the same product.",
        "w2w/wardrobe/shop.py",
        "wardrobe",
        _same_product(1, 5, 10, 20),
        within=schema.CATEGORY,
        macro=True,
    ),
    "own": Retrieval(
        "The store's own test anchors are looked for among all products of the test split, by the picture of each. "
        "A hit shows the product that is worn.",
        "tables `pairs`, `splits` and `representatives` of the store",
        schema.OWN,
        _same_product(1, 5, 10, 20),
    ),
    "tags": Attributes(
        "Of the active products whose feed has an attribute of the same name, with a value that the tagger knows: how often it "
        "is sure of one (coverage), and how often that is the feed's (precision), for all and by attribute. One that learnt "
        "from this store is asked about the products that it held out.",
        "tables `products` and `attributes` of the store",
    ),
    "lookbook-1": Looks(
        "Ten right and ten wrong pairs of product and photo, of each product with ten photos: is it the one that is worn? A "
        "network of 'w2w train siamese' says so from .5 on; an encoder from the cosine that is best on the validation split.",
        'R. R. Premkumar, "Clothing Recommendation", section 3.1, figure 4',
        (),
    ),
    "lookbook-2": Looks(
        "One photo each of N products with ten photos: is its product among the k that score best? Ties count as guesses.",
        'R. R. Premkumar, "Clothing Recommendation", section 3.2, figure 6',
        (50, 300),
    ),
    "own-outfits": OutfitQuestions(
        "The store's own worn test outfits. "
        + _POLYVORE
        + " Of four answers, the wrong ones are of other outfits; worn outfits "
        "are told from modified ones.",
        "table `outfits` of the store",
        "",
        schema.OWN,
    ),
    "polyvore-nondisjoint": OutfitQuestions(
        _POLYVORE, "Vasileva et al. 2018, section 5; fill in the blank as Han et al. 2017", "nondisjoint"
    ),
    "polyvore-disjoint": OutfitQuestions(
        _POLYVORE, "Vasileva et al. 2018, section 5; fill in the blank as Han et al. 2017", "disjoint"
    ),
}


def protocol_of(name: str) -> AProtocol:
    """Raises UsageError for an unknown name."""
    if name not in PROTOCOLS:
        raise UsageError(f"--protocol={name}: unknown.{nearest(name, list(PROTOCOLS))}")
    return PROTOCOLS[name]


def set_of(protocol: AProtocol) -> str:
    """The default source name that `w2w convert` gives the set's pairs and questions."""
    return f"{protocol.set}-{protocol.variant}" if isinstance(protocol, OutfitQuestions) and protocol.variant else protocol.set


def convert_command(protocol: AProtocol) -> str:
    """The command that reads the set, or makes it."""
    if protocol.set == schema.OWN:
        return {OutfitQuestions: "w2w compose", Attributes: "w2w tag"}.get(type(protocol), "w2w mine")
    variant = f" --set.variant={protocol.variant}" if isinstance(protocol, OutfitQuestions) else ""
    return f"w2w convert {protocol.set} FOLDER{variant}"
