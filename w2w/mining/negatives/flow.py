"""Hard negatives on Ray: joins pairs and the neighbours of their anchors by garment."""

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.engine.exchange import Side
from w2w.engine.shuffle import share, shared
from w2w.engine.snapshot import Made, make_snapshot
from w2w.errors import UsageError
from w2w.mining.negatives.rules import NegativeRules, negatives_of
from w2w.stage import REJECTED_BY, REJECTED_SCHEMA, Counts
from w2w.table import delta
from w2w.table.permitted import TRAINING, Permitted
from w2w.table.sink import Lineage
from w2w.table.tolerance import Tolerance

_PAIRS = (
    *(schema.PAIR_ID, schema.GARMENT_ID, schema.ANCHOR_IMAGE_ID, schema.POST_ID, schema.PRODUCT_ID, schema.IMAGE_ID),
    *(schema.CATEGORY, schema.SPLIT),
)
_NEIGHBOURS = (schema.QUERY_ID, schema.NEIGHBOUR_LIST, schema.INDEX_VERSION)
_ROWS = 100_000  # per bucket: each has a list of k neighbours


def garment_search(store: str, asked: str) -> str:
    """The search version to use: ``asked``, or for auto the newest search of garments. Raises UsageError if there is none."""
    opened = delta.open_table(store, schema.NEIGHBOURS)
    entries = [e["w2w"] for e in (delta.history(opened) if opened is not None else []) if e["w2w"]]
    of_garments = [e["stage_version"] for e in entries if e["config"].get("of") in ("garments", "anchors")]
    found = [version for version in of_garments if asked in ("auto", version)]
    if not found:
        raise UsageError(f"--search_version={asked}: no garments were searched for: run 'w2w search --of garments' first")
    return found[0]


def harden(
    store: str,
    search_version: str,
    catalog: pa.Table,
    rules: NegativeRules,
    use_duplicates: bool,
    lineage: Lineage,
    tolerance: Tolerance,
    may: Permitted = Permitted(TRAINING),
) -> tuple[Counts, dict[str, int]]:
    """Replaces `negatives` for all pairs, of pictures that ``may`` be used. In the object store once: the catalog, and 130
    bytes per image with a duplicate."""
    told = share((catalog, _clusters(store) if use_duplicates else None, rules, may))
    sides = [
        Side(schema.PAIRS, _PAIRS, schema.GARMENT_ID),
        Side(schema.NEIGHBOURS, _NEIGHBOURS, schema.QUERY_ID, partition={schema.SEARCH_VERSION: search_version}),
    ]
    num_buckets = max(1, -(-delta.count_rows(delta.open_table(store, schema.PAIRS)) // _ROWS))
    return make_snapshot(store, schema.NEGATIVES, sides, _make, (told,), lineage, tolerance=tolerance, num_buckets=num_buckets)


def _make(tables: list[pa.Table], told: list) -> Made:
    catalog, duplicates, rules, may = shared(told)
    pairs, neighbours = tables
    rows, rejected, read = negatives_of(pairs, neighbours, catalog, duplicates, rules, may.refused)
    rejected = rejected.append_column(REJECTED_BY, pa.repeat(pa.scalar("harden"), rejected.num_rows))
    return Made(rows, rejected.select(REJECTED_SCHEMA.names).cast(REJECTED_SCHEMA), read)


def _clusters(store: str) -> pa.Table:
    """image_id and cluster_id of the images that have a near-duplicate."""
    columns = [schema.IMAGE_ID, schema.CLUSTER_ID, schema.CLUSTER_SIZE]
    listed = delta.parts(delta.open_table(store, schema.DUPLICATES))
    kept = [b.filter(pc.greater(b.column(2), 1)) for b in delta.read_batches(store, schema.DUPLICATES, columns, listed)]
    return pa.concat_tables([schema.DUPLICATES.empty(columns), *kept]).drop_columns([schema.CLUSTER_SIZE])


def with_all_images(catalog: pa.Table, products: pa.Table) -> pa.Table:
    """The catalog with each row's own image instead of the representative one: all images of a product."""
    own = pl.from_arrow(products).select(schema.PRODUCT_ID, pl.col(schema.IMAGE_ID).alias("own_image"))
    rows = pl.from_arrow(catalog).join(own, on=schema.PRODUCT_ID, how="left")
    return rows.with_columns(pl.col("own_image").alias(schema.IMAGE_ID)).drop("own_image").to_arrow().cast(catalog.schema)
