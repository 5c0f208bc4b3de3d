"""Keys that were erased (`w2w erase`), as salted hashes: no job takes them in again.

The file tells of an id that somebody already has whether it was erased, and names none. It is no secret, so whoever can read
the store can try ids that are guessed.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa

from w2w import schema, storage
from w2w.errors import JobFailed

FOLDER = "erased"  # in the store: the keys, and a receipt for each erasure
KINDS = {schema.PRODUCT_ID: "product", schema.POST_ID: "post", schema.IMAGE_ID: "image", schema.URL: "address"}
Keys = Mapping[str, frozenset[str]]  # by kind


@dataclass(frozen=True)
class Erased:
    """The hashes of a store, by kind (the values of ``KINDS``). ``also``: what went with what was asked for, with the asked: a
    product's pictures and addresses."""

    salt: str = ""
    asked: Keys = field(default_factory=dict)
    also: tuple[tuple[Keys, Keys], ...] = ()

    @cached_property
    def keys(self) -> Keys:
        """All hashes that are kept out."""
        return _joined(self.asked, *(more for _, more in self.also))

    def knows(self, column: str) -> bool:
        """Whether anything of this kind was erased; ``column`` is a key of ``KINDS``."""
        return bool(self.keys.get(KINDS[column]))

    def has(self, column: str, key: str | None) -> bool:
        return key is not None and self.knows(column) and self.hashed(column, key) in self.keys[KINDS[column]]

    def mask(self, column: str, keys: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """bool, shape (n,): which of the keys were erased. A hash a key, unless nothing of this kind was."""
        if not self.knows(column):
            return np.zeros(len(keys), bool)
        return np.fromiter((self.has(column, key) for key in keys.to_pylist()), bool, len(keys))

    def hashed(self, column: str, key: str) -> str:
        return hashlib.sha256(f"{self.salt}/{KINDS[column]}/{key}".encode()).hexdigest()

    def all_hashed(self, keys: Mapping[str, Iterable[str]]) -> Keys:
        """Plain keys by column (``KINDS``), as hashes by kind."""
        return {KINDS[c]: frozenset(self.hashed(c, key) for key in some) for c, some in keys.items()}


def _joined(*several: Keys) -> Keys:
    return {kind: frozenset().union(*(one.get(kind, frozenset()) for one in several)) for kind in KINDS.values()}


def _without(keys: Keys, gone: Keys) -> Keys:
    return {kind: some - gone.get(kind, frozenset()) for kind, some in keys.items()}


def _uri(store: str) -> str:
    return storage.join(store, FOLDER, "keys.json")


def read(store: str) -> Erased:
    """Raises JobFailed if the file is damaged: then nobody knows what must not come back."""
    return _parsed(_bytes(store), store)


def add(store: str, asked: Mapping[str, Iterable[str]], also: Mapping[str, Iterable[str]]) -> Erased:
    """Adds plain keys by column (``KINDS``), and what goes with them; returns all."""

    def more(before: Erased) -> Erased:
        salted = Erased(before.salt or secrets.token_hex(16))
        new, with_it = salted.all_hashed(asked), salted.all_hashed(also)
        group = [(new, with_it)] if any(_without(with_it, before.keys).values()) else []
        return Erased(salted.salt, _joined(before.asked, new), (*before.also, *group))

    return _change(store, more)


def allow(store: str, keys: Mapping[str, Iterable[str]]) -> Erased:
    """Takes plain keys off again, with what was erased along with them; returns what is left."""

    def fewer(before: Erased) -> Erased:
        gone = before.all_hashed(keys)
        kept = tuple(one for one in before.also if not any(one[0].get(kind, frozenset()) & some for kind, some in gone.items()))
        return Erased(before.salt, _without(before.asked, gone), kept)

    return _change(store, fewer)


def _change(store: str, change: Callable[[Erased], Erased]) -> Erased:
    data = _bytes(store)
    before = _parsed(data, store)
    after = change(before)
    if after != before:
        also = [[_listed(asked), _listed(more)] for asked, more in after.also]
        plain = {"what": "sha256 of salt/kind/key", "salt": after.salt, "asked": _listed(after.asked), "also": also}
        storage.replace_if(_uri(store), json.dumps(plain, indent=1).encode(), data)
    return after


def _listed(keys: Keys) -> dict[str, list[str]]:
    return {kind: sorted(some) for kind, some in keys.items()}


def _bytes(store: str) -> bytes | None:
    try:
        return storage.read_bytes(_uri(store))
    except FileNotFoundError:
        return None


def _parsed(data: bytes | None, store: str) -> Erased:
    if data is None:
        return Erased()

    def keys(plain: dict) -> Keys:
        return {kind: frozenset(some) for kind, some in plain.items()}

    try:
        plain = json.loads(data)
        also = tuple((keys(asked), keys(more)) for asked, more in plain["also"])
        return Erased(plain["salt"], keys(plain["asked"]), also)
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise JobFailed(f"{_uri(store)} is damaged ({type(e).__name__}): restore it, or erase those keys again") from e
