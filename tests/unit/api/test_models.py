"""Detectors, segmenters and scorers in this process."""

import numpy as np
import pytest
import torch

import w2w
from w2w.garments.taxonomy import CATEGORIES
from w2w.models.compatibility import make_scorer, save_scorer
from w2w.models.options import ScorerConfig
from w2w.wardrobe.garment import generator, make_garment
from w2w.wardrobe.photo import street_photo
from w2w.wardrobe.shop import outfit

SLOTS = ("top", "bottom", "shoes")


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    garments = [make_garment(901, i) for i in range(60)]
    return street_photo(901, 0, outfit(garments, generator("outfit", 901, 0))).image


def test_a_detector_gives_boxes_in_the_photos_pixels(photo):
    detector = w2w.load_detector(threshold=0.1)
    some, none = detector([photo, np.full((200, 100, 3), 255, np.uint8)])
    height, width = photo.shape[:2]
    assert len(some.boxes_N4) == len(some.scores_N) == len(some.categories) > 0
    assert set(some.categories) <= set(CATEGORIES)
    assert (some.boxes_N4 >= 0).all()
    assert (some.boxes_N4[:, 2:] <= (width, height)).all()
    assert len(none.boxes_N4) < len(some.boxes_N4)
    with pytest.raises(w2w.UsageError, match=r"option 'treshold' does not exist\. Did you mean 'threshold'"):
        w2w.load_detector(treshold=0.1)
    with pytest.raises(w2w.UsageError, match="images: is int; an array"):
        detector(3)


def test_a_segmenter_gives_a_mask_for_each_box(photo):
    segmenter = w2w.load_segmenter()
    height, width = photo.shape[:2]
    (whole,) = segmenter(photo)
    assert (whole.shape, whole.dtype, segmenter.needs_boxes) == ((1, height, width), bool, False)
    assert 0.02 < whole.mean() < 0.9
    box = [0, 0, width, height]
    two, nothing = segmenter([photo, photo], [np.array([box, box]), np.empty((0, 4))])
    assert (len(two), len(nothing)) == (2, 0)
    with pytest.raises(w2w.UsageError, match="1 arrays of boxes for 2 photos"):
        segmenter([photo, photo], [np.array([box])])


@pytest.mark.parametrize("kind", ["pairs", "set"])
def test_a_scorer_takes_outfits_of_images(tmp_path, kind):
    torch.manual_seed(0)
    config = ScorerConfig(kind=kind, dim=4, hidden=16)
    encoder = w2w.load_encoder()
    save_scorer(make_scorer(encoder.dim, 3, config), tmp_path / kind, config, encoder.dim, SLOTS)
    scorer = w2w.load_scorer(tmp_path / kind, encoder=encoder)
    images = [np.random.default_rng(i).integers(0, 255, (60, 60, 3), np.uint8) for i in range(4)]
    worn = dict(zip(SLOTS, images))
    turned = dict(reversed(worn.items()))
    scores = scorer([worn, turned, worn | {"top": images[3]}])
    assert (scores.shape, scores.dtype) == ((3,), np.float32)
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert scores[0] != pytest.approx(scores[2], abs=1e-5)
    with pytest.raises(w2w.UsageError, match=r"outfits\[0\] has hat: its slots are top, bottom, shoes"):
        scorer([{"hat": images[0]}])
    if kind == "set":
        assert np.isfinite(scorer([{"top": images[0]}])).all()
    else:
        with pytest.raises(w2w.UsageError, match=r"outfits\[0\] has top"):
            scorer([{"top": images[0]}])
    save_scorer(make_scorer(8, 3, config), tmp_path / "small", config, 8, SLOTS)
    with pytest.raises(w2w.UsageError, match=f"scores vectors of 8 dimensions, and {encoder.name} gives {encoder.dim}"):
        w2w.load_scorer(tmp_path / "small", encoder=encoder)
    with pytest.raises(w2w.UsageError):
        w2w.load_scorer(tmp_path / "nothing")
