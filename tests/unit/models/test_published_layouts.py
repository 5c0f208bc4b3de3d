"""Published encoders: small checkpoints with the files and the names of tensors that the hub has, loaded and trained on."""

import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.unit.models.test_encoder import pictures, save
from tests.unit.models.test_saved import published
from tests.unit.training.encoders.test_recipe import SMALL, rows, run
from w2w.errors import UsageError
from w2w.models import sources
from w2w.models.config import EncoderConfig
from w2w.models.encoder import load_encoder
from w2w.stage import MODEL
from w2w.training.config import LoopConfig
from w2w.training.encoders.config import HeadConfig
from w2w.training.encoders.recipe import EncoderRecipe

TIMM = "vit_tiny_patch16_224"
# as in Marqo/marqo-fashionSigLIP, whose tower is vit_base_patch16_siglip_224
MARQO = {
    "model_cfg": {
        "embed_dim": 192,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {"image_size": 224, "timm_model_name": TIMM, "timm_model_pretrained": False}
        | {"timm_pool": "map", "timm_proj": "none"},
        "text_cfg": {"context_length": 64, "vocab_size": 32000, "width": 192, "heads": 3, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"},
}
WRAPPER = {"architectures": ["MarqoFashionSigLIP"], "model_type": "siglip"} | {
    "auto_map": {"AutoModel": "marqo_fashionSigLIP.MarqoFashionSigLIP"}
}


def fashion_clip(folder):
    """patrickjohncyh/fashion-clip: transformers' CLIPModel, with the buffers that older versions of it wrote."""
    from safetensors.torch import load_file, save_file

    model, _ = save(folder, "clip")
    weights = load_file(folder / "model.safetensors")
    for tower, count in (("text_model", 77), ("vision_model", 17)):
        weights[f"{tower}.embeddings.position_ids"] = torch.arange(count)[None]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "pytorch_model.bin").write_bytes(b"the same again")
    return lambda pixels: model.get_image_features(pixel_values=pixels)


def marqo(folder, file="open_clip_model.safetensors", config=MARQO):
    """Marqo/marqo-fashionSigLIP: open_clip's files, and those of the code that wraps it for transformers."""
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    trunk = timm.create_model(TIMM, num_classes=0, global_pool="map").eval()
    prefix = "model." if file == "model.safetensors" else ""
    weights = {f"{prefix}visual.trunk.{k}": v for k, v in trunk.state_dict().items()}
    weights |= {f"{prefix}logit_scale": torch.ones(()), f"{prefix}logit_bias": torch.ones(())}
    weights[f"{prefix}text.token_embedding.weight"] = torch.zeros(9, 4)
    folder.mkdir(exist_ok=True)
    if file.endswith(".bin"):
        torch.save(weights, folder / file)
    else:
        save_file(weights, folder / file)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps(WRAPPER))
    return trunk


def features(output) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output.pooler_output


LAYOUTS = {"fashion-clip": fashion_clip, "marqo-fashionSigLIP": marqo, "fashion-image-feature-extractor": published}


def test_the_small_checkpoints_have_the_published_names(tmp_path):
    from safetensors.torch import load_file

    for name, make in LAYOUTS.items():
        (tmp_path / name).mkdir()
        make(tmp_path / name)
    clip = load_file(tmp_path / "fashion-clip" / "model.safetensors")
    assert {
        *("logit_scale", "text_projection.weight", "visual_projection.weight", "vision_model.pre_layrnorm.weight"),
        *("vision_model.embeddings.patch_embedding.weight", "text_model.embeddings.position_ids"),
        "vision_model.encoder.layers.0.self_attn.q_proj.weight",
    } <= set(clip)
    tower = load_file(tmp_path / "marqo-fashionSigLIP" / "open_clip_model.safetensors")
    assert {"visual.trunk.pos_embed", "visual.trunk.attn_pool.latent", "visual.trunk.blocks.0.attn.qkv.weight"} <= set(tower)
    swin = load_file(tmp_path / "fashion-image-feature-extractor" / "model.safetensors")
    assert {"swin.embeddings.patch_embeddings.projection.weight", "embedding_layer.weight", "embedding_layer.bias"} <= set(swin)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_encoder_loads_and_is_trained_on(tmp_path, name):
    theirs = LAYOUTS[name](tmp_path / "theirs")
    config = EncoderConfig(name=str(tmp_path / "theirs"), engine="torch")
    encoder = load_encoder(config)
    batch = np.stack([encoder.prepare(p) for p in pictures(3)])
    mean, std = (np.array(v, np.float32) for v in (encoder.input.mean, encoder.input.std))
    with torch.no_grad():
        pixels = torch.from_numpy(((batch / 255 - mean) / std).astype(np.float32).transpose(0, 3, 1, 2))
        expected = torch.nn.functional.normalize(features(theirs(pixels)), dim=1).numpy()
    assert encoder.encode(batch) == pytest.approx(expected, abs=1e-4)

    source, examples = sources.find(config.name, None, False), rows(4)
    dim = 128 if name == "fashion-image-feature-extractor" else 8  # that one has its head already
    learn = replace(SMALL, batch_pairs=2, head=HeadConfig(dims=[dim]), negatives=0)
    loop = LoopConfig(steps=1, warmup_steps=0, measure_every=1, checkpoint_every=1)
    recipe = EncoderRecipe(learn, source, examples, examples, 0)
    before = {k: v.clone() for k, v in recipe.network.state_dict().items() if "backbone" in k}
    run(recipe, examples, learn, tmp_path / "run", loop)
    assert any(not torch.equal(v, before[k]) for k, v in recipe.network.state_dict().items() if k in before)
    (tmp_path / "theirs").rename(tmp_path / "gone")  # what was trained stands alone
    trained = load_encoder(EncoderConfig(name=str(tmp_path / "run" / "1" / MODEL), engine="torch"))
    assert (trained.dim, trained.input) == (dim, encoder.input)
    assert np.isfinite(trained.encode(batch)).all()


@pytest.mark.parametrize("file", ["model.safetensors", "open_clip_pytorch_model.bin"])
def test_the_other_files_of_open_clip_hold_the_same(tmp_path, file):
    marqo(tmp_path / "a")
    marqo(tmp_path / "b", file)
    first, second = (load_encoder(EncoderConfig(name=str(tmp_path / n), engine="torch")) for n in "ab")
    batch = np.stack([first.prepare(p) for p in pictures(2)])
    assert (first.encode(batch) == second.encode(batch)).all()
    assert (first.input.mode, first.input.size_px, first.input.mean) == ("squash", 224, (0.5, 0.5, 0.5))


def native(folder):
    """A tower of open_clip's own."""
    vision = {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 99, "width": 32, "heads": 1, "layers": 1}
    config = {"model_cfg": {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": {}}
    marqo(folder, config=config)
    return config


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="open_clip is not installed")
def test_a_tower_of_open_clips_own(tmp_path):
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = CLIP(**native(tmp_path)["model_cfg"]).eval()
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "open_clip_model.safetensors")
    encoder = load_encoder(EncoderConfig(name=str(tmp_path), engine="torch"))
    assert (encoder.dim, encoder.input.mode, encoder.input.size_px) == (24, "crop", 32)
    batch = np.stack([encoder.prepare(p) for p in pictures(2)])
    mean, std = (np.array(v, np.float32) for v in (encoder.input.mean, encoder.input.std))
    with torch.no_grad():
        pixels = torch.from_numpy(((batch / 255 - mean) / std).astype(np.float32).transpose(0, 3, 1, 2))
        expected = model.encode_image(pixels, normalize=True).numpy()
    assert encoder.encode(batch) == pytest.approx(expected, abs=1e-4)


def test_what_is_wrong_with_a_folder_of_open_clip_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    native(tmp_path)
    with pytest.raises(UsageError, match=r"needs the package open_clip: pip install 'w2w\[open_clip\]'"):
        sources.find(str(tmp_path), None, False)
    marqo(tmp_path, config=MARQO | {"preprocess_cfg": {"resize_mode": "longest"}})
    with pytest.raises(UsageError, match="size or filter that w2w does not know"):
        sources.find(str(tmp_path), None, False)
    other = json.loads(json.dumps(MARQO))
    other["model_cfg"]["vision_cfg"]["timm_model_name"] = "vit_small_patch16_224"
    marqo(tmp_path, config=other)
    with pytest.raises(UsageError, match=r"open_clip_model\.safetensors: \S+ is 384, and the network takes 768"):
        load_encoder(EncoderConfig(name=str(tmp_path), engine="torch"))
    (tmp_path / "open_clip_model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"none of open_clip_model\.safetensors"):
        sources.find(str(tmp_path), None, False)
