"""Tags: the products that posts name, resolved to mining's products, and those rejected whatever the photo shows."""

import polars as pl
import pyarrow as pa

from w2w import schema
from w2w.errors import RejectCode

PHOTO = "photo"  # the post's image
# A product as mining sees it, one row per product_id of the catalog
PRODUCT_KEY, CALLED, SIDE_PX = "product_key", "called", "side_px"
CATALOG_SCHEMA = pa.schema(
    [
        (schema.PRODUCT_ID, pa.string()),
        (PRODUCT_KEY, pa.string()),
        (schema.CATEGORY, pa.string()),  # one of the seven; null if it has none
        (CALLED, pa.string()),  # why, for the sentence of a reject
        (schema.IMAGE_ID, pa.string()),  # the representative image
        (SIDE_PX, pa.int32()),  # its shorter side
        (schema.SPLIT, pa.string()),
    ]
)


def newest_posts(posts: pa.Table, superseded: pa.Table) -> pa.Table:
    """The active posts among these rows; ``superseded`` (post_id, fetched_at): rows replaced by a newer one of the post."""
    rows = pl.from_arrow(posts).join(pl.from_arrow(superseded), on=[schema.POST_ID, schema.FETCHED_AT], how="anti")
    return rows.filter(pl.col(schema.ACTIVE)).unique(schema.POST_ID, keep="first", maintain_order=True).to_arrow()


def tags_of(
    posts: pa.Table,
    catalog: pa.Table,
    post_splits: pa.Table,
    seen: pa.Table,
    thumbnail_px: int,
    refused: pa.Array = pa.array([], pa.string()),
) -> pl.DataFrame:
    """One row per post and product: post, photo, product, category, split, and code and detail if it cannot be a pair.

    ``posts``: post_id, url, image_id, product_ids; ``post_splits``: post_id, split; ``seen``: image_id of the photos that the
    detector processed; ``refused``: images that training may not use. Catalog rows of one product are one tag.
    """
    tags = (
        pl.from_arrow(posts.select([schema.POST_ID, schema.URL, schema.IMAGE_ID, schema.PRODUCT_IDS]))
        .rename({schema.IMAGE_ID: PHOTO})
        .explode(schema.PRODUCT_IDS, empty_as_null=True)
        .rename({schema.PRODUCT_IDS: schema.PRODUCT_ID})
        .drop_nulls(schema.PRODUCT_ID)
    )
    known = pl.from_arrow(catalog).rename({schema.SPLIT: "product_split"})
    tags = tags.join(known, on=schema.PRODUCT_ID, how="left").with_columns(known=pl.col(PRODUCT_KEY).is_not_null())
    tags = tags.with_columns(pl.coalesce(PRODUCT_KEY, schema.PRODUCT_ID).alias(PRODUCT_KEY))
    tags = tags.sort(schema.POST_ID, PRODUCT_KEY, schema.PRODUCT_ID).unique(
        [schema.POST_ID, PRODUCT_KEY], keep="first", maintain_order=True
    )
    tags = tags.join(pl.from_arrow(post_splits).rename({schema.SPLIT: "post_split"}), on=schema.POST_ID, how="left")
    tags = tags.join(pl.from_arrow(seen).unique().with_columns(seen=True), left_on=PHOTO, right_on=schema.IMAGE_ID, how="left")
    side, kept_out = pl.col(SIDE_PX), pl.Series(refused, dtype=pl.String).implode()
    return judged(
        tags,
        (
            ~pl.col("known"),
            RejectCode.UNKNOWN_PRODUCT,
            pl.format("product {} is not in the catalog, or is no longer sold", schema.PRODUCT_ID),
        ),
        (
            pl.col(PHOTO).is_in(kept_out),
            RejectCode.NOT_PERMITTED,
            pl.lit("the photo may not be used for training: see table `permissions`"),
        ),
        (
            pl.col(schema.IMAGE_ID).is_in(kept_out),
            RejectCode.NOT_PERMITTED,
            pl.lit("the product's image may not be used for training: see table `permissions`"),
        ),
        (
            pl.col(schema.CATEGORY).is_null(),
            RejectCode.NO_CATEGORY,
            pl.format("the product's class is not mined: {}", pl.col(CALLED).fill_null("unknown")),
        ),
        (
            pl.col(schema.IMAGE_ID).is_null(),
            RejectCode.NO_PHOTO,
            pl.lit("the product has no representative image: its image was rejected, or 'w2w represent' has not seen it"),
        ),
        (
            side < thumbnail_px,
            RejectCode.TOO_SMALL,
            pl.format("the product's image is {} px on its shorter side, fewer than " + str(thumbnail_px), side),
        ),
        (
            pl.col("post_split").is_null() | pl.col("product_split").is_null(),
            RejectCode.NO_SPLIT,
            pl.lit("the post or the product is in no split: run 'w2w split' again"),
        ),
        (
            pl.col("post_split") != pl.col("product_split"),
            RejectCode.CROSSES_SPLIT,
            pl.format("the post is in {}, the product in {}", "post_split", "product_split"),
        ),
        (
            pl.col("seen").is_null(),
            RejectCode.NOT_DETECTED,
            pl.lit("the detector has not seen the photo: run 'w2w detect', or look at its rejects"),
        ),
    ).with_columns(pl.col("post_split").alias(schema.SPLIT))


def judged(rows: pl.DataFrame, *rules: tuple[pl.Expr, RejectCode, pl.Expr]) -> pl.DataFrame:
    """Rows with code and detail of the first rule that applies; existing codes are kept."""
    code, detail = pl.lit(None, pl.String), pl.lit(None, pl.String)
    for holds, name, sentence in reversed(rules):
        code = pl.when(holds.fill_null(False)).then(pl.lit(name.value)).otherwise(code)
        detail = pl.when(holds.fill_null(False)).then(sentence).otherwise(detail)
    if schema.REJECT_CODE in rows.columns:
        had = pl.col(schema.REJECT_CODE).is_not_null()
        code = pl.when(had).then(schema.REJECT_CODE).otherwise(code)
        detail = pl.when(had).then(schema.REJECT_DETAIL).otherwise(detail)
    return rows.with_columns(code.alias(schema.REJECT_CODE), detail.alias(schema.REJECT_DETAIL))
