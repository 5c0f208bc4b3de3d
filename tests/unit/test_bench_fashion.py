"""What the bench of w2w-fashion does with pictures, splits and hits."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from tests.bench import fashion
from tests.bench import fashion_limits as limits
from tests.bench.fashion_rows import MORE, PLAIN, TEST, TRAIN, VAL, Rows, _near_duplicates, half_hidden, relit
from tests.bench.fashion_train import classifier, principal, said
from tests.bench.fashion_tune import Tail, back, mean_of
from tests.bench.fashion_views import START, boxed
from w2w.models import sources
from w2w.models.config import LITE0, EncoderConfig


def test_other_light_and_a_hidden_half():
    picture = np.full((40, 30, 3), 100, np.uint8)
    lit = [relit(picture, np.random.default_rng(i))[0, 0] for i in range(50)]
    assert np.min(lit) >= 89
    assert np.max(lit) <= 110
    assert np.ptp(lit, axis=1).max() > 5  # a cast, not exposure alone
    covered = [(half_hidden(picture, np.random.default_rng(i)) != picture).any(2) for i in range(20)]
    assert {c.sum() for c in covered} == {600}
    assert len({c.tobytes() for c in covered}) == 4
    assert (picture == 100).all()


def test_near_duplicates_are_of_one_cluster_however_they_are_chained():
    hashes = np.array([[0b1111, -1], [0, -1], [0xFF0, -1], [-(2**62), 0b1111]], np.int64)
    assert _near_duplicates(hashes).tolist() == [
        0,
        0,
        2,
        0,
    ]  # the last is the first, mirrored
    assert _near_duplicates(hashes[:3]).tolist() == [0, 0, 2]


def test_a_classifier_and_principal_components_of_sets_that_count_alike():
    rng = np.random.default_rng(0)
    centres = np.eye(4, 6, dtype=np.float32)
    labels = rng.integers(0, 4, 200)
    x = centres[labels] + rng.normal(0, 0.1, (200, 6)).astype(np.float32)
    weight, bias = classifier(x, labels, 4)
    assert ((x @ weight.numpy().T + bias.numpy()).argmax(1) == labels).mean() > 0.99
    names = np.array(["d", "b", "c", "a"])
    assert said(x, names[labels], centres[[2, 0]]).tolist() == ["c", "d"]
    small, large = rng.normal(0, [3, 1, 0.1], (400, 3)), rng.normal(0, [0.1, 1, 3], (40000, 3))
    centre, axes = principal([small, large], 3, 0.0)
    assert centre == pytest.approx((small.mean(0) + large.mean(0)) / 2)
    spread = [np.var((s - centre) @ axes.T, axis=0) for s in (small, large)]
    assert (spread[0] + spread[1])[:2] == pytest.approx([9, 9], rel=0.25)  # either set's own axis


def test_worn_photos_are_looked_for_among_as_many_as_are_named():
    places = np.array([0, 1, 2, 3, 0, 3])
    rows = Rows("wardrobe val", [""] * 6, np.full(6, VAL), places.astype(str), {"place": places, "main": np.arange(6) < 4})
    vectors = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 2, 2]]

    def hits(size):
        return fashion.wardrobe(lambda *_: vectors, {"wardrobe val": rows}, VAL, PLAIN, size)[0].tolist()

    assert hits(4) == [0, 0]  # both look like the third
    assert hits(2) == [1, 0]  # which is not among the first two, and among the last two is nearer than the fourth


def test_more_thumbnails_than_the_gallery_has_come_after_it():
    places = np.array([0, 1, 0, 1])
    rows = Rows("wardrobe test", [""] * 4, np.full(4, TEST), places.astype(str), {"place": places, "main": np.arange(4) < 2})
    own = np.float32([[1, 0], [0, 1], [0.9, 0.1], [0.1, 0.9]])
    made = {"wardrobe test": own, MORE: np.float32([[0.1, 0.9]])}

    def hits(size):
        return fashion.wardrobe(lambda name, _: made[name], {"wardrobe test": rows}, TEST, PLAIN, size)[0].tolist()

    assert hits(2) == [1, 1]
    made["wardrobe test"] = normalize(torch.from_numpy(own), dim=1).numpy()
    made[MORE] = made["wardrobe test"][3:]
    assert hits(3) == [1, 0]  # the second photo is nearer to what nobody wears


def test_figures_of_a_larger_wardrobe_are_stated_where_it_is_there():
    def sizes(**sets):
        return {q for q, _ in fashion.stated(SimpleNamespace(sets=sets)) if q.startswith("wardrobe of")}

    assert sizes(**{MORE: None}) - sizes() == {"wardrobe of 5,000"}


def test_a_class_is_that_of_the_nearest_row_for_training():
    labels, splits = np.array(["a", "b", "a", "b"]), np.array([TRAIN, TRAIN, VAL, VAL])
    rows = {"s": Rows("s", [""] * 4, splits, np.arange(4), {"class": labels})}
    vectors = np.float32([[1, 0], [0, 1], [0.9, 0.1], [0.8, 0.2]])
    found, groups = fashion.nearest_class(lambda *_: vectors, rows, VAL, PLAIN, "s", "class")
    assert (found.tolist(), groups.tolist()) == ([1, 0], [2, 3])


def test_what_is_tuned_goes_on_where_the_rest_of_the_network_ends_and_part_of_the_way_back():
    source = sources.of(EncoderConfig(LITE0))
    network, tail = source.network().eval(), Tail(source)
    seen = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        below = network.blocks[:START](network.bn1(network.conv_stem(seen)))
        torch.testing.assert_close(tail(below), normalize(network(seen), dim=1), atol=1e-5, rtol=0)
        torch.testing.assert_close(tail.of(below.numpy()), tail(below), atol=1e-5, rtol=0)
    before = tail.conv_head.weight.detach().clone()
    with torch.no_grad():
        tail.conv_head.weight += 1
    found = back(tail, 0.25)
    torch.testing.assert_close(found.conv_head.weight, before + 0.25)
    torch.testing.assert_close(found.bn2.running_mean, network.bn2.running_mean)


def test_several_tails_become_their_mean():
    tails = [Tail(sources.of(EncoderConfig(LITE0))) for _ in range(3)]
    before = tails[0].conv_head.weight.detach().clone()
    with torch.no_grad():
        tails[0].conv_head.weight += 1
        tails[1].conv_head.weight += 5
    torch.testing.assert_close(mean_of(tails).conv_head.weight, before + 2)
    assert torch.equal(mean_of(tails[:1]).conv_head.weight, tails[0].conv_head.weight)


def test_what_limits_a_classifier():
    labels = np.array(["a", "a", "b", "c", "c"])
    assert limits.mistaken(np.array(["b", "a", "a", "c", "c"]), labels) == {
        "errors": 2, "pairs": {"a / b": 2}, "accuracy, three pairs merged": 1.0
    }  # fmt: skip
    assert limits.unlike(labels, np.array([1, 1, 1, 2, 3])) == {"rows": 3, "other label": 0.333}
    vectors = np.float32([[1, 0], [1, 0], [0.96, 0.28], [0, 1], [0, 1]])
    found = limits.neighbours(vectors, labels, np.array([1, 2, 3, 4, 4]))
    assert found == {"0.9": [3, 0.667], "0.85": [3, 0.667], "0.8": [3, 0.667]}
    assert (limits.words(["Red top", "red"]) == np.float32([[2**-0.5, 2**-0.5], [1, 0]])).all()


def test_a_garment_is_cut_out_with_a_margin_inside_the_photo():
    photo = np.arange(100 * 60).reshape(100, 60, 1)
    assert boxed(photo, np.array([20, 30, 10, 20])).shape == (25, 15, 1)  # 2 more on each side, ends included
    assert (boxed(photo, np.array([0, 90, 60, 10])) == photo[84:]).all()
