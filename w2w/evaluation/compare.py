"""Two models on the same queries: differences with paired intervals, who won which query, and how many neighbours changed.

Axes: Q queries (or photos, or questions), K ranks. A is the current one, B its candidate replacement.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from w2w.metrics.retrieval import ALL, interval, resampled

Ratio = Callable[..., np.ndarray]  # means of per-query numbers -> the figure over all queries


@dataclass(frozen=True)
class Gain:
    """A metric of A and of B over one group of queries (None: all), and B minus A with its paired 95 % interval."""

    group: str | None
    metric: str
    a: float
    b: float
    value: float
    low: float
    high: float
    num: int


def mean(values: np.ndarray) -> np.ndarray:
    return values


def f1(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    """From mean counts per photo: 2 tp / (2 tp + fp + fn); 1 if there is nothing to find and nothing was found."""
    both = 2 * tp + fp + fn
    return np.where(both > 0, 2 * tp / np.maximum(both, 1e-12), 1.0)


def share(right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """right / (right + wrong); 1 if both are 0."""
    return np.where(right + wrong > 0, right / np.maximum(right + wrong, 1e-12), 1.0)


def gains(
    metric: str,
    a: Sequence[np.ndarray],
    b: Sequence[np.ndarray],
    groups_Q: np.ndarray,
    clusters_Q: np.ndarray | None,
    seed: int,
    of: Ratio = mean,
) -> list[Gain]:
    """The metric over all queries and over each group. ``a`` and ``b``: per-query numbers (Q,) from whose means ``of`` computes
    the metric. Both sides are resampled together, and so are queries of one cluster (Efron and Tibshirani 1993, chapter 13)."""
    found = []
    for group in [ALL, *sorted(set(groups_Q.tolist()))]:
        chosen = np.ones(len(groups_Q), bool) if group is ALL else groups_Q == group
        if not chosen.any():
            continue
        clusters = None if clusters_Q is None else clusters_Q[chosen]
        sides = [[v[chosen].astype(float) for v in side] for side in (a, b)]
        of_a, of_b = (float(of(*(v.mean() for v in side))) for side in sides)
        drawn = [of(*(resampled(v, np.random.default_rng(seed), clusters) for v in side)) for side in sides]
        found.append(Gain(group, metric, of_a, of_b, of_b - of_a, *interval(drawn[1] - drawn[0]), int(chosen.sum())))
    return found


def churn(found_a_QK: np.ndarray, found_b_QK: np.ndarray, k: int) -> np.ndarray:
    """The share of each query's first k neighbours of A that B lacks among its first k, (Q,): 0 if A has none. Names as text,
    padded with ""."""
    shares = np.zeros(len(found_a_QK))
    for q, (mine, theirs) in enumerate(zip(found_a_QK[:, :k], found_b_QK[:, :k])):
        there = {name for name in mine.tolist() if name}
        if there:
            shares[q] = 1 - len(there & set(theirs.tolist())) / len(there)
    return shares


def is_worse(gain: Gain, tolerance: float, strict: bool) -> bool:
    """Whether B is worse than A by more than ``tolerance``: significantly, with the whole interval below, or, if ``strict``, by
    the figure itself."""
    return (gain.value if strict else gain.high) < -tolerance


@dataclass(frozen=True)
class Won:
    """Queries by who answers them better, the largest differences first, and the number of ties."""

    b: np.ndarray
    a: np.ndarray
    num_tied: int


def won(a_Q: np.ndarray, b_Q: np.ndarray) -> Won:
    """``a_Q``, ``b_Q``: the deciding numbers, higher is better."""
    better = np.flatnonzero(b_Q > a_Q)
    worse = np.flatnonzero(b_Q < a_Q)
    by = (b_Q - a_Q).astype(float)
    order = [chosen[np.argsort(-np.abs(by[chosen]), kind="stable")] for chosen in (better, worse)]
    return Won(order[0], order[1], len(a_Q) - len(better) - len(worse))
