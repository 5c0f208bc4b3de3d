"""Inputs of the mining jobs: products with class, picture and split; superseded posts; checks of required snapshots."""

from collections.abc import Mapping, Sequence

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.errors import UsageError
from w2w.garments.classifier import check_mapping, class_of
from w2w.garments.taxonomy import CATEGORIES
from w2w.mining.identity import product_keys
from w2w.mining.tags import CALLED, CATALOG_SCHEMA, PRODUCT_KEY, SIDE_PX
from w2w.table import delta, snapshot
from w2w.table.current import CurrentRows, current_products
from w2w.table.delta import need_table, newest_version

_KEYS_AT_ONCE = 1_000_000  # each batch's look-up hashes all keys sought

PRODUCT, POST = "product", "post"  # values of `owner_kind` in `splits`


def snapshot_version(code: int, options: object, store: str, inputs: Sequence[schema.Table]) -> str:
    """Digest of a snapshot job's code, its options and the versions of its inputs."""
    opened = {t.name: delta.open_table(store, t) for t in inputs}
    return ids.digest(code, options, {name: t.version() for name, t in opened.items() if t is not None})


def is_current(store: str, table: schema.Table, version: str) -> bool:
    """Whether the table already holds the snapshot that this run would make."""
    made = snapshot.current(store, table)
    return made is not None and made["stage_version"] == version


def chosen_version(store: str, table: schema.Table, asked: str, option: str) -> str | None:
    """The version of ``table`` that an option names: itself, the newest for auto (None if there is none), None for none.

    Raises UsageError if the table has no rows of that version.
    """
    if asked == "none":
        return None
    if asked == "auto":
        return newest_version(store, table)
    (column,) = table.partition_by
    if not delta.count_rows(delta.open_table(store, table), **{column: asked}):
        raise UsageError(f"--{option}={asked}: table {table.name!r} has no rows of that version; auto takes the newest")
    return asked


def check_product_key(store: str, table: schema.Table, product_key: Sequence[str], made_by: str) -> None:
    """Raises UsageError if the snapshot is missing, or was made with another product key."""
    need_table(store, table, made_by)
    made = snapshot.current(store, table)
    known = list((made or {}).get("config", {}).get("product_key", product_key))
    if known != list(product_key):
        raise UsageError(
            f"table {table.name!r} was made with --product_key={known}, and this is --product_key={list(product_key)}: give "
            f"the same one, or run 'w2w {made_by}' again with it"
        )


def keyed_products(store: str, product_key: Sequence[str]) -> pa.Table:
    """product_id, product_key, category (the shop's own) and image_id of the active products, sorted by product_id.

    In memory: about 200 bytes per catalog row, plus the attributes while the keys are built.
    """
    columns = [
        schema.PRODUCT_ID,
        schema.CATEGORY,
        schema.IMAGE_ID,
        schema.ACTIVE,
        *([schema.ATTRIBUTES] if product_key else []),
    ]
    products = current_products(store, columns)
    products = products.filter(products.column(schema.ACTIVE))
    keys = product_keys(products, product_key)
    return products.select([schema.PRODUCT_ID, schema.CATEGORY, schema.IMAGE_ID]).append_column(PRODUCT_KEY, keys)


def read_catalog(store: str, product_key: Sequence[str], classes: Mapping[str, str] | None, classifier: str | None) -> pa.Table:
    """CATALOG_SCHEMA: every active product, as mining sees it. A product's class is that of its representative image if a
    ``classifier`` (a version of table `categories`) is given, otherwise the shop's own category mapped by ``classes``.

    In memory: about 350 bytes per catalog row, and 80 bytes per image while sizes are read.
    """
    products = pl.from_arrow(keyed_products(store, product_key)).drop(schema.IMAGE_ID)
    chosen = delta.read(store, schema.REPRESENTATIVES, [schema.PRODUCT_ID, schema.IMAGE_ID])
    chosen = pl.from_arrow(chosen).rename({schema.PRODUCT_ID: PRODUCT_KEY})
    chosen = chosen.join(_sides(store, chosen[schema.IMAGE_ID].to_arrow()), on=schema.IMAGE_ID, how="left")
    products = products.join(chosen, on=PRODUCT_KEY, how="left")
    if classifier:
        products = _classified(store, products, classifier)
    else:
        products = _named(products, check_mapping(classes or {}))
    splits = pl.from_arrow(owner_splits(store, PRODUCT)).rename({schema.OWNER_ID: PRODUCT_KEY})
    products = products.join(splits, on=PRODUCT_KEY, how="left").sort(schema.PRODUCT_ID)
    return products.select(CATALOG_SCHEMA.names).to_arrow().cast(CATALOG_SCHEMA)


def _named(products: pl.DataFrame, mapping: Mapping[str, str]) -> pl.DataFrame:
    words = products.select(schema.CATEGORY).unique()
    known = [class_of(word, mapping) for word in words[schema.CATEGORY].to_list()]
    words = words.with_columns(found=pl.Series([c if c in CATEGORIES else None for c in known], dtype=pl.String))
    products = products.join(words, on=schema.CATEGORY, how="left", nulls_equal=True)
    return products.with_columns(
        pl.format("the shop calls it {}; --classes says what that is", schema.CATEGORY).alias(CALLED),
        # rows of one product may have different categories: the first one counts
        pl.col("found").sort_by(schema.PRODUCT_ID).first().over(PRODUCT_KEY).alias(schema.CATEGORY),
    )


def _classified(store: str, products: pl.DataFrame, version: str) -> pl.DataFrame:
    columns = [schema.OWNER_ID, schema.CATEGORY, schema.SCORE, schema.ACCEPTED]
    said = pl.from_arrow(delta.read(store, schema.CLASSIFICATIONS, columns, model_version=version))
    said = said.filter(pl.col(schema.OWNER_ID).is_in(products[schema.IMAGE_ID].implode())).rename(
        {schema.OWNER_ID: schema.IMAGE_ID}
    )
    said = said.unique(schema.IMAGE_ID).with_columns(
        pl.format("the classifier says {} with {}", schema.CATEGORY, pl.col(schema.SCORE).round(2)).alias(CALLED),
        pl.when(pl.col(schema.ACCEPTED) & pl.col(schema.CATEGORY).is_in(list(CATEGORIES))).then(schema.CATEGORY).alias("found"),
    )
    products = products.join(said.select(schema.IMAGE_ID, CALLED, "found"), on=schema.IMAGE_ID, how="left")
    return products.with_columns(
        pl.col("found").alias(schema.CATEGORY),
        pl.col(CALLED).fill_null("its image was not classified: run 'w2w embed' and 'w2w classify'"),
    )


def _sides(store: str, image_ids: pa.ChunkedArray) -> pl.DataFrame:
    """image_id and side_px, the shorter side, of these images."""
    columns = [schema.IMAGE_ID, schema.WIDTH, schema.HEIGHT]
    found = [schema.IMAGES.empty(columns)]
    listed = delta.parts(delta.open_table(store, schema.IMAGES))
    for batch in delta.read_batches(store, schema.IMAGES, columns, listed, _KEYS_AT_ONCE):
        found.append(batch.filter(pc.is_in(batch.column(schema.IMAGE_ID), value_set=image_ids)))
    side = pl.min_horizontal(schema.WIDTH, schema.HEIGHT).alias(SIDE_PX)
    return pl.from_arrow(pa.concat_tables(found)).unique(schema.IMAGE_ID).select(schema.IMAGE_ID, side)


def owner_splits(store: str, kind: str) -> pa.Table:
    """owner_id and split of all products or posts: about 50 bytes each."""
    columns = [schema.OWNER_ID, schema.OWNER_KIND, schema.SPLIT]
    listed = delta.parts(delta.open_table(store, schema.SPLITS))
    found = [schema.SPLITS.empty(columns)]
    for batch in delta.read_batches(store, schema.SPLITS, columns, listed):
        found.append(batch.filter(pc.equal(batch.column(schema.OWNER_KIND), kind)))
    return pa.concat_tables(found).select([schema.OWNER_ID, schema.SPLIT])


def superseded_posts(store: str) -> pa.Table:
    """post_id and fetched_at of rows that a newer row of the same post replaces.

    In memory: 16 bytes per row of `posts`, and the rows of the few posts that have several.
    """
    columns = [schema.POST_ID, schema.FETCHED_AT]
    rows = pl.from_arrow(CurrentRows(store, schema.POSTS).several(columns))
    newest = pl.col(schema.FETCHED_AT).max().over(schema.POST_ID)
    fields = schema.POSTS.fields(columns)
    return rows.filter(pl.col(schema.FETCHED_AT) < newest).to_arrow().cast(fields)
