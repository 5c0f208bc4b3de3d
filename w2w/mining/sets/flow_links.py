"""Links between the store's own products into table `outfits`: a snapshot of their own."""

from collections.abc import Mapping

from w2w import ids, schema
from w2w.engine.job import Run
from w2w.engine.snapshot import commit_snapshot, written
from w2w.garments.classifier import check_mapping, class_of
from w2w.mining.sets import SetConfig
from w2w.mining.sets import rows as of
from w2w.mining.sets.flow import made
from w2w.mining.sets.links import Link, Links, Sold, outfits
from w2w.stage import Counts
from w2w.table import delta, snapshot
from w2w.table.current import current_products
from w2w.table.tolerance import Tolerance


def sold_in(store: str, key: str | None, classes: Mapping[str, str] | None) -> dict[str, Sold]:
    """The active products by the name that links have for them: ``product_id``, or an attribute, of whose products the first
    with a picture counts. About 300 bytes each."""
    delta.need_table(store, schema.PRODUCTS, "ingest")
    columns = [schema.PRODUCT_ID, schema.IMAGE_ID, schema.CATEGORY, schema.ATTRIBUTES, schema.ACTIVE]
    mapping, found = check_mapping(classes or {}), dict[str, Sold]()
    for row in current_products(store, columns).sort_by(schema.PRODUCT_ID).to_pylist():
        name = dict(row[schema.ATTRIBUTES] or []).get(key) if key else row[schema.PRODUCT_ID]
        if row[schema.ACTIVE] and name and (name not in found or found[name].image_id is None):
            found[name] = Sold(row[schema.IMAGE_ID], class_of(row[schema.CATEGORY], mapping))
    return found


def write_links(
    run: Run, public: Links, config: SetConfig, version: str, tolerance: Tolerance, dry_run: bool
) -> tuple[Counts, dict[str, int], int, bool]:
    """Counts, the table's version, its rows, and whether they were there before. Raises JobFailed, and leaves the table as it
    was, above ``tolerance``."""
    links = list(public.read())
    sold = sold_in(run.store, config.key, config.classes)
    named = {name for link in links for name in (link.product, link.linked)}
    there = [(name, sold[name]) for name in sorted(named & sold.keys())]
    stage_version = ids.digest(version, config.key, config.kinds, [_told(link) for link in links], there)
    before = snapshot.current(run.store, schema.OUTFITS, config.name)
    if before and before["stage_version"] == stage_version:
        return Counts(), {}, before["rows"], True
    rows = list(of.gathered(schema.OUTFITS, outfits(links, sold, config.name, (config.val_share, config.test_share))))
    if dry_run:
        return Counts(), {}, sum(good.num_rows for good, _ in rows), False
    lineage = run.lineage(stage_version, [schema.PRODUCTS])
    receipts = [r for batch in rows for r in written(run.store, schema.OUTFITS, made(schema.OUTFITS, *batch), lineage)]
    counts, versions = commit_snapshot(run.store, schema.OUTFITS, receipts, lineage, tolerance, config.name)
    return counts, versions, counts.out, False


def _told(link: Link) -> tuple[str, ...]:
    return link.where, link.product, link.linked, link.kind, str(link.reject)
