"""A folder in LookBook's layout: its products, who wears them, and the pictures, small enough to keep in memory."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from w2w.errors import Reject, UsageError
from w2w.images.decode import decode
from w2w.images.lookbook import read_name
from w2w.images.resize import fit


@dataclass(frozen=True)
class Product:
    """Files of one product: alone, and worn."""

    product: str
    clean: str
    worn: tuple[str, ...]


def read_products(folder: Path, least_worn: int = 10) -> list[Product]:
    """Products with a picture alone and at least ``least_worn`` worn, by number; from the folder's ``data`` if it has that.

    Raises UsageError if the folder or such products are missing, or a file has another kind of name.
    """
    folder = folder / "data" if os.path.isdir(folder / "data") else folder
    if not os.path.isdir(folder):
        raise UsageError(f"lookbook.path={folder}: no such folder")
    clean: dict[str, str] = {}
    worn: dict[str, list[str]] = defaultdict(list)
    for path in sorted(folder.glob("*.jpg")):
        product, alone = read_name(path)
        if alone:
            clean.setdefault(product, str(path))
        else:
            worn[product].append(str(path))
    found = [Product(p, clean[p], tuple(worn[p])) for p in sorted(clean) if len(worn[p]) >= least_worn]
    if not found:
        raise UsageError(f"lookbook.path={folder}: no product has a picture alone and {least_worn} worn")
    return found


def split_products(products: Sequence[Product], num_test: int, seed: int) -> tuple[list[Product], list[Product]]:
    """(train, test), disjoint: ``num_test`` products drawn for the test."""
    if not 0 < num_test < len(products):
        raise UsageError(f"lookbook.num_test={num_test}: of {len(products)} products some must be left to train on")
    order = np.random.default_rng(seed).permutation(len(products))
    return [products[i] for i in sorted(order[num_test:])], [products[i] for i in sorted(order[:num_test])]


def splits(
    products: Sequence[Product], test_share: float, val_share: float
) -> tuple[list[Product], list[Product], list[Product]]:
    """(train, val, test), disjoint. ``val_share`` is of what is not for the test; a single product is not held out.

    Raises UsageError if fewer than two would be left for the test or for training.
    """
    num_test = round(test_share * len(products))
    num_val = round(val_share * (len(products) - num_test))
    if min(num_test, len(products) - num_test - num_val) < 2:
        raise UsageError(
            f"lookbook.test_share={test_share}, lookbook.val_share={val_share}: {len(products)} products are too few for two "
            "to test and two to train on"
        )
    rest, test = split_products(products, num_test, seed=0)
    train, val = split_products(rest, num_val, seed=1) if num_val > 1 else (rest, [])
    return train, val, test


class Pictures:
    """Decoded pictures of one size, squashed to a square as in the seed. Keeps ``most`` of them: 30 KB each at 100 px."""

    def __init__(self, side_px: int, most: int = 30_000):
        self._side_px, self._most = side_px, most
        self._kept: dict[str, np.ndarray] = {}

    def read(self, files: Sequence[str]) -> np.ndarray:
        """uint8 (N, side, side, 3). Raises UsageError for a file that is not a picture."""
        return np.stack([self._one(file) for file in files])

    def _one(self, file: str) -> np.ndarray:
        if file in self._kept:
            return self._kept[file]
        try:
            picture = self._fitted(Path(file).read_bytes())
        except (Reject, OSError) as e:
            raise UsageError(f"{file}: cannot be read: {e}") from e
        if len(self._kept) < self._most:
            self._kept[file] = picture
        return picture

    def add(self, name: str, data: bytes) -> None:
        """Keeps a picture that is not a file, under a name for ``read``. Raises Reject as ``decode`` does."""
        self._kept[name] = self._fitted(data)

    def _fitted(self, data: bytes) -> np.ndarray:
        return fit(decode(data, min_side_px_wanted=self._side_px), self._side_px, "squash", "bilinear")
