"""Whatever the bytes: an image, or a Reject. Nothing else is raised, printed, or left behind."""

import random

import numpy as np
import pytest

from tests.unit.images.samples import corpus
from w2w.errors import Reject, RejectCode
from w2w.images.decode import DecodeLimits, decode, probe

LIMITS = DecodeLimits(max_pixels=4_000_000)
CODES = {
    RejectCode.EMPTY,
    RejectCode.NOT_AN_IMAGE,
    RejectCode.UNSUPPORTED,
    RejectCode.TRUNCATED,
    RejectCode.CORRUPT,
    RejectCode.TOO_MANY_PIXELS,
    RejectCode.TOO_SMALL,
    RejectCode.TOO_MANY_BYTES,
}


def mutated(rng: random.Random, seeds: list[bytes]) -> bytes:
    """A valid image with bits flipped, numbers in its header replaced, its end cut, or its middle from another image."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 6))):
        match rng.randrange(6):
            case 0:
                for _ in range(rng.choice((1, 3, 20))):
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 1:  # most decisions are taken on the first bytes
                at = rng.randrange(min(len(data), 200))
                data[at : at + 1] = bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF))])
            case 2:
                at = rng.randrange(max(1, min(len(data), 400) - 4))
                data[at : at + 4] = rng.choice(
                    (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\xff\xff", b"\xff\x7f\0\0")
                )
            case 3:
                del data[rng.randrange(len(data)) :]
            case 4:
                other = rng.choice(seeds)
                start, stop = sorted(rng.randrange(len(other)) for _ in range(2))
                at = rng.randrange(len(data))
                data[at : at + rng.choice((0, stop - start))] = other[start:stop]
            case 5:
                start, stop = sorted(rng.randrange(len(data)) for _ in range(2))
                del data[start : min(stop, start + 64)]
        if len(data) < 8:
            break
    return bytes(data)


def survive(data: bytes, wanted: int | None) -> bool:
    """Whether it was decoded; asserts the promise either way."""
    try:
        info = probe(data, LIMITS)
        image = decode(data, LIMITS, wanted)
    except Reject as e:
        rejected = e
    else:
        rejected = None
    if rejected is not None:
        assert rejected.code in CODES
        assert rejected.detail
        return False
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.shape[2] == 3
    if wanted is None:
        assert image.shape[:2] == (info.height, info.width)
    assert min(image.shape[:2]) >= min(LIMITS.min_side_px, wanted or LIMITS.min_side_px)
    return True


def fuzz(seed: int, num_cases: int) -> None:
    rng, seeds = random.Random(seed), list(corpus().values())
    num_decoded = sum(survive(mutated(rng, seeds), rng.choice((None, None, 16))) for _ in range(num_cases))
    assert 0.02 < num_decoded / num_cases < 0.9, "the mutations are too wild or too tame to try the decoders"


def test_hostile_bytes(capfd, caplog):
    fuzz(seed=1, num_cases=8000)
    printed = capfd.readouterr()
    from_libtiff = ("tempfile.tif", "LZWDecode", "ZIPDecode", "PackBitsDecode", "TIFF")  # it prints where nobody can stop it
    assert printed.out == ""
    assert [line for line in printed.err.splitlines() if not line.startswith(from_libtiff)] == []
    assert not [r for r in caplog.records if r.levelname in ("WARNING", "ERROR", "CRITICAL")]


@pytest.mark.filterwarnings("error")
def test_no_warning_behind_a_rejection():
    """With warnings as errors, good images are still good: no decoder warns about them."""
    for data in corpus().values():
        assert survive(data, None)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(2, 12))
def test_hostile_bytes_for_longer(seed):
    fuzz(seed, num_cases=20_000)


@pytest.mark.parametrize("signature", [b"", *sorted({data[:16] for data in corpus().values()})])
def test_noise_behind_a_signature(signature):
    rng = random.Random(3)
    for length in (0, 1, 7, 40, 333, 4000):
        assert not survive(signature + rng.randbytes(length), None)
        assert not survive(signature + bytes(length), None)
