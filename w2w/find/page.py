"""The page of find: each photo large with its garments numbered, and a row of products for every garment."""

from collections.abc import Mapping, Sequence

from w2w import schema
from w2w.find.answers import Answer, Catalog, Piece, Product
from w2w.find.explained import Explained, Shown
from w2w.find.rules import FindOptions, searched_as
from w2w.report.cards import Card, product_card, ranked
from w2w.report.page import thumbnail, write_page
from w2w.report.variants import near_duplicates, on_cards, said_of_card
from w2w.table.pending import values_by_key

PHOTO_PX = 880


def find_report(
    out: str,
    store: str,
    catalog: Catalog,
    shown: Sequence[Shown],
    num_photos: int,
    facts: dict[str, object],
    options: FindOptions,
    explained: Explained | None = None,
) -> None:
    """Writes the page to ``out``: the answers shown, each with its photo, of ``num_photos`` in all. ``options``:
    ``decided``."""
    pieces = [piece for answer, _ in shown for piece in answer.garments]
    ids = sorted({product.image_id for piece in pieces for product in piece.products})
    pictures = values_by_key(store, schema.IMAGES, ids, schema.BYTES)
    alike = near_duplicates(store, ids)
    reasons = explained(shown, pictures) if explained else [{} for _ in shown]
    is_searched = any(piece.number and piece.products for piece in pieces)
    photos = [
        {
            "name": answer.photo,
            "called": answer.photo.rstrip("/").rpartition("/")[2],
            "image": thumbnail(data, PHOTO_PX),
            "is_text": answer.width is None and bool(answer.garments),
            "says": answer.says,
            "spots": [s for piece in answer.garments if (s := _spot(piece, answer))],
            "garments": [
                {
                    "number": piece.number,
                    "category": piece.category or ("words" if answer.width is None else "whole photo"),
                    "score": piece.score,
                    "says": piece.says,
                    "cards": _cards(piece.products, pictures, alike, catalog),
                    "reasons": why.get(piece.number, []),
                }
                for piece in answer.garments
            ],
        }
        for (answer, data), why in zip(shown, reasons)
    ]
    write_page(
        out,
        "find/page.html.j2",
        title="Found in your shop",
        photos=photos,
        num_photos=num_photos,
        searched_as=searched_as(options) if is_searched else "",
        facts=facts,
    )


def _cards(
    products: Sequence[Product], pictures: Mapping[str, bytes], alike: Mapping[str, str], catalog: Catalog
) -> list[Card]:
    """The nearest of nearly the same picture, and of several colours of a design, with the others folded away below it."""
    cards = []
    for first, *others in on_cards([vars(p) for p in products], alike, catalog.designs):
        same = [catalog.about(name) for one in (first, *others) for name in one[schema.SAME_PICTURE]]
        more = said_of_card([row[schema.PRODUCT_ID] for row in (first, *others, *same)], catalog.designs)
        notes = ranked(None, first[schema.SCORE])
        cards.append(product_card(first, pictures.get(first[schema.IMAGE_ID]), "", notes, more, [*others, *same]))
    return cards


def _spot(piece: Piece, answer: Answer) -> dict[str, float] | None:
    """Position of a garment's frame on its photo, in percent."""
    if not piece.number or not piece.box_xyxy or not answer.width or not answer.height:
        return None
    x0, y0, x1, y1 = piece.box_xyxy
    return {
        "number": piece.number,
        "left": 100 * x0 / answer.width,
        "top": 100 * y0 / answer.height,
        "width": 100 * (x1 - x0) / answer.width,
        "height": 100 * (y1 - y0) / answer.height,
    }
