"""w2w-fashion: parts that stay apart, engines that agree, a search that weighs them exactly."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from tests.unit.models.test_colour import BLUE, RED, garment
from tests.unit.models.test_encoder import pictures
from w2w.errors import UsageError
from w2w.models import saved, sources
from w2w.models.colour import bare
from w2w.models.config import COLOUR_DIM, FASHION, KIND_DIM, LITE0, SHAPE_DIM, EncoderConfig
from w2w.models.encoder import load_encoder, model_version, try_encoder
from w2w.models.explain import EXACT, load_explainer
from w2w.models.network import Embedder, Head
from w2w.training.encoders.recipe import _keep_few_activations

pytestmark = pytest.mark.usefixtures("cache")

CONFIG = EncoderConfig(FASHION, device="cpu")
ENDS = np.cumsum([SHAPE_DIM, KIND_DIM, COLOUR_DIM])


@pytest.fixture(scope="module")
def seen() -> np.ndarray:
    images = [*pictures(4), garment(RED), garment(BLUE), garment(RED, share=0.3)]
    encoder = load_encoder(CONFIG)
    return np.stack([encoder.prepare(i) for i in images])


def parts_of(vectors_ND: np.ndarray) -> list[np.ndarray]:
    return np.split(vectors_ND, ENDS[:-1], axis=1)


def test_engines_agree_on_256_dimensions_in_parts_of_fixed_lengths(seen):
    eager, fast = (load_encoder(EncoderConfig(FASHION, engine=e, device="cpu")) for e in ("torch", "openvino"))
    found, again = eager.encode(seen), fast.encode(seen)
    assert found.shape == (7, 256) == (7, ENDS[-1])
    assert eager.model_version == fast.model_version == model_version(CONFIG)
    assert (found * again).sum(1).min() > 0.999
    for a, b in zip(parts_of(found), parts_of(again)):
        lengths = np.linalg.norm(a, axis=1)
        np.testing.assert_allclose(lengths, lengths[0], atol=1e-4)
        assert ((a * b).sum(1) / lengths**2).min() > 0.999
    assert sum(np.linalg.norm(p[0]) ** 2 for p in parts_of(found)) == pytest.approx(1, abs=1e-5)


def test_parts_see_what_they_are_called_after():
    encoder = load_encoder(CONFIG)
    red, blue, other = encoder.encode(np.stack([encoder.prepare(i) for i in (garment(RED), garment(BLUE), pictures(1)[0])]))
    of_red, of_blue, of_other = (parts_of(v[None]) for v in (red, blue, other))
    shape, _, colour = (float((a @ b.T).item() / (a @ a.T).item()) for a, b in zip(of_red, of_blue))
    assert colour < 0.5 < shape
    assert float((of_red[0] @ of_other[0].T).item() / (of_red[0] @ of_red[0].T).item()) < shape


def test_its_last_stages_are_its_own_and_the_rest_those_of_efficientnet_lite0():
    own, start = bare(sources.of(CONFIG).network()).backbone, sources.of(EncoderConfig(LITE0)).network()
    changed = {name for name, value in start.state_dict().items() if not torch.equal(value, own.state_dict()[name])}
    assert changed == {
        name for name, _ in start.named_parameters() if name.startswith(("blocks.5", "blocks.6", "conv_head", "bn2"))
    }


def test_its_parts_are_told_and_it_takes_no_second_colours():
    assert sources.of(CONFIG).parts == (("shape", 160), ("kind", 32), ("colour", 64))
    with pytest.raises(UsageError, match=r"encoder\.colour=0\.5: w2w-fashion has a part for colours by itself"):
        load_encoder(EncoderConfig(FASHION, colour=0.5))


def test_the_sum_over_patches_is_its_cosine(seen):
    vectors = load_encoder(CONFIG).encode(seen)
    for result, found in zip(seen[1:], load_explainer(CONFIG)(seen[0], list(seen[1:3])), strict=False):
        assert (found.exact, found.method) == (True, EXACT)
        assert found.query.sum() == pytest.approx(found.cosine, abs=1e-4)
        place = next(i for i, s in enumerate(seen) if s is result or np.array_equal(s, result))
        assert found.cosine == pytest.approx(float(vectors[0] @ vectors[place]), abs=2e-3)


def test_what_is_trained_on_it_is_saved_and_loads(tmp_path, seen):
    source = sources.of(CONFIG)
    torch.manual_seed(0)
    network = Embedder(source.network(), Head([256, 7]), True).eval()
    blueprint = {"library": "w2w", "backbone": source.blueprint, "head": [256, 7], "normalised": True}
    saved.save(tmp_path / "out", network, blueprint, source.input, "")
    encoder = load_encoder(EncoderConfig(str(tmp_path / "out"), device="cpu"))
    with torch.inference_mode():
        expected = normalize(network(torch.from_numpy(seen).permute(0, 3, 1, 2).float() / 127.5 - 1), dim=1).numpy()
    assert (encoder.encode(seen) * expected).sum(1).min() > 0.999
    assert sources.of(EncoderConfig(str(tmp_path / "out"))).convolutional


def test_files_that_are_others_are_said(monkeypatch, tmp_path):
    data = bytearray(sources.FASHION_FILE.read_bytes())
    (tmp_path / "fashion.json").write_bytes(sources.FASHION_FILE.with_suffix(".json").read_bytes())
    broken = tmp_path / "fashion.safetensors"
    monkeypatch.setattr(sources, "FASHION_FILE", broken)
    before = model_version(EncoderConfig(LITE0))
    broken.write_bytes(data)
    same = model_version(CONFIG)
    data[-1] ^= 1
    broken.write_bytes(data)
    assert model_version(CONFIG) != same
    assert model_version(EncoderConfig(LITE0)) == before
    broken.write_bytes(data[: len(data) // 2])
    with pytest.raises(UsageError, match=r"encoder\.name=w2w-fashion: .*fashion\.safetensors"):
        load_encoder(CONFIG)


def test_it_is_among_the_names():
    with pytest.raises(UsageError, match="w2w-fashion"):
        try_encoder(EncoderConfig("w2w-fashio"))


def test_its_training_cannot_keep_few_activations():
    backbone = bare(sources.of(CONFIG).network())
    with pytest.raises(UsageError, match=r"learn\.checkpointing: not supported by this backbone: leave it off"):
        _keep_few_activations(backbone)
