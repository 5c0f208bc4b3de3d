"""Encoders with a trained head: written and read back, and the published Swin layout."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.models.test_encoder import pictures, save
from w2w.errors import UsageError
from w2w.models import saved, sources
from w2w.models.config import EncoderConfig, Input
from w2w.models.encoder import load_encoder, model_version
from w2w.models.network import Embedder, Head, build, feature_dim


def embedder(source, dims, normalised=True) -> tuple[Embedder, dict]:
    """The source's backbone under a head, and the blueprint of both."""
    torch.manual_seed(3)
    backbone = source.network()
    dims = [feature_dim(backbone, source.input.size_px), *dims]
    blueprint = {"library": "w2w", "backbone": source.blueprint, "head": dims, "normalised": normalised}
    return Embedder(backbone, Head(dims), normalised).eval(), blueprint


@pytest.mark.parametrize("kind", ["default", "vit", "dinov2", "clip", "siglip"])
def test_written_and_read_back_it_gives_the_same_vectors(tmp_path, kind):
    name = "efficientnet-lite0"
    if kind != "default":
        name = str(tmp_path / "base")
        save(name, kind)
    source = sources.find(name, None, False)
    network, blueprint = embedder(source, [16, 8])
    saved.save(tmp_path / "mine", network, blueprint, source.input, "# card")
    config = EncoderConfig(name=str(tmp_path / "mine"), engine="torch")
    encoder = load_encoder(config)
    assert encoder.input == source.input
    batch = np.stack([encoder.prepare(p) for p in pictures(3)])
    mean, std = (np.array(v, np.float32) for v in (source.input.mean, source.input.std))
    with torch.inference_mode():
        expected = network(torch.from_numpy(((batch / 255 - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)))
    assert encoder.encode(batch) == pytest.approx(expected.numpy(), abs=1e-4)
    assert {p.name for p in (tmp_path / "mine").iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "README.md",
    }
    assert not any("text_model" in k for k in network.state_dict())
    (tmp_path / "mine").rename(tmp_path / "moved")
    assert model_version(EncoderConfig(name=str(tmp_path / "moved"))) == encoder.model_version


class ImageEncoder(nn.Module):
    """As on the card of yainage90/fashion-image-feature-extractor."""

    def __init__(self, swin):
        super().__init__()
        self.swin = swin
        self.embedding_layer = nn.Linear(swin.config.hidden_size, 128)

    def forward(self, image_tensor):
        return nn.functional.normalize(self.embedding_layer(self.swin(image_tensor).pooler_output), p=2, dim=1)


def published(folder):
    """A tiny checkpoint with the published names."""
    from safetensors.torch import load_file, save_file

    swin, _ = save(folder, "swin")
    torch.manual_seed(5)
    model = ImageEncoder(swin).eval()
    names = load_file(folder / "model.safetensors")  # as transformers writes them: its networks have others today
    head = {k: v for k, v in model.state_dict().items() if k.startswith("embedding_layer")}
    save_file({f"swin.{k}": v for k, v in names.items()} | head, folder / "model.safetensors", {"format": "pt"})
    return model


def test_the_published_swin_is_seen_and_computed_as_its_card_says(tmp_path):
    from PIL import Image
    from torchvision.transforms import v2

    model = published(tmp_path)
    encoder = load_encoder(EncoderConfig(name=str(tmp_path)))
    assert (encoder.dim, encoder.input.mode, encoder.input.resample) == (128, "squash", "bilinear")
    transform = v2.Compose(
        [
            v2.Resize((32, 32)),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean=encoder.input.mean, std=encoder.input.std),
        ]
    )
    images = pictures(4)
    with torch.no_grad():
        expected = model(torch.stack([transform(Image.fromarray(i)) for i in images])).numpy()
    got = encoder.encode(np.stack([encoder.prepare(i) for i in images]))
    assert (got * expected).sum(1).min() > 0.9999


def test_what_is_trained_on_a_swin_keeps_the_published_names(tmp_path):
    from safetensors.torch import load_file

    published(tmp_path / "theirs")
    source = sources.find(str(tmp_path / "theirs"), None, False)
    saved.save(tmp_path / "ours", source.network(), source.blueprint, source.input, "# card")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    assert "swin.encoder.layers.0.blocks.0.attention.self.query.weight" in theirs
    named = {k for k in theirs if not k.endswith("relative_position_index")}
    assert named == {k for k in ours if not k.endswith("relative_position_index")}
    assert all(torch.equal(ours[k], theirs[k]) for k in named)
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["model_type"] == "swin"
    again = load_encoder(EncoderConfig(name=str(tmp_path / "ours")))
    assert again.dim == 128
    assert again.input == source.input


def test_a_plain_swin_has_no_head(tmp_path):
    save(tmp_path, "swin")
    source = sources.find(str(tmp_path), None, False)
    assert source.blueprint["library"] == "transformers"
    assert source.input.resample == "bicubic"


def test_weights_of_another_config_are_refused(tmp_path):
    source = sources.find("efficientnet-lite0", None, False)
    network, blueprint = embedder(source, [8])
    saved.save(tmp_path, network, blueprint, source.input, "")
    config = json.loads((tmp_path / "config.json").read_text())
    without_head = {k: v for k, v in config.items() if k != "head"}
    for wrong, said in (
        (config | {"head": [1280, 8, 8]}, r"model\.safetensors lacks 'head\.2"),
        (config | {"head": [1280, 9]}, r"model\.safetensors: head\.0\.\w+ is 8.*takes 9"),
        (without_head, r"config\.json lacks 'head'"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(wrong))
        with pytest.raises(UsageError, match=said):
            load_encoder(EncoderConfig(name=str(tmp_path), engine="torch"))
    with pytest.raises(UsageError, match="not of 'keras'"):
        build({"library": "keras"})


def test_a_linear_head_starts_as_the_principal_components():
    features = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([5.0, 3, 1, 0.1, 0.1, 0.1]) + 2
    head = Head([6, 3])
    head.start_from(features)
    projected = head(features)
    assert projected.mean(0).abs().max() < 1e-4
    variances = projected.var(0)
    assert variances.sum() > 0.99 * features.var(0).sum()
    assert (variances.diff() < 0).all()
    shape = Input(32, 32, "squash", "bilinear", (0.5,) * 3, (0.5,) * 3)
    assert not saved.as_swin({"backbone": {"library": "timm"}, "head": [6, 3], "normalised": False}, shape)
