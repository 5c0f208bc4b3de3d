"""Encoders: every source and engine, against the model's own code; versions; sentences for mistakes."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from w2w.config import build, parse
from w2w.errors import UsageError
from w2w.models.config import DEFAULT, FASHION, LITE0, EncoderConfig
from w2w.models.encoder import encoder_input, finite_rows, following, load_encoder, model_version, spaces
from w2w.models.job import Config
from w2w.models.parts import part_weights
from w2w.models.text import load_words
from w2w.table import bridges


def pictures(num: int, size: tuple[int, int] = (90, 70)) -> list[np.ndarray]:
    """Smooth colour fields, as photos are: no two alike."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (num, 6, 5, 3), np.uint8)
    return [np.asarray(Image.fromarray(s).resize(size[::-1], Image.Resampling.BICUBIC)) for s in small]


@pytest.mark.parametrize(("name", "dim"), [(LITE0, 1280), (FASHION, 256)])
def test_what_comes_with_w2w_agrees_between_engines(cache, name, dim):
    eager, fast = (load_encoder(EncoderConfig(name, engine=e)) for e in ("torch", "openvino"))
    batch = np.stack([eager.prepare(p) for p in pictures(5)])
    a_ND, b_ND = eager.encode(batch), fast.encode(batch)
    assert a_ND.shape == (5, dim)
    assert np.linalg.norm(a_ND, axis=1) == pytest.approx(1, abs=1e-5)
    assert (a_ND * b_ND).sum(1).min() > 0.999
    assert np.abs(np.triu(a_ND @ a_ND.T, 1)).max() < 0.99
    assert eager.model_version == fast.model_version == model_version(EncoderConfig(name))


@pytest.mark.parametrize("name", [LITE0, FASHION])
def test_what_comes_with_w2w_has_its_weights(cache, name):
    golden = json.loads((Path(__file__).parents[2] / "golden" / "encoder.json").read_text())[name]
    encoder = load_encoder(EncoderConfig(name))
    vectors_ND = encoder.encode(np.stack([encoder.prepare(p) for p in pictures(3)]))
    assert vectors_ND[:, golden["dimensions"]] == pytest.approx(np.array(golden["values"]), abs=2e-3)


def test_float16_vectors_are_float16_values(cache):
    encoder = load_encoder(EncoderConfig(store_dtype="float16"))
    vectors_ND = encoder.encode(np.stack([encoder.prepare(p) for p in pictures(2)]))
    assert (vectors_ND == vectors_ND.astype(np.float16)).all()
    assert encoder.model_version != model_version(EncoderConfig())


def test_whether_the_options_name_it(tmp_path, capsys):
    """As job configs carry it, however they were made; a printed config names it no more than the options did."""
    for config, named in (
        (build(Config, {"store": "S"}, "w2w embed"), False),
        (build(Config, {"store": "S", "encoder": {"threads": 2}}, "w2w embed"), False),
        (build(Config, {"store": "S", "encoder": {"name": DEFAULT}}, "w2w embed"), True),
        (build(Config, {"store": "S", "encoder": EncoderConfig(threads=2)}, "w2w embed"), False),
        (parse(Config, ["S", "--encoder.threads=2"], "w2w embed"), False),
        (parse(Config, ["S", "--encoder.name=auto"], "w2w embed"), False),
        (parse(Config, ["S", f"--encoder.name={DEFAULT}"], "w2w embed"), True),
    ):
        encoder = config.encoder
        assert (encoder.name, encoder.is_named) == (DEFAULT, named)
        for same in (pickle.loads(pickle.dumps(encoder)), replace(encoder, dtype="bfloat16")):
            assert same.is_named == named
    assert EncoderConfig() == EncoderConfig(DEFAULT)
    for options, named in ([], False), ([f"--encoder.name={DEFAULT}"], True):
        with pytest.raises(SystemExit):
            parse(Config, ["S", *options, "--print_config"], "w2w embed")
        (tmp_path / "c.yaml").write_text(capsys.readouterr().out)
        assert parse(Config, [f"--config={tmp_path / 'c.yaml'}"], "w2w embed").encoder.is_named == named


def save(folder, kind: str):
    """A tiny model of a real architecture, with its processor, in the hub's layout."""
    import transformers as t

    torch.manual_seed(0)
    tiny = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    mean = [0.48, 0.45, 0.40], [0.26, 0.25, 0.27]
    if kind == "vit":
        model = t.ViTModel(t.ViTConfig(**tiny, image_size=32, patch_size=8))
        processor = t.ViTImageProcessor(size={"height": 32, "width": 32})
    elif kind == "dinov2":
        model = t.Dinov2Model(
            t.Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
        )
        processor = t.BitImageProcessor(
            size={"shortest_edge": 36}, crop_size={"height": 28, "width": 28}, image_mean=mean[0], image_std=mean[1]
        )
    elif kind == "swin":
        model = t.SwinModel(
            t.SwinConfig(image_size=32, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4)
        )
        processor = t.ViTImageProcessor(size={"height": 32, "width": 32}, resample=3)
    elif kind == "clip":
        vision, text = t.CLIPVisionConfig(**tiny, image_size=32, patch_size=8), t.CLIPTextConfig(**tiny, vocab_size=99)
        model = t.CLIPModel(t.CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=24))
        processor = t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    else:
        vision, text = t.SiglipVisionConfig(**tiny, image_size=32, patch_size=8), t.SiglipTextConfig(**tiny, vocab_size=99)
        model = t.SiglipModel(t.SiglipConfig(text_config=text.to_dict(), vision_config=vision.to_dict()))
        processor = t.SiglipImageProcessor(size={"height": 32, "width": 32})
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return model.eval(), processor


@pytest.mark.parametrize("kind", ["vit", "dinov2", "swin", "clip", "siglip"])
def test_transformers_models_see_what_their_processor_shows(tmp_path, kind):
    model, processor = save(tmp_path, kind)
    encoder = load_encoder(EncoderConfig(name=str(tmp_path)))
    images = pictures(4)
    values = torch.cat([torch.as_tensor(np.array(processor(Image.fromarray(i))["pixel_values"])) for i in images])
    with torch.inference_mode():
        if kind in ("clip", "siglip"):
            out = model.get_image_features(pixel_values=values)
            expected = out if isinstance(out, torch.Tensor) else out.pooler_output
        else:
            expected = model(pixel_values=values).pooler_output.flatten(1)
    expected = torch.nn.functional.normalize(expected, dim=1).numpy()
    prepared = np.stack([encoder.prepare(i) for i in images])
    mean, std = (np.array(v) for v in (encoder.input.mean, encoder.input.std))
    ours = ((prepared / 255 - mean) / std).transpose(0, 3, 1, 2)
    assert np.abs(ours - values.numpy()).max() < 0.1  # of values in about [-2, 2]: rounding of uint8 and of resampling
    got = encoder.encode(prepared)
    assert got.shape == expected.shape
    assert (got * expected).sum(1).min() > 0.999


def test_timm_checkpoint(tmp_path, cache):
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model("mobilenetv3_small_050", pretrained=False).eval()
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    name = f"timm:mobilenetv3_small_050@{tmp_path}/m.safetensors"
    encoder = load_encoder(EncoderConfig(name=name, engine="torch"))
    assert (encoder.input.size_px, encoder.input.resize_px, encoder.input.mode) == (224, 256, "crop")
    vectors_ND = encoder.encode(np.stack([encoder.prepare(p) for p in pictures(2)]))
    assert finite_rows(vectors_ND).all()
    fast = load_encoder(EncoderConfig(name=name, engine="openvino"))
    assert (vectors_ND * fast.encode(np.stack([fast.prepare(p) for p in pictures(2)]))).sum(1).min() > 0.999


def test_version_follows_weights_and_not_how_it_runs(tmp_path):
    save(tmp_path, "vit")
    config = EncoderConfig(name=str(tmp_path))
    before = model_version(config)
    assert before == model_version(EncoderConfig(name=str(tmp_path), threads=2, engine="torch", device="cpu"))
    assert before != model_version(EncoderConfig(name=str(tmp_path), dtype="bfloat16"))
    weights = tmp_path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert model_version(config) != before


def test_a_pickle_with_code_is_not_run(tmp_path):
    save(tmp_path, "vit")
    (tmp_path / "model.safetensors").unlink()

    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "owned"), "w")

    torch.save({"x": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"(?i)weights_only|weights only|unsupported|safetensors|pickle"):
        load_encoder(EncoderConfig(name=str(tmp_path)))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "efficientnet-lite9"}, "Did you mean 'efficientnet-lite0'?"),
        ({"name": "timm:resnet5"}, "timm has no such model: 'resnet5'. Did you mean 'resnet50'"),
        ({"engine": "onnx"}, "encoder.engine=onnx: must be one of auto, torch, openvino"),
        ({"engine": "openvino", "dtype": "bfloat16"}, "runs on the CPU in float32"),
        ({"threads": 0}, "encoder.threads=0: must be at least 1"),
    ],
)
def test_mistakes(options, sentence):
    with pytest.raises(UsageError) as error:
        load_encoder(EncoderConfig(**options))
    assert sentence in str(error.value)


def test_a_hub_model_without_a_network_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match=r"hf download nobody/nothing --local-dir DIR"):
        encoder_input(EncoderConfig(name="hf:nobody/nothing"))


def test_rows_that_are_not_finite_are_found():
    assert finite_rows(np.array([[1.0, 0], [np.nan, 1], [np.inf, 0]])).tolist() == [True, False, False]


def bridged(folder, old: str = "aaaaaaaaaaaaaaaa", **options) -> tuple[EncoderConfig, bridges.Bridge]:
    """EfficientNet-Lite0 through a bridge to a space of 5 dimensions."""
    rng, plain = np.random.default_rng(0), EncoderConfig(LITE0, **options)
    matrix, bias = rng.normal(size=(1280, 5)).astype(np.float32), rng.normal(size=5).astype(np.float32)
    bridge = bridges.Bridge(old, model_version(plain), matrix, bias)
    uri = bridges.uri_of(str(folder), "b")
    bridges.write(uri, bridge)
    return EncoderConfig(LITE0, bridge=uri, **options), bridge


def test_through_a_bridge_vectors_are_mapped_by_both_engines(cache, tmp_path):
    plain = load_encoder(EncoderConfig(LITE0))
    batch = np.stack([plain.prepare(p) for p in pictures(3)])
    config, bridge = bridged(tmp_path)
    for engine in ("torch", "openvino"):
        encoder = load_encoder(replace(config, engine=engine))
        assert encoder.model_version == bridge.version == model_version(config)
        found_ND = encoder.encode(batch)
        assert found_ND.shape == (3, 5)
        assert (found_ND * bridge(plain.encode(batch))).sum(1).min() > 0.999
    other = bridged(tmp_path, "c" * 16)[1]
    assert load_encoder(config).model_version == other.version != bridge.version


def test_a_bridge_leads_from_one_model(tmp_path):
    config, bridge = bridged(tmp_path)
    with pytest.raises(UsageError, match=r"encoder\.bridge=.* is from model version .*, and efficientnet-lite0 is"):
        model_version(replace(config, store_dtype="float16"))
    with pytest.raises(UsageError, match=r"encoder\.bridge=nowhere: no such file"):
        load_encoder(EncoderConfig(LITE0, bridge="nowhere"))
    with pytest.raises(UsageError, match="no parts to weigh"):
        part_weights(replace(config, colour=0.0), {"colour": 2.0}, "weigh")
    with pytest.raises(UsageError, match="maps no words"):
        load_words(config)
    assert bridge.old != bridge.new


def test_which_indexes_a_bridged_encoder_may_search(tmp_path):
    config, bridge = bridged(tmp_path)
    assert spaces(config) == (bridge.version, bridge.old)
    assert spaces(EncoderConfig(LITE0)) == (bridge.new,)
    assert following(config, bridge.old) == following(config, bridge.version) == config
    assert following(config, bridge.new) == EncoderConfig(LITE0)
    assert following(EncoderConfig(LITE0), bridge.old) == EncoderConfig(LITE0)
