"""Training targets of our own detector: which location is responsible for which garment, and the losses.

Source of the assignment and of the soft scores: Feng et al. 2021, "TOOD", section 3.3, with alpha .5 and beta 6; of the overlap
loss: Rezatofighi et al. 2019, "Generalized Intersection over Union".
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from w2w.garments.grid import STRIDES, places
from w2w.training import ranks
from w2w.training.detectors.augment import UNKNOWN

_TOP, _ALPHA, _BETA = 10, 0.5, 6.0
_BOX_WEIGHT, _PIXEL_WEIGHT = 2.0, 0.5
_LEAST = 0.5  # a garment's best box weighs at least so much in the box loss: the worst boxes have most to learn


@dataclass(frozen=True)
class Target:
    """One photo's ground truth as tensors: boxes (N, 4), labels (N,), ignore (M, 4), labelled (7,) bool."""

    boxes_N4: torch.Tensor
    labels_N: torch.Tensor
    ignore_M4: torch.Tensor
    labelled: torch.Tensor


def within(places_A2: torch.Tensor, boxes_N4: torch.Tensor) -> torch.Tensor:
    """bool (N, A): which locations lie in which boxes."""
    low, high = boxes_N4[:, None, :2], boxes_N4[:, None, 2:]
    return ((places_A2 > low) & (places_A2 < high)).all(-1)


def iou(a: torch.Tensor, b: torch.Tensor, generalised: bool = False) -> torch.Tensor:
    """IoU of boxes that broadcast, (..., 4), or GIoU in [-1, 1]."""
    common = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).clamp(min=0).prod(-1) + (b[..., 2:] - b[..., :2]).clamp(min=0).prod(-1) - common
    overlap = common / union.clamp(min=1e-6)
    if not generalised:
        return overlap
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1).clamp(min=1e-6)
    return overlap - (hull - union) / hull


@torch.no_grad()
def assign(
    scores_A7: torch.Tensor, boxes_A4: torch.Tensor, places_A2: torch.Tensor, target: Target
) -> tuple[torch.Tensor, torch.Tensor]:
    """The garment assigned to each location (-1: none) and the location's target score, (A,) each.

    A garment gets the ``_TOP`` locations inside it with the best score and overlap, the smallest garment first: what shows of a
    top lies in the middle of the coat over it, whose box would win every location there by its overlap. A garment too small for
    any location gets the nearest.
    """
    count = len(places_A2)
    if len(target.boxes_N4) == 0:
        nobody = torch.full((count,), -1, dtype=torch.long, device=boxes_A4.device)
        return nobody, torch.zeros(count, device=boxes_A4.device)
    overlap_NA = iou(boxes_A4[None], target.boxes_N4[:, None])
    fit_NA = scores_A7.sigmoid().T[target.labels_N] ** _ALPHA * overlap_NA**_BETA
    inside_NA = within(places_A2, target.boxes_N4)
    centres_N2 = (target.boxes_N4[:, :2] + target.boxes_N4[:, 2:]) / 2
    nearest_N = torch.cdist(centres_N2, places_A2).argmin(1)
    numbers_N = torch.arange(len(nearest_N), device=boxes_A4.device)
    inside_NA[numbers_N, nearest_N] |= ~inside_NA.any(1)
    taken_A = torch.zeros(count, dtype=torch.bool, device=boxes_A4.device)
    mine_NA = torch.zeros_like(inside_NA)
    for n in (target.boxes_N4[:, 2:] - target.boxes_N4[:, :2]).prod(1).argsort(stable=True).tolist():
        free_A = inside_NA[n] & ~taken_A
        best = torch.where(free_A, fit_NA[n], -1.0).topk(min(_TOP, count)).indices
        mine_NA[n, best] = free_A[best]
        taken_A |= mine_NA[n]
    owner_A = mine_NA.int().argmax(0)
    top_N = torch.where(mine_NA, fit_NA, 0.0).amax(1)
    best_N = torch.where(mine_NA, overlap_NA, 0.0).amax(1)
    wanted_NA = torch.where(mine_NA, fit_NA / (top_N[:, None] + 1e-9) * best_N[:, None], 0.0)
    return torch.where(taken_A, owner_A, -1), wanted_NA.amax(0)


def losses(
    output: tuple[torch.Tensor, torch.Tensor, torch.Tensor], targets: list[Target], classes_NHW: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Score, box and pixel loss of a batch, weighted, to be added.

    Unassigned locations in ignored regions, classes that a photo's source does not label, and unknown pixels contribute no
    loss. Sums are normalised over all processes (``ranks.divisor``).
    """
    scores, sides, pixels = output
    places_A2 = torch.from_numpy(places(*(side * STRIDES[0] for side in pixels.shape[2:]))).to(sides.device)
    boxes = torch.cat([places_A2 - sides[..., :2], places_A2 + sides[..., 2:]], -1)
    wanted, weights = torch.zeros_like(scores), torch.ones_like(scores)
    pairs, pair_weights = [], []
    for i, target in enumerate(targets):
        owner_A, score_A = assign(scores[i].detach(), boxes[i].detach(), places_A2, target)
        mine = (owner_A >= 0).nonzero()[:, 0]
        wanted[i, mine, target.labels_N[owner_A[mine]]] = score_A[mine]
        if len(target.ignore_M4):
            hidden = within(places_A2, target.ignore_M4).any(0)
            hidden[mine] = False
            weights[i, hidden] = 0
        weights[i, :, ~target.labelled] = 0
        if len(mine):
            owner, score = owner_A[mine], score_A[mine]
            best = torch.zeros_like(target.boxes_N4[:, 0]).scatter_reduce(0, owner, score, "amax")[owner].clamp(min=1e-6)
            pairs.append((boxes[i, mine], target.boxes_N4[owner]))
            pair_weights.append(score / best * best.clamp(min=_LEAST))
    # quality focal loss with gamma 2: weighted by the distance of a location's score from its target
    focus = (scores.detach().sigmoid() - wanted).abs().square()
    plain = functional.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
    total = ranks.divisor(wanted.sum())
    result = {"scores": (plain * focus * weights).sum() / total * 2}
    if pairs:
        ours, truth = (torch.cat(side) for side in zip(*pairs))
        weight = torch.cat(pair_weights)
        result["boxes"] = _BOX_WEIGHT * ((1 - iou(ours, truth, True)) * weight).sum() / total
    else:
        result["boxes"] = boxes.sum() * 0
    finer = functional.interpolate(pixels, scale_factor=2.0, mode="bilinear", align_corners=False)
    known = classes_NHW[:, 2::4, 2::4].long()
    wrong = functional.cross_entropy(finer, known, ignore_index=UNKNOWN, reduction="sum")
    result["pixels"] = _PIXEL_WEIGHT * wrong / ranks.divisor((known != UNKNOWN).sum())
    return result
