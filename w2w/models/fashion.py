"""Layers of w2w-fashion: shape and kind of a garment, each a separate part of the vector.

On top of a backbone's features: principal components for shape and pattern; for the kind, class probabilities of several feeds,
one linear layer each. Colours are appended (colour.py).
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import normalize

from w2w.models.config import KIND_DIM, SHAPE_DIM


class Fashion(nn.Module):
    """Normalised pixels (N, 3, S, S) -> (N, 192): unit vectors of the shape, and of the kind times ``weight``. ``groups``:
    number of classes in each feed."""

    def __init__(self, backbone: nn.Module, dim: int, groups: Sequence[int], weight: float):
        super().__init__()
        self.backbone, self.groups, self.weight = backbone, tuple(groups), weight
        self.shape = nn.Linear(dim, SHAPE_DIM)
        self.classes = nn.Linear(dim, sum(groups))
        self.kind = nn.Linear(sum(groups), KIND_DIM)

    def forward(self, seen_NCHW: torch.Tensor) -> torch.Tensor:
        features_ND = normalize(self.backbone(seen_NCHW), dim=1)
        return torch.cat([normalize(self.shape(features_ND), dim=1), self.weight * self.kind_of(features_ND)], 1)

    def kind_of(self, features_ND: torch.Tensor) -> torch.Tensor:
        """Unit vectors (N, 32) of the kind, from the backbone's unit vectors."""
        told = [scores.softmax(1) for scores in self.classes(features_ND).split(self.groups, 1)]
        return normalize(self.kind(torch.cat(told, 1)), dim=1)
