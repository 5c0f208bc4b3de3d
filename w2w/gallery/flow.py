"""The site's contents, read from the tables and the index, and the pictures that it needs."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.gallery.rules import Look, Outfit, Piece, image_name
from w2w.index.manifest import index_uri
from w2w.index.merge import merged
from w2w.index.publish import current_version
from w2w.index.search import QUERY, open_index
from w2w.report.cards import dress_of
from w2w.report.variants import Design, near_duplicates, on_cards
from w2w.table import bridges, delta, layered, snapshot
from w2w.table.bridges import Bridge
from w2w.table.current import CurrentRows, current_posts, current_products
from w2w.table.pending import lookup, lookup_batches
from w2w.table.permitted import SEARCH, permitted

_COLUMNS = [
    *(schema.PRODUCT_ID, schema.TITLE, schema.BRAND, schema.PRICE, schema.CURRENCY, schema.CATEGORY, schema.URL),
    *(schema.ATTRIBUTES, schema.IMAGE_ID, schema.IMAGE_URI, schema.ACTIVE, schema.FETCHED_AT, schema.FEED),
]
_DRESS = "dress"
_SPARE = 8  # hits beyond those shown, since the product itself and its near-duplicates are left out
_AT_ONCE = 1024  # vectors searched at once


def read_catalog(store: str) -> tuple[list[dict[str, Any]], int]:
    """Active products, newest first, with ``first`` and ``last``: the dates of their first and newest rows; and the number of
    those left out, as search may not use their picture. In memory: about 2 kB per product. Raises UsageError if there is no
    table of products."""
    delta.need_table(store, schema.PRODUCTS, "ingest")
    stamps = delta.read(store, schema.PRODUCTS, [schema.PRODUCT_ID, schema.FETCHED_AT])
    first = stamps.group_by(schema.PRODUCT_ID).aggregate([(schema.FETCHED_AT, "min")])
    since = dict(zip(first.column(schema.PRODUCT_ID).to_pylist(), first.column(f"{schema.FETCHED_AT}_min").to_pylist()))
    rows = current_products(store, _COLUMNS)
    active = rows.filter(rows.column(schema.ACTIVE))
    products = permitted(store, SEARCH).of(active).to_pylist()
    for row in products:
        row["first"], row["last"] = (f"{t:%Y-%m-%d}" for t in (since[row[schema.PRODUCT_ID]], row[schema.FETCHED_AT]))
    newest_first = sorted(products, key=lambda row: row["first"], reverse=True)  # stable: within a day by id
    return newest_first, active.num_rows - len(products)


def listed_similar(
    store: str, products: Sequence[Mapping[str, Any]], count: int
) -> tuple[list[list[tuple[int, float]]], str] | None:
    """The same from table `similar`, and the version of its lists; None without that table."""
    made = snapshot.current(store, schema.SIMILAR_PRODUCTS, "default")
    if made is None:
        return None
    position = {row[schema.PRODUCT_ID]: n for n, row in enumerate(products)}
    similar: list[list[tuple[int, float]]] = [[] for _ in products]
    parts = delta.parts(delta.open_table(store, schema.SIMILAR_PRODUCTS), source="default")
    for batch in layered.batches(store, schema.SIMILAR_PRODUCTS, [schema.PRODUCT_ID, schema.SIMILAR_LIST], parts, _AT_ONCE):
        for product, entries in zip(*(column.to_pylist() for column in batch.columns)):
            there = [(position.get(entry[schema.PRODUCT_ID]), entry[schema.SCORE]) for entry in entries]
            if product in position:
                similar[position[product]] = [(n, score) for n, score in there if n is not None][:count]
    return similar, made["stage_version"]


def similar_products(
    store: str, index: str, products: Sequence[Mapping[str, Any]], colours_of: Mapping[str, Design], count: int, threads: int
) -> tuple[list[list[tuple[int, float]]], str | None]:
    """For each product at most ``count`` (position, cosine) of its class, and the version of the index; empty and None if no
    index is published. Near-duplicates of the product's picture, or of an earlier hit's, are left out, and so are other colours
    of the same design. ``colours_of``: from ``designs``."""
    similar: list[list[tuple[int, float]]] = [[] for _ in products]
    uri = index_uri(store, index)
    if current_version(uri) is None:
        return similar, None
    opened = merged(open_index(uri))
    position = {row[schema.PRODUCT_ID]: n for n, row in enumerate(products)}
    known = opened.manifest.rows_by_category()
    asking: dict[str, list[int]] = {}
    for n, row in enumerate(products):
        if row[schema.IMAGE_ID] and row[schema.CATEGORY] in known:
            asking.setdefault(row[schema.IMAGE_ID], []).append(n)
    images = pa.array(sorted(asking), pa.string())
    alike = near_duplicates(store, images.to_pylist())
    for names, vectors_ND in served_vectors(store, images, opened.manifest.model_version):
        asked = [n for image in names.to_pylist() for n in asking[image][:1]]
        classes = [products[n][schema.CATEGORY] for n in asked]
        hits = opened.search(vectors_ND, count + _SPARE, classes, one_per_product=True, num_threads=threads)
        for n, found in zip(asked, _by_query(hits, len(asked))):
            there = [hit for hit in found if hit[schema.PRODUCT_ID] in position]
            others = on_cards([dict(products[n]), *there], alike, colours_of)[1:]  # the first card is the product's own
            similar[n] = [(position[card[0][schema.PRODUCT_ID]], card[0][schema.SCORE]) for card in others[:count]]
    for same in asking.values():  # products with one picture have the same similar products
        for n in same[1:]:
            similar[n] = similar[same[0]]
    return similar, opened.manifest.version


def served_vectors(store: str, images: pa.Array, version: str) -> Iterator[tuple[pa.ChunkedArray, np.ndarray]]:
    """The pictures with a vector of that model version, float32 (n, D), in batches. Of a bridge: their vectors of the model
    before it, and the mapped ones of those that have none."""
    found = bridges.find(store, version)
    ways: list[tuple[str, Bridge | None]] = [(version, None)]
    ways += [(found[1].old, None), (found[1].new, found[1])] if found else []
    for of, bridge in ways:
        seen = [pa.array([], pa.string())]
        columns = [schema.OWNER_ID, schema.VECTOR]
        for batch in lookup_batches(store, schema.EMBEDDINGS, images, columns, batch_rows=_AT_ONCE, model_version=of):
            vectors_ND = np.array(batch.column(1).to_pylist(), np.float32)
            yield batch.column(0), bridge(vectors_ND) if bridge else vectors_ND
            seen += batch.column(0).chunks
        images = images.filter(pc.invert(pc.is_in(images, value_set=pa.concat_arrays(seen))))


def _by_query(hits: pa.Table, num: int) -> Iterator[list[dict]]:
    ends = np.searchsorted(hits.column(QUERY).to_numpy(), np.arange(num + 1))
    return (hits.slice(start, end - start).to_pylist() for start, end in pairwise(ends))


def other_colours(products: Sequence[Mapping[str, Any]], known: Mapping[str, Design]) -> list[list[int]]:
    """For each product the positions of its design's other colours."""
    of: dict[str, list[int]] = {}
    for n, row in enumerate(products):
        if design := known.get(row[schema.PRODUCT_ID]):
            of.setdefault(design.key, []).append(n)
    keys = (known.get(row[schema.PRODUCT_ID]) for row in products)
    return [[at for at in of[key.key] if at != n] if key else [] for n, key in enumerate(keys)]


def read_wear(store: str, products: Sequence[Mapping[str, Any]], count: int) -> list[list[Outfit]]:
    """What `w2w recommend` found for each product, at most ``count`` outfits, best first; outfits with a product no longer sold
    are left out."""
    position = {row[schema.PRODUCT_ID]: n for n, row in enumerate(products)}
    wear: list[list[Outfit]] = [[] for _ in products]

    def piece(slot: str, product: int) -> Piece:
        return Piece(slot, image_name(products[product][schema.IMAGE_ID]), slot, product)

    columns = [schema.PRODUCT_ID, schema.OUTFITS_LIST, schema.ACTIVE]
    for batch in CurrentRows(store, schema.RECOMMENDATIONS).batches(columns):
        for row in batch.filter(batch.column(schema.ACTIVE)).to_pylist():
            own = position.get(row[schema.PRODUCT_ID])
            if own is None:
                continue
            for outfit in row[schema.OUTFITS_LIST] or ():
                placed = [(item[schema.CATEGORY], position.get(item[schema.PRODUCT_ID])) for item in outfit[schema.ITEMS]]
                items = {slot: n for slot, n in placed if n is not None}
                if any(n is None for _, n in placed) or len(wear[own]) == count:
                    continue
                beside = {products[own][schema.CATEGORY]: own} | items
                pairs = max(outfit[schema.PAIRS_LIST] or (), key=lambda p: p[schema.SCORE], default=None)
                why = f", {pairs[schema.CATEGORY]} with {pairs[schema.BESIDE]} {pairs[schema.SCORE]:.2f}" if pairs else ""
                pieces = [piece(slot, n) for slot, n in beside.items()]
                wear[own].append(Outfit(pieces, f"goes together: {outfit[schema.SCORE]:.2f}{why}"))
    return wear


def read_looks(store: str, products: Sequence[Mapping[str, Any]], most: int) -> tuple[list[Look], dict[str, bytes]]:
    """The newest posts with a photo of somebody, and their pictures by thumbnail name."""
    position = {row[schema.PRODUCT_ID]: n for n, row in enumerate(products)}
    posts = current_posts(store, [schema.URL, schema.IMAGE_ID, schema.PRODUCT_IDS, schema.ACTIVE, schema.FETCHED_AT])
    posts = (
        permitted(store, SEARCH)
        .of(posts.filter(posts.column(schema.ACTIVE)))
        .sort_by([(schema.FETCHED_AT, "descending"), (schema.IMAGE_ID, "ascending")])
    )
    shown = posts.slice(0, most).to_pylist()
    wanted = pa.array(sorted({post[schema.IMAGE_ID] for post in shown}), pa.string())
    version = delta.newest_version(store, schema.LOOKS)
    crops = _pictures(store, schema.LOOKS, wanted, schema.CROP, stage_version=version) if version else {}
    whole = _pictures(store, schema.IMAGES, pc.filter(wanted, _lacks(wanted, crops)), schema.BYTES)
    pictures = {ids.digest("look", image): data for image, data in (crops | whole).items()}
    looks = []
    for post in shown:
        name = ids.digest("look", post[schema.IMAGE_ID])
        worn = sorted({position[p] for p in post[schema.PRODUCT_IDS] or () if p in position})
        looks.append(Look(name if name in pictures else None, post[schema.URL], f"{post[schema.FETCHED_AT]:%Y-%m-%d}", worn))
    return looks, pictures


def _lacks(wanted: pa.Array, found: Mapping[str, bytes]) -> pa.Array:
    return pc.invert(pc.is_in(wanted, value_set=pa.array(list(found), pa.string())))


def _pictures(store: str, table: schema.Table, keys: pa.Array, column: str, **version: str) -> dict[str, bytes]:
    found = lookup(store, table, keys, [table.key[0], column], **version)
    return {key: data for key, data in zip(found.column(0).to_pylist(), found.column(1).to_pylist()) if data}


def read_outfits(store: str, products: Sequence[Mapping[str, Any]], most: int) -> tuple[list[Outfit], dict[str, bytes]]:
    """The first worn outfits, with the crops that are not product pictures, by thumbnail name. A piece counts as a product if
    its picture is the product's, or a mined pair links its garment to it."""
    rows = delta.read(store, schema.OUTFITS, [schema.OUTFIT_ID, schema.ITEMS, schema.MODIFIED_OF, schema.SOURCE])
    rows = rows.filter(pc.is_null(rows.column(schema.MODIFIED_OF))).sort_by(schema.OUTFIT_ID)
    rows = permitted(store, SEARCH).of_lists(rows, schema.ITEMS).slice(0, most)
    of_image: dict[str, int] = {}
    for n, row in enumerate(products):
        of_image.setdefault(row[schema.IMAGE_ID], n)
    outfits = rows.to_pylist()
    worn = _worn(store, outfits, of_image)
    crops = _crops(store, outfits)
    shown = []

    def piece(item: dict) -> Piece:
        image, category, slot = item[schema.IMAGE_ID], item[schema.CATEGORY], item[schema.SLOT]
        name = ids.digest("piece", item[schema.ITEM_ID])
        thumb = name if name in crops else image_name(image) if image in of_image else None
        text = slot if slot == category else f"{slot} ({category})"
        return Piece(slot, thumb, text, of_image.get(image, worn.get((image, category))))

    for outfit in outfits:
        items = outfit[schema.ITEMS]
        halves = [item for item in items if item[schema.CATEGORY] == _DRESS and item[schema.SLOT] in ("top", "bottom")]
        if len(halves) > 1:  # drawn once
            items = [halves[0] | {schema.SLOT: _DRESS}, *(item for item in items if item not in halves)]
            names = [ids.digest("piece", half[schema.ITEM_ID]) for half in halves]
            if all(name in crops for name in names):
                crops[names[0]] = dress_of(*(crops[name] for name in names[:2]))
        source = "worn in a post" if outfit[schema.SOURCE] == schema.OWN else f"of {outfit[schema.SOURCE]}"
        shown.append(Outfit([piece(item) for item in items], source))
    return shown, crops


def _worn(store: str, outfits: Sequence[dict], of_image: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """(photo, class) -> the product, from a mined pair."""
    pairs = delta.read(store, schema.PAIRS, [schema.ANCHOR_IMAGE_ID, schema.CATEGORY, schema.IMAGE_ID])
    photos = pa.array(sorted({item[schema.IMAGE_ID] for o in outfits for item in o[schema.ITEMS]}), pa.string())
    pairs = pairs.filter(pc.is_in(pairs.column(schema.ANCHOR_IMAGE_ID), value_set=photos))
    found = zip(*(pairs.column(c).to_pylist() for c in (schema.ANCHOR_IMAGE_ID, schema.CATEGORY, schema.IMAGE_ID)))
    return {(photo, category): of_image[image] for photo, category, image in found if image in of_image}


def _crops(store: str, outfits: Sequence[dict]) -> dict[str, bytes]:
    version = delta.newest_version(store, schema.CUTOUTS)
    if version is None:
        return {}
    photos = pa.array(sorted({item[schema.IMAGE_ID] for o in outfits for item in o[schema.ITEMS]}), pa.string())
    cut = lookup(store, schema.CUTOUTS, photos, [schema.IMAGE_ID, schema.SLOTS], stage_version=version).to_pylist()
    return {
        ids.digest("piece", f"{row[schema.IMAGE_ID]}:{slot[schema.SLOT]}"): slot[schema.CROP]
        for row in cut
        for slot in row[schema.SLOTS]
    }
