import numpy as np
import pytest
import torch

from w2w.errors import UsageError
from w2w.models.compatibility import (
    PAD,
    ScorerConfig,
    load_scorer,
    logistic_losses,
    make_scorer,
    margin_losses,
    save_scorer,
    what2wear_losses,
)

SLOTS = torch.arange(3).expand(5, 3)


def outfits(count: int = 5, dim: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, dim, generator=torch.Generator().manual_seed(seed))


def scorer(kind: str, dim: int = 8, **settings):
    torch.manual_seed(1)
    return make_scorer(dim, 3, ScorerConfig(kind=kind, dim=4, hidden=16, **settings)).eval()


def test_the_published_loss_is_the_formula():
    network, worn, modified = scorer("what2wear"), outfits(seed=1), outfits(seed=2)
    parts = what2wear_losses(network(worn, SLOTS), network(modified, SLOTS), network.W, 0.7)
    w = network.W.detach().numpy()

    def s(x_N3D):
        z = x_N3D.numpy() @ w
        z /= np.linalg.norm(z, axis=-1, keepdims=True)
        return np.stack([(z[:, i] * z[:, j]).sum(-1) for i, j in ((0, 1), (0, 2), (1, 2))], 1) / 0.07

    assert parts["worn"].item() == pytest.approx(max(0, 1 - s(worn).mean()), rel=1e-5)
    assert parts["modified"].item() == pytest.approx(max(0, 0.7 - s(modified).mean()), rel=1e-5)
    assert parts["matrix"].item() == pytest.approx(0.01 * np.sqrt((w**2).sum()), rel=1e-5)
    assert sum(p.numel() for p in network.parameters()) == 8 * 8 + 1
    assert network.scores(worn, SLOTS).detach().numpy() == pytest.approx(0.07 * s(worn).mean(1), rel=1e-4)


def test_the_hinge_is_on_the_batch_in_the_published_code_and_on_each_outfit_in_its_notebook():
    s = torch.tensor([[0.0, 0.0, 0.3], [3.0, 3.0, 3.0]])  # one outfit below the threshold, their mean above it
    losses = {h: what2wear_losses(s, s, torch.zeros(2, 2), 0.7, h)["modified"].item() for h in ("batch", "outfit")}
    assert losses == {"batch": 0.0, "outfit": pytest.approx(0.3)}


def slopes(losses, worn, modified):
    worn, modified = worn.clone().requires_grad_(), modified.clone().requires_grad_()
    sum(losses(worn, modified).values()).backward()
    return worn.grad, modified.grad


def test_the_published_loss_pushes_every_similarity_up_and_the_others_push_modified_outfits_down():
    cosines = torch.full((4, 3), -0.5)
    up, up_too = slopes(lambda w, m: what2wear_losses(w, m, torch.ones(2, 2), 0.7), cosines, cosines)
    assert (up < 0).all()
    assert (up_too < 0).all()
    settled = what2wear_losses(torch.full((4, 3), 1.01), torch.full((4, 3), 0.71), torch.zeros(2, 2), 0.7)
    assert sum(settled.values()) == 0  # a cosine of .071 for worn and of .05 for modified ones, and it is done
    for losses in (logistic_losses, margin_losses):
        up, down = slopes(losses, torch.full((4,), -1.0), torch.full((4,), -1.0))
        assert (up < 0).all()
        assert (down > 0).all()


def test_the_logistic_loss_is_the_cross_entropy_of_the_probabilities():
    p = torch.tensor([0.9, 0.2, 0.5])
    parts = logistic_losses(p.log(), p.log())
    assert parts["worn"].item() == pytest.approx(-p.log().mean().item())
    assert parts["modified"].item() == pytest.approx(-(1 - p).log().mean().item(), rel=1e-5)
    sure = logistic_losses(torch.zeros(2), torch.zeros(2, requires_grad=True))
    assert torch.isfinite(sure["modified"])


def test_one_bad_pair_is_enough():
    network = scorer("pairs")
    network.similarities = lambda vectors, slots: vectors
    good, one_bad, middling = torch.tensor([[0.9, 0.9, 0.9], [0.9, 0.9, -0.9], [0.3, 0.3, 0.3]])[:, None]
    assert network(good, None) > network(middling, None) > network(one_bad, None)


def test_spaces_are_shared_or_one_a_slot():
    assert len(scorer("pairs").spaces) == 3
    shared = scorer("pairs", spaces="shared")
    assert len(shared.spaces) == 1
    alike = outfits()[:, :1].expand(5, 3, 8)
    assert shared.similarities(alike, SLOTS).detach().numpy() == pytest.approx(1, abs=1e-5)
    assert scorer("pairs").similarities(alike, SLOTS).max() < 0.999


def test_the_set_transformer_takes_outfits_of_any_size_in_any_order():
    network, items = scorer("set"), outfits()
    found = network.scores(items, SLOTS)
    turned = network.scores(items[:, [2, 0, 1]], SLOTS[:, [2, 0, 1]])
    assert turned.detach().numpy() == pytest.approx(found.detach().numpy(), abs=1e-5)
    padded = torch.cat([items, torch.full((5, 2, 8), 7.0)], 1)
    slots = torch.cat([SLOTS, torch.full((5, 2), PAD)], 1)
    assert network.scores(padded, slots).detach().numpy() == pytest.approx(found.detach().numpy(), abs=1e-5)
    other = network.scores(items, SLOTS[:, [1, 0, 2]])
    assert (other - found).abs().max() > 1e-4  # a top in the place of a bottom is another outfit
    assert (found < 0).all()
    assert network.scores(items[:, :2], SLOTS[:, :2]).shape == (5,)


@pytest.mark.parametrize("kind", ["pairs", "set", "what2wear"])
def test_a_scorer_comes_back_from_its_folder(tmp_path, kind):
    network, config = scorer(kind), ScorerConfig(kind=kind, dim=4, hidden=16)
    save_scorer(network, tmp_path / "a", config, 8, ("top", "bottom", "shoes"))
    again, slots = load_scorer(tmp_path / "a")
    assert slots == ("top", "bottom", "shoes")
    assert not again.training
    assert torch.equal(again.scores(outfits(), SLOTS), network.scores(outfits(), SLOTS))


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(UsageError, match="no w2w-compatibility"):
        load_scorer(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "swin"}')
    with pytest.raises(UsageError, match="of a swin"):
        load_scorer(tmp_path)
    with pytest.raises(UsageError, match="use set"):
        make_scorer(8, 5, ScorerConfig())
    for settings in ({"kind": "pair"}, {"spaces": "own"}, {"dropout": 1.0}, {"kind": "set", "hidden": 30}, {"layers": 0}):
        with pytest.raises(UsageError, match="scorer"):
            ScorerConfig(**settings)
