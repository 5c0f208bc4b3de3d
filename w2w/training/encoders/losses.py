"""Losses of encoders, on pairs of an anchor (a garment as worn) and a positive (the product's picture).

Axes: N pairs of this process, M of all processes, H negatives of this process, D dimensions. The losses normalise the network's
vectors. Similarities are computed in at least float32, whatever the network's precision.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.distributed.nn.functional import all_gather
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from w2w.training import ranks
from w2w.training.encoders.config import LearnConfig

_START, _MOST = math.log(1 / 0.07), math.log(100)


@dataclass(frozen=True)
class Pairs:
    """One process's vectors, and what must not be used as a negative: the same product, the same cluster of near-duplicates.

    Every process has the same number of pairs and of negatives. For a negative, -1 is an unknown product or cluster.
    """

    anchors_ND: torch.Tensor
    positives_ND: torch.Tensor
    products_N: torch.Tensor  # int64
    clusters_N: torch.Tensor  # int64, of the positives' pictures
    negatives_HD: torch.Tensor | None = None  # mined ones, in the gallery of every anchor
    negative_products_H: torch.Tensor | None = None
    negative_clusters_H: torch.Tensor | None = None


class Temperature(nn.Module):
    """The factor of the similarities, learnt as its logarithm: from 1 / .07, never above 100 (Radford et al. 2021, "CLIP",
    section 2.5)."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(_START))

    def forward(self) -> torch.Tensor:
        with torch.no_grad():
            self.log_scale.clamp_(max=_MOST)  # in place: the gradient may lower it again
        return self.log_scale.exp()


def info_nce(
    pairs: Pairs, scale: torch.Tensor, *, symmetric: bool = True, count_same: bool = True, dims: Sequence[int] = ()
) -> torch.Tensor:
    """Cross entropy of each anchor over all processes' positives, and of each positive over all anchors.

    Pairs of the same product or cluster are positives too (``count_same``: the mean over them of the log probability, Khosla et
    al. 2020, "Supervised Contrastive Learning", equation 2), or are left out. ``dims``: the mean over these prefixes of the
    vectors (Kusupati et al. 2022, "Matryoshka"); none: the whole vectors. ``symmetric=False``: from the anchors only.

    The mean over processes, whose gradients DDP averages, is the loss of one process that has all pairs.
    """
    rank = distributed.get_rank() if ranks.several() else 0
    kinds_N = torch.stack([pairs.products_N, pairs.clusters_N], 1)
    kinds_M = _all(kinds_N)
    own_NM = torch.zeros(len(kinds_N), len(kinds_M), dtype=torch.bool, device=kinds_N.device)
    here = torch.arange(len(kinds_N), device=kinds_N.device)
    own_NM[here, rank * len(kinds_N) + here] = True
    same_NM = _same(kinds_N, kinds_M) & ~own_NM
    anchors_MD, positives_MD = _all(pairs.anchors_ND), _all(pairs.positives_ND)
    more_HD, same_NH = None, None
    if pairs.negatives_HD is not None:
        more_HD = _all(pairs.negatives_HD)
        kinds_H = _all(torch.stack([pairs.negative_products_H, pairs.negative_clusters_H], 1))
        same_NH = _same(kinds_N, kinds_H)
    positive_NM = own_NM | same_NM if count_same else own_NM
    hidden_NM = torch.zeros_like(same_NM) if count_same else same_NM
    total = 0.0
    with torch.autocast(kinds_N.device.type, enabled=False):
        for dim in dims or (pairs.anchors_ND.shape[1],):
            a, p, all_a, all_p = (_unit(v, dim) for v in (pairs.anchors_ND, pairs.positives_ND, anchors_MD, positives_MD))
            columns = torch.cat([all_p, _unit(more_HD, dim)]) if more_HD is not None else all_p
            extra = [] if same_NH is None else [torch.zeros_like(same_NH)]
            hidden = torch.cat([hidden_NM, same_NH], 1) if same_NH is not None else hidden_NM
            loss = _cross_entropy(scale * a @ columns.T, torch.cat([positive_NM, *extra], 1), hidden)
            if symmetric:
                loss = (loss + _cross_entropy(scale * p @ all_a.T, positive_NM, hidden_NM)) / 2
            total = total + loss
    return total / len(dims or (1,))


def triplet(pairs: Pairs, margin: float = 0.2) -> torch.Tensor:
    """relu(d(anchor, positive) - d(anchor, negative) + margin), one negative per anchor. d is the Euclidean distance of unit
    vectors, as in Balntas et al. 2016 (TFeat), not squared as in FaceNet (Schroff et al. 2015, section 3.1).

    The negatives are the mined ones if there is one per anchor, otherwise the next pair's positive, unless it is of the same
    product or cluster.
    """
    a, p, n, other_N = _one_to_one(pairs)
    lost = (_distance(a, p) - _distance(a, n) + margin).clamp(min=0) * other_N
    return lost.sum() / ranks.divisor(other_N.sum())


def contrastive(pairs: Pairs, margin: float = 1.0, inverted: bool = False) -> torch.Tensor:
    """y d^2 + (1 - y) max(0, margin - d)^2 over as many pairs of the same product (y = 1) as of others (Hadsell et al. 2006,
    equation 4). ``inverted``: with y and 1 - y exchanged, as "Outfit Of The Day" published it: it pushes equals apart."""
    a, p, n, other_N = _one_to_one(pairs)
    distance = torch.cat([_distance(a, p), _distance(a, n)])
    same = torch.cat([torch.ones_like(other_N), torch.zeros_like(other_N)])
    counted = torch.cat([torch.ones_like(other_N), other_N])
    if inverted:
        same = 1 - same
    lost = same * distance.square() + (1 - same) * (margin - distance).clamp(min=0).square()
    return (lost * counted).sum() / ranks.divisor(counted.sum())


def info_nce_loss(pairs: Pairs, scale: torch.Tensor, learn: LearnConfig) -> torch.Tensor:
    """``learn.loss=info_nce``; this and the next three implement the loss names, with the interface of an external loss."""
    return info_nce(pairs, scale, symmetric=learn.symmetric, count_same=learn.same == "positive", dims=learn.dims)


def triplet_loss(pairs: Pairs, scale: torch.Tensor, learn: LearnConfig) -> torch.Tensor:
    return triplet(pairs, 0.2 if learn.margin is None else learn.margin)


def contrastive_loss(pairs: Pairs, scale: torch.Tensor, learn: LearnConfig) -> torch.Tensor:
    return contrastive(pairs, 1.0 if learn.margin is None else learn.margin)


def inverted_loss(pairs: Pairs, scale: torch.Tensor, learn: LearnConfig) -> torch.Tensor:
    return contrastive(pairs, 1.0 if learn.margin is None else learn.margin, inverted=True)


def in_chunks(network: Callable[[torch.Tensor], torch.Tensor], inputs_N: torch.Tensor, size: int) -> torch.Tensor:
    """``network(inputs_N)`` with the activations of only ``size`` rows in memory at a time: each chunk is recomputed, with the
    same dropout, when its gradient is due.

    The gradients are those of Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"
    (GradCache): there the loss's gradient at the vectors is cached and replayed by hand, here autograd replays it, so it works
    inside DDP and under accumulation. The network must not mix rows (batch statistics): freeze such layers.
    """
    if size <= 0 or len(inputs_N) <= size:
        return network(inputs_N)
    return torch.cat([checkpoint(network, part, use_reentrant=False) for part in inputs_N.split(size)])


def _all(values_N: torch.Tensor) -> torch.Tensor:
    """The rows of all processes, in rank order; gradients flow back to each."""
    return torch.cat(all_gather(values_N.contiguous())) if ranks.several() else values_N


def _same(kinds_N2: torch.Tensor, kinds_M2: torch.Tensor) -> torch.Tensor:
    """bool (N, M): the same product, or the same cluster; -1 equals nothing."""
    equal = (kinds_N2[:, None] == kinds_M2[None]) & (kinds_N2[:, None] >= 0)
    return equal.any(-1)


def _unit(vectors: torch.Tensor, dim: int) -> torch.Tensor:
    wide = vectors if vectors.dtype == torch.float64 else vectors.float()
    return functional.normalize(wide[:, :dim], dim=1)


def _cross_entropy(logits_NM: torch.Tensor, positive_NM: torch.Tensor, hidden_NM: torch.Tensor) -> torch.Tensor:
    log_probability = logits_NM.masked_fill(hidden_NM, -torch.inf).log_softmax(1)
    return -(log_probability.masked_fill(~positive_NM, 0).sum(1) / positive_NM.sum(1)).mean()


def _one_to_one(pairs: Pairs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Anchors, positives, a negative for each, and 1.0 if that really is another product, (N,)."""
    a, p = (_unit(v, v.shape[1]) for v in (pairs.anchors_ND, pairs.positives_ND))
    kinds_N = torch.stack([pairs.products_N, pairs.clusters_N], 1)
    if pairs.negatives_HD is not None and len(pairs.negatives_HD) == len(a):
        n = _unit(pairs.negatives_HD, pairs.negatives_HD.shape[1])
        theirs_N = torch.stack([pairs.negative_products_H, pairs.negative_clusters_H], 1)
    else:
        n, theirs_N = p.roll(-1, 0), kinds_N.roll(-1, 0)
    same_N = ((kinds_N == theirs_N) & (kinds_N >= 0)).any(1)
    return a, p, n, (~same_N).to(a.dtype)


def _distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return ((a - b).square().sum(1) + 1e-12).sqrt()
