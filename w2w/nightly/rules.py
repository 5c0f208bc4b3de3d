"""What a night changed: products before and after, and the sentence that says it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pyarrow as pa

from w2w import ids, schema

COMPARED = {  # column of `products` -> what a person calls it
    schema.PRICE: "price",
    schema.AVAILABILITY: "availability",
    schema.CATEGORY: "category",
    schema.TITLE: "title",
    schema.IMAGE_ID: "picture",
    schema.REGULAR_PRICE: "regular price",
    schema.BRAND: "brand",
    schema.COLOUR: "colour",
    schema.SIZE_SAID: "size",
    schema.GENDER: "gender",
    schema.URL: "link",
}


@dataclass(frozen=True)
class Rows:
    """Rows of ``products`` as numbers: the hash of the id, fetched_at (microseconds), whether active, and a hash of each column
    of COMPARED. 105 bytes a row."""

    ids_N: np.ndarray  # uint64
    stamps_N: np.ndarray  # int64
    active_N: np.ndarray  # bool
    values_NC: np.ndarray  # uint64

    COLUMNS = (schema.PRODUCT_ID, schema.FETCHED_AT, schema.ACTIVE, *COMPARED)

    @classmethod
    def of(cls, rows: pa.Table) -> "Rows":
        """``rows``: with COLUMNS."""
        values = [ids.hash_keys(rows.column(c).cast(pa.string()).fill_null("")) for c in COMPARED]
        return cls(
            ids.hash_keys(rows.column(schema.PRODUCT_ID)),
            rows.column(schema.FETCHED_AT).cast(pa.int64()).to_numpy(),
            rows.column(schema.ACTIVE).to_numpy(),
            np.stack(values, 1),
        )

    @classmethod
    def joined(cls, some: Sequence["Rows"]) -> "Rows":
        none = cls(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, bool), np.empty((0, len(COMPARED)), np.uint64))
        every = [none, *some]
        return cls(*(np.concatenate([getattr(one, name) for one in every]) for name in cls.__dataclass_fields__))

    def take(self, rows_M: np.ndarray) -> "Rows":
        return Rows(self.ids_N[rows_M], self.stamps_N[rows_M], self.active_N[rows_M], self.values_NC[rows_M])

    def newest(self) -> np.ndarray:
        """Rows, in the order of ids: the newest of each product."""
        order = np.lexsort((self.stamps_N, self.ids_N))
        sorted_N = self.ids_N[order]
        return order[np.append(sorted_N[1:] != sorted_N[:-1], True)[: len(order)]]


@dataclass(frozen=True)
class Changes:
    """Row numbers, into the night's rows, of what happened to products."""

    new: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """Not there before."""
    back: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """Withdrawn before, and sold again."""
    gone: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    changed: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """Where a column of COMPARED differs."""
    what: dict[str, int] = field(default_factory=dict)
    """Of the changed ones, by COMPARED's words."""
    rewritten: int = 0
    """Products with a new row in which none of these differs: another attribute, or where its picture is."""


def changes(tonight: Rows, before: Rows) -> Changes:
    """``before``: all earlier rows of the night's products."""
    now_M, then = tonight.newest(), before.take(before.newest())
    place_M = np.searchsorted(then.ids_N, tonight.ids_N[now_M])
    known_M = np.isin(tonight.ids_N[now_M], then.ids_N, assume_unique=True)
    active_M = tonight.active_N[now_M]
    was_M = np.zeros(len(now_M), bool)
    was_M[known_M] = then.active_N[place_M[known_M]]
    stayed_M = was_M & active_M
    differs_SC = tonight.values_NC[now_M[stayed_M]] != then.values_NC[place_M[stayed_M]]
    differs_S = differs_SC.any(1)
    what = dict(zip(COMPARED.values(), map(int, differs_SC.sum(0))))
    return Changes(
        now_M[~known_M & active_M],
        now_M[known_M & ~was_M & active_M],
        now_M[was_M & ~active_M],
        now_M[stayed_M][differs_S],
        {word: n for word, n in what.items() if n},
        int((~differs_S).sum()),
    )


def headline(day: datetime, told: Mapping[str, int] | None, published: str, error: str | None, step: str | None) -> str:
    """One sentence to read aloud. ``told``: counts by word, zeros left out, None if not known; ``published``: what became of
    the index."""
    counts = "what changed could not be read" if told is None else ", ".join(f"{n:,} {w}" for w, n in told.items() if n)
    if error is None:
        return f"{day:%A}: {counts or 'nothing changed'}; {published}."
    where = f"the night stopped at {step}" if step else "the night did not begin"
    return f"{day:%A}: {where}; {published}." + (f" Until then: {counts}." if counts else "")


def sentence(notice: str) -> str:
    return f"{notice[:1].upper()}{notice[1:]}."


def in_the_night(message: str, step: str, options: Sequence[str]) -> str:
    """What a job says of its options, with the names that they have in a night of which it is a step: --out is --export.out."""
    names = "|".join(map(re.escape, options))
    message = re.sub(rf"^(?=(?:{names})=)", f"{step}.", message)
    return re.sub(rf"(?<![\w-])--(?=(?:{names})(?![\w-]))", f"--{step}.", message)


def first_of(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
