"""Representative images on Ray: every product image is inspected once, then each product chooses."""

from collections.abc import Mapping, Sequence

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.engine import snapshot
from w2w.engine.snapshot import Made
from w2w.engine.tasks import run_task
from w2w.garments.classifier import check_mapping, class_of
from w2w.mining.catalog import keyed_products
from w2w.mining.representatives.rules import choose, persons_of
from w2w.mining.tags import PRODUCT_KEY
from w2w.stage import Counts
from w2w.table import delta
from w2w.table.pending import Keys
from w2w.table.pictures import active_pictures
from w2w.table.sink import Lineage
from w2w.table.tolerance import Tolerance


def product_images(store: str) -> Keys:
    """The distinct images of the active products."""
    images = pc.unique(active_pictures(store, [schema.IMAGE_ID]).column(0).drop_null())
    return Keys([pa.chunked_array([images], pa.string())], len(images))


def represent(
    store: str,
    product_key: Sequence[str],
    ground_version: str,
    detector: str | None,
    classifier: str | None,
    classes: Mapping[str, str] | None,
    lineage: Lineage,
) -> tuple[Counts, dict[str, int]]:
    """Replaces `representatives` in one task, which holds about 400 bytes per product image."""
    arguments = (store, list(product_key), ground_version, detector, classifier, dict(classes or {}), lineage)
    receipts = run_task(_represent, *arguments, title="represent")
    return snapshot.commit_snapshot(store, schema.REPRESENTATIVES, receipts, lineage, Tolerance(1.0))


def _represent(store, product_key, ground_version, detector, classifier, classes, lineage) -> list[dict]:
    keyed = keyed_products(store, product_key).drop_columns([schema.IMAGE_ID])
    products = active_pictures(store, [schema.PRODUCT_ID, schema.IMAGE_ID])
    products = products.filter(products.column(schema.IMAGE_ID).is_valid())
    at = pc.index_in(products.column(schema.PRODUCT_ID), value_set=keyed.column(schema.PRODUCT_ID))
    products = keyed.take(at).append_column(schema.IMAGE_ID, products.column(schema.IMAGE_ID))
    images = products.column(schema.IMAGE_ID)
    measured = [schema.IMAGE_ID, schema.PLAIN, schema.BRIGHTNESS, schema.FOREGROUND]
    grounds = delta.read(store, schema.GROUNDS, measured, stage_version=ground_version)
    persons = doubted = None
    if detector:
        found = (
            _among(store, table, columns, images, stage_version=detector)
            for table, columns in (
                (schema.GARMENTS, [schema.IMAGE_ID, schema.CATEGORY, schema.BOX]),
                (schema.LOOKS, [schema.IMAGE_ID, schema.CROP_SOURCE]),
            )
        )
        persons = persons_of(*found)
    if classifier:
        doubted = _doubted(store, products, classifier, check_mapping(classes))
    rows = choose(products.select([PRODUCT_KEY, schema.IMAGE_ID]), grounds, persons, doubted)
    return snapshot.written(store, schema.REPRESENTATIVES, Made(rows), lineage)


def _among(store: str, table: schema.Table, columns: list[str], images: pa.ChunkedArray, **partition: str) -> pa.Table:
    """Rows of these images only, in batches."""
    parts = delta.parts(delta.open_table(store, table), **partition)
    empty = table.empty(columns)
    batches = delta.read_batches(store, table, columns, parts, batch_rows=1_000_000)  # each look-up hashes all images
    return pa.concat_tables([empty, *(b.filter(pc.is_in(b.column(columns[0]), value_set=images)) for b in batches)])


def _doubted(store: str, products: pa.Table, classifier: str, mapping: Mapping[str, str]) -> pl.DataFrame:
    """image_id of pictures that the classifier confidently puts into another class than the shop does."""
    columns = [schema.OWNER_ID, schema.CATEGORY, schema.ACCEPTED]
    said = pl.from_arrow(
        _among(store, schema.CLASSIFICATIONS, columns, products.column(schema.IMAGE_ID), model_version=classifier)
    )
    rows = pl.from_arrow(products.select([schema.IMAGE_ID, schema.CATEGORY])).rename({schema.CATEGORY: "word"})
    words = rows.select("word").unique()
    words = words.with_columns(expected=pl.Series([class_of(w, mapping) for w in words["word"].to_list()], dtype=pl.String))
    rows = rows.join(words, on="word").join(said, left_on=schema.IMAGE_ID, right_on=schema.OWNER_ID)
    return rows.filter(~pl.col(schema.ACCEPTED) | (pl.col(schema.CATEGORY) != pl.col("expected"))).select(schema.IMAGE_ID)
