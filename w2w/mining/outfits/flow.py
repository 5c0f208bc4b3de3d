"""Inputs of outfits from the store: slots of cut-outs, splits of photos, near-duplicates; and writing the outfits. All of it in
the driver."""

from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from w2w import schema, storage
from w2w.engine.snapshot import Made, written
from w2w.errors import RejectCode
from w2w.garments.masks import BOXES, RATIOS
from w2w.garments.taxonomy import DRESS
from w2w.mining.catalog import POST, PRODUCT, keyed_products, owner_splits
from w2w.mining.outfits.page import Piece, Worn
from w2w.mining.outfits.rules import SHARED, SLOTS_SCHEMA, Modified, modified_rows, slots_of, sources_of, worn_rows
from w2w.mining.tags import PRODUCT_KEY
from w2w.stage import REJECTED_SCHEMA
from w2w.table import delta
from w2w.table.current import current_posts
from w2w.table.parts import Output, write_part
from w2w.table.pending import lookup
from w2w.table.permitted import Permitted
from w2w.table.sink import Lineage

_LEAVES = [f"{schema.SLOTS}.list.element.{c}" for c in (schema.SLOT, schema.BOX, schema.CROP_SOURCE)]


def cut_out_slots(store: str, version: str, crop_sources: Sequence[str] | None) -> tuple[pl.DataFrame, list[str]]:
    """``slots_of`` every cut-out of a stage version, and the sources that count: ``crop_sources``, or by default boxes if a
    detector guided the cut-outs, otherwise ratios. Only the slots' names and boxes are read from the files, never a picture."""
    system, root = storage.filesystem(delta.uri(store, schema.CUTOUTS))
    tables = [SLOTS_SCHEMA.empty_table()]
    for part in delta.parts(delta.open_table(store, schema.CUTOUTS), stage_version=version):
        with delta.open_part(system, f"{root}/{part.path}") as file:
            tables.append(file.read(columns=[schema.IMAGE_ID, *_LEAVES]).cast(SLOTS_SCHEMA))
    guided = any({BOXES, DRESS} & sources_of(t) for t in tables)
    chosen = list(crop_sources or ([BOXES] if guided else [RATIOS]))
    return pl.concat([slots_of(t, chosen) for t in tables]), chosen


def without_refused(photos: pl.DataFrame, may: Permitted) -> tuple[pl.DataFrame, list[tuple[str, str, str]]]:
    """The photos that may be used, and a reject (image_id, code, detail) for each other."""
    known = may.mask(photos.get_column(schema.IMAGE_ID).to_arrow().cast(pa.string()))
    why = "the photo may not be used for training: see table `permissions`"
    out = photos.filter(pl.Series(~known)).get_column(schema.IMAGE_ID).to_list()
    return photos.filter(pl.Series(known)), [(image, RejectCode.NOT_PERMITTED.value, why) for image in out]


def overlap(photos: pl.DataFrame) -> tuple[int, float]:
    """How many of ``slots_of``'s rows have crops that share pixels, and the largest share of the smaller crop. The current
    ``segment`` makes none."""
    shared = photos.get_column(SHARED)
    return int((shared > 0).sum()), float(shared.max() or 0.0)


def owned_splits(store: str, product_key: Sequence[str]) -> tuple[pl.DataFrame, int]:
    """image_id and split of the newest active rows of posts and products, and how many of those have no split yet."""
    posts = pl.from_arrow(current_posts(store, [schema.POST_ID, schema.IMAGE_ID, schema.ACTIVE]))
    shown = {
        POST: posts.filter(pl.col(schema.ACTIVE)).rename({schema.POST_ID: schema.OWNER_ID}),
        PRODUCT: pl.from_arrow(keyed_products(store, product_key)).rename({PRODUCT_KEY: schema.OWNER_ID}),
    }
    known = []
    for kind, rows in shown.items():
        splits = pl.from_arrow(owner_splits(store, kind))
        rows = rows.select(schema.OWNER_ID, schema.IMAGE_ID).drop_nulls(schema.IMAGE_ID)
        known.append(rows.join(splits, on=schema.OWNER_ID, how="left", maintain_order="left"))
    both = pl.concat(known)
    owned = both.drop_nulls(schema.SPLIT).select(schema.IMAGE_ID, schema.SPLIT)
    return owned, both.height - owned.height


def clusters(store: str) -> pl.DataFrame:
    return pl.from_arrow(delta.read(store, schema.DUPLICATES, [schema.IMAGE_ID, schema.CLUSTER_ID]))


def write_outfits(
    store: str, worn: pl.DataFrame, modified: Modified, rejected: Sequence[tuple[str, str, str]], lineage: Lineage
) -> list[dict]:
    """Writes the parts of a snapshot: a worn outfit or a reject for each photo, with its modified outfits. Returns their
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
    """The first ``count`` worn outfits by id, with their modified outfits and crops, for a page."""
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
