import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.cluster.paired import jpeg
from tests.unit.models.test_encoder import save
from tests.unit.models.test_saved import published
from w2w.errors import UsageError
from w2w.images.decode import decode
from w2w.models import sources
from w2w.models.config import FASHION, LITE0, EncoderConfig
from w2w.models.encoder import load_encoder
from w2w.stage import MODEL
from w2w.training.config import LoopConfig
from w2w.training.encoders.config import HeadConfig, LearnConfig
from w2w.training.encoders.pairs import PairBatches, Row, figures, relevance
from w2w.training.encoders.recipe import EncoderRecipe, HeadRecipe
from w2w.training.loop import CHECKPOINT, Training, fit

STEPS = LoopConfig(steps=4, warmup_steps=1, measure_every=2, checkpoint_every=2, learning_rate=1e-3)
SMALL = LearnConfig(batch_pairs=4, head=HeadConfig(dims=[8]), negatives=1)


def rows(count: int = 8) -> list[Row]:
    """Products of one colour each; worn, with noise on it."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        plain = np.full((40, 30, 3), rng.integers(0, 256, 3), np.uint8)
        noisy = np.clip(plain + rng.normal(0, 20, plain.shape), 0, 255).astype(np.uint8)
        found.append(Row(jpeg(noisy), jpeg(plain), i, i))
    mined = [(r.positive, r.product, r.cluster) for r in found]
    return [replace(r, negatives=(mined[(i + 1) % count],)) for i, r in enumerate(found)]


def vectors(count: int = 40) -> list[Row]:
    """A product is a direction in the first 4 of 12 dimensions; the rest is noise, and larger."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        kind = rng.normal(size=4)
        both = [np.concatenate([kind, 3 * rng.normal(size=8)]) for _ in range(2)]
        anchor, positive = ((v / np.linalg.norm(v)).astype(np.float32) for v in both)
        found.append(Row(anchor, positive, i, i))
    return found


def run(recipe, examples, config, folder, loop=STEPS, resume=None):
    history = []

    def report(found, write):
        history.append(found)
        place = folder / str(found["step"])
        place.mkdir(parents=True)
        write(place)

    batches = PairBatches(examples, np.zeros(len(examples), int), np.ones(1), config, loop.steps, loop.seed)
    fit(Training(recipe, batches, loop), report, resume)
    return history


@pytest.fixture
def vit(tmp_path):
    save(tmp_path / "vit", "vit")
    return sources.find(str(tmp_path / "vit"), None, False)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"chunk": 3, "checkpointing": True, "dims": [4, 8], "stay": 0.1},
        {"loss": "triplet", "negatives": 0},
        {"loss": "contrastive", "interpolate": 0.5},
        {"loss": "contrastive-as-published", "same": "hidden"},
    ],
)
def test_all_of_it_learns_goes_on_and_is_an_encoder(vit, tmp_path, settings):
    config = replace(SMALL, **settings)
    examples = rows()
    whole = run(EncoderRecipe(config, vit, examples, examples, 0), examples, config, tmp_path / "whole")
    assert [set(h["val"]) for h in whole] == [{"Recall@1", "Recall@5", "Recall@10", "Recall@20", "MRR"}] * 2
    recipe = EncoderRecipe(config, vit, examples, examples, 0)
    rest = run(recipe, examples, config, tmp_path / "rest", resume=tmp_path / "whole" / "2")
    assert rest == whole[1:]
    a, b = (torch.load(tmp_path / n / "4" / CHECKPOINT, weights_only=True)["network"] for n in ("whole", "rest"))
    assert all(torch.equal(v, b[k]) for k, v in a.items())
    start = EncoderRecipe(config, vit, examples, examples, 0).network.state_dict()
    assert any(not torch.equal(v, start[k]) for k, v in a.items() if "backbone" in k)
    encoder = load_encoder(EncoderConfig(name=str(tmp_path / "whole" / "4" / MODEL)))
    assert encoder.dim == 8
    assert encoder.input == vit.input


def test_a_head_learns_what_its_vectors_hide(tmp_path):
    source = sources.find("efficientnet-lite0", None, False)
    config = LearnConfig(batch_pairs=16, head=HeadConfig(dims=[4]), same_category=(0, 0))
    examples = vectors(200)
    recipe = HeadRecipe(config, source, examples[40:], examples[:40], 0)
    before = recipe.measure(recipe.network)
    history = run(
        recipe, examples[40:], config, tmp_path, replace(STEPS, steps=150, measure_every=50, average=0.9, learning_rate=0.05)
    )
    assert history[-1]["val"]["Recall@1"] > before["Recall@1"] + 0.4


def test_a_long_picture_that_was_shrunk_is_learnt_from(vit, tmp_path):
    """A belt of 1920 x 480 was large enough; as the training keeps it, one side is under the least of a picture."""
    long = Row(jpeg(np.full((12, 48, 3), 90, np.uint8)), jpeg(np.full((48, 12, 3), 90, np.uint8)), 8, 8)
    examples = [*(replace(r, negatives=()) for r in rows()), long]
    config = replace(SMALL, negatives=0)
    run(EncoderRecipe(config, vit, examples, examples, 0), examples, config, tmp_path / "run")


@pytest.mark.parametrize("kind", ["head", "encoder"])
def test_what_is_measured_is_what_is_saved(tmp_path, vit, kind):
    """Between the start and where training led (WiSE-FT), not at its end."""
    config, images = replace(SMALL, interpolate=0.25, negatives=0, augment=replace(SMALL.augment, of="none")), rows(12)
    base = load_encoder(EncoderConfig(name=str(tmp_path / "vit")))

    def seen(encoder, side: str) -> np.ndarray:
        return encoder.encode(np.stack([encoder.prepare(decode(getattr(r, side))) for r in images]))

    known = images
    if kind == "head":
        known = [replace(r, anchor=a, positive=p) for r, a, p in zip(images, seen(base, "anchor"), seen(base, "positive"))]
    recipe = (HeadRecipe if kind == "head" else EncoderRecipe)(config, vit, known, known, 0)
    trained = copy.deepcopy(recipe.network)
    with torch.no_grad():  # as if training had led far away
        for parameter in trained.encoder.parameters():
            parameter.zero_()
    measured = recipe.measure(trained)
    recipe.save(copy.deepcopy(trained), tmp_path / "out")
    encoder = load_encoder(EncoderConfig(name=str(tmp_path / "out"), engine="torch"))
    relevant = relevance(seen(encoder, "anchor"), seen(encoder, "positive"), range(12), [{i} for i in range(12)])
    assert measured == pytest.approx(figures(relevant))
    plain = (HeadRecipe if kind == "head" else EncoderRecipe)(replace(config, interpolate=1.0), vit, known, known, 0)
    assert plain.measure(trained)["MRR"] < measured["MRR"]


def test_a_head_is_saved_with_its_encoder(tmp_path, vit):
    base = load_encoder(EncoderConfig(name=str(tmp_path / "vit")))
    images = [np.full((32, 32, 3), v, np.uint8) for v in (10, 90, 200)]
    batch = np.stack([base.prepare(i) for i in images])
    features = base.encode(batch)
    config = LearnConfig(batch_pairs=2, head=HeadConfig(dims=[2]))
    recipe = HeadRecipe(config, vit, [Row(v, v, i, i) for i, v in enumerate(features)], [], 0)
    recipe.save(recipe.network, tmp_path / "out")
    encoder = load_encoder(EncoderConfig(name=str(tmp_path / "out")))
    with torch.no_grad():
        expected = torch.nn.functional.normalize(recipe.network.encoder(torch.from_numpy(features)), dim=1).numpy()
    assert encoder.encode(batch) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("start", ["published", "plain"])
def test_a_swin_learns_in_the_published_form(tmp_path, start):
    published(tmp_path / "theirs")
    if start == "plain":
        save(tmp_path / "theirs", "swin")
    source = sources.find(str(tmp_path / "theirs"), None, False)
    config, examples = replace(SMALL, head=HeadConfig(dims=[128])), rows()
    run(EncoderRecipe(config, source, examples, [], 0), examples, config, tmp_path / "run")
    from safetensors.torch import load_file

    names = set(load_file(tmp_path / "run" / "4" / MODEL / "model.safetensors"))
    assert {"embedding_layer.weight", "embedding_layer.bias"} < names
    assert {n.partition(".")[0] for n in names} == {"swin", "embedding_layer"}


@pytest.mark.parametrize("name", [LITE0, FASHION])
def test_what_is_frozen_stays_and_a_part_that_is_not_there_is_named(tmp_path, name):
    source = sources.find(name, None, False)
    examples, config = rows(4), replace(SMALL, negatives=0, frozen=["conv_stem", "blocks.0"], batch_pairs=2)
    recipe = EncoderRecipe(config, source, examples, [], 0)
    before = {k: v.clone() for k, v in recipe.network.state_dict().items()}
    run(recipe, examples, config, tmp_path, replace(STEPS, steps=1))
    after = recipe.network.state_dict()
    changed = {k for k, v in after.items() if not torch.equal(v, before[k])}
    assert not any(".blocks.0." in k or "conv_stem" in k or "running" in k for k in changed)
    assert any(".blocks.6." in k for k in changed)
    with pytest.raises(UsageError, match=r"has no 'stages', its parts are conv_stem, bn1, blocks"):
        EncoderRecipe(replace(config, frozen=["stages"]), source, examples, [], 0)
