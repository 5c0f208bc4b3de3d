"""The examples of w2w/README.md, a package that the workers have on their path, at work in jobs."""

import importlib

import pytest

from tests.unit.models.test_encoder import pictures
from tests.unit.test_adding import write_package
from w2w import plugins, schema
from w2w.cli import apply, tables
from w2w.errors import UsageError
from w2w.garments import job_detect as detect
from w2w.garments.detector import DetectorConfig
from w2w.garments.stage import to_jpeg
from w2w.ingest import job as ingest
from w2w.ingest.feed import FeedConfig
from w2w.models import job as embed
from w2w.models.config import EncoderConfig
from w2w.table import delta
from w2w.training import job as train
from w2w.training.config import LoopConfig


@pytest.fixture
def package(plugins_folder, monkeypatch):
    write_package(plugins_folder)
    monkeypatch.syspath_prepend(str(plugins_folder))
    monkeypatch.setenv("PYTHONPATH", str(plugins_folder))
    importlib.invalidate_caches()


def test_examples_work_in_workers(package, tmp_path, monkeypatch):
    rows = []
    for i, (picture, category) in enumerate(zip(pictures(4), ("bag", "hat", "bag", "top"))):
        (tmp_path / f"{i}.jpg").write_bytes(to_jpeg(picture))
        texts = {"sku": i, "image": f"{i}.jpg", "category": category, "price": 10 * i + 5}
        rows.append("<product>" + "".join(f"<{k}>{v}</{k}>" for k, v in texts.items()) + "</product>")
    (tmp_path / "feed.xml").write_text(f"<feed>{''.join(rows)}</feed>")
    store = str(tmp_path / "store")
    feed = FeedConfig(uri=str(tmp_path / "feed.xml"), kind="shop-xml", columns={"product_id": "sku"})
    assert ingest.main(ingest.Config(store=store, feed=feed)).counts.out == 4
    assert embed.main(embed.Config(store=store, encoder=EncoderConfig(name="grid"))).counts.out == 4
    assert detect.main(detect.Config(store=store, detector=DetectorConfig("middle"))).counts.out == 4
    assert delta.read(store, schema.GARMENTS, [schema.CATEGORY]).column(0).to_pylist() == ["top"] * 4

    colours = apply.Config(store=store, stage="colours")
    assert apply.main(colours).counts.out == 4
    table = plugins.find("stage", "colours", {}).table
    made = dict(zip(*(c.to_pylist() for c in delta.read(store, table, [schema.IMAGE_ID, "rgb"]).columns)))
    assert len(made) == 4
    assert all(len(rgb) == 3 for rgb in made.values())
    assert apply.main(colours).pending == 0
    assert tables.main(tables.Config(store, "colours")).history[0].rows == 4
    monkeypatch.setattr(plugins.find("stage", "colours", {}), "version", "2", raising=False)
    with pytest.raises(UsageError, match="not those that the job started with"):  # the workers have another
        apply.main(colours)

    loop = LoopConfig(steps=50, warmup_steps=1, measure_every=50, checkpoint_every=25, learning_rate=1.0)
    result = train.main(train.Config(store=store, recipe="prices", train=loop, out=str(tmp_path / "prices")))
    assert result.last_step == 50
    assert result.figures["squared"].value > 0
    assert {f.name for f in (tmp_path / "prices").iterdir()} >= {"model.safetensors", "README.md", "metrics.json"}
