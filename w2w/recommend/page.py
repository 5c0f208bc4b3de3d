"""The page of recommend: what is given, and outfits with it: a composition, its score and why, and the products."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from w2w import schema
from w2w.recommend.answers import Answer, Item, Pair, Recommended, item_of, recommended
from w2w.recommend.rules import Stylist
from w2w.report.cards import Piece, price_text, product_card
from w2w.report.page import thumbnail, write_page


def recommend_report(
    out: str,
    answers: Sequence[Answer],
    images: Mapping[str, bytes],
    crops: Sequence[bytes],
    facts: Mapping[str, object],
    told: Sequence[str],
    diversity: float,
    num_products: int,
) -> None:
    """Writes the page to ``out``. ``images``: encoded, by image_id; ``crops``: of a photo's garments, in the order given;
    ``told``: remarks about the rules for a merchandiser; ``diversity``: that of the outfits."""
    shown = []
    for answer in answers:
        left = iter(crops)
        photos = {item.category: next(left, None) for item in answer.given if item.product_id is None}

        def picture(item: Item, photos: Mapping[str, bytes | None] = photos) -> bytes | None:
            return images.get(item.image_id or "") if item.product_id else photos.get(item.category)

        shown.append(
            {
                "given": [
                    product_card(_row(item), picture(item), notes=[item.category]) for item in answer.given if item.product_id
                ],
                "crops": [(thumbnail(picture(i)), i.category) for i in answer.given if not i.product_id],
                "name": " and ".join(item.title or item.product_id or f"{item.category} of the photo" for item in answer.given),
                "says": answer.says,
                "outfits": [_shown(outfit, picture) for outfit in answer.outfits],
            }
        )
    values = {"answers": shown, "facts": facts, "told": told, "diversity": diversity, "num": num_products}
    write_page(out, "recommend/page.html.j2", title="What to wear with it", **values)


def _shown(outfit: Recommended, picture) -> dict:
    new = [item for item in outfit.items if not item.given]
    return {
        "rank": outfit.rank,
        "score": outfit.score,
        "pieces": [Piece(i.category, thumbnail(picture(i)), f"{i.category}: {i.title or i.product_id}") for i in outfit.items],
        "why": [{"text": f"{p.category} with {p.beside}", "score": p.score} for p in outfit.pairs],
        "total": price_text(outfit.total, outfit.currency),
        "cards": [product_card(_row(item), picture(item), notes=[item.category]) for item in new],
    }


def _row(item: Item) -> dict:
    return asdict(item) | {schema.PRODUCT_ID: item.product_id or item.category}


def given_of_row(stylist: Stylist, row: Mapping) -> Answer | None:
    """A row of table `recommendations` as an answer; None if its product is not on the shelf."""
    shelf = stylist.shelf
    (at,) = shelf.find([row[schema.PRODUCT_ID]])
    if at < 0:
        return None
    outfits = []
    for found in row[schema.OUTFITS_LIST]:
        names = [item[schema.PRODUCT_ID] for item in found[schema.ITEMS]]
        rows = shelf.find(names).tolist()
        if min(rows) < 0:  # a product no longer sold, in a row that this run has left for later
            continue
        items = tuple(item_of(shelf, r, shelf.category(r), r == at) for r in rows)
        pairs = tuple(Pair(**pair) for pair in found[schema.PAIRS_LIST])
        outfits.append(recommended(found[schema.RANK], found[schema.SCORE], items, pairs))
    return Answer((item_of(shelf, int(at), shelf.category(int(at)), True),), tuple(outfits), row[schema.REASON])
