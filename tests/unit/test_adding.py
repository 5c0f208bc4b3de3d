"""w2w/README.md, "How to add one": its examples as a package outside the repository, each of them used."""

import dataclasses
import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.models.test_encoder import pictures
from w2w import ids, plugins, schema
from w2w.errors import RejectCode, UsageError
from w2w.garments.stage import to_jpeg

TEXT = (Path(__file__).parents[2] / "w2w" / "README.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^```python\n# (shop_plugins/\w+\.py)\n(.*?)^```$", TEXT, re.S | re.M))
POINTS = dict(re.findall(r'^"(\w+\.[\w-]+)" = "(.+)"$', TEXT, re.M))
MOST_LINES = 30


def write_package(folder: Path) -> None:
    """The examples as an installed distribution: modules and entry points."""
    for name, code in EXAMPLES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code, encoding="utf-8")
    (folder / "shop_plugins" / "__init__.py").touch()
    info = folder / "shop_plugins-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop_plugins\nVersion: 1\n")
    (info / "entry_points.txt").write_text("\n".join(["[w2w.plugins]", *(f"{k} = {v}" for k, v in POINTS.items()), ""]))


@pytest.fixture(autouse=True, scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    write_package(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", str(folder))  # of the process that tries a model
        importlib.invalidate_caches()
        yield folder
    for name in [m for m in sys.modules if m.partition(".")[0] == "shop_plugins"]:
        del sys.modules[name]
        plugins._loaded.pop(name, None)


def test_there_is_a_short_example_of_each_kind():
    assert sorted(name.partition(".")[0] for name in POINTS) == sorted(plugins.OPTIONS)
    assert len(EXAMPLES) == len(POINTS)
    for name, code in EXAMPLES.items():
        assert len(code.splitlines()) < MOST_LINES, name
    for point, target in POINTS.items():
        kind, _, name = point.partition(".")
        assert plugins.find(kind, name, {}) is plugins.find(kind, target, {})


def test_the_dicts_that_it_names_hold_what_w2w_has():
    from w2w.garments import detector, formats
    from w2w.ingest import feed
    from w2w.mining import sets
    from w2w.models import sources
    from w2w.training import job
    from w2w.training.encoders import config

    rooms = {"models/sources.py": sources, "garments/detector.py": detector, "garments/formats.py": formats}
    rooms |= {"ingest/feed.py": feed, "mining/sets/__init__.py": sets, "training/job.py": job}
    rooms |= {"training/encoders/config.py": config}
    stated = re.findall(r"^\| (\w+) \| `--[\w.]+`.*\| `([\w/.]+)`: (.*) \|$", TEXT, re.M)
    assert {kind for kind, *_ in stated} == plugins.OPTIONS.keys() - {"stage"}
    for kind, file, names in stated:
        for name in re.findall(r"`(\w+)`", names):
            found = getattr(rooms[file], name)
            assert found
            assert all(callable(plugins.find(kind, key, found)) for key in found)


def test_its_floors_are_those_that_hold():
    from tests.unit.test_structure import FLOORS

    table = re.search(r"^\| floor \|.*\n\|.*\n((?:\|.*\n)+)", TEXT, re.M)[1].splitlines()
    stated = [set(re.findall(r"`(\w+)`", line)) for line in reversed(table[:-1])]
    assert stated == FLOORS[1:]


def test_files_that_it_names_are_there():
    root = Path(__file__).parents[2] / "w2w"
    named = set(re.findall(r"`((?:\w+/)*\w+\.py)`", TEXT)) - {"rules.py", "page.py", "job.py", "jobs/NAME.py"}
    assert named
    assert not [n for n in named if not (root / n).exists() and not (root.parent / n).exists()]


@pytest.mark.parametrize("name", ["grid", "shop_plugins.encoder:grid"])
def test_an_encoder_embeds(name, monkeypatch):
    from w2w.models.config import EncoderConfig
    from w2w.models.encoder import load_encoder, model_version, try_encoder

    config = EncoderConfig(name=name)
    try_encoder(config)
    encoder = load_encoder(config)
    vectors_ND = encoder.encode(np.stack([encoder.prepare(p) for p in pictures(3)]))
    assert vectors_ND.shape == (3, 48)
    assert np.abs(np.triu(vectors_ND @ vectors_ND.T, 1)).max() < 0.999
    assert encoder.model_version == model_version(EncoderConfig(name="shop_plugins.encoder:grid"))
    monkeypatch.setattr(plugins.find("encoder", name, {}), "version", "2", raising=False)
    assert model_version(config) != encoder.model_version


def test_what_is_no_encoder_is_told():
    from w2w.models.config import EncoderConfig
    from w2w.models.encoder import model_version

    with pytest.raises(UsageError, match="gives a dict; must be"):
        model_version(EncoderConfig(name="builtins:dict"))


def test_a_detector_finds(monkeypatch):
    from w2w.garments.detector import Detector, DetectorConfig, detector_version, threshold_of, try_detector

    config = DetectorConfig("middle")
    try_detector(config)
    (found,) = Detector(config)(pictures(1, (40, 80)))
    assert found.categories == ("top",)
    assert found.boxes_N4.tolist() == [[20, 10, 60, 30]]
    assert threshold_of(config) == 0.5
    version = detector_version(config)
    assert version == detector_version(DetectorConfig("shop_plugins.detector:Middle"))
    monkeypatch.setattr(plugins.find("detector", "middle", {}), "version", "2", raising=False)
    assert detector_version(config) != version


def test_a_loss_is_learnt_from(tmp_path):
    from tests.unit.training.encoders.test_recipe import run, vectors
    from w2w.models import sources
    from w2w.training.config import LoopConfig
    from w2w.training.encoders.config import HeadConfig, LearnConfig
    from w2w.training.encoders.recipe import HeadRecipe

    learn = LearnConfig(loss="pull", batch_pairs=8, head=HeadConfig([4], start="random"))
    loop = LoopConfig(steps=200, warmup_steps=1, measure_every=200, checkpoint_every=20, learning_rate=3e-2)
    rows = vectors()
    recipe = HeadRecipe(learn, sources.find("grid", None, False), rows, [], loop.seed)
    recipe.save = lambda network, folder: None  # of an encoder that only its own code builds
    history = run(recipe, rows, learn, tmp_path, loop)
    losses = [h["losses"]["pull"] for h in history]
    assert losses[-1] < losses[0] * 0.8
    with pytest.raises(UsageError, match=r"learn\.loss=pul: unknown\. Did you mean 'pull'"):
        LearnConfig(loss="pul")


def test_another_loss_is_another_run(monkeypatch):
    from w2w.models.config import EncoderConfig
    from w2w.stage import Counts
    from w2w.training.config import LoopConfig
    from w2w.training.encoders.config import HEAD, LearnConfig
    from w2w.training.encoders.flow import Inspected, PairTable
    from w2w.training.encoders.flow_plan import EncoderPlan

    def identity(loss: str) -> list[object]:
        table, found = PairTable("s", {}, (), None), Inspected({}, 0, "d")
        encoder, learn = EncoderConfig(name="grid"), LearnConfig(loss=loss)
        return EncoderPlan(table, HEAD, encoder, learn, LoopConfig(), found, 1, Counts()).identity()

    before = identity("pull")
    assert ids.digest(*before) != ids.digest(*identity("info_nce"))
    monkeypatch.setattr(plugins.find("loss", "pull", {}), "version", "2", raising=False)
    assert ids.digest(*before) != ids.digest(*identity("pull"))


def test_a_feed_is_read(tmp_path):
    from w2w.ingest.feed import FeedConfig, check_feed, read_feed

    products = "".join(f"<product><sku>{i}</sku><image>{i}.jpg</image><colour>red</colour></product>" for i in (1, 2))
    (tmp_path / "feed.xml").write_text(f"<feed>{products}<product><sku>3</sku></product></feed>")
    config = FeedConfig(uri=str(tmp_path / "feed.xml"), kind="shop-xml", columns={"product_id": "sku"})
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).write_bytes(b"x")
    check_feed(config)
    (batch,) = read_feed(config)
    assert batch.rows.column(schema.PRODUCT_ID).to_pylist() == ["1", "2"]
    assert batch.rows.column(schema.ATTRIBUTES).to_pylist() == [[("colour", "red")]] * 2
    assert batch.rejects.column(schema.REJECT_CODE).to_pylist() == [RejectCode.MISSING_FIELD]
    (tmp_path / "feed.xml").write_text("<feed><product>")
    with pytest.raises(UsageError, match="not valid XML"):
        check_feed(config)


def test_annotations_are_read(tmp_path):
    from w2w.garments.formats import AnnotationsConfig, read_annotations

    (tmp_path / "boxes.csv").write_text("a.jpg,top,1,2,30,40\na.jpg,bag,5,5,9,9\nb.jpg,shoes,0,0,5,5\n")
    rows = read_annotations(AnnotationsConfig(str(tmp_path / "boxes.csv"), "boxes", source="mine"))
    assert [len(objects) for objects in rows.column(schema.OBJECTS).to_pylist()] == [2, 1]
    assert rows.column(schema.LABELLED).to_pylist()[0] == ["bag", "shoes", "top"]
    (tmp_path / "boxes.csv").write_text("../a.jpg,top,1,2,30,40\n")
    with pytest.raises(UsageError, match=r"line 1: '\.\./a\.jpg' is not a file in"):
        read_annotations(AnnotationsConfig(str(tmp_path / "boxes.csv"), "shop_plugins.annotations:read_boxes"))


def test_a_pair_set_is_opened(tmp_path):
    from w2w.mining.sets import SetConfig, open_set
    from w2w.mining.sets.rows import photo_rows, shop_rows

    for folder in ("shop", "worn"):
        (tmp_path / folder).mkdir()
        for name in "ab":
            (tmp_path / folder / f"{name}.jpg").write_bytes(to_jpeg(pictures(1)[0]))
    config = SetConfig("two-folders", str(tmp_path))
    assert config.name == config.catalog == "two-folders"
    assert SetConfig("shop_plugins.pair_set:TwoFolders").catalog == "TwoFolders"
    public = open_set(config)
    (shops,) = shop_rows(public.shops(), config.catalog, "v")
    (photos,) = photo_rows(public.photos(), config.catalog, "v")
    assert shops.column(schema.PRODUCT_ID).to_pylist() == ["two-folders/shop/a.jpg", "two-folders/shop/b.jpg"]
    assert photos.column(schema.PRODUCT_IDS).to_pylist() == [["two-folders/shop/a.jpg"], ["two-folders/shop/b.jpg"]]


def test_a_stage_adds_columns_and_rejects():
    from w2w.cli.apply import Applied, _version, stage_of

    stage = stage_of("colours")
    version = _version("colours", {})
    assert version == _version("shop_plugins.stage:Colours", {}) != _version("colours", {"a": 1})
    red = np.full((50, 50, 3), (200, 30, 30), np.uint8)
    rows = pa.table({schema.IMAGE_ID: ["a", "b"], schema.BYTES: [to_jpeg(red), b"no image"]})
    made = Applied("colours", {}, version)(rows)
    assert np.allclose(made.column("rgb")[0].as_py(), (200, 30, 30), atol=3)
    assert made.column(schema.REJECT_CODE).to_pylist() == [None, RejectCode.NOT_AN_IMAGE]
    assert set(stage.table.schema.names) <= {*made.column_names}
    with pytest.raises(UsageError, match="not those that the job started with"):
        Applied("colours", {}, "another")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"of": "images"}, "`of` and `table`, each a w2w.schema.Table"),
        ({"needs": ("pixels",)}, "table 'images' has no column 'pixels', only image_id"),
        ({"of": schema.EMBEDDINGS}, "are not one per owner_id"),
        ({"table": dataclasses.replace(schema.IMAGES, key=("image_id",))}, "'images' is not a valid name for its own table"),
        ({"table": schema.Table("x", schema.IMAGES.schema, ("image_id",))}, "partition_by"),
        ({"table": schema.Table("x", pa.schema([]), ("image_id",), ("stage_version",))}, "lacks column 'image_id'"),
    ],
)
def test_a_stage_that_cannot_work_is_told(monkeypatch, change, said):
    from w2w.cli.apply import stage_of

    stage = plugins.find("stage", "colours", {})
    for name, value in change.items():
        monkeypatch.setattr(stage, name, value)
    with pytest.raises(UsageError, match=said):
        stage_of("colours")


def test_options_that_a_stage_does_not_take_are_told():
    from w2w.cli.apply import Config, main

    with pytest.raises(UsageError, match=r"options=\{'hue': 1\}: colours does not take them"):
        main(Config(store="s", stage="colours", options={"hue": 1}))


def test_a_recipe_is_planned_and_trained(tmp_path):
    from tests.unit.training.test_flow import append
    from w2w.training.config import LoopConfig
    from w2w.training.job import Config, _plan
    from w2w.training.loop import fit

    store, loop = str(tmp_path / "store"), LoopConfig(steps=200, warmup_steps=1, learning_rate=3, average=0, clip_norm=0)
    usual = {"active": True, "fetched_at": 0}
    sold = [usual | {"product_id": c, "category": c, "price": p} for c, p in (("bag", 90.0), ("hat", 20.0))]
    append(store, schema.PRODUCTS, *sold)
    config = Config(store, recipe="prices", train=loop)
    plan = _plan(config, store)
    history = []

    def report(figures, write) -> None:
        history.append(figures)
        write(tmp_path)

    fit(plan.training(0, 1), report)
    assert history[-1]["losses"]["squared"] < history[0]["losses"]["squared"] / 10
    figures = plan.measure(tmp_path / "model", tmp_path, history, {})["figures"]
    assert {name: figure.value for name, figure in figures.items()} == history[-1]["losses"]
    assert "PricePlan" in plan.card({}, {}, None)
    other = _plan(dataclasses.replace(config, train=dataclasses.replace(loop, seed=1)), store)
    assert ids.digest(*plan.identity()) != ids.digest(*other.identity())
    with pytest.raises(UsageError, match="--test_pairs: is not read by --recipe=prices, which reads --store, --train"):
        _plan(dataclasses.replace(config, test_pairs=3), store)
