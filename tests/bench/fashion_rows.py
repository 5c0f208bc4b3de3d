"""The pictures that w2w-fashion learns from and is measured on, their splits, and what is computed of them once: vectors of a
backbone, and the small pictures that colours are read from.

Learnt from are rows of split `train` alone: `user_photos` as it is split; `catalog` by a hash of clusters of near-duplicates
(half train, a tenth val, four tenths test); rendered garments of shop 21. `views` teaches nothing: weights of the parts are
chosen on its skus for training, and figures stated on the others.
"""

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.bench.book import SEEDS, TEST, TRAIN, VAL, Book
from w2w.images.decode import decode
from w2w.images.phash import phash_many
from w2w.mining.components import components
from w2w.mining.splits.shares import split_of
from w2w.models.encoder import Encoder

DATA = Path(os.environ.get("W2W_DATA", "../shared/data"))
PLAIN, LIT, HIDDEN = "plain", "re-lit", "half hidden"
VARIANTS = (PLAIN, LIT, HIDDEN)
_LIGHT = 0.1  # a picture in other light: each channel times up to so much more or less
_HASH_BITS = 4
_PRODUCTS = {TRAIN: 300, VAL: 60, TEST: 100}  # of the rendered shops
_GALLERY, _WORN = 300, 2
MORE, LARGE = "wardrobe more", 5000  # thumbnails beyond the test's gallery, up to so many with it
_SHARES = (0.1, 0.4)  # of the catalog's clusters: val, test


@dataclass(frozen=True)
class Rows:
    """Of one data set: files, splits (train, val, test), what belongs together when intervals are drawn, and labels by name."""

    name: str
    files: list[str]
    splits_N: np.ndarray
    groups_N: np.ndarray
    labels: dict[str, np.ndarray]

    def of(self, *splits: str) -> np.ndarray:
        """Places of the rows of these splits."""
        return np.flatnonzero(np.isin(self.splits_N, splits))


def read_real(folder: Path) -> dict[str, Rows]:
    """``folder``: where the catalog's hashes are kept."""
    return {rows.name: rows for rows in (read_views(), _photos(), _catalog(folder))}


def read_all(folder: Path) -> dict[str, Rows]:
    """``folder``: also where garments are rendered to."""
    return read_real(folder) | {rows.name: rows for rows in _wardrobe(folder)}


def unit(rows_ND: np.ndarray) -> np.ndarray:
    """float32, each row of length 1."""
    return (rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)).astype(np.float32)


def _read(name: str, file: str) -> dict[str, np.ndarray]:
    with open(DATA / name / file, encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    table = {column: np.array([r[column] for r in rows]) for column in rows[0]}
    return table | {"file": np.array([str(DATA / name / r["image"]) for r in rows])}


def read_views() -> Rows:
    table = _read("views", "views.csv")
    product = np.char.add(np.char.add(table["sku"], " "), table["colour"])
    labels = {"sku": table["sku"], "product": product, "main": table["view"] == "main"}
    splits = np.where(table["split"] == "train", VAL, TEST)  # nothing learns from views
    return Rows("views", table["file"].tolist(), splits, table["sku"], labels)


def _photos() -> Rows:
    table = _read("user_photos", "photos.csv")
    splits = np.where(table["split"] == "validation", VAL, table["split"])
    return Rows("user_photos", table["file"].tolist(), splits, table["photo_id"], {"class": table["label"]})


def _catalog(folder: Path) -> Rows:
    table = _read("catalog", "products.csv")
    files, cached = table["file"].tolist(), folder / "catalog-hashes.npy"
    if not cached.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pictures = [decode(Path(f).read_bytes()) for f in files]
        np.save(cached, np.stack([phash_many(pictures), phash_many([p[:, ::-1] for p in pictures])], 1))
    clusters = _near_duplicates(np.load(cached))
    names = table["product_id"][clusters]  # a cluster is called as its first product
    splits = np.array(split_of(pa.array(names.tolist()), *_SHARES))
    return Rows("catalog", files, splits, names, {"type": table["product_type"], "colour": table["colour"]})


def _near_duplicates(hashes_N2: np.ndarray) -> np.ndarray:
    """The first row of each row's cluster: perceptual hashes that differ in few bits, as they are or mirrored."""
    pairs = []
    for i, own in enumerate(hashes_N2[:, 0]):
        bits_N2 = np.bitwise_count((hashes_N2[i + 1 :] ^ own).view(np.uint64))
        pairs += [(i, i + 1 + int(j)) for j in np.flatnonzero(bits_N2.min(1) <= _HASH_BITS)]
    return components(len(hashes_N2), *np.array(pairs, np.int64).reshape(-1, 2).T)


def _wardrobe(folder: Path) -> Iterator[Rows]:
    """Thumbnails and photos of people of three shops without a common product."""
    book = Book(folder / "book", _PRODUCTS, _WORN, _GALLERY)
    for split in (TRAIN, VAL, TEST):
        gallery = [p.clean for p in book.products[TRAIN]] if split == TRAIN else book.asked[split].gallery
        garments = book.train_garments if split == TRAIN else book.asked[split].garments
        worn = [(place, file) for place, p in enumerate(book.products[split]) for file in p.worn]
        places = np.array([*range(len(gallery)), *(place for place, _ in worn)])
        labels = {
            "type": np.array([g.kind for g in garments])[places],
            "colour": np.array([g.colour_name for g in garments])[places],
            "place": places,
            "main": np.arange(len(places)) < len(gallery),
        }
        files = [*gallery, *(file for _, file in worn)]
        groups = np.char.add(f"w{SEEDS[split]}-", places.astype(str))
        yield Rows(f"wardrobe {split}", files, np.full(len(files), split), groups, labels)


def more(folder: Path) -> Rows:
    """Thumbnails of the test's shop that no photo is taken of, beside the gallery's: 4,700, rendered in some minutes."""
    files = Book(folder / "book", _PRODUCTS, _WORN, LARGE).asked[TEST].gallery[_GALLERY:]
    numbers = np.arange(_GALLERY, LARGE)
    return Rows(MORE, files, np.full(len(files), TEST), np.char.add(f"w{SEEDS[TEST]}-", numbers.astype(str)), {})


def pixels(rows: Rows, encoder: Encoder, variant: str, places: Sequence[int]) -> np.ndarray:
    """uint8 (N, S, S, 3): these rows as the encoder sees them, as they are, in other light or half hidden."""
    change = {PLAIN: lambda image, _: image, LIT: relit, HIDDEN: half_hidden}[variant]
    seeds = [np.random.default_rng([VARIANTS.index(variant), int(i)]) for i in places]
    images = (decode(Path(rows.files[i]).read_bytes()) for i in places)
    return np.stack([encoder.prepare(change(image, rng)) for image, rng in zip(images, seeds)])


def relit(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each channel brighter or darker by up to a tenth, on its own: exposure and colour of the light."""
    return np.clip(image * rng.uniform(1 - _LIGHT, 1 + _LIGHT, 3), 0, 255).astype(np.uint8)


def half_hidden(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of the four halves behind a plain colour."""
    image, (height, width) = image.copy(), image.shape[:2]
    side = int(rng.integers(4))
    top, left = (height // 2 if side == 1 else 0), (width // 2 if side == 3 else 0)
    part = image[top : top + (height // 2 if side < 2 else height), left : left + (width // 2 if side > 1 else width)]
    part[:] = rng.integers(0, 256, 3)
    return image


def computed(rows: Rows, variant: str, encoder: Encoder, folder: Path, called: str, of: Callable | None = None) -> np.ndarray:
    """``of`` the pixels (default: the encoder's vectors), a row of the data set each; read from ``folder`` once it is there."""
    file = folder / f"{called}-{rows.name}-{variant}.npy".replace(" ", "-")
    if not file.exists():
        parts = [
            (of or encoder.encode)(pixels(rows, encoder, variant, range(start, min(start + 32, len(rows.files)))))
            for start in range(0, len(rows.files), 32)
        ]
        part = file.with_suffix(f".{os.getpid()}.npy")
        np.save(part, np.concatenate(parts))
        os.replace(part, file)
    return np.load(file, mmap_mode="r")
