"""One picture is itself however it was saved; another picture is not, however alike."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from w2w.mining.duplicates.fingerprints import NUM_WINDOWS, fingerprint, looks_of
from w2w.mining.duplicates.likeness import compare, mirrored
from w2w.mining.duplicates.rules import HOW, LikenessRules, confirm
from w2w.wardrobe.garment import make_garment
from w2w.wardrobe.photo import thumbnail

RULES = LikenessRules()


def saved(image: np.ndarray, quality: int = 90) -> np.ndarray:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(out, "JPEG", quality=quality)
    return np.asarray(Image.open(out).convert("RGB"))


def resized(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS))


COPIES = {
    "copy": (lambda i: saved(i, 40), lambda i: saved(resized(i, 110))),
    "cropped": (lambda i: saved(i[8:-8, 8:-8]), lambda i: saved(i[:, :-8]), lambda i: saved(i[5:, 2:])),
    "flipped": (lambda i: saved(i[:, ::-1]),),
    "flipped and cropped": (lambda i: saved(i[8:, 8::][:, ::-1], 70),),
}


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Ten garments that no mirror turns into themselves: a mark is put at the left."""
    images = [thumbnail(make_garment(7, n), 160).copy() for n in range(10)]
    for image in images:
        image[60:90, 50:70] = (40, 90, 200)
    return images


def judged(first: list[np.ndarray], second: list[np.ndarray]):
    a, b = fingerprint(first)[2], fingerprint(second)[2]
    return confirm(np.stack([np.arange(len(a))] * 2, axis=1), RULES, a, b)


@pytest.mark.parametrize("how", HOW)
def test_a_picture_is_itself(pictures, how):
    for change in COPIES[how]:
        copies = [change(i) for i in pictures]
        for first, second in ((pictures, copies), (copies, pictures)):
            found = judged(first, second)
            assert found.pairs[:, 0].tolist() == list(range(10))
            assert [HOW[h] for h in found.how_P] == [how] * 10
            assert (found.distance_P <= 1).all()


def test_the_same_file_is_no_distance_away(pictures):
    assert judged(pictures, pictures).distance_P.max() < 1e-3


@pytest.mark.parametrize("change", [{"colour": (200, 60, 60)}, {"pattern": "checks"}, {"print": "star"}])
def test_the_same_cut_in_another_colour_or_with_another_print_is_another_picture(change):
    plain = replace(make_garment(7, 6), pattern="solid", print="none", colour=(70, 110, 180), print_colour=(240, 220, 30))
    other = thumbnail(replace(plain, **change), 160)  # in the same place: only the cloth differs
    assert len(judged([thumbnail(plain, 160)], [other]).pairs) == 0


def test_plain_ground_keeps_its_tone(pictures):
    image = pictures[0]
    ground = int(image[0, 0, 0])
    darker = np.where((image == ground).all(-1, keepdims=True), np.uint8(ground - 4), image)
    assert len(judged([image], [darker]).pairs) == 0


def test_a_crop_is_a_part_of_its_whole():
    """Two windows of one photo that overlap are two pictures: neither shows all of the other."""
    photo = saved(resized(np.random.default_rng(3).integers(0, 256, (12, 12, 3), np.uint8), 200))
    found = compare(fingerprint([photo[:, :-12]])[2], fingerprint([photo[:, 12:]])[2], RULES.most_levels)
    assert found.difference_P[0] > 1
    whole = compare(fingerprint([photo])[2], fingerprint([photo[:, 12:-2]])[2], RULES.most_levels)
    assert whole.difference_P[0] <= 1
    assert whole.cropped_P[0]


def test_no_pairs():
    found = confirm(np.empty((0, 2), np.int64), RULES, *([np.empty((0, 3, 32, 32), np.uint8)] * 2))
    assert len(found.pairs) == len(found.distance_P) == 0


def test_a_look_knows_no_left_and_right_but_colours(pictures):
    _, _, grids = fingerprint(pictures)
    looks = looks_of(grids).astype(np.float32)
    assert looks.shape[1] == NUM_WINDOWS == 10
    assert np.abs(looks_of(mirrored(grids)).astype(np.float32)[:, 0] - looks[:, 0]).max() < 0.1
    cropped = looks_of(fingerprint([i[8:-8, 8:-8] for i in pictures])[2]).astype(np.float32)[:, 0]
    assert np.linalg.norm(cropped - looks[:, -1], axis=1).max() < 4  # the window with 5 % cut off all round
    red, blue = (looks_of(np.broadcast_to(np.uint8(c)[:, None, None], (1, 3, 32, 32))) for c in ((90, 0, 0), (0, 0, 236)))
    assert np.linalg.norm((red - blue).astype(np.float32)[0, 0]) > 100  # of one grey


def test_hashes_of_the_mirror_image(pictures):
    straight, turned, _ = fingerprint(pictures)
    back, forth, _ = fingerprint([np.ascontiguousarray(i[:, ::-1]) for i in pictures])
    assert np.bitwise_count((straight ^ forth).view(np.uint64)).max() <= 2
    assert np.bitwise_count((turned ^ back).view(np.uint64)).max() <= 2
