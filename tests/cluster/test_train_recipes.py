"""Training scorers of outfits and the networks of LookBook on a real local Ray: from the data to figures, card and page."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.models.test_encoder import save
from tests.unit.training.outfits.test_flow import write, write_embeddings
from tests.unit.training.test_tracking import scalars
from w2w import schema
from w2w.engine.cluster import RayConfig
from w2w.engine.training import Workers
from w2w.errors import UsageError
from w2w.images.lookbook import file_name
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version
from w2w.models.options import GanConfig, ScorerConfig
from w2w.table import delta
from w2w.training import job as train
from w2w.training.config import LoopConfig
from w2w.training.lookbook.config import LookbookConfig
from w2w.training.outfits.config import OutfitsConfig
from w2w.training.tracking import LogConfig

RAY = RayConfig(num_cpus=2)
LOOP = LoopConfig(steps=40, learning_rate=5e-3, warmup_steps=5, measure_every=20, checkpoint_every=20, average=0.9)
OUTFITS = OutfitsConfig(batch_outfits=32, scorer=ScorerConfig(dim=8, hidden=32))
SLOTS, COLOURS, EACH = ("top", "bottom", "shoes"), 4, 20
FILES = {"README.md", "config.json", "model.safetensors", "metrics.json", "report.html"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> EncoderConfig:
    folder = tmp_path_factory.mktemp("encoder")
    save(folder, "vit")
    return EncoderConfig(name=str(folder), engine="torch")


@pytest.fixture(scope="module")
def store(tmp_path_factory, encoder) -> str:
    """Items of four colours; worn outfits are of one colour, modified ones of several; the vectors know the colour."""
    where, rng = str(tmp_path_factory.mktemp("outfits") / "store"), np.random.default_rng(0)
    outfits = []
    for split, count in (("train", 100), ("val", 20), ("test", 40)):
        for i in range(count):
            colour = int(rng.integers(COLOURS))
            others = (colour, *((colour + rng.integers(1, COLOURS, 2)) % COLOURS))
            for name, of, colours in ((f"{split}-{i}", None, (colour,) * 3), (f"{split}-{i}-m", f"{split}-{i}", others)):
                items = [
                    {"slot": s, "item_id": f"{s}-{c}-{rng.integers(EACH)}", "image_id": "x", "category": s}
                    for s, c in zip(SLOTS, colours)
                ]
                row = {"outfit_id": name, "items": items, "modified_of": of, "replaced": [], "split": split}
                outfits.append(row | {"source": schema.OWN})
    write(where, schema.OUTFITS, outfits)
    vectors = []
    for slot in SLOTS:
        for c in range(COLOURS):
            for n in range(EACH):
                v = np.concatenate([np.eye(COLOURS)[c] * 2, np.zeros(8)]) + rng.normal(size=12) * 0.4
                row = {"owner_id": f"{slot}-{c}-{n}", "owner_kind": "slot", "model_version": model_version(encoder)}
                vectors.append(row | {"vector": (v / np.linalg.norm(v)).tolist()})
    delta.create_table(where, schema.EMBEDDINGS)
    write_embeddings(where, vectors)
    return where


def options(store: str, base: EncoderConfig, out: Path, **more) -> train.Config:
    given = {"store": store, "recipe": "outfits", "encoder": base, "outfits": OUTFITS, "train": LOOP, "out": str(out)}
    return train.Config(**given | {"ray": RAY} | more)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_scorer_is_trained_shown_and_evaluated(store, encoder, tmp_path):
    config = options(store, encoder, tmp_path / "out", log=LogConfig(tensorboard=str(tmp_path / "curves")))
    summary = train.main(config)
    assert (summary.counts.read, summary.counts.out) == (320, 320)
    assert (summary.examples["test"], summary.modified["test"]) == (40, 40)
    assert summary.figures["AUC"].value > 0.8
    assert summary.figures["FITB"].value > 0.3
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES
    card = (tmp_path / "out" / "README.md").read_text()
    for part in ("examples: 100 train", "AUC: ", "## Licence", "outfits.batch_outfits: 32", "git revision"):
        assert part in card
    page = (tmp_path / "out" / "report.html").read_text()
    for part in ("polyline", "Vectors as they are", "This scorer", "told apart", "0.85"):
        assert part in page
    rows = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {(r["of"], r["metric"]) for r in rows} == {
        ("Vectors as they are", "AUC"),
        ("This scorer", "AUC"),
        ("This scorer", "FITB"),
    }
    (run,) = (tmp_path / "curves").iterdir()
    assert [step for step, _ in scalars(run)["val/AUC"]] == [20, 40]
    # the model alone, later: the same figures, and nothing of the training is touched
    again = train.main(replace(config, out=None, evaluate=str(tmp_path / "out")))
    assert again.figures == summary.figures
    assert {p.name for p in (tmp_path / "out" / "evaluation").iterdir()} == {"metrics.json", "report.html"}
    assert (tmp_path / "out" / "report.html").read_text() == page


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_what2wear_as_published_and_a_set_transformer(store, encoder, tmp_path):
    told = []
    for name, more in (
        ("published", {"outfits": OutfitsConfig(hinge="outfit"), "train": LoopConfig(), "published": True}),
        ("set", {"outfits": replace(OUTFITS, scorer=ScorerConfig(kind="set", hidden=32, layers=1))}),
        ("two", {"workers": Workers(num_workers=2)}),
    ):
        told.append(train.main(options(store, encoder, tmp_path / name, **more)).figures["AUC"].value)
    page = (tmp_path / "published" / "report.html").read_text()
    assert "no term falls as one drops" in page
    assert json.loads((tmp_path / "published" / "config.json").read_text())["scorer"]["kind"] == "what2wear"
    assert min(told[1:]) > 0.8


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """Products of one colour each, in LookBook's layout."""
    root, image, rng = tmp_path_factory.mktemp("lookbook"), 0, np.random.default_rng(0)
    for product in range(16):
        colour = rng.integers(60, 256, 3)
        for kind in range(4):
            picture = np.full((40, 30, 3), 250.0) if kind == 0 else rng.uniform(90, 130, (50, 24, 3))
            picture[10:30, 8:22] = colour
            Image.fromarray(picture.astype(np.uint8)).save(root / file_name(product, image, clean=kind == 0), quality=95)
            image += 1
    return str(root)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("recipe", "published"), [("siamese", False), ("siamese", True), ("pixeldtgan", False)])
def test_the_networks_of_lookbook_and_their_experiments(folder, encoder, tmp_path, recipe, published):
    small = LookbookConfig(folder, 3, 0.3, 0.2, [4, 300], batch=12, gan=GanConfig(channels=8, code=8))
    loop = LoopConfig() if published else replace(LOOP, steps=4, measure_every=2, checkpoint_every=2, warmup_steps=1)
    workers = Workers(num_workers=1 if published else 2)
    given = {"outfits": OutfitsConfig(), "lookbook": small, "train": loop, "published": published, "workers": workers}
    config = options(str(tmp_path / "store"), encoder, tmp_path / "out", recipe=recipe, **given)
    done = train.main(config)
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES
    assert done.examples == {"train": 11 if published else 9, "val": 0 if published else 2, "test": 5}
    rows = json.loads((tmp_path / "out" / "metrics.json").read_text())
    top = {(r["of"], r["products"]) for r in rows if r["experiment"] == "top"}
    report = 'The report ("Clothing Recommendation")'
    assert {size for of, size in top if of != report} == {4, 5}  # five products are all that the test has
    assert {size for of, size in top if of == report} == {50, 300}
    page = (tmp_path / "out" / "report.html").read_text()
    seed = ["0.043", "0.107"] + (["0.761", "0.713"] if recipe == "siamese" else ["drawn"])
    for part in (*seed, "Experiment 2" if recipe == "siamese" else "Experiment 3", encoder.name):
        assert part in page
    again = train.main(replace(config, out=str(tmp_path / "again"), evaluate=str(tmp_path / "out")))
    assert again.figures == done.figures


def test_mistakes_are_sentences(store, encoder, folder, tmp_path):
    lookbook = LookbookConfig(folder, 3)
    plain = {"recipe": "siamese", "outfits": OutfitsConfig(), "train": LoopConfig()}
    for wrong, said in (
        ({"sources": ["own", "polyvore"]}, "of one source"),
        ({"sources": ["polyvore"]}, "nothing of source 'polyvore'"),
        ({"encoder": EncoderConfig()}, "run 'w2w embed'"),
        ({"published": True}, "omit all but train.seed"),
        ({"published": True, "train": LoopConfig()}, r"omit all --outfits\.\* options except hinge"),
        ({"train": replace(LOOP, select="Recall@1")}, "must be one of AUC, FITB"),
        ({"lookbook": lookbook}, "--lookbook: is not read by --recipe=outfits"),
        ({"evaluate": str(tmp_path / "nowhere")}, "no such folder"),
        (plain, "needs --lookbook.path"),
        (plain | {"recipe": "pixeldtgan", "lookbook": lookbook, "published": True}, "pixeldtgan has none"),
        (plain | {"lookbook": replace(lookbook, test_share=0.01)}, "16 products are too few"),
        (plain | {"lookbook": replace(lookbook, path="/nowhere")}, "no such folder"),
        (plain | {"lookbook": lookbook, "train": LoopConfig(select="AUC")}, "must be one of precision"),
        (plain | {"recipe": "encoder", "published": True}, "--published: is not read"),
    ):
        with pytest.raises(UsageError, match=said):
            train.main(options(store, encoder, tmp_path / "out", **wrong))
    assert train.main(options(store, encoder, tmp_path / "out", dry_run=True)).left_out == 0
    assert not (tmp_path / "out").exists()
