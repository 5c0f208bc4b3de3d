"""Answers of style for people and programs: looks, their posts, and the products worn in them."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.shown import without_secrets
from w2w.table import delta
from w2w.table.current import current_posts, current_products
from w2w.table.pending import lookup

TAGGED, FOUND = "tagged", "found"
NOBODY = "nobody was found in it: the whole photo was searched with"
_ABOUT = (
    schema.PRODUCT_ID,
    schema.IMAGE_ID,
    schema.CATEGORY,
    schema.TITLE,
    schema.BRAND,
    schema.PRICE,
    schema.CURRENCY,
    schema.URL,
)


@dataclass(frozen=True)
class Worn:
    """A product of a look that is still sold. ``how``: tagged in its post, or found in its photo by `w2w find --of=posts`."""

    product_id: str
    image_id: str | None
    category: str
    title: str | None
    brand: str | None
    price: float | None
    currency: str | None
    url: str | None
    how: str


@dataclass(frozen=True)
class Look:
    """A post whose look is similar to the photo's; ``score`` is their cosine, ``url`` the post's."""

    rank: int
    post_id: str
    image_id: str
    score: float
    url: str | None
    products: tuple[Worn, ...]


@dataclass(frozen=True)
class Answer:
    """The answer to a photo. ``person_box``: xyxy in its pixels, the part searched with, None for the whole photo; ``says``:
    why there is no look, or no person; ``reject``: the code if it could not be read."""

    photo: str
    width: int | None
    height: int | None
    person_box: tuple[float, ...] | None
    looks: tuple[Look, ...]
    says: str | None = None
    reject: str | None = None

    def line(self) -> str:
        """One line of JSON."""
        return json.dumps(without_secrets(asdict(self)), ensure_ascii=False)


def answers(store: str, rows: pa.Table, by_person: bool) -> Iterator[Answer]:
    """An answer for each row with query_id, width, height, person_box and neighbours (``stage.FindLooks``). ``by_person``:
    whether the detector looked for a person."""
    hits = [hit for found in rows.column(schema.NEIGHBOUR_LIST).to_pylist() for hit in found]
    known = _Known(store, hits)
    columns = (schema.QUERY_ID, schema.WIDTH, schema.HEIGHT, schema.PERSON_BOX, schema.NEIGHBOUR_LIST)
    for photo, width, height, box, found in zip(*(rows.column(c).to_pylist() for c in columns)):
        person = tuple(round(v, 1) for v in box) if box else None
        mine = tuple(
            known(hit[schema.PRODUCT_ID], hit[schema.IMAGE_ID], hit[schema.SCORE], rank) for rank, hit in enumerate(found, 1)
        )
        yield Answer(photo, width, height, person, mine, NOBODY if by_person and person is None else None)


def unreadable(photo: str, code: str, detail: str | None) -> Answer:
    """The answer for an unreadable photo."""
    return Answer(photo, None, None, None, (), f"it cannot be read: {detail or code}", code)


class _Known:
    """Current data of these hits' posts, and of the products worn in them."""

    def __init__(self, store: str, hits: Sequence[Mapping[str, Any]]):
        posts = current_posts(store, [schema.POST_ID, schema.URL, schema.PRODUCT_IDS])
        wanted = pa.array(sorted({hit[schema.PRODUCT_ID] for hit in hits}), pa.string())
        posts = posts.filter(pc.is_in(posts.column(schema.POST_ID), value_set=wanted))
        self._posts = {row[schema.POST_ID]: row for row in posts.to_pylist()}
        self._found = _found(store, sorted({hit[schema.IMAGE_ID] for hit in hits}))
        tagged = {p for row in self._posts.values() for p in row[schema.PRODUCT_IDS] or []}
        ids = pa.array(sorted(tagged.union(*self._found.values())), pa.string())
        products = current_products(store, [*_ABOUT, schema.ACTIVE])
        kept = pc.and_(products.column(schema.ACTIVE), pc.is_in(products.column(schema.PRODUCT_ID), value_set=ids))
        self._products = {row[schema.PRODUCT_ID]: row for row in products.filter(kept).select(_ABOUT).to_pylist()}

    def __call__(self, post_id: str, image_id: str, score: float, rank: int) -> Look:
        post = self._posts.get(post_id, {})
        ways = dict.fromkeys(self._found.get(image_id, ()), FOUND) | dict.fromkeys(post.get(schema.PRODUCT_IDS) or (), TAGGED)
        order = sorted(ways, key=lambda p: (ways[p] != TAGGED, p))
        worn = tuple(Worn(**self._products[p], how=ways[p]) for p in order if p in self._products)
        return Look(rank, post_id, image_id, round(score, 6), post.get(schema.URL), worn)


def _found(store: str, images: Sequence[str]) -> dict[str, list[str]]:
    """The nearest product of each garment in these photos, from the last `w2w find --of=posts`."""
    version = delta.newest_version(store, schema.FOUND)
    if version is None:
        return {}
    columns = [schema.KEY, schema.GARMENTS_LIST]
    rows = lookup(store, schema.FOUND, pa.array(images, pa.string()), columns, search_version=version)
    return {
        key: [found[schema.NEIGHBOUR_LIST][0][schema.PRODUCT_ID] for found in garments if found[schema.NEIGHBOUR_LIST]]
        for key, garments in zip(*(rows.column(c).to_pylist() for c in columns))
    }


def tables(answers: Iterable[Answer], most: int = 10) -> list[Any]:
    """Terminal output for the first ones."""
    from rich.table import Table

    table = Table("photo", "look", "score", "post", "worn in it", title="looks alike", title_justify="left")
    for answer in list(answers)[:most]:
        name = answer.photo
        if answer.says:
            table.add_row(name, "", "", answer.says, "")
            name = ""
        for look in answer.looks:
            worn = ", ".join(p.title or p.product_id for p in look.products)
            table.add_row(name, str(look.rank), f"{look.score:.3f}", look.url or look.post_id, worn)
            name = ""
    return [table] if table.row_count else []
