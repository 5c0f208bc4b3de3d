"""Tagging: heads that are sure or silent, the colour of what is in front, learning from a feed's columns, and the job."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

import w2w
from tests.unit.nights.nights import without_ray
from tests.unit.recommend.stores import fill
from w2w import schema
from w2w.errors import UsageError
from w2w.evaluation import job_evaluate as evaluate
from w2w.find import finder
from w2w.garments.classifier import Classifier, learnable
from w2w.index import job as index
from w2w.ingest import job as ingest
from w2w.ingest.feed import FeedConfig
from w2w.models import job as embed
from w2w.models import stage as models
from w2w.models.colour import load_colour
from w2w.models.config import COLOUR_DIM, FASHION, KIND_DIM, SHAPE_DIM, TAGS, EncoderConfig
from w2w.models.encoder import Encoder, encoder_input, model_version
from w2w.models.flow import pictures_of
from w2w.similar import job as similar
from w2w.similar.flow import read_catalog
from w2w.stage import Pool
from w2w.table import delta
from w2w.table.current import current_products
from w2w.training.classifier import job as classify
from w2w.training.tags import flow
from w2w.training.tags import job as tag
from w2w.training.tags.flow import called, spelled, untagged
from w2w.training.tags.heads import Head, Tagger, load, save, thresholds
from w2w.training.tags.stage import tagger_version

PAINTS = {"red": (200, 20, 30), "blue": (20, 40, 190), "green": (20, 150, 60)}
COLOURED = EncoderConfig("efficientnet-lite0", colour=0.7)


def head(thresholds_C=(0.9, 0.6), version: str = "") -> Head:
    """Of vectors of two numbers: their softmax."""
    flat = np.zeros(2, np.float32), np.ones(2, np.float32)
    return Head(Classifier(("bag", "top"), version, *flat, ((np.eye(2, dtype=np.float32), flat[0]),)), np.array(thresholds_C))


def test_a_value_below_its_own_threshold_is_not_told():
    tagger = Tagger("efficientnet-lite0", 0.7, {"type": head()})
    sure, unsure, other = tagger(np.float32([[3, 0], [1, 0], [0, 1]]))
    assert sure == [("type", "bag", pytest.approx(0.9526, abs=1e-4))]
    assert unsure == [("type", None, pytest.approx(0.7311, abs=1e-4))]
    assert other == [("type", "top", pytest.approx(0.7311, abs=1e-4))]


def test_thresholds_reach_the_precision_by_what_was_seen():
    told = np.array([[0.99, 0.01]] * 20 + [[0.7, 0.3]] * 20 + [[0.4, 0.6]] * 3)
    truth = np.array([0] * 20 + [0, 1] * 10 + [0, 1, 1])
    low, high = thresholds(told, truth, 0.9)
    assert low == pytest.approx(0.99)  # with the next ones 30.x of 45 are right
    assert high == pytest.approx(0.9)  # reached nowhere, and nothing was seen from .9 on
    assert thresholds(told, truth, 0.6)[0] == pytest.approx(0.6)  # all of them reach it: less probable ones may come
    assert thresholds(np.array([[0.99, 0.01]] * 3), np.zeros(3, int), 0.9)[0] == pytest.approx(0.9)
    wrong = thresholds(np.array([[0.05, 0.95]]), np.array([0]), 0.97)
    assert wrong.tolist() == [0.97, 0.97]
    assert thresholds(np.array([[0.01, 0.99]]), np.array([0]), 0.9)[1] > 0.99  # above what was wrong


def test_a_tagger_is_saved_and_refused(tmp_path):
    where = str(tmp_path / "t")
    made = Tagger("efficientnet-lite0", 0.7, {"a / b": head(), "c": head((0.5, 1.5))}, 0.2)
    save(made, where, {})
    loaded = load(where)
    assert loaded.version == made.version
    assert list(loaded.heads) == ["a / b", "c"]
    assert loaded.version != Tagger("efficientnet-lite0", 0.7, {"a / b": head(), "c": head((0.5, 1.4))}, 0.2).version
    about = json.loads((tmp_path / "t" / "tags.json").read_text())
    for said, change in {
        "has not one threshold": lambda heads: heads["c"].update(thresholds=[0.5]),
        "threshold": lambda heads: heads["c"].update(thresholds=[0.5, float("nan")]),
        "do not form a classifier": lambda heads: heads["c"].update(labels=["x"]),
        "is not the one that": lambda heads: heads["c"].update(temperature=2.0),
        "cannot be read": lambda heads: heads["c"].clear(),
    }.items():
        broken = json.loads(json.dumps(about))
        change(broken["heads"])
        (tmp_path / "t" / "tags.json").write_text(json.dumps(broken))
        with pytest.raises(UsageError, match=f"--tagger={where}: .*{said}"):
            load(where)
    (tmp_path / "t" / "tags.json").write_text(json.dumps(about | {"heads": {}}))
    with pytest.raises(UsageError, match="do not read one encoder's vectors"):
        load(where)
    with pytest.raises(UsageError, match="no tagger there: train one with 'w2w tag --learn', or take w2w-tags"):
        load(str(tmp_path / "none"))


def test_ours_comes_with_the_package():
    ours = load(TAGS)
    assert {"kind", "type", "colour"} <= set(ours.heads)
    assert ours.test_share == 0
    assert all(h.classifier.encoder_version == "" and (h.thresholds_C > 0.3).all() for h in ours.heads.values())


def test_ours_reads_colours_alone_off_the_part_for_colours():
    ours, ends = load(TAGS), np.cumsum([SHAPE_DIM, KIND_DIM, COLOUR_DIM])
    assert (ours.encoder, ours.colour) == (FASHION, 0)
    unread = {"kind": slice(ends[1], ends[2]), "type": slice(ends[1], ends[2]), "colour": slice(ends[0], ends[1])}
    for attribute, part in unread.items():
        classifier = ours.heads[attribute].classifier
        used = classifier.layers[0][0].any(axis=0)
        assert len(used) == ends[2]
        assert not used[part].any()
        assert used.sum() == len(used) - (part.stop - part.start)


def test_a_swatch_is_the_colour_of_what_is_in_front():
    shape = encoder_input(EncoderConfig())
    pictures = np.full((3, shape.size_px, shape.size_px, 3), 255, np.uint8)
    pictures[0, 60:160, 60:160] = PAINTS["red"]
    pictures[1, 60:160, 60:160] = PAINTS["blue"]
    pictures[1, 60:90, 60:160] = PAINTS["red"]  # less of it
    pictures[2] = PAINTS["green"]  # no background
    found = load_colour(shape).dominant(pictures)
    assert found.dtype == np.uint8
    assert found.tolist() == [list(PAINTS[c]) for c in ("red", "blue", "green")]


def test_a_spelling_is_no_value_of_its_own():
    assert spelled(["Navy  Blue", "navy blue", "Navy Blue ", None, "", "NAVY BLUE"]) == ["Navy Blue"] * 3 + [None] * 2 + [
        "Navy Blue"
    ]


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """Sixty painted squares: the feed knows the colour of all but six."""
    folder, rng = tmp_path_factory.mktemp("shop"), np.random.default_rng(0)
    lines = ["product_id,category,image,paint"]
    for n in range(60):
        name = [*PAINTS][n % 3]
        picture = np.full((96, 96, 3), 255, np.uint8)
        side = 40 + n % 30
        picture[8 : 8 + side, 8 : 8 + side] = np.clip(PAINTS[name] + rng.integers(-12, 13, 3), 0, 255)
        (folder / f"{n}.jpg").write_bytes(simplejpeg.encode_jpeg(picture, 95))
        lines.append(f"p{n},top,{n}.jpg,{'' if n < 6 else name.upper() if n % 7 == 0 else name}")
    (folder / "feed.csv").write_text("\n".join(lines) + "\n")
    return folder


class _Engine:
    """Colours of a 4 x 4 grid."""

    dim = 48

    def __call__(self, batch_NHWC: np.ndarray) -> np.ndarray:
        return batch_NHWC[:, 28::56, 28::56].reshape(len(batch_NHWC), -1).astype(np.float32) + 1


def _encoder(config: EncoderConfig) -> Encoder:
    return Encoder(config.name, model_version(config), encoder_input(config), _Engine(), config.store_dtype)


def seen(store: str) -> dict[str, tuple[dict, str]]:
    """By product: what its picture shows, and its swatch."""
    found = delta.read(store, schema.TAGGED, [schema.OWNER_ID, schema.TAGS, schema.SWATCH]).to_pylist()
    by_image = {r["owner_id"]: ({t["attribute"]: t["value"] for t in r["tags"]}, r["swatch"]) for r in found}
    products = current_products(store, [schema.PRODUCT_ID, schema.IMAGE_ID]).to_pylist()
    return {p["product_id"]: by_image[p["image_id"]] for p in products if p["image_id"] in by_image}


def test_a_shop_learns_its_own_words_and_finds_by_them(shop, tmp_path, monkeypatch):
    without_ray(monkeypatch)
    for job in (embed, tag):
        monkeypatch.setattr(job, "try_encoder", lambda config: None)
    for room in (models, finder):
        monkeypatch.setattr(room, "load_encoder", _encoder)
    monkeypatch.setattr(flow, "run_task", lambda work, *args, num_cpus, title: work(*args))
    store, alone = str(tmp_path / "store"), Pool(workers=1)
    ingest.main(ingest.Config(store=store, feed=FeedConfig(uri=str(shop / "feed.csv")), pool=alone))
    asked = tag.Config(store=store, learn=["paint"], encoder=COLOURED, precision=0.6, pool=alone)
    with pytest.raises(UsageError, match="embed"):
        tag.main(asked)
    embed.main(embed.Config(store=store, encoder=COLOURED, pool=alone))
    with pytest.raises(UsageError, match=r"--learn=pain: no product has it\. Did you mean 'paint'\?"):
        tag.main(tag.Config(store=store, learn=["pain"], encoder=COLOURED))
    with pytest.raises(UsageError, match="--learn=category: two classes with"):
        tag.main(tag.Config(store=store, learn=["category"], encoder=COLOURED))
    for dry_run in (True, False):
        said = r"no product has a vector of efficientnet-lite0, version .*: run 'w2w embed --encoder\.name=efficientnet-lite0'"
        with pytest.raises(UsageError, match=said):
            tag.main(replace(asked, encoder=replace(COLOURED, store_dtype="float16"), dry_run=dry_run))
    learnt = tag.main(asked)
    assert learnt.figures["paint accuracy"].value == 1
    page = Path(learnt.report).read_text(encoding="utf-8")
    assert "Tags learnt from the feed" in page
    assert "Sure: probable enough to become a tag" in page
    assert ('<th class="n">products</th>' in page, "queries" in page) == (True, False)

    dry = tag.main(tag.Config(store=store, dry_run=True))
    assert (dry.pending, dry.tagger, dry.encoder) == (60, learnt.tagger, "efficientnet-lite0")
    assert delta.open_table(store, schema.TAGGED) is None
    assert tag.main(tag.Config(store=store, limit=10, pool=alone)).counts.out == 10
    rest = tag.main(tag.Config(store=store, pool=alone))
    assert (rest.counts.out, rest.skipped, rest.tagged["paint"].num) == (50, 10, 60)
    assert tag.main(tag.Config(store=store)).counts.read == 0
    told = seen(store)
    assert sum(told[f"p{n}"][0]["paint"] == [*PAINTS][n % 3] for n in range(60)) >= 55  # those unnamed in the feed, too
    assert sum(values["paint"] is None for values, _ in told.values()) < 6
    assert all(abs(int(told[f"p{n}"][1][1:3], 16) - [*PAINTS.values()][n % 3][0]) < 20 for n in range(60))

    index.main(index.Config(store=store, encoder=COLOURED))
    found = w2w.load_finder(store, whole=True, k=8, filter={"seen_paint": "Blue"})(str(shop / "0.jpg"))
    assert {int(p.product_id[1:]) % 3 for p in found[0].garments[0].products} == {1}
    with pytest.raises(UsageError, match=r"--filter\.seen_pain: .* Did you mean 'seen_paint'\?"):
        w2w.load_finder(store, whole=True, filter={"seen_pain": "blue"})

    measured = evaluate.main(evaluate.Config(store=store, protocol="tags"))
    assert 5 <= measured.queries <= 20  # those that were held out
    assert measured.figures["precision"].value == 1
    assert measured.figures["coverage"].value > 0.8
    rows = delta.read(store, schema.EVALUATIONS, [schema.GROUP, schema.METRIC]).to_pylist()
    assert {(r["group"], r["metric"]) for r in rows} == {(g, m) for g in (None, "paint") for m in ("coverage", "precision")}
    with pytest.raises(UsageError, match="has a value that it knows in an attribute of its feed called kind, type, colour"):
        evaluate.main(evaluate.Config(store=store, protocol="tags", scorer=TAGS))

    with pytest.raises(UsageError, match=f"--encoder.name={TAGS}"):
        tag.main(tag.Config(store=store, encoder=EncoderConfig(TAGS)))

    own, other = load(learnt.tagger), str(tmp_path / "other")
    heads = {name: replace(one, thresholds_C=np.zeros_like(one.thresholds_C)) for name, one in own.heads.items()}
    save(replace(own, heads=heads), other, {})
    begun = tag.main(tag.Config(store=store, tagger=other, limit=10, pool=alone))
    assert (begun.counts.out, begun.still_read) == (10, f"{learnt.tagger} (version {rest.stage_version})")
    found = w2w.load_finder(store, whole=True, k=60, filter={"seen_paint": "Blue"})(str(shop / "0.jpg"))
    assert len(found[0].garments[0].products) > 10
    assert tag.main(tag.Config(store=store, tagger=other, pool=alone)).still_read is None

    alike = similar.Config(store=store, encoder=COLOURED, filter={"seen_paint": "Blue"})
    assert not similar.main(alike).unchanged
    read: list[str] = []
    monkeypatch.setattr(similar, "read_catalog", lambda *args: read.append("") or read_catalog(*args))
    assert (similar.main(alike).unchanged, read) == (True, [])
    back = tag.Config(store=store)
    before = delta.existing(store, schema.TAGGED).version()
    dry, some = tag.main(replace(back, dry_run=True)), tag.main(replace(back, limit=5))
    assert "would read this tagger's" in dry.switched
    assert (some.switched, some.still_read) == (None, f"{other} (version {begun.stage_version})")
    assert delta.existing(store, schema.TAGGED).version() == before
    switched = tag.main(back)
    assert switched.switched.endswith(f" read this tagger's tags from now on, in place of those of {some.still_read}")
    with monkeypatch.context() as earlier:  # of a w2w that recorded only what the options said
        earlier.setattr(delta, "history", lambda opened: [{"w2w": {"stage_version": "v", "config": {"tagger": ""}}}])
        assert called(store, "v") == "v"
    assert (switched.still_read, switched.counts.read, switched.versions) == (None, 0, {"attributes": before + 1})
    assert delta.finished_version(store, schema.TAGGED, "tag") == rest.stage_version
    assert (similar.main(alike).products, read) == (60, [""])  # it does not take the lists for settled
    again = tag.main(back)
    assert (again.switched, again.still_read, delta.existing(store, schema.TAGGED).version()) == (None, None, before + 1)
    assert untagged(store, pictures_of("images"), "tag", rest.stage_version, 10).num_read == 0  # it is a watermark, too
    changed = json.loads(Path(learnt.tagger, "tags.json").read_text())
    assert changed["heads"]["paint"]["encoder_version"] == model_version(COLOURED)
    monkeypatch.setattr(tag, "model_version", lambda config: "another")
    with pytest.raises(UsageError, match=r"was trained on vectors .*, and efficientnet-lite0 makes another now"):
        tag.main(tag.Config(store=store))


def test_options_that_cannot_be(tmp_path):
    store = str(tmp_path)
    for said, options in {
        "--precision=0": {"precision": 0.0},
        "w2w-tags: is w2w's own": {"learn": ["a"], "tagger": TAGS},
        "--learn=a: is named twice": {"learn": ["a", "a"]},
        "no tagger there": {"tagger": str(tmp_path / "x")},
    }.items():
        with pytest.raises(UsageError, match=said):
            tag.main(tag.Config(store=store, **options))


def test_what_nobody_could_learn_is_refused_before_anything_is_done(tmp_path):
    """By a dry run, too."""
    store = str(tmp_path / "store")
    fill(store, range(20))
    few = r"two classes with 8 examples each are needed to train, there are: 4 "
    for dry_run in (True, False):
        with pytest.raises(UsageError, match=f"--learn=category: {few}"):
            tag.main(tag.Config(store=store, learn=["brand", "category"], dry_run=dry_run))
        with pytest.raises(UsageError, match=few):
            classify.main(classify.Config(store=store, train=True, dry_run=dry_run))
    assert tag.main(tag.Config(store=store, learn=["brand"], dry_run=True)).products == 20


def test_of_many_values_the_commonest_are_told():
    examples = {f"{n:03d}": 1 for n in range(500)} | {"z": 7}
    with pytest.raises(UsageError, match=r"there are: 7 z, 1 000, 1 001,.* 1 008 \.\.\.$"):
        learnable(examples, sorted(examples))


def test_versions_tell_taggers_apart():
    one, other = (Tagger("efficientnet-lite0", 0.7, {"type": head(t)}) for t in ((0.9, 0.6), (0.8, 0.6)))
    assert tagger_version(one, EncoderConfig()) == tagger_version(one, EncoderConfig(threads=2))
    assert len({tagger_version(t, e) for t in (one, other) for e in (EncoderConfig("efficientnet-lite0"), COLOURED)}) == 4


def test_custom_code_is_named_by_options_alone(tmp_path):
    save(Tagger("shop_plugins.encoder:grid", 0.0, {"type": head()}), str(tmp_path / "t"), {})
    with pytest.raises(
        UsageError, match=r"was trained with custom code: name it with --encoder\.name=shop_plugins.encoder:grid"
    ):
        tag.main(tag.Config(store=str(tmp_path), tagger=str(tmp_path / "t")))
