"""Anchor-positive pairs: matching the garments in a post's photo with the products that the post tags.

The unit is a tag, a product named by a post. Every tag becomes a pair or a reject with a sentence. Rules and their published
values: `yainage90/fashion-visual-search` (crawl of KREAM and OnTheLook), which keeps no product ids; here they are kept.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from w2w import ids, schema
from w2w.errors import RejectCode, UsageError
from w2w.garments import boxes
from w2w.garments.taxonomy import CATEGORIES, SHOES
from w2w.mining.tags import PHOTO, PRODUCT_KEY, judged

ALLOWED_BOXES = {SHOES: 2}  # of a class in a photo of one person; other classes once
SINGLE, BY_SIMILARITY, BY_JUDGEMENT = "single", "similarity", "judged"  # values of `rule`

# A garment that may be a product, with everything that similarity needs to decide
NUM_BOXES, NUM_PRODUCTS = "num_boxes", "num_products"
COSINE, LIKENESS, SHARE = "cosine", "likeness", "share"


@dataclass(frozen=True)
class PairRules:
    """Which tags become pairs."""

    least_score: float = 0.0
    """Least score of a detection. Default: what the detector itself calls found (0.3 for w2w-lite0); published: 0.5."""
    sure_score: float = 0.0
    """A lower-scoring garment counts only if a tag expects one: if more products of its class are tagged than surer garments
    were found. For detectors that were asked for unsure finds (`--detector.threshold`)."""
    max_iou: float = 0.75
    """Of two garments that overlap more than this, the lower-scoring one is dropped."""
    nms_per_class: bool = False
    """Only garments of the same class suppress each other, so that a coat hides no top. By default all do, as published."""
    thumbnail_px: int = 200
    """Minimum length of the shorter side of a product's representative image."""
    whole_post: bool = True
    """Without a gate: a photo with more than two shoes, or with any other class twice, gives no pair at all, as published;
    false: none of that class."""

    def __post_init__(self):
        for name in ("least_score", "sure_score", "max_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"rules.{name}={getattr(self, name)}: a number between 0 and 1")
        if self.thumbnail_px < 1:
            raise UsageError(f"rules.thumbnail_px={self.thumbnail_px}: must be at least 1")


@dataclass(frozen=True)
class Limits:
    """Similarity limits. ``max_share`` and ``margin``: see ``w2w.mining.pairs.gate``."""

    max_share: float
    margin: float
    least_similarity: float
    singles: bool  # also for a single garment and tag of a class


def boxes_of(garments: pa.Table, tagged: pl.DataFrame, rules: PairRules) -> pl.DataFrame:
    """The garments (garment_id, image_id, category, score, box_xyxy) that count given the ``tagged`` products
    (``products_of``), the best of each photo and class first, with ``num_boxes``, their number in the photo and class."""
    found = pl.from_arrow(garments.select([schema.GARMENT_ID, schema.IMAGE_ID, schema.CATEGORY, schema.SCORE, schema.BOX]))
    found = found.rename({schema.IMAGE_ID: PHOTO}).filter(
        (pl.col(schema.SCORE) >= rules.least_score) & pl.col(schema.CATEGORY).is_in(list(CATEGORIES))
    )
    found = found.sort(PHOTO, schema.SCORE, schema.GARMENT_ID, descending=[False, True, False])
    kept = _not_suppressed(found, rules.max_iou, rules.nms_per_class)
    found = found.filter(pl.Series(kept, dtype=pl.Boolean)).drop(schema.BOX)
    if rules.sure_score > rules.least_score:
        wanted = tagged.select(PHOTO, schema.CATEGORY, NUM_PRODUCTS).unique([PHOTO, schema.CATEGORY])
        found = found.join(wanted, on=[PHOTO, schema.CATEGORY], how="left", maintain_order="left")
        surer = pl.int_range(pl.len()).over(PHOTO, schema.CATEGORY)
        found = found.filter((pl.col(schema.SCORE) >= rules.sure_score) | (surer < pl.col(NUM_PRODUCTS).fill_null(0)))
        found = found.drop(NUM_PRODUCTS)
    return found.with_columns(pl.len().over(PHOTO, schema.CATEGORY).alias(NUM_BOXES))


def _not_suppressed(found: pl.DataFrame, max_iou: float, per_class: bool) -> np.ndarray:
    """bool (N,): garments that survive suppression, for rows sorted by photo and descending score. Photos without overlaps,
    nearly all of them after a detector's own suppression, are compared at once, neighbour by neighbour."""
    kept = np.ones(len(found), bool)
    if not len(found):
        return kept
    photo_N = found[PHOTO].rle_id().to_numpy()
    boxes_N4 = np.stack(found[schema.BOX].to_list()).astype(np.float32)
    classes_N = found[schema.CATEGORY].to_numpy().astype(str) if per_class else np.zeros(len(found), "U1")
    crowded: set[int] = set()
    for step in range(1, int(np.bincount(photo_N).max())):
        same = np.flatnonzero(photo_N[:-step] == photo_N[step:])
        crowded |= set(photo_N[same[_overlap(boxes_N4[same], boxes_N4[same + step]) > max_iou]].tolist())
    for photo in crowded:
        rows = np.arange(*np.searchsorted(photo_N, [photo, photo + 1]))
        kept[rows] = False
        kept[rows[boxes.nms(boxes_N4[rows], -np.arange(len(rows)), max_iou, classes_N[rows])]] = True
    return kept


def _overlap(a_N4: np.ndarray, b_N4: np.ndarray) -> np.ndarray:
    """Intersection over union of each row with its partner, (N,)."""
    sides_N2 = np.minimum(a_N4[:, 2:], b_N4[:, 2:]) - np.maximum(a_N4[:, :2], b_N4[:, :2])
    common_N = np.prod(np.maximum(sides_N2, 0), axis=1)
    union_N = boxes.area(a_N4) + boxes.area(b_N4) - common_N
    return np.divide(common_N, union_N, out=np.zeros_like(common_N), where=union_N > 0)


def allowed_boxes() -> pl.Expr:
    return pl.col(schema.CATEGORY).replace_strict(ALLOWED_BOXES, default=1, return_dtype=pl.Int64)


def products_of(tags: pl.DataFrame) -> pl.DataFrame:
    """One row per photo and product of a class, whoever tags it, with ``num_products`` of that class in the photo. Includes
    tags that are rejected for another reason (a small image, another split): the garment may be theirs."""
    tagged = tags.filter(pl.col("known") & pl.col(schema.CATEGORY).is_not_null())
    tagged = tagged.select(PHOTO, PRODUCT_KEY, schema.CATEGORY, schema.IMAGE_ID).unique([PHOTO, PRODUCT_KEY], keep="first")
    return tagged.with_columns(pl.len().over(PHOTO, schema.CATEGORY).alias(NUM_PRODUCTS)).sort(PHOTO, PRODUCT_KEY)


def claims_of(tagged: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """``products_of`` with ``num_boxes`` of the class in the photo; a reject if there is none."""
    counts = found.group_by(PHOTO, schema.CATEGORY).agg(pl.len().alias(NUM_BOXES))
    claims = tagged.join(counts, on=[PHOTO, schema.CATEGORY], how="left", maintain_order="left")
    claims = claims.with_columns(pl.col(NUM_BOXES).fill_null(0))
    return judged(
        claims,
        (pl.col(NUM_BOXES) == 0, RejectCode.NOT_DETECTED, pl.format("no {} was found in the photo", schema.CATEGORY)),
    )


def matches_by_rule(claims: pl.DataFrame, found: pl.DataFrame, rules: PairRules) -> pl.DataFrame:
    """The claims, each with a garment (garment_id, score, rule) or a reject: the best garment of its class, if photo and tags
    are unambiguous."""
    doubled = found.filter(pl.col(NUM_BOXES) > allowed_boxes()).sort(PHOTO, schema.CATEGORY)
    crowded = doubled.unique(PHOTO, keep="first", maintain_order=True).select(
        PHOTO, pl.format("{} of class {}", NUM_BOXES, schema.CATEGORY).alias("crowd")
    )
    claims = claims.join(crowded, on=PHOTO, how="left")
    twice = pl.format("the photo shows {} garments of class {}", NUM_BOXES, schema.CATEGORY)
    claims = judged(
        claims,
        (
            pl.col(NUM_PRODUCTS) > 1,
            RejectCode.AMBIGUOUS,
            pl.format("{} products of class {} are tagged", NUM_PRODUCTS, schema.CATEGORY),
        ),
        (pl.col(NUM_BOXES) > allowed_boxes(), RejectCode.AMBIGUOUS, twice),
        (
            pl.lit(rules.whole_post) & pl.col("crowd").is_not_null(),
            RejectCode.AMBIGUOUS,
            pl.format("the photo shows {} garments: more than one person may be in it", "crowd"),
        ),
    )
    best = found.unique([PHOTO, schema.CATEGORY], keep="first", maintain_order=True)
    best = best.select(PHOTO, schema.CATEGORY, schema.GARMENT_ID, schema.SCORE)
    claims = claims.join(best, on=[PHOTO, schema.CATEGORY], how="left")
    return claims.with_columns(pl.lit(SINGLE).alias(schema.RULE), pl.lit(None, pl.Float32).alias(schema.SIMILARITY))


def edges_of(claims: pl.DataFrame, found: pl.DataFrame, singles: bool) -> pl.DataFrame:
    """Every garment that may be a claim's product, by class: photo, product_key, category, garment_id, score, image_id. If the
    photo does not show the class too often, only the best garment (both shoes are one product)."""
    doubtful = (pl.col(NUM_BOXES) > allowed_boxes()) | (pl.col(NUM_PRODUCTS) > 1)
    wanted = claims.filter((pl.col(NUM_BOXES) > 0) & pl.col(schema.IMAGE_ID).is_not_null() & (pl.lit(singles) | doubtful))
    place = pl.int_range(pl.len()).over(PHOTO, schema.CATEGORY)
    found = found.filter((place == 0) | (pl.col(NUM_BOXES) > allowed_boxes())).drop(NUM_BOXES)
    edges = wanted.select(PHOTO, PRODUCT_KEY, schema.CATEGORY, schema.IMAGE_ID).join(found, on=[PHOTO, schema.CATEGORY])
    return edges.sort(PHOTO, PRODUCT_KEY, schema.GARMENT_ID)


def matches_by_similarity(claims: pl.DataFrame, found: pl.DataFrame, edges: pl.DataFrame, limits: Limits) -> pl.DataFrame:
    """The claims, each with a garment (garment_id, score, rule, similarity) or a reject: a garment and a product that are
    mutually most similar, by a margin, and similar enough.

    ``edges`` have cosine, likeness and share, null if a vector is missing.
    """
    doubtful = (pl.col(NUM_BOXES) > allowed_boxes()) | (pl.col(NUM_PRODUCTS) > 1)
    alike = edges.drop_nulls(LIKENESS).sort(LIKENESS, schema.GARMENT_ID, descending=[True, False])
    # the best garment of each product, and the similarity of the first one beyond the allowed number
    spare = pl.col(LIKENESS).get(allowed_boxes().first(), null_on_oob=True).alias("next_garment")
    best = alike.group_by(PHOTO, PRODUCT_KEY, maintain_order=True).agg(
        *(pl.col(c).first() for c in (schema.GARMENT_ID, schema.SCORE, COSINE, LIKENESS, SHARE)), spare
    )
    of_garment = alike.sort(LIKENESS, PRODUCT_KEY, descending=[True, False]).group_by(
        PHOTO, schema.GARMENT_ID, maintain_order=True
    )
    rivals = of_garment.agg(
        pl.col(PRODUCT_KEY).first().alias("chosen"), pl.col(LIKENESS).get(1, null_on_oob=True).alias("next_product")
    )
    claims = claims.join(best, on=[PHOTO, PRODUCT_KEY], how="left").join(rivals, on=[PHOTO, schema.GARMENT_ID], how="left")
    asked = (pl.lit(limits.singles) | doubtful) & (pl.col(NUM_BOXES) > 0)
    close = pl.max_horizontal("next_garment", "next_product")
    claims = judged(
        claims,
        (
            asked & pl.col(LIKENESS).is_null(),
            RejectCode.NO_VECTOR,
            pl.lit("the product's image, or every garment of its class in the photo, has no vector of the gate's model"),
        ),
        (
            asked & ((pl.col(SHARE) > limits.max_share) | (pl.col(COSINE) < limits.least_similarity)),
            RejectCode.DISSIMILAR,
            pl.format(
                "the garment looks more like {} % of other products of class {} than like this one (cosine {})",
                (100 * pl.col(SHARE)).round().cast(pl.Int64),
                schema.CATEGORY,
                pl.col(COSINE).round(2),
            ),
        ),
        (
            asked & (pl.col("chosen") != pl.col(PRODUCT_KEY)),
            RejectCode.AMBIGUOUS,
            pl.format("the garment that looks most like it looks more like product {}, which is tagged too", "chosen"),
        ),
        (
            asked & (pl.col(LIKENESS) - close < limits.margin),
            RejectCode.AMBIGUOUS,
            pl.format(
                "{} garments and {} products of class {}: the second choice is as alike as the first ({} and {})",
                NUM_BOXES,
                NUM_PRODUCTS,
                schema.CATEGORY,
                close.round(3),
                pl.col(LIKENESS).round(3),
            ),
        ),
    )
    single = found.unique([PHOTO, schema.CATEGORY], keep="first", maintain_order=True)
    single = single.select(
        PHOTO, schema.CATEGORY, pl.col(schema.GARMENT_ID).alias("single"), pl.col(schema.SCORE).alias("single_score")
    )
    claims = claims.join(single, on=[PHOTO, schema.CATEGORY], how="left")
    return claims.with_columns(
        pl.coalesce(schema.GARMENT_ID, "single").alias(schema.GARMENT_ID),
        pl.coalesce(schema.SCORE, "single_score").alias(schema.SCORE),
        pl.when(doubtful).then(pl.lit(BY_SIMILARITY)).otherwise(pl.lit(SINGLE)).alias(schema.RULE),
        pl.col(COSINE).cast(pl.Float32).alias(schema.SIMILARITY),
    )


def with_judgements(claims: pl.DataFrame, found: pl.DataFrame, said: pl.DataFrame) -> pl.DataFrame:
    """The claims after judgements (garment_id, product_key, verdict): a garment judged the same is that product's and no
    other's, whatever rule or similarity decided; one judged similar or not ours is rejected."""
    if said.is_empty():
        return claims
    said = said.join(found.select(PHOTO, schema.GARMENT_ID, schema.SCORE), on=schema.GARMENT_ID).sort(
        schema.SCORE, schema.GARMENT_ID, descending=[True, False]
    )
    same = said.filter(pl.col(schema.VERDICT) == schema.SAME)
    own = same.unique([PHOTO, PRODUCT_KEY], keep="first", maintain_order=True)
    own = own.select(PHOTO, PRODUCT_KEY, pl.col(schema.GARMENT_ID).alias("own"), pl.col(schema.SCORE).alias("own_score"))
    claims = claims.join(own, on=[PHOTO, PRODUCT_KEY], how="left", maintain_order="left")
    sure = pl.col("own").is_not_null()
    claims = claims.with_columns(
        pl.coalesce("own", schema.GARMENT_ID).alias(schema.GARMENT_ID),
        pl.coalesce("own_score", schema.SCORE).alias(schema.SCORE),
        pl.when(sure).then(pl.lit(BY_JUDGEMENT)).otherwise(schema.RULE).alias(schema.RULE),
        *(pl.when(~sure).then(c).alias(c) for c in (schema.REJECT_CODE, schema.REJECT_DETAIL)),
    )
    taken = same[schema.GARMENT_ID]
    other = said.filter(pl.col(schema.VERDICT) == schema.NOT_OURS)[schema.GARMENT_ID]
    similar = said.filter(pl.col(schema.VERDICT) == schema.SIMILAR).select(schema.GARMENT_ID, PRODUCT_KEY).unique()
    claims = claims.join(
        similar.with_columns(similar=True), on=[schema.GARMENT_ID, PRODUCT_KEY], how="left", maintain_order="left"
    )
    garment = pl.col(schema.GARMENT_ID)
    return judged(
        claims,
        (
            ~sure & garment.is_in(other.implode()),
            RejectCode.JUDGED_OTHER,
            pl.lit("judged: the shop sells nothing like this garment"),
        ),
        (~sure & pl.col("similar"), RejectCode.JUDGED_OTHER, pl.lit("judged: the garment is only similar to the product")),
        (~sure & garment.is_in(taken.implode()), RejectCode.JUDGED_OTHER, pl.lit("judged: the garment is another product")),
    )


def pairs_of(tags: pl.DataFrame, claims: pl.DataFrame) -> tuple[pa.Table, pa.Table, int]:
    """(rows of `pairs`, rejected tags: key, source, code, detail; number of tags).

    Of several posts with the same photo, the first gives the pair.
    """
    matched = claims.select(
        PHOTO,
        PRODUCT_KEY,
        schema.GARMENT_ID,
        schema.SCORE,
        schema.RULE,
        schema.SIMILARITY,
        pl.col(schema.REJECT_CODE).alias("claim_code"),
        pl.col(schema.REJECT_DETAIL).alias("claim_detail"),
    )
    tags = tags.join(matched, on=[PHOTO, PRODUCT_KEY], how="left").with_columns(
        pl.coalesce(schema.REJECT_CODE, "claim_code").alias(schema.REJECT_CODE),
        pl.when(pl.col(schema.REJECT_CODE).is_not_null())
        .then(schema.REJECT_DETAIL)
        .otherwise(pl.col("claim_detail"))
        .alias(schema.REJECT_DETAIL),
    )
    tags = tags.sort(schema.POST_ID, PRODUCT_KEY)
    good = pl.col(schema.REJECT_CODE).is_null()
    first = pl.col(schema.POST_ID).filter(good).first().over(PHOTO, PRODUCT_KEY)
    tags = tags.with_columns(first=first)
    tags = judged(
        tags,
        (
            pl.col("first") != pl.col(schema.POST_ID),
            RejectCode.REPEATED,
            pl.format("post {} has the same photo and product", "first"),
        ),
    )
    kept = tags.filter(good)
    pair_ids = [pair_id(*ids) for ids in zip(kept[schema.GARMENT_ID].to_list(), kept[PRODUCT_KEY].to_list())]
    columns = {
        schema.PAIR_ID: pl.Series(pair_ids, dtype=pl.String),
        schema.ANCHOR_IMAGE_ID: pl.col(PHOTO),
        schema.PRODUCT_ID: pl.col(PRODUCT_KEY),
        schema.SOURCE: pl.lit(schema.OWN),
    }
    pairs = kept.with_columns(**columns).select(schema.PAIRS.schema.names).to_arrow().cast(schema.PAIRS.schema)
    rejected = tags.filter(~good)
    keys = tag_key(rejected[schema.POST_ID].to_arrow(), rejected[PRODUCT_KEY].to_arrow())
    key = pl.Series(schema.KEY, pl.from_arrow(keys), pl.String)
    rejected = rejected.select(key, pl.col(schema.URL).alias(schema.SOURCE), schema.REJECT_CODE, schema.REJECT_DETAIL)
    return pairs, rejected.to_arrow(), len(tags)


def tag_key(posts: pa.Array, products: pa.Array) -> pa.Array:
    """post|product of each tag, string (N,), unique."""
    return ids.joined([posts.cast(pa.string()), products.cast(pa.string())], "|", "\\")


def parts_of_tag(key: str) -> tuple[str, str]:
    """Post and product of a ``tag_key``."""
    post, *product = ids.parted(key, "|", "\\")
    return post, "|".join(product)


def pair_id(garment_id: str, product_key: str) -> str:
    """sha256 of both, 64 hex digits: a garment and product are the same pair in every run."""
    return hashlib.sha256(f"{garment_id}|{product_key}".encode()).hexdigest()


def sample_of(edges: pl.DataFrame, hashes: Sequence[int] | np.ndarray, size: int) -> pl.DataFrame:
    """category, garment_id and hash of each class's ``size`` garments of lowest hash, independent of the buckets."""
    rows = edges.select(schema.CATEGORY, schema.GARMENT_ID).with_columns(hash=pl.Series(np.asarray(hashes, np.uint64)))
    rows = rows.unique(schema.GARMENT_ID).sort("hash", schema.GARMENT_ID)
    return rows.group_by(schema.CATEGORY, maintain_order=True).head(size)
