"""Without an extra w2w works, and the option that needs it says which one to install, before anything is read or computed."""

import sys

import pytest

from w2w.errors import UsageError
from w2w.export import job as export
from w2w.extras import EXTRAS
from w2w.garments.detector import DetectorConfig, detector_version
from w2w.garments.segmenter import SegmenterConfig, segmenter_version
from w2w.models.config import EncoderConfig
from w2w.models.encoder import encoder_input
from w2w.nightly.tell import Tell, check
from w2w.training.detectors.config import check_recipe
from w2w.training.tracking import LogConfig

ASKED = [
    ("ultralytics", "detector.name=yolo:none.pt", lambda: detector_version(DetectorConfig("yolo:none.pt"))),
    ("ultralytics", "segmenter.name=ultralytics:none.pt", lambda: segmenter_version(SegmenterConfig("ultralytics:none.pt"))),
    ("ultralytics", "detector.start=yolo:yolo11n.yaml", lambda: check_recipe("yolo:yolo11n.yaml")),
    ("segment_anything", "segmenter.name=sam:none.pth", lambda: segmenter_version(SegmenterConfig("sam:none.pth"))),
    (
        "open_clip",
        "encoder.name=open_clip:ViT-B-32/x",
        lambda: encoder_input(EncoderConfig("open_clip:ViT-B-32/x")),
    ),
    ("tensorboardX", "--log.tensorboard", lambda: LogConfig(tensorboard="curves")),
    ("mlflow", "--log.mlflow", lambda: LogConfig(mlflow="file:///runs")),
    ("wandb", "--log.wandb", lambda: LogConfig(wandb="w2w")),
    ("psycopg", "--to=postgres", lambda: export.main(export.Config(store="no-store", to="postgres"))),
    ("lancedb", "--to=lancedb", lambda: export.main(export.Config(store="no-store", to="lancedb"))),
    ("openlineage", "tell.openlineage", lambda: check(Tell(openlineage="http://127.0.0.1:5000"))),
]


@pytest.mark.parametrize(("module", "option", "ask"), ASKED, ids=[option for _, option, _ in ASKED])
def test_a_missing_extra_is_named(monkeypatch, module, option, ask):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError) as e:
        ask()
    assert str(e.value) == f"{option}: needs the package {module}: pip install 'w2w[{EXTRAS[module]}]'"


def test_every_extra_is_asked_for():
    assert {module for module, _, _ in ASKED} == set(EXTRAS)
