"""Hard negatives: products that look like a pair's anchor and are certainly not what it shows."""

from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from w2w import schema
from w2w.errors import RejectCode, UsageError
from w2w.mining.tags import PRODUCT_KEY


@dataclass(frozen=True)
class NegativeRules:
    """Which neighbours of an anchor are negatives.

    Neighbours that are as near as the pair's own product, or nearer, are often the same item under another number: NV-Retriever
    (Moreira et al. 2024, arXiv 2407.15831, section 3) bounds them by the positive's score. A product's score is that of its
    nearest picture.
    """

    k: int = 5
    """Negatives of a pair, at most."""
    ratio: float | None = 0.95
    """A negative's score is at most this share of the positive's (TopK-PercPos); for a negative score, as far below it."""
    margin: float | None = None
    """A negative's score is at most the positive's minus this (TopK-MarginPos)."""
    same_split: bool = True
    """Only products of the pair's own split, so that no test product is trained on, not even as a negative."""

    def __post_init__(self):
        if self.k < 1:
            raise UsageError(f"rules.k={self.k}: must be at least 1")
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise UsageError(f"rules.ratio={self.ratio}: above 0, at most 1")
        if self.margin is not None and not 0 <= self.margin <= 2:
            raise UsageError(f"rules.margin={self.margin}: between 0 and 2, a difference of cosines")


def negatives_of(
    pairs: pa.Table,
    neighbours: pa.Table,
    catalog: pa.Table,
    duplicates: pa.Table | None,
    rules: NegativeRules,
    refused: pa.Array = pa.array([], pa.string()),
) -> tuple[pa.Table, pa.Table, int]:
    """(rows of `negatives`, rejected pairs: key, source, code, detail; number of pairs).

    ``pairs``: pair_id, garment_id, anchor_image_id, post_id, product_id, image_id, category, split; ``refused``: images that
    training may not use; ``neighbours``: query_id, neighbours, index_version,
    of garments, nearest first; ``catalog``: CATALOG_SCHEMA, image_id each row's own; ``duplicates``: image_id, cluster_id of
    images that have near-duplicates. The positive's score is that of the pair's product among the neighbours: if it is not
    among them, all of them are nearer than it is, and none can be used.
    """
    wanted, kept_out = pl.from_arrow(pairs), pl.Series(refused, dtype=pl.String).implode()
    barred = pl.any_horizontal(pl.col(c).is_in(kept_out) for c in (schema.ANCHOR_IMAGE_ID, schema.IMAGE_ID))
    wanted = wanted.with_columns((barred if len(refused) else pl.lit(value=False)).alias("barred"))
    known = pl.from_arrow(catalog).select(schema.PRODUCT_ID, PRODUCT_KEY, schema.CATEGORY, schema.SPLIT)
    found = pl.from_arrow(neighbours).unique(schema.QUERY_ID, keep="first", maintain_order=True)
    near = found.select(pl.col(schema.QUERY_ID).alias(schema.GARMENT_ID), schema.NEIGHBOUR_LIST).explode(
        schema.NEIGHBOUR_LIST, empty_as_null=True
    )
    near = near.drop_nulls(schema.NEIGHBOUR_LIST).unnest(schema.NEIGHBOUR_LIST).rename({schema.CATEGORY: "found_category"})
    near = near.join(known, on=schema.PRODUCT_ID)
    pair = wanted.select(
        schema.PAIR_ID,
        schema.GARMENT_ID,
        pl.col(schema.PRODUCT_ID).alias("own"),
        pl.col(schema.CATEGORY).alias("own_category"),
        pl.col(schema.SPLIT).alias("own_split"),
    )
    near = pair.join(near, on=schema.GARMENT_ID)
    positive = (
        near.filter(pl.col(PRODUCT_KEY) == pl.col("own"))
        .group_by(schema.PAIR_ID)
        .agg(pl.col(schema.SCORE).max().alias("positive"))
    )
    near = near.join(positive, on=schema.PAIR_ID, how="left")
    nearest = pl.col(schema.SCORE).max().over(schema.PAIR_ID, PRODUCT_KEY)
    near = near.with_columns(nearest.alias("nearest")).sort(schema.PAIR_ID, schema.RANK)
    same_product = pl.col(PRODUCT_KEY) == pl.col("own")
    other = near.filter(~same_product & (pl.col(schema.CATEGORY) == pl.col("own_category")))
    if rules.same_split:
        other = other.filter(pl.col(schema.SPLIT) == pl.col("own_split"))
    other = _without_copies(other, catalog, duplicates)
    other = other.filter(~pl.col(schema.IMAGE_ID).is_in(kept_out))
    limit = pl.col("positive")
    bounds = [limit - (1 - rules.ratio) * limit.abs()] if rules.ratio is not None else [limit]
    bounds += [limit - rules.margin] if rules.margin is not None else []
    hard = other.filter(pl.col("nearest") <= pl.min_horizontal(bounds))
    hard = hard.unique([schema.PAIR_ID, PRODUCT_KEY], keep="first", maintain_order=True)
    hard = hard.group_by(schema.PAIR_ID, maintain_order=True).head(rules.k)
    item = pl.struct(
        pl.col(schema.RANK),
        pl.col(PRODUCT_KEY).alias(schema.PRODUCT_ID),
        pl.col(schema.IMAGE_ID),
        pl.col(schema.CATEGORY),
        pl.col(schema.SCORE),
    )
    lists = hard.group_by(schema.PAIR_ID, maintain_order=True).agg(item.alias(schema.NEGATIVES_LIST))
    version = found.select(pl.col(schema.QUERY_ID).alias(schema.GARMENT_ID), schema.INDEX_VERSION)
    result = wanted.join(lists, on=schema.PAIR_ID, how="left").join(version, on=schema.GARMENT_ID, how="left")
    result = result.join(positive, on=schema.PAIR_ID, how="left").sort(schema.PAIR_ID)
    good = pl.col(schema.NEGATIVES_LIST).is_not_null() & ~pl.col("barred")
    rows = result.filter(good).select(schema.NEGATIVES.schema.names).to_arrow().cast(schema.NEGATIVES.schema)
    why = (
        pl.when(pl.col("barred"))
        .then(pl.lit("one of its pictures may not be used for training: see table `permissions`"))
        .when(pl.col(schema.INDEX_VERSION).is_null())
        .then(pl.lit("its anchor was not searched: run 'w2w search --of garments' again"))
        .when(pl.col("positive").is_null())
        .then(pl.lit("its own product is not among the neighbours, so all of them may be it: raise --search.k"))
        .otherwise(pl.lit("no other product of its class and split is far enough below its own: raise --search.k"))
    )
    rejected = result.filter(~good).select(
        pl.col(schema.PAIR_ID).alias(schema.KEY),
        pl.col(schema.POST_ID).alias(schema.SOURCE),
        pl.when(pl.col("barred"))
        .then(pl.lit(RejectCode.NOT_PERMITTED.value))
        .otherwise(pl.lit(RejectCode.NO_NEGATIVE.value))
        .alias(schema.REJECT_CODE),
        why.alias(schema.REJECT_DETAIL),
    )
    return rows, rejected.to_arrow(), len(wanted)


def _without_copies(other: pl.DataFrame, catalog: pa.Table, duplicates: pa.Table | None) -> pl.DataFrame:
    """Drops products that share an image with the pair's own one, or have a near-duplicate of one of its images."""
    images = pl.from_arrow(catalog).select(PRODUCT_KEY, schema.IMAGE_ID).drop_nulls().unique()
    shown = images.rename({schema.IMAGE_ID: schema.CLUSTER_ID})
    if duplicates is not None:
        clusters = images.join(pl.from_arrow(duplicates), on=schema.IMAGE_ID, how="left")
        shown = clusters.select(PRODUCT_KEY, pl.coalesce(schema.CLUSTER_ID, schema.IMAGE_ID).alias(schema.CLUSTER_ID)).unique()
    rows = other.with_row_index("row")
    copies = rows.select("row", "own", PRODUCT_KEY).join(shown, on=PRODUCT_KEY)
    copies = copies.join(shown.rename({PRODUCT_KEY: "own"}), on=["own", schema.CLUSTER_ID], how="semi")
    return rows.join(copies, on="row", how="anti").drop("row")
