import numpy as np
from PIL import Image

from tests.unit.images.samples import encoded, hamming, scene
from w2w.images.decode import decode
from w2w.images.phash import phash_many


def test_one_and_many_agree_and_are_stable():
    images = [np.asarray(scene()), np.asarray(scene().rotate(90)), np.asarray(scene(300, 200))]
    hashes = phash_many(images)
    assert hashes.dtype == np.int64
    assert hashes.tolist() == [phash_many([i])[0] for i in images]
    assert phash_many([]).shape == (0,)
    assert phash_many([np.full((40, 40, 3), 200, np.uint8)])[0] == 0
    assert phash_many([np.asarray(scene()), 255 - np.asarray(scene())]).min() < 0, "all 64 bits are in use"


def test_the_definition():
    """Against the formula, coefficient by coefficient."""
    grey = np.random.default_rng(0).integers(0, 256, (32, 32)).astype(np.uint8)
    k, n = np.arange(32)[:, None], np.arange(32)[None]
    dct = np.cos(np.pi / 32 * k * (n + 0.5))
    low = (dct @ grey @ dct.T)[1:9, 1:9].ravel()
    expected = int("".join("1" if v > np.median(low) else "0" for v in low), 2)
    assert int(phash_many([np.repeat(grey[..., None], 3, axis=2)])[0]) % 2**64 == expected


def test_copies_are_near_and_other_products_are_far(real_images):
    paths = sorted((real_images / "catalog" / "images").iterdir())[::53]
    originals = [decode(p.read_bytes()) for p in paths]
    hashes = phash_many(originals)
    for quality, scale in ((85, 1.0), (40, 1.0), (75, 0.5), (75, 0.25)):
        copies = []
        for image in originals:
            height, width = image.shape[:2]
            small = Image.fromarray(image).resize((round(width * scale), round(height * scale)))
            copies.append(decode(encoded(small, "JPEG", quality=quality)))
        distances = hamming(hashes, phash_many(copies))
        assert np.median(distances) <= 2
        assert distances.max() <= 10
    apart = hamming(hashes[:, None], hashes[None])[np.triu_indices(len(hashes), 1)]
    assert np.median(apart) > 20


def test_a_scaled_decode_has_nearly_the_same_hash(real_images):
    """So that a stage may hash what it decoded for something else."""
    blobs = [p.read_bytes() for p in sorted((real_images / "catalog" / "images").iterdir())[::53]]
    whole, scaled = (phash_many([decode(b, min_side_px_wanted=side) for b in blobs]) for side in (None, 64))
    assert np.median(hamming(whole, scaled)) <= 2
    assert hamming(whole, scaled).max() <= 8
