"""The line that tells what a hub's encoder is worth on one's own catalog, with small checkpoints of the published layouts."""

from pathlib import Path

import numpy as np
import pytest
import transformers as t

from tests.cluster.paired import Shot, fill, jpeg
from tests.unit.models.layouts import TINY, _head
from tests.unit.models.test_encoder import save
from tests.unit.models.test_published_layouts import fashion_clip, marqo
from w2w.evaluation import job_compare as compare

OURS = "tests.unit.evaluation.encoder:colours"


def dinov3(folder: Path) -> None:
    """facebook/dinov3-vitb16-pretrain-lvd1689m: registers, rotary positions, no table of them."""
    _head(folder, t.DINOv3ViTModel(t.DINOv3ViTConfig(**TINY, image_size=32, patch_size=8, num_register_tokens=2)))


# SigLIP 2 of one resolution is called siglip in its config.json
LAYOUTS = {"fashion-clip": fashion_clip, "marqo": marqo, "siglip2": lambda folder: save(folder, "siglip"), "dinov3": dinov3}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    """Twelve garments, worn and alone."""
    rng, shots = np.random.default_rng(0), []
    for n in range(12):
        alone = np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((16, 16, 1))).astype(np.uint8)
        worn = np.clip(alone[4:60, 4:60].astype(int) + 10, 0, 255).astype(np.uint8)
        shots.append(Shot(f"p{n}", "top", "test", jpeg(worn), jpeg(alone)))
    return fill(str(tmp_path_factory.mktemp("hub") / "store"), shots)


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_encoder_of_the_hub_is_measured_on_ones_own_pairs(store, tmp_path, name):
    (tmp_path / name).mkdir()
    LAYOUTS[name](tmp_path / name)
    found = compare.main(compare.Config(store=store, a=OURS, b=str(tmp_path / name), tolerance=0.99))
    assert (found.queries, found.protocol, found.worse) == (12, "own", False)
    assert found.before["recall@1"].value > 0.9  # mean colours find these
    assert found.figures["recall@20"].value == 1
    assert 0 <= found.figures["recall@1"].value <= 1
    gain = found.figures["recall@1"].value - found.before["recall@1"].value
    assert found.gain["recall@1"].value == pytest.approx(gain)
    assert name in Path(found.report).read_text(encoding="utf-8")
