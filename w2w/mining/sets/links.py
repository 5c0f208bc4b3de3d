"""Links between a shop's own products, as shops keep them (related, cross-sell, up-sell): the set `links`. What is sold with
what becomes an outfit of two."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from w2w import schema, storage
from w2w.errors import Reject, RejectCode, UsageError
from w2w.garments.records import read_text
from w2w.garments.taxonomy import CATEGORIES
from w2w.mining.components import components
from w2w.mining.sets.records import PublicSet
from w2w.mining.sets.rows import Row
from w2w.mining.splits.shares import split_of

PRODUCT, LINKED, KIND = COLUMNS = ("product", "linked", "kind")
_CALLED = {
    PRODUCT: ("product", "sku", "product_id"),
    LINKED: ("linked", "linked_sku", "linked_product"),
    KIND: ("kind", "type"),
}
KINDS = ("related", "crosssell")  # an up-sell is bought instead of a product, not with it
_MOST_CHARS = 1024  # of a value


@dataclass(frozen=True)
class Link:
    """``where``: file and line; ``reject``: what is wrong with the line."""

    where: str
    product: str = ""
    linked: str = ""
    kind: str = ""
    reject: Reject | None = None


class Links(PublicSet):
    """A CSV with columns product (or sku), linked (or linked_sku) and, if there are several kinds, kind; ``columns`` names
    others."""

    def __init__(self, file: Path, columns: Mapping[str, str] | None, kinds: Sequence[str] | None):
        if not file.is_file():
            raise UsageError(f"set.path={file}: name the CSV with the links")
        self._file, self._columns = file, dict(columns or {})
        self._kinds = {_word(kind) for kind in (KINDS if kinds is None else kinds)}
        if strange := [name for name in self._columns if name not in COLUMNS]:
            raise UsageError(f"set.columns: {strange[0]!r} is none of {', '.join(COLUMNS)}")

    def read(self) -> Iterator[Link]:
        """The lines of the kinds that are asked for, and those that cannot be read. Raises UsageError for a file without the
        columns."""
        lines = csv.reader(io.StringIO(read_text(self._file), newline=""))
        try:
            names = [name.strip() for name in next(lines, [])]
            at = {ours: self._place(ours, names) for ours in COLUMNS}
            for values in lines:
                where = f"{self._file.name}:{lines.line_num}"
                if len(values) != len(names):
                    if values:
                        why = f"{len(values)} values for {len(names)} columns"
                        yield Link(where, reject=Reject(RejectCode.MALFORMED_ROW, why))
                    continue
                product, linked, kind = (values[i].strip() if i is not None else "" for i in at.values())
                if at[KIND] is not None and _word(kind) not in self._kinds:
                    continue
                yield Link(where, product, linked, kind, _wrong(product, linked))
        except csv.Error as e:
            raise UsageError(f"{self._file}, line {lines.line_num}: not valid CSV: {e}") from e

    def _place(self, ours: str, names: Sequence[str]) -> int | None:
        theirs = [self._columns[ours]] if ours in self._columns else [n for n in _CALLED[ours] if n in names]
        if theirs and theirs[0] in names:
            return names.index(theirs[0])
        if ours == KIND and not theirs:
            return None
        asked = repr(theirs[0]) if theirs else "for it"
        raise UsageError(
            f"{self._file}, line 1: no column {asked}: name one by set.columns.{ours}; it has {', '.join(names)[:200]}"
        )


def _word(kind: str) -> str:
    """Cross-sell, cross_sell and CrossSell are one kind."""
    return "".join(filter(str.isalnum, kind.lower()))


def _wrong(product: str, linked: str) -> Reject | None:
    if not product or not linked:
        return Reject(RejectCode.MISSING_FIELD, "it names no product" if not product else "it names no linked product")
    if any(len(name) > _MOST_CHARS or not storage.is_text(name) for name in (product, linked)):
        return Reject(RejectCode.BAD_VALUE, "a name is too long, or holds half a character")
    return None


@dataclass(frozen=True)
class Sold:
    """A product of the store: its picture, and its class (one of the seven, or none of them)."""

    image_id: str | None
    category: str


def outfits(links: Sequence[Link], sold: Mapping[str, Sold], source: str, shares: tuple[float, float]) -> Iterator[Row]:
    """Rows of table `outfits`, or the line and its reject. A link that is there both ways counts once. Products that links
    connect are in one split."""
    good: dict[tuple[str, str], tuple[Sold, Sold]] = {}
    for link in links:
        found = link.reject or _linked(link, sold)
        if isinstance(found, Reject):
            yield f"{source}/{link.where}", found
        else:
            good.setdefault((min(link.product, link.linked), max(link.product, link.linked)), found)
    names = sorted({name for two in good for name in two})
    number = {name: i for i, name in enumerate(names)}
    ends = np.array([[number[a], number[b]] for a, b in good], np.int64).reshape(-1, 2)
    first = components(len(names), ends[:, 0], ends[:, 1]).tolist()
    split = split_of(pa.array([names[i] for i in first], pa.string()), *shares)
    for (a, b), two in good.items():
        yield {
            schema.OUTFIT_ID: f"{source}/{a}+{b}",
            schema.ITEMS: [
                {schema.SLOT: s.category, schema.ITEM_ID: s.image_id, schema.IMAGE_ID: s.image_id, schema.CATEGORY: s.category}
                for s in two
            ],
            schema.MODIFIED_OF: None,
            schema.REPLACED: [],
            schema.SPLIT: split[number[a]],
            schema.SOURCE: source,
        }


def _linked(link: Link, sold: Mapping[str, Sold]) -> tuple[Sold, Sold] | Reject:
    """Both products, in the order of their names."""
    a, b = sorted((link.product, link.linked))
    for name in (a, b):
        if name not in sold:
            return Reject(RejectCode.UNKNOWN_PRODUCT, f"there is no product {name!r}")
        if sold[name].image_id is None:
            return Reject(RejectCode.NO_PHOTO, f"product {name!r} has no picture")
        if sold[name].category not in CATEGORIES:
            return Reject(RejectCode.NO_CATEGORY, f"product {name!r} is of none of the seven classes")
    if sold[a].category == sold[b].category:
        return Reject(RejectCode.MISSING_SLOT, f"both are of class {sold[a].category}, and an outfit has one of each")
    return sold[a], sold[b]
