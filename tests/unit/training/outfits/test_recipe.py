from dataclasses import replace

import numpy as np
import pytest
import torch

from w2w.errors import UsageError
from w2w.models.compatibility import ScorerConfig, load_scorer
from w2w.training.config import LoopConfig
from w2w.training.loop import Training, fit
from w2w.training.outfits.arrays import WORN, Outfits
from w2w.training.outfits.config import OutfitsConfig, as_published
from w2w.training.outfits.measure import by_threshold, figures, published, raw_similarities, scores, similarities
from w2w.training.outfits.recipe import Compatibility, batches, strangers

SLOTS = ("top", "bottom", "shoes")
NETWORK = {"dim": 8, "hidden": 32}


def coloured(seed: int, count: int = 120, copies: int = 2) -> Outfits:
    """Items of four colours, their vectors noise with the colour in it; worn outfits are of one colour, modified ones not."""
    rng = np.random.default_rng(seed)
    colour = np.tile(np.arange(4), 60)
    noise = rng.normal(size=(240, 12)) * 0.5
    vectors = np.concatenate([np.eye(4)[colour] * 2 + noise[:, :4], noise[:, 4:]], 1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    worn = np.array([[80 * s + 4 * rng.integers(20) + c for s in range(3)] for c in rng.integers(4, size=count)])
    modified = np.repeat(worn, copies, axis=0)
    for row in modified:
        for s in rng.permutation(3)[:2]:
            row[s] = 80 * s + 4 * rng.integers(20) + (colour[row[s]] + rng.integers(1, 4)) % 4
    items = np.concatenate([worn, modified])
    of = np.concatenate([np.full(count, WORN), np.repeat(np.arange(count), copies)])
    return Outfits(vectors.astype(np.float32), items, np.tile(np.arange(3), (len(items), 1)), of, SLOTS)


TRAIN, TEST = coloured(0), coloured(1, 80, 1)
LOOP = LoopConfig(
    steps=60, learning_rate=5e-3, warmup_steps=5, measure_every=30, checkpoint_every=60, average=0.9, select="AUC"
)


def trained(folder, config: OutfitsConfig, loop: LoopConfig = LOOP, train: Outfits = TRAIN):
    """The network that a run leaves, and the figures of each report."""
    history = []

    def report(found, write):
        history.append(found)
        if found["step"] == loop.steps:
            write(folder)

    folder.mkdir(parents=True, exist_ok=True)
    fit(Training(Compatibility(config, train, TEST), batches(config, loop, train), loop), report)
    return load_scorer(folder / "model")[0], history


@pytest.mark.parametrize(
    ("settings", "scorer"),
    [
        ({}, {}),
        ({}, {"spaces": "shared"}),
        ({"loss": "margin"}, {}),
        ({"worn_first": 0.5}, {}),
        ({}, {"kind": "set", "layers": 1}),
    ],
)
def test_a_rule_that_is_in_the_vectors_is_learnt(tmp_path, settings, scorer):
    config = OutfitsConfig(batch_outfits=32, scorer=ScorerConfig(**NETWORK | scorer), **settings)
    network, history = trained(tmp_path, config)
    found = figures(network, TEST, None)
    assert found["AUC"] > 0.9
    assert found["score of worn"] > found["score of modified"] + 1
    assert history[-1]["val"]["FITB"] > 0.42  # .25 by chance; of three other answers often one is of the right colour too
    assert history[-1]["losses"]["loss"] < history[0]["losses"]["loss"]


@pytest.mark.soak
def test_the_published_loss_raises_all_similarities_and_tells_less_apart(tmp_path):
    config, loop = as_published(len(TRAIN.worn))
    network, history = trained(tmp_path, config, replace(loop, learning_rate=0.02))  # a small W has as far to go as a large one
    raised = similarities(network, TEST)
    assert history[-1]["losses"]["modified"] < 0.1
    assert history[-1]["losses"]["worn"] < 0.1
    before = raw_similarities(TEST)
    assert raised.modified.mean() > before.modified.mean() + 0.1
    corrected, _ = trained(tmp_path / "b", OutfitsConfig(batch_outfits=32, scorer=ScorerConfig(**NETWORK)))
    assert similarities(corrected, TEST).modified.mean() < before.modified.mean()
    assert figures(network, TEST, None)["AUC"] < figures(corrected, TEST, None)["AUC"] - 0.03


def test_batches_go_over_all_worn_outfits_in_every_epoch():
    config, loop = OutfitsConfig(batch_outfits=30, worn_first=0.25), LoopConfig(steps=8)
    rows = batches(config, loop, TRAIN)
    epochs = [[d.row for n in range(4 * e, 4 * e + 4) for d in rows(n)] for e in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(120))
    assert epochs[0] != epochs[1]
    assert [rows(n)[0].meets_modified for n in range(8)] == [False] * 2 + [True] * 6
    assert rows(5) == rows(5)
    halves = [{d.row for n in range(2) for d in batches(config, loop, TRAIN, rank, 2)(n)} for rank in (0, 1)]
    assert not halves[0] & halves[1]
    assert len(halves[0] | halves[1]) == 120


def test_a_batch_is_worn_outfits_and_what_was_made_of_them():
    recipe = Compatibility(OutfitsConfig(worn_first=0.5), TRAIN)
    made_of = {tuple(TRAIN.items_OS[m]): TRAIN.modified_of_O[m] for m in TRAIN.modified}
    rows = batches(OutfitsConfig(batch_outfits=20), LOOP, TRAIN)(0)
    items = {v.tobytes(): i for i, v in enumerate(TRAIN.vectors_ND)}
    batch = recipe.prepare(rows, [np.random.default_rng(i) for i in range(20)])
    found = [tuple(items[v.numpy().tobytes()] for v in outfit) for outfit in batch.vectors]
    assert found[:20] == [tuple(TRAIN.items_OS[d.row]) for d in rows]
    assert [made_of[f] for f in found[20:]] == [d.row for d in rows]


def test_strangers_share_nothing_with_the_outfit_in_their_place():
    items = np.arange(30).reshape(10, 3)
    found = strangers(items, np.tile(np.arange(3), (10, 1)))
    assert (found % 3 == items % 3).all()  # an item stays in its slot
    owners = found // 3
    assert (owners != np.arange(10)[:, None]).all()
    assert all(len(set(row)) == 3 for row in owners.tolist())
    padded = strangers(np.array([[0, 1], [2, -1]]), np.array([[0, 1], [0, -1]]))
    assert padded.tolist() == [[2, 1], [0, -1]]


def test_the_curriculum_leaves_the_second_term_out_at_first():
    config, loop = as_published(len(TRAIN.worn))
    config = replace(config, worn_first=0.5)
    recipe = Compatibility(config, TRAIN)
    rows = batches(config, loop, TRAIN)
    rngs = [np.random.default_rng(i) for i in range(8)]
    first, later = (recipe.losses(recipe.network, recipe.prepare(rows(n), rngs)) for n in (0, loop.steps - 1))
    assert first["modified"] == 0
    assert later["modified"] >= 0
    with torch.no_grad():
        recipe.network.W.copy_(-torch.eye(12))
    later = recipe.losses(recipe.network, recipe.prepare(rows(loop.steps - 1), rngs))
    recipe._config = replace(config, hinge="outfit")
    each = recipe.losses(recipe.network, recipe.prepare(rows(loop.steps - 1), rngs))
    assert each["modified"] >= later["modified"]
    assert later["matrix"].item() == pytest.approx(0.01 * 12**0.5)


def test_the_published_settings():
    config, loop = as_published(4000)
    assert (config.loss, config.batch_outfits, config.threshold, config.network.kind) == ("what2wear", 8, 0.7, "what2wear")
    assert (loop.optimizer, loop.learning_rate, loop.schedule) == ("adam", 1e-3, "step")
    assert (loop.steps, loop.decay_every) == (15_000, 3_000)
    (group,) = Compatibility(config, TRAIN).parameter_groups()
    assert group["weight_decay"] == 1e-4
    assert len(group["params"]) == 2


def test_scores_need_an_item():
    network = Compatibility(OutfitsConfig(), TRAIN).network
    items = np.array([[-1, -1, -1], [0, 80, 160]])
    found = scores(network, TRAIN, items, np.where(items < 0, -1, np.arange(3)))
    assert np.isneginf(found[0])
    assert np.isfinite(found[1])
    assert figures(network, TRAIN.among(np.zeros(len(TRAIN), bool)), None) == {}


def test_accuracy_by_threshold():
    found = raw_similarities(TEST)
    rows = by_threshold(found, (-1.0, 0.5, 1.1))
    assert [(r["worn"], r["modified"], r["told"]) for r in (rows[0], rows[2])] == [(1, 1, 0.5), (0, 0, 0.5)]
    assert rows[1]["worn"] == (found.worn >= 0.5).mean()
    assert rows[1]["told"] > 0.6


def test_what2wears_own_table_is_of_single_pairs_and_its_third_column_of_what_was_kept():
    found, v = published(TEST), TEST.vectors_ND
    original, modified, pair, kept = [], [], [], 0
    for row, of in enumerate(TEST.modified_of_O):
        items = v[TEST.items_OS[row]]
        for i, j in ((0, 1), (0, 2), (1, 2)):
            (original if of == WORN else modified).append(items[i] @ items[j])
            if of != WORN:  # slot i of both, in the loop over i and j
                pair.append(items[i] @ v[TEST.items_OS[of]][i])
                kept += TEST.items_OS[row][i] == TEST.items_OS[of][i]
    for got, expected in ((found.original, original), (found.modified, modified), (found.pair, pair)):
        assert got == pytest.approx(np.array(expected), abs=1e-6)
    assert found.kept == kept / len(pair)
    (low, high) = found.rates((0.5, 0.999))
    assert low == {"threshold": 0.5} | {
        n: np.mean(np.array(x) > 0.5) for n, x in (("original", original), ("modified", modified), ("pair", pair))
    }
    assert (high["original"], high["modified"], high["pair"]) == (0, 0, found.kept)  # whatever goes together
    many = published(coloured(2, 2000, 1))
    assert many.kept == pytest.approx(1 / 3, abs=0.02)
    assert published(TEST.among(TEST.modified_of_O == WORN)) is None


def test_what_is_wrong_is_said():
    for settings in (
        {"loss": "logistics"},
        {"scorer": ScorerConfig(kind="what2wear")},
        {"worn_first": 2},
        {"batch_outfits": 2},
        {"hinge": "pair"},
    ):
        with pytest.raises(UsageError, match="outfits"):
            OutfitsConfig(**settings)
    with pytest.raises(UsageError, match="does not fit"):
        OutfitsConfig("what2wear", ScorerConfig(kind="set"))
    lonely = TRAIN.among(TRAIN.modified_of_O == WORN)
    with pytest.raises(UsageError, match="--modified"):
        Compatibility(OutfitsConfig(), lonely)
    with pytest.raises(UsageError, match="no worn outfits"):
        Compatibility(OutfitsConfig(), TRAIN.among(np.zeros(len(TRAIN), bool)))
