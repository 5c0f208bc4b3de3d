"""Pictures, experiments and recipes on folders in LookBook's layout."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from w2w.errors import UsageError
from w2w.images.lookbook import file_name, read_name
from w2w.models.pixeldtgan import GanConfig, load_gan
from w2w.models.siamese import SiameseConfig, load_siamese
from w2w.training.batches import in_epochs
from w2w.training.config import LoopConfig
from w2w.training.lookbook.experiments import (
    experiment_1,
    experiment_2,
    experiment_3,
    make_gallery,
    make_pairs,
    pixel_vectors,
)
from w2w.training.lookbook.pictures import Pictures, Product, read_products, split_products, splits
from w2w.training.lookbook.pixeldtgan import GanRecipe, drawn
from w2w.training.lookbook.siamese import SiameseRecipe, as_published, gallery_scores, pair_probabilities
from w2w.training.loop import Training, fit

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Eight products of one colour each; three photos of each, of that colour, darker; one product has a single photo."""
    root, image = tmp_path_factory.mktemp("lookbook"), 0
    rng = np.random.default_rng(0)
    for product in range(9):
        colour = rng.integers(60, 256, 3)
        for kind in range(4 if product < 8 else 2):
            picture = np.full((40, 30, 3), 250.0) if kind == 0 else rng.uniform(90, 130, (50, 24, 3))
            picture[10:30, 8:22] = colour * (1 if kind == 0 else rng.uniform(0.8, 0.95))
            Image.fromarray(picture.astype(np.uint8)).save(root / file_name(product, image, clean=kind == 0), quality=95)
            image += 1
    return root


def test_names():
    assert file_name(8105, 70296, clean=False) == "PID008105_CLEAN0_IID070296.jpg"
    assert read_name(Path("x/PID008105_CLEAN1_IID070296.jpg")) == ("008105", True)
    with pytest.raises(UsageError, match="is not like PID000001_CLEAN1_IID000000"):
        read_name(Path("PID08105_CLEAN1_IID070296.jpg"))


def test_products(folder, tmp_path):
    products = read_products(folder, least_worn=3)
    assert [p.product for p in products] == [f"{i:06d}" for i in range(8)]  # the ninth is worn once only
    assert len(read_products(folder, least_worn=1)) == 9
    assert all(len(p.worn) == 3 and "CLEAN1" in p.clean and "CLEAN0" in p.worn[0] for p in products)
    train, test = split_products(products, 3, 0)
    assert len(test) == 3
    assert {p.product for p in train} | {p.product for p in test} == {p.product for p in products}
    with pytest.raises(UsageError, match="num_test"):
        split_products(products, 8, 0)
    with pytest.raises(UsageError, match="no product"):
        read_products(folder, least_worn=4)
    with pytest.raises(UsageError, match="no such folder"):
        read_products(tmp_path / "none")


def test_pictures_are_read_once(folder, tmp_path):
    products = read_products(folder, 3)
    pictures = Pictures(20, most=1)
    first = pictures.read([products[0].clean, products[1].clean])
    assert first.shape == (2, 20, 20, 3)
    assert len(pictures._kept) == 1
    assert (pictures.read([products[0].clean]) == first[:1]).all()
    (tmp_path / "bad.jpg").write_bytes(b"no")
    with pytest.raises(UsageError, match="cannot be read"):
        pictures.read([str(tmp_path / "bad.jpg")])


def test_pairs_are_half_right_and_half_wrong(folder):
    products = read_products(folder, 3)
    pairs = make_pairs(products, 2, np.random.default_rng(0))
    owner = {f: p.product for p in products for f in (p.clean, *p.worn)}
    assert [owner[a] == owner[b] for a, b in zip(pairs.products, pairs.worn)] == pairs.same_P.tolist()
    assert len(pairs.same_P) == 8 * 4
    assert pairs.same_P.sum() == 16
    assert len(set(zip(pairs.products[:2], pairs.worn[:2]))) == 2  # no photo twice
    gallery = make_gallery(products, 5, np.random.default_rng(0))
    assert [owner[a] for a in gallery.products] == [owner[b] for b in gallery.worn]
    assert len(set(gallery.products)) == 5
    with pytest.raises(UsageError, match="9 products"):
        make_gallery(products, 9, np.random.default_rng(0))


def test_experiment_1_against_the_printed_confusion_matrix():
    truth = np.repeat([False, False, True, True], [2917, 2743, 504, 5156])
    said = np.repeat([0.49, 0.5, 0.49, 0.5], [2917, 2743, 504, 5156])
    found = experiment_1(said, truth)
    printed = {"precision": 0.652741, "recall": 0.910954, "F1": 0.760528, "accuracy": 0.713163}
    assert {k: round(found[k], 6) for k in printed} == printed
    assert (found["true negatives"], found["false positives"]) == (2917, 2743)


def test_experiment_2_counts_ties_as_guesses():
    scores = np.array([[3.0, 1, 2], [3, 2, 1], [5, 5, 5]])
    assert experiment_2(scores, (1, 2, 3)) == pytest.approx({1: (1 + 0 + 1 / 3) / 3, 2: (1 + 1 + 2 / 3) / 3, 3: 1})
    assert experiment_2(np.zeros((50, 50))) == pytest.approx({1: 0.02, 5: 0.1, 10: 0.2, 20: 0.4})


def test_experiment_3_ranks_by_what_was_drawn():
    products = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    assert experiment_3(lambda worn: worn[::-1], pixel_vectors, products[::-1], products, (1,)) == {1: 1.0}
    assert experiment_3(lambda worn: worn[::-1], pixel_vectors, products, products, (1,)) == {1: 0.0}


def run(recipe, rows, loop: LoopConfig, folder: Path) -> list[dict]:
    history = []

    def report(found, write):
        history.append(found)
        write(folder)

    folder.mkdir(parents=True, exist_ok=True)
    fit(Training(recipe, rows, loop), report)
    return history


def test_the_siamese_recipe_learns_and_its_experiments_agree_with_its_parts(folder, tmp_path):
    products = read_products(folder, 3)
    pairs = make_pairs(products[:6], 3, np.random.default_rng(0))
    loop = replace(as_published(6, 12), steps=6, measure_every=3, checkpoint_every=6)
    recipe = SiameseRecipe(SiameseConfig(learnt_scale=True), pairs, products[6:])
    history = run(recipe, in_epochs(range(len(pairs.same_P)), 12, loop.seed, 0, 1), loop, tmp_path)
    assert history[-1]["losses"]["pairs"] < history[0]["losses"]["pairs"]
    assert {"accuracy", "precision", "recall", "F1", "Recall@1", "Recall@20"} <= set(history[-1]["val"])
    network, pictures = load_siamese(tmp_path / "model"), Pictures(100)
    gallery = make_gallery(products, 8, np.random.default_rng(0))
    own = pair_probabilities(network, pictures, gallery)
    scores = gallery_scores(network, pictures, gallery)
    with torch.inference_mode():
        assert own == pytest.approx(
            torch.sigmoid(network.logits(torch.from_numpy(np.diagonal(scores).copy()))).numpy(), abs=1e-5
        )


def test_the_published_siamese_settings():
    loop = as_published(2000, 100)
    assert (loop.optimizer, loop.learning_rate, loop.schedule, loop.steps) == ("sgd", 0.05, "constant", 15 * 400)
    pairs = make_pairs(_fake(5), 10, np.random.default_rng(0))
    rows = in_epochs(range(len(pairs.same_P)), 20, loop.seed, 0, 1)
    assert sorted(r for n in range(5) for r in rows(n)) == list(range(100))
    assert rows(0) != rows(5)


def _fake(count: int):
    return [Product(str(i), f"{i}.jpg", tuple(f"{i}-{j}.jpg" for j in range(10))) for i in range(count)]


@pytest.mark.slow
def test_drawings_depend_on_the_photo(folder, tmp_path):
    """As much as the products differ, and enough to find one by what was drawn of a photo of it."""
    products = read_products(folder, 3)
    loop = LoopConfig(
        steps=200, optimizer="adam", learning_rate=2e-3, schedule="constant", warmup_steps=0, average=0, measure_every=200,
        checkpoint_every=200,
    )  # fmt: skip
    (found,) = run(GanRecipe(GanConfig(channels=8, code=16), products, products), lambda n: range(8), loop, tmp_path)
    pictures = Pictures(64)
    worn, clean = (pictures.read([f(p) for p in products]) for f in (lambda p: p.worn[0], lambda p: p.clean))
    made = drawn(load_gan(tmp_path / "model"), worn)
    assert made.std(axis=0).mean() > 0.3 * clean.std(axis=0).mean()
    assert found["val"]["Recall@1"] > 0.5  # 1/8 by chance


@pytest.mark.soak
def test_pixeldtgan_learns_from_a_few_products(folder, tmp_path):
    products = read_products(folder, 3)
    loop = LoopConfig(steps=24, learning_rate=2e-3, warmup_steps=0, average=0, measure_every=8, checkpoint_every=24)
    runs = []
    for name, steps in (("a", 24), ("b", 2), ("c", 2)):
        recipe = GanRecipe(GanConfig(channels=8, code=16), products, products)
        runs.append(run(recipe, lambda n: range(8), replace(loop, steps=steps, select="Recall@1"), tmp_path / name))
    assert runs[1] == runs[2]  # the same from the same seed
    first, last = (h["losses"] for h in (runs[0][0], runs[0][-1]))
    assert last["real"] + last["domain"] < first["real"] + first["domain"]
    pictures = Pictures(64)
    worn, clean = (pictures.read([f(p) for p in products]) for f in (lambda p: p.worn[0], lambda p: p.clean))
    torch.manual_seed(0)
    fresh = GanRecipe(GanConfig(channels=8, code=16), products).network

    def far(network) -> float:
        made = drawn(network, worn, batch=3)
        assert made.shape == worn.shape
        assert made.dtype == np.uint8
        return float(np.abs(made.astype(float) - clean).mean())

    assert far(load_gan(tmp_path / "a" / "model")) < far(fresh)
    assert set(runs[0][-1]["val"]) == {"Recall@1", "Recall@5", "Recall@10", "Recall@20"}


def test_a_single_product_has_no_other(folder):
    products = read_products(folder, 3)
    with pytest.raises(UsageError, match="no other"):
        GanRecipe(GanConfig(), products[:1])
    GanRecipe(GanConfig(channels=8, code=16), products[:2])


def test_three_splits_of_the_products():
    products = _fake(40)
    train, val, test = splits(products, 0.25, 0.1)
    assert [len(p) for p in (train, val, test)] == [27, 3, 10]
    assert len({p.product for part in (train, val, test) for p in part}) == 40
    assert splits(products, 0.25, 0.1)[2] == test
    assert splits(products, 0.25, 0.0)[2] == test  # holding out changes nothing of the test
    assert splits(products[:8], 0.25, 0.1)[1] == []  # one alone is not held out
    with pytest.raises(UsageError, match="40 products are too few"):
        splits(products, 0.01, 0.0)
