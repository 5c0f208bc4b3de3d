"""The contents of the site's files: plain values in, JSON out."""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from w2w import ids, schema
from w2w.report.cards import price_text, web_link
from w2w.report.variants import colour_attribute
from w2w.shown import on_page

LIST_ROWS = 1000  # products per list part: what cards, filters and search need
DETAIL_ROWS = 250  # products per detail part


@dataclass(frozen=True)
class Piece:
    """One picture of an outfit; ``product``: position in the catalog, if it is one of its products."""

    slot: str
    thumb: str | None
    text: str
    product: int | None = None


@dataclass(frozen=True)
class Outfit:
    """``says``: where it comes from, and its score if known."""

    pieces: Sequence[Piece]
    says: str


@dataclass(frozen=True)
class Look:
    """A post's photo, and the positions of the products known to be worn in it."""

    thumb: str | None
    url: str | None
    date: str
    products: Sequence[int]


@dataclass(frozen=True)
class Site:
    """Everything shown. ``products``: rows of table `products` with ``first`` and ``last`` (dates), in site order; ``thumbs``:
    names of the existing pictures (``image_name`` of a product's); ``similar``: for each product (position, cosine), nearest
    first."""

    title: str
    products: Sequence[Mapping[str, Any]]
    thumbs: Collection[str]
    side_px: int
    similar: Sequence[Sequence[tuple[int, float]]] = ()
    colours: Sequence[Sequence[int]] = ()
    """Of each product the positions of its design's other colours."""
    wear: Sequence[Sequence[Outfit]] = ()
    """What goes with each product, the best first."""
    outfits: Sequence[Outfit] = ()
    looks: Sequence[Look] = ()
    facts: Mapping[str, object] = field(default_factory=dict)


def list_parts(site: Site, colour: str | None) -> list[dict[str, list]]:
    """Columns of the products, LIST_ROWS at a time."""
    return [_list_part(site, colour, site.products[i : i + LIST_ROWS]) for i in range(0, len(site.products), LIST_ROWS)]


def _list_part(site: Site, colour: str | None, rows: Sequence[Mapping[str, Any]]) -> dict[str, list]:
    attributes = [dict(row[schema.ATTRIBUTES] or ()) for row in rows]
    return {
        "id": [row[schema.PRODUCT_ID] for row in rows],
        "title": [_text(row[schema.TITLE] or row[schema.PRODUCT_ID]) for row in rows],
        "brand": [_text(row[schema.BRAND]) for row in rows],
        "category": [_text(row[schema.CATEGORY]) for row in rows],
        "colour": [_text(a.get(colour)) if colour else "" for a in attributes],
        "price": [row[schema.PRICE] for row in rows],
        "cost": [price_text(row[schema.PRICE], row[schema.CURRENCY]) for row in rows],
        "thumb": [_there(site, image_name(row[schema.IMAGE_ID])) for row in rows],
        "words": [" ".join(_text(v) for v in a.values()) for a in attributes],  # further text for the search
    }


def detail_parts(site: Site) -> list[list[dict]]:
    """All data of each product, DETAIL_ROWS at a time."""
    outfits, looks = _positions([o.pieces for o in site.outfits]), _positions([k.products for k in site.looks])
    details = [
        {
            "url": web_link(_text(row[schema.URL])),
            "attributes": [[_text(name), _text(value)] for name, value in row[schema.ATTRIBUTES] or ()],
            "similar": [[n, round(score, 3)] for n, score in site.similar[at]] if site.similar else [],
            "colours": list(site.colours[at]) if site.colours else [],
            "wear": [_outfit(site, outfit) for outfit in site.wear[at]] if site.wear else [],
            "outfits": outfits.get(at, []),
            "looks": looks.get(at, []),
            "facts": [[k, v] for k, v in _facts(row)],
        }
        for at, row in enumerate(site.products)
    ]
    return [details[i : i + DETAIL_ROWS] for i in range(0, len(details), DETAIL_ROWS)]


def _facts(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = {"id": row[schema.PRODUCT_ID], "feed": row[schema.FEED], "first seen": row["first"], "last changed": row["last"]}
    if (row[schema.IMAGE_URI] or "").startswith(("http://", "https://")):  # a path or a bucket is nobody else's business
        facts["picture from"] = row[schema.IMAGE_URI]
    return [(name, _text(value)) for name, value in facts.items() if value]


def _positions(groups: Sequence[Sequence]) -> dict[int, list[int]]:
    """Product -> the numbers of the groups that contain it."""
    found: dict[int, list[int]] = {}
    for number, group in enumerate(groups):
        for at in dict.fromkeys(one.product if isinstance(one, Piece) else one for one in group):
            if at is not None:
                found.setdefault(at, []).append(number)
    return found


def image_name(image_id: str | None) -> str:
    """An image's file name on the site."""
    return ids.digest("image", image_id)


def file_of(name: str, side_px: int) -> str:
    return f"thumbs/{name[:2]}/{name}-{side_px}.jpg"


def _there(site: Site, name: str | None) -> str | None:
    return name if name in site.thumbs else None


def outfit_part(site: Site) -> list[dict]:
    return [_outfit(site, outfit) for outfit in site.outfits]


def _outfit(site: Site, outfit: Outfit) -> dict:
    pieces = [[p.slot, _there(site, p.thumb), _text(p.text), p.product] for p in outfit.pieces]
    return {"pieces": pieces, "says": _text(outfit.says)}


def look_part(site: Site) -> list[dict]:
    return [
        {"thumb": _there(site, k.thumb), "url": web_link(_text(k.url)), "date": k.date, "products": list(k.products)}
        for k in site.looks
    ]


def files_of(site: Site, app: bytes) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files below data/ by name, and what index.html tells the scripts: their names, facets and sizes."""
    colour = colour_attribute(row[schema.ATTRIBUTES] for row in site.products)
    parts: dict[str, Any] = {f"list-{n}": part for n, part in enumerate(list_parts(site, colour))}
    parts |= {f"detail-{n}": part for n, part in enumerate(detail_parts(site))}
    parts |= {"outfits": outfit_part(site), "looks": look_part(site)}
    files = {name: script(name, part) for name, part in parts.items()} | {"app": app}
    named = {name: f"data/{name}-{ids.digest(data.decode())}.js" for name, data in files.items()}
    colours = Counter(c for n, part in parts.items() if n.startswith("list-") for c in part["colour"] if c)
    told = {
        "files": {name: where for name, where in named.items() if name != "app"},
        "sizes": [len(site.products), LIST_ROWS, DETAIL_ROWS, len(site.outfits), len(site.looks), site.side_px],
        "prices": any(row[schema.PRICE] is not None for row in site.products),
        "categories": sorted(Counter(_text(row[schema.CATEGORY]) for row in site.products).items()),
        "colours": sorted(colours.items(), key=lambda kv: (-kv[1], kv[0])),
    }
    return {named[name]: data for name, data in files.items()}, told | {"app": named["app"]}


def script(name: str, data: object) -> bytes:
    """A script that hands over the data: JSON is JavaScript, and no value can end it."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")
    return b"w2wGallery(%s,%s)\n" % (json.dumps(name).encode(), text)


def _text(value: object) -> str:
    return "" if value is None else on_page(str(value))
