"""Which patches made two pictures alike: sums that hold, places that are right, and networks that are no sums."""

import numpy as np
import pytest
import torch
from torch import nn

import w2w
from tests.unit.models.layouts import make
from w2w.images.decode import decode
from w2w.images.resize import fit
from w2w.models.compatibility import PAD, make_scorer, pair_scores
from w2w.models.config import EncoderConfig, Input
from w2w.models.encoder import load_encoder
from w2w.models.explain import EXACT, GRADIENT, PIXELS, Explainer, heat, load_explainer
from w2w.models.network import Embedder, Head
from w2w.models.options import ScorerConfig
from w2w.models.overlay import on_picture, overlay
from w2w.models.sources import Source

SIDE, GRID = 32, 4
SEEN = Input(SIDE, SIDE, "squash", "bilinear", (0.5,) * 3, (0.5,) * 3)


def pictures(seed: int, num: int, side: int = SIDE) -> np.ndarray:
    """Coarse colours with grain."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (num, 4, 4, 3)).repeat(side // 4, 1).repeat(side // 4, 2)
    return np.clip(coarse + rng.normal(0, 20, coarse.shape), 0, 255).astype(np.uint8)


class Patches(nn.Module):
    """As a network of timm: patches of 8 px through one linear layer and a ReLU, then pooled by ``pool``."""

    def __init__(self, pool):
        super().__init__()
        self.layer, self.pool = nn.Conv2d(3, 12, SIDE // GRID, SIDE // GRID), pool

    def forward_features(self, pixels):
        return torch.relu(self.layer(pixels))

    def forward(self, pixels):
        return self.pool(self.forward_features(pixels).flatten(2))


def explainer(network) -> Explainer:
    return Explainer(Source("test", SEEN, (), lambda: network), EncoderConfig(device="cpu"))


def mean(features):
    return features.mean(2)


def embedder(dims, normalised=True, pool=mean) -> Embedder:
    torch.manual_seed(1)
    return Embedder(Patches(pool), Head(dims), normalised)


@pytest.mark.parametrize(
    "name",
    ["efficientnet-lite0", "swin-classifier", "published-swin", "resnet-classifier", "convnext-classifier", "beit-classifier"],
)
def test_means_of_patches_are_taken_apart_exactly(tmp_path, name):
    config = EncoderConfig(name if name == "efficientnet-lite0" else make(name, tmp_path / "model"))
    encoder = load_encoder(config)
    side = encoder.input.size_px
    query, *results = pictures(2, 3, side - side % 4)
    query, *results = (encoder.prepare(p) for p in (query, *results))
    vectors = encoder.encode(np.stack([query, *results]))
    for result, vector, found in zip(results, vectors[1:], load_explainer(config)(query, results), strict=True):
        assert (found.exact, found.method) == (True, EXACT)
        assert found.cosine == pytest.approx(vectors[0] @ vector, abs=1e-3)
        for sums in (found.query, found.result, found.pairs):
            assert sums.dtype == np.float32
            assert sums.sum() == pytest.approx(found.cosine, abs=1e-5)
        np.testing.assert_allclose(found.pairs.sum(1), found.query.ravel(), atol=1e-5)
        np.testing.assert_allclose(found.pairs.sum(0), found.result.ravel(), atol=1e-5)
        assert not np.array_equal(result, query)


@pytest.mark.parametrize("normalised", [True, False])
def test_a_linear_head_keeps_it_exact_and_a_bent_one_does_not(normalised):
    query, result = pictures(3, 2)
    (found,) = explainer(embedder([12, 6], normalised))(query, [result])
    assert found.exact
    assert found.query.sum() == pytest.approx(found.cosine, abs=1e-5)
    assert found.result.sum() == pytest.approx(found.cosine, abs=1e-5)
    (bent,) = explainer(embedder([12, 8, 6], normalised))(query, [result])
    assert (bent.exact, bent.method, bent.pairs) == (False, GRADIENT, None)
    (most,) = explainer(embedder([12, 6], normalised, pool=lambda f: f.amax(2)))(query, [result])
    assert not most.exact
    with torch.no_grad():
        seen = torch.from_numpy(np.stack([query, result])).permute(0, 3, 1, 2) / 127.5 - 1
        a, b = embedder([12, 8, 6], normalised)(seen)
    assert bent.cosine == pytest.approx(float(a @ b), abs=1e-5)


def test_what_two_pictures_share_is_where_they_are_alike():
    """One patch of each shows the same thing on a ground that gives nothing."""
    network = Patches(mean)
    nn.init.zeros_(network.layer.bias)
    query, result = np.full((2, SIDE, SIDE, 3), 127, np.uint8)
    thing = pictures(4, 1, 8)[0]
    query[8:16, 24:32], result[16:24, 0:8] = thing, thing
    network.layer.weight.data -= network.layer.weight.data.mean((1, 2, 3), keepdim=True)  # a plain patch gives 0
    (found,) = explainer(network)(query, [result])
    assert found.cosine == pytest.approx(1, abs=1e-5)
    assert np.argwhere(found.query_heat > 0.01).tolist() == [[1, 3]]
    assert np.argwhere(found.result_heat > 0.01).tolist() == [[2, 0]]
    assert np.argwhere(found.pairs > 0.01).tolist() == [[1 * GRID + 3, 2 * GRID + 0]]


@pytest.mark.parametrize("name", ["clip", "vit", "siglip", "dinov2", "timm-file"])
def test_class_tokens_and_attention_are_told_by_gradients(tmp_path, name):
    config = EncoderConfig(make(name, tmp_path / "model"), device="cpu")
    asked = load_explainer(config)
    side = asked.input.size_px
    query, result = pictures(5, 2, side)
    (found,) = asked(query, [result])
    vectors = load_encoder(config).encode(np.stack([query, result]))
    assert (found.exact, found.method, found.pairs) == (False, GRADIENT, None)
    assert found.cosine == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-3)
    assert found.query.shape == found.result.shape == ((10, 10) if side == 160 else (4, 4))
    for shown in (found.query, found.result):
        assert np.isfinite(shown).all()
        assert (np.abs(shown) > 1e-12).mean() > 0.9
    assert all(p.grad is None for p in asked._module.parameters())


def test_a_network_without_a_feature_map_is_told_by_its_pixels():
    torch.manual_seed(0)
    query, result = pictures(6, 2)
    (found,) = explainer(nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE * 3, 5)))(query, [result])
    assert (found.exact, found.method) == (False, PIXELS)
    assert found.query.any()


def test_heat_is_a_share_of_the_largest():
    np.testing.assert_array_equal(heat(np.float32([[-1, 0], [2, 4]])), [[0, 0], [0.5, 1]])
    np.testing.assert_array_equal(heat(np.float32([[-1, -2]])), [[0, 0]])
    assert explainer(Patches(mean))(pictures(7, 1)[0], []) == []


@pytest.mark.parametrize(("mode", "resize_px"), [("squash", 64), ("pad", 64), ("crop", 64), ("crop", 80)])
@pytest.mark.parametrize(("width", "height"), [(90, 200), (210, 120), (64, 64)])
def test_heat_lies_where_the_network_saw_it(mode, resize_px, width, height):
    """A black spot; the patches that the network sees it in are given heat; back on the picture that lies on the spot."""
    shape = Input(64, resize_px, mode, "bilinear", (0,) * 3, (1,) * 3)
    x, y = width // 2 + width // 8, height // 2 - height // 9
    picture = np.full((height, width, 3), 255, np.uint8)
    picture[y - 3 : y + 4, x - 3 : x + 4] = 0
    dark = 255 - fit(picture, 64, mode, "bilinear", resize_px).mean(2)
    by_patch = dark.reshape(16, 4, 16, 4).sum((1, 3))
    placed = on_picture(by_patch / by_patch.max(), width, height, shape)
    assert placed.shape == (height, width)
    rows, columns = np.indices(placed.shape)
    patch = 1.5 * max(width, height) / 16
    assert abs((rows * placed).sum() / placed.sum() - y) < patch
    assert abs((columns * placed).sum() / placed.sum() - x) < patch
    ends = on_picture(np.ones((4, 4), np.float32), width, height, shape)
    assert ends[height // 2, width // 2] == 1
    assert (ends[0, 0] == 0) == (mode == "crop" and (width != height or resize_px > 64))


def test_an_overlay_keeps_colours_where_it_counts_and_dims_the_rest():
    picture = np.full((80, 40, 3), (200, 40, 40), np.uint8)
    half = np.zeros((8, 8), np.float32)
    half[:4] = 1
    drawn = decode(overlay(picture, half, SEEN))
    assert drawn.shape == picture.shape
    np.testing.assert_allclose(drawn[10, 20], picture[10, 20], atol=12)
    assert drawn[70, 20].max() < 50
    assert max(decode(overlay(np.zeros((900, 300, 3), np.uint8), half, SEEN, 150)).shape) == 150


def test_explain_takes_images_of_any_kind(tmp_path):
    encoder = w2w.load_encoder(make("resnet-classifier", tmp_path / "model"))
    query, result = pictures(8, 2, 64)
    found = w2w.explain(encoder, query, result)
    assert found.exact
    assert found.cosine == pytest.approx(float(np.prod(encoder([query, result]), 0).sum()), abs=1e-4)
    assert [c.sum() for c in found.contributions] == pytest.approx([found.cosine] * 2, abs=1e-5)
    assert all(h.max() == 1 and h.min() >= 0 for h in found.heat)
    assert found.pairs.sum() == pytest.approx(found.cosine, abs=1e-5)
    assert [decode(jpeg).shape for jpeg in found.overlays(48)] == [(48, 48, 3)] * 2
    with pytest.raises(w2w.UsageError, match=r"images\[1\]"):
        w2w.explain(encoder, query, b"nothing")


@pytest.mark.parametrize("kind", ["pairs", "what2wear", "set"])
def test_pairs_of_an_outfit(kind):
    torch.manual_seed(0)
    network = make_scorer(6, 3, ScorerConfig(kind=kind, dim=4, hidden=8, heads=2)).eval()
    vectors = np.random.default_rng(0).normal(size=(2, 3, 6)).astype(np.float32)
    slots = np.int64([[0, 1, 2], [0, PAD, 2]])
    found = pair_scores(network, vectors, slots)
    assert (found.shape, found.dtype) == ((2, 3, 3), np.float32)
    np.testing.assert_array_equal(found, found.transpose(0, 2, 1))
    assert np.isnan(found[0]).tolist() == np.eye(3, dtype=bool).tolist()
    assert np.isnan(found[1]).sum() == 7
    with torch.no_grad():
        if kind == "set":
            two = network.scores(torch.from_numpy(vectors[:1, [1, 2]]), torch.tensor([[1, 2]]))
            assert found[0, 1, 2] == pytest.approx(float(two), abs=1e-5)
        else:
            cosines = network.similarities(torch.from_numpy(vectors), torch.from_numpy(slots))[0]
            assert found[0][np.triu_indices(3, 1)].tolist() == pytest.approx(cosines.tolist(), abs=1e-6)
