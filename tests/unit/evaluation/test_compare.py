"""Two models on the same queries: differences worked out by hand, who won, what changed, and the exit code."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.cluster.paired import jpeg
from tests.unit.evaluation.stores import LINEAGE, embed, fill, garment_of, image_of, write
from tests.unit.evaluation.test_looks_and_outfits import asked  # noqa: F401
from tests.unit.evaluation.test_protocols import STREET_PHOTOS, STREET_SHOPS, angle, photo, shop, street  # noqa: F401
from tests.unit.index.conftest import Catalog, run_job
from w2w import schema
from w2w.engine.job import start
from w2w.errors import JobFailed, UsageError
from w2w.evaluation import job_compare as compare
from w2w.evaluation.compare import churn, f1, gains, is_worse, won
from w2w.evaluation.flow import find_model
from w2w.index.manifest import index_uri
from w2w.index.spec import IndexConfig
from w2w.models.config import EncoderConfig


def test_a_difference_is_paired_and_of_products():
    a, b = np.array([0, 1, 1, 0.0]), np.array([1, 1, 1, 0.0])
    groups, clusters = np.array(["x", "x", "y", "y"], dtype=object), np.array(["p", "p", "q", "q"])
    found = {g.group: g for g in gains("recall@1", [a], [b], groups, clusters, 0)}
    assert (found[None].a, found[None].b, found[None].value, found[None].num) == (0.5, 0.75, 0.25, 4)
    assert (found[None].low, found[None].high) == (0, 0.5)  # two products: each resample has one of three means
    assert (found["x"].value, found["x"].low, found["x"].high) == (0.5, 0.5, 0.5)
    same = gains("recall@1", [a], [a], groups, clusters, 0)
    assert all((g.value, g.low, g.high) == (0, 0, 0) for g in same)


def test_a_ratio_is_of_the_sums():
    """Two photos: 1 right and 1 wrong, then 3 right: F1 is 2 * 4 / (8 + 1), not the mean of .67 and 1."""
    right, wrong, missed = np.array([1, 3]), np.array([1, 0]), np.array([0, 0])
    nothing = np.array(["", ""], dtype=object)
    found = gains("F1", [right, wrong, missed], [right, 0 * wrong, missed], nothing, None, 0, f1)[0]
    assert found.a == pytest.approx(8 / 9)
    assert found.b == 1


def test_churn_and_who_won():
    a = np.array([["1", "2", "3"], ["1", "2", ""], ["", "", ""]], dtype=object)
    b = np.array([["3", "2", "1"], ["1", "9", "2"], ["1", "2", "3"]], dtype=object)
    assert churn(a, b, 3).tolist() == [0, 0, 0]
    assert churn(a, b, 2).tolist() == [0.5, 0.5, 0]
    found = won(np.array([0, 1, 0.5, 1]), np.array([1, 0, 0.75, 1]))
    assert (found.b.tolist(), found.a.tolist(), found.num_tied) == ([0, 2], [1], 1)


@pytest.mark.parametrize(
    ("value", "low", "high", "tolerance", "strict", "worse"),
    [
        (-0.05, -0.09, -0.01, 0.0, False, True),
        (-0.05, -0.11, 0.01, 0.0, False, False),  # not sure
        (-0.05, -0.11, 0.01, 0.0, True, True),
        (-0.05, -0.09, -0.01, 0.02, False, False),  # it may be within
        (-0.05, -0.09, -0.03, 0.02, False, True),
        (-0.05, -0.09, -0.03, 0.06, True, False),
        (0.0, 0.0, 0.0, 0.0, True, False),
        (0.05, 0.01, 0.09, 0.0, True, False),
    ],
)
def test_when_b_is_worse(value, low, high, tolerance, strict, worse):
    from w2w.evaluation.compare import Gain

    assert is_worse(Gain(None, "m", 0.5, 0.5 + value, value, low, high, 9), tolerance, strict) is worse


def options(store: str, a: str, b: str, **more) -> compare.Config:
    return compare.Config(**{"store": store, "a": a, "b": b, "protocol": "street2shop"} | more)


@pytest.fixture
def two(street):  # noqa: F811
    """model-b finds nothing at rank 1."""
    far = {image_of(s.name): angle(40 * i) for i, s in enumerate(STREET_SHOPS)}
    asking = {garment_of(p): angle(degrees) for p, degrees in zip(STREET_PHOTOS, (100, 100, 240, 0))}
    embed(street, far | asking, "model-b")
    return street


def test_encoders(two):
    with pytest.raises(JobFailed, match=r"^B is worse: recall@1 0\.333 -> 0\.000 \(-0\.333 \[-0\.\d+, .*--strict") as e:
        compare.main(options(two, "model-a", "model-b", strict=True))
    found = e.value.result
    assert (found.queries, found.metric, found.worse) == (3, "recall@1", True)
    assert (found.before["recall@1"].value, found.figures["recall@1"].value) == (pytest.approx(1 / 3), 0)
    assert found.gain["recall@1"].value == pytest.approx(-1 / 3)
    assert found.gain_by_category["pants"].value == -0.5
    assert (found.lost, found.won, found.num_tied) == ((garment_of(STREET_PHOTOS[0]),), (), 2)
    page = Path(found.report).read_text()
    assert "What B answers worse than A" in page
    assert "What B answers better than A" not in page
    assert len(json.loads(Path(found.report).with_name("metrics.json").read_text())["lost"]) == 1
    back = compare.main(options(two, "model-b", "model-a", strict=True))
    assert back.gain["recall@1"].value == pytest.approx(1 / 3)
    assert (back.version_a, back.version_b, back.num_won) == ("model-b", "model-a", 1)
    unsure = compare.main(options(two, "model-a", "model-b"))  # three queries of two products tell nothing for sure
    assert unsure.verdict.startswith("B is not surely worse")
    version = find_model(two, EncoderConfig()).version
    for a, b, of in (("model-a", "model-a", "encoders"), (EncoderConfig().name, version, "encoders")):
        embed(two, {image_of(STREET_SHOPS[0].name): angle(0)}, b)
        with pytest.raises(UsageError, match=f"^{a} and {b} are the same.*: there is nothing to compare"):
            compare.main(options(two, a, b, of=of, dry_run=True))


def test_another_metric_decides(two):
    assert compare.main(options(two, "model-a", "model-b", metric="recall@20", strict=True)).metric == "recall@20"
    with pytest.raises(UsageError, match=r"--metric=recall@3: must be one of recall@1, recall@5, recall@10, recall@20"):
        compare.main(options(two, "model-a", "model-b", metric="recall@3"))


def test_both_look_among_the_pictures_that_both_have(two):
    some = {image_of(s.name): angle(3 * i) for i, s in enumerate(STREET_SHOPS) if s.name != "pants/1/11"}
    embed(two, some | {garment_of(p): angle(0) for p in STREET_PHOTOS[1:]}, "model-c")
    found = compare.main(options(two, "model-a", "model-c", max_reject_rate=0.5))
    assert found.left_out == {"queries": 1, "gallery": 1}
    assert found.queries == 2
    assert found.before["recall@1"].value == 0  # of model-a, without the query and the picture that it was right with


def test_the_exit_code_and_the_json_are_for_a_pipeline(two, tmp_path, capsys):
    told = tmp_path / "told.json"
    line = ["model-a", "model-b", f"--store={two}", "--protocol=street2shop", "--strict", f"--json={told}"]
    with pytest.raises(SystemExit) as e:
        start(compare.main, compare.Config, line, "w2w compare")
    assert e.value.code == 1
    found = json.loads(told.read_text())
    assert (found["exit"], found["worse"], found["gain"]["recall@1"]["value"]) == (1, True, pytest.approx(-1 / 3))
    said = capsys.readouterr()
    assert "B is worse" in said.err
    assert "recall@1, before" in said.out  # the table, too
    with pytest.raises(SystemExit) as e:
        start(compare.main, compare.Config, [*line[1:2], *line[:1], *line[2:]], "w2w compare")
    assert e.value.code == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"a": ""}, r"--a: name two encoders: 'w2w compare A B --of=encoders'"),
        ({"of": "losses"}, r"--of=losses: must be one of encoders, indexes, scorers, detectors"),
        ({"tolerance": 1.5}, r"--tolerance=1\.5: from 0 to below 1"),
        ({"limit": 3}, r"--limit: a comparison on some"),
        (
            {"protocol": "polyvore-disjoint"},
            r"=polyvore-disjoint: does not measure encoders; must be one of street2shop",
        ),
        ({"of": "scorers"}, r"--protocol=street2shop: does not measure scorers; must be one of own-outfits, polyvore"),
        ({"of": "detectors"}, r"--protocol=street2shop: detectors are asked the test photos"),
        ({"b": "model-x"}, r"encoder\.name=model-x: unknown"),
        ({"source": "other"}, r"no pairs of 'other'"),
    ],
)
def test_mistakes_are_sentences_in_a_dry_run_too(two, more, said):
    for dry in (True, False):
        with pytest.raises(UsageError, match=said):
            compare.main(options(two, **{"a": "model-a", "b": "model-b", "dry_run": dry} | more))


def test_a_dry_run_counts(two):
    found = compare.main(options(two, "model-a", "model-b", dry_run=True))
    assert (found.queries, found.gallery, found.worse, found.report) == (3, 7, None, None)
    assert not Path(two, "reports").exists()


def test_scorers(asked):  # noqa: F811
    """All answers of the constant encoder tie, so that the other is surer of every question, rightly or not."""
    import torch

    from w2w.models.compatibility import make_scorer, save_scorer
    from w2w.models.options import ScorerConfig

    torch.manual_seed(0)
    config = ScorerConfig(kind="set", hidden=8, layers=1)
    folder = Path(asked).parent / "net"
    save_scorer(make_scorer(2, 3, config), folder, config, 2, ("tops", "bottoms", "shoes"))
    more = {"of": "scorers", "protocol": "polyvore-disjoint", "encoder": EncoderConfig(name="model-a"), "tolerance": 0.99}
    found = compare.main(compare.Config(store=asked, a="cosine", b=str(folder), **more))
    assert (found.metric, found.queries) == ("FITB", 6)
    assert set(found.gain) == {"FITB", "AUC"}
    assert found.before["FITB"].value == 0.5
    assert found.before["AUC"].value == 0.75
    assert found.num_won + found.num_lost + found.num_tied == 3
    assert compare.main(compare.Config(store=asked, a="cosine", b=str(folder), dry_run=True, **more)).queries == 6
    copy = shutil.copytree(folder, folder.with_name("copy"))
    for a, b in (("cosine", "cosine"), (str(folder), str(copy))):
        with pytest.raises(UsageError, match=r"are the same.*: there is nothing to compare"):
            compare.main(compare.Config(store=asked, a=a, b=b, **more))


def test_detectors(tmp_path):
    from tests.unit.evaluation.detectors import BOXES

    store, photo = str(tmp_path), jpeg(np.full((100, 60, 3), 90, np.uint8))
    objects = [
        {"box_xyxy": list(map(float, box)), "category": c, "original_label": c, "ignore": False} for c, box in BOXES.items()
    ]
    row = {"source": "s", "split": "test", "image_id": "i", "bytes": photo, "width": 60, "height": 100, "objects": objects}
    row |= {"labelled": ["top", "shoes", "outer"], "row_digest": None, "stage_version": LINEAGE.stage_version}
    write(store, schema.DETECTIONS, [row | {"key": f"s/{i}"} for i in range(4)])
    names = ("tests.unit.evaluation.detectors:Sharp", "tests.unit.evaluation.detectors:Blunt")
    with pytest.raises(JobFailed, match=r"^B is worse: F1 1\.000 -> 0\.000 \(-1\.000 \[-1\.000, -1\.000\]\) on 4 queries") as e:
        compare.main(compare.Config(store=store, a=names[0], b=names[1], of="detectors"))
    found = e.value.result
    assert {n: f.value for n, f in found.figures.items()} == {"F1": 0, "precision": 0, "recall": 0}
    assert (found.num_lost, found.gain_by_category["shoes"].value) == (4, -1)
    page = Path(found.report).read_text()
    assert "A: 2 right, 0 wrong, 0 missed" in page
    assert "B: 0 right, 1 wrong, 2 missed" in page
    assert "Nothing was found" not in page
    assert compare.main(compare.Config(store=store, a=names[0], b=names[1], of="detectors", dry_run=True)).queries == 4
    with pytest.raises(UsageError, match="are the same detector"):
        compare.main(compare.Config(store=store, a=names[0], b=names[0], of="detectors"))


def test_indexes(two):
    """One of all pants, one without those of the product: the queries for it are lost."""
    rows = {"product_id": [], "image_id": [], "category": []}
    for s in STREET_SHOPS:
        for column, value in zip(rows.values(), (f"street2shop/{s.name}", image_of(s.name), s.category)):
            column.append(value)
    at = {"pants/1/10": 60, "pants/1/11": 4, "pants/2/20": 80, "pants/3/30": 85, "skirts/4/40": 20, "dresses/5/50": 200}
    vectors = {image_of(s.name): np.float32(angle(at.get(s.name, 181))) for s in STREET_SHOPS}
    table = pa.table(rows)
    part = table.filter(pa.array(["pants/1" not in image for image in rows["image_id"]]))
    for name, kept in (("whole", table), ("part", part)):
        run_job(index_uri(two, name), Catalog(kept, vectors), IndexConfig(name=name), "model-a")
    more = {"of": "indexes", "encoder": EncoderConfig(name="model-a")}
    with pytest.raises(JobFailed, match=r"^B is worse: recall@1") as e:
        compare.main(options(two, "whole", "part", strict=True, **more))
    found = e.value.result
    assert (found.before["recall@20"].value, found.figures["recall@20"].value) == (1, pytest.approx(1 / 3))
    assert found.num_lost >= 1
    assert found.churn.value > 0
    with pytest.raises(UsageError, match=r"^whole and whole@.* are the same"):
        compare.main(options(two, "whole", f"whole@{found.version_a}", **more))
    with pytest.raises(UsageError, match="no index is published there"):
        compare.main(options(two, "whole", "gone", **more))


def test_an_index_that_finds_the_product_of_another_query_has_found_none(tmp_path):
    store = str(tmp_path)
    shops = [shop(name, name, "Tee", "top") for name in ("a", "b")]
    photos = [photo(f"q{name}", name, (name,), "Tee", "top") for name in ("a", "b")]
    fill(store, "consumer-to-shop", shops, photos)
    at = {"a": 0, "b": 50}
    embed(store, {image_of(n): angle(d) for n, d in at.items()} | {garment_of(p): angle(40) for p in photos})
    rows = {"product_id": [f"consumer-to-shop/{n}" for n in at], "image_id": [image_of(n) for n in at], "category": ["top"] * 2}
    vectors = {image_of(n): np.float32(angle(d)) for n, d in at.items()}
    for name in ("whole", "again"):
        run_job(index_uri(store, name), Catalog(pa.table(rows), vectors), IndexConfig(name=name), "model-a")
    more = {"of": "indexes", "protocol": "consumer-to-shop", "encoder": EncoderConfig(name="model-a")}
    found = compare.main(compare.Config(store=store, a="whole", b="again", **more))
    assert (found.figures["recall@1"].value, found.figures["recall@10"].value) == (0.5, 1)
    assert (found.churn.value, found.gain["recall@1"].value) == (0, 0)
