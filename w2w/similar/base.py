"""The lists of a whole run in numbers, beside their table: what later nights look up, without reading that.

The files are written once, before the commit that names them, and mapped into memory; erasing deletes them. Where they are
missing, all lists are read, as where too much has changed.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema, storage
from w2w.ids import Places, Sharing
from w2w.memory import empty_on_disk, file_on_disk
from w2w.similar.cards import SHARED, Keys
from w2w.table import delta, mapped
from w2w.table.mapped import Streamed

FOLDER = "_similar"  # of a store
MOST_WAITING = 1000  # in the log
_SORTED = 1 << 25  # entries of lists sorted at once: 8 bytes of each
_CODE = 4  # raise it when files of an earlier w2w are to be left alone


@dataclass(frozen=True)
class Base:
    """Of N products by their place, in the order of ids. ``names``: product_id and image_id; ``products``: their places;
    ``picture_N2``: hashes of image ids; ``category_N``: int32, into ``categories``; ``card_N``: place of the first of a card;
    ``row_N``: of their vectors, over ``parts`` (path, rows), of which ``owners`` tells all; ``order_N``: places by that row;
    ``vector_RD``: float32, of all rows, if there is a copy; ``bound_N``, ``last_N``, ``complete_N`` and the lists as in
    ``rules.Kept``, members by place; ``holders``: whose lists a product is in. Where cards have several products, ``keys``
    tells why, ``sharing`` finds them, by each of ``SHARED``, and ``colour`` is the attribute that tells colours."""

    names: pa.RecordBatch
    products: Places
    owners: Places
    holders: "Holders"
    picture_N2: np.ndarray
    category_N: np.ndarray
    card_N: np.ndarray
    allowed_N: np.ndarray
    row_N: np.ndarray
    order_N: np.ndarray
    bound_N: np.ndarray
    last_N: np.ndarray
    complete_N: np.ndarray
    member_NW: np.ndarray
    score_NW: np.ndarray
    categories: tuple[str, ...]
    parts: tuple[tuple[str, int], ...]
    keys: Keys | None = None
    sharing: tuple[Sharing, ...] = ()
    colour: str | None = None
    vector_RD: np.ndarray | None = None


@dataclass(frozen=True)
class Holders:
    """The lists that N products are in: ``end_N``, where those of each end in ``place_E``, int32."""

    end_N: np.ndarray
    place_E: np.ndarray

    @staticmethod
    def of(member_NW: np.ndarray) -> "Holders":
        num, width = member_NW.shape
        counts = sum(
            np.bincount(m[m >= 0], minlength=num) for m in np.array_split(member_NW, -(-member_NW.size // _SORTED) or 1)
        )
        end_N = np.cumsum(np.asarray(counts, np.int64))
        place_E = empty_on_disk((int(end_N[-1]) if num else 0,), np.int32)
        low = 0
        while low < num:  # the lists of some products at a time
            start = end_N[low - 1] if low else 0
            high = max(low + 1, int(np.searchsorted(end_N, start + _SORTED, "right")))
            held = np.flatnonzero((member_NW >= low) & (member_NW < high))
            both = member_NW.ravel()[held].astype(np.uint64) << np.uint64(32) | (held // width).astype(np.uint64)
            place_E[start : end_N[high - 1]] = np.sort(both) & np.uint64(0xFFFFFFFF)
            low = high
        return Holders(end_N, place_E)

    def find(self, places: np.ndarray) -> np.ndarray:
        """Places of the lists that have any of these."""
        places = places[places < len(self.end_N)]
        high, low = self.end_N[places], np.where(places > 0, self.end_N[places - 1], 0)
        counts = high - low
        return self.place_E[np.repeat(low - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())]


_ARRAYS = [name for name, kind in Base.__annotations__.items() if kind is np.ndarray]
_PLACES = ("products", "owners")
_KEYS, _NAMES, _HOLDERS, _VECTORS = "keys", "names", "holders", "vectors"


def write_base(store: str, name: str, folder: str, base: Base, vectors: Streamed | None = None) -> None:
    """``vectors``: what is to be ``vector_RD``."""
    where = _where(store, name, folder)
    arrays: dict[str, np.ndarray | Streamed] = {one: getattr(base, one) for one in _ARRAYS}
    arrays[_NAMES] = file_on_disk(pa.Table.from_batches([base.names]))
    arrays |= {f"{_HOLDERS}_{one}": array for one, array in vars(base.holders).items()}
    if vectors is not None:
        arrays[_VECTORS] = vectors
    for one in _PLACES:
        places = getattr(base, one)
        arrays |= {f"{one}_order": places.order, f"{one}_hashes": places.hashes_2N}
    if base.keys is not None:
        arrays |= {f"{_KEYS}_{one}": array for one, array in vars(base.keys).items()}
        for one, sharing in zip(SHARED, base.sharing):
            arrays |= {f"{_KEYS}_{one}_{half}": array for half, array in vars(sharing).items()}
    about = {"code": _CODE, "categories": base.categories, "parts": base.parts, "colour": base.colour}
    mapped.write(where, arrays, about | {"keys": base.keys is not None})


def read_base(store: str, name: str, folder: str) -> Base | None:
    """None if a file is missing or damaged."""
    found = mapped.read(_where(store, name, folder))
    if found is None or found[1].get("code") != _CODE:
        return None
    files, about = found
    arrays: dict[str, Any] = {one: files[one] for one in _ARRAYS}
    arrays |= {one: Places.of(files[f"{one}_order"], files[f"{one}_hashes"]) for one in _PLACES}
    if about["keys"]:
        arrays["keys"] = Keys(*(files[f"{_KEYS}_{one}"] for one in Keys.__annotations__))
        halves = [[files[f"{_KEYS}_{one}_{half}"] for half in Sharing.__annotations__] for one in SHARED]
        arrays["sharing"] = tuple(Sharing(*two) for two in halves)
    arrays["names"] = pa.ipc.open_file(pa.py_buffer(files[_NAMES])).get_batch(0)
    arrays["holders"] = Holders(*(files[f"{_HOLDERS}_{one}"] for one in Holders.__annotations__))
    arrays["vector_RD"] = files.get(_VECTORS)
    parts = tuple((path, rows) for path, rows in about["parts"])
    return Base(**arrays, categories=tuple(about["categories"]), parts=parts, colour=about["colour"])


def keys_to_bytes(at: np.ndarray, keys: Keys) -> bytes:
    """The keys of some places."""
    out = io.BytesIO()
    np.savez(out, at=at, **vars(keys))
    return out.getvalue()


def write_beside(store: str, name: str, folder: str, data: bytes) -> None:
    storage.write_bytes(storage.join(_where(store, name, folder), beside_name(data)), data)


def beside_name(data: bytes) -> str:
    """Of the file, which tells its content."""
    return f"beside-{hashlib.sha256(data).hexdigest()}.npz"


def read_beside(store: str, name: str, folder: str, file: str) -> tuple[np.ndarray, Keys] | None:
    """Places and their keys; None if the file is missing or damaged."""
    try:
        data = storage.read_bytes(storage.join(_where(store, name, folder), file))
    except FileNotFoundError:
        return None
    if beside_name(data) != file:
        return None
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return arrays["at"], Keys(*(arrays[one] for one in Keys.__annotations__))


def delete_beside(store: str, name: str, folder: str, file: str | None) -> None:
    """All such files but that one."""
    for found in storage.list_files(_where(store, name, folder)):
        if found.base_name.startswith("beside-") and found.base_name != file:
            storage.delete(storage.join(_where(store, name, folder), found.base_name))


def delete_others(store: str, name: str, folder: str | None) -> None:
    """All but that one."""
    for other in storage.list_folders(storage.join(store, FOLDER, name)):
        if other != folder:
            storage.delete(_where(store, name, other))


def in_parts(listed: Sequence[delta.Part]) -> tuple[tuple[str, int], ...]:
    return tuple((part.path, part.rows) for part in listed)


def _where(store: str, name: str, folder: str) -> str:
    return storage.join(store, FOLDER, name, folder)


def waiting_of(without: pa.Table, refused: pa.Table) -> list[list[int]] | None:
    """``without``: product_id and image_id of active products without a vector, ``refused``: whose picture search may not use;
    None if they are too many to be told."""
    if without.num_rows + refused.num_rows > MOST_WAITING:
        return None
    told = []
    for rows, no in ((without, 0), (refused, 1)):
        hashes = [ids.hash_keys_128(pc.fill_null(rows.column(c), "")).tolist() for c in (schema.PRODUCT_ID, schema.IMAGE_ID)]
        told += [[*product, *picture, no] for product, picture in zip(*hashes)]
    return told
