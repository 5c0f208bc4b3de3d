"""The rows that are indexed, as runs look them up: those of a table in memory, or stored ones and what has changed since.

What is stored beside an index: the rows (product_id, image_id, category, availability, and whether there is a vector), by
product_id, a product's front picture first, mapped into memory, and where each product and picture stands among them. Later
runs store the products that have changed, with all of their rows. Once these are many, all rows are stored anew.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, storage
from w2w.ids import Sharing
from w2w.memory import file_on_disk, filtered_on_disk, sorted_on_disk, table_on_disk
from w2w.schema import AVAILABILITY, CATEGORY, IMAGE_ID, PRODUCT_ID
from w2w.table import mapped

FOLDER = "rows"  # of an index
HAS = "has_vector"
_CODE = 1  # raise it when rows of an earlier w2w are to be left alone
_AT_ONCE = 65_536  # rows hashed
_MOST_BESIDE = 0.1  # products that changed, as a share of the rows: of more, all are stored anew
_NAMES = (PRODUCT_ID, IMAGE_ID, CATEGORY, AVAILABILITY)
Column: TypeAlias = pa.Array | pa.ChunkedArray
STORED = pa.schema([*((name, pa.string()) for name in _NAMES), (HAS, pa.bool_())])


def counts_of(rows: pa.Table) -> dict[str, int]:
    """By category."""
    return {c["values"]: c["counts"] for c in pc.value_counts(rows[CATEGORY]).to_pylist()}


def sum_of(rows: pa.Table) -> tuple[int, int]:
    """Of hashes of all rows (product_id, image_id, category), each half modulo 2^64: rows that come and go are added and taken
    away."""
    total = np.zeros(2, np.uint64)
    for start in range(0, rows.num_rows, _AT_ONCE):
        mixed = np.zeros((min(_AT_ONCE, rows.num_rows - start), 2), np.uint64)
        for name, odd in zip((PRODUCT_ID, IMAGE_ID, CATEGORY), (1, 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)):
            mixed += ids.hash_keys_128(rows[name].slice(start, _AT_ONCE)) * np.uint64(odd)
        total += ids.scatter(mixed).sum(axis=0, dtype=np.uint64)
    first, second = total.tolist()
    return first, second


@dataclass(frozen=True)
class Rows(ABC):
    """Rows to be indexed. ``counts``: by category; ``total``: ``sum_of`` them."""

    counts: Mapping[str, int]
    total: tuple[int, int]

    @staticmethod
    def of(rows: "pa.Table | Rows") -> "Rows":
        return rows if isinstance(rows, Rows) else InMemory(counts_of(rows), sum_of(rows), rows)

    @property
    def num_rows(self) -> int:
        return sum(self.counts.values())

    @property
    @abstractmethod
    def all(self) -> pa.Table:
        """Every row, in memory or mapped."""

    @abstractmethod
    def having(self, products: Iterable[str] | Column = (), images: Iterable[str] | Column = ()) -> pa.Table:
        """Those of any of these products, or with any of these pictures, a product's front picture first."""


def _texts(names: Iterable[str] | Column) -> pa.Array | pa.ChunkedArray:
    if isinstance(names, pa.Array | pa.ChunkedArray):
        return names.cast(pa.string())
    return pa.array(sorted(set(names)), pa.string())


def _of(rows: pa.Table, products: pa.Array, images: pa.Array) -> pa.Table:
    wanted = [pc.is_in(rows[name], value_set=some) for name, some in ((PRODUCT_ID, products), (IMAGE_ID, images))]
    return rows.filter(pc.or_(*wanted))


@dataclass(frozen=True)
class InMemory(Rows):
    table: pa.Table = field(repr=False)

    @property
    def all(self) -> pa.Table:
        return self.table

    def having(self, products: Iterable[str] | Column = (), images: Iterable[str] | Column = ()) -> pa.Table:
        return _of(self.table, _texts(products), _texts(images))


@dataclass(frozen=True)
class Stored(Rows):
    """``base``: STORED, mapped; ``beside``: of the products ``replaced``, whose rows in the base no longer count. ``missing``:
    number of rows without a vector, which are not indexed."""

    base: pa.RecordBatch = field(repr=False)
    by_product: Sharing = field(repr=False)
    by_image: Sharing = field(repr=False)
    replaced: pa.Array = field(repr=False)
    beside: pa.Table = field(repr=False)
    missing: int
    folder: str

    @property
    def all(self) -> pa.Table:
        return filtered_on_disk(self._all, self._all[HAS].to_numpy()).drop_columns([HAS])

    @cached_property
    def _all(self) -> pa.Table:
        rows = pa.Table.from_batches([self.base])
        rows = filtered_on_disk(rows, ~pc.is_in(rows[PRODUCT_ID], value_set=self.replaced).to_numpy())
        return sorted_on_disk(table_on_disk([rows, self.beside], STORED), [(PRODUCT_ID, "ascending")])

    def having(self, products: Iterable[str] | Column = (), images: Iterable[str] | Column = ()) -> pa.Table:
        rows = self.with_and_without(products, images)
        return rows.filter(rows[HAS]).drop_columns([HAS])

    def with_and_without(self, products: Iterable[str] | Column = (), images: Iterable[str] | Column = ()) -> pa.Table:
        """STORED: those without a vector, too."""
        wanted = _texts(products), _texts(images)
        places = [by.find(ids.hash_keys_128(some)) for by, some in zip((self.by_product, self.by_image), wanted)]
        rows = pa.Table.from_batches([self.base.take(pa.array(np.unique(np.concatenate(places))))])
        rows = rows.filter(pc.invert(pc.is_in(rows[PRODUCT_ID], value_set=self.replaced)))
        return pa.concat_tables([_of(rows, *wanted), _of(self.beside, *wanted)])

    def with_changed(self, products: pa.Array, now: pa.Table) -> "Stored":
        """Rows (STORED) of these products instead of theirs before."""
        before = self.with_and_without(products)
        counts, total = dict(self.counts), list(self.total)
        for rows, sign in ((before.filter(before[HAS]), -1), (now.filter(now[HAS]), 1)):
            for category, num in counts_of(rows).items():
                counts[category] = counts.get(category, 0) + sign * num
            total = [(one + sign * more) % 2**64 for one, more in zip(total, sum_of(rows))]
        stays = pc.invert(pc.is_in(self.beside[PRODUCT_ID], value_set=products))
        return Stored(
            {category: num for category, num in counts.items() if num},
            (total[0], total[1]),
            self.base,
            self.by_product,
            self.by_image,
            pc.unique(pa.concat_arrays([self.replaced, products])),
            pa.concat_tables([self.beside.filter(stays), now]).combine_chunks(),
            self.missing - num_missing(before) + num_missing(now),
            self.folder,
        )

    @property
    def is_large(self) -> bool:
        """Whether all rows are to be stored anew."""
        return self.beside.num_rows + len(self.replaced) > _MOST_BESIDE * max(1, self.base.num_rows)


def num_missing(rows: pa.Table) -> int:
    return rows.num_rows - (pc.sum(rows[HAS]).as_py() or 0)


def stored(rows: pa.Table, has_vector: np.ndarray | None) -> pa.Table:
    """As STORED; None: of no row."""
    has = np.zeros(rows.num_rows, bool) if has_vector is None else has_vector
    columns = [rows[name] if name in rows.column_names else pa.nulls(rows.num_rows, pa.string()) for name in _NAMES]
    return pa.table([*columns, pa.array(has, pa.bool_())], schema=STORED)


@dataclass(frozen=True)
class ToStore:
    """What a run leaves for the next one: all rows anew, or the products that changed. ``told`` goes into the manifest."""

    told: dict[str, Any]
    rows: pa.Table | None = None
    beside: bytes | None = None

    @staticmethod
    def all_of(rows: pa.Table, counts: Mapping[str, int], total: tuple[int, int]) -> "ToStore":
        """``rows``: STORED; ``counts`` and ``total`` of those with a vector."""
        missing = num_missing(rows)
        folder = ids.digest(_CODE, list(total), missing, rows.num_rows, length=32)
        about = {"code": _CODE, "folder": folder, "beside": None}
        return ToStore(about | {"counts": dict(counts), "total": list(total), "missing": missing}, rows)

    @staticmethod
    def changed(rows: Stored) -> "ToStore":
        if rows.is_large:
            return ToStore.all_of(rows._all.combine_chunks(), rows.counts, rows.total)
        left = pc.invert(pc.is_in(rows.replaced, value_set=rows.beside[PRODUCT_ID]))
        none = rows.replaced.filter(left)  # products that have no rows any more
        marks = pa.table([none, *(pa.nulls(len(none), f.type) for f in list(STORED)[1:])], schema=STORED)
        out = pa.BufferOutputStream()
        with pa.ipc.new_file(out, STORED) as writer:
            writer.write_table(pa.concat_tables([rows.beside, marks]))
        data = out.getvalue().to_pybytes()
        about = {"code": _CODE, "folder": rows.folder, "beside": _beside_name(data)}
        return ToStore(about | {"counts": dict(rows.counts), "total": list(rows.total), "missing": rows.missing}, beside=data)

    def write(self, uri: str) -> None:
        where = storage.join(uri, FOLDER, self.told["folder"])
        if self.beside is not None:
            storage.write_bytes(storage.join(where, self.told["beside"]), self.beside)
        if self.rows is None:
            return
        rows = self.rows.cast(STORED).combine_chunks()
        arrays = {"rows": file_on_disk(rows)}
        for name in (PRODUCT_ID, IMAGE_ID):
            sharing = Sharing.of(ids.hash_keys_128(rows[name]))
            arrays |= {f"{name}_order": sharing.order, f"{name}_first": sharing.first}
        mapped.write(where, arrays, {"code": _CODE})


def _beside_name(data: bytes) -> str:
    """Of the file, which tells its content."""
    return f"beside-{hashlib.sha256(data).hexdigest()}.arrow"


def read_stored(uri: str, told: Mapping[str, Any] | None) -> Stored | None:
    """The rows as a manifest tells them; None where they are not stored, or a file is missing or damaged."""
    if not told or told.get("code") != _CODE:
        return None
    where = storage.join(uri, FOLDER, told["folder"])
    found = mapped.read(where)
    if found is None:
        return None
    arrays, beside = found[0], STORED.empty_table()
    if told["beside"]:
        try:
            data = storage.read_bytes(storage.join(where, told["beside"]))
        except FileNotFoundError:
            return None
        if _beside_name(data) != told["beside"]:
            return None
        beside = pa.ipc.open_file(data).read_all()
    by_product, by_image = (Sharing(arrays[f"{n}_order"], arrays[f"{n}_first"]) for n in (PRODUCT_ID, IMAGE_ID))
    return Stored(
        told["counts"],
        (told["total"][0], told["total"][1]),
        pa.ipc.open_file(pa.py_buffer(arrays["rows"])).get_batch(0),
        by_product,
        by_image,
        pc.unique(beside[PRODUCT_ID]),
        beside.filter(beside[IMAGE_ID].is_valid()),
        told["missing"],
        told["folder"],
    )


def delete_others(uri: str, told: Mapping[str, Any] | None) -> None:
    """What no manifest that is served needs."""
    for folder in storage.list_folders(storage.join(uri, FOLDER)):
        where = storage.join(uri, FOLDER, folder)
        if not told or folder != told["folder"]:
            storage.delete(where)
            continue
        for file in storage.list_files(where):
            if file.base_name.startswith("beside-") and file.base_name != told["beside"]:
                storage.delete(storage.join(where, file.base_name))
