"""Which category a product's vector looks like, by all other products of the same catalog.

Ridge regression from vectors to categories, one column a category. What is said of a product comes from the others alone: the
residual of leaving it out has a closed form, (y - f) / (1 - h) with h the product's leverage (Allen 1974, "The relationship
between variable selection and data augmentation", PRESS). Two passes over the vectors: linear in products, and only sums of
D x D are held.
"""

from dataclasses import dataclass, field

import numpy as np

RIDGE = 0.1  # of a dimension's mean variance, for each product: chosen on planted swaps (tests/bench/check_swaps.py)


@dataclass
class Classes:
    """``add`` all vectors, then ``judge`` them. ``num``: of categories."""

    num: int
    products: int = 0
    _moment_DD: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    _target_DC: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    def add(self, vectors_ND: np.ndarray, codes_N: np.ndarray) -> None:
        """float32 (N, D), and the category of each, 0 to ``num`` - 1."""
        x = _with_one(vectors_ND)
        if not self.products:
            self._moment_DD, self._target_DC = np.zeros((x.shape[1],) * 2), np.zeros((x.shape[1], self.num))
        self.products += len(x)
        self._moment_DD += x.T @ x
        for code in range(self.num):
            self._target_DC[:, code] += x[codes_N == code].sum(axis=0)

    def solve(self) -> "Solved":
        """Raises ValueError without products."""
        if not self.products:
            raise ValueError("no products")
        mean = self._moment_DD[-1] / self.products
        variance = (np.trace(self._moment_DD) / self.products - mean @ mean) / (len(mean) - 1)
        ridge = np.full(len(mean), RIDGE * self.products * max(variance, 1e-12))
        ridge[-1] = 1e-9 * self.products  # the constant is not shrunk
        inverse = np.linalg.inv(self._moment_DD + np.diag(ridge))
        return Solved(inverse, inverse @ self._target_DC)


@dataclass(frozen=True)
class Solved:
    """The regression."""

    inverse_DD: np.ndarray
    weights_DC: np.ndarray

    def judge(self, vectors_ND: np.ndarray, codes_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The likeliest other category of each product, int64 (N,), and by how much it is likelier than the own one, about -1
        to 1; both without this product."""
        x = _with_one(vectors_ND)
        own = np.arange(len(x))
        leverage_N = np.einsum("nd,nd->n", x @ self.inverse_DD, x)
        scores_NC = x @ self.weights_DC
        scores_NC[own, codes_N] -= leverage_N
        scores_NC /= np.maximum(1 - leverage_N, 1e-6)[:, None]
        mine = scores_NC[own, codes_N].copy()
        scores_NC[own, codes_N] = -np.inf
        other = scores_NC.argmax(axis=1)
        return other, scores_NC[own, other] - mine


def _with_one(vectors_ND: np.ndarray) -> np.ndarray:
    return np.hstack([vectors_ND, np.ones((len(vectors_ND), 1), np.float32)]).astype(np.float64)
