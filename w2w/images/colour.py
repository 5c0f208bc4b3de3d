"""Wide-gamut photos to sRGB.

Phones write Display P3 and cameras Adobe RGB; read as sRGB, a saturated red is off by up to 60 levels, a different colour to an
encoder. Only RGB matrix profiles are converted (all camera profiles are of that kind), by a parser of our own and a look-up
table: no external profile reaches a colour engine written in C. Grey, CMYK, table-based and damaged profiles are ignored, and
the image is taken as sRGB; so are AVIF colour tags other than ICC profiles.
"""

import struct
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

_GRID = 33  # against the exact formula: at most 2 levels off for Display P3 and Adobe RGB
_MAX_PROFILE_BYTES = 64 * 1024  # real matrix profiles have 0.4 to 4 KB
_NEGLIGIBLE = 3 / 255  # nominal sRGB profiles differ by up to 2 levels
# linear sRGB to XYZ under D50, the white of every ICC profile: IEC 61966-2-1 primaries, Bradford-adapted
_SRGB_TO_XYZ = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)


def to_srgb(image: np.ndarray, icc_profile: bytes | None) -> np.ndarray:
    """(H, W, 3) uint8 in the profile's colours -> the same in sRGB; the same array if there is nothing to convert."""
    usable = isinstance(icc_profile, bytes) and 0 < len(icc_profile) <= _MAX_PROFILE_BYTES
    table = _table(icc_profile) if usable else None
    return image if table is None else np.array(Image.fromarray(image).filter(table))


@lru_cache(maxsize=64)
def _table(profile: bytes) -> ImageFilter.Color3DLUT | None:
    with np.errstate(all="ignore"):  # a hostile profile may overflow anything; non-finite results are refused below
        return _build_table(profile)


def _build_table(profile: bytes) -> ImageFilter.Color3DLUT | None:
    try:
        parsed = _matrix_and_curves(profile)
    except struct.error:
        return None
    if parsed is None:
        return None
    matrix, curves = parsed
    grid = np.linspace(0, 1, _GRID)
    blue, green, red = np.meshgrid(grid, grid, grid, indexing="ij")  # red runs fastest, as Color3DLUT wants
    encoded_N3 = np.stack([red, green, blue], axis=-1).reshape(-1, 3)
    linear_N3 = np.stack([np.interp(encoded_N3[:, c], np.linspace(0, 1, len(curves[c])), curves[c]) for c in range(3)], axis=-1)
    srgb_N3 = np.clip(linear_N3 @ matrix.T @ np.linalg.inv(_SRGB_TO_XYZ).T, 0, 1)
    srgb_N3 = np.where(srgb_N3 <= 0.0031308, 12.92 * srgb_N3, 1.055 * srgb_N3 ** (1 / 2.4) - 0.055)
    if not np.isfinite(srgb_N3).all() or np.abs(srgb_N3 - encoded_N3).max() < _NEGLIGIBLE:
        return None
    return ImageFilter.Color3DLUT(_GRID, srgb_N3.astype(np.float32).ravel())


def _matrix_and_curves(profile: bytes) -> tuple[np.ndarray, list[np.ndarray]] | None:
    """Linear device RGB to XYZ (3, 3) and each channel's curve; None if it is not an RGB matrix profile. Source: ICC.1:2022."""
    if len(profile) < 132 or profile[16:24] != b"RGB XYZ " or profile[36:40] != b"acsp":
        return None
    (num_tags,) = struct.unpack_from(">I", profile, 128)
    tags: dict[bytes, bytes] = {}
    for i in range(min(num_tags, 100)):
        name, offset, size = struct.unpack_from(">4sII", profile, 132 + 12 * i)
        tags[name] = profile[offset : offset + size]
    columns, curves = [], []
    for channel in (b"r", b"g", b"b"):
        xyz, curve = tags.get(channel + b"XYZ"), _curve(tags.get(channel + b"TRC", b""))
        if xyz is None or xyz[:4] != b"XYZ " or curve is None:
            return None
        columns.append(np.array(struct.unpack_from(">3i", xyz, 8)) / 65536)
        curves.append(curve)
    return np.stack(columns, axis=1), curves


def _curve(tag: bytes) -> np.ndarray | None:
    """Samples of encoded -> linear over [0, 1]; None for kinds that no camera writes. Source: ICC.1:2022, 10.6 and 10.18."""
    x = np.linspace(0, 1, 1024)
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return x
        if count == 1:
            return x ** (struct.unpack_from(">H", tag, 12)[0] / 256)
        if 12 + 2 * count > len(tag):
            return None
        return np.frombuffer(tag, ">u2", count, 12) / 65535
    if tag[:4] == b"para":
        kind = struct.unpack_from(">H", tag, 8)[0]
        if kind not in (0, 3):
            return None
        g, *rest = (v / 65536 for v in struct.unpack_from(">i" if kind == 0 else ">5i", tag, 12))
        if kind == 0:
            return x**g if g > 0 else None
        a, b, c, d = rest
        return np.where(x >= d, np.maximum(a * x + b, 0) ** g, c * x) if g > 0 else None
    return None
