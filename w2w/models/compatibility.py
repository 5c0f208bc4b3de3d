"""Outfit compatibility: networks that score an outfit from its items' vectors.

An outfit is its items' vectors, (N, S, D), with the number of each one's slot, (N, S). `What2Wear` and `Pairs` know three
slots, in the order of SLOT_PAIRS; `SetTransformer` takes outfits of any size.
"""

import itertools
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import logsigmoid, normalize, relu, softplus

from w2w.errors import UsageError
from w2w.models.folder import load_network, save_network
from w2w.models.options import BATCH, ScorerConfig

SLOT_PAIRS = ((0, 1), (0, 2), (1, 2))  # top and bottom, top and shoes, bottom and shoes
PAD = -1  # slot of a missing item
_TYPE = "w2w-compatibility"
_PROMISED = 1e-6  # minimum probability of a bad outfit: keeps the loss's logarithm finite


class What2Wear(nn.Module):
    """z = xW / |xW| with one square matrix for all slots; an outfit's score is the mean cosine of its three pairs.

    Source: yunyounglee99/What2Wear @f233e49, models/matching_loss.py: W drawn from N(0, 1), temperature .07, learnt. There a
    ``return`` inside the loop skips two of the three pairs; here all three count, as its text says.
    """

    def __init__(self, dim_in: int, config: ScorerConfig):
        super().__init__()
        self.W = nn.Parameter(torch.randn(dim_in, dim_in))
        self.temperature = nn.Parameter(torch.tensor(0.07))

    def forward(self, vectors_N3D: torch.Tensor, slots_N3: torch.Tensor) -> torch.Tensor:
        """Cosines of the pairs over the temperature, (N, 3)."""
        return self.similarities(vectors_N3D, slots_N3) / self.temperature

    def similarities(self, vectors_N3D: torch.Tensor, slots_N3: torch.Tensor) -> torch.Tensor:
        """Cosines of the pairs, (N, 3)."""
        return _pair_cosines(normalize(vectors_N3D @ self.W, dim=-1))

    def scores(self, vectors_N3D: torch.Tensor, slots_N3: torch.Tensor) -> torch.Tensor:
        """(N,)."""
        return self.similarities(vectors_N3D, slots_N3).mean(dim=1)


class Pairs(nn.Module):
    """A small network maps items into a space per slot (or one for all), in which pairs are compared by cosine. An outfit is
    good if every pair is: log p = sum over pairs of log sigmoid(scale * cosine + bias).

    What2Wear's mean of cosines lets two good pairs hide a bad one; in this sum one bad pair is enough.
    """

    def __init__(self, dim_in: int, config: ScorerConfig):
        super().__init__()
        num_spaces = len(SLOT_PAIRS) if config.spaces == "slot" else 1
        self.spaces = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(dim_in),
                nn.Dropout(config.dropout),
                nn.Linear(dim_in, config.hidden),
                nn.GELU(),
                nn.Dropout(config.dropout),
                nn.Linear(config.hidden, config.dim),
            )
            for _ in range(num_spaces)
        )
        self.log_scale = nn.Parameter(torch.full((len(SLOT_PAIRS),), 1.6))  # 5: sigmoid then spans .007 to .993
        self.bias = nn.Parameter(torch.zeros(len(SLOT_PAIRS)))

    def similarities(self, vectors_N3D: torch.Tensor, slots_N3: torch.Tensor) -> torch.Tensor:
        """Cosines of the pairs, (N, 3)."""
        spaces = [self.spaces[i % len(self.spaces)] for i in range(vectors_N3D.shape[1])]
        placed = torch.stack([space(vectors_N3D[:, i]) for i, space in enumerate(spaces)], dim=1)
        return _pair_cosines(normalize(placed, dim=-1))

    def forward(self, vectors_N3D: torch.Tensor, slots_N3: torch.Tensor) -> torch.Tensor:
        """log of the probability that the outfit goes together, (N,)."""
        cosines_N3 = self.similarities(vectors_N3D, slots_N3)
        return logsigmoid(cosines_N3 * self.log_scale.exp() + self.bias).sum(dim=1)

    def scores(self, vectors_N3D: torch.Tensor, slots_N3: torch.Tensor) -> torch.Tensor:
        return self(vectors_N3D, slots_N3)


class SetTransformer(nn.Module):
    """A transformer over the items, read out at an outfit token. Invariant to the order of items but not to their slots;
    outfits of different sizes fit in one batch.

    Source of the idea: Sarkar et al. 2022, "OutfitTransformer", section 3.1 (outfit token, no positions).
    """

    def __init__(self, dim_in: int, config: ScorerConfig, num_slots: int):
        super().__init__()
        width = config.hidden
        self.project = nn.Sequential(nn.LayerNorm(dim_in), nn.Dropout(config.dropout), nn.Linear(dim_in, width))
        self.slot = nn.Embedding(num_slots, width)
        self.outfit = nn.Parameter(torch.randn(width) * 0.02)
        block = nn.TransformerEncoderLayer(
            width, config.heads, 2 * width, config.dropout, nn.functional.gelu, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, config.layers, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))

    def forward(self, vectors_NSD: torch.Tensor, slots_NS: torch.Tensor) -> torch.Tensor:
        """log of the probability that the outfit goes together, (N,). PAD in ``slots_NS`` marks a missing item."""
        empty_NS = slots_NS == PAD
        items = self.project(vectors_NSD) + self.slot(slots_NS.clamp(min=0))
        tokens = torch.cat([self.outfit.expand(len(items), 1, -1), items], dim=1)
        hidden = torch.cat([torch.zeros_like(empty_NS[:, :1]), empty_NS], dim=1)
        return logsigmoid(self.head(self.blocks(tokens, src_key_padding_mask=hidden)[:, 0]).squeeze(1))

    def scores(self, vectors_NSD: torch.Tensor, slots_NS: torch.Tensor) -> torch.Tensor:
        return self(vectors_NSD, slots_NS)


KINDS = {"pairs": Pairs, "set": SetTransformer, "what2wear": What2Wear}


def make_scorer(dim_in: int, num_slots: int, config: ScorerConfig) -> nn.Module:
    """Raises UsageError if the network knows three slots and there are others."""
    if config.kind == "set":
        return SetTransformer(dim_in, config, num_slots)
    if num_slots != len(SLOT_PAIRS):
        raise UsageError(f"scorer.kind={config.kind}: is for outfits of {len(SLOT_PAIRS)} slots, not {num_slots}; use set")
    return KINDS[config.kind](dim_in, config)


def _pair_cosines(placed_N3D: torch.Tensor) -> torch.Tensor:
    return torch.stack([(placed_N3D[:, i] * placed_N3D[:, j]).sum(-1) for i, j in SLOT_PAIRS], dim=1)


def what2wear_losses(
    worn_N3: torch.Tensor, modified_N3: torch.Tensor, matrix: torch.Tensor, threshold: float, hinge: str = BATCH
) -> dict[str, torch.Tensor]:
    """The loss as published, with s = cosine / temperature, (N, 3): relu(1 - mean s) of worn outfits + a hinge on modified ones
    + .01 |W|, averaging s over an outfit's pairs.

    The repository @f233e49 has two versions of the hinge. ``hinge`` = batch: relu(threshold - mean s), over all outfits of the
    batch (models/matching_loss.py, ``forward``). outfit: mean relu(threshold - s), per outfit
    (demo/What2Wear_train_ver_recsys.ipynb, whose weights and figures were printed).

    Both terms only raise similarities, and with a temperature of .07 they are zero as soon as cosines exceed .07: nothing
    separates modified outfits from worn ones.
    """
    s = modified_N3.mean() if hinge == BATCH else modified_N3.mean(dim=1)
    return {
        "worn": relu(1 - worn_N3.mean()),
        "modified": relu(threshold - s).mean(),
        "matrix": 0.01 * torch.linalg.matrix_norm(matrix),
    }


def logistic_losses(worn_N: torch.Tensor, modified_N: torch.Tensor) -> dict[str, torch.Tensor]:
    """Cross-entropy of log probabilities: worn outfits are pushed up and modified ones down. Its minimum is the log-odds of
    having been worn, which orders outfits optimally (Neyman and Pearson 1933)."""
    unlikely = torch.log(-torch.expm1(modified_N.clamp(max=-_PROMISED)))
    return {"worn": -worn_N.mean(), "modified": -unlikely.mean()}


def margin_losses(worn_N: torch.Tensor, modified_N: torch.Tensor, margin: float = 1.0) -> dict[str, torch.Tensor]:
    """Each worn outfit should score ``margin`` higher than its modified one; a soft hinge."""
    return {"margin": softplus(margin - (worn_N - modified_N)).mean()}


@torch.inference_mode()
def outfit_scores(network: nn.Module, vectors_NSD: np.ndarray, slots_NS: np.ndarray) -> np.ndarray:
    """float32 (N,), higher for better combinations. ``slots_NS``: int64, PAD for missing items."""
    return network.scores(torch.from_numpy(vectors_NSD), torch.from_numpy(slots_NS)).float().numpy()


@torch.inference_mode()
def pair_scores(network: nn.Module, vectors_NSD: np.ndarray, slots_NS: np.ndarray) -> np.ndarray:
    """float32 (N, S, S), symmetric: how well every two items of an outfit go together; NaN on the diagonal and for missing
    items. Cosines of ``similarities``; for a SetTransformer the score of the two alone."""
    vectors, slots = torch.from_numpy(vectors_NSD), torch.from_numpy(slots_NS)
    found = np.full((*slots_NS.shape, slots_NS.shape[1]), np.nan, np.float32)
    of_set = isinstance(network, SetTransformer)
    places = list(itertools.combinations(range(slots_NS.shape[1]), 2)) if of_set else SLOT_PAIRS
    cosines = None if of_set else network.similarities(vectors, slots)
    for n, (i, j) in enumerate(places):
        both = (slots_NS[:, i] != PAD) & (slots_NS[:, j] != PAD)
        alone = cosines[:, n] if cosines is not None else network.scores(vectors[:, [i, j]], slots[:, [i, j]])
        found[:, i, j] = found[:, j, i] = np.where(both, alone.float().numpy(), np.nan)
    return found


def save_scorer(network: nn.Module, folder: Path, config: ScorerConfig, dim_in: int, slots: tuple[str, ...]) -> None:
    """In the hub's layout."""
    save_network(network, folder, {"model_type": _TYPE, "dim_in": dim_in, "slots": list(slots), "scorer": asdict(config)})


def load_scorer(folder: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """The network in eval mode and the names of its slots. Raises UsageError if the folder has none."""
    network, settings = load_network(
        folder, _TYPE, lambda s: make_scorer(s["dim_in"], len(s["slots"]), ScorerConfig(**s["scorer"]))
    )
    return network, tuple(settings["slots"])
