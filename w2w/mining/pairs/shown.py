"""Contents of the mining report, looked up in the tables: a fixed sample, the same every time, and only its pictures."""

from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from w2w import ids, schema, storage
from w2w.errors import RejectCode, UsageError
from w2w.garments.page import Box, Seen, colours_of
from w2w.garments.taxonomy import CATEGORIES
from w2w.mining.pairs.page import Counted, Pair, Reason, Rejected, Side, mining_report
from w2w.mining.pairs.rules import parts_of_tag
from w2w.table import delta, snapshot
from w2w.table.current import current_products
from w2w.table.pending import lookup, values_by_key

_EACH = 6  # examples per reason, at most
_MEANINGS = {  # the reason, and what to do about it
    RejectCode.UNKNOWN_PRODUCT: (
        "The tag names a product that the catalog does not have.",
        "Is the whole feed ingested, and are withdrawn products kept? Then the post is older than the catalog: nothing to do.",
    ),
    RejectCode.NO_CATEGORY: (
        "The product's class is not mined.",
        "Name what the feed's categories are with --classes, or run 'w2w classify' and give --classifier=auto.",
    ),
    RejectCode.NO_PHOTO: ("There is no picture of the product.", "'w2w tables --rejects' says why its picture was not loaded."),
    RejectCode.TOO_SMALL: (
        "The product's picture is too small to learn from.",
        "Have the feed name larger pictures; --rules.thumbnail_px is the limit.",
    ),
    RejectCode.NO_SPLIT: (
        "The post or the product came after the splits were made.",
        "Run 'w2w split' again, then 'w2w mine'.",
    ),
    RejectCode.CROSSES_SPLIT: (
        "Tags connect so many posts and products that they did not fit into one split. They were cut where few tags are "
        "lost; these are the tags across the cut, which as pairs would leak test products into training.",
        "Nothing, if the pairs that are left suffice; a larger --split.max_component of 'w2w split' cuts less.",
    ),
    RejectCode.NOT_DETECTED: (
        "The detector found no garment of the product's class in the photo.",
        "Look at the photos below. If the garment is there, run 'w2w detect' with a lower --detector.threshold and 'w2w mine' "
        "with --rules.sure_score, or use a better detector.",
    ),
    RejectCode.AMBIGUOUS: (
        "Several garments or several tags of one class: there is no telling which is which.",
        "--gate.matches=ambiguous lets similarity decide (embed the garments first).",
    ),
    RejectCode.DISSIMILAR: (
        "Garment and product look too different: a wrong tag, or a garment that is hardly seen.",
        "Nothing, if the examples below are wrong pairs. If they are right ones, raise --gate.max_share.",
    ),
    RejectCode.NO_VECTOR: (
        "Similarity has to decide, but there are no vectors to compare.",
        "Run 'w2w embed' for products and 'w2w embed --of=garments' with the same encoder.",
    ),
    RejectCode.JUDGED_OTHER: (
        "Somebody looked at search results and judged that this garment is another product, or none of the shop's.",
        "Nothing; a wrong click is taken back by a newer judgement on the page of 'w2w search --of=garments'.",
    ),
    RejectCode.REPEATED: ("The same photo and product came from another post: one pair is enough.", "Nothing."),
}


def report_mining(store: str, out: str, shown: int) -> str:
    """Writes the page for the current tables: pairs, their rejects, and negatives if they match; returns its path.

    In memory: about 150 bytes per pair and rejected tag, and the pictures shown.
    """
    made = snapshot.current(store, schema.PAIRS)
    if made is None:
        raise UsageError(f"there are no pairs at {store!r}: run 'w2w mine' first")
    columns = [c for c in schema.PAIRS.schema.names if c not in (schema.ANCHOR_IMAGE_ID, schema.SOURCE)]
    pairs = pl.from_arrow(delta.read(store, schema.PAIRS, columns))
    rejects = _rejects(store, made["stage_version"])
    table = pairs.group_by(schema.CATEGORY, schema.SPLIT).len().to_dicts()
    counted = Counted(
        {
            c: {r[schema.SPLIT]: r["len"] for r in table if r[schema.CATEGORY] == c}
            for c in sorted({r[schema.CATEGORY] for r in table})
        },
        dict(sorted(pairs.group_by(schema.RULE).len().iter_rows())),
    )
    per_class = -(-shown // max(1, len(counted.table)))
    sample = pairs.with_columns(hash=_hashes(pairs[schema.PAIR_ID])).sort("hash")
    sample = sample.group_by(schema.CATEGORY, maintain_order=True).head(per_class).sort(schema.CATEGORY, "hash").head(2 * shown)
    negatives = _negatives(store, sample[schema.PAIR_ID].to_list())
    posts = _posts(store)
    reasons = _reasons(store, made, rejects, posts, min(shown, _EACH))
    facts = {"pairs": f"version {delta.existing(store, schema.PAIRS).version()}", "made by": made["run_id"]}
    facts |= {"detector": made["config"]["detector"], "store": store}
    headline = {"pairs": f"{len(pairs):,}", "rejected tags": f"{len(rejects):,}"}
    headline |= {"products": f"{pairs[schema.PRODUCT_ID].n_unique():,}", "posts": f"{pairs[schema.POST_ID].n_unique():,}"}
    drawn = _pairs(store, sample.to_dicts(), negatives, posts)
    page = storage.absolute(out)
    hardened = [p for p in drawn if p.negatives]
    mining_report(page, headline, facts, counted, reasons, drawn, hardened[:shown], colours_of(CATEGORIES))
    return page


def _hashes(column: pl.Series) -> pl.Series:
    return pl.Series("hash", ids.hash_keys(column.to_arrow().cast(pa.string())), dtype=pl.UInt64)


def _rejects(store: str, version: str) -> pl.DataFrame:
    columns = [schema.KEY, schema.STAGE_VERSION, schema.REJECT_CODE, schema.REJECT_DETAIL, schema.SOURCE]
    found = pl.from_arrow(delta.read(store, schema.REJECTS, columns, stage="mine"))
    return found.filter(pl.col(schema.STAGE_VERSION) == version).unique(schema.KEY).sort(schema.KEY)


def _posts(store: str) -> pl.DataFrame:
    """The newest row of each post: post_id, url, image_id, product_ids."""
    columns = [schema.POST_ID, schema.URL, schema.IMAGE_ID, schema.PRODUCT_IDS, schema.FETCHED_AT]
    rows = pl.from_arrow(delta.read(store, schema.POSTS, columns))
    return rows.sort(schema.POST_ID, schema.FETCHED_AT).unique(schema.POST_ID, keep="last", maintain_order=True)


def _titles(store: str, wanted: Sequence[str]) -> dict[str, str]:
    """The shop's titles of these products (or of the products of these images)."""
    products = pl.from_arrow(current_products(store, [schema.PRODUCT_ID, schema.IMAGE_ID, schema.TITLE]))
    titles: dict[str, str] = {}
    for column in (schema.IMAGE_ID, schema.PRODUCT_ID):
        rows = products.filter(pl.col(column).is_in(list(wanted))).drop_nulls(schema.TITLE)
        titles |= dict(zip(rows[column].to_list(), rows[schema.TITLE].to_list()))
    return titles


def _negatives(store: str, pair_ids: list[str]) -> dict[str, list[dict]]:
    if delta.open_table(store, schema.NEGATIVES) is None:
        return {}
    found = lookup(store, schema.NEGATIVES, pa.array(pair_ids, pa.string()), [schema.PAIR_ID, schema.NEGATIVES_LIST])
    return dict(zip(found.column(0).to_pylist(), found.column(1).to_pylist()))


def _pairs(store: str, rows: list[dict], negatives: dict[str, list[dict]], posts: pl.DataFrame) -> list[Pair]:
    others = [n[schema.IMAGE_ID] for found in negatives.values() for n in found]
    images = [r[schema.IMAGE_ID] for r in rows] + others
    pictures = values_by_key(store, schema.IMAGES, images, schema.BYTES)
    crops = values_by_key(store, schema.GARMENTS, [r[schema.GARMENT_ID] for r in rows], schema.CROP)
    titles = _titles(store, images)
    urls = dict(zip(posts[schema.POST_ID].to_list(), posts[schema.URL].to_list()))

    def product(row: dict, note: str) -> Side:
        image = row[schema.IMAGE_ID]
        return Side(titles.get(image) or row[schema.PRODUCT_ID], pictures.get(image), note)

    shown = []
    for r in rows:
        facts = [f"rule {r[schema.RULE]}", f"score {r[schema.SCORE]:.2f}"]
        facts += [f"cosine {r[schema.SIMILARITY]:.2f}"] if r[schema.SIMILARITY] is not None else []
        beside = [
            product(n, f"cosine {n[schema.SCORE]:.2f}, rank {n[schema.RANK]}") for n in negatives.get(r[schema.PAIR_ID], [])
        ]
        anchor = Side(r[schema.POST_ID], crops.get(r[schema.GARMENT_ID]))
        positive = product(r, r[schema.PRODUCT_ID])
        shown.append(Pair(r[schema.CATEGORY], r[schema.SPLIT], anchor, positive, facts, beside, urls.get(r[schema.POST_ID])))
    return shown


def _reasons(store: str, made: dict, rejects: pl.DataFrame, posts: pl.DataFrame, shown: int) -> list[Reason]:
    """Every reason with examples: the photo with its garments, and the catalog's product."""
    counts = dict(rejects.group_by(schema.REJECT_CODE).len().iter_rows())
    some = rejects.with_columns(_hashes(rejects[schema.KEY])).sort("hash")
    some = some.group_by(schema.REJECT_CODE, maintain_order=True).head(shown)
    tags = [(*parts_of_tag(row[schema.KEY]), row) for row in some.to_dicts()]
    rows = {p[schema.POST_ID]: p for p in posts.filter(pl.col(schema.POST_ID).is_in([t[0] for t in tags])).to_dicts()}
    representative = lookup(
        store, schema.REPRESENTATIVES, pa.array(sorted({t[1] for t in tags}), pa.string()), [schema.PRODUCT_ID, schema.IMAGE_ID]
    )
    image_of = dict(zip(representative.column(0).to_pylist(), representative.column(1).to_pylist()))
    photos = [rows[t[0]][schema.IMAGE_ID] for t in tags if t[0] in rows]
    pictures = values_by_key(store, schema.IMAGES, [*photos, *image_of.values()], schema.BYTES)
    boxes = _boxes(store, photos, made["config"]["detector"])
    titles = _titles(store, list(image_of.values()))
    examples: dict[str, list[Rejected]] = {}
    for post_id, product, row in tags:
        photo = rows.get(post_id, {}).get(schema.IMAGE_ID)
        image = image_of.get(product)
        seen = Seen(photo, pictures[photo], boxes.get(photo, [])) if photo in pictures else None
        side = Side(titles.get(image) or product, pictures.get(image), product) if image else Side(product, None, product)
        example = Rejected(row[schema.REJECT_DETAIL], seen, side, row[schema.SOURCE])
        examples.setdefault(row[schema.REJECT_CODE], []).append(example)
    ordered = sorted(counts.items(), key=lambda kv: (-kv[1], kv[0]))
    return [Reason(code, *_MEANINGS.get(RejectCode(code), ("", "")), n, examples.get(code, [])) for code, n in ordered]


def _boxes(store: str, photos: Sequence[str], version: str) -> dict[str, list[Box]]:
    """The garments that this stage version found in the photos."""
    columns = [schema.IMAGE_ID, schema.CATEGORY, schema.ORIGINAL_LABEL, schema.SCORE, schema.BOX]
    found: dict[str, list[Box]] = {}
    listed = delta.parts(delta.open_table(store, schema.GARMENTS), **{schema.STAGE_VERSION: version})
    wanted = pl.Series(sorted(set(photos)), dtype=pl.String)
    for batch in delta.read_batches(store, schema.GARMENTS, columns, listed):
        for g in pl.from_arrow(batch).filter(pl.col(schema.IMAGE_ID).is_in(wanted.implode())).to_dicts():
            box = Box(g[schema.CATEGORY], g[schema.ORIGINAL_LABEL], g[schema.SCORE], tuple(g[schema.BOX]))
            found.setdefault(g[schema.IMAGE_ID], []).append(box)
    return found
