"""The part for colours: what counts as the garment, other light, every engine, models that were trained with it."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from tests.unit.models.layouts import make
from tests.unit.models.test_encoder import pictures
from tests.unit.models.test_explain import Patches, mean
from w2w.errors import UsageError
from w2w.images.resize import fit
from w2w.models import saved, sources
from w2w.models.colour import Colour, WithColour, load_colour
from w2w.models.config import COLOUR_DIM, LITE0, EncoderConfig, Input
from w2w.models.encoder import load_encoder, model_version
from w2w.models.explain import EXACT, Explainer
from w2w.models.network import Embedder, Head
from w2w.models.sources import Source
from w2w.models.text import load_words

SEEN = Input(64, 64, "pad", "bicubic", (0.48, 0.45, 0.40), (0.26, 0.25, 0.27))
WHITE, RED, BLUE, GREY = (255, 255, 255), (200, 30, 40), (30, 60, 190), (128, 128, 128)


def garment(colour, ground=WHITE, width=96, height=96, share=0.6) -> np.ndarray:
    """A rectangle with a little shading in the middle of a ground."""
    picture = np.full((height, width, 3), ground, np.float64)
    y, x = round(height * (1 - share) / 2), round(width * (1 - share) / 2)
    shade = np.linspace(0.85, 1.0, height - 2 * y)[:, None, None]
    picture[y : height - y, x : width - x] = np.array(colour) * shade
    return np.clip(picture, 0, 255).astype(np.uint8)


def colours(*images: np.ndarray, shape: Input = SEEN) -> np.ndarray:
    """Unit vectors of the pictures' colours, float32 (N, 64)."""
    seen = np.stack([fit(i, shape.size_px, shape.mode, shape.resample, shape.resize_px) for i in images])
    normal = (seen / 255 - np.array(shape.mean)) / np.array(shape.std)
    with torch.inference_mode():
        return load_colour(shape)(torch.from_numpy(normal).permute(0, 3, 1, 2).float()).numpy()


def test_colours_tell_garments_apart_and_not_how_they_lie():
    small, large, other = colours(garment(RED), garment(RED, share=0.8), garment(BLUE))
    assert small @ large > 0.97
    assert small @ other < 0.5
    assert np.linalg.norm(np.stack([small, large, other]), axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("ground", [WHITE, (90, 140, 80)])
@pytest.mark.parametrize(("width", "height"), [(96, 40), (40, 96)])
def test_padding_is_not_the_garments(ground, width, height):
    """White bars beside a narrow picture: the same colours as of a square one; on a ground they would count for white."""
    square, narrow = colours(garment(RED, ground), garment(RED, ground, width, height))
    assert square @ narrow > 0.95  # edges are softer in a small picture; .65 on a ground where padding counts
    unpadded = Input(64, 64, "squash", "bicubic", SEEN.mean, SEEN.std)
    assert square @ colours(garment(RED, ground, width, height), shape=unpadded)[0] > 0.97


def test_on_white_the_ground_does_not_count_and_elsewhere_the_middle_does():
    green = (40, 160, 60)
    grey, larger, on_green = colours(garment(GREY), garment(GREY, share=0.9), garment(GREY, green))
    assert grey @ larger > 0.8 > grey @ on_green + 0.1
    red, red_on_green, green_on_red = colours(garment(RED), garment(RED, green, share=0.7), garment(green, RED, share=0.7))
    assert red @ red_on_green > red @ green_on_red + 0.1


def test_other_light_is_put_right_by_the_white_that_is_there():
    light = np.array([0.9, 1.0, 0.94])
    for padded in ((96, 96), (96, 50)):  # .70 where it is not put right, .59 where padding passes for what is white
        lit, plain, other = (garment(c, WHITE, *padded) for c in (RED, RED, (215, 30, 75)))
        lit = (lit * light).astype(np.uint8)
        same, reference, near = colours(lit, plain, other)
        assert same @ reference > 0.92 > near @ reference + 0.3


def test_pictures_of_one_colour_have_a_vector():
    found = colours(*(np.full((30, 50, 3), value, np.uint8) for value in (0, 1, 128, 254, 255)))
    assert np.isfinite(found).all()
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert found[0] @ found[4] < 0.5


@pytest.mark.parametrize("side", [32, 224, 256, 384])
def test_networks_of_every_size_see_the_same_colours(side):
    image = pictures(1, (200, 160))[0]
    shape = Input(side, side, "pad", "bicubic", (0.5,) * 3, (0.5,) * 3)
    assert colours(image)[0] @ colours(image, shape=shape)[0] > 0.97


def test_the_models_own_part_is_what_it_was_and_engines_agree(cache):
    plain = load_encoder(EncoderConfig(LITE0))
    eager, fast = (load_encoder(EncoderConfig(LITE0, colour=0.7, engine=e)) for e in ("torch", "openvino"))
    batch = np.stack([eager.prepare(p) for p in [*pictures(4), garment(RED), garment(BLUE, GREY, 40, 96)]])
    own, found, again = plain.encode(batch), eager.encode(batch), fast.encode(batch)
    assert (eager.dim, fast.dim, found.shape) == (1344, 1344, (6, 1344))
    assert eager.model_version == fast.model_version != plain.model_version
    assert (found * again).sum(1).min() > 0.999
    np.testing.assert_allclose(found[:, -COLOUR_DIM:], again[:, -COLOUR_DIM:], atol=2e-3)
    length = np.hypot(1, 0.7)
    np.testing.assert_allclose(found[:, :1280] * length, own, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(found[:, 1280:], axis=1), 0.7 / length, atol=1e-4)


def test_the_weight_and_the_projection_are_of_the_version_and_0_is_without():
    seen = {w: model_version(EncoderConfig(LITE0, colour=w)) for w in (0.0, 0.5, 0.7)}
    assert len(set(seen.values())) == 3
    assert seen[0.0] == model_version(EncoderConfig(LITE0))
    source = sources.of(EncoderConfig(LITE0))
    assert (source.architecture, len(source.files), source.parts) == ("tf_efficientnet_lite0", 1, ())


@pytest.mark.parametrize("weight", [-0.1, 11, float("nan"), float("inf")])
def test_weights_that_are_none(weight):
    with pytest.raises(UsageError, match=r"encoder\.colour="):
        EncoderConfig(colour=weight)


def test_what_alikeness_is_made_of_is_exact_with_colours():
    torch.manual_seed(3)
    shape = Input(32, 32, "squash", "bilinear", (0.5,) * 3, (0.5,) * 3)
    network = WithColour(Patches(mean), load_colour(shape), 0.7)
    query, result = np.stack(pictures(2, (32, 32)))
    for one in (network, Embedder(network, Head([12 + COLOUR_DIM, 6]), True)):
        (found,) = Explainer(Source("test", shape, (), lambda one=one: one), EncoderConfig(device="cpu"))(query, [result])
        assert (found.exact, found.method) == (True, EXACT)
        assert found.query.sum() == pytest.approx(found.cosine, abs=1e-5)
        assert found.pairs.sum() == pytest.approx(found.cosine, abs=1e-5)


def test_heat_lies_on_the_colour_that_two_pictures_share():
    shape = Input(32, 32, "squash", "bilinear", (0.5,) * 3, (0.5,) * 3)
    torch.manual_seed(0)
    network = WithColour(Patches(mean), load_colour(shape), 9.0)
    query, result = np.full((2, 32, 32, 3), 255, np.uint8)
    query[:, :16], query[:, 16:], result[8:24, 8:24] = BLUE, RED, RED
    (found,) = Explainer(Source("test", shape, (), lambda: network), EncoderConfig(device="cpu"))(query, [result])
    assert found.query[:, 2:].sum() > found.query[:, :2].sum() + 0.2


@pytest.mark.parametrize("kind", ["vit-classifier", "clip", "timm-file"])
def test_models_trained_with_colours_are_saved_and_load(tmp_path, kind):
    config = EncoderConfig(make(kind, tmp_path / "start"), colour=0.7, device="cpu", engine="torch")
    source = sources.of(config)
    dim = load_encoder(config).dim
    torch.manual_seed(1)
    network = Embedder(source.network(), Head([dim, 5]), True).eval()
    blueprint = {"library": "w2w", "backbone": source.blueprint, "head": [dim, 5], "normalised": True}
    saved.save(tmp_path / "out", copy.deepcopy(network), blueprint, source.input, "")
    encoder = load_encoder(EncoderConfig(str(tmp_path / "out"), device="cpu", engine="torch"))
    side = encoder.input.size_px
    batch = np.stack(pictures(3, (side, side)))
    normal = (batch / 255 - np.array(source.input.mean)) / np.array(source.input.std)
    with torch.inference_mode():
        expected = normalize(network(torch.from_numpy(normal).permute(0, 3, 1, 2).float()), dim=1).numpy()
    np.testing.assert_allclose(encoder.encode(batch), expected, atol=1e-4)
    again = sources.of(EncoderConfig(str(tmp_path / "out"))).network().backbone.colour
    assert torch.equal(again.projection, load_colour(source.input).projection)


def test_nothing_of_the_colours_learns():
    assert not list(Colour().parameters())


def test_words_are_compared_with_the_models_own_part(monkeypatch):
    monkeypatch.setattr("w2w.models.text._features", lambda config, option: lambda text: np.float32([3, 4]))
    assert load_words(EncoderConfig())("a red dress").tolist() == pytest.approx([0.6, 0.8])
    assert load_words(EncoderConfig(colour=0.7))("a red dress").tolist() == pytest.approx([0.6, 0.8, *[0] * COLOUR_DIM])
