"""Small checkpoints of every kind that README's table of models names, with the files and tensors that the hub has."""

import json

import torch
import transformers as t

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
PATCHES = {**TINY, "image_size": 32, "patch_size": 8}
TIMM = "test_vit"  # of timm's smallest, 160 px


def _head(folder, model, processor=None):
    model.eval().save_pretrained(folder)
    (processor or t.ViTImageProcessor(size={"height": 32, "width": 32})).save_pretrained(folder)
    return model


def _vit(folder):
    return _head(folder, t.ViTModel(t.ViTConfig(**PATCHES)))


def _vit_classifier(folder):
    """As google/vit-base-patch16-224 and the ViTs of DINO: no pooler."""
    return _head(folder, t.ViTForImageClassification(t.ViTConfig(**PATCHES, num_labels=5)))


def _deit(folder):
    return _head(folder, t.DeiTForImageClassificationWithTeacher(t.DeiTConfig(**PATCHES, num_labels=5)))


def _mae(folder):
    config = t.ViTMAEConfig(
        **PATCHES,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    return _head(folder, t.ViTMAEForPreTraining(config))


def _beit(folder):
    config = t.BeitConfig(**PATCHES, use_relative_position_bias=True, num_labels=5, out_indices=[1])
    return _head(folder, t.BeitForImageClassification(config))


def _dinov2(folder):
    tiny = {k: TINY[k] for k in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    return _head(folder, t.Dinov2Model(t.Dinov2Config(**tiny, image_size=32, patch_size=8)))


def _dinov2_classifier(folder):
    tiny = {k: TINY[k] for k in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    return _head(folder, t.Dinov2ForImageClassification(t.Dinov2Config(**tiny, image_size=32, patch_size=8, num_labels=5)))


def _swin(folder):
    config = t.SwinConfig(image_size=32, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4)
    return _head(folder, t.SwinForImageClassification(config))


def _convnext(folder):
    return _head(folder, t.ConvNextForImageClassification(t.ConvNextConfig(hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1])))


def _resnet(folder):
    config = t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=5)
    return _head(folder, t.ResNetForImageClassification(config))


def _clip_config(kind="CLIP"):
    vision, text = getattr(t, f"{kind}VisionConfig")(**PATCHES), getattr(t, f"{kind}TextConfig")(**TINY, vocab_size=99)
    more = {"projection_dim": 24} if kind == "CLIP" else {}
    return getattr(t, f"{kind}Config")(text_config=text.to_dict(), vision_config=vision.to_dict(), **more)


def _clip(folder):
    return _head(folder, t.CLIPModel(_clip_config()))


def _clip_vision(folder):
    return _head(folder, t.CLIPVisionModel(t.CLIPVisionConfig(**PATCHES)))


def _siglip(folder):
    return _head(folder, t.SiglipModel(_clip_config("Siglip")))


def _sharded(folder):
    model = _vit_classifier(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="30KB")
    assert (folder / "model.safetensors.index.json").is_file()
    return model


def _half(folder):
    return _head(folder, t.ViTModel(t.ViTConfig(**PATCHES)).to(torch.bfloat16))


def _pickle(folder):
    from safetensors.torch import load_file

    model = _vit_classifier(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return model


def _timm_wrapper(folder):
    return _head(
        folder, t.TimmWrapperForImageClassification(t.TimmWrapperConfig.from_dict({"architecture": TIMM, "num_classes": 5}))
    )


def _open_clip(folder):
    import timm
    from safetensors.torch import save_file

    trunk = timm.create_model(TIMM, num_classes=0, global_pool="map")
    vision = {"image_size": 160, "timm_model_name": TIMM, "timm_pool": "map", "timm_proj": "none"}
    config = {"model_cfg": {"embed_dim": 64, "vision_cfg": vision, "text_cfg": {}}, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    tensors = {f"visual.trunk.{k}": v.contiguous() for k, v in trunk.state_dict().items()}
    save_file(tensors | {"logit_scale": torch.ones(()), "text.x": torch.ones(3)}, folder / "open_clip_model.safetensors")


def _timm_file(folder):
    import timm
    from safetensors.torch import save_file

    save_file(timm.create_model(TIMM).state_dict(), folder / "model.safetensors")


def _ours(folder):
    from w2w.models import saved, sources
    from w2w.models.network import Embedder, Head

    _vit_classifier(folder)
    source = sources.find(str(folder), None, False)
    blueprint = {"library": "w2w", "backbone": source.blueprint, "head": [32, 6], "normalised": True}
    saved.save(folder, Embedder(source.network(), Head([32, 6]), True), blueprint, source.input, "")


def _published_swin(folder):
    from safetensors.torch import load_file, save_file

    config = t.SwinConfig(image_size=32, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4)
    _head(folder, t.SwinModel(config))
    tensors = {f"swin.{k}": v for k, v in load_file(folder / "model.safetensors").items()}
    tensors |= {"embedding_layer.weight": torch.randn(12, 16), "embedding_layer.bias": torch.randn(12)}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


MAKERS = {
    "vit": _vit,
    "vit-classifier": _vit_classifier,
    "deit-distilled": _deit,
    "mae": _mae,
    "beit-classifier": _beit,
    "dinov2": _dinov2,
    "dinov2-classifier": _dinov2_classifier,
    "swin-classifier": _swin,
    "convnext-classifier": _convnext,
    "resnet-classifier": _resnet,
    "clip": _clip,
    "clip-vision": _clip_vision,
    "siglip": _siglip,
    "sharded": _sharded,
    "bfloat16": _half,
    "pickle": _pickle,
    "timm-wrapper": _timm_wrapper,
    "open_clip": _open_clip,
    "timm-file": _timm_file,
    "ours": _ours,
    "published-swin": _published_swin,
}


def make(name: str, folder) -> str:
    """Writes the checkpoint, with random weights of a fixed seed; returns what ``encoder.name`` is to be."""
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    MAKERS[name](folder)
    return f"timm:{TIMM}@{folder}/model.safetensors" if name == "timm-file" else str(folder)
