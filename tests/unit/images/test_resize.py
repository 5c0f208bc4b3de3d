import numpy as np
import pytest
from PIL import Image

from tests.unit.images.samples import scene
from w2w.errors import UsageError
from w2w.images.resize import fit

KERNEL = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def difference(a: np.ndarray, b: Image.Image) -> float:
    return float(np.abs(a.astype(int) - np.asarray(b).astype(int)).mean())


@pytest.mark.parametrize("resample", KERNEL)
@pytest.mark.parametrize("size", [(400, 533), (533, 400), (224, 224), (100, 90), (1201, 800), (2000, 300)])
def test_crop_is_resize_then_centre_crop(size, resample):
    image = scene(*size)
    width, height = (224 * side // min(size) for side in size)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    expected = image.resize((width, height), KERNEL[resample]).crop((left, top, left + 224, top + 224))
    result = fit(np.asarray(image), 224, "crop", resample)
    assert result.shape == (224, 224, 3)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert difference(result, expected) < 0.5


@pytest.mark.parametrize("size", [(400, 533), (90, 70), (224, 224)])
def test_squash(size):
    image = scene(*size)
    assert difference(fit(np.asarray(image), 224, "squash"), image.resize((224, 224), Image.Resampling.BICUBIC)) < 0.5


@pytest.mark.parametrize(
    ("size", "inner"), [((400, 200), (128, 64)), ((30, 60), (64, 128)), ((1000, 2), (128, 1)), ((50, 50), (128, 128))]
)
def test_pad_is_centred_on_white(size, inner):
    image = scene(*size)
    result = fit(np.asarray(image), 128, "pad")
    left, top = (128 - inner[0]) // 2, (128 - inner[1]) // 2
    expected = Image.new("RGB", (128, 128), (255, 255, 255))
    expected.paste(image.resize(inner, Image.Resampling.BICUBIC), (left, top))
    assert difference(result, expected) < 0.5


def test_an_unknown_mode_or_resample_is_the_users_mistake():
    for options in ({"mode": "stretch"}, {"resample": "nearest"}):
        with pytest.raises(UsageError, match="one of"):
            fit(np.asarray(scene()), 64, **options)


def test_the_input_is_not_changed_and_not_returned():
    image = np.array(scene(64, 64))
    before = image.copy()
    fit(image, 64)[:] = 0
    assert np.array_equal(image, before)
