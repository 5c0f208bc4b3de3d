"""Pairs of anchor and positive, or triplets, from a list or folders: the generic set `pairs`."""

import csv
import io
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from w2w import storage
from w2w.errors import UsageError
from w2w.garments.records import below, files_below, read_text
from w2w.garments.taxonomy import CATEGORIES
from w2w.images.sniff import SUFFIXES
from w2w.mining.components import components
from w2w.mining.sets.records import Anchor, Photo, PublicSet, Shop
from w2w.mining.splits.shares import TEST, TRAIN, VAL, split_of

ANCHOR, POSITIVE, NEGATIVE = SIDES = ("anchor", "positive", "negative")
COLUMNS = (*SIDES, "category", "product", "split")
_MOST_CHARS = 4096  # of a value


@dataclass(frozen=True)
class _Row:
    """One pair or triplet: files relative to the folder of pictures."""

    where: str
    anchor: str
    positive: str
    negative: str
    category: str
    product: str
    split: str


class PairList(PublicSet):
    """Three layouts:

    - a CSV (the path itself, or pairs.csv in the folder) with columns anchor and positive, and optionally negative, category,
      product and split; ``columns`` maps other names to them. Files are relative to ``images``, or to the CSV.
    - folders anchor/, positive/ and, for triplets, negative/: files of one name (whatever their suffix) belong together.
    - one folder per pair with anchor.jpg, positive.jpg and, for triplets, negative.jpg, at any depth; if the parent folder is
      named after a class, that is the pair's.

    Positives of one product are its pictures; without a product each positive is one. Negatives are products too, and are not
    used otherwise: `w2w harden` finds harder ones. Splits are drawn by product if they are not given.
    """

    def __init__(
        self,
        root: Path,
        images: Path | None,
        columns: dict[str, str] | None,
        category: str | None,
        shares: tuple[float, float],
    ):
        self._root, self._category, self._shares = root, category or "", shares
        self._columns = columns or {}
        if strange := [name for name in self._columns if name not in COLUMNS]:
            raise UsageError(f"set.columns: {strange[0]!r} is not one of {', '.join(COLUMNS)}")
        if category is not None and category not in CATEGORIES:
            raise UsageError(f"set.category={category}: must be one of {', '.join(CATEGORIES)}")
        file = root if root.is_file() else root / "pairs.csv"
        self._file = file if file.is_file() else None
        self._images = images or (file.parent if self._file else root)

    def _read(self) -> Iterator[_Row]:
        if self._file:
            return self._listed(self._file)
        if all(os.path.isdir(self._images / side) for side in (ANCHOR, POSITIVE)):
            return self._beside()
        return self._foldered()

    def _listed(self, file: Path) -> Iterator[_Row]:
        text = read_text(file)
        if "\0" in text:
            raise UsageError(f"{file}, line {text[: text.index(chr(0))].count(chr(10)) + 1}: it holds a null character")
        lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        try:
            names = [name.strip() for name in next(lines, [])]
            at = {}
            for ours in COLUMNS:
                theirs = self._columns.get(ours, ours)
                if names.count(theirs) > 1:
                    raise UsageError(f"{file}, line 1: two columns {theirs!r}")
                if theirs in names:
                    at[ours] = names.index(theirs)
                elif ours in (ANCHOR, POSITIVE) or ours in self._columns:
                    raise UsageError(
                        f"{file}, line 1: no column {theirs!r} for set.columns.{ours}, only {', '.join(names)[:200]}"
                    )
            for values in lines:
                where = f"{file}, line {lines.line_num}"
                if not values:
                    continue
                if len(values) != len(names):
                    raise UsageError(f"{where}: {len(values)} values for {len(names)} columns")
                found = {ours: values[i].strip() for ours, i in at.items()}
                if any(len(v) > _MOST_CHARS or not storage.is_text(v) for v in found.values()):
                    raise UsageError(f"{where}: a value is too long, or holds half a character")
                if empty := [side for side in (ANCHOR, POSITIVE) if not found[side]]:
                    raise UsageError(f"{where}: no {empty[0]}")
                yield _Row(where, **dict.fromkeys(COLUMNS, "") | found)
        except csv.Error as e:
            raise UsageError(f"{file}, line {lines.line_num}: not valid CSV: {e}") from e

    def _beside(self) -> Iterator[_Row]:
        """From folders anchor/, positive/ and negative/."""
        sides = {side: self._by_stem(side) for side in SIDES if os.path.isdir(self._images / side)}
        for stem, anchor in sides[ANCHOR].items():
            if stem not in sides[POSITIVE]:
                raise UsageError(f"{self._images / anchor}: there is no file of that name in {self._images / POSITIVE}")
            negative = sides.get(NEGATIVE, {}).get(stem, "")
            yield _Row(str(self._images / anchor), anchor, sides[POSITIVE][stem], negative, "", "", "")

    def _by_stem(self, side: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for file in files_below(self._images / side, SUFFIXES):
            stem = file.relative_to(self._images / side).with_suffix("").as_posix()
            if stem in found:
                raise UsageError(f"{file}: {found[stem]} has the same name")
            found[stem] = file.relative_to(self._images).as_posix()
        return found

    def _foldered(self) -> Iterator[_Row]:
        """From one folder per pair."""
        pairs: dict[Path, dict[str, str]] = defaultdict(dict)
        for file in files_below(self._images, SUFFIXES):
            if file.stem not in SIDES:
                continue
            if file.stem in pairs[file.parent]:
                raise UsageError(f"{file}: {pairs[file.parent][file.stem]} has the same name")
            pairs[file.parent][file.stem] = file.relative_to(self._images).as_posix()
        for folder, sides in pairs.items():
            if missing := [side for side in (ANCHOR, POSITIVE) if side not in sides]:
                raise UsageError(f"{folder}: no {missing[0]}.jpg beside {', '.join(sides.values())}")
            above = folder.parent.name if folder != self._images else ""
            category = above if above in CATEGORIES else ""
            yield _Row(str(folder), sides[ANCHOR], sides[POSITIVE], sides.get(NEGATIVE, ""), category, "", "")

    @cached_property
    def _rows(self) -> list[_Row]:
        """All rows, checked; about 500 bytes each."""
        rows: list[_Row] = []
        shown: dict[str, _Row] = {}
        for row in self._read():
            for side in SIDES:
                if getattr(row, side):
                    below(self._images, getattr(row, side), f"{row.where}: {side}")
            if row.split not in ("", TRAIN, VAL, TEST):
                raise UsageError(f"{row.where}: split {row.split!r} is not one of {TRAIN}, {VAL}, {TEST}")
            if (row.category or self._category) not in CATEGORIES:
                said = f"category {row.category!r} is not one of" if row.category else "no category: name one by set.category:"
                raise UsageError(f"{row.where}: {said} {', '.join(CATEGORIES)}")
            first = shown.setdefault(row.positive, row)
            if self._product(first) != self._product(row):
                raise UsageError(
                    f"{row.where}: {row.positive!r} is product {row.product!r}, and on {first.where} {first.product!r}"
                )
            rows.append(row)
        if not rows:
            raise UsageError(
                f"set.path={self._root}: no pairs.csv there, no folders {ANCHOR} and {POSITIVE}, no {ANCHOR}.jpg in any folder"
            )
        return rows

    def _product(self, row: _Row) -> str:
        return row.product or row.positive

    @cached_property
    def _splits(self) -> dict[str, str]:
        """The split of each product; the first row that gives one counts, and no other may contradict it."""
        said: dict[str, _Row] = {}
        for row in self._rows:
            first = said.setdefault(self._product(row), row)
            if row.split != first.split:
                raise UsageError(
                    f"{row.where}: {self._product(row)!r} is of split {row.split!r}, and on {first.where} of {first.split!r}"
                )
        drawn = dict(zip(said, split_of(pa.array(self._together(list(said)), pa.string()), *self._shares)))
        return {product: row.split or drawn[product] for product, row in said.items()}

    def _together(self, products: list[str]) -> list[str]:
        """For each product, the first product that anchors connect it with: an anchor is in one split."""
        number = {product: i for i, product in enumerate(products)}
        first: dict[str, int] = {}
        shown = [number[self._product(row)] for row in self._rows]
        beside = [first.setdefault(row.anchor, product) for row, product in zip(self._rows, shown)]
        return [products[i] for i in components(len(products), np.array(shown), np.array(beside)).tolist()]

    def shops(self) -> Iterator[Shop]:
        seen: set[str] = set()
        for negative in (False, True):  # a picture that is a positive anywhere is that product
            for row in self._rows:
                name = row.negative if negative else row.positive
                if name and name not in seen:
                    seen.add(name)
                    category = row.category or self._category
                    product = name if negative else self._product(row)
                    split = self._splits[self._product(row)]
                    yield Shop(name, product, str(self._images / name), category, category, split)

    def photos(self) -> Iterator[Photo]:
        shops: dict[str, dict[str, None]] = defaultdict(dict)
        for row in self._rows:
            shops[self._product(row)][row.positive] = None
        worn: dict[str, dict[tuple[str, str], _Row]] = defaultdict(dict)
        for row in self._rows:
            worn[row.anchor].setdefault((self._product(row), row.category or self._category), row)
        for name, rows in worn.items():
            splits = {self._splits[product] for product, _ in rows}
            if len(splits) > 1:
                where = next(iter(rows.values())).where
                raise UsageError(f"{where}: {name!r} shows products of the splits {' and '.join(sorted(splits))}")
            anchors = [Anchor(p, tuple(shops[p]), category, category, None) for p, category in rows]
            yield Photo(name, str(self._images / name), splits.pop(), tuple(anchors))
