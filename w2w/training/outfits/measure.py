"""How well a scorer separates worn outfits from others: AUC, fill in the blank, and distributions of similarity."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from w2w.metrics.outfit import auc, fill_in_blank
from w2w.models.compatibility import SLOT_PAIRS
from w2w.training.outfits.arrays import Outfits, Questions

THRESHOLDS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9)
# printed by What2Wear's notebook: original, modified and pair "success rate" of its 4,858 test outfits
PUBLISHED_RATES = {
    0.5: (0.902, 0.738, 0.909),
    0.7: (0.443, 0.047, 0.454),
    0.8: (0.070, 0.001, 0.346),
    0.85: (0.006, 0.0, 0.336),
}
_SCORED = 4096  # outfits at once


@torch.no_grad()
def scores(network: nn.Module, outfits: Outfits, items_NS: np.ndarray, slots_NS: np.ndarray) -> np.ndarray:
    """The score of each outfit, (N,), higher for better combinations; -inf for one without items."""
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
    """AUC of worn against modified outfits; FITB if there are questions; the mean scores of both kinds."""
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
    """(Q, A): the score of the outfit that each answer completes."""
    num_questions, num_answers, size = questions.items_QAS.shape
    flat = scores(network, outfits, questions.items_QAS.reshape(-1, size), questions.slots_QAS.reshape(-1, size))
    return flat.reshape(num_questions, num_answers)


@dataclass(frozen=True)
class Similarities:
    """Mean cosine between the items of an outfit, for worn and for modified outfits. For a network without cosines, the
    probability of being a worn outfit."""

    worn: np.ndarray
    modified: np.ndarray


@torch.no_grad()
def similarities(network: nn.Module, outfits: Outfits) -> Similarities:
    if not hasattr(network, "similarities"):
        found = np.exp(scores(network, outfits, outfits.items_OS, outfits.slots_OS))
        return Similarities(found[outfits.worn], found[outfits.modified])
    found = _over(network.eval().similarities, outfits, outfits.items_OS, outfits.slots_OS)
    return Similarities(found[outfits.worn].mean(axis=1), found[outfits.modified].mean(axis=1))


def raw_similarities(outfits: Outfits) -> Similarities:
    """The same for the raw vectors, for outfits of three slots."""
    found_O3 = _raw_pairs(outfits)
    return Similarities(found_O3[outfits.worn].mean(axis=1), found_O3[outfits.modified].mean(axis=1))


def _raw_pairs(outfits: Outfits) -> np.ndarray:
    """(O, 3): cosines of an outfit's pairs."""
    found = np.empty((len(outfits), len(SLOT_PAIRS)), np.float32)
    for start in range(0, len(outfits), _SCORED):
        v = outfits.vectors(outfits.items_OS[start : start + _SCORED])
        found[start : start + _SCORED] = np.stack([(v[:, i] * v[:, j]).sum(-1) for i, j in SLOT_PAIRS], 1)
    return found


def by_threshold(found: Similarities, thresholds: Sequence[float] = THRESHOLDS) -> list[dict[str, float]]:
    """Share of worn and of modified outfits whose similarity reaches each threshold, and ``told``: the mean share of outfits on
    the correct side of it, .5 at chance."""
    rows = []
    for t in thresholds:
        worn, modified = (float((v >= t).mean()) if len(v) else float("nan") for v in (found.worn, found.modified))
        rows.append({"threshold": t, "worn": worn, "modified": modified, "told": (worn + 1 - modified) / 2})
    return rows


@dataclass(frozen=True)
class Published:
    """What2Wear's own evaluation, of the encoder's vectors: its notebook never passes them through the trained matrix
    (yunyounglee99/What2Wear @f233e49, demo/What2Wear_train_ver_recsys.ipynb, ModelEvaluator).

    ``original``, ``modified``: cosines of single pairs of slots, pooled over all outfits. ``pair``: cosine of an item of a
    modified outfit with the item in the same slot of the outfit that it was made of, counted twice for tops, once for bottoms
    and never for shoes, as in the loop there. ``kept``: the share of these whose item was not replaced. Its cosine is 1, so no
    threshold brings the third column below that share: 1/3 if two of three slots are replaced at random.
    """

    original: np.ndarray
    modified: np.ndarray
    pair: np.ndarray
    kept: float

    def rates(self, thresholds: Sequence[float] = tuple(PUBLISHED_RATES)) -> list[dict[str, float]]:
        """Share of each above each threshold: called "success rates" there, for modified outfits too."""
        heaps = {"original": self.original, "modified": self.modified, "pair": self.pair}
        return [{"threshold": t} | {n: float((v > t).mean()) for n, v in heaps.items()} for t in thresholds]


def published(outfits: Outfits) -> Published | None:
    """For outfits of three slots; None if none is modified."""
    modified, cosines_O3 = outfits.modified, _raw_pairs(outfits)
    if not len(modified):
        return None
    items_O3 = outfits.items_OS[:, [i for i, _ in SLOT_PAIRS]]
    made_M3, own_M3 = items_O3[modified], items_O3[outfits.modified_of_O[modified]]
    chunks = (slice(start, start + _SCORED) for start in range(0, len(modified), _SCORED))
    pair = [(outfits.vectors(made_M3[c]) * outfits.vectors(own_M3[c])).sum(-1).ravel() for c in chunks]
    heaps = (cosines_O3[outfits.worn].ravel(), cosines_O3[modified].ravel(), np.concatenate(pair))
    return Published(*heaps, float((made_M3 == own_M3).mean()))
