"""Benchmark sets: LookBench (arXiv 2601.14706), and the synthetic shop."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from w2w.errors import Reject, UsageError
from w2w.garments.records import Record, below, files_below, numbers, parse_json, read_text
from w2w.garments.taxonomy import CATEGORIES, IGNORE
from w2w.ingest.cells import cell_uri, check_cells
from w2w.mining.sets.records import Anchor, Photo, PublicSet, Shop, find
from w2w.mining.splits.shares import TEST

_NOISE = "noise"
_ROWS = 4096
_COLUMNS = ("category", "main_attribute", "item_ID")


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeError, Reject) as e:
        raise UsageError(f"{file}: cannot be read as Parquet: {(str(e).splitlines() or [type(e).__name__])[0]}") from e


class LookBench(PublicSet):
    """One folder per subset (real_studio_flat, aigen_studio, real_streetlook, aigen_streetlook; noise) with query*.parquet and
    gallery*.parquet of the hub, pictures inside. Everything is a product: of partition query or gallery, with its subset,
    category and main attribute as attributes; noise has no subset. Categories and attributes are compared ignoring case.

    ``classes``: its categories as our classes; unnamed ones have none.
    """

    def __init__(self, root: Path, classes: dict[str, str] | None):
        self._classes = {label.strip().lower(): None if c in ("drop", IGNORE) else c for label, c in (classes or {}).items()}
        if strange := [c for c in self._classes.values() if c not in (None, *CATEGORIES)]:
            raise UsageError(f"set.classes: {strange[0]!r} is not one of {', '.join(CATEGORIES)}")
        files = [f for f in files_below(root, (".parquet",)) if f.stem.partition("-")[0] in ("query", "gallery")]
        self._files = [(f.parent.name, f.stem.partition("-")[0], f) for f in files]
        if not self._files:
            raise UsageError(f"set.path={root}: no SUBSET/query.parquet or SUBSET/gallery.parquet below it")
        for _, _, file in self._files:
            self._check(file)

    @staticmethod
    def _check(file: Path) -> None:
        with _readable(file):
            names = pq.read_schema(file).names
            check_cells(str(file))
        for name in _COLUMNS:
            if name not in names:
                raise UsageError(f"{file}: no column {name!r}, only {', '.join(names[:20])}")

    @staticmethod
    def _batches(file: Path) -> Iterator[list[dict]]:
        with _readable(file), pq.ParquetFile(file) as opened:
            yield from (batch.to_pylist() for batch in opened.iter_batches(_ROWS, columns=list(_COLUMNS)))

    def shops(self) -> Iterator[Shop]:
        for subset, partition, file in self._files:
            number = 0
            for batch in self._batches(file):
                for values in batch:
                    label, main, item = (str(values[n]).strip() for n in _COLUMNS)
                    label = label.lower()
                    told = {} if subset == _NOISE else {"subset": subset}
                    told |= {"partition": partition, "main_attribute": main.lower()}
                    name = f"{subset}/{file.stem}/{number}"
                    uri = cell_uri(str(file), number)
                    yield Shop(name, f"{subset}/{item}", uri, label, self._classes.get(label), TEST, notes=tuple(told.items()))
                    number += 1


class Wardrobe(PublicSet):
    """The output of `python -m w2w.wardrobe.shop FOLDER`: products.csv, and posts.jsonl with true boxes. A garment less visible
    than ``_LEAST_SEEN`` is not a query. A benchmark: everything is in the test split."""

    _LEAST_SEEN = 0.35

    def __init__(self, root: Path):
        self._root = root
        self._feed, self._posts = find(root, "products.csv"), find(root, "posts.jsonl")

    @cached_property
    def _products(self) -> dict[str, dict[str, str]]:
        rows = csv.DictReader(io.StringIO(read_text(self._feed)))
        found = {}
        try:
            for row in rows:
                where = f"{self._feed}, line {rows.line_num}"
                if missing := [n for n in ("product_id", "category", "image") if not row.get(n)]:
                    raise UsageError(f"{where}: no {missing[0]}")
                if row["category"] not in CATEGORIES:
                    raise UsageError(f"{where}: category {row['category']!r} is not one of {', '.join(CATEGORIES)}")
                found[row["product_id"]] = row | {"where": where}
        except csv.Error as e:
            raise UsageError(f"{self._feed}, line {rows.line_num}: {e}") from e
        return found

    def shops(self) -> Iterator[Shop]:
        for name, row in self._products.items():
            uri, notes = below(self._root, row["image"], row["where"]), [(n, row[n]) for n in ("colour", "style") if row.get(n)]
            yield Shop(name, name, uri, row["category"], row["category"], TEST, title=row.get("title"), notes=tuple(notes))

    def photos(self) -> Iterator[Photo]:
        for number, line in enumerate(read_text(self._posts).splitlines(), 1):
            where, anchors = f"{self._posts}, line {number}", []
            post = Record(where, parse_json(line, where))
            for i, values in enumerate(post.get("items", list)):
                item = Record(f"{where}: items[{i}]", values)
                product, box = item.get("product_id", str), item.numbers("box_xyxy", 4)
                (seen,) = numbers([item.get("visible_fraction", (int, float))], 1, f"{item.where}: visible_fraction")
                if product not in self._products:
                    raise UsageError(f"{item.where}: product {product!r} is not in {self._feed}")
                if seen >= self._LEAST_SEEN:
                    category = self._products[product]["category"]
                    anchors.append(Anchor(product, (product,), category, category, box))
            yield Photo(post.get("post_id", str), below(self._root, post.get("image", str), where), TEST, tuple(anchors))
