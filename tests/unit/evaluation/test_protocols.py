"""Every protocol on a set so small that its figures are worked out by hand, and planted faults that would change them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.evaluation.stores import embed, fill, garment_of, image_of, write
from w2w import schema
from w2w.errors import UsageError
from w2w.evaluation import job_evaluate as evaluate
from w2w.evaluation.flow import Model, VectorReader, read_gallery, read_queries, read_ranked
from w2w.evaluation.flow_shown import hits_of, worst
from w2w.evaluation.protocols import CROPS, PROTOCOLS, Retrieval
from w2w.evaluation.rules import Ranked, figures, nearest, relevant, sought
from w2w.mining.sets.records import Anchor, Photo, Shop
from w2w.models.config import EncoderConfig
from w2w.table import delta


def shop(
    name: str, product: str | None, label: str, category: str = "bottom", split: str | None = "test", **notes: str
) -> Shop:
    return Shop(name, product, f"/{name}.jpg", label, category, split, notes=tuple(notes.items()))


def photo(name: str, product: str, shops: tuple[str, ...], label: str, category: str = "bottom", split: str = "test") -> Photo:
    return Photo(name, f"/{name}.jpg", split, (Anchor(product, shops, label, category, (0, 0, 9, 9)),))


def angle(degrees: float) -> list[float]:
    """A unit vector; the smaller the angle between two, the nearer they are."""
    return [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]


def options(store: str, protocol: str, **more) -> evaluate.Config:
    return evaluate.Config(**{"store": store, "protocol": protocol, "encoder": EncoderConfig(name="model-a")} | more)


def values(found: evaluate.Result) -> dict[str, float]:
    return {name: pytest.approx(figure.value) for name, figure in found.figures.items()}


def measured(store: str, protocol: Retrieval, catalog: str) -> dict:
    """(group, metric, k) -> (value, queries)."""
    vectors = VectorReader(store, Model("model-a", "model-a", None), 0, 0.0)
    ranked = read_ranked(protocol, read_queries(store, protocol, catalog), read_gallery(store, protocol, catalog), vectors)
    rows = figures(protocol, ranked, np.random.default_rng(0)).to_pylist()
    return {(r["group"], r["metric"], r["k"]): (r["value"], r["num_queries"]) for r in rows}


STREET_SHOPS = [
    shop("pants/1/10", "1", "pants"),
    shop("pants/1/11", "1", "pants"),
    *(shop(f"pants/{p}/{p}0", str(p), "pants", split=None) for p in (2, 3)),  # no pair names them: distractors
    shop("skirts/4/40", "4", "skirts"),
    shop("dresses/5/50", "5", "dresses", "dress"),
    shop("dresses/6/60", "6", "dresses", "dress", split="train"),
]
STREET_PHOTOS = [
    photo("test/7", "1", ("pants/1/10", "pants/1/11"), "pants"),
    photo("test/8", "1", ("pants/1/10", "pants/1/11"), "pants"),
    photo("test/9", "5", ("dresses/5/50",), "dresses", "dress"),
    photo("train/9", "6", ("dresses/6/60",), "dresses", "dress", split="train"),
]


@pytest.fixture
def street(tmp_path) -> str:
    """A query at 0 degrees whose product's second photo is nearest but for a skirt; one at 90, whose product comes third; a
    dress whose nearest is of the train split."""
    store = str(tmp_path / "store")
    fill(store, "street2shop", STREET_SHOPS, STREET_PHOTOS)
    at = {"pants/1/10": 60, "pants/1/11": 4, "pants/2/20": 80, "pants/3/30": 85, "skirts/4/40": 1}
    at |= {"dresses/5/50": 200, "dresses/6/60": 181}
    asked = [angle(0), angle(90), angle(180), angle(181)]
    embed(store, {image_of(k): angle(v) for k, v in at.items()} | {garment_of(p): v for p, v in zip(STREET_PHOTOS, asked)})
    return store


def test_street2shop(street):
    found = evaluate.main(options(street, "street2shop"))
    assert (found.queries, found.gallery, found.encoder, found.model_version) == (3, 7, "model-a", "model-a")
    # pants: the first finds its product at rank 1 (pants/1/11), the second at rank 3; the dress at 2, behind one of train
    assert values(found) == {
        "recall@1": 1 / 3,
        "recall@5": 1,
        "recall@10": 1,
        "recall@20": 1,
        "macro recall@1": 1 / 4,
        "macro recall@5": 1,
        "macro recall@10": 1,
        "macro recall@20": 1,
    }
    assert measured(street, PROTOCOLS["street2shop"], "street2shop")["pants", "recall", 1] == (0.5, 2)


@pytest.mark.parametrize(
    ("fault", "recall"),
    [
        ({"within": schema.CATEGORY}, 0),  # bottoms: a skirt comes first
        ({"within": None}, 0),
        ({"all_splits": False}, 1),  # the dress's gallery without train, pants without what no pair names
    ],
)
def test_a_fault_in_street2shop_is_seen(street, fault, recall):
    protocol = replace(PROTOCOLS["street2shop"], **fault)
    assert measured(street, protocol, "street2shop")[None, "recall", 1][0] == pytest.approx(recall)


def test_another_picture_of_the_product_is_a_hit(street):
    """And where it was none, as in a test by the picture of the first pair, the figure would be another."""
    protocol = PROTOCOLS["street2shop"]
    vectors = VectorReader(street, Model("model-a", "model-a", None), 0, 0.0)
    sides = read_queries(street, protocol, "street2shop"), read_gallery(street, protocol, "street2shop")
    right = read_ranked(protocol, *sides, vectors)
    assert relevant(right, protocol.hits[0])[1].tolist() == [1, 2, 2]  # the dress has one picture, the pants two each
    first = {"street2shop/1": image_of("pants/1/10"), "street2shop/5": image_of("dresses/5/50")}
    by_picture = [first[p] for p in right.queries.column("product").to_pylist()], right.gallery.column("owner_id").to_pylist()
    queries, gallery = (
        side.set_column(side.column_names.index("product"), "product", pa.array(keys))
        for side, keys in zip((right.queries, right.gallery), by_picture)
    )
    wrong = replace(right, queries=queries, gallery=gallery)
    hits = [relevant(ranked, protocol.hits[0])[0][:, 0].sum() for ranked in (right, wrong)]
    assert hits == [1, 0]


def test_deepfashion2_looks_among_all_garments_of_the_shops(tmp_path):
    """Style 0 and other classes are distractors; the same style of another pair is no hit; items of train are not there."""
    store = str(tmp_path)
    shops = [
        shop("validation/1/item1", "validation/1/1", "skirt", split="val"),
        shop("validation/1/item2", None, "skirt", split="val"),
        shop("validation/2/item1", "validation/2/1", "vest", "top", split="val"),
        shop("train/3/item1", "train/3/1", "skirt", split="train"),
    ]
    asked = photo("validation/9", "validation/1/1", ("validation/1/item1",), "skirt", split="val")
    fill(store, "deepfashion2", shops, [asked])
    at = {shops[0].name: 30, shops[1].name: 10, shops[2].name: 20, shops[3].name: 0}
    embed(store, {image_of(k): angle(v) for k, v in at.items()} | {garment_of(asked): angle(0)})
    found = evaluate.main(options(store, "deepfashion2"))
    assert found.gallery == 3
    assert values(found) == {"recall@1": 0, "recall@5": 1, "recall@10": 1, "recall@15": 1, "recall@20": 1}
    at_3 = replace(PROTOCOLS["deepfashion2"], hits=(replace(PROTOCOLS["deepfashion2"].hits[0], ks=(2, 3)),))
    assert [measured(store, at_3, "deepfashion2")[None, "recall", k][0] for k in (2, 3)] == [0, 1]
    in_class = replace(at_3, within=schema.CATEGORY)  # the wrong gallery: one distractor less
    assert measured(store, in_class, "deepfashion2")[None, "recall", 2][0] == 1


def test_in_shop_asks_whole_pictures_of_the_query_partition(tmp_path):
    store = str(tmp_path)
    shops = [
        shop("id_1/a", "id_1", "Denim", partition="gallery"),
        shop("id_2/a", "id_2", "Denim", partition="gallery"),
        shop("id_3/a", "id_3", "Denim", split="train", partition="train"),
    ]
    asked = [photo("id_1/q", "id_1", ("id_1/a",), "Denim"), photo("id_2/q", "id_2", ("id_2/a",), "Denim")]
    fill(store, "in-shop", shops, asked)
    at = {shops[0].name: 0, shops[1].name: 50, shops[2].name: 21}
    whole = {image_of(asked[0].name): angle(10), image_of(asked[1].name): angle(20)}
    embed(store, {image_of(k): angle(v) for k, v in at.items()} | whole | {garment_of(p): angle(49) for p in asked})
    found = evaluate.main(options(store, "in-shop"))
    assert values(found) == {"recall@1": 0.5, "recall@10": 1, "recall@20": 1, "recall@30": 1}
    crops = measured(store, replace(PROTOCOLS["in-shop"], queries=CROPS), "in-shop")
    assert crops[None, "recall", 1][0] == 0.5  # of the other one
    assert measured(store, replace(PROTOCOLS["in-shop"], all_splits=True), "in-shop")[None, "recall", 1][0] == 0.5


def test_consumer_to_shop_has_the_shops_of_the_test_alone(tmp_path):
    store = str(tmp_path)
    shops = [shop("a", "1", "Tee", "top"), shop("b", "1", "Tee", "top"), shop("c", "2", "Tee", "top", split="val")]
    asked = photo("q", "1", ("a", "b"), "Tee", "top")
    fill(store, "consumer-to-shop", shops, [asked])
    at = {"a": 90, "b": 10, "c": 0}
    embed(store, {image_of(k): angle(v) for k, v in at.items()} | {garment_of(asked): angle(0)})
    found = evaluate.main(options(store, "consumer-to-shop"))
    assert found.queries == 1  # one photo in two pairs
    assert found.gallery == 2
    assert values(found) == {"recall@1": 1, "recall@10": 1, "recall@20": 1, "recall@50": 1}


def lookbench() -> list[Shop]:
    def one(name: str, label: str, main: str, partition: str, subset: str | None) -> Shop:
        more = {"partition": partition, "main_attribute": main} | ({"subset": subset} if subset else {})
        return shop(name, name, label, "top", "test", **more)

    return [
        one("q1", "top", "striped", "query", "studio"),
        one("q2", "top", "plain", "query", "street"),
        one("g1", "top", "plain", "gallery", "studio"),
        one("g2", "top", "striped", "gallery", "studio"),
        one("g3", "top", "striped", "gallery", "street"),
        one("n1", "noise", "noise", "gallery", None),
    ]


def test_lookbench(tmp_path):
    """q1: coarse hit first, fine second; q2's own subset has no fine answer: a miss; the noise is in both galleries."""
    store, shops = str(tmp_path), lookbench()
    fill(store, "lookbench", shops, [])
    at = {"q1": 0, "q2": 90, "g1": 1, "g2": 5, "g3": 100, "n1": 89}
    embed(store, {image_of(k): angle(v) for k, v in at.items()})
    found = evaluate.main(options(store, "lookbench"))
    assert (found.queries, found.gallery) == (2, 4)
    assert values(found) == {"fine recall@1": 0, "coarse recall@1": 0.5, "fine nDCG@5": 0.5 / np.log2(3)}
    whole = replace(PROTOCOLS["lookbench"], within=None)  # other subsets in the gallery
    assert measured(store, whole, "lookbench")[None, "fine nDCG", 5][0] != pytest.approx(0.5 / np.log2(3))


def test_wardrobe_is_searched_in_the_garments_class(tmp_path):
    store = str(tmp_path)
    shops = [shop("a", "a", "top", "top"), shop("b", "b", "top", "top"), shop("c", "c", "shoes", "shoes")]
    asked = [photo("p", "a", ("a",), "top", "top"), photo("r", "c", ("c",), "shoes", "shoes")]
    fill(store, "wardrobe", shops, asked)
    at = {"a": 10, "b": 5, "c": 0}
    embed(store, {image_of(k): angle(v) for k, v in at.items()} | {garment_of(p): angle(0) for p in asked})
    found = values(evaluate.main(options(store, "wardrobe")))
    assert found["recall@1"] == 0.5
    assert found["macro recall@5"] == 1


def test_figures_are_those_of_the_published_code():
    """The loops of LookBench's metrics (recall, nDCG) and of DeepFashion2's test, over random searches with unknown answers."""
    rng = np.random.default_rng(0)
    protocol = replace(PROTOCOLS["lookbench"], within=None)
    for _ in range(20):
        asked, there = (rng.integers(0, 5, n).astype(str).tolist() for n in (7, 12))
        sides = []
        for labels in (asked, there):
            columns = dict.fromkeys(("owner_id", "category", "product", "label", "main_attribute"), labels)
            sides.append(pa.table(columns))
        found = np.stack([rng.permutation(12)[:5] for _ in asked])
        spans = np.tile([0, 12], (7, 1))
        ranked = Ranked(sides[0], sides[1], found, found.astype(np.float32), np.array(asked, dtype=object), spans)
        rows = {(r["group"], r["metric"]): r["value"] for r in figures(protocol, ranked, rng).to_pylist()}
        recalls, gains = [], []
        for label, places in zip(asked, found):
            recalls.append(1.0 if there[places[0]] == label else 0.0)
            gain = sum(1 / np.log2(rank + 1) for rank, place in enumerate(places, 1) if there[place] == label)
            best = sum(1 / np.log2(rank + 1) for rank in range(1, min(there.count(label), 5) + 1))
            gains.append(gain / best if best else 0.0)
        assert rows[None, "coarse recall"] == pytest.approx(np.mean(recalls))
        assert rows[None, "fine nDCG"] == pytest.approx(np.mean(gains))
        assert relevant(ranked, protocol.hits[0])[1].tolist() == [there.count(label) for label in asked]


def test_nearest_is_exact_and_equal_scores_keep_their_order():
    rng = np.random.default_rng(1)
    gallery = rng.normal(size=(50, 4)).astype(np.float32)
    queries = rng.normal(size=(9, 4)).astype(np.float32)
    places, scores = nearest(queries, gallery, 7)
    assert (places == np.argsort(-(queries @ gallery.T), axis=1, kind="stable")[:, :7]).all()
    assert np.allclose(scores, np.take_along_axis(queries @ gallery.T, places, 1))
    assert nearest(queries[:1], np.repeat(gallery[:1], 5, 0), 3)[0].tolist() == [[0, 1, 2]]
    assert nearest(queries, gallery[:2], 7)[0].shape == (9, 2)
    assert nearest(queries[:0], gallery, 7)[0].shape == (0, 7)
    assert nearest(queries, gallery[:0], 7)[0].shape == (9, 0)


def test_intervals_are_of_products(tmp_path):
    """Forty photos of one product are one observation: an interval over queries would be narrow."""
    store = str(tmp_path)
    shops = [shop(n, n, "Tee", "top") for n in "ab"]
    asked = [photo(f"q{i}", "ab"[i >= 40], ("ab"[i >= 40],), "Tee", "top") for i in range(80)]
    fill(store, "consumer-to-shop", shops, asked)
    embed(store, {image_of(n): angle(0) for n in "a"} | {image_of("b"): angle(90)} | {garment_of(p): angle(0) for p in asked})
    figure = evaluate.main(options(store, "consumer-to-shop")).figures["recall@1"]
    assert (figure.value, figure.low, figure.high) == (0.5, 0.0, 1.0)


def test_what_is_missing_is_told_with_the_command(street, tmp_path):
    with pytest.raises(UsageError, match=r"--protocol=street: unknown\. Did you mean .*street2shop"):
        evaluate.main(options(street, "street"))
    with pytest.raises(UsageError, match=r"no pairs of 'deepfashion2': run 'w2w convert deepfashion2 FOLDER'"):
        evaluate.main(options(street, "deepfashion2"))
    with pytest.raises(UsageError, match=r"no pairs of 'other': run .* or name the set by --source"):
        evaluate.main(options(street, "street2shop", source="other"))
    for name, value in (("match", ["sku"]), ("weigh", {"colour": 0.0})):
        with pytest.raises(UsageError, match=rf"--{name}: is for a search with known answers"):
            evaluate.main(options(street, "street2shop", **{name: value}))
    with pytest.raises(UsageError, match=r"--scorer=x: street2shop measures only encoders"):
        evaluate.main(options(street, "street2shop", scorer="x"))


def test_a_gallery_without_vectors_is_refused(street):
    """It would make better figures."""
    embed(street, {garment_of(p): angle(0) for p in STREET_PHOTOS} | {image_of("pants/1/10"): angle(0)}, "model-c")
    with pytest.raises(UsageError, match=r"^2 of 2 pictures of the gallery have no vector of model-c .*'w2w embed' with"):
        evaluate.main(options(street, "street2shop", encoder=EncoderConfig(name="model-c")))
    embed(street, {image_of(s.name): angle(0) for s in STREET_SHOPS}, "model-d")
    with pytest.raises(UsageError, match=r"^1 of 1 pictures of the queries have no vector of model-d .*--of=garments"):
        evaluate.main(options(street, "street2shop", encoder=EncoderConfig(name="model-d")))
    some = {image_of(s.name): angle(0) for s in STREET_SHOPS[:-1]} | {garment_of(p): angle(0) for p in STREET_PHOTOS}
    embed(street, some, "model-e")
    found = evaluate.main(options(street, "street2shop", encoder=EncoderConfig(name="model-e"), max_reject_rate=0.5))
    assert found.left_out == {"gallery": 1}


def test_every_figure_stands_in_the_table_once_and_models_on_a_page(street):
    first = evaluate.main(options(street, "street2shop"))
    rows = delta.read(street, schema.EVALUATIONS, schema.EVALUATIONS.schema.names).to_pylist()
    assert {r["run_id"] for r in rows} == {first.run_id}
    kept = {(r["group"], r["metric"], r["k"]): (r["value"], r["num_queries"]) for r in rows}
    assert kept == measured(street, PROTOCOLS["street2shop"], "street2shop")
    assert len({r["evaluation_id"] for r in rows}) == len(rows)
    assert evaluate.main(options(street, "street2shop")).versions == {}  # the same figures again
    gallery = {image_of(s.name): angle(7 * i) for i, s in enumerate(STREET_SHOPS)}
    embed(street, gallery | {garment_of(p): angle(3) for p in STREET_PHOTOS}, "model-b")
    second = evaluate.main(options(street, "street2shop", encoder=EncoderConfig(name="model-b")))
    rows = delta.read(street, schema.EVALUATIONS, ["model_version", "data_digest"]).to_pylist()
    assert {r["model_version"] for r in rows} == {"model-a", "model-b"}
    assert len({r["data_digest"] for r in rows}) == 1
    page = Path(second.leaderboard).read_text()
    assert page.count("model-a") == page.count("model-b") > 0
    assert "Hadi Kiapour" in page


def test_a_dry_run_counts_and_writes_nothing(street):
    found = evaluate.main(options(street, "street2shop", dry_run=True))
    assert (found.queries, found.gallery, found.figures) == (3, 7, {})
    assert delta.open_table(street, schema.EVALUATIONS) is None


def test_a_product_that_was_withdrawn_is_not_in_the_gallery(street):
    """As its newest row says; and the figures then are of other data: the leaderboard has a table of their own for them."""
    before = evaluate.main(options(street, "street2shop"))
    keys = ["product_id", "title", "category", "attributes", "image_id", "image_uri", "image_fingerprint", "row_digest"]
    (row,) = (r for r in delta.read(street, schema.PRODUCTS, keys).to_pylist() if r["product_id"] == "street2shop/dresses/6/60")
    write(street, schema.PRODUCTS, [row | {"active": False, "fetched_at": 5}])
    after = evaluate.main(options(street, "street2shop"))
    assert (before.gallery, after.gallery) == (7, 6)
    assert (before.figures["recall@1"].value, after.figures["recall@1"].value) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    digests = delta.read(street, schema.EVALUATIONS, ["data_digest"]).column(0).unique()
    assert len(digests) == 2
    assert Path(after.leaderboard).read_text().count("<h2>") == 2


def test_what_is_shown_of_a_query_is_its_answer_and_what_came_before(street):
    """The worst first: the one whose answer comes last; an answer that is not among those shown stands before them."""
    protocol = PROTOCOLS["street2shop"]
    vectors = VectorReader(street, Model("model-a", "model-a", None), 0, 0.0)
    sides = read_queries(street, protocol, "street2shop"), read_gallery(street, protocol, "street2shop")
    ranked = read_ranked(protocol, *sides, vectors)
    hits, answers = relevant(ranked, protocol.hits[0])[0], sought(ranked, protocol.hits[0])
    names, owners = ranked.gallery.column("owner_id").to_pylist(), ranked.queries.column("owner_id").to_pylist()
    assert [names[i] for i in answers] == [image_of("dresses/5/50"), image_of("pants/1/10"), image_of("pants/1/10")]
    assert [owners[q] for q in worst(ranked, hits)] == [garment_of(STREET_PHOTOS[i]) for i in (1, 2)]  # ranks 3 and 2
    third = owners.index(garment_of(STREET_PHOTOS[1]))
    shown = hits_of(ranked, hits, answers, third)
    assert [(one.rank, one.right) for one in shown[:3]] == [(1, False), (2, False), (3, True)]
    unfound = hits_of(ranked, np.zeros_like(hits), answers, third)
    assert (unfound[0].image, unfound[0].rank, unfound[0].right, unfound[1].rank) == (image_of("pants/1/10"), 0, True, 1)


def test_a_name_from_outside_is_shown_as_text(street):
    name = "<script>alert(1)</script>"
    embed(street, {garment_of(p): angle(0) for p in STREET_PHOTOS} | {image_of(s.name): angle(1) for s in STREET_SHOPS}, name)
    found = evaluate.main(options(street, "street2shop", encoder=EncoderConfig(name=name)))
    for page in (found.leaderboard, found.evaluation):
        assert "alert(1)" in Path(page).read_text()
        assert name not in Path(page).read_text()


def test_what_is_not_known_is_like_nothing():
    """Neither of two unknown labels is a hit of the other; nor is what was not found."""
    names = ("owner_id", "category", "product", "label", "main_attribute")
    sides = [pa.table({name: pa.array(labels, pa.string()) for name in names}) for labels in ([None, "a"], [None, "a"])]
    found = np.array([[0, 1], [-1, 1]])
    ranked = Ranked(
        sides[0], sides[1], found, found.astype(np.float32), np.array(["", ""], dtype=object), np.tile([0, 2], (2, 1))
    )
    hits, num = relevant(ranked, PROTOCOLS["lookbench"].hits[0])
    assert (hits.tolist(), num.tolist()) == ([[False, False], [False, True]], [0, 1])


def test_products_of_other_sets_are_not_in_the_gallery(street):
    others = [shop(f"{n}", f"{n}", "pants") for n in range(9)]
    fill(street, "another", others, [photo("x", "0", ("0",), "pants")])
    embed(street, {image_of(s.name): angle(0) for s in others})
    assert evaluate.main(options(street, "street2shop")).gallery == 7
