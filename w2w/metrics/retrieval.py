"""Retrieval metrics on ranked relevance, over all queries at once, with bootstrap intervals.

Axes: Q queries, K ranks. Ranks start at 1. Lists may be shorter than the number of relevant items: the rest are misses.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

ALL = None  # in place of a category: not a name that a shop could use
METRICS_SCHEMA = pa.schema(
    [
        ("group", pa.string()),  # a category; null for all queries
        ("metric", pa.string()),
        ("k", pa.int32()),  # 0 if the metric has none
        ("value", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("num_queries", pa.int32()),
    ]
)
_RESAMPLES, _LEVEL = 1000, 0.95
_DRAWN_AT_ONCE = 1 << 22  # 32 MB of places


def recall_at_k(relevant_QK: np.ndarray, k: int) -> np.ndarray:
    """1.0 if one of the first k is relevant, otherwise 0.0, shape (Q,). The hit rate that the in-shop protocol calls Recall@k
    (Liu et al. 2016, DeepFashion, section 5), not the share of all relevant items."""
    return relevant_QK[:, :k].any(axis=1).astype(float)


def reciprocal_rank(relevant_QK: np.ndarray) -> np.ndarray:
    """1 / rank of the first relevant item, 0 if none was retrieved, shape (Q,) (Voorhees 1999)."""
    first = relevant_QK.argmax(axis=1)
    return np.where(relevant_QK.any(axis=1), 1.0 / (first + 1), 0.0)


def ndcg_at_k(relevant_QK: np.ndarray, num_relevant_Q: np.ndarray, k: int) -> np.ndarray:
    """Normalised discounted cumulative gain with binary gains, shape (Q,) (Jarvelin and Kekalainen 2002, equations 3 and 5 with
    the discount 1 / log2(rank + 1)). The ideal list has min(k, relevant items in the gallery) hits."""
    gains_QK = relevant_QK[:, :k].astype(float)
    discount_K = 1.0 / np.log2(np.arange(2, k + 2))
    dcg = gains_QK @ discount_K[: gains_QK.shape[1]]
    ideal = np.concatenate([[0.0], np.cumsum(discount_K)])[np.minimum(num_relevant_Q, k)]
    return np.divide(dcg, ideal, out=np.zeros_like(dcg), where=ideal > 0)


def nearest_class(classes_QK: np.ndarray, k: int) -> np.ndarray:
    """The most frequent class among the first k, shape (Q,); ties go to the one met first. "" is no neighbour."""
    names, codes = np.unique(classes_QK[:, :k].astype(str), return_inverse=True)
    codes_QK = codes.reshape(len(classes_QK), -1)
    counts = np.zeros((len(codes_QK), len(names)))
    first = np.full((len(codes_QK), len(names)), k, float)
    queries = np.arange(len(codes_QK))
    for rank in range(codes_QK.shape[1] - 1, -1, -1):
        counts[queries, codes_QK[:, rank]] += 1
        first[queries, codes_QK[:, rank]] = rank
    counts[:, names == ""], first[:, names == ""] = 0, 0
    return names[np.argmax(counts - first / (k + 1), axis=1)]


def confusion(truth_Q: np.ndarray, predicted_Q: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Counts, shape (len(labels), len(labels)): row = truth, column = prediction."""
    position = {label: i for i, label in enumerate(labels)}
    matrix = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(matrix, ([position[t] for t in truth_Q], [position[p] for p in predicted_Q]), 1)
    return matrix


def bootstrap(values_Q: np.ndarray, rng: np.random.Generator, groups_Q: np.ndarray | None = None) -> tuple[float, float]:
    """95 % percentile interval of the mean over queries, from 1,000 resamples (Efron and Tibshirani 1993, chapter 13). Queries
    of the same group in ``groups_Q`` are drawn together, since they are not independent."""
    return interval(resampled(values_Q, rng, groups_Q))


def resampled(values_Q: np.ndarray, rng: np.random.Generator, groups_Q: np.ndarray | None = None) -> np.ndarray:
    """The means of the 1,000 resamples of ``bootstrap``."""
    places = np.arange(len(values_Q)) if groups_Q is None else np.unique(groups_Q, return_inverse=True)[1]
    sums, counts = np.bincount(places, values_Q), np.bincount(places)
    at_once = max(1, _DRAWN_AT_ONCE // len(sums))  # the same numbers are drawn for any batch size
    drawn = (rng.integers(0, len(sums), (min(at_once, _RESAMPLES - i), len(sums))) for i in range(0, _RESAMPLES, at_once))
    return np.concatenate([sums[d].sum(axis=1) / counts[d].sum(axis=1) for d in drawn])


def interval(means: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of resampled means."""
    low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def evaluate(
    relevant_QK: np.ndarray, num_relevant_Q: np.ndarray, groups_Q: np.ndarray, ks: Sequence[int], rng: np.random.Generator
) -> pa.Table:
    """METRICS_SCHEMA: recall@k for each k, MRR over the list, nDCG@10, for all queries and for each group.

    Queries without a relevant item in the gallery are left out.
    """
    asked = num_relevant_Q > 0
    relevant_QK, num_relevant_Q, groups_Q = relevant_QK[asked], num_relevant_Q[asked], groups_Q[asked]
    values = _found(relevant_QK, ks) | {("nDCG", 10): ndcg_at_k(relevant_QK, num_relevant_Q, 10)}
    return by_group(values, groups_Q, rng)


def gain(
    before_QK: np.ndarray, after_QK: np.ndarray, groups_Q: np.ndarray, ks: Sequence[int], rng: np.random.Generator
) -> pa.Table:
    """METRICS_SCHEMA: change in recall@k and MRR for the same queries, after minus before, with paired intervals: of the mean
    of each query's own difference."""
    before, after = (_found(relevant_QK, ks) for relevant_QK in (before_QK, after_QK))
    return by_group({name: after[name] - before[name] for name in before}, groups_Q, rng)


def _found(relevant_QK: np.ndarray, ks: Sequence[int]) -> dict[tuple[str, int], np.ndarray]:
    return {**{("recall", k): recall_at_k(relevant_QK, k) for k in ks}, ("MRR", 0): reciprocal_rank(relevant_QK)}


def class_accuracy(truth_Q: np.ndarray, predicted_Q: np.ndarray, groups_Q: np.ndarray, rng: np.random.Generator) -> pa.Table:
    """METRICS_SCHEMA: share of queries whose predicted class is the true one, for all and for each group."""
    return by_group({("accuracy", 0): (truth_Q == predicted_Q).astype(float)}, groups_Q, rng)


def by_group(
    values: Mapping[tuple[str, int], np.ndarray],
    groups_Q: np.ndarray,
    rng: np.random.Generator,
    clusters_Q: np.ndarray | None = None,
) -> pa.Table:
    """METRICS_SCHEMA: the mean of each metric's ``values`` (metric, k) -> (Q,), for all queries and for each group, its
    interval clustered by ``clusters_Q`` if queries are not independent (see ``bootstrap``)."""
    rows = []
    for group in [ALL, *sorted(set(groups_Q.tolist()))]:
        chosen = np.ones(len(groups_Q), bool) if group is ALL else groups_Q == group
        for (metric, k), values_Q in values.items():
            mine = values_Q[chosen]
            clusters = None if clusters_Q is None else clusters_Q[chosen]
            low, high = bootstrap(mine, rng, clusters) if len(mine) else (float("nan"), float("nan"))
            mean = float(mine.mean()) if len(mine) else float("nan")
            rows.append((group, metric, k, mean, low, high, len(mine)))
    return pa.Table.from_pydict(dict(zip(METRICS_SCHEMA.names, zip(*rows))), schema=METRICS_SCHEMA)
