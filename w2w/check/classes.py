"""Which category a product's vector looks like, by all other products of the same catalog.

Ridge regression from vectors to categories, one column a category. What is said of a product comes from the others alone: the
residual of leaving it out has a closed form, (y - f) / (1 - h) with h the product's leverage (Allen 1974, "The relationship
between variable selection and data augmentation", PRESS). Two passes over the vectors: linear in products, and only sums of
D x D are held.
"""

from dataclasses import dataclass, field

import numpy as np

MAD_TO_SD = 1.4826  # of a normal distribution
_LEAST_SAMPLED, _CELLS = 20, 4_000_000  # products of a category; float32 in all samples
RIDGE = 1.0  # of a dimension's mean variance, for each product: chosen on planted swaps (tests/bench/check_swaps.py)


@dataclass
class Classes:
    """``add`` all vectors, ``solve``, then ask ``Judged``. ``num``: of categories."""

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

    def beyond(self, vectors_ND: np.ndarray, codes_N: np.ndarray) -> np.ndarray:
        """By how much each category is likelier than a product's own, about -1 to 1, without this product: float64 (N, C)."""
        x = _with_one(vectors_ND)
        own = np.arange(len(x))
        leverage_N = np.einsum("nd,nd->n", x @ self.inverse_DD, x)
        scores_NC = x @ self.weights_DC
        scores_NC[own, codes_N] -= leverage_N
        scores_NC /= np.maximum(1 - leverage_N, 1e-6)[:, None]
        return scores_NC - scores_NC[own, codes_N][:, None]


class Judged:
    """What the regression says of ``codes_N``, the categories of all products: ``other_N``, the likeliest other category,
    ``margin_N``, by how much it is likelier than the own, -inf where there was no vector, and from ``deviations``, how unusual
    that is in the own category. Held: 12 bytes a product, and a sample of each category."""

    def __init__(self, codes_N: np.ndarray, num: int):
        self.other_N, self.margin_N = np.zeros(len(codes_N), np.int32), np.full(len(codes_N), -np.inf)
        self._codes_N, self._num = codes_N, num
        most = max(_LEAST_SAMPLED, _CELLS // max(1, num * num))
        counts = np.bincount(codes_N, minlength=num)
        order = np.argsort(codes_N, kind="stable")
        place_N = np.empty(len(codes_N), np.int64)  # within its category
        place_N[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        self._sampled_N = place_N % np.maximum(1, -(-counts // most))[codes_N] == 0
        self._sample: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, solved: Solved, at: np.ndarray, vectors_ND: np.ndarray) -> None:
        """Vectors of the products at these places."""
        codes = self._codes_N[at]
        beyond_NC = solved.beyond(vectors_ND, codes)
        some = self._sampled_N[at]
        self._sample.append((codes[some], beyond_NC[some].astype(np.float32)))
        beyond_NC[np.arange(len(at)), codes] = -np.inf
        self.other_N[at] = beyond_NC.argmax(axis=1)
        self.margin_N[at] = beyond_NC.max(axis=1)

    def deviations(self) -> np.ndarray:
        """float64 (N,): the margins in robust standard deviations from the median of the own category's products towards the
        same other one. Categories that look alike have large ones only where a product is odd among its own."""
        codes, beyond = (np.concatenate(parts) for parts in zip(*self._sample))
        middle_CC, spread_CC = np.zeros((self._num, self._num)), np.ones((self._num, self._num))
        for code in np.unique(codes):
            own = beyond[codes == code]
            middle_CC[code] = np.median(own, axis=0)
            spread_CC[code] = MAD_TO_SD * np.median(np.abs(own - middle_CC[code]), axis=0) + 1e-3
        pair = self._codes_N, self.other_N
        return (self.margin_N - middle_CC[pair]) / spread_CC[pair]


def _with_one(vectors_ND: np.ndarray) -> np.ndarray:
    return np.hstack([vectors_ND, np.ones((len(vectors_ND), 1), np.float32)]).astype(np.float64)
