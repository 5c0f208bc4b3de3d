"""Outfit metrics on scores: fill in the blank, and compatibility, with bootstrap intervals.

Axes: Q questions, A answers. Higher scores mean a better combination. Ties are worth what guessing among them is worth, so a
constant scorer gets chance and no more: in the published files of Polyvore the first answer is always the right one, and an
argmax that breaks ties by position finds them all.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from w2w.metrics.retrieval import ALL, METRICS_SCHEMA, bootstrap, interval

_RESAMPLES = 1000


def fill_in_blank(scores_QA: np.ndarray, right_Q: np.ndarray) -> np.ndarray:
    """1.0 if the right answer alone scores best, 1 / ties if it shares the best score, otherwise 0.0; shape (Q,). The mean is
    FITB accuracy (Han et al. 2017, section 4.2). Questions with fewer answers than others are padded with -inf.

    Raises ValueError if a score is NaN or the right answer has none.
    """
    scores_QA = np.asarray(scores_QA, float)
    right_Q = np.asarray(right_Q, np.int64)
    if np.isnan(scores_QA).any():
        raise ValueError(f"question {int(np.isnan(scores_QA).any(axis=1).argmax())} has a score that is not a number")
    if len(right_Q) and not (right_Q.min() >= 0 and right_Q.max() < scores_QA.shape[1]):
        raise ValueError(f"right answers lie between 0 and {scores_QA.shape[1] - 1}, found {right_Q.min()} to {right_Q.max()}")
    mine_Q = scores_QA[np.arange(len(right_Q)), right_Q]
    if np.isneginf(mine_Q).any():
        raise ValueError(f"question {int(np.isneginf(mine_Q).argmax())} has no score for its right answer")
    best_Q = scores_QA.max(axis=1, initial=-np.inf)
    ties_Q = (scores_QA == best_Q[:, None]).sum(axis=1)
    return np.where(mine_Q == best_Q, 1.0 / np.maximum(ties_Q, 1), 0.0)


def auc(scores_Q: np.ndarray, labels_Q: np.ndarray) -> float:
    """Area under the ROC curve: the share of pairs of a compatible and an incompatible outfit in the right order, a tie
    counting half (Hanley and McNeil 1982; the Mann-Whitney U over n1 * n2). NaN if one kind is missing."""
    labels_Q = np.asarray(labels_Q, bool)
    scores_Q = _checked(scores_Q)
    positives, negatives = int(labels_Q.sum()), int((~labels_Q).sum())
    if not positives or not negatives:
        return float("nan")
    ranks_Q = _mid_ranks(scores_Q)
    return float((ranks_Q[labels_Q].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _checked(scores_Q: np.ndarray) -> np.ndarray:
    scores_Q = np.asarray(scores_Q, float)
    if np.isnan(scores_Q).any():
        raise ValueError(f"question {int(np.isnan(scores_Q).argmax())} has a score that is not a number")
    return scores_Q


def _mid_ranks(scores_Q: np.ndarray) -> np.ndarray:
    """Ranks from 1; ties share their mean rank."""
    _, inverse, counts = np.unique(scores_Q, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def auc_interval(scores_Q: np.ndarray, labels_Q: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """95 % percentile interval of ``auc`` from 1,000 resamples, compatible and incompatible outfits resampled separately, so
    that every resample has both (Efron and Tibshirani 1993, chapter 13). NaN if one kind is missing.

    A resample is counts of how often each outfit was drawn: with weights instead of ranks the scores are sorted only once.
    """
    labels_Q = np.asarray(labels_Q, bool)
    if labels_Q.all() or not labels_Q.any():
        return float("nan"), float("nan")
    return interval(auc_resampled(scores_Q, labels_Q, rng))


def auc_resampled(scores_Q: np.ndarray, labels_Q: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """``auc`` of the 1,000 resamples of ``auc_interval``; generators of one seed draw the same outfits for every scorer."""
    labels_Q, scores_Q = np.asarray(labels_Q, bool), _checked(scores_Q)
    values, codes_Q = np.unique(scores_Q, return_inverse=True)
    found = np.empty(_RESAMPLES)
    for i in range(_RESAMPLES):
        positive_V, negative_V = (
            np.bincount(rng.choice(codes_Q[mine], mine.sum()), minlength=len(values)) for mine in (labels_Q, ~labels_Q)
        )
        below_V = np.cumsum(negative_V) - negative_V
        found[i] = (positive_V * (below_V + negative_V / 2)).sum() / (positive_V.sum() * negative_V.sum())
    return found


def evaluate(
    blanks: tuple[np.ndarray, np.ndarray] | None,
    compatible: tuple[np.ndarray, np.ndarray] | None,
    rng: np.random.Generator,
) -> pa.Table:
    """METRICS_SCHEMA: FITB of ``blanks`` (scores_QA, right_Q), AUC of ``compatible`` (scores_Q, labels_Q), as far as given."""
    rows: list[Sequence] = []
    if blanks is not None:
        right = fill_in_blank(*blanks)
        low, high = bootstrap(right, rng) if len(right) else (float("nan"), float("nan"))
        rows.append((ALL, "FITB", 0, float(right.mean()) if len(right) else float("nan"), low, high, len(right)))
    if compatible is not None:
        rows.append((ALL, "AUC", 0, auc(*compatible), *auc_interval(*compatible, rng), len(compatible[1])))
    columns = zip(*rows) if rows else ([] for _ in METRICS_SCHEMA)
    return pa.Table.from_pydict(dict(zip(METRICS_SCHEMA.names, columns)), schema=METRICS_SCHEMA)
