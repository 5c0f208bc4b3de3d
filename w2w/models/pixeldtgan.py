"""PixelDTGAN (Yoo et al. 2016, "Pixel-Level Domain Transfer"), small: generates the product that somebody wears.

A converter, a critic that judges whether a picture is real, and one that judges whether a product picture belongs to a photo
(sections 4.1 to 4.3), with a quarter of the paper's channels. Two changes suit short trainings: critics use spectral norms
(Miyato et al. 2018) instead of batch norms, and the converter also has a pixel loss (``GanConfig.pixels``). The converter keeps
its batch norms: with group norms the codes of all photos, and so the pictures, are nearly equal. At inference a picture does
not depend on the others in its batch.
"""

from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils.parametrizations import spectral_norm

from w2w.models.folder import load_network, save_network
from w2w.models.options import GanConfig

SIDE_PX = 64
_TYPE = "w2w-pixeldtgan"
_WIDEST = 8  # times the channels, at 4 x 4 pixels


def _down(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]


def _up(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU()]


def _critic(inputs: int, channels: int) -> nn.Sequential:
    """(N, inputs, 64, 64) -> logits (N, 1)."""
    widths = [inputs, *(i * channels for i in (1, 2, 4, _WIDEST))]
    layers = [(spectral_norm(nn.Conv2d(a, b, 4, 2, 1)), nn.LeakyReLU(0.2)) for a, b in pairwise(widths)]
    return nn.Sequential(*(part for pair in layers for part in pair), spectral_norm(nn.Conv2d(widths[-1], 1, 4)), nn.Flatten())


class PixelDTGan(nn.Module):
    """Pictures are (N, 3, 64, 64) in -1..1."""

    def __init__(self, config: GanConfig = GanConfig()):
        super().__init__()
        n, self.config = config.channels, config
        self.converter = nn.Sequential(
            nn.Conv2d(3, n, 4, 2, 1),
            nn.LeakyReLU(0.2),
            *(layer for i in (1, 2, 4) for layer in _down(i * n, 2 * i * n)),
            nn.Conv2d(_WIDEST * n, config.code, 4),
            nn.BatchNorm2d(config.code),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(config.code, _WIDEST * n, 4),
            nn.BatchNorm2d(_WIDEST * n),
            nn.ReLU(),
            *(layer for i in (4, 2, 1) for layer in _up(2 * i * n, i * n)),
            nn.ConvTranspose2d(n, 3, 4, 2, 1),
            nn.Tanh(),
        )
        for layer in self.converter:
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, 0.0, 0.02)
        self.real = _critic(3, n)
        self.domain = _critic(6, n)

    def draw(self, worn: torch.Tensor) -> torch.Tensor:
        return self.converter(worn)

    def forward(self, worn: torch.Tensor, product: torch.Tensor, other: torch.Tensor) -> dict[str, torch.Tensor]:
        """Losses of photos, the products worn in them, and other products. One backward pass over their sum gives each network
        only the gradient of its own part: the critics get detached pictures, and the converter is judged by critics with
        constant weights."""
        drawn = self.draw(worn)
        held = drawn.detach()
        real = (_says(self.real(product), True) + _says(self.real(other), True) + _says(self.real(held), False)) / 3
        pairs = [(product, True), (other, False), (held, False)]
        domain = sum(_says(self.domain(torch.cat([worn, p], 1)), belongs) for p, belongs in pairs) / 3
        fooled = _says(_fixed(self.real, drawn), True) + _says(_fixed(self.domain, torch.cat([worn, drawn], 1)), True)
        pixels = self.config.pixels * (drawn - product).abs().mean()
        return {"real": real, "domain": domain, "converter": fooled / 2, "pixels": pixels}


def _says(logits_N1: torch.Tensor, truth: bool) -> torch.Tensor:
    return binary_cross_entropy_with_logits(logits_N1, torch.full_like(logits_N1, float(truth)))


def _fixed(critic: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    """The critic's output with its weights as constants."""
    return functional_call(critic, {n: p.detach() for n, p in critic.named_parameters()}, (pictures,))


def save_gan(network: PixelDTGan, folder: Path) -> None:
    """In the hub's layout."""
    save_network(network, folder, {"model_type": _TYPE, "gan": asdict(network.config)})


def load_gan(folder: Path) -> PixelDTGan:
    """In eval mode. Raises UsageError if the folder has none."""
    return load_network(folder, _TYPE, lambda s: PixelDTGan(GanConfig(**s["gan"])))[0]
