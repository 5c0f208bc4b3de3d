"""LookBook's experiments and Polyvore's questions, by figures worked out by hand."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup

from tests.unit.evaluation.stores import embed, fill, image_of, write
from w2w import schema, usage
from w2w.errors import JobFailed, UsageError
from w2w.evaluation import job_compare as compare
from w2w.evaluation import job_evaluate as evaluate
from w2w.evaluation.flow_lookbook import best_threshold, pair_rows, worst_of_gallery, worst_of_pairs
from w2w.images.lookbook import file_name
from w2w.mining.sets.records import Anchor, Photo, Shop
from w2w.models.compatibility import make_scorer, save_scorer
from w2w.models.config import EncoderConfig
from w2w.models.options import ScorerConfig, SiameseConfig
from w2w.table import delta
from w2w.training.lookbook.experiments import Pairs


def options(store: str, protocol: str, **more) -> evaluate.Config:
    return evaluate.Config(**{"store": store, "protocol": protocol, "encoder": EncoderConfig(name="model-a")} | more)


def lookbook(store: str, worn: int = 10) -> tuple[list[str], list[list[str]]]:
    """Four products of the test split and two of val, each with ``worn`` photos; names of the test's."""
    shops, photos, names = [], [], []
    for product in range(6):
        split = "test" if product < 4 else "val"
        clean = file_name(product, product * 100, clean=True)
        shops.append(Shop(clean, str(product), f"/{clean}", "top", "top", split))
        mine = [file_name(product, product * 100 + i + 1, clean=False) for i in range(worn)]
        photos += [Photo(n, f"/{n}", split, (Anchor(str(product), (clean,), "top", "top", None),)) for n in mine]
        names.append((clean, mine))
    fill(store, "lookbook", shops, photos)
    return [clean for clean, _ in names], [mine for _, mine in names]


def one_hot(place: int) -> np.ndarray:
    return np.eye(6)[place]


def test_lookbook_2(tmp_path):
    """Photos of three products look like their product, those of the fourth like the first."""
    store = str(tmp_path)
    clean, worn = lookbook(store)
    vectors = {image_of(name): one_hot(p) for p, name in enumerate(clean)}
    vectors |= {image_of(n): one_hot(0 if p == 3 else p) for p, mine in enumerate(worn) for n in mine}
    embed(store, vectors)
    found = evaluate.main(options(store, "lookbook-2"))
    assert (found.queries, found.gallery) == (40, 4)
    # the fourth is one of three that tie behind the first: ranks 2 to 4, of which five hold all
    assert {n: f.value for n, f in found.figures.items()} == {
        "recall of 4@1": 0.75,
        "recall of 4@5": 1,
        "recall of 4@10": 1,
        "recall of 4@20": 1,
    }
    assert found.figures["recall of 4@1"].num == 4


def test_lookbook_1_by_an_encoder(tmp_path):
    """Right pairs have the cosine .8, wrong ones 0: the threshold lies between; on the test all but the fourth's are right."""
    store = str(tmp_path)
    clean, worn = lookbook(store)
    vectors = {image_of(name): one_hot(p) for p, name in enumerate(clean)}
    vectors |= {image_of(n): 0.8 * one_hot(p) if p != 3 else np.zeros(6) + 1e-6 for p, mine in enumerate(worn) for n in mine}
    embed(store, vectors)
    figures = evaluate.main(options(store, "lookbook-1")).figures
    assert {n: f.value for n, f in figures.items()} == {
        "precision": 1,
        "recall": pytest.approx(0.75),
        "F1": pytest.approx(2 * 0.75 / 1.75),
        "accuracy": pytest.approx(0.875),
    }
    assert figures["accuracy"].num == 80
    assert figures["recall"].low < 0.75 < figures["recall"].high


def test_the_photos_answered_worst_are_shown():
    scores = np.array([[0.9, 0.1, 0.2], [0.8, 0.1, 0.7], [0.5, 0.1, 0.4]])
    gallery = Pairs(("p0", "p1", "p2"), ("w0", "w1", "w2"), np.ones(3, bool))
    wrong = worst_of_gallery(gallery, scores, shown=2)
    assert [(w.photo, w.said) for w in wrong] == [(f"w{n}", f"its product comes at rank {r} of 3") for n, r in ((1, 3), (2, 2))]
    assert [[(s.image, s.right) for s in w.found] for w in wrong] == [
        [("p1", True), ("p0", False)],
        [("p0", False), ("p2", True)],
    ]
    assert len(worst_of_gallery(gallery, scores, count=1)) == 1
    pairs = Pairs(("p0", "p1", "p2", "p0"), ("w0", "w1", "w2", "w3"), np.array([True, True, False, False]))
    told = worst_of_pairs(pairs, np.array([0.9, 0.4, 0.8, 0.1]), 0.5)
    assert [(w.photo, w.said) for w in told] == [
        ("w2", "told this product, and it is another"),
        ("w1", "told another product, and it is this one"),
    ]
    assert [[(s.image, s.right) for s in w.found] for w in told] == [[("p2", False)], [("p1", True)]]


def test_lookbook_needs_ten_photos_and_a_validation_split(tmp_path):
    few = str(tmp_path / "few")
    lookbook(few, worn=9)
    with pytest.raises(
        UsageError, match=r"0 products of 'lookbook' and split 'test' with 10 photos.*w2w convert lookbook FOLDER"
    ):
        evaluate.main(options(few, "lookbook-2", encoder=EncoderConfig()))
    with pytest.raises(UsageError, match=r"0 products of 'lookbook'"):
        evaluate.main(options(str(tmp_path / "nothing"), "lookbook-1", encoder=EncoderConfig()))
    store = str(tmp_path / "store")
    clean, _ = lookbook(store)
    embed(store, {image_of(name): one_hot(0) for name in clean})
    with pytest.raises(UsageError, match=r"^picture image of .* has no vector of model-a: run 'w2w embed'"):
        evaluate.main(options(store, "lookbook-2"))


def test_lookbook_by_a_siamese_network(tmp_path):
    """The pictures themselves are read; the version is the network's own, whatever encoder is named."""
    from tests.cluster.paired import jpeg
    from w2w.models.siamese import Siamese, save_siamese

    store = str(tmp_path / "store")
    clean, worn = lookbook(store)
    rng = np.random.default_rng(0)
    fixed = {
        schema.WIDTH: 1,
        schema.HEIGHT: 1,
        schema.FORMAT: "jpeg",
        schema.PHASH: 0,
        schema.FETCHED_AT: 0,
        schema.SOURCE_URI: "",
    }
    names = [image_of(n) for n in (*clean, *(n for mine in worn for n in mine))]
    write(
        store,
        schema.IMAGES,
        [{schema.IMAGE_ID: n, schema.BYTES: jpeg(rng.integers(0, 255, (120, 90, 3), np.uint8))} | fixed for n in names],
    )
    torch.manual_seed(0)
    save_siamese(Siamese(SiameseConfig()), tmp_path / "net")
    found = evaluate.main(options(store, "lookbook-1", scorer=str(tmp_path / "net"), encoder=EncoderConfig()))
    assert set(found.figures) == {"precision", "recall", "F1", "accuracy"}
    assert found.model_version != "model-a"
    rows = delta.read(store, schema.EVALUATIONS, ["model", "model_version"]).to_pylist()
    assert {(r["model"], r["model_version"]) for r in rows} == {(str(tmp_path / "net"), found.model_version)}
    with pytest.raises(UsageError, match=r"nowhere: it has no model\.safetensors"):
        evaluate.main(options(store, "lookbook-1", scorer=str(tmp_path / "nowhere"), encoder=EncoderConfig()))


def test_the_threshold_that_tells_best():
    scores, same = np.array([0.1, 0.4, 0.4, 0.6, 0.9]), np.array([False, False, True, True, True])
    assert best_threshold(scores, same) == 0.4  # .6 is right four times as well: the lowest is taken
    assert best_threshold(np.array([0.5, 0.5]), np.array([True, False])) == 0.5
    tied, same = np.array([0.1, 0.4, 0.4, 0.4, 0.6]), np.array([False, False, False, True, True])
    assert best_threshold(tied, same) == 0.6  # no cut goes between equal scores
    assert best_threshold(np.array([0.9, 0.1, 0.2]), np.array([True, False, False])) == 0.9


def test_pairs_of_a_product_are_drawn_together():
    pairs = Pairs(("a",) * 50 + ("b",) * 50, ("w",) * 100, np.ones(100, bool))
    rows = {row[1]: row for row in pair_rows(np.arange(100) < 50, pairs, np.random.default_rng(0))}
    assert rows["accuracy"][3:6] == (0.5, 0.0, 1.0)
    assert rows["precision"][3] == 1


ITEMS = {"t0": (1, 0), "t1": (0, 1), "b0": (1, 0), "b1": (0, 1), "s0": (1, 0), "s1": (0, 1)}
SLOTS = {"t": "tops", "b": "bottoms", "s": "shoes"}


def item(name: str) -> dict:
    return {"slot": SLOTS[name[0]], "item_id": name, "image_id": name, "category": "top"}


def question(name: str, kind: str, items: str, answers: str, right: int, split: str = "test") -> dict:
    given = {"items": [item(i) for i in items.split()], "answers": [item(i) for i in answers.split()]}
    return {"question_id": name, "kind": kind, "right": right, "split": split, "source": "polyvore-disjoint"} | given


QUESTIONS = [
    question("1", "fill_in_blank", "t0 b0", "s1 s0", 1),  # right: the alike one
    question("2", "fill_in_blank", "t0 b0", "s1 s0", 0),  # wrong
    question("3", "fill_in_blank", "t0 b1", "s1 s0", 0),  # a tie: half
    question("4", "fill_in_blank", "t0 b1", "s1 s0", 0, split="train"),
    question("5", "compatibility", "t0 b0 s0", "", 1),
    question("6", "compatibility", "t1 b1", "", 0),  # a tie with 5
    question("7", "compatibility", "t0 b1", "", 0),
]


@pytest.fixture
def asked(tmp_path) -> str:
    store = str(tmp_path / "store")
    write(store, schema.QUESTIONS, QUESTIONS)
    embed(store, ITEMS)
    embed(store, dict.fromkeys(ITEMS, (0.6, 0.8)), "constant")
    embed(store, {k: v for k, v in ITEMS.items() if k != "s0"}, "gaps")
    return store


def test_polyvore_by_cosines(asked):
    found = evaluate.main(options(asked, "polyvore-disjoint"))
    assert {n: f.value for n, f in found.figures.items()} == {"FITB": 0.5, "AUC": 0.75}
    assert (found.figures["FITB"].num, found.figures["AUC"].num, found.queries) == (3, 3, 6)
    page = BeautifulSoup(Path(found.evaluation).read_text(encoding="utf-8"), "html.parser")
    assert page.select_one("h3").get_text() == "The 1 worst-answered queries"  # a tie is no mistake
    assert "the right shoes comes at place 2 of 2" in page.select_one(".query").get_text()
    assert [card["data-product"] for card in page.select(".product")] == ["s0", "s1"]
    assert [bool(card.select(".mark")) for card in page.select(".product")] == [False, True]
    constant = evaluate.main(options(asked, "polyvore-disjoint", encoder=EncoderConfig(name="constant")))
    assert {n: f.value for n, f in constant.figures.items()} == {"FITB": 0.5, "AUC": 0.5}  # of two answers


def test_questions_with_an_item_without_a_vector_are_left_out_and_told(asked):
    found = evaluate.main(options(asked, "polyvore-disjoint", encoder=EncoderConfig(name="gaps")))
    assert found.left_out == {"questions": 4}
    assert set(found.figures) == {"AUC"}


def test_polyvore_by_a_trained_scorer(asked, tmp_path):
    torch.manual_seed(0)
    config, slots = ScorerConfig(kind="set", hidden=8, layers=1), ("tops", "bottoms", "shoes")
    network = make_scorer(2, 3, config)
    save_scorer(network, tmp_path / "net", config, 2, slots)
    found = evaluate.main(options(asked, "polyvore-disjoint", scorer=str(tmp_path / "net")))
    assert found.figures["FITB"].num == 3
    assert found.model_version not in ("model-a", None)
    save_scorer(network, tmp_path / "other", config, 2, ("tops", "bottoms", "hats"))
    with pytest.raises(UsageError, match=r"ask for slots that the scorer does not know: shoes"):
        evaluate.main(options(asked, "polyvore-disjoint", scorer=str(tmp_path / "other")))
    save_scorer(make_scorer(5, 3, config), tmp_path / "long", config, 5, slots)
    with pytest.raises(UsageError, match=r"scores vectors of 5 dimensions, and this encoder gives 2"):
        evaluate.main(options(asked, "polyvore-disjoint", scorer=str(tmp_path / "long")))
    three = ScorerConfig(kind="pairs", hidden=8, dim=4)
    save_scorer(make_scorer(2, 3, three), tmp_path / "three", three, 2, slots)
    with pytest.raises(UsageError, match=r"is for outfits of tops, bottoms, shoes, and these are of any size"):
        evaluate.main(options(asked, "polyvore-disjoint", scorer=str(tmp_path / "three")))
    with pytest.raises(UsageError, match=r"nothing of source 'polyvore-nondisjoint'"):
        evaluate.main(options(asked, "polyvore-nondisjoint"))


def test_every_protocol_says_its_source():
    from w2w.evaluation.protocols import PROTOCOLS
    from w2w.mining.sets import SETS

    assert all(p.source and p.says for p in PROTOCOLS.values())
    assert {p.set for p in PROTOCOLS.values()} <= {*SETS, schema.OWN}
    said = next(o.text for o in usage.options(evaluate.Config) if o.name == "protocol")
    assert set(PROTOCOLS) == set(re.sub(r" \(.*?\)", "", said).rstrip(".").split(", "))


@pytest.fixture
def worn(tmp_path) -> str:
    """Six worn outfits of one direction each, and one of each with the shoes of the next; one of another split, and one without
    a vector."""
    store = str(tmp_path / "store")

    def row(number: int, shoes: int, split: str = "test") -> dict:
        items = [
            item(f"{s}{n}") | {"slot": slot} for s, slot, n in zip("tbs", ("top", "bottom", "shoes"), (number, number, shoes))
        ]
        made = None if shoes == number else f"o{number}"
        told = {"outfit_id": f"o{number}" + ("m" if made else ""), "items": items, "modified_of": made}
        return told | {"replaced": [], "split": split, "source": schema.OWN}

    rows = [row(n, shoes) for n in range(6) for shoes in (n, (n + 1) % 6)]
    write(store, schema.OUTFITS, [*rows, row(6, 6, "train"), row(7, 7)])
    at = {f"{s}{n}": (np.cos(n), np.sin(n)) for s in "tbs" for n in range(7)}
    embed(store, at)
    embed(store, dict.fromkeys(at, (0.6, 0.8)), "constant")
    return store


def test_a_stores_own_outfits(worn):
    found = evaluate.main(options(worn, "own-outfits"))
    assert {n: (f.value, f.num) for n, f in found.figures.items()} == {"FITB": (1, 6), "AUC": (1, 12)}
    assert (found.queries, found.left_out, found.source) == (18, {"questions": 1}, schema.OWN)
    constant = evaluate.main(options(worn, "own-outfits", encoder=EncoderConfig(name="constant")))
    assert {n: f.value for n, f in constant.figures.items()} == {"FITB": 0.25, "AUC": 0.5}  # of four answers, by chance
    assert constant.model_version == "constant"


def test_scorers_are_compared_on_a_stores_own_outfits(worn, tmp_path):
    torch.manual_seed(0)
    config = ScorerConfig(kind="set", hidden=8, layers=1)
    for name, slots in (("net", ("top", "bottom", "shoes")), ("other", ("tops", "bottoms", "shoes"))):
        save_scorer(make_scorer(2, 3, config), tmp_path / name, config, 2, slots)
    more = {"store": worn, "a": "cosine", "of": "scorers", "protocol": "own-outfits", "encoder": EncoderConfig(name="model-a")}
    with pytest.raises(JobFailed, match=r"^B is worse: FITB 1\.000 -> 0\.") as e:
        compare.main(compare.Config(b=str(tmp_path / "net"), **more))
    found = e.value.result
    assert (found.queries, found.before["AUC"].value) == (18, 1)
    assert set(found.lost) < {f"o{n}" for n in range(6)}
    assert compare.main(compare.Config(b=str(tmp_path / "net"), dry_run=True, **more)).queries == 18
    with pytest.raises(UsageError, match="are of top, bottom, shoes, and the scorer knows tops, bottoms, shoes"):
        compare.main(compare.Config(b=str(tmp_path / "other"), **more))
    with pytest.raises(UsageError, match="has nothing of source 'mine': run 'w2w compose'"):
        compare.main(compare.Config(b=str(tmp_path / "net"), source="mine", **more))
