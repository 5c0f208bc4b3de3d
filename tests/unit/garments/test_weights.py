"""Detectors and segmenters are what their files say: what a file lacks, or has for nothing, is refused by name."""

import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save_file

from tests.unit.garments.models import LABELS, save_detector, save_sam, save_yolo, tiny_sam
from tests.unit.models.test_encoder import pictures
from w2w.errors import Reject, UsageError
from w2w.garments import own
from w2w.garments.detector import Detector, DetectorConfig, Found, Yolo, detector_version, load_model, try_detector
from w2w.garments.masked import Prompt
from w2w.garments.segmenter import SegmenterConfig, load_segmenter, segmenter_version
from w2w.models import trial
from w2w.training.detectors.config import TrainConfig, check_recipe
from w2w.training.detectors.pretrained import Pretrained

DETECTORS, SAMS = ("conditional_detr", "yolos", "rt_detr"), ("sam", "sam_hq", "sam2")
PROMPTS = [Prompt((10, 10, 60, 80), ((30, 40),)), Prompt((0, 0, 20, 20))]
WEIGHTS = "model.safetensors"


def found(name: str, seed: int) -> list[np.ndarray]:
    """All that a detector finds, loaded while torch draws from that seed."""
    torch.manual_seed(seed)
    (seen,) = load_model(DetectorConfig(name))(pictures(1, (60, 48)), 0.0)
    return [seen.boxes_N4, seen.scores_N]


def masked(name: str, seed: int) -> list[np.ndarray]:
    torch.manual_seed(seed)
    return [
        np.array(v) for m in load_segmenter(SegmenterConfig(name))(pictures(1, (60, 48))[0], PROMPTS) for v in (m.mask, m.score)
    ]


MAKERS = dict.fromkeys(DETECTORS, (save_detector, found)) | dict.fromkeys(SAMS, (save_sam, masked))


def broken(folder: Path, kind: str, chosen: slice) -> list[str]:
    """As ``tests.unit.models.test_weights.broken``."""
    make, run = MAKERS[kind]
    make(folder, kind)
    whole, file, passed = run(str(folder), 1), folder / WEIGHTS, []
    tensors = load(file.read_bytes())
    assert all(np.array_equal(a, b) for a, b in zip(whole, run(str(folder), 2), strict=True))
    for tensor in sorted(tensors)[chosen]:
        rest = {k: v for k, v in tensors.items() if k != tensor}
        for changed in (rest, rest | {f"{tensor}_": tensors[tensor]}):
            save_file(changed, file, {"format": "pt"})
            try:
                seen = run(str(folder), 3)
            except UsageError:
                continue
            assert all(np.array_equal(a, b) for a, b in zip(whole, seen, strict=True)), tensor
            passed.append(tensor)
    return passed


@pytest.mark.soak
@pytest.mark.parametrize("kind", MAKERS)
def test_a_tensor_that_is_not_there_is_never_drawn(tmp_path, kind):
    unused = (
        "mask_embed",
        "denoising",
        "num_batches_tracked",
        "hidden_mask",
        "shared_embedding",
        "no_mask",
        "not_a_point",
        "point_embed",
        "decoder.layers.0.sa_",  # its first queries are all zero, so what they attend to is the same
        "query_scale",  # of layers after the first
        "pred_obj_score_head",  # of SAM 2: whether a film still shows the object
        *(f"output_hypernetworks_mlps.{i}." for i in (1, 2, 3)),  # of three masks more, which are not asked for
    )
    for tensor in broken(tmp_path, kind, slice(None)):
        assert any(part in tensor for part in unused), tensor


@pytest.mark.parametrize("kind", MAKERS)
def test_a_few_tensors_that_are_not_there(tmp_path, kind):
    broken(tmp_path, kind, slice(5, None, 60))


@pytest.mark.parametrize("kind", MAKERS)
def test_nothing_is_drawn_where_all_keys_are_renamed(tmp_path, kind):
    make, run = MAKERS[kind]
    make(tmp_path, kind)
    tensors = load((tmp_path / WEIGHTS).read_bytes())
    save_file({f"other.{k}": v for k, v in tensors.items()}, tmp_path / WEIGHTS, {"format": "pt"})
    with pytest.raises(UsageError, match=r"model\.safetensors lacks '\S+' and \d+ more, which the network computes with"):
        run(str(tmp_path), 1)


@pytest.mark.parametrize("kind", MAKERS)
def test_weights_that_are_not_finite_or_cut_are_refused_and_files_beside_not_read(tmp_path, kind):
    make, run = MAKERS[kind]
    make(tmp_path, kind)
    version = segmenter_version if kind in SAMS else detector_version
    config, file = (SegmenterConfig if kind in SAMS else DetectorConfig)(str(tmp_path)), tmp_path / WEIGHTS
    before, tensors = version(config), load(file.read_bytes())
    save_file({k: v * 2 for k, v in tensors.items()}, tmp_path / "a.safetensors", {"format": "pt"})
    assert version(config) == before
    name = next(k for k, v in tensors.items() if v.is_floating_point())
    tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(UsageError, match="NaN or infinity"):
        run(str(tmp_path), 1)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UsageError, match="holds no tensors that can be read"):
        run(str(tmp_path), 1)


def test_ours_takes_all_of_its_tensors_from_the_file(tmp_path):
    network = own.load_network(own.DEFAULT_FOLDER, "")
    own.save(tmp_path, own.Settings(), network.state_dict())
    file, kept = tmp_path / WEIGHTS, load((own.DEFAULT_FOLDER / WEIGHTS).read_bytes())
    name = "scores.weight"
    for changed, said in (
        ({k: v for k, v in kept.items() if k != name}, "lacks 'scores.weight'"),
        (kept | {"scores.extra": kept[name] + 1}, "has 'scores.extra'"),
        (kept | {name: kept[name][:3].contiguous()}, "scores.weight is 3 x"),
        (kept | {name: kept[name] * float("nan")}, "scores.weight holds NaN"),
    ):
        save_file(changed, file)
        with pytest.raises(UsageError, match=said):
            load_model(DetectorConfig(str(tmp_path)))  # converts it for OpenVINO


def test_segment_anything(tmp_path):
    state, file = tiny_sam().state_dict(), tmp_path / "sam.pth"
    name = "mask_decoder.iou_token.weight"
    for changed, said in (
        ({k: v for k, v in state.items() if k != name}, "lacks 'mask_decoder.iou_token.weight'"),
        (state | {"image_encoder.extra": state[name]}, "has 'image_encoder.extra'"),
        (state | {name: state[name] + float("inf")}, "holds NaN or infinity"),
        ({"model": state}, "tensors by name"),
    ):
        torch.save(changed, file)
        with pytest.raises(UsageError, match=said):
            load_segmenter(SegmenterConfig(f"sam:{file}"))
    file.write_bytes(b"")
    with pytest.raises(UsageError, match="is empty"):
        load_segmenter(SegmenterConfig(f"sam:{file}"))


def test_yolo_weights_and_answers_that_are_not_finite(tmp_path):
    save_yolo(tmp_path / "tiny.pt")
    model = load_model(DetectorConfig(f"yolo:{tmp_path}/tiny.pt"))
    seen = pictures(2, (60, 48))
    assert [type(f) for f in model(seen, 0.0)] == [Found, Found]
    assert isinstance(model, Yolo)
    first = model._model.predictor.model.model.model[0]
    kept = first.forward
    first.forward = lambda x: torch.cat([kept(x[:1]), kept(x[1:]) * float("nan")])
    assert [getattr(f, "code", "found") for f in model(seen, 0.0)] == ["found", "not_finite"]
    held = torch.load(tmp_path / "tiny.pt", weights_only=False)
    next(held["model"].parameters()).data.view(-1)[0] = float("nan")
    torch.save(held, tmp_path / "nan.pt")
    with pytest.raises(UsageError, match="NaN or infinity"):
        load_model(DetectorConfig(f"yolo:{tmp_path}/nan.pt"))


def test_a_score_that_is_not_finite_is_no_empty_photo():
    class Broken:
        labels = LABELS

        def __call__(self, images, floor):
            return [Found(np.zeros((1, 4), np.float32), np.array([np.nan], np.float32), ("top",)) for _ in images]

    (one,) = Detector(DetectorConfig("x"), Broken())(pictures(1))
    assert isinstance(one, Reject)
    assert one.code == "not_finite"


@pytest.mark.parametrize("kind", DETECTORS)
def test_fine_tuning_draws_the_class_layer_alone_and_by_its_seed(tmp_path, kind):
    save_detector(tmp_path, kind, ("shirt", "skirt", "shoe"))
    config = TrainConfig(seed=3)
    torch.manual_seed(9)
    first, again = (Pretrained(config, tmp_path).network.state_dict() for _ in range(2))
    other = Pretrained(TrainConfig(seed=4), tmp_path).network.state_dict()
    assert all(torch.equal(v, again[k]) for k, v in first.items())
    drawn = {k for k, v in first.items() if not torch.equal(v, other[k])}
    assert drawn
    assert all(v.shape[0] in (7, 8) for k, v in first.items() if k in drawn)
    file = tmp_path / WEIGHTS
    tensors = load(file.read_bytes())
    name = next(k for k in tensors if k.endswith("self_attn.q_proj.weight") or k.endswith("attention.query.weight"))
    save_file({k: v for k, v in tensors.items() if k != name}, file, {"format": "pt"})
    with pytest.raises(UsageError, match="which the network computes with"):
        Pretrained(config, tmp_path)
    save_file(tensors | {name: tensors[name][:8].contiguous()}, file, {"format": "pt"})
    with pytest.raises(UsageError, match=r"and config\.json makes it"):
        Pretrained(config, tmp_path)


def test_a_model_is_opened_once_while_its_files_are_the_same(tmp_path, monkeypatch):
    started = []
    run = lambda command, **more: started.append(command) or SimpleNamespace(stdout=b"", stderr=b"", returncode=0)  # noqa: E731
    monkeypatch.setattr(trial.subprocess, "run", run)
    save_detector(tmp_path, "yolos")
    config = DetectorConfig(str(tmp_path))
    for device in ("auto", "cuda"):
        try_detector(replace(config, device=device))
    assert len(started) == 1
    (tmp_path / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes() + b" ")
    try_detector(config)
    assert len(started) == 2


def test_a_model_is_tried_in_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "subprocess", subprocess)
    save_detector(tmp_path, "rt_detr")
    (tmp_path / WEIGHTS).write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(UsageError, match=r"detector\.name=\S+: \S+model\.safetensors is a pointer of Git LFS"):
        try_detector(DetectorConfig(str(tmp_path), device="cuda"))  # the workers': this machine need not have it
    monkeypatch.setattr(trial.subprocess, "run", lambda *a, **k: SimpleNamespace(stdout=b"", stderr=b"", returncode=-9))
    with pytest.raises(UsageError, match="was killed"):
        check_recipe(f"hf:{tmp_path}")
