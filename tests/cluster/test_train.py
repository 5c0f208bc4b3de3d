"""Training encoders on a real local Ray: from pairs in the tables to an encoder that the other jobs load."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.cluster.paired import Shot, embed, fill, jpeg
from tests.unit.models.test_encoder import save
from w2w import schema
from w2w.engine.cluster import RayConfig
from w2w.engine.training import Workers
from w2w.errors import UsageError
from w2w.models.config import DEFAULT, EncoderConfig
from w2w.models.encoder import load_encoder
from w2w.table import delta
from w2w.training import job as train
from w2w.training.config import LoopConfig
from w2w.training.encoders.config import HeadConfig, LearnConfig

RAY = RayConfig(num_cpus=2)
LOOP = LoopConfig(steps=4, warmup_steps=1, measure_every=2, checkpoint_every=2)
LEARN = LearnConfig(batch_pairs=4, head=HeadConfig(dims=[8]))


def shots(splits) -> list[Shot]:
    rng = np.random.default_rng(0)
    found = []
    for i, split in enumerate(splits):
        plain = np.full((40, 30, 3), rng.integers(0, 256, 3), np.uint8)
        for _ in range(2):
            worn = np.clip(plain + rng.normal(0, 20, plain.shape), 0, 255).astype(np.uint8)
            found.append(Shot(f"p{i}", ("top", "shoes")[i % 2], split, jpeg(worn), jpeg(plain)))
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    save(folder / "vit", "vit")
    store = fill(str(folder / "store"), shots(["train"] * 12 + ["val"] * 3 + ["test"] * 5))
    base = EncoderConfig(name=str(folder / "vit"))
    for table, column, kind in ((schema.GARMENTS, schema.CROP, "garment"), (schema.IMAGES, schema.BYTES, "image")):
        rows = delta.read(store, table, [table.key[0], column])
        embed(store, dict(zip(*(c.to_pylist() for c in rows.columns))), kind, base)
    return store, base


def options(store, out: Path, **more) -> train.Config:
    path, base = store
    return train.Config(**{"store": path, "encoder": base, "learn": LEARN, "train": LOOP, "out": str(out), "ray": RAY} | more)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("recipe", "workers"),
    [("head", 1), pytest.param("encoder", 1, marks=pytest.mark.soak), pytest.param("encoder", 2, marks=pytest.mark.soak)],
)
def test_an_encoder_is_trained_measured_and_loaded(store, tmp_path, recipe, workers):
    config = options(store, tmp_path / "out", recipe=recipe, workers=Workers(num_workers=workers))
    summary = train.main(config)
    assert (summary.counts.read, summary.counts.out) == (40, 40)
    assert summary.examples == {"train": 24, "val": 6, "test": 10}
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *("README.md", "config.json", "model.safetensors", "preprocessor_config.json", "metrics.json", "report.html"),
    }
    card = (tmp_path / "out" / "README.md").read_text()
    for part in (
        "git revision",
        "## Data",
        "examples: 24 train, 6 val, 10 test",
        "Recall@1:",
        "## Licence",
        "learn.batch_pairs: 4",
    ):
        assert part in card
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {(r["when"], r["group"]) for r in figures} == {
        (w, g) for w in ("before", "after", "gain") for g in (None, "top", "shoes")
    }
    assert {r["num_queries"] for r in figures if r["group"] is None} == {10}
    assert "polyline" in (tmp_path / "out" / "report.html").read_text()
    assert load_encoder(EncoderConfig(name=summary.use.partition("=")[2])).dim == 8
    if (recipe, workers) == ("encoder", 1):  # run again, it goes on where it stands: at the end
        again = train.main(replace(config, out=str(tmp_path / "again")))
        assert (again.figures, again.before, again.gain) == (summary.figures, summary.before, summary.gain)
        weights = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("out", "again")]
        assert weights[0] == weights[1]


def test_mistakes_are_sentences(store, tmp_path):
    with pytest.raises(UsageError, match="run 'w2w mine' first"):
        train.main(options((str(tmp_path), EncoderConfig()), tmp_path))
    for wrong, said in (
        ({"recipe": "heads"}, r"recipe=heads: unknown\. Did you mean 'head'\? Allowed: encoder, head, outfits"),
        ({"sources": ["polyvore"]}, "no 'polyvore', only own"),
        ({"recipe": "head", "encoder": EncoderConfig()}, f"lacks vectors of {DEFAULT}"),
        ({"out": "s3://bucket/out"}, "written to a local folder"),
        ({"learn": replace(LEARN, negatives=3)}, "run 'w2w harden' first"),
        ({"train": replace(LOOP, select="mAP")}, "train.select=mAP: must be one of Recall@1"),
        ({"train": replace(LOOP, precision="float16")}, "float16: needs --workers.num_gpus=1"),
    ):
        with pytest.raises(UsageError, match=said):
            train.main(options(store, **{"out": tmp_path} | wrong))
    only = fill(str(tmp_path / "store"), shots(["train"] * 2 + ["val"]))
    with pytest.raises(UsageError, match="no pairs of split 'test'"):
        train.main(options((only, store[1]), tmp_path))


def test_a_dry_run_does_nothing(store, tmp_path):
    assert train.main(options(store, tmp_path / "out", dry_run=True)).examples["train"] == 24
    assert not (tmp_path / "out").exists()
