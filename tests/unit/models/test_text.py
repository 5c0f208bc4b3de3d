"""Words in the space of the images: what the text tower gives is what its library gives."""

import importlib.util
import json

import numpy as np
import pytest
import torch

from tests.unit.models.test_encoder import save
from w2w.errors import UsageError
from w2w.models.config import EncoderConfig
from w2w.models.encoder import load_encoder
from w2w.models.text import embed_words

WORDS = ["<pad>", "<unk>", "<end>", "red", "blue", "striped", "dress", "shoes"]


def tokenizer(folder, inputs=("input_ids", "attention_mask")):
    """A word a token, as the hub's tokenizers are stored."""
    import transformers as t

    text, end = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<end>", "type_id": 0}}
    known = {"<end>": {"id": "<end>", "ids": [2], "tokens": ["<end>"]}}
    template = {"type": "TemplateProcessing", "single": [text, end], "pair": [text, end], "special_tokens": known}
    words = {"type": "WordLevel", "vocab": {w: i for i, w in enumerate(WORDS)}, "unk_token": "<unk>"}
    whole = dict.fromkeys(["truncation", "padding", "normalizer", "decoder"]) | {"version": "1.0", "added_tokens": []}
    whole |= {"pre_tokenizer": {"type": "Whitespace"}, "post_processor": template, "model": words}
    (folder / "words.json").write_text(json.dumps(whole))
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "<end>"}
    made = t.PreTrainedTokenizerFast(tokenizer_file=str(folder / "words.json"), model_input_names=list(inputs), **special)
    made.save_pretrained(folder)
    return made


@pytest.mark.parametrize(("kind", "inputs"), [("clip", ("input_ids", "attention_mask")), ("siglip", ("input_ids",))])
def test_words_are_what_the_checkpoint_makes_of_them(tmp_path, kind, inputs):
    model, _ = save(tmp_path, kind)
    words = tokenizer(tmp_path, inputs)
    longest = model.config.text_config.max_position_embeddings
    ids = [WORDS.index(w) for w in ("red", "striped", "dress")] + [2]
    padded = torch.tensor([ids + [0] * (longest - len(ids))])
    with torch.inference_mode():
        found = model.get_text_features(padded, attention_mask=(padded > 0).long() if len(inputs) > 1 else None)
    found = (found if isinstance(found, torch.Tensor) else found.pooler_output)[0].numpy()
    config = EncoderConfig(name=str(tmp_path))
    vector_D = embed_words(config, "red striped dress")
    np.testing.assert_allclose(vector_D, found / np.linalg.norm(found), atol=1e-5)
    assert vector_D.shape == (load_encoder(config).dim,)
    assert not np.allclose(vector_D, embed_words(config, "blue shoes"), atol=1e-3)
    assert len(words("red " * 500)["input_ids"]) > longest
    assert np.isfinite(embed_words(config, "red " * 500)).all()  # cut at the tower's length
    half = embed_words(EncoderConfig(name=str(tmp_path), store_dtype="float16"), "red")
    np.testing.assert_array_equal(half, half.astype(np.float16))


def test_without_a_text_tower_those_that_have_one_are_named(tmp_path):
    save(tmp_path, "vit")
    for name in ("efficientnet-lite0", str(tmp_path), "timm:resnet18"):
        with pytest.raises(UsageError, match=r"has no text tower\. These have one: hf:openai/clip-vit-base-patch32, hf:google"):
            embed_words(EncoderConfig(name=name), "red dress")


def test_what_is_wrong_is_told(tmp_path):
    model, _ = save(tmp_path, "clip")
    config = EncoderConfig(name=str(tmp_path))
    with pytest.raises(UsageError, match="has no vocabulary for its text tower: none of tokenizer"):
        embed_words(config, "red")  # no tokenizer
    tokenizer(tmp_path)
    from safetensors.torch import save_file

    tensors = {k: v for k, v in model.state_dict().items() if not k.startswith("text_model.encoder.layers.1")}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match=r"lacks 'text_model\.encoder\.layers\.1.* which the network computes with"):
        embed_words(config, "red")


def open_clip_folder(folder):
    """As open_clip's push_to_hf_hub writes it, with towers of its own."""
    import open_clip
    from safetensors.torch import save_file

    vision = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16}
    text = {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    torch.manual_seed(0)
    model = open_clip.CLIP(**config).eval()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return model


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="the extra open_clip is not installed")
def test_words_of_open_clip(tmp_path):
    import open_clip

    model, config = open_clip_folder(tmp_path), EncoderConfig(name=str(tmp_path))
    with torch.inference_mode():
        found = model.encode_text(open_clip.SimpleTokenizer(context_length=12)(["red striped dress"]))[0].numpy()
    np.testing.assert_allclose(embed_words(config, "red striped dress"), found / np.linalg.norm(found), atol=1e-5)
    assert load_encoder(config).dim == 24
    (tmp_path / "open_clip_model.safetensors").unlink()
    with pytest.raises(UsageError, match="--text: encoder"):
        embed_words(config, "red")


def test_a_text_tower_from_elsewhere_is_not_fetched(tmp_path):
    found = {"model_cfg": {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {"hf_model_name": "some/where"}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(found))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="lies outside its folder"):
        embed_words(EncoderConfig(name=str(tmp_path)), "red")
