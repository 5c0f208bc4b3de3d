"""Recipe of the Siamese network on pairs of a product and a photo."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from w2w.models.siamese import SIDE_PX, Siamese, SiameseConfig, embed, save_siamese, siamese_loss, to_input
from w2w.training.config import LoopConfig
from w2w.training.lookbook.experiments import KS, Pairs, experiment_1, experiment_2, make_gallery, make_pairs
from w2w.training.lookbook.pictures import Pictures, Product
from w2w.training.loop import parameter_groups

PAIRS_EACH = 10  # positive and negative ones per product, as in the seed


def as_published(num_products: int, batch: int, epochs: int = 15, seed: int = 0) -> LoopConfig:
    """The report's settings: SGD .05, 15 epochs over 20 pairs per product, the last weights kept. It gives no batch size."""
    epoch = max(1, 2 * PAIRS_EACH * num_products // batch)
    steps = epochs * epoch
    return LoopConfig(
        steps=steps,
        optimizer="sgd",
        learning_rate=0.05,
        schedule="constant",
        warmup_steps=0,
        clip_norm=0,
        average=0,
        measure_every=steps,
        checkpoint_every=epoch,
        select="accuracy",
        seed=seed,
    )


class SiameseRecipe:
    """``train`` and ``val``: disjoint products. Evaluated by experiment 1, and by experiment 2 over all of ``val``."""

    select = "accuracy"

    def __init__(self, config: SiameseConfig, train: Pairs, val: Sequence[Product], seed: int = 0):
        torch.manual_seed(seed)
        self.network = Siamese(config)
        self._train, self._pictures = train, Pictures(SIDE_PX)
        rng = np.random.default_rng([seed, 1])
        self._held_out = (make_pairs(val, PAIRS_EACH, rng), make_gallery(val, len(val), rng)) if len(val) > 1 else None

    def parameter_groups(self) -> list[dict]:
        return parameter_groups(self.network.named_parameters())

    def prepare(self, rows: Sequence[int], rngs: Sequence[np.random.Generator]) -> tuple[torch.Tensor, ...]:
        files = ([getattr(self._train, side)[row] for row in rows] for side in ("products", "worn"))
        products, worn = (to_input(self._pictures.read(side)) for side in files)
        return products, worn, torch.from_numpy(self._train.same_P[list(rows)].astype(np.float32))

    def losses(self, network: nn.Module, batch: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
        device = next(self.network.parameters()).device
        products, worn, same = (part.to(device) for part in batch)
        return {"pairs": siamese_loss(network(products, worn), same)}

    def train_mode(self, network: nn.Module) -> None:
        network.train()

    def measure(self, network: nn.Module) -> dict[str, float]:
        if self._held_out is None:
            return {}
        val, gallery = self._held_out
        found = experiment_1(pair_probabilities(network, self._pictures, val), val.same_P)
        top = experiment_2(gallery_scores(network, self._pictures, gallery))
        return {k: found[k] for k in ("accuracy", "precision", "recall", "F1")} | {f"Recall@{k}": top[k] for k in KS}

    def save(self, network: nn.Module, folder: Path) -> None:
        save_siamese(network, folder)


def pair_probabilities(network: Siamese, pictures: Pictures, pairs: Pairs) -> np.ndarray:
    """(P,). Every file is read and encoded once, however many pairs it is in."""
    products, worn = (_seen(network, pictures, side) for side in (pairs.products, pairs.worn))
    return _probabilities(network, (products * worn).sum(axis=1))


def gallery_scores(network: Siamese, pictures: Pictures, gallery: Pairs) -> np.ndarray:
    """(N, N): row = photo, column = product."""
    return _seen(network, pictures, gallery.worn) @ _seen(network, pictures, gallery.products).T


def _seen(network: Siamese, pictures: Pictures, files: Sequence[str]) -> np.ndarray:
    different, place = np.unique(np.array(files), return_inverse=True)
    chunks = (pictures.read(different[i : i + 256].tolist()) for i in range(0, len(different), 256))
    return np.concatenate([embed(network, chunk) for chunk in chunks])[place]


def _probabilities(network: Siamese, cosines_P: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return torch.sigmoid(network.logits(torch.from_numpy(cosines_P).to(next(network.parameters()).device))).cpu().numpy()
