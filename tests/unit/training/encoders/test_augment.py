import numpy as np
import pytest

from w2w.errors import UsageError
from w2w.training.encoders.augment import AugmentConfig, augment

NOTHING = AugmentConfig(flip=0, colour=0, smaller=1, stretch=0, partial=0, occlude=0, erase=0)
IMAGE = np.random.default_rng(0).integers(1, 200, (40, 30, 3)).astype(np.uint8)


def seen(seed: int = 0, worn: bool = True, other=None, **settings) -> np.ndarray:
    config = AugmentConfig(**{**NOTHING.__dict__, **settings})
    return augment(IMAGE, config, np.random.default_rng(seed), worn, other)


def test_nothing_asked_nothing_changed():
    assert (seen() == IMAGE).all()


def test_mirrored():
    assert (seen(flip=1) == IMAGE[:, ::-1]).all()


def test_a_crop_keeps_its_share_of_the_area():
    areas = [np.prod(seen(i, smaller=0.5).shape[:2]) / 1200 for i in range(50)]
    assert 0.45 < min(areas) < 0.65
    assert max(areas) > 0.9


def test_a_partial_view_loses_one_side_and_only_of_what_is_worn():
    shapes = [seen(i, partial=1).shape[:2] for i in range(50)]
    assert all((h == 40) != (w == 30) for h, w in shapes)
    assert min(h / 40 * w / 30 for h, w in shapes) >= 0.5
    assert {h == 40 for h, _ in shapes} == {True, False}
    assert (seen(partial=1, occlude=1, worn=False) == IMAGE).all()


def test_what_is_occluded_shows_the_other_picture_or_one_colour():
    other = np.full((10, 10, 3), 250, np.uint8)
    shares, covers = [], set()
    for i in range(50):
        changed = (seen(i, occlude=1, other=other) != IMAGE).any(-1)
        shares.append(changed.mean())
        covers |= {tuple(v) for v in seen(i, occlude=1, other=other)[changed]}
    assert 0.15 < min(shares) < max(shares) <= 0.51
    assert (250, 250, 250) in covers
    assert len(covers) > 5


def test_a_rectangle_is_erased():
    changed = (seen(erase=1) != IMAGE).any(-1)
    ys, xs = np.nonzero(changed)
    assert 0 < changed.mean() < 0.2
    assert changed[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].mean() > 0.9


def test_the_same_generator_sees_the_same():
    assert (
        augment(IMAGE, AugmentConfig(), np.random.default_rng(3), True)
        == augment(IMAGE, AugmentConfig(), np.random.default_rng(3), True)
    ).all()


def test_which_side_is_changed():
    assert AugmentConfig(of="anchors").changes("anchors")
    assert not AugmentConfig(of="anchors").changes("positives")
    assert not AugmentConfig(of="none").changes("anchors")
    with pytest.raises(UsageError, match=r"learn\.augment\.of=left"):
        AugmentConfig(of="left")
