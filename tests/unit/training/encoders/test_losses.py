import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from tests.unit.training.ranks import in_two
from w2w.training.encoders.losses import Pairs, Temperature, contrastive, in_chunks, info_nce, triplet

PRODUCTS = torch.tensor([0, 1, 2, 3, 4, 1, 5, 0])  # two products are on both ranks
CLUSTERS = torch.tensor([0, 1, 2, 3, 4, 5, 3, 0])  # and one picture is almost another's
NEGATIVES = torch.tensor([9, 8, 3, -1, 7, 6, -1, 4])


class Tower(nn.Module):
    """(N, 6) -> vectors (N, 5) and the temperature, in float64."""

    def __init__(self, chunk: int = 0, dropout: float = 0.0):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 5))
        self.temperature, self.chunk = Temperature(), chunk
        self.double()

    def forward(self, x):
        return in_chunks(self.layers, x, self.chunk), self.temperature()


def inputs() -> torch.Tensor:
    """Anchors, positives and negatives of 8 pairs, (24, 6)."""
    return torch.randn(24, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def loss_of(network, rows: slice, **settings):
    x = inputs().view(3, 8, 6)[:, rows].reshape(-1, 6)
    vectors, scale = network(x)
    a, p, n = vectors.chunk(3)
    pairs = Pairs(a, p, PRODUCTS[rows], CLUSTERS[rows], n, NEGATIVES[rows], torch.full_like(NEGATIVES[rows], -1))
    return info_nce(pairs, scale, **settings)


def mined_of(network, rows: slice, loss):
    x = inputs().view(3, 8, 6)[:, rows].reshape(-1, 6)
    vectors, scale = network(x)
    theirs = torch.where(torch.arange(8) < 3, PRODUCTS, 9)[rows]  # three are of the anchor's own product, all on one rank
    a, p, n = vectors.chunk(3)
    pairs = Pairs(a, p, PRODUCTS[rows], CLUSTERS[rows], n, theirs, torch.full_like(theirs, -1))
    return loss(pairs, 1.0) + scale * 0


def gradients(network) -> list[torch.Tensor]:
    return [p.grad for p in network.parameters()]


def rank_main(rank: int) -> dict:
    found = {}
    for chunk in (0, 3):
        for count_same in (True, False):
            tower = Tower(chunk)
            network = DistributedDataParallel(tower, find_unused_parameters=True)
            loss_of(network, slice(4 * rank, 4 * rank + 4), count_same=count_same, dims=(2, 5)).backward()
            found[chunk, count_same] = gradients(tower)
    # with mined negatives the baselines are sums over pairs, of which some do not count
    for loss in (triplet, contrastive):
        tower = Tower()
        network = DistributedDataParallel(tower, find_unused_parameters=True)
        mined_of(network, slice(4 * rank, 4 * rank + 4), loss).backward()
        found[loss.__name__] = gradients(tower)
    return found


@pytest.mark.slow
def test_two_ranks_have_the_gradients_of_one_process(tmp_path):
    ranks = in_two(rank_main, tmp_path)
    assert len(ranks[0]) == 6
    for of, found in ranks[0].items():
        tower = Tower()
        if isinstance(of, tuple):
            loss_of(tower, slice(0, 8), count_same=of[1], dims=(2, 5)).backward()
        else:
            mined_of(tower, slice(0, 8), {"triplet": triplet, "contrastive": contrastive}[of]).backward()
        for ours, theirs, other in zip(gradients(tower), found, ranks[1][of]):
            torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-6)
            assert torch.equal(theirs, other)
            assert ours.abs().max() > 1e-4 or ours.ndim == 0  # the baselines have no temperature


def plain(pairs: Pairs, scale: float) -> torch.Tensor:
    a, p = functional.normalize(pairs.anchors_ND, dim=1), functional.normalize(pairs.positives_ND, dim=1)
    return functional.cross_entropy(scale * a @ p.T, torch.arange(len(a)))


def some(products=range(4), clusters=range(4), **more) -> Pairs:
    a, p = torch.randn(2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return Pairs(a, p, torch.tensor(list(products)), torch.tensor(list(clusters)), **more)


def test_of_different_products_it_is_the_cross_entropy_of_the_similarities():
    pairs, scale = some(), torch.tensor(14.0)
    assert info_nce(pairs, scale, symmetric=False).item() == pytest.approx(plain(pairs, 14).item())
    back = Pairs(pairs.positives_ND, pairs.anchors_ND, pairs.products_N, pairs.clusters_N)
    both = (plain(pairs, 14) + plain(back, 14)) / 2
    assert info_nce(pairs, scale).item() == pytest.approx(both.item())


@pytest.mark.parametrize("alike", [{"products": [0, 1, 0, 3]}, {"clusters": [0, 1, 0, 3]}])
def test_the_same_product_or_picture_is_no_negative(alike):
    pairs, scale = some(**alike), torch.tensor(5.0)
    a, p = functional.normalize(pairs.anchors_ND, dim=1), functional.normalize(pairs.positives_ND, dim=1)
    logits = 5 * a @ p.T
    left_out = logits.clone()
    left_out[0, 2] = left_out[2, 0] = -torch.inf
    expected = functional.cross_entropy(left_out, torch.arange(4))
    assert info_nce(pairs, scale, symmetric=False, count_same=False).item() == pytest.approx(expected.item())
    log_probability = logits.log_softmax(1)
    rows = [(log_probability[0, 0] + log_probability[0, 2]) / 2, log_probability[1, 1]]
    rows += [(log_probability[2, 2] + log_probability[2, 0]) / 2, log_probability[3, 3]]
    assert info_nce(pairs, scale, symmetric=False).item() == pytest.approx(-sum(rows).item() / 4)


def test_a_mined_negative_counts_unless_it_is_the_same_product():
    vectors = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    unknown = torch.tensor([-1, -1])
    scale, known = torch.tensor(5.0), torch.tensor([8, 9])
    with_both = info_nce(some(negatives_HD=vectors, negative_products_H=known, negative_clusters_H=unknown), scale)
    nobody = info_nce(some(negatives_HD=vectors, negative_products_H=unknown, negative_clusters_H=unknown), scale)
    assert nobody.item() == with_both.item()
    with_one = info_nce(
        some([8, 1, 8, 8], negatives_HD=vectors, negative_products_H=known, negative_clusters_H=unknown),
        scale,
        count_same=False,
    )
    pairs = some()
    a, p = functional.normalize(pairs.anchors_ND, dim=1), functional.normalize(pairs.positives_ND, dim=1)
    columns = torch.cat([p, functional.normalize(vectors, dim=1)])
    logits = 5 * a @ columns.T
    back = 5 * p @ a.T
    for i in (0, 2, 3):
        for j in {0, 2, 3, 4} - {i}:
            logits[i, j] = -torch.inf
        for j in {0, 2, 3} - {i}:
            back[i, j] = -torch.inf
    expected = (functional.cross_entropy(logits, torch.arange(4)) + functional.cross_entropy(back, torch.arange(4))) / 2
    assert with_one.item() == pytest.approx(expected.item())
    assert with_both.item() > info_nce(some(), scale).item()


def test_prefixes_are_normalised_on_their_own():
    pairs, scale = some(), torch.tensor(5.0)
    short = Pairs(pairs.anchors_ND[:, :2], pairs.positives_ND[:, :2], pairs.products_N, pairs.clusters_N)
    expected = (info_nce(pairs, scale) + info_nce(short, scale)) / 2
    assert info_nce(pairs, scale, dims=(2, 6)).item() == pytest.approx(expected.item())


def test_similarities_are_float32_under_autocast():
    a, p = (torch.randn(8, 16, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    p = a + 1e-3 * p
    pairs = Pairs(a, p, torch.arange(8), torch.arange(8))
    with torch.autocast("cpu", torch.bfloat16):
        assert info_nce(pairs, torch.tensor(100.0)).item() == info_nce(pairs, torch.tensor(100.0)).float().item()
        found = info_nce(pairs, torch.tensor(100.0))
    assert found.item() == info_nce(pairs, torch.tensor(100.0)).item()


def test_the_temperature_stays_below_100_and_can_fall_again():
    temperature = Temperature()
    assert temperature().item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        temperature.log_scale.fill_(9.0)
    assert temperature().item() == pytest.approx(100)
    temperature().backward()
    assert temperature.log_scale.grad.item() == pytest.approx(100)


def test_chunks_replay_their_dropout():
    x = inputs()
    chunked, whole = Tower(chunk=5, dropout=0.5), Tower(dropout=0.5)
    torch.manual_seed(7)
    chunked(x)[0].square().sum().backward()
    torch.manual_seed(7)
    sum(whole.layers(part).square().sum() for part in x.split(5)).backward()
    for ours, theirs in zip(gradients(chunked.layers), gradients(whole.layers)):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def peak(rows: int, chunk: int) -> int:
    """Most bytes that a step holds beyond its input, as the allocator counts them."""
    middle = [layer for _ in range(6) for layer in (nn.Linear(64, 64), nn.GELU())]
    network = nn.Sequential(nn.Linear(4, 64), *middle, nn.Linear(64, 4))
    x = torch.ones(rows, 4)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        in_chunks(network, x, chunk).sum().backward()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(itertools.accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))


@pytest.mark.soak  # the allocator counts what other tests of the process free
def test_memory_of_chunks_does_not_grow_with_the_batch():
    assert peak(2048, 128) < 1.3 * peak(512, 128)
    assert peak(2048, 0) > 3 * peak(512, 0)


def test_triplet():
    pairs = Pairs(*(torch.eye(3, 4)[[0, 1]], torch.eye(3, 4)[[0, 2]]), torch.tensor([0, 1]), torch.tensor([0, 1]))
    # anchor 0: its positive at 0, the other's at sqrt 2; anchor 1: its positive at sqrt 2, the other's likewise
    assert triplet(pairs, 0.2).item() == pytest.approx(0.1, abs=1e-4)
    same = Pairs(pairs.anchors_ND, pairs.positives_ND, torch.tensor([0, 0]), torch.tensor([0, 1]))
    assert triplet(same, 0.2).item() == 0


def test_contrastive_pulls_equals_together_and_as_published_apart():
    a, p = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, -0.1], [-0.1, 1.0]])
    for inverted in (False, True):
        mine = a.clone().requires_grad_()
        contrastive(Pairs(mine, p, torch.arange(2), torch.arange(2)), inverted=inverted).backward()
        moved = mine - 0.01 * mine.grad
        before, after = (functional.cosine_similarity(v, p).mean() for v in (a, moved))
        assert (after < before) == inverted
    d = math.sqrt(2 - 2 / math.sqrt(1.01))
    far = torch.linalg.norm(functional.normalize(a) - functional.normalize(p).roll(-1, 0), dim=1)[0].item()
    value = contrastive(Pairs(a, p, torch.arange(2), torch.arange(2)), margin=2.0).item()
    assert value == pytest.approx((d**2 + max(0, 2 - far) ** 2) / 2, abs=1e-5)
