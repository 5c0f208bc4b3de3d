"""Records of a public set as rows of our tables: products, posts and garments in workers, pairs and outfits in the driver."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa

from w2w import ids, schema
from w2w.errors import Reject, RejectCode
from w2w.garments import boxes
from w2w.garments.stage import ITEMS, garment_id, to_jpeg
from w2w.garments.taxonomy import ETC
from w2w.images.decode import DecodeLimits, decode_many
from w2w.mining.sets.records import Anchor, Item, Outfit, Photo, Question, Shop
from w2w.stage import with_rejects

Row = dict | tuple[str, Reject]  # a row of a table, or the key and reject of an invalid one

ANCHORS = "anchors"
PRODUCT = "product"  # the attribute that identifies a product across pictures: --product_key product
_FULL_PX = 1 << 20  # larger than any picture: a shop's picture is cropped but not shrunk
DIGEST_CHARS = 32
_REJECT = (schema.REJECT_CODE, schema.REJECT_DETAIL)

_ANCHOR = pa.struct([(schema.BOX, schema.XYXY), (schema.CATEGORY, pa.string()), (schema.ORIGINAL_LABEL, pa.string())])
# what a set says of a product or post; workers add what its picture shows
SHOP_SCHEMA = pa.schema(
    [pa.field(schema.KEY, pa.string()), pa.field(schema.BOX, schema.XYXY)]
    + [
        schema.PRODUCTS.schema.field(c)
        for c in schema.PRODUCTS.schema.names
        if c not in (schema.IMAGE_ID, schema.ACTIVE, schema.FETCHED_AT)
    ]
)
PHOTO_SCHEMA = pa.schema(
    [pa.field(schema.KEY, pa.string()), pa.field(ANCHORS, pa.list_(_ANCHOR))]
    + [
        schema.POSTS.schema.field(c)
        for c in schema.POSTS.schema.names
        if c not in (schema.IMAGE_ID, schema.ACTIVE, schema.FETCHED_AT)
    ]
)
ANCHOR_GIVES = pa.schema([pa.field(ITEMS, pa.list_(pa.struct(list(schema.GARMENTS.schema))))])
CUT_GIVES = schema.IMAGES.fields([schema.IMAGE_ID, schema.BYTES, schema.SOURCE_URI])


def shop_rows(shops: Iterable[Shop], catalog: str, version: str, batch_rows: int = 20_000) -> Iterator[pa.Table]:
    """SHOP_SCHEMA. A product of none of our classes is listed as ``etc``; its own label is kept in the attributes."""

    def row(shop: Shop) -> dict:
        said = {PRODUCT: shop.product and f"{catalog}/{shop.product}", "label": shop.label, "source": catalog}
        said |= {schema.SPLIT: shop.split, **dict(shop.notes)}
        product_id, digest = f"{catalog}/{shop.name}", ids.digest(version, shop, length=DIGEST_CHARS)
        return dict.fromkeys(SHOP_SCHEMA.names) | {
            schema.KEY: f"{product_id}@{digest}",
            schema.PRODUCT_ID: product_id,
            schema.TITLE: shop.title,
            schema.CATEGORY: shop.category or ETC,
            schema.ATTRIBUTES: [(name, value) for name, value in said.items() if value],
            schema.BOX: shop.box,
            schema.IMAGE_URI: shop.image_uri,
            schema.IMAGE_FINGERPRINT: "",
            schema.ROW_DIGEST: digest,
        }

    yield from in_batches(map(row, shops), SHOP_SCHEMA, batch_rows)


def photo_rows(photos: Iterable[Photo], catalog: str, version: str, batch_rows: int = 20_000) -> Iterator[pa.Table]:
    """PHOTO_SCHEMA. Anchors of none of our classes are left out; their pairs are rejected when pairs are built."""

    def row(photo: Photo) -> dict:
        post_id, digest = f"{catalog}/{photo.name}", ids.digest(version, photo, length=DIGEST_CHARS)
        return dict.fromkeys(PHOTO_SCHEMA.names) | {
            schema.KEY: f"{post_id}@{digest}",
            schema.POST_ID: post_id,
            schema.IMAGE_URI: photo.image_uri,
            schema.PRODUCT_IDS: sorted({f"{catalog}/{shop}" for anchor in photo.anchors for shop in anchor.shops}),
            schema.PRODUCT_URLS: [],
            schema.ROW_DIGEST: digest,
            ANCHORS: [
                {schema.BOX: a.box, schema.CATEGORY: a.category, schema.ORIGINAL_LABEL: a.label}
                for a in photo.anchors
                if a.category
            ],
        }

    yield from in_batches(map(row, photos), PHOTO_SCHEMA, batch_rows)


def once(column: str, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The tables, in which all but the first row of one id in ``column`` are marked as rejected (DUPLICATE_KEY), under keys of
    their own: the first may disappear from the set tomorrow. Rows that are rejects already stay so."""
    seen: set[bytes] = set()
    counts: Counter[str] = Counter()
    for table in tables:
        again = [not _first(row_id, seen) for row_id in table.column(column).to_pylist()]
        keys, rows = table.column(schema.KEY).to_pylist(), table.to_pylist() if any(again) else []
        codes, details = _rejects_of(table)
        for i in np.flatnonzero(again).tolist():
            counts[rows[i][column]] += 1
            product = dict(rows[i].get(schema.ATTRIBUTES) or []).get(PRODUCT)
            keys[i] = f"{keys[i]}#{counts[rows[i][column]] + 1}"
            codes[i] = RejectCode.DUPLICATE_KEY.value
            details[i] = f"{rows[i][column]!r} came before" + (f"; here it is a picture of {product!r}" if product else "")
        table = table.set_column(table.column_names.index(schema.KEY), schema.KEY, pa.array(keys, pa.string()))
        table = table.drop_columns([c for c in _REJECT if c in table.column_names])
        for name, values in zip(_REJECT, (codes, details)):
            table = table.append_column(name, pa.array(values, pa.string()))
        yield table


def _rejects_of(table: pa.Table) -> list[list[str | None]]:
    """Codes and details of the rows; None where a row is no reject."""
    return [table.column(c).to_pylist() if c in table.column_names else [None] * table.num_rows for c in _REJECT]


def cut_products(rows: pa.Table, *, limits: DecodeLimits) -> pa.Table:
    """If the set has a box of the product, the picture is cropped to it: an image of its own. BAD_BOX for one outside."""
    found = rows.select([schema.IMAGE_ID, schema.BYTES, schema.SOURCE_URI]).to_pylist()
    given = rows.column(schema.BOX).to_pylist()
    at = [i for i, box in enumerate(given) if box is not None]
    rejects: list[Reject | None] = [None] * rows.num_rows
    for i, photo in zip(at, decode_many([found[i][schema.BYTES] for i in at], limits)):
        if isinstance(photo, Reject):
            rejects[i] = photo
            continue
        inside = _inside(given[i], photo)
        if inside is None:
            rejects[i] = Reject(RejectCode.BAD_BOX, f"({_numbers(given[i])}) in a photo of {photo.shape[1]} x {photo.shape[0]}")
            continue
        piece = to_jpeg(boxes.crop(photo, inside, longest_px=_FULL_PX))
        uri = f"{found[i][schema.SOURCE_URI]}#xyxy={_numbers(inside)}"
        found[i] = {schema.IMAGE_ID: ids.image_id(piece), schema.BYTES: piece, schema.SOURCE_URI: uri}
    rows = rows.drop_columns(CUT_GIVES.names)
    for field in CUT_GIVES:
        rows = rows.append_column(field.name, pa.array([f[field.name] for f in found], field.type))
    return with_rejects(rows, rejects)


def cut_anchors(rows: pa.Table, *, stage_version: str, crop_px: int, limits: DecodeLimits) -> pa.Table:
    """Rows of table ``garments``: the photo's annotated garments. One whose box is outside the photo is left out."""
    items: list[list[dict]] = []
    photos = decode_many(rows.column(schema.BYTES), limits)
    for image_id, anchors, photo in zip(rows.column(schema.IMAGE_ID).to_pylist(), rows.column(ANCHORS).to_pylist(), photos):
        mine = []
        for anchor in anchors:
            if isinstance(photo, Reject):
                break
            inside = _inside(anchor[schema.BOX] or (0, 0, photo.shape[1], photo.shape[0]), photo)
            if inside is not None:
                mine.append(
                    {
                        schema.GARMENT_ID: anchor_id(image_id, anchor[schema.CATEGORY], anchor[schema.BOX], stage_version),
                        schema.IMAGE_ID: image_id,
                        schema.CATEGORY: anchor[schema.CATEGORY],
                        schema.ORIGINAL_LABEL: anchor[schema.ORIGINAL_LABEL],
                        schema.SCORE: 1.0,
                        schema.BOX: inside,
                        schema.MASK_RLE: None,
                        schema.CROP: to_jpeg(boxes.crop(photo, inside, longest_px=crop_px)),
                        schema.CROP_SOURCE: "box" if anchor[schema.BOX] else "whole",
                        schema.STAGE_VERSION: stage_version,
                    }
                )
        items.append(mine)
    rejects = [p if isinstance(p, Reject) else None for p in photos]
    return with_rejects(rows.append_column(ITEMS, pa.array(items, ANCHOR_GIVES.field(ITEMS).type)), rejects)


def anchor_id(image_id: str, category: str, box: Sequence[float] | None, stage_version: str) -> str:
    """The id of an annotated garment, from its box as given in the set, so that it is known before the photo is opened."""
    return garment_id(image_id, category, np.asarray(box or (), np.float32).tolist(), stage_version)


def _inside(box: Sequence[float], photo: np.ndarray) -> list[float] | None:
    """The part of the box inside the photo; None if it covers no pixel."""
    clipped = boxes.clip(np.array([box], np.float32), photo.shape[1], photo.shape[0])[0]
    return clipped.tolist() if (clipped[2:] - clipped[:2] >= 1).all() else None


def _numbers(box: Sequence[float]) -> str:
    return ",".join(f"{v:g}" for v in box)


@dataclass(frozen=True)
class Known:
    """The set's contents in the store, by their names in its records: about 200 bytes per picture."""

    products: dict[str, str]  # product_id -> image_id
    posts: dict[str, str]  # post_id -> image_id
    garments: set[str]


def _first(key: str, seen: set[bytes]) -> bool:
    """Whether the key is new; adds it to ``seen``, in about 100 bytes."""
    digest = bytes.fromhex(ids.digest(key, length=32))
    first = digest not in seen
    seen.add(digest)
    return first


def gathered(
    table: schema.Table, found: Iterator[Row], batch_rows: int = 50_000
) -> Iterator[tuple[pa.Table, list[tuple[str, Reject]]]]:
    """Rows of the table and the rejects beside them, in batches. Of rows with one key the first is kept, the others are
    DUPLICATE_KEY: about 100 bytes per row are held. Rejects have unique keys."""
    seen: set[bytes] = set()
    counts: Counter[str] = Counter()
    key = table.key[0]
    while batch := list(islice(found, batch_rows)):
        good, bad = [], []
        for one in batch:
            if isinstance(one, tuple):
                bad.append((ids.numbered(one[0], counts), one[1]))
                continue
            if not _first(one[key], seen):
                again = Reject(RejectCode.DUPLICATE_KEY, "the same came before, of another record")
                bad.append((ids.numbered(one[key], counts), again))
            else:
                good.append(one)
        yield pa.Table.from_pylist(good, schema=table.schema), bad


def pairs(photos: Iterable[Photo], known: Known, catalog: str, source: str, version: str) -> Iterator[Row]:
    """Every garment with every picture of its product: a row of table ``pairs``, or the key and its reject. Of two records of
    one photo the first counts, as for posts."""
    seen: set[str] = set()
    for photo in photos:
        post_id = f"{catalog}/{photo.name}"
        again = post_id in seen
        seen.add(post_id)
        image = known.posts.get(post_id)
        for number, anchor in enumerate(photo.anchors):
            found = Reject(RejectCode.DUPLICATE_KEY, "another record has the same photo") if again else None
            found = found or _garment(anchor, image, known, version)
            for shop in anchor.shops or ("",):
                key = f"{post_id}#{number} {catalog}/{shop or anchor.product}"
                positive = known.products.get(f"{catalog}/{shop}")
                if isinstance(found, Reject):
                    yield key, found
                elif not shop:
                    yield key, Reject(RejectCode.UNKNOWN_PRODUCT, f"the set has no shop picture of product {anchor.product}")
                elif positive is None:
                    yield key, Reject(RejectCode.NO_PHOTO, f"the shop picture {shop} could not be loaded")
                else:
                    product = f"{catalog}/{anchor.product}"
                    yield {
                        schema.PAIR_ID: ids.digest(source, found, product, positive, length=DIGEST_CHARS),
                        schema.GARMENT_ID: found,
                        schema.ANCHOR_IMAGE_ID: image,
                        schema.POST_ID: post_id,
                        schema.PRODUCT_ID: product,
                        schema.IMAGE_ID: positive,
                        schema.CATEGORY: anchor.category,
                        schema.SCORE: 1.0,
                        schema.SIMILARITY: None,
                        schema.RULE: "annotated",
                        schema.SPLIT: photo.split,
                        schema.SOURCE: source,
                    }


def _garment(anchor: Anchor, image: str | None, known: Known, version: str) -> str | Reject:
    """The id of the anchor in table ``garments``, or why it is missing."""
    if anchor.category is None:
        return Reject(RejectCode.NO_CATEGORY, f"{anchor.label!r} is not one of our classes")
    if image is None:
        return Reject(RejectCode.NO_PHOTO, "the photo could not be loaded")
    found = anchor_id(image, anchor.category, anchor.box, version)
    if found not in known.garments:
        return Reject(RejectCode.BAD_BOX, f"({_numbers(anchor.box or ())}) has no pixel in the photo")
    return found


def outfits(found: Iterable[Outfit], known: Known, catalog: str, source: str) -> Iterator[Row]:
    """Rows of table ``outfits``, or the key and its reject."""
    for outfit in found:
        key = f"{source}/{outfit.name}"
        items = _items(outfit.items, known, catalog)
        if outfit.why:
            items = Reject(RejectCode.AMBIGUOUS, outfit.why)
        elif len({item.shop for item in outfit.items}) < 2:
            items = Reject(RejectCode.MISSING_SLOT, f"an outfit of {len(outfit.items)} items, of which no two differ")
        yield (
            (key, items)
            if isinstance(items, Reject)
            else {
                schema.OUTFIT_ID: key,
                schema.ITEMS: items,
                schema.MODIFIED_OF: None,
                schema.REPLACED: [],
                schema.SPLIT: outfit.split,
                schema.SOURCE: source,
            }
        )


def questions(found: Iterable[Question], known: Known, catalog: str, source: str) -> Iterator[Row]:
    """Rows of table ``questions``, or the key and its reject. A question with missing pictures is rejected whole: with fewer
    answers it would be easier."""
    for question in found:
        key = f"{source}/{question.kind}/{question.name}"
        items, answers = (_items(some, known, catalog) for some in (question.items, question.answers))
        if question.right is None:
            yield key, Reject(RejectCode.AMBIGUOUS, question.why)
        elif isinstance(items, Reject):
            yield key, items
        elif isinstance(answers, Reject):
            yield key, answers
        else:
            yield {
                schema.QUESTION_ID: key,
                schema.KIND: question.kind,
                schema.ITEMS: items,
                schema.ANSWERS: answers,
                schema.RIGHT: question.right,
                schema.SPLIT: question.split,
                schema.SOURCE: source,
            }


def _items(items: Sequence[Item], known: Known, catalog: str) -> list[dict] | Reject:
    """OUTFIT_ITEMs. An item's id is its picture's, which has the vector."""
    found = []
    for item in items:
        image = known.products.get(f"{catalog}/{item.shop}")
        if image is None:
            return Reject(RejectCode.NO_PHOTO, f"the picture of item {item.shop} could not be loaded")
        found.append(
            {schema.SLOT: item.slot, schema.ITEM_ID: image, schema.IMAGE_ID: image, schema.CATEGORY: item.category or ETC}
        )
    return found


def in_batches(rows: Iterator[dict], kind: pa.Schema, batch_rows: int) -> Iterator[pa.Table]:
    """The rows as tables of ``kind``, every column of which may be null."""
    while batch := list(islice(rows, batch_rows)):
        yield pa.Table.from_pylist(batch, schema=pa.schema([f.with_nullable(True) for f in kind]))
