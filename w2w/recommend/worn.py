"""A scorer without training: counts which looks were worn together.

Items are assigned to clusters of their class by their vectors, each to several in proportion to proximity. For two classes, n
is the number of outfits with looks like these two items, and e the number expected if looks were independent. The ratio n / e
is shrunk towards the prior r0, as if k more outfits had been seen that agree with it,

    r = (n + k r0) / (e + k),

the posterior mean of a Poisson rate with a Gamma(k r0, k) prior (DuMouchel 1999, "Bayesian Data Mining in Large Frequency
Tables", section 2). It backs off to looks: r0 = exp(w z), z being the similarity of the two items, their cosine less the mean
of their classes over its deviation; without any outfit, looks decide alone. And it is multiplied by the same ratio of the
classes themselves: are bags worn with hats at all? Its logarithm is a smoothed pointwise mutual information.

Where attributes of products are named (colour, style), the outfits are counted by their values too, and r is multiplied by the
ratio of each, with r0 = 1: as if, given that two items are worn together, its attributes were independent (naive Bayes). A
value that is missing, or was never worn, says nothing.

Shown is r / (1 + r): the probability that two items come from one worn outfit rather than from two, if both are equally likely.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.cluster.vq import kmeans2
from scipy.linalg import eigh
from scipy.special import softmax

from w2w.errors import UsageError
from w2w.garments.taxonomy import CATEGORIES
from w2w.memory import empty_on_disk

_DIMS = 64  # principal directions of the vectors: the rest says little, and costs as much
_FITTED = 20_000  # maximum number of items of a class used to find directions and clusters
_SAMPLED = 2000  # items of a class for the mean and deviation of cosines
_WIDTH = 0.1  # of a cluster: squared distance of unit vectors over which an item's share falls to 1 / e
_ENOUGH = 10  # worn items of a class that suffice to find directions and clusters from them alone
_FAR = 0.3  # squared distance at which an item belongs to a cluster as much as to none
_SAME = 3  # decimals in which looks are the same
_SEED = 0
_AT_ONCE = 4096  # items: more would cost memory


@dataclass(frozen=True)
class WornConfig:
    """How worn outfits are counted."""

    source: str = "auto"
    """Where outfits are: posts (products tagged in one post), outfits (w2w compose, with w2w embed --of=slots), links (w2w
    convert links: what is sold with what), garments (of one photo: w2w detect, with w2w embed --of=garments), a public set's
    name in table `outfits`, none, or auto: the first that has some."""
    clusters: int = 64
    """Of each class."""
    prior: float = 0.5
    """Weight of the prior, in outfits."""
    likeness: float = 0.25
    """Weight of similar looks: added to the log ratio for a cosine one deviation above its mean."""
    attributes: list[str] = field(default_factory=list)
    """Attributes of products (columns of the feed, such as colour and style) by whose values outfits are counted, beside looks.
    For outfits of products: posts, or links."""

    def __post_init__(self):
        if self.clusters < 1:
            raise UsageError(f"worn.clusters={self.clusters}: must be at least 1")
        if not 0 < self.prior < np.inf:
            raise UsageError(f"worn.prior={self.prior}: a number above 0")
        if not 0 <= self.likeness < np.inf:
            raise UsageError(f"worn.likeness={self.likeness}: a number from 0")
        if len(set(self.attributes)) < len(self.attributes) or not all(name.strip() for name in self.attributes):
            raise UsageError(f"worn.attributes={self.attributes}: names of attributes, each once")


@dataclass(frozen=True)
class Worn:
    """Worn outfits: vectors (U, D) and classes (U,) of distinct items; then item and outfit of each occurrence, (I,).
    ``of_products``: the vectors are of products' own pictures; otherwise of crops of photos. ``said``: what each
    attribute of WornConfig says of the items, strings (U,)."""

    vectors_UD: np.ndarray
    class_U: np.ndarray
    item_I: np.ndarray
    outfit_I: np.ndarray
    of_products: bool = True
    said: Sequence[pa.Array] = ()

    def __len__(self) -> int:
        return len(np.unique(self.outfit_I))


@dataclass(frozen=True)
class WornSpace:
    """Items assigned to clusters: ``look_MD`` unit vectors, ``share_MK`` of each item in its class's clusters. For two classes:
    ``mean_CC`` and ``scale_CC`` of cosines, ``ratio_CC``, and ``counted`` n and e of their clusters, (K, K) each. Of each
    attribute ``value_AM``, the number of its value, and for two classes ``by_value``, the ratio of the values, (V + 1, V + 1),
    1 in the last row and column, which stand for none."""

    class_M: np.ndarray
    look_MD: np.ndarray
    share_MK: np.ndarray
    mean_CC: np.ndarray
    scale_CC: np.ndarray
    ratio_CC: np.ndarray
    counted: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]
    prior: float
    value_AM: Sequence[np.ndarray]
    by_value: dict[tuple[int, int], list[np.ndarray]]

    @property
    def classes(self) -> tuple[str, ...]:
        return CATEGORIES

    def pair(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """float32 (A, B): the logarithm of the probability shown."""
        i, j = int(self.class_M[a[0]]), int(self.class_M[b[0]])
        ratio_AB = np.exp((self.look_MD[a] @ self.look_MD[b].T - self.mean_CC[i, j]) * self.scale_CC[i, j])
        if (i, j) in self.counted:
            n_KK, e_KK = self.counted[i, j]
            one, other = self.share_MK[a], self.share_MK[b].T
            ratio_AB = (one @ n_KK @ other + self.prior * ratio_AB) / (one @ e_KK @ other + self.prior)
        for value_M, ratio_VV in zip(self.value_AM, self.by_value.get((i, j), [])):
            ratio_AB *= ratio_VV[value_M[a][:, None], value_M[b]]
        return -np.log1p(1 / (ratio_AB * self.ratio_CC[i, j])).astype(np.float32)

    def shown(self, score: float) -> float:
        return float(np.exp(score))


def fits_itself(worn: Worn, class_M: np.ndarray) -> bool:
    """Whether directions, clusters and cosines are found from worn items alone, so that scores do not change with the catalog:
    if these are products, and there are enough of each class."""
    return worn.of_products and all((worn.class_U == c).sum() >= _ENOUGH for c in np.unique(class_M))


def place(
    worn: Worn,
    vectors_MD: np.ndarray,
    class_M: np.ndarray,
    config: WornConfig,
    num_sold: int | None = None,
    said: Sequence[pa.Array] = (),
) -> WornSpace:
    """Places items, float32 (M, D) with the numbers of their classes, among what was worn. The first ``num_sold`` (default:
    all) are a catalog; the others move nothing. ``said``: of them, as in ``worn``. The same input gives the same space."""
    sold = (vectors_MD[:num_sold], class_M[:num_sold])
    basis = (worn.vectors_UD, worn.class_U) if fits_itself(worn, sold[1]) else sold
    directions, means = _directions(*basis)
    for c in np.setdiff1d(class_M, basis[1]):
        means[int(c)] = vectors_MD[class_M == c].mean(axis=0)
    look_BD, class_B = _looks(*basis, directions, means), basis[1]
    look_MD = _looks(vectors_MD, class_M, directions, means)
    # the light in crops of photos differs from that of product pictures: they are centred on their own mean
    own = means if worn.of_products else {}
    own = {int(c): own.get(int(c), worn.vectors_UD[worn.class_U == c].mean(axis=0)) for c in np.unique(worn.class_U)}
    look_UD = _looks(worn.vectors_UD, worn.class_U, directions, own)
    share_MK, share_UK = (empty_on_disk((len(looks), config.clusters)) for looks in (look_MD, look_UD))
    centres = {c: _centres(look_BD[np.flatnonzero(class_B == c)[:_FITTED]], config.clusters) for c in np.unique(class_M)}
    for looks, classes, shares in ((look_MD, class_M, share_MK), (look_UD, worn.class_U, share_UK)):
        for rows in _some_of_each(classes):
            if (centres_KD := centres.get(classes[rows[0]])) is not None:
                shares[rows, : len(centres_KD)] = _shares(looks[rows], centres_KD)
    numbered = [_numbered(one_U, one_M) for one_U, one_M in zip(worn.said, said)]
    counted, by_value, ratio_CC = _counts(worn, share_UK, [u for u, _ in numbered], np.unique(class_M), config.prior)
    mean_CC, scale_CC = _cosines(look_BD, class_B, config.likeness)
    value_AM = [m for _, m in numbered]
    return WornSpace(class_M, look_MD, share_MK, mean_CC, scale_CC, ratio_CC, counted, config.prior, value_AM, by_value)


def _numbered(said_U: pa.Array, said_M: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """int64 (U,) and (M,): numbers of the values, -1 for a missing one and one that no item of the first has."""
    said_U, said_M = (pc.utf8_lower(pc.utf8_trim_whitespace(said)) for said in (said_U, said_M))
    known = pc.unique(said_U).drop_null()
    known = known.filter(pc.not_equal(known, ""))
    numbers = [pc.fill_null(pc.index_in(said, value_set=known), -1) for said in (said_U, said_M)]
    return tuple(n.to_numpy(zero_copy_only=False).astype(np.int64) for n in numbers)


def _directions(vectors_MD: np.ndarray, class_M: np.ndarray) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """(D, d): principal directions of the items, each less the mean of its class; and the means."""
    size = vectors_MD.shape[1]
    means, covariance_DD = {}, np.zeros((size, size))
    for c in np.unique(class_M):
        some = vectors_MD[np.flatnonzero(class_M == c)[:_FITTED]]
        means[int(c)] = some.mean(axis=0)
        centred = some - means[int(c)]
        covariance_DD += centred.T @ centred
    _, directions = eigh(covariance_DD, subset_by_index=[max(0, size - _DIMS), size - 1])
    return directions.astype(np.float32), means


def _looks(vectors_ND: np.ndarray, class_N: np.ndarray, directions: np.ndarray, means: dict[int, np.ndarray]) -> np.ndarray:
    """float32 (N, d), unit vectors. Computed in float64, and so the same whatever rows stand beside a row: in float32 the last
    bit depends on its place in the blocks of the BLAS."""
    found = empty_on_disk((len(vectors_ND), directions.shape[1]))
    for rows in _some_of_each(class_N):
        looks = (vectors_ND[rows] - means[int(class_N[rows[0]])]).astype(np.float64) @ directions
        found[rows] = looks / np.maximum(np.linalg.norm(looks, axis=1, keepdims=True), 1e-12)
    return found


def _some_of_each(class_N: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of each class, some at once."""
    for c in np.unique(class_N):
        rows = np.flatnonzero(class_N == c)
        yield from (rows[i : i + _AT_ONCE] for i in range(0, len(rows), _AT_ONCE))


def _centres(look_ND: np.ndarray, count: int) -> np.ndarray:
    """At most ``count``: no more than there are distinct looks, since several products may have one picture."""
    some = look_ND.astype(np.float64)
    _, first = np.unique(some.round(_SAME), axis=0, return_index=True)
    if len(first) <= count:  # k-means++ would divide by distances that are all 0, and leave clusters empty
        return some[np.sort(first)]
    return kmeans2(some, count, iter=20, minit="++", rng=np.random.default_rng(_SEED))[0]


def _shares(look_ND: np.ndarray, centres_KD: np.ndarray) -> np.ndarray:
    """float32 (N, K), summing to at most 1: of each item in each cluster, by a Gaussian of its distance. Items far from all
    clusters belong to none, and have no counts."""
    squared_NK = 1 + (centres_KD**2).sum(axis=1) - 2 * look_ND @ centres_KD.T
    nowhere_N1 = np.full((len(look_ND), 1), _FAR)
    return softmax(-np.concatenate([squared_NK, nowhere_N1], axis=1) / _WIDTH, axis=1)[:, :-1].astype(np.float32)


def _counts(
    worn: Worn, share_UK: np.ndarray, value_AU: Sequence[np.ndarray], classes: np.ndarray, prior: float
) -> tuple[dict[tuple[int, int], tuple[np.ndarray, np.ndarray]], dict[tuple[int, int], list[np.ndarray]], np.ndarray]:
    """For each two classes, n and e of their clusters, and the shrunken ratios of their attributes' values; and that of the
    classes themselves, (C, C)."""
    outfits, outfit_I = np.unique(worn.outfit_I, return_inverse=True)
    item_OC = np.full((len(outfits), len(CATEGORIES)), -1, np.int64)
    item_OC[outfit_I, worn.class_U[worn.item_I]] = worn.item_I  # of two items of a class the last counts
    has_OC = item_OC >= 0
    ratio_CC = np.ones((len(CATEGORIES), len(CATEGORIES)), np.float32)
    counted: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
    by_value: dict[tuple[int, int], list[np.ndarray]] = {}
    for i, j in itertools.permutations(map(int, classes), 2):
        both = has_OC[:, i] & has_OC[:, j]
        if len(outfits):
            by_chance = has_OC[:, i].sum() * has_OC[:, j].sum() / len(outfits)
            ratio_CC[i, j] = (both.sum() + prior) / (by_chance + prior)
        if both.any():
            one, other = item_OC[both, i], item_OC[both, j]
            n_KK = share_UK[one].T @ share_UK[other]
            counted[i, j] = n_KK, _expected(n_KK)
            by_value[i, j] = [_ratios(value_U[one], value_U[other], int(value_U.max()) + 1, prior) for value_U in value_AU]
    return counted, by_value, ratio_CC


def _expected(n_KK: np.ndarray) -> np.ndarray:
    return n_KK.sum(axis=1)[:, None] * n_KK.sum(axis=0)[None] / max(float(n_KK.sum()), 1e-9)


def _ratios(one_O: np.ndarray, other_O: np.ndarray, num_values: int, prior: float) -> np.ndarray:
    """float32 (V + 1, V + 1): (n + k) / (e + k) of the values of two items of each outfit; 1 in the last row and column, which
    are a value's that is missing, and where a value was not worn."""
    said = (one_O >= 0) & (other_O >= 0)
    n_VV = np.zeros((num_values + 1, num_values + 1))
    np.add.at(n_VV, (one_O[said], other_O[said]), 1)
    return ((n_VV + prior) / (_expected(n_VV) + prior)).astype(np.float32)


def _cosines(look_MD: np.ndarray, class_M: np.ndarray, weight: float) -> tuple[np.ndarray, np.ndarray]:
    """For each two classes the mean cosine, and ``weight`` over its deviation, (C, C) each."""
    rng = np.random.default_rng(_SEED)
    mean_CC, scale_CC = np.zeros((2, len(CATEGORIES), len(CATEGORIES)), np.float32)
    some = {int(c): np.flatnonzero(class_M == c) for c in np.unique(class_M)}
    some = {c: rng.choice(rows, min(len(rows), _SAMPLED), replace=False) for c, rows in some.items()}
    for i, j in itertools.combinations(some, 2):
        cosines = look_MD[some[i]] @ look_MD[some[j]].T
        mean_CC[i, j] = mean_CC[j, i] = cosines.mean()
        scale_CC[i, j] = scale_CC[j, i] = weight / max(float(cosines.std()), 1e-6)
    return mean_CC, scale_CC
