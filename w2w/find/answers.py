"""Answers for people and programs: what was found, with title, price, brand and link."""

import bisect
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from w2w import schema, storage
from w2w.find.rules import NO_GARMENT, FindOptions, Hit, said_of
from w2w.report.cards import price_text
from w2w.report.variants import DESIGN_NEEDS, Design, designs
from w2w.shown import without_secrets
from w2w.table.current import current_products

_TOLD = 10  # photos shown on the terminal
_MOST_SHOWN = 500  # photos that a page can show
_ABOUT = (schema.PRODUCT_ID, schema.TITLE, schema.BRAND, schema.PRICE, schema.CURRENCY, schema.URL)


@dataclass(frozen=True)
class Product:
    """A product found: ``score`` is the cosine of its picture and the garment."""

    rank: int
    product_id: str
    image_id: str
    category: str
    score: float
    title: str | None
    brand: str | None
    price: float | None
    currency: str | None
    url: str | None
    same_picture: tuple[str, ...] = ()
    """Other products that have its picture."""


@dataclass(frozen=True)
class Piece:
    """A garment of a photo. ``says``: why it has no products. The whole photo, or words alone, is number 0 without a
    category."""

    number: int
    category: str | None
    score: float | None
    box_xyxy: tuple[float, ...] | None
    products: tuple[Product, ...]
    says: str | None = None


@dataclass(frozen=True)
class Answer:
    """The answer to a photo, or to words. ``says``: why there is no garment; ``reject``: the code if it could not be read."""

    photo: str
    width: int | None
    height: int | None
    garments: tuple[Piece, ...]
    says: str | None = None
    reject: str | None = None

    def line(self) -> str:
        """One line of JSON."""
        return json.dumps(without_secrets(asdict(self)), ensure_ascii=False)


class Catalog:
    """Current product data for display. Held in memory: about 250 bytes per product."""

    def __init__(self, store: str):
        rows = current_products(store, _ABOUT).combine_chunks()
        self._store, self._rows, self._ids = store, rows, rows.column(schema.PRODUCT_ID)

    @cached_property
    def designs(self) -> dict[str, Design]:
        """Which products are one of several colours of a design: for pages, and read when the first asks."""
        return designs(current_products(self._store, DESIGN_NEEDS).to_pylist())

    def about(self, product_id: str) -> dict[str, Any]:
        """Title, brand, price, currency and link of a product, None where nothing is known."""
        at = bisect.bisect_left(range(len(self._ids)), product_id, key=lambda i: self._ids[i].as_py())
        known = self._rows.slice(at, 1).to_pylist()
        there = known and known[0][schema.PRODUCT_ID] == product_id
        return known[0] if there else dict.fromkeys(_ABOUT) | {schema.PRODUCT_ID: product_id}

    def product(self, hit: Hit) -> Product:
        score, same = round(hit[schema.SCORE], 6), tuple(hit[schema.SAME_PICTURE])
        return Product(**self.about(hit[schema.PRODUCT_ID]) | hit | {schema.SCORE: score, schema.SAME_PICTURE: same})


def answers(rows: pa.Table, catalog: Catalog, options: FindOptions) -> Iterator[Answer]:
    """An answer for each row of schema.FOUND."""
    columns = (schema.QUERY_ID, schema.WIDTH, schema.HEIGHT, schema.GARMENTS_LIST)
    for photo, width, height, found in zip(*(rows.column(c).to_pylist() for c in columns)):
        yield answer(photo, width, height, found, catalog, options)


def answer(
    photo: str,
    width: int | None,
    height: int | None,
    found: Sequence[Mapping[str, Any]],
    catalog: Catalog,
    options: FindOptions,
) -> Answer:
    """``found``: values of schema.FOUND_GARMENT."""
    says = None if found else "no garment was found that --garment selects" if options.garment else NO_GARMENT
    return Answer(photo, width, height, tuple(piece(one, catalog, options) for one in found), says)


def piece(found: Mapping[str, Any], catalog: Catalog, options: FindOptions) -> Piece:
    """``found``: a value of schema.FOUND_GARMENT."""
    category, hits, score = found[schema.CATEGORY], found[schema.NEIGHBOUR_LIST], found[schema.SCORE]
    return Piece(
        found[schema.NUMBER],
        category,
        None if score is None else round(score, 4),
        tuple(round(v, 1) for v in found[schema.BOX]) if found[schema.BOX] else None,
        tuple(map(catalog.product, hits or [])),
        said_of(category, hits, options),
    )


def unreadable(photo: str, code: str, detail: str | None) -> Answer:
    """The answer for an unreadable photo."""
    return Answer(photo, None, None, (), f"it cannot be read: {detail or code}", code)


def of_words(text: str, hits: list[Hit], catalog: Catalog, options: FindOptions) -> Answer:
    """The answer for words alone."""
    found = dict.fromkeys([f.name for f in schema.FOUND_GARMENT]) | {schema.NUMBER: 0, schema.NEIGHBOUR_LIST: hits}
    return Answer(text, None, None, (piece(found, catalog, options),))


@dataclass
class Written:
    """Counts of the lines written, and the first answers themselves."""

    photos: int = 0
    garments: int = 0
    products: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    first: list[Answer] = field(default_factory=list)

    def add(self, answer: Answer) -> None:
        self.photos += 1
        self.garments += sum(g.number > 0 for g in answer.garments)
        self.products += sum(len(g.products) for g in answer.garments)
        if answer.reject:
            self.rejects[answer.reject] += 1
            self.unreadable += [f"{answer.photo}: {answer.says}"] if len(self.unreadable) < _TOLD else []
        if len(self.first) < _MOST_SHOWN:
            self.first.append(answer)


def write_lines(uri: str, answers: Iterable[Answer]) -> Written:
    """One line of JSON per answer."""
    written = Written()
    with storage.writer(uri) as file:
        for answer in answers:
            file.write(f"{answer.line()}\n".encode())
            written.add(answer)
    return written


def tables(answers: Sequence[Answer]) -> list[Any]:
    """Terminal output: a table of the products of each garment, and a line for each photo without any."""
    from rich.table import Table

    table = Table("photo", "garment", "product", "brand", "price", "score", "link", title="found", title_justify="left")
    for one in answers[:_TOLD]:
        name = one.photo
        if one.says:
            table.add_row(name, "", one.says)
        for garment in one.garments:
            title = f"{garment.number} {garment.category}" if garment.category else "all of it"
            if garment.says:
                table.add_row(name, title, garment.says)
            for p in garment.products:
                known = (p.title or p.product_id, p.brand or "", price_text(p.price, p.currency), f"{p.score:.3f}", p.url or "")
                table.add_row(name, title, *known)
                name = title = ""
            name = ""
    if not table.row_count:
        return []
    left = len(answers) - _TOLD
    return [table, *([f"and {left:,} more photos: see the page and the JSON lines"] if left > 0 else [])]
