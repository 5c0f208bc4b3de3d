import numpy as np
import pytest
import torch

from w2w.errors import UsageError
from w2w.models.siamese import SIDE_PX, Siamese, SiameseConfig, embed, load_siamese, save_siamese, siamese_loss, to_input


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)


@pytest.mark.parametrize(("padding", "flat", "whole"), [("valid", 1210, 4_423_384), ("same", 1440, 4_883_384)])
def test_it_has_the_published_layers(padding, flat, whole):
    network = Siamese(SiameseConfig(padding))
    sizes = [sum(p.numel() for p in layer.parameters()) for part in (network.features, network.embed) for layer in part]
    assert [s for s in sizes if s] == [84, 280, 20, flat * 2000 + 2000, 2000 * 1000 + 1000]
    assert sum(sizes) == sum(p.numel() for p in network.parameters()) == whole
    kinds = [type(layer).__name__ for part in (network.features, network.embed) for layer in part]
    assert kinds == [
        *["Conv2d", "LeakyReLU", "MaxPool2d"] * 2,
        *["BatchNorm2d", "Dropout", "Linear", "Tanh", "Linear"],
    ]
    assert network.eval().vectors(to_input(pictures(2))).shape == (2, 1000)


def test_the_published_loss_cannot_fall_below_its_floor():
    network = Siamese().eval()
    cosines = torch.tensor([1.0, -1.0])
    assert torch.sigmoid(network.logits(cosines)).tolist() == pytest.approx([0.7311, 0.2689], abs=1e-4)
    assert siamese_loss(network.logits(cosines), torch.tensor([1.0, 0.0])).item() == pytest.approx(0.3133, abs=1e-4)
    improved = Siamese(SiameseConfig(learnt_scale=True))
    assert siamese_loss(improved.logits(cosines), torch.tensor([1.0, 0.0])).item() < 0.01
    assert sum(p.numel() for p in improved.parameters()) == 4_423_384 + 2


def test_vectors_give_the_same_scores_as_pairs():
    network = Siamese().eval()
    a, b = pictures(3, 1), pictures(3, 2)
    with torch.inference_mode():
        logits = network(to_input(a), to_input(b)).numpy()
    found = (embed(network, a, batch=2) * embed(network, b)).sum(1)
    assert found == pytest.approx(logits, abs=1e-5)
    assert np.linalg.norm(embed(network, a), axis=1) == pytest.approx(1, abs=1e-5)
    assert embed(network, a[:0]).shape == (0, 1000)


def test_it_comes_back_from_its_folder(tmp_path):
    network = Siamese(SiameseConfig("same", learnt_scale=True)).eval()
    save_siamese(network, tmp_path)
    again = load_siamese(tmp_path)
    assert again.config == network.config
    assert np.array_equal(embed(again, pictures(2)), embed(network, pictures(2)))
    with pytest.raises(UsageError, match="padding=full"):
        SiameseConfig("full")
