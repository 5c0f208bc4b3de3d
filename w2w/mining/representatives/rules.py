"""A product's representative image: of all that the catalog has, the one that shows it alone on a plain background."""

import numpy as np
import polars as pl
import pyarrow as pa

from w2w import schema
from w2w.errors import Reject
from w2w.garments.taxonomy import BAG, BOTTOM, DRESS, HAT, OUTER, PERSON, SHOES, TOP
from w2w.images.decode import DecodeLimits, decode_many
from w2w.images.resize import shrink
from w2w.stage import with_rejects

CODE = 1  # bump when the same picture would get other numbers

GROUND_GIVES = schema.GROUNDS.fields([schema.PLAIN, schema.BRIGHTNESS, schema.FOREGROUND, schema.STAGE_VERSION])
_LONGEST_PX = 96
_BORDER = 0.05  # of each side: thumbnails are cropped tightly, and a product may touch one of them
_TOLERANCE = 28  # of 255, in the channel that differs most: JPEG noise and soft shadows count as background
_LITTLE, _MUCH = 0.08, 0.85  # foreground share below which there is hardly a product, and above which it is cut off
_DARK_GROUND = 0.7  # factor for a black background: plain, but rare among thumbnails
_WORN, _OTHER_CLASS = 0.4, 0.8  # factors if a person wears it, and if the classifier sees another class
_APART = 0.3  # of the smaller box: two garments that share less are apart

# place on the body: one garment is often detected as two classes, one body wears garments in two places
_PLACES = {TOP: "trunk", OUTER: "trunk", DRESS: "trunk", BOTTOM: "legs", SHOES: "feet", HAT: "head", BAG: "hand"}


def look_at_ground(rows: pa.Table, *, limits: DecodeLimits, stage_version: str) -> pa.Table:
    """Adds GROUND_GIVES to rows with encoded bytes; drops the bytes."""
    images = decode_many(rows.column(schema.BYTES), limits, _LONGEST_PX)
    rejects = [i if isinstance(i, Reject) else None for i in images]
    found = [(0.0, 0.0, 0.0) if isinstance(i, Reject) else ground_of(i) for i in images]
    rows = rows.drop_columns([schema.BYTES])
    for field, values in zip(GROUND_GIVES, np.array(found, np.float32).reshape(-1, 3).T):
        rows = rows.append_column(field.name, pa.array(values, field.type))
    version = pa.repeat(pa.scalar(stage_version), rows.num_rows)
    return with_rejects(rows.append_column(schema.STAGE_VERSION, version), rejects)


def ground_of(image: np.ndarray) -> tuple[float, float, float]:
    """(plain, brightness, foreground) of uint8 (H, W, 3): the share of the border that has its median colour, the brightness of
    that colour, and the share of the whole picture that has another one."""
    small = shrink(image, _LONGEST_PX).astype(np.int16)
    width = max(1, round(_BORDER * min(small.shape[:2])))
    inner = np.zeros(small.shape[:2], bool)
    inner[width:-width, width:-width] = True
    border_N3 = small[~inner]
    colour = np.median(border_N3, axis=0)
    other = np.abs(small - colour).max(axis=2) > _TOLERANCE
    return float(1 - other[~inner].mean()), float(colour.mean() / 255), float(other.mean())


def persons_of(garments: pa.Table, looks: pa.Table) -> pl.DataFrame:
    """image_id of pictures in which somebody wears something: a person was found, or garments at two places of a body that lie
    apart (a detector often takes one product for two things at one place of the picture).

    ``garments``: image_id, category, box_xyxy; ``looks``: image_id, crop_source.
    """
    sides = [pl.col(schema.BOX).list.get(i).alias(name) for i, name in enumerate("abcd")]
    place = pl.col(schema.CATEGORY).replace_strict(_PLACES, default=None, return_dtype=pl.String).alias("place")
    found = pl.from_arrow(garments).select(schema.IMAGE_ID, place, *sides).drop_nulls("place")
    found = found.with_columns(area=(pl.col("c") - pl.col("a")) * (pl.col("d") - pl.col("b")))
    two = found.join(found, on=schema.IMAGE_ID, suffix="2").filter(pl.col("place") < pl.col("place2"))
    width = pl.min_horizontal("c", "c2") - pl.max_horizontal("a", "a2")
    height = pl.min_horizontal("d", "d2") - pl.max_horizontal("b", "b2")
    common = width.clip(0) * height.clip(0)
    worn = two.filter(common < _APART * pl.min_horizontal("area", "area2"))
    people = pl.from_arrow(looks).filter(pl.col(schema.CROP_SOURCE) == PERSON)
    return pl.concat([worn.select(schema.IMAGE_ID), people.select(schema.IMAGE_ID)]).unique()


def choose(products: pa.Table, grounds: pa.Table, persons: pl.DataFrame | None, doubted: pl.DataFrame | None) -> pa.Table:
    """Rows of `representatives`, sorted by product: the best of each product's images that have a row in ``grounds``.

    ``products``: product_key, image_id, one row per image; ``persons``: image_id of pictures with a person, None if no detector
    ran; ``doubted``: image_id of pictures in which a classifier sees another class than the product's. Ties go to the smaller
    image_id.
    """
    rows = pl.from_arrow(products).unique().join(pl.from_arrow(grounds), on=schema.IMAGE_ID)
    for name, images in (("person", persons), ("doubt", doubted)):
        marked = None if images is None else images.select(schema.IMAGE_ID).unique().with_columns(pl.lit(True).alias(name))
        mark = pl.lit(None, pl.Boolean).alias(name)
        rows = rows.with_columns(mark) if marked is None else rows.join(marked, on=schema.IMAGE_ID, how="left")
    share = pl.col(schema.FOREGROUND)
    fill = pl.min_horizontal(share / _LITTLE, (1 - share) / (1 - _MUCH), pl.lit(1.0)).clip(0, 1)
    bright = _DARK_GROUND + (1 - _DARK_GROUND) * pl.col(schema.BRIGHTNESS)
    person, doubt = pl.col("person").fill_null(False), pl.col("doubt").fill_null(False)
    score = pl.col(schema.PLAIN) * fill * bright
    score = score * pl.when(person).then(_WORN).otherwise(1.0) * pl.when(doubt).then(_OTHER_CLASS).otherwise(1.0)
    rows = rows.with_columns(score.cast(pl.Float32).alias(schema.SCORE), pl.len().over("product_key").alias(schema.NUM_IMAGES))
    rows = rows.sort(["product_key", schema.SCORE, schema.IMAGE_ID], descending=[False, True, False])
    best = rows.unique("product_key", keep="first", maintain_order=True)
    said = [
        pl.when(pl.col(schema.NUM_IMAGES) == 1)
        .then(pl.lit("its only image"))
        .otherwise(pl.format("the best of {} images", schema.NUM_IMAGES)),
        pl.format("{} % of the border has one colour", (100 * pl.col(schema.PLAIN)).round().cast(pl.Int64)),
        pl.when(pl.col(schema.BRIGHTNESS) > 0.85)
        .then(pl.lit("bright"))
        .when(pl.col(schema.BRIGHTNESS) > 0.4)
        .then(pl.lit("of middle brightness"))
        .otherwise(pl.lit("dark")),
        pl.format("the product fills {} %", (100 * share).round().cast(pl.Int64)),
        pl.lit("no detector looked for a person")
        if persons is None
        else pl.when(person).then(pl.lit("a person wears it")).otherwise(pl.lit("no person")),
        *([] if doubted is None else [pl.when(doubt).then(pl.lit("the classifier sees another class"))]),
    ]
    best = best.with_columns(
        pl.concat_str(said, separator=", ", ignore_nulls=True).alias(schema.REASON),
        pl.col("product_key").alias(schema.PRODUCT_ID),
        pl.col(schema.NUM_IMAGES).cast(pl.Int32),
    )
    return best.select(schema.REPRESENTATIVES.schema.names).to_arrow().cast(schema.REPRESENTATIVES.schema)
