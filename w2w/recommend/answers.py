"""Questions and answers as plain values: table rows, JSON lines, and fields of a result."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.recommend.house import CATEGORY
from w2w.recommend.rules import Outfit, Question, Stylist, lacks_place
from w2w.recommend.shelf import CODE, EXTRAS, FORMS, Applied, Shelf
from w2w.report.cards import price_text

_MARKED_AT_ONCE = 16_384  # products
NO_OUTFIT = "no outfit meets the rules"


@dataclass(frozen=True)
class Item:
    """A product of an outfit; ``product_id`` is None for a garment of a photo."""

    category: str
    product_id: str | None
    image_id: str | None = None
    title: str | None = None
    brand: str | None = None
    price: float | None = None
    currency: str | None = None
    url: str | None = None
    given: bool = False


@dataclass(frozen=True)
class Pair:
    """How well two of the outfit's items go together."""

    category: str
    beside: str
    score: float


@dataclass(frozen=True)
class Recommended:
    """An outfit: ``score`` is the mean over its pairs."""

    rank: int
    score: float
    items: tuple[Item, ...]
    pairs: tuple[Pair, ...]
    total: float | None = None
    """Price of all its products, the given ones included; None unless each has one, in one currency."""
    currency: str | None = None
    """Of ``total``."""


@dataclass(frozen=True)
class Answer:
    """What goes with the given items. ``says``: why there is nothing, or not all that was asked for."""

    given: tuple[Item, ...]
    outfits: tuple[Recommended, ...]
    says: str | None = None


def item_of(shelf: Shelf, row: int, category: str, given: bool = False) -> Item:
    if row >= len(shelf):
        return Item(category, None, given=True)
    (told,) = shelf.rows.slice(row, 1).to_pylist()
    known = {c: told[c] for c in (schema.IMAGE_ID, schema.TITLE, schema.BRAND, schema.PRICE, schema.CURRENCY, schema.URL)}
    return Item(category, told[schema.PRODUCT_ID], **known, given=given)


def answer_of(stylist: Stylist, question: Question) -> Answer:
    """A question's answers with their products' data."""
    found = _told(stylist, question.given, stylist.answers(question))
    return Answer(_given(stylist, question.given), found, _says(stylist, question, found))


def _says(stylist: Stylist, question: Question, found: Sequence[Recommended]) -> str | None:
    """In full, with counts of the whole catalog: of rows of a table these would grow stale."""
    says = question.why or ("" if found else f"{NO_OUTFIT}: what goes with it breaks {stylist.applied.house.combining}")
    causes = "; ".join(why for place in question.lacking if (why := stylist.why_empty(place, question.given)))
    return ": ".join(filter(None, (says, causes))) or None


def pins_not_met(stylist: Stylist, answer: Answer, given: Sequence[int]) -> tuple[str, ...]:
    """A sentence, with the cause, for each pin that applies to what is given and that no outfit of the answer meets."""
    if not answer.outfits:  # the answer says why
        return ()
    shelf, applied = stylist.shelf, stylist.applied
    shown = shelf.find([item.product_id for outfit in answer.outfits for item in outfit.items if item.product_id])
    in_photo = {item.category for item in answer.given if item.product_id is None}
    told = []
    for (beside, mask, places), pin in zip(applied.pins, applied.pinned):
        is_met = shelf.mask(pin)[shown].any() or (dict(pin.wanted).keys() == {CATEGORY} and in_photo & {*pin.values(CATEGORY)})
        if stylist.holds(beside, given) and not is_met:
            cause = _why_not(stylist, given, mask, places)
            told.append(f"{applied.house.name}, line {pin.line}: no outfit here has {pin}: {cause}")
    return tuple(told)


def _why_not(stylist: Stylist, given: Sequence[int], mask: np.ndarray, places: Sequence[str]) -> str:
    classes = [stylist.category(row) for row in given]
    forms = [form for form in FORMS if not lacks_place(form, classes)]
    open_ = [c for c in places if c not in classes]
    fitting = [c for c in open_ if c in EXTRAS or any(c in form for form in forms)]
    known = [c for c in fitting if c in stylist.space.classes]
    if not open_:
        return f"the {' and '.join(places)} of the outfit is given"
    if not fitting:
        return f"an outfit with the given {' and '.join(classes)} has no {' or '.join(open_)}"
    if not known:
        return f"the scorer knows nothing of what a {fitting[0]} goes with"
    rows = np.flatnonzero(mask & np.isin(stylist.shelf.class_N, [CODE[c] for c in known]))
    refused = stylist.refusals(given, rows)
    if refused.total() < len(rows):
        return "another pin or rule comes before it"
    return "beside what is given, " + ", ".join(f"{n:,} {why}" for why, n in refused.most_common() if n)


def answer_of_rows(stylist: Stylist, given: Sequence[int], rows: Sequence[int]) -> Answer:
    """One outfit, as an answer."""
    return Answer(_given(stylist, given), _told(stylist, given, [stylist.outfit(rows)]))


def _given(stylist: Stylist, given: Sequence[int]) -> tuple[Item, ...]:
    return tuple(item_of(stylist.shelf, row, stylist.category(row), given=True) for row in given)


def _told(stylist: Stylist, given: Sequence[int], outfits: Sequence[Outfit]) -> tuple[Recommended, ...]:
    found = []
    for rank, outfit in enumerate(outfits, 1):
        items = tuple(item_of(stylist.shelf, row, stylist.category(row), row in given) for row in outfit.rows)
        found.append(recommended(rank, outfit.score, items, _pairs(stylist, outfit)))
    return tuple(found)


def recommended(rank: int, score: float, items: tuple[Item, ...], pairs: tuple[Pair, ...]) -> Recommended:
    """With its total: a garment of a photo costs nothing."""
    prices = [i.price for i in items if i.product_id is not None]
    currencies = {i.currency for i in items if i.product_id is not None}
    known = [price for price in prices if price is not None]
    if not prices or len(known) < len(prices) or len(currencies) > 1:
        return Recommended(rank, score, items, pairs)
    return Recommended(rank, score, items, pairs, round(sum(known), 2), *currencies)


def _pairs(stylist: Stylist, outfit: Outfit) -> tuple[Pair, ...]:
    two = itertools.combinations(map(stylist.category, outfit.rows), 2)
    return tuple(Pair(a, b, score) for (a, b), score in zip(two, outfit.pairs))


def stored(stylist: Stylist, question: Question) -> tuple[list[dict[str, Any]], str | None]:
    """The same as values of columns ``outfits`` and ``reason`` of table `recommendations`."""
    found = _told(stylist, question.given, stylist.answers(question))
    outfits = [
        {
            schema.RANK: o.rank,
            schema.SCORE: o.score,
            schema.ITEMS: [{c: getattr(i, c) for c in (schema.CATEGORY, schema.PRODUCT_ID, schema.IMAGE_ID)} for i in o.items],
            schema.PAIRS_LIST: [vars(pair) for pair in o.pairs],
        }
        for o in found
    ]
    return outfits, question.why or (None if found else NO_OUTFIT)


def marks(shelf: Shelf, applied: Applied, attributes: Sequence[str] = ()) -> np.ndarray:
    """int64 (N,): of each product of the shelf a hash of everything that its place in an outfit follows from, except the
    scorer. ``attributes``: those that the scorer looks at."""
    house = applied.house
    columns = [shelf.rows.column(c) for c in (schema.PRODUCT_ID, schema.IMAGE_ID, schema.CATEGORY)]
    _, first, back, sizes = np.unique(shelf.group_N, return_index=True, return_inverse=True, return_counts=True)
    first_of_group = pa.array(first[back], mask=sizes[back] == 1)  # by name: group numbers change from night to night
    columns.append(pc.fill_null(columns[0].take(first_of_group), ""))
    if house.brands != "any":
        columns.append(pc.fill_null(shelf.rows.column(schema.BRAND), ""))
    columns += [pc.fill_null(shelf.attribute(name), "\x1e") for name in attributes]
    masks = {"allowed": applied.allowed_N, "banned": applied.banned_N}
    for n, (beside, what, _) in enumerate(applied.pins):
        masks |= {f"pin {n}{'' if beside is None else ' beside'}": what}
        masks |= {} if beside is None else {f"given to pin {n}": beside}
    for n, (beside, what) in enumerate(applied.bans):
        masks |= {f"ban {n}": what, f"given to ban {n}": beside}
    for n, two in enumerate(applied.never):
        masks |= {f"never {n}, {i}": mask for i, mask in enumerate(two)}
    found = np.empty(len(shelf), np.int64)
    for start in range(0, len(shelf), _MARKED_AT_ONCE):
        part = slice(start, start + _MARKED_AT_ONCE)
        named = np.full(len(found[part]), "", object)
        for name, mask in masks.items():
            named[mask[part]] += f"{name};"
        texts = [c[part].to_pylist() for c in columns]
        texts += [list(map(str, shelf.price_N[part].tolist()))] if house.total_max is not None else []
        told = ["\x1f".join(one) for one in zip(*texts, named.tolist())]
        found[part] = ids.hash_keys(pa.array(told, pa.string())).view(np.int64)
    return found


def digest_of(question: Question, mark_N: np.ndarray, version: str) -> str:
    """Of everything that decides a question's answers. ``mark_N``: ``marks``; ``version``: of scorer and options."""
    candidates = {place: mark_N[rows].tolist() for place, rows in question.candidates.items()}
    given = mark_N[list(question.given)].tolist()
    return ids.digest(version, given, question.forms, candidates, sorted(question.pinned), question.why, length=32)


def lines(answers: Sequence[Answer]) -> Iterator[str]:
    """One line per given item and outfit, for the terminal."""
    for answer in answers:
        with_ = " and ".join(f"{i.category} {i.product_id or 'of the photo'}" for i in answer.given)
        yield f"with {with_}: {answer.says}" if answer.says else f"with {with_}:"
        for o in answer.outfits:
            new = ", ".join(f"{i.category} {i.product_id}" for i in o.items if not i.given) or "as it is"
            why = ", ".join(f"{p.category} with {p.beside} {p.score:.2f}" for p in o.pairs)
            total = f", in all {price}" if (price := price_text(o.total, o.currency)) else ""
            yield f"  {o.rank}. {o.score:.2f}  {new}{total}  ({why})"
