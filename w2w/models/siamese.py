"""The Siamese network of "Clothing Recommendation" (R. R. Premkumar): two small convolutions, a cosine, a sigmoid.

Source: its report, section 2.2, which does not say whether the convolutions are padded: both are supported, `valid` and `same`.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from w2w.models.folder import load_network, save_network
from w2w.models.options import SiameseConfig

SIDE_PX = 100
_TYPE = "w2w-siamese"
_FLAT = {"valid": 10 * 11 * 11, "same": 10 * 12 * 12}  # 100 - 98 - 49 - 47 - 11, or 100 - 100 - 50 - 50 - 12


class Siamese(nn.Module):
    """Pictures (N, 3, 100, 100) in 0..1."""

    def __init__(self, config: SiameseConfig = SiameseConfig()):
        super().__init__()
        self.config = config
        self.features = nn.Sequential(
            nn.Conv2d(3, 3, 3, padding=config.padding),
            nn.LeakyReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(3, 10, 3, padding=config.padding),
            nn.LeakyReLU(),
            nn.MaxPool2d(4),
            nn.BatchNorm2d(10),
            nn.Dropout(0.5),
        )
        self.embed = nn.Sequential(nn.Linear(_FLAT[config.padding], 2000), nn.Tanh(), nn.Linear(2000, 1000))
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="leaky_relu")
                nn.init.zeros_(layer.bias)
        if config.learnt_scale:
            self.log_scale = nn.Parameter(torch.tensor(1.6))  # 5: probabilities from .007 to .993
            self.bias = nn.Parameter(torch.tensor(0.0))

    def vectors(self, pictures_N3HW: torch.Tensor) -> torch.Tensor:
        """Unit vectors (N, 1000)."""
        return normalize(self.embed(self.features(pictures_N3HW).flatten(1)), dim=-1)

    def forward(self, products_N3HW: torch.Tensor, worn_N3HW: torch.Tensor) -> torch.Tensor:
        """Logits of product n being the one worn in picture n, (N,)."""
        return self.logits((self.vectors(products_N3HW) * self.vectors(worn_N3HW)).sum(-1))

    def logits(self, cosines: torch.Tensor) -> torch.Tensor:
        """The sigmoid's input."""
        return cosines * self.log_scale.exp() + self.bias if self.config.learnt_scale else cosines


def siamese_loss(logits_N: torch.Tensor, same_N: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of sigmoid(logit)."""
    return binary_cross_entropy_with_logits(logits_N, same_N)


def embed(network: Siamese, pictures_NHWC: np.ndarray, batch: int = 256) -> np.ndarray:
    """uint8 (N, 100, 100, 3) -> float32 (N, 1000)."""
    device = next(network.parameters()).device
    network.eval()
    found = [np.empty((0, 1000), np.float32)]
    with torch.inference_mode():
        for start in range(0, len(pictures_NHWC), batch):
            found.append(network.vectors(to_input(pictures_NHWC[start : start + batch]).to(device)).cpu().numpy())
    return np.concatenate(found)


def to_input(pictures_NHWC: np.ndarray) -> torch.Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W) in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(pictures_NHWC)).permute(0, 3, 1, 2).float() / 255


def save_siamese(network: Siamese, folder: Path) -> None:
    """In the hub's layout."""
    save_network(network, folder, {"model_type": _TYPE, "siamese": asdict(network.config)})


def load_siamese(folder: Path) -> Siamese:
    """In eval mode. Raises UsageError if the folder has none."""
    return load_network(folder, _TYPE, lambda s: Siamese(SiameseConfig(**s["siamese"])))[0]
