"""The experiments of "Clothing Recommendation" (R. R. Premkumar), section 3, for any model that scores products for a photo.

1: is this the product that is worn? 2: which of N products is worn? 3: the same with pictures generated from the photos.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from w2w.errors import UsageError
from w2w.training.lookbook.pictures import Product

KS = (1, 5, 10, 20)
# as printed there (figures 4 and 6): pairs of 556 new products, then the share of right products among the first k of N
SEED_PAIRS = {"precision": 0.652741, "recall": 0.910954, "F1": 0.760528, "accuracy": 0.713163}
SEED_TOP = {50: (0.06, 0.36, 0.56, 0.86), 300: (0.003, 0.043, 0.1067, 0.2)}


@dataclass(frozen=True)
class Pairs:
    """Files of products and of photos, (P,), and whether they belong together."""

    products: tuple[str, ...]
    worn: tuple[str, ...]
    same_P: np.ndarray


def make_pairs(products: Sequence[Product], each: int, rng: np.random.Generator) -> Pairs:
    """``each`` positive and as many negative pairs per product (the seed: 10): its picture with photos of it, and with photos
    of other products. A product with fewer photos makes fewer pairs of both kinds."""
    if len(products) < 2:
        raise UsageError("a single product makes no negative pair")
    clean, worn, same = [], [], []
    for number, product in enumerate(products):
        chosen = rng.permutation(len(product.worn))[:each]
        others = (number + rng.integers(1, len(products), len(chosen))) % len(products)
        wrong = [products[o].worn[int(rng.integers(len(products[o].worn)))] for o in others]
        clean += [product.clean] * (2 * len(chosen))
        worn += [product.worn[i] for i in chosen] + wrong
        same += [True] * len(chosen) + [False] * len(wrong)
    return Pairs(tuple(clean), tuple(worn), np.array(same))


def experiment_1(probabilities_P: np.ndarray, same_P: np.ndarray) -> dict[str, float]:
    """Precision, recall, F1, accuracy and confusion matrix of pairs, positive from .5 on."""
    said = probabilities_P >= 0.5
    tp, fp = int((said & same_P).sum()), int((said & ~same_P).sum())
    fn, tn = int((~said & same_P).sum()), int((~said & ~same_P).sum())
    precision, recall = tp / max(1, tp + fp), tp / max(1, tp + fn)
    return {
        "precision": precision,
        "recall": recall,
        "F1": 2 * precision * recall / max(1e-12, precision + recall),
        "accuracy": (tp + tn) / max(1, len(same_P)),
        "true negatives": tn,
        "false positives": fp,
        "false negatives": fn,
        "true positives": tp,
    }


def make_gallery(products: Sequence[Product], size: int, rng: np.random.Generator) -> Pairs:
    """``size`` products and a photo of each: row n of both belongs together."""
    if size > len(products):
        raise UsageError(f"lookbook.galleries: {size} products are requested, but there are only {len(products)}")
    chosen = [products[i] for i in rng.choice(len(products), size, replace=False)]
    worn = tuple(p.worn[int(rng.integers(len(p.worn)))] for p in chosen)
    return Pairs(tuple(p.clean for p in chosen), worn, np.ones(size, bool))


def hits(scores_NN: np.ndarray, k: int) -> np.ndarray:
    """For each photo (row), whether its product (the same column) is among the k that score best, (N,). Tied products rank
    before it as often as after it: a constant score is worth k / N."""
    own_N1 = np.diagonal(scores_NN)[:, None]
    before_N = (scores_NN > own_N1).sum(axis=1)
    ties_N = (scores_NN == own_N1).sum(axis=1)
    return np.clip((k - before_N) / ties_N, 0, 1)


def experiment_2(scores_NN: np.ndarray, ks: Sequence[int] = KS) -> dict[int, float]:
    """Share of photos whose product is among the k that score best."""
    return {k: float(hits(scores_NN, k).mean()) for k in ks}


def drawing_scores(
    draw: Callable[[np.ndarray], np.ndarray],
    vectors: Callable[[np.ndarray], np.ndarray],
    worn_NHWC: np.ndarray,
    products_NHWC: np.ndarray,
) -> np.ndarray:
    """(N, N): ``draw`` generates a picture of the product from each photo, which is compared with the products' own by
    ``vectors`` (unit length). Pictures are uint8."""
    return vectors(draw(worn_NHWC)) @ vectors(products_NHWC).T


def experiment_3(
    draw: Callable[[np.ndarray], np.ndarray],
    vectors: Callable[[np.ndarray], np.ndarray],
    worn_NHWC: np.ndarray,
    products_NHWC: np.ndarray,
    ks: Sequence[int] = KS,
) -> dict[int, float]:
    """The products nearest to the picture generated from a photo, ranked as in experiment 2."""
    return experiment_2(drawing_scores(draw, vectors, worn_NHWC, products_NHWC), ks)


def pixel_vectors(pictures_NHWC: np.ndarray) -> np.ndarray:
    """The pixels themselves as unit vectors, mean removed: the baseline without an encoder."""
    flat = pictures_NHWC.reshape(len(pictures_NHWC), -1).astype(np.float32)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
