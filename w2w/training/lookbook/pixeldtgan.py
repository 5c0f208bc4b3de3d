"""Recipe of PixelDTGAN: photos, the products worn in them, and other products."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from w2w.errors import UsageError
from w2w.models.pixeldtgan import SIDE_PX, GanConfig, PixelDTGan, save_gan
from w2w.models.siamese import to_input
from w2w.training.lookbook.experiments import KS, experiment_3, make_gallery, pixel_vectors
from w2w.training.lookbook.pictures import Pictures, Product

_SHARES = {"converter": 1.0, "real": 2 / 3, "domain": 2 / 3}  # critics learn slower: the code of Yoo et al. uses 1/2 and 1/3
_BETAS = (0.5, 0.999)  # of Adam, as in DCGAN, the source of these layers


class GanRecipe:
    """Rows are numbers of ``train``'s products. Evaluated by experiment 3 over ``val``, by pixels."""

    select = "Recall@10"

    def __init__(
        self,
        config: GanConfig,
        train: Sequence[Product],
        val: Sequence[Product] = (),
        seed: int = 0,
    ):
        if len(train) < 2:
            raise UsageError("a single product has no other to compare with")
        torch.manual_seed(seed)
        self.network = PixelDTGan(config)
        self._train, self._pictures = train, Pictures(SIDE_PX)
        self._gallery = make_gallery(val, len(val), np.random.default_rng([seed, 1])) if val else None

    def parameter_groups(self) -> list[dict]:
        return [
            {
                "params": list(getattr(self.network, part).parameters()),
                "share": share,
                "weight_decay": 0.0,
                "betas": _BETAS,
                "clipped": part,
            }
            for part, share in _SHARES.items()
        ]

    def prepare(self, rows: Sequence[int], rngs: Sequence[np.random.Generator]) -> tuple[torch.Tensor, ...]:
        """Each product with one of its photos and another product."""
        worn, clean, other = [], [], []
        for row, rng in zip(rows, rngs):
            product = self._train[row]
            worn.append(product.worn[int(rng.integers(len(product.worn)))])
            clean.append(product.clean)
            other.append(self._train[(row + int(rng.integers(1, len(self._train)))) % len(self._train)].clean)
        return tuple(signed(self._pictures.read(files)) for files in (worn, clean, other))

    def losses(self, network: nn.Module, batch: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
        device = next(self.network.parameters()).device
        return network(*(part.to(device) for part in batch))

    def train_mode(self, network: nn.Module) -> None:
        network.train()

    def measure(self, network: nn.Module) -> dict[str, float]:
        if self._gallery is None:
            return {}
        worn, products = (self._pictures.read(files) for files in (self._gallery.worn, self._gallery.products))
        found = experiment_3(lambda photos: drawn(network, photos), pixel_vectors, worn, products)
        return {f"Recall@{k}": found[k] for k in KS}

    def save(self, network: nn.Module, folder: Path) -> None:
        save_gan(network, folder)


def signed(pictures_NHWC: np.ndarray) -> torch.Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W) in -1..1."""
    return to_input(pictures_NHWC) * 2 - 1


def drawn(network: PixelDTGan, worn_NHWC: np.ndarray, batch: int = 256) -> np.ndarray:
    """uint8 photos (N, 64, 64, 3) -> uint8 pictures of the product worn in them."""
    device = next(network.parameters()).device
    network.eval()
    found = [np.empty((0, *worn_NHWC.shape[1:]), np.uint8)]
    with torch.inference_mode():
        for start in range(0, len(worn_NHWC), batch):
            pictures = network.draw(signed(worn_NHWC[start : start + batch]).to(device))
            found.append(((pictures + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(found)
