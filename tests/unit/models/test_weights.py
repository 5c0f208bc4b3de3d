"""Encoders are what their file says: two loads agree, and what a file lacks, or has for nothing, is refused by name."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save_file

from tests.unit.models import layouts
from w2w.errors import UsageError
from w2w.models import hub, weights
from w2w.models.config import EncoderConfig
from w2w.models.encoder import encoder_input, load_encoder, model_version

ROOT = Path(__file__).parents[3]


def vectors(name: str, seed: int) -> np.ndarray:
    """Of two pictures, by a model that is loaded while torch draws from that seed."""
    torch.manual_seed(seed)
    encoder = load_encoder(EncoderConfig(name=name, engine="torch"))
    side = encoder.input.size_px
    return encoder.encode(np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8))


def tensors_of(folder: Path) -> tuple[Path, dict]:
    """The file and its tensors; of shards the first."""
    file = min(folder.glob("*.safetensors"), default=folder / "pytorch_model.bin")
    return file, load(file.read_bytes()) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)


def write(file: Path, tensors: dict) -> None:
    if file.suffix == ".safetensors":
        save_file(tensors, file, {"format": "pt"})
    else:
        torch.save(tensors, file)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """name -> what encoder.name is to be, and the vectors, of every layout."""
    root = tmp_path_factory.mktemp("layouts")
    names = {layout: layouts.make(layout, root / layout) for layout in layouts.MAKERS}
    return {layout: (name, vectors(name, 1)) for layout, name in names.items()}


@pytest.mark.slow  # another process imports torch and every library
def test_two_processes_give_the_same_vectors_and_ask_nothing_of_the_network(made):
    code = (
        "import hashlib, socket, sys, torch\n"
        "def no(*a, **k): raise AssertionError(f'a connection to {a}')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = no\n"
        "torch.set_num_threads(1)\n"
        "from tests.unit.models.test_weights import vectors\n"
        "for line in sys.stdin: print(hashlib.sha256(vectors(line.strip(), 2).tobytes()).hexdigest())\n"
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    here = [hashlib.sha256(vectors(name, 3).tobytes()).hexdigest() for name, _ in made.values()]
    torch.set_num_threads(threads)
    asked = "".join(f"{name}\n" for name, _ in made.values())
    online = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    done = subprocess.run([sys.executable, "-c", code], input=asked, capture_output=True, text=True, cwd=ROOT, env=online)
    assert done.returncode == 0, done.stderr[-2000:]
    assert dict(zip(made, done.stdout.split())) == dict(zip(made, here))


def of_transformers(folder: Path, layout: str, pixels: torch.Tensor) -> torch.Tensor:
    """What the library's own class for that checkpoint computes, pooled by hand."""
    import transformers as t

    if layout == "mae":
        theirs = t.ViTMAEForPreTraining.from_pretrained(folder).vit
        plain = t.ViTModel(t.ViTConfig(**layouts.PATCHES), add_pooling_layer=False).eval()
        plain.load_state_dict(theirs.state_dict())
        return plain(pixels).last_hidden_state[:, 0]
    kind = getattr(t, json.loads((folder / "config.json").read_text())["architectures"][0])
    model = kind.from_pretrained(folder).eval()
    base = getattr(model, model.base_model_prefix, model)
    out = base(pixels)
    if layout in ("vit-classifier", "deit-distilled", "sharded", "pickle"):
        return out.last_hidden_state[:, 0]
    return out.pooler_output.flatten(1)


@pytest.mark.parametrize(
    "layout", ["vit", "vit-classifier", "sharded", "pickle", "deit-distilled", "mae", "dinov2-classifier", "swin-classifier"]
)
def test_pooling_is_what_the_checkpoint_has(made, layout):
    name, found = made[layout]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    with torch.no_grad():
        theirs = of_transformers(Path(name), layout, torch.from_numpy(pixels / 255 - 0.5).permute(0, 3, 1, 2).float() * 2)
    assert torch.nn.functional.normalize(theirs, dim=1).numpy() == pytest.approx(found, abs=1e-5)


def broken(name: str, whole: np.ndarray, folder: Path, chosen: slice) -> list[str]:
    """Drops and renames tensors of a checkpoint, one at a time: either nothing changes, or it is refused by name. Returns those
    that were not refused."""
    file, tensors = tensors_of(folder)
    kept = file.read_bytes()
    passed = []
    for tensor in sorted(tensors)[chosen]:
        rest = {k: v for k, v in tensors.items() if k != tensor}
        for changed in (rest, rest | {f"{tensor}_": tensors[tensor]}):
            write(file, changed)
            try:
                found = vectors(name, 4)
            except UsageError:
                continue
            assert np.array_equal(found, whole), f"without {tensor} the vectors are others"
            passed.append(tensor)
    file.write_bytes(kept)
    return passed


# parts that no picture passes
_UNUSED = (
    "classifier",
    "decoder",
    "text",
    "logit_",
    "head.",
    "mask_token",
    "lm_head",
    "cls_classifier",
    "distillation_cl",
    "fc.",
    "num_batches_tracked",
)


@pytest.mark.soak
@pytest.mark.parametrize("layout", layouts.MAKERS)
def test_a_tensor_that_is_not_there_is_never_drawn(made, layout):
    name, whole = made[layout]
    for tensor in broken(name, whole, Path(name.rpartition("@")[2].removesuffix("/model.safetensors")), slice(None)):
        assert any(part in tensor for part in _UNUSED), tensor


@pytest.mark.parametrize("layout", layouts.MAKERS)
def test_a_few_tensors_that_are_not_there(made, layout):
    name, whole = made[layout]
    broken(name, whole, Path(name.rpartition("@")[2].removesuffix("/model.safetensors")), slice(3, None, 17))


def test_all_keys_renamed_are_refused(made, tmp_path):
    name = layouts.make("vit-classifier", tmp_path / "vit")
    file, tensors = tensors_of(tmp_path / "vit")
    for prefix in ("other.", "model.visual."):
        write(file, {f"{prefix}{k}": v for k, v in tensors.items()})
        with pytest.raises(UsageError, match=r"model\.safetensors lacks '\S+' and \d+ more, which the network computes with"):
            vectors(name, 1)


def cut(share: float):
    return lambda folder, file, tensors: file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])


def poisoned(value: float, chosen: str):
    def change(folder, file, tensors):
        next(v for k, v in tensors.items() if chosen in k).view(-1)[-1] = value
        write(file, tensors)

    return change


def configured(**values):
    def change(folder, file, tensors):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | values))

    return change


def resized(folder, file, tensors):
    name = next(k for k in tensors if k.endswith("position_embeddings"))
    write(file, tensors | {name: tensors[name][:, :-1].contiguous()})


def pickled(folder, file, tensors):
    torch.save(tensors, file)


def deeper(folder, file, tensors):
    more = {k.replace("layer.1.", "layer.2."): v.clone() for k, v in tensors.items() if "layer.1." in k}
    write(file, tensors | more)


def content(name: str, data: bytes):
    return lambda folder, file, tensors: (folder / name).write_bytes(data)


def indexed(weight_map):
    def change(folder, file, tensors):
        file.rename(folder / "part.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return change


FAULTS = {
    "cut in the header": (cut(0.01), "holds no tensors that can be read"),
    "cut in the tensors": (cut(0.6), "holds no tensors that can be read"),
    "empty": (cut(0), "is empty"),
    "lfs": (content(weights.WEIGHTS, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"), "git lfs pull"),
    "pickle": (pickled, "holds no tensors that can be read"),
    "NaN": (poisoned(float("nan"), "query.weight"), r"query|q_proj.*NaN or infinity"),
    "infinity": (poisoned(float("-inf"), "patch_embeddings"), "patch_embeddings.*NaN or infinity"),
    "another size": (resized, r"position_embeddings is 1 x 16 x 32, and config\.json makes it 1 x 17 x 32"),
    "more layers than configured": (deeper, r"has '\S+' and \d+ more, which the network of config\.json does not"),
    "fewer layers than configured": (configured(num_hidden_layers=3), "which the network computes with"),
    "wider": (configured(hidden_size=64), "and config.json makes it"),
    "a million layers": (configured(num_hidden_layers=1_000_000), r"num_hidden_layers=1e\+06: no network is that large"),
    "a billion wide": (configured(hidden_size=10**9), r"hidden_size=1e\+09: no network is that large"),
    "a list without end": (configured(depths=[1] * 2000), "depths has 2,000 entries: no network is like that"),
    "wider than memory": (
        configured(hidden_size=1 << 18, intermediate_size=1 << 20),
        "and config.json asks for .* x ",
    ),
    "a picture of a billion": (configured(image_size=10**9), r"image_size=1e\+09: no network is that large"),
    "unknown architecture": (configured(model_type="vitt"), "model_type='vitt', which transformers does not know"),
    "another architecture": (configured(model_type="resnet"), "computes with|does not|builds"),
    "nonsense": (configured(num_attention_heads="many"), "config"),
    "no picture": (configured(model_type="bert"), "none that|computes with|no config|does not"),
    "config is a list": (content("config.json", b"[1, 2]"), "is not a JSON object but a list"),
    "config is cut": (content("config.json", b'{"model_type": '), "is not valid JSON"),
    "processor is a list": (content("preprocessor_config.json", b"[]"), "is not a JSON object but a list"),
    "processor is nonsense": (content("preprocessor_config.json", b'{"size": ["a"]}'), "not one of an image processor"),
    "processor asks for all memory": (content("preprocessor_config.json", b'{"size": 1000000}'), "pictures of 1000000 px"),
    "processor asks for less than nothing": (content("preprocessor_config.json", b'{"size": -5}'), "pictures of -5 px"),
    "processor has NaN": (content("preprocessor_config.json", b'{"size": 32, "image_mean": [NaN, 0, 0]}'), "image_mean=.nan"),
    "index leads out": (indexed({"a": "../x/model.safetensors"}), r"names '\.\./x/model\.safetensors' for a"),
    "index is absolute": (indexed({"a": "/etc/model.safetensors"}), "names '/etc/model.safetensors' for a"),
    "index names a pickle": (indexed({"a": "model.bin"}), "names 'model.bin' for a"),
    "index names no file": (indexed({"a": "gone.safetensors"}), "gone.safetensors, which is missing"),
    "index is a list": (content("model.safetensors.index.json", b"[]"), None),  # not read: the file itself is there
    "index is empty": (indexed({}), "has no 'weight_map'"),
    "no weights": (lambda folder, file, tensors: file.rename(folder / "backup.safetensors"), r"no model\.safetensors in"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_a_folder_is_said(tmp_path, fault):
    change, sentence = FAULTS[fault]
    name = layouts.make("vit-classifier", tmp_path / "vit")
    change(tmp_path / "vit", *tensors_of(tmp_path / "vit"))
    if sentence is None:
        vectors(name, 1)
        return
    with pytest.raises(UsageError, match=sentence) as error:
        vectors(name, 1)
    assert "vit" in str(error.value)
    assert "\n" not in str(error.value)


WIDE_TOWER = {"image_size": 32, "patch_size": 16, "width": 1 << 20, "layers": 2}


@pytest.mark.parametrize(
    ("layout", "config", "change"),
    [
        ("ours", "config.json", {"head": [32, 1 << 20, 1 << 20]}),
        ("open_clip", "open_clip_config.json", {"model_cfg": {"embed_dim": 64, "vision_cfg": WIDE_TOWER, "text_cfg": {}}}),
    ],
)
def test_a_network_far_larger_than_its_file_is_not_built(tmp_path, layout, config, change):
    if layout == "open_clip":
        pytest.importorskip("open_clip")
    name, file = layouts.make(layout, tmp_path / "x"), tmp_path / "x" / config
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UsageError, match=r"numbers, and config\.json asks for"):
        vectors(name, 1)


def test_a_file_beside_is_not_read(tmp_path):
    name = layouts.make("vit-classifier", tmp_path / "vit")
    config, whole = EncoderConfig(name=name), vectors(name, 1)
    version = model_version(config)
    file, tensors = tensors_of(tmp_path / "vit")
    for beside in ("backup.safetensors", "a.safetensors", "model.fp16.safetensors", "pytorch_model.bin"):
        write(tmp_path / "vit" / beside, {k: v + 1 for k, v in tensors.items()})
    assert model_version(config) == version
    assert np.array_equal(vectors(name, 2), whole)
    file.unlink()
    assert model_version(config) != version  # now it is the pickle
    assert not np.array_equal(vectors(name, 2), whole)


def test_the_version_follows_every_byte_that_is_read(tmp_path):
    name = layouts.make("sharded", tmp_path / "vit")
    seen = {model_version(EncoderConfig(name=name))}
    for shard in sorted((tmp_path / "vit").glob("*.safetensors")):
        data = bytearray(shard.read_bytes())
        data[-1] ^= 1
        shard.write_bytes(data)
        seen.add(model_version(EncoderConfig(name=name)))
    configured(hidden_act="relu")(tmp_path / "vit", None, None)
    assert len(seen | {model_version(EncoderConfig(name=name))}) == 2 + len(list((tmp_path / "vit").glob("*.safetensors")))
    (tmp_path / "vit").rename(tmp_path / "moved")
    assert model_version(EncoderConfig(name=str(tmp_path / "moved"))) not in seen


def test_a_tensor_twice_in_shards_is_refused(tmp_path):
    name = layouts.make("sharded", tmp_path / "vit")
    first, second, *_ = sorted((tmp_path / "vit").glob("*.safetensors"))
    write(second, load(second.read_bytes()) | dict([next(iter(load(first.read_bytes()).items()))]))
    with pytest.raises(UsageError, match="which another of its shards has too"):
        vectors(name, 1)


AWAY = ["hf-hub:timm/vit_tiny_patch16_224", "local-dir:/tmp/x", "/tmp/x", "../x", "microsoft/resnet-50", "https://x/y"]


@pytest.mark.parametrize("address", AWAY)
def test_a_config_reaches_nothing_outside_its_folder(tmp_path, address):
    name = layouts.make("timm-wrapper", tmp_path / "wrapped")
    configured(architecture=address)(tmp_path / "wrapped", None, None)
    ours = layouts.make("ours", tmp_path / "ours")
    configured(backbone={"library": "timm", "architecture": address})(tmp_path / "ours", None, None)
    tower = layouts.make("open_clip", tmp_path / "clip")
    file = tmp_path / "clip" / "open_clip_config.json"
    file.write_text(file.read_text().replace(layouts.TIMM, address))
    for one in (name, ours, tower):
        with pytest.raises(UsageError, match="outside its folder"):
            encoder_input(EncoderConfig(name=one))
    with pytest.raises(UsageError, match="timm has no such model"):
        encoder_input(EncoderConfig(name=f"timm:{address}@{tmp_path}/x.safetensors"))


def test_other_places_in_a_config_are_not_looked_at(tmp_path):
    """A path to a pickle, a download and another repository's code: none is read, nothing changes."""
    name = layouts.make("timm-wrapper", tmp_path / "wrapped")
    whole = vectors(name, 1)
    (tmp_path / "evil.bin").write_bytes(b"x")
    more = {"checkpoint_path": str(tmp_path / "evil.bin"), "pretrained": True, "cache_dir": str(tmp_path)}
    more["pretrained_cfg_overlay"] = {"file": str(tmp_path / "evil.bin"), "url": "http://127.0.0.1:1/x"}
    away = {"model_args": more, "_name_or_path": "nobody/nothing", "transformers_weights": "../evil.bin"}
    away["auto_map"] = {"AutoConfig": "nobody/nothing--x.X", "AutoModel": "nobody/nothing--x.Y"}
    configured(**away)(tmp_path / "wrapped", None, None)
    assert np.array_equal(vectors(name, 2), whole)


def test_a_detectors_backbone_is_built_and_not_fetched(tmp_path):
    """As facebook/detr-resnet-50 has it: transformers would ask the hub whether there is a repository of that name."""
    old = {"model_type": "detr", "backbone": "resnet18", "use_timm_backbone": True, "use_pretrained_backbone": True}
    for more in ({}, {"backbone_kwargs": {"in_chans": 3, "out_indices": [1, 2, 3, 4]}}):
        found = hub.settings(tmp_path, {**old, "backbone_config": None, **more}, "detector.name=x")
        assert found.backbone_config.backbone == "resnet18"
        assert not getattr(found.backbone_config, "use_pretrained_backbone", False)
    with pytest.raises(UsageError, match="outside its folder"):
        hub.settings(tmp_path, {**old, "use_timm_backbone": False, "backbone": "microsoft/resnet-50"}, "detector.name=x")


def test_a_network_that_draws_at_random_is_refused():
    network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))  # in training mode
    with pytest.raises(UsageError, match="it draws at random"):
        weights.need(network, [], lambda: [network(torch.ones(1, 4)).detach()], "here")
