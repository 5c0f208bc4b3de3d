"""How benches are run, and what those of encoders count: ranks, hits, intervals."""

import ast
from pathlib import Path

import numpy as np
import pytest

from tests.bench import __main__ as bench
from tests.bench import cut_out_worn, product_pictures
from tests.bench.book import Found, over_seeds, ranks_of, recall
from tests.bench.fashion_rows import Rows
from tests.bench.find_rerank import expanded, hits, reciprocal, told
from tests.bench.real_gain import Pictures, compared, find_class, find_views


def test_named_benches_alone_are_run_with_the_options(monkeypatch, capfd):
    asked = []
    monkeypatch.setattr(
        bench, "run", lambda name, options: asked.append((name, *options)) or (None if name == "fashion" else "{}")
    )
    assert bench.main(["no_change", "index_vs_faiss", "--quick", "--rows", "10"]) == 0
    assert asked == [("no_change", "--quick", "--rows", "10"), ("index_vs_faiss", "--quick", "--rows", "10")]
    asked.clear()
    assert bench.main(["--quick"]) == 0
    assert asked == [(name, "--quick") for name in bench.QUESTIONS]
    assert bench.main(["fashion", "gallery"]) == 1
    assert capfd.readouterr().out.splitlines()[-2:] == ["fashion: failed", "{}"]
    asked.clear()
    assert bench.main(["gallery", "galery", "index_vectors"]) == 2
    said = capfd.readouterr().err
    assert said.startswith("no such benchmark: galery, index_vectors. There are: ")
    assert all(name in said for name in bench.QUESTIONS)
    assert not asked


def test_every_bench_can_be_run_as_a_module():
    assert set(bench.QUESTIONS) <= set(bench.benches())
    folder = Path(bench.__file__).parent
    for file in folder.glob("*.py"):
        names = [n.module if isinstance(n, ast.ImportFrom) else n.names[0].name for n in imports(file)]
        assert not [name for name in names if (folder / f"{name}.py").exists()], "a neighbour has the name of its package"


def imports(file: Path) -> list[ast.ImportFrom | ast.Import]:
    return [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Import | ast.ImportFrom)]


def test_ranks_in_parts_of_the_gallery_and_in_all_of_it():
    gallery = np.eye(6)
    # photos of products 0, 1, 2, 3: right, right, taken for 3, taken for 5
    photos = np.stack([gallery[0], gallery[1], 0.6 * gallery[3] + 0.5 * gallery[2], 0.9 * gallery[5] + 0.1 * gallery[3]])
    products, found = np.arange(4), Found(photos, gallery)
    assert ranks_of(found, products, 6, 4).tolist() == [0, 0, 1, 1]
    assert ranks_of(found, products, 4, 4).tolist() == [0, 0, 1, 0]  # 5 is not among the first four
    assert ranks_of(found, products, 2, 4).tolist() == [0, 0, 1, 0]  # galleries {0, 1} and {2, 3}


def test_a_product_is_found_by_its_best_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(product_pictures, "FOLDER", tmp_path)
    listed = product_pictures.gallery({"a": ["a1.jpg", "a2.jpg"], "b": ["b1.jpg", "b2.jpg", "b3.jpg"], "c": ["c1.jpg"]})
    assert listed["b"] == [str(tmp_path / f"b{n}.jpg") for n in (1, 2, 3)]
    told = {"a1": 0.1, "a2": 0.9, "b1": 0.8, "b2": 0.7, "b3": 0.6, "c1": 0.5}
    vectors = {str(tmp_path / f"{name}.jpg"): np.array([value]) for name, value in told.items()}
    vectors[str(tmp_path / "query.jpg")] = np.array([1.0])
    for name, wanted in {"a": (1, 0, 1), "b": (0, 1, 0), "c": (0, 0, 0)}.items():
        found = product_pictures.judged({name: "query.jpg"}, listed, vectors)
        assert tuple(found[f"{figure}@1"][0] for figure in ("product", "front", "picture")) == wanted
    assert [found[f"{figure}@5"] for figure in ("product", "front", "picture")] == [[True], [True], [True]]
    listed["b"].append(str(tmp_path / "b4.jpg"))
    vectors[str(tmp_path / "b4.jpg")] = np.array([0.55])
    assert product_pictures.judged({"c": "query.jpg"}, listed, vectors)["picture@5"] == [False]  # b has four places


def test_ties_count_half():
    found = Found(np.ones((1, 3)), np.ones((5, 3)))
    assert ranks_of(found, np.zeros(1, int), 5, 5).tolist() == [2.0]


def test_recall_is_of_products_and_its_interval_holds_it():
    ranks, products = np.array([0.0, 0.0, 0.0, 9.0]), np.array([0, 0, 0, 1])
    mean, low, high = recall(ranks, products, 1)
    assert mean == 0.5  # the one product is found by all of its three photos, the other by none
    assert low <= mean <= high
    assert recall(ranks, products, 10)[0] == 1


def run(recipe: str, seed: int, val: float, *test: float, **says) -> dict:
    return {"recipe": recipe, "seed": seed, "val": val, "test": dict(zip(("50", "300"), test)), **says}


def test_runs_are_counted_over_seeds_and_val_alone_chooses():
    runs = [
        run("a", 0, 0.5, 0.9, 0.7, cpu_s=10),
        run("b", 0, 0.5, 0.2, 0.1),
        run("a", 1, 0.6, 0.7, 0.5, cpu_s=20),
        run("b", 1, 0.75, 0.4, 0.1),
        run("c", 0, 0.625, 0.1, 0.1),  # as good as b on val, and later
    ]
    a, b, c = over_seeds(runs)
    assert [(line["recipe"], line["seeds"], line["chosen"]) for line in (a, b, c)] == [
        ("a", 2, False),
        ("b", 2, True),
        ("c", 1, False),
    ]
    assert a["val"] == pytest.approx(0.55)
    assert a["test"] == {"50": (pytest.approx(0.8), 0.7, 0.9), "300": (pytest.approx(0.6), 0.5, 0.7)}
    assert (a["cpu_s"], b["cpu_s"]) == (15, 0)
    better = [r | {"test": {"50": 1.0, "300": 1.0}} for r in runs if r["recipe"] == "a"]  # what the test says moves no choice
    assert [line["chosen"] for line in over_seeds([*better, *(r for r in runs if r["recipe"] != "a")])] == [False, True, False]
    assert over_seeds([]) == []


def test_runs_that_do_not_compare_are_refused():
    with pytest.raises(ValueError, match="one seed was run twice"):
        over_seeds([run("a", 0, 0.5, 0.9, 0.7)] * 2)
    with pytest.raises(ValueError, match="other galleries"):
        over_seeds([run("a", 0, 0.5, 0.9, 0.7), run("b", 0, 0.5, 0.9)])


@pytest.fixture
def views() -> Pictures:
    """Two skus, the first in two colours, each with a main view and another one."""
    labels = np.array(["a red", "a red", "a blue", "a blue", "b red", "b red"])
    main = np.array([True, False] * 3)
    return Pictures([str(Path(x)) for x in labels], labels, np.array(["test"] * 6), main, np.array(list("aaaabb")))


def test_views_find_their_main_one(views):
    vectors = np.eye(6)
    vectors[1] = vectors[0]  # the red back is its front
    vectors[3] = vectors[0]  # the blue back looks like the red front
    vectors[5] = vectors[2]  # the other sku's back looks like this one's blue front
    everything = np.ones(6, bool)
    hits, skus = find_views(vectors, views, everything)
    assert (hits.tolist(), skus.tolist()) == ([1, 0, 0], ["a", "a", "b"])
    assert find_views(vectors, views, everything, any_colour=True)[0].tolist() == [1, 1, 0]
    assert find_views(vectors, views, everything, ranks=3)[0].tolist() == [1, 1, 1]


def test_the_nearest_photo_for_training_says_the_class():
    photos = Pictures([], np.array(list("xyxy")), np.array(["train", "train", "test", "test"]))
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [0.8, 0.2]])
    assert find_class(vectors, photos, "test").tolist() == [1, 0]


def test_a_gain_is_paired():
    before, after = np.array([0.0, 1.0] * 50), np.ones(100)
    found = compared(before, after)
    assert (found["before"][0], found["after"][0], found["gain"][0]) == (0.5, 1.0, 0.5)
    assert found["gain"][1] > 0.35
    by_group = compared(before, after, np.repeat([0, 1], 50))  # each group gains as much as the other
    assert by_group["gain"] == [0.5, 0.5, 0.5]


def test_ways_of_ranking_keep_to_the_class_and_gain_is_paired():
    gallery = np.eye(4)[[0, 1, 2, 0]] + 0.01 * np.eye(4)[[3, 3, 3, 2]]
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    queries = np.stack([gallery[0], 0.8 * gallery[1] + 0.6 * gallery[2]])
    z = {"C": queries, "PD": queries, "W": queries[::-1], "M": queries, "A": queries, "G": gallery}
    z |= {"qp": np.array(["a", "c"]), "qc": np.array(["x", "x"]), "gp": np.array(list("abcd")), "gc": np.array(list("xxxy"))}
    same = z["qc"][:, None] == z["gc"]
    assert hits(queries @ gallery.T, z, 1).tolist() == [True, False]  # d looks like a, and is of another class
    assert hits(queries @ gallery.T, z, 2).tolist() == [True, True]
    assert hits(queries @ gallery.T, z | {"qp": np.array(["a", "gone"])}, 3).tolist() == [True, False]
    assert np.allclose(expanded(queries, gallery, same, 1, 0)[0], queries[0] @ gallery.T)  # its best is itself
    near = reciprocal(queries, gallery, same, 2, 1, 0.3)
    assert near[0].argmax() == 0
    assert np.isneginf(near[:, 3]).all()
    z["M"] = np.stack([queries[0], gallery[2]])  # cut out, the other garment is found too
    plain, cut_out, by_person, by_garment = told(z)[:4]
    assert (plain["recall@1"], plain["gain@1"]) == (0.5, [0.0, 0.0, 0.0])
    assert cut_out["way"] == "--cut_out"
    assert (by_person["way"], by_garment["way"]) == ("--cut_out_by=person", "--cut_out_by=garment")
    assert by_garment["recall@1"] == 1
    assert cut_out["gain@1"][1] <= cut_out["gain@1"][0] <= cut_out["gain@1"][2]


def test_what_is_cut_out_of_worn_garments_is_sought_among_main_views_of_its_kind():
    skus, product = np.array(["ms1", "ms2", "mp1", "ms1", "ms2", "ms2"]), np.array(["1", "2", "3", "1", "2", "2"])
    labels = {"sku": skus, "product": product, "main": np.arange(6) < 3}
    rows = Rows("views", [""] * 6, np.array(["test"] * 6), skus, labels)
    vectors_N3D = np.full((6, 3, 3), np.nan)
    vectors_N3D[:3, 0] = np.eye(3)
    vectors_N3D[3] = [[0, 0, 1], [0.1, 0, 0.9], [0.3, 0.2, 0]]  # of its kind the first is nearest, of all the third
    vectors_N3D[4] = [[0, 1, 0], [0.5, 0.4, 0], [0, 0.9, 0]]  # the crop misleads, its own pixels do not
    vectors_N3D[5, 0] = [0, 1, 0]  # no garment was found
    answer = cut_out_worn.told(rows, "test", vectors_N3D, cut_out_worn.is_bottom(skus))
    assert (answer["photos"], answer["with a garment"]) == (3, 2)
    assert {name: way["after"][0] for name, way in answer["ways"].items()} == {
        "crop": 0.5, "--cut_out_by=garment": 1.0, "garment alone": 1.0, "whole photo": 1.0,
    }  # fmt: skip
