"""The training job on a real local Ray: two workers, a resume, and what it leaves is a detector."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.garments.models import save_detector
from tests.unit.training.detectors.samples import photos, row
from tests.unit.training.test_tracking import scalars
from w2w import schema
from w2w.engine.cluster import RayConfig
from w2w.engine.training import Workers
from w2w.errors import UsageError
from w2w.garments.detector import Detector, DetectorConfig
from w2w.table.parts import Output
from w2w.table.sink import Lineage, append_rows
from w2w.training import job as train
from w2w.training.config import LoopConfig
from w2w.training.detectors import job_judge as judge
from w2w.training.detectors.config import TrainConfig
from w2w.training.tracking import LogConfig

RAY = RayConfig(num_cpus=2)
TINY = TrainConfig(epochs=2, batch_images=2, height_px=64, width_px=64, warmup_steps=1, val_every=1, val_share=0.3)
YOLO = replace(TINY, start="yolo:yolo11n.yaml")


def fill(store: Path, splits: list[str]) -> str:
    rows = [row(p, split) for p, split in zip(photos(len(splits)), splits)]
    table = pa.Table.from_pylist(rows, schema=schema.DETECTIONS.schema)
    append_rows(str(store), Output(schema.DETECTIONS, unique=schema.KEY), table, Lineage("t", "t", "t", "v", {}, {}, "x"))
    return str(store)


@pytest.fixture
def store(tmp_path):
    return fill(tmp_path / "store", ["train"] * 12 + ["test"] * 4)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_train(store, tmp_path, workers):
    config = train.Config(
        store=store,
        recipe="detector",
        detector=TINY,
        workers=Workers(num_workers=workers),
        out=str(tmp_path / "model"),
        ray=RAY,
    )
    if workers == 1:
        config = replace(config, log=LogConfig(tensorboard=str(tmp_path / "curves")))
    summary = train.main(config)
    assert (summary.counts.read, summary.counts.out) == (16, 16)
    assert (summary.examples["train"] + summary.examples["val"], summary.examples["test"]) == (12, 4)
    history = [json.loads(p.read_text()) for p in Path(store, "_training").rglob("checkpoint_*/history.json")]
    assert max(len(h) for h in history) == 2
    assert {"README.md", "config.json", "model.safetensors", "metrics.json", "report.html"} == {
        p.name for p in (tmp_path / "model").iterdir()
    }
    assert "git revision" in (tmp_path / "model" / "README.md").read_text()
    if workers == 1:
        (run,) = (tmp_path / "curves").iterdir()
        assert [step for step, _ in scalars(run)["train/rate"]] == [h["step"] for h in max(history, key=len)]
    detector = DetectorConfig(name=str(tmp_path / "model"))
    assert Detector(replace(detector, threshold=0.0))([np.zeros((90, 60, 3), np.uint8)])[0].scores_N.size


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_finished_run_is_taken_up_where_it_stands_and_judged(store, tmp_path):
    config = train.Config(store=store, recipe="detector", detector=TINY, out=str(tmp_path / "model"), ray=RAY)
    done = train.main(config)
    detector = DetectorConfig(name=str(tmp_path / "model"))
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    train.main(replace(config, out=str(tmp_path / "again")))
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == before
    # the other job gives the figures that the training stated
    judged = judge.main(judge.Config(store=store, detector=detector, ray=RAY))
    assert judged.figures == done.figures
    assert {"mAP, mean of the classes", "AP50 top"} <= set(judged.figures)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["conditional_detr", "yolos", "rt_detr"])
def test_published_detectors_are_trained_on(kind, store, tmp_path):
    save_detector(tmp_path / "start", kind, ["a", "b"])
    settings = replace(TINY, start=f"hf:{tmp_path / 'start'}")
    done = train.main(train.Config(store=store, recipe="detector", detector=settings, out=str(tmp_path / "out"), ray=RAY))
    found = Detector(DetectorConfig(name=str(tmp_path / "out"), threshold=0.0))([np.zeros((90, 60, 3), np.uint8)])
    assert found[0].scores_N.size
    assert f"--detector.name={tmp_path / 'out'} " in done.use + " "


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_yolo_is_trained_on(store, tmp_path):
    small = replace(YOLO, epochs=1)
    config = train.Config(store=store, recipe="detector", detector=small, out=str(tmp_path / "out"), ray=RAY)
    done = train.main(config)
    assert done.last_step == 1
    weights = (tmp_path / "out" / "model.pt").read_bytes()
    again = train.main(replace(config, out=str(tmp_path / "again")))  # it is finished
    assert (tmp_path / "again" / "model.pt").read_bytes() == weights
    assert again.figures == done.figures
    assert f"--detector.name=yolo:{tmp_path / 'out' / 'model.pt'} " in done.use + " "
    Detector(DetectorConfig(name=f"yolo:{tmp_path / 'out' / 'model.pt'}"))


@pytest.mark.parametrize(
    ("splits", "options", "said"),
    [
        (["train"] * 3, {}, "no test photos"),
        (["test"] * 3, {}, "no train photos"),
        (["train", "test"], {"sources": ["modanet"]}, "no 'modanet', only drawn"),
        (["train", "test"], {"detector": replace(TINY, val_share=0.01)}, "holds out none"),
        (["train"] * 9 + ["test"], {"detector": YOLO, "workers": Workers(num_workers=2)}, "ultralytics trains in one process"),
        (["train"] * 3 + ["test"], {"train": LoopConfig(steps=3)}, "--train: is not read by --recipe=detector"),
        (
            ["train", "test"],
            {"detector": replace(TINY, start="hf:/nowhere")},
            "/nowhere: cannot be downloaded|neither a folder",
        ),
        (["train", "test"], {"detector": replace(TINY, val_share=0), "workers": Workers(num_workers=2)}, "only 1 train photos"),
    ],
)
def test_mistakes_are_sentences(splits, options, said, tmp_path):
    store = fill(tmp_path / "store", splits)
    with pytest.raises(UsageError, match=said):
        train.main(train.Config(store=store, recipe="detector", **{"detector": TINY, **options}, ray=RAY))


def test_without_a_table_the_job_that_makes_it_is_named(tmp_path):
    for job, options in ((train, {"recipe": "detector"}), (judge, {})):
        with pytest.raises(UsageError, match="run 'w2w annotate' first"):
            job.main(job.Config(store=str(tmp_path), **options))
