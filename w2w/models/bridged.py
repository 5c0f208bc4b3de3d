"""A network whose vectors are mapped into another model's space."""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize


class Bridged(nn.Module):
    """A network's unit vectors (N, D_new), times ``matrix`` (D_new, D_old), plus ``bias``: (N, D_old), not normalised."""

    def __init__(self, network: nn.Module, matrix: np.ndarray, bias: np.ndarray):
        super().__init__()
        self.network = network
        self.register_buffer("matrix", torch.tensor(matrix))
        self.register_buffer("bias", torch.tensor(bias))

    def forward(self, seen_NCHW: torch.Tensor) -> torch.Tensor:
        return normalize(self.network(seen_NCHW).float(), dim=1) @ self.matrix + self.bias
