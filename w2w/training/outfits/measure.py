"""How well a scorer tells outfits that were worn from others: AUC, fill in the blank, and how similarities lie."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from w2w.metrics.outfit import auc, fill_in_blank
from w2w.training.outfits.arrays import Outfits, Questions

THRESHOLDS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9)
_SCORED = 4096  # outfits at once


@torch.no_grad()
def scores(network: nn.Module, outfits: Outfits, items_NS: np.ndarray, slots_NS: np.ndarray) -> np.ndarray:
    """The score of each outfit, (N,): higher goes better together; -inf where it has no item at all."""
    found = _over(network.eval().scores, outfits, items_NS, slots_NS)
    return np.where((items_NS >= 0).any(axis=1), found, -np.inf)


def _over(function, outfits: Outfits, items_NS: np.ndarray, slots_NS: np.ndarray) -> np.ndarray:
    device = next(function.__self__.parameters()).device
    found = [np.empty(0, np.float32)] if not len(items_NS) else []
    for start in range(0, len(items_NS), _SCORED):
        chosen = slice(start, start + _SCORED)
        vectors = torch.from_numpy(outfits.vectors(items_NS[chosen])).to(device)
        found.append(function(vectors, torch.from_numpy(slots_NS[chosen]).to(device)).float().cpu().numpy())
    return np.concatenate(found)


def figures(network: nn.Module, outfits: Outfits, questions: Questions | None) -> dict[str, float]:
    """AUC of worn against modified outfits; FITB where there are questions; the mean scores of both kinds."""
    scored = scores(network, outfits, outfits.items_OS, outfits.slots_OS)
    worn, modified = scored[outfits.worn], scored[outfits.modified]
    result = {}
    if len(worn) and len(modified):
        labels = np.repeat([True, False], [len(worn), len(modified)])
        result = {"AUC": auc(np.concatenate([worn, modified]), labels)}
    if questions is not None and len(questions):
        result["FITB"] = float(fill_in_blank(answer_scores(network, outfits, questions), questions.right_Q).mean())
    means = {"score of worn": worn, "score of modified": modified} if result else {}
    return result | {name: float(v.mean()) for name, v in means.items() if len(v)}


def answer_scores(network: nn.Module, outfits: Outfits, questions: Questions) -> np.ndarray:
    """(Q, A): the score of the outfit that each answer makes."""
    num_questions, num_answers, size = questions.items_QAS.shape
    flat = scores(network, outfits, questions.items_QAS.reshape(-1, size), questions.slots_QAS.reshape(-1, size))
    return flat.reshape(num_questions, num_answers)


@dataclass(frozen=True)
class Similarities:
    """How alike the items of outfits are: mean cosine of worn and of modified outfits, cosines of single pairs of worn ones. Of
    a network without cosines the probability that an outfit goes together, and no pairs."""

    worn: np.ndarray
    modified: np.ndarray
    pairs: np.ndarray


@torch.no_grad()
def similarities(network: nn.Module, outfits: Outfits) -> Similarities:
    if not hasattr(network, "similarities"):
        found = np.exp(scores(network, outfits, outfits.items_OS, outfits.slots_OS))
        return Similarities(found[outfits.worn], found[outfits.modified], np.empty(0, np.float32))
    found = _over(network.eval().similarities, outfits, outfits.items_OS, outfits.slots_OS)
    return Similarities(found[outfits.worn].mean(axis=1), found[outfits.modified].mean(axis=1), found[outfits.worn].ravel())


def raw_similarities(outfits: Outfits) -> Similarities:
    """The same of the vectors as they came, for outfits of three slots: what the published accuracies were measured on."""
    found = np.empty((len(outfits), 3), np.float32)
    for start in range(0, len(outfits), _SCORED):
        v = outfits.vectors(outfits.items_OS[start : start + _SCORED])
        found[start : start + _SCORED] = np.stack([(v[:, i] * v[:, j]).sum(-1) for i, j in ((0, 1), (0, 2), (1, 2))], 1)
    return Similarities(found[outfits.worn].mean(axis=1), found[outfits.modified].mean(axis=1), found[outfits.worn].ravel())


def by_threshold(found: Similarities, thresholds: Sequence[float] = THRESHOLDS) -> list[dict[str, float]]:
    """Share of worn outfits, of modified outfits and of single pairs whose similarity reaches each threshold, and ``told``: the
    mean share of outfits on their own side of it, .5 where nothing is told apart.

    The published table has the first three, modified outfits counting as right when they reach it. (Its third tends to 1/3, as
    a 3 x 3 matrix of cosines does whose diagonal is counted; here it is not.)
    """
    rows = []
    for t in thresholds:
        worn, modified, pair = (
            float((v >= t).mean()) if len(v) else float("nan") for v in (found.worn, found.modified, found.pairs)
        )
        rows.append({"threshold": t, "worn": worn, "modified": modified, "pair": pair, "told": (worn + 1 - modified) / 2})
    return rows
