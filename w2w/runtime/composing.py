"""What outfits are made from, read out of the store: slots of cut-outs, splits of photos, near-duplicates; and the outfits
written. All of it in the driver."""

from collections.abc import Sequence

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from w2w import schema, storage
from w2w.errors import UsageError
from w2w.mining.identity import product_keys
from w2w.mining.outfits import BOXES, RATIOS, SLOTS_SCHEMA, Modified, modified_rows, slots_of, sources_of, worn_rows
from w2w.report.outfits import Piece, Worn
from w2w.runtime.job import need_table
from w2w.runtime.snapshot import Made, written
from w2w.runtime.stage import REJECTED_SCHEMA
from w2w.table import delta, snapshot
from w2w.table.pending import lookup
from w2w.table.sink import Lineage, Output, write_part

_LEAVES = [f"{schema.SLOTS}.list.element.{c}" for c in (schema.SLOT, schema.BOX, schema.CROP_SOURCE)]


def cut_out_slots(store: str, version: str, crop_sources: Sequence[str] | None) -> tuple[pl.DataFrame, list[str]]:
    """``slots_of`` every cut-out of a stage version, and the sources that count: ``crop_sources``, or by default boxes where a
    detector guided the cut-outs, else ratios. Of the files only the slots' names and boxes are read, never a picture."""
    system, root = storage.filesystem(delta.uri(store, schema.CUTOUTS))
    tables = [SLOTS_SCHEMA.empty_table()]
    for part in delta.parts(delta.open_table(store, schema.CUTOUTS), stage_version=version):
        with pq.ParquetFile(f"{root}/{part.path}", filesystem=system) as file:
            tables.append(file.read(columns=[schema.IMAGE_ID, *_LEAVES]).cast(SLOTS_SCHEMA))
    chosen = list(crop_sources or ([BOXES] if any(BOXES in sources_of(t) for t in tables) else [RATIOS]))
    return pl.concat([slots_of(t, chosen) for t in tables]), chosen


def check_product_key(store: str, table: schema.Table, product_key: Sequence[str] | None, made_by: str) -> None:
    """Raises UsageError where the snapshot is not there, or was made with other products in mind (None: of no matter)."""
    need_table(store, table, made_by)
    made = snapshot.current(store, table)
    before = (made or {}).get("config", {}).get("product_key", [])
    if made is None:
        raise UsageError(f"table {table.name!r} holds nothing yet: run 'w2w {made_by}' first")
    if product_key is not None and list(before) != list(product_key):
        raise UsageError(
            f"table {table.name!r} was made with --product_key={before}, and this is asked with {list(product_key)}: give the "
            f"same, or run 'w2w {made_by}' with this one first"
        )


def owned_splits(store: str, product_key: Sequence[str]) -> tuple[pl.DataFrame, int]:
    """image_id and split of the newest active rows of posts and products, and how many of those have no split yet."""
    splits = pl.from_arrow(delta.read(store, schema.SPLITS, [schema.OWNER_ID, schema.OWNER_KIND, schema.SPLIT]))
    posts = _newest_posts(store).select(pl.col(schema.POST_ID).alias(schema.OWNER_ID), schema.IMAGE_ID)
    columns = [schema.PRODUCT_ID, schema.IMAGE_ID, schema.ACTIVE, *([schema.ATTRIBUTES] if product_key else [])]
    listed = delta.current_products(store, columns)
    listed = listed.append_column(schema.OWNER_ID, product_keys(listed, product_key)).select(
        [schema.OWNER_ID, schema.IMAGE_ID, schema.ACTIVE]
    )
    products = pl.from_arrow(listed).filter(pl.col(schema.ACTIVE)).drop(schema.ACTIVE)
    both = pl.concat(
        [rows.with_columns(pl.lit(kind).alias(schema.OWNER_KIND)) for kind, rows in (("post", posts), ("product", products))]
    )
    both = both.filter(pl.col(schema.IMAGE_ID).is_not_null())
    known = both.join(splits, on=[schema.OWNER_ID, schema.OWNER_KIND], how="left", maintain_order="left")
    owned = known.filter(pl.col(schema.SPLIT).is_not_null()).select(schema.IMAGE_ID, schema.SPLIT)
    return owned, known.height - owned.height


def _newest_posts(store: str) -> pl.DataFrame:
    names = [schema.POST_ID, schema.IMAGE_ID, schema.ACTIVE, schema.FETCHED_AT]
    posts = pl.from_arrow(delta.read(store, schema.POSTS, names)).sort(schema.POST_ID, schema.FETCHED_AT)
    return posts.unique(schema.POST_ID, keep="last", maintain_order=True).filter(pl.col(schema.ACTIVE))


def clusters(store: str) -> pl.DataFrame:
    return pl.from_arrow(delta.read(store, schema.DUPLICATES, [schema.IMAGE_ID, schema.CLUSTER_ID]))


def write_outfits(
    store: str, worn: pl.DataFrame, modified: Modified, rejected: Sequence[tuple[str, str, str]], lineage: Lineage
) -> list[dict]:
    """Writes the parts of a snapshot: worn outfits and rejects one for each photo, modified outfits beside them. Returns their
    receipts; ``rejected`` is (image_id, code, detail)."""
    rows = [dict(zip(REJECTED_SCHEMA.names, (key, None, code, detail, lineage.stage))) for key, code, detail in rejected]
    bad = pa.Table.from_pylist(rows, schema=REJECTED_SCHEMA)
    receipts = written(store, schema.OUTFITS, Made(schema.OUTFITS.schema.empty_table(), bad, len(rows)), lineage)
    for batch in worn_rows(worn):
        receipts += written(store, schema.OUTFITS, Made(batch), lineage)
    for batch in modified_rows(worn, modified):
        receipts += write_part(store, Output(schema.OUTFITS), batch, lineage.run_id)
    return receipts


def shown_outfits(store: str, version: str, count: int) -> list[Worn]:
    """The first ``count`` worn outfits by id, with what was made of them and their crops, for a page."""
    rows = delta.read(store, schema.OUTFITS, [*schema.OUTFITS.schema.names], source=schema.OWN)
    found = pl.from_arrow(rows.select([schema.OUTFIT_ID, schema.MODIFIED_OF]))
    first = found.filter(pl.col(schema.MODIFIED_OF).is_null()).get_column(schema.OUTFIT_ID).sort().head(count)
    chosen = found.select(pl.col(schema.OUTFIT_ID).is_in(first.implode()) | pl.col(schema.MODIFIED_OF).is_in(first.implode()))
    chosen = rows.filter(chosen.to_series().fill_null(value=False).to_arrow()).to_pylist()
    images = pa.array(sorted({item[schema.IMAGE_ID] for row in chosen for item in row[schema.ITEMS]}), pa.string())
    cutouts = lookup(store, schema.CUTOUTS, images, [schema.IMAGE_ID, schema.SLOTS], stage_version=version)
    crops = {
        f"{cut[schema.IMAGE_ID]}:{slot[schema.SLOT]}": (slot[schema.CROP], slot[schema.CROP_SOURCE])
        for cut in cutouts.to_pylist()
        for slot in cut[schema.SLOTS]
    }

    def pieces(row: dict) -> tuple[Piece, ...]:
        replaced = set(row[schema.REPLACED])
        return tuple(
            Piece(i[schema.SLOT], i[schema.CATEGORY], *crops[i[schema.ITEM_ID]], i[schema.SLOT] in replaced)
            for i in row[schema.ITEMS]
        )

    made: dict[str, list] = {outfit_id: [] for outfit_id in first}
    worn = {}
    for row in sorted(chosen, key=lambda r: r[schema.OUTFIT_ID]):
        if row[schema.MODIFIED_OF] is None:
            worn[row[schema.OUTFIT_ID]] = row
        else:
            made[row[schema.MODIFIED_OF]].append(pieces(row))
    return [Worn(i, worn[i][schema.SPLIT], pieces(worn[i]), tuple(made[i])) for i in first]
