"""Products and outfits as shown on pages: for the macros ``product`` and ``composition`` of parts.html.j2."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from w2w import schema
from w2w.errors import Reject
from w2w.images.decode import decode
from w2w.report.page import jpeg, thumbnail

CARD_PX = 240
RIGHT_MARK = "right answer"
_WHOLE = {"CLP", "ISK", "JPY", "KRW", "VND"}  # ISO 4217: without a minor unit


@dataclass(frozen=True)
class Card:
    """A product as text ready for display; ``image`` is a data URI."""

    product_id: str
    title: str
    image: str | None
    alt: str
    brand: str = ""
    price: str = ""
    url: str | None = None
    mark: str = ""
    """Words beside a tick, with a frame around the card: of the answer that was sought, and no other."""
    notes: Sequence[str] = ()
    """What this page says of it: rank, score, category."""
    more: str = ""
    """What ``others`` are, in a word or two: "3 colours"."""
    others: Sequence["Card"] = ()
    """Products that this card stands for as well; without pictures."""


@dataclass(frozen=True)
class Piece:
    """One picture of an outfit. ``slot``: top, bottom, dress, shoes, outer, bag or hat; ``changed``: replaced another."""

    slot: str
    image: str | None
    alt: str
    changed: bool = False


def product_card(
    row: Mapping[str, Any],
    picture: bytes | None,
    mark: str = "",
    notes: Sequence[str] = (),
    more: str = "",
    others: Sequence[Mapping[str, Any]] = (),
    side_px: int = CARD_PX,
) -> Card:
    """``row``, and each of ``others``: columns of table ``products`` by their names; all but product_id may be missing or None.
    ``picture``: encoded; None, or what cannot be read, shows as "no picture"."""
    product_id = row[schema.PRODUCT_ID]
    title = row.get(schema.TITLE) or product_id
    return Card(
        product_id,
        title,
        thumbnail(picture, side_px),
        alt=title,
        brand=row.get(schema.BRAND) or "",
        price=price_text(row.get(schema.PRICE), row.get(schema.CURRENCY)),
        url=web_link(row.get(schema.URL)),
        mark=mark,
        notes=tuple(notes),
        more=more,
        others=tuple(product_card(other, None) for other in others),
    )


def ranked(rank: int | None, score: float) -> tuple[str, ...]:
    """Notes of a product that was found, the numbers with their names. ``rank``: from 1; None where the place says it."""
    return (f"similarity {score:.2f}", *([f"rank {rank}"] if rank else []))


def price_text(price: float | None, currency: str | None) -> str:
    """ "1,234.50 EUR"; empty without a price."""
    if price is None or not math.isfinite(price):
        return ""
    return f"{price:,.{0 if currency in _WHOLE else 2}f} {currency or ''}".rstrip()


def web_link(url: str | None) -> str | None:
    """Lets through only links that a browser may follow from a page with foreign rows."""
    return url if url and url.lower().startswith(("http://", "https://")) else None


def dress_of(top: bytes, bottom: bytes) -> bytes:
    """A dress from its halves, JPEG: the upper above the lower one, at the same width; the upper one alone if one is
    unreadable."""
    try:
        above, below = (Image.fromarray(decode(half)) for half in (top, bottom))
    except Reject:
        return top
    below = below.resize((above.width, max(1, round(below.height * above.width / below.width))))
    whole = Image.new("RGB", (above.width, above.height + below.height))
    whole.paste(above, (0, 0))
    whole.paste(below, (0, above.height))
    return jpeg(whole)
