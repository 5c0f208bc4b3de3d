"""Small catalogs, and spaces whose scores are known."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from w2w.garments.taxonomy import CATEGORIES
from w2w.recommend.shelf import ROWS, Shelf


def shelf(products: Sequence[dict], groups: Sequence[int] | None = None) -> Shelf:
    """``products``: category and whatever else matters; ids are p00, p01 ... where none is given."""
    usual = {"title": "t", "brand": None, "price": 10.0, "currency": "EUR", "url": None, "attributes": []}
    rows = []
    for i, product in enumerate(products):
        row = usual | {"product_id": f"p{i:02d}", "image_id": f"i{i:02d}", "called": product["category"]} | product
        rows.append(row | {"attributes": list(dict(row["attributes"]).items())})
    return Shelf(pa.Table.from_pylist(rows, schema=ROWS), np.arange(len(rows)) if groups is None else np.array(groups))


class Told:
    """The score of two rows is what the matrix says."""

    def __init__(self, score_MM: np.ndarray, classes: Sequence[str] = CATEGORIES):
        self.score_MM, self.classes = score_MM.astype(np.float32), tuple(classes)

    def pair(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self.score_MM[np.ix_(a, b)]

    def shown(self, score: float) -> float:
        return float(np.exp(score))


def random_space(size: int, seed: int) -> Told:
    scores = -np.random.default_rng(seed).exponential(size=(size, size))
    return Told((scores + scores.T) / 2)
