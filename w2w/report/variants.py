"""Products that share one card of a page: those with near-duplicate pictures, and the colours of one design."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.table import delta
from w2w.table.pending import lookup

COLOURS = ("colour", "color", "Colour", "Color", "baseColour", "farbe", "Farbe", "couleur")
DESIGN_NEEDS = (schema.PRODUCT_ID, schema.TITLE, schema.BRAND, schema.CATEGORY, schema.ATTRIBUTES, schema.ACTIVE)
Hit = dict[str, Any]  # of schema.NEIGHBOUR
_LEAST_WORDS = 3  # of a title without its colour: shorter ones name a kind of garment, not a design
_PLAIN_BITS = 8  # of a perceptual hash: fewer occur in single-colour pictures, which are all alike
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Design:
    """A design, and the product's colour of it."""

    key: str
    colour: str


def colour_attribute(products: Iterable[Sequence[tuple[str, str | None]] | None]) -> str | None:
    """The attribute that names a colour: the one of ``COLOURS`` that most products have. ``products``: attributes of each."""
    counts = Counter(name for attributes in products for name, value in attributes or () if name in COLOURS and value)
    return max(COLOURS, key=lambda name: counts[name]) if counts else None


def designs(products: Iterable[Mapping[str, Any]]) -> dict[str, Design]:
    """The active products that are one of several colours of a design, by product_id: equal in class, brand and title without
    the colour, each of another colour. Ambiguous titles are ignored: those of fewer than three other words, and those that
    occur twice in one colour. ``products``: rows with DESIGN_NEEDS."""
    rows = [row for row in products if row[schema.ACTIVE] and row[schema.TITLE]]
    attribute = colour_attribute(row[schema.ATTRIBUTES] for row in rows)
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    repeated = set[tuple[str, ...]]()
    for row in rows:
        if not (found := design_of(row, attribute)):
            continue
        key, colour = found
        of = groups.setdefault(key, {})
        if colour in of:
            repeated.add(key)
        of[colour] = row[schema.PRODUCT_ID]
    shared = {key: of for key, of in groups.items() if len(of) > 1 and key not in repeated}
    return {product: Design("\0".join(key), colour) for key, of in shared.items() for colour, product in of.items()}


def design_of(row: Mapping[str, Any], attribute: str | None) -> tuple[tuple[str, ...], str] | None:
    """What all colours of a product's design have in common, and its own colour, as the ``attribute`` says it; None where the
    title names no design."""
    colour = str(dict(row[schema.ATTRIBUTES] or ()).get(attribute) or "").strip()
    own = set(_words(colour))
    words = [word for word in _words(row[schema.TITLE]) if word not in own]
    if not own or len(words) < _LEAST_WORDS:
        return None
    return (row[schema.CATEGORY], " ".join(_words(row[schema.BRAND] or "")), *words), colour.lower()


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def on_cards(hits: Sequence[Hit], alike: Mapping[str, str], known: Mapping[str, Design]) -> list[list[Hit]]:
    """Hits (product_id and image_id) in order, grouped by card. ``alike``: the near-duplicate cluster of each image that has
    one; ``known``: from ``designs``."""
    cards: list[list[Hit]] = []
    card_of: dict[tuple[str, str], list[Hit]] = {}
    for hit in hits:
        image, design = hit[schema.IMAGE_ID], known.get(hit[schema.PRODUCT_ID])
        keys = [("picture", alike.get(image, image)), *([("design", design.key)] if design else [])]
        card = next((card_of[key] for key in keys if key in card_of), None)
        if card is None:
            cards.append(card := [])
        card.append(hit)
        for key in keys:
            card_of.setdefault(key, card)
    return cards


def said_of_card(products: Sequence[str], known: Mapping[str, Design]) -> str:
    """Caption of a card with several products: "3 colours" for one design, otherwise how many more there are."""
    colours = {known[product].colour for product in products if product in known}
    if len(colours) > 1:
        return f"{len(colours)} colours"
    return f"{len(products) - 1} more with this picture" if len(products) > 1 else ""


def near_duplicates(store: str, image_ids: Sequence[str]) -> dict[str, str]:
    """The near-duplicate clusters of images, from `w2w deduplicate`; if it has not run, by perceptual hash, which is equal for
    copies of another size or quality."""
    images, clusters = clusters_of(store, pa.array(sorted(set(image_ids)), pa.string()))
    return {image: c for image, c in zip(images.to_pylist(), clusters.to_pylist()) if c is not None}


def by_hash(store: str) -> bool:
    """Whether `w2w deduplicate` has not run."""
    return delta.open_table(store, schema.DUPLICATES) is None


def clusters_of(store: str, images: pa.Array | None, listed: Sequence[delta.Part] = ()) -> tuple[pa.Array, pa.Array]:
    """Of those of the ``images`` (each once; None: of all in the ``listed`` parts) that are known: their ids, and the name of
    what looks like them, null where that cannot be told."""
    table, column = (schema.IMAGES, schema.PHASH) if by_hash(store) else (schema.DUPLICATES, schema.CLUSTER_ID)
    columns = [schema.IMAGE_ID, column]
    if images is not None:
        found = lookup(store, table, images, columns)
    else:
        found = pa.concat_tables([table.empty(columns), *delta.read_batches(store, table, columns, listed)])
    known, clusters = (column.combine_chunks() for column in found.columns)
    if column == schema.PHASH:
        bits = np.bitwise_count(np.abs(pc.fill_null(clusters, 0).to_numpy()).view(np.uint64))
        clusters = pc.if_else(pa.array(bits >= _PLAIN_BITS), clusters, None)
    return known, clusters.cast(pa.string())
