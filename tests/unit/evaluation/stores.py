"""Stores as `w2w convert` and `w2w embed` would leave them, from records of a set and a vector for each name."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from w2w import schema
from w2w.mining.sets import rows as of
from w2w.mining.sets.records import Photo, Shop
from w2w.table.parts import Output
from w2w.table.sink import Lineage, append_rows

LINEAGE = Lineage("fill", "fill", "fill", "1", {}, {}, "x")
VERSION, NOW = "v1", 0


def write(store: str, table: schema.Table, rows: Sequence[dict]) -> None:
    blank = dict.fromkeys(table.schema.names)
    append_rows(store, Output(table), pa.Table.from_pylist([blank | r for r in rows], schema=table.schema), LINEAGE)


def image_of(name: str) -> str:
    """The image_id of a shop's picture or a photo."""
    return f"image of {name}"


def garment_of(photo: Photo, number: int = 0) -> str:
    anchor = photo.anchors[number]
    return of.anchor_id(image_of(photo.name), anchor.category, anchor.box, VERSION)


def fill(store: str, catalog: str, shops: Sequence[Shop], photos: Sequence[Photo]) -> None:
    """Tables `products`, `garments` and `pairs`."""
    sold = [row for table in of.shop_rows(shops, catalog, VERSION) for row in table.to_pylist()]
    more = {schema.ACTIVE: True, schema.FETCHED_AT: NOW}
    names = {f"{catalog}/{shop.name}": image_of(shop.name) for shop in shops}
    for row in sold:
        row |= more | {schema.IMAGE_ID: names[row[schema.PRODUCT_ID]]}
    write(store, schema.PRODUCTS, [{k: row[k] for k in schema.PRODUCTS.schema.names} for row in sold])
    garments = {
        garment_of(photo, n): {
            schema.ORIGINAL_LABEL: a.label,
            schema.CATEGORY: a.category,
            schema.IMAGE_ID: image_of(photo.name),
        }
        for photo in photos
        for n, a in enumerate(photo.anchors)
        if a.category
    }
    fixed = {
        schema.SCORE: 1.0,
        schema.BOX: [0, 0, 1, 1],
        schema.CROP: b"",
        schema.CROP_SOURCE: "box",
        schema.STAGE_VERSION: VERSION,
    }
    write(store, schema.GARMENTS, [{schema.GARMENT_ID: key} | row | fixed for key, row in garments.items()])
    known = of.Known(names, {f"{catalog}/{p.name}": image_of(p.name) for p in photos}, set(garments))
    write(store, schema.PAIRS, [r for r in of.pairs(photos, known, catalog, catalog, VERSION) if isinstance(r, dict)])


def embed(store: str, vectors: Mapping[str, Sequence[float]], model: str = "model-a") -> None:
    """Table `embeddings`, by owner."""
    rows = [
        {schema.OWNER_ID: k, schema.OWNER_KIND: "image", schema.MODEL_VERSION: model, schema.VECTOR: list(map(float, v))}
        for k, v in vectors.items()
    ]
    write(store, schema.EMBEDDINGS, rows)
