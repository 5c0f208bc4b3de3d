import io
import re
import struct
import tracemalloc
import zlib

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageCms, ImageOps

from tests.unit.images.samples import code_of, corpus, encoded, jpeg_segment, oriented, png, png_chunk, scene
from w2w.errors import Reject, RejectCode
from w2w.images import colour
from w2w.images.decode import DecodeLimits, ImageInfo, decode, decode_many, probe

CORPUS = corpus()


def mean_difference(a: np.ndarray, b: np.ndarray | Image.Image) -> float:
    return float(np.abs(a.astype(int) - np.asarray(b).astype(int)).mean())


@pytest.mark.parametrize("name", CORPUS)
def test_every_format_is_decoded_upright(name):
    data = CORPUS[name]
    info, image = probe(data), decode(data)
    assert (info.format, info.width, info.height) == (name.split()[0], 70, 90)
    assert image.shape == (90, 70, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable
    expected = scene()
    if name in ("jpeg grey", "png 16 bit", "png 1 bit"):
        expected = expected.convert("1" if name == "png 1 bit" else "L").convert("RGB")
    elif name in ("png rgba", "webp lossless", "tiff deflate"):
        expected = (np.asarray(expected) * (128 / 255) + 127).astype(np.uint8)
    assert mean_difference(image, expected) < (14 if name in ("png palette", "gif animated") else 6)  # 64 colours


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_all_eight_orientations_look_as_pillow_turns_them(image_format, turn):
    data = encoded(scene(), image_format, exif=oriented(turn))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    image, info = decode(data), probe(data)
    assert (info.width, info.height) == expected.size == (image.shape[1], image.shape[0])
    assert mean_difference(image, expected) < 0.5


def test_damaged_exif_is_no_reason_to_reject():
    plain = CORPUS["jpeg"]
    for block in (b"", b"II*\0", b"II*\0\xff\xff\xff\xff" + b"\0" * 20, b"MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 40):
        data = plain[:2] + jpeg_segment(0xE1, b"Exif\0\0" + block) + plain[2:]
        assert np.array_equal(decode(data), decode(plain))


@pytest.mark.parametrize("name", CORPUS)
def test_a_cut_file_is_rejected_or_whole(name):
    data = CORPUS[name]
    whole = decode(data)
    cuts = sorted({*range(0, len(data), max(1, len(data) // 60)), *range(len(data) - 12, len(data))})
    codes = {}
    for cut in cuts:
        try:
            assert np.array_equal(decode(data[:cut]), whole), f"half an image at {cut} of {len(data)} bytes"
        except Reject as e:
            codes[cut] = e.code
    assert codes[0] == RejectCode.EMPTY
    behind_signature = {code for cut, code in codes.items() if cut >= 16}
    assert behind_signature <= {RejectCode.TRUNCATED, RejectCode.CORRUPT}
    assert codes[cuts[len(cuts) // 4]] == RejectCode.TRUNCATED
    if name.startswith("jpeg") and name != "jpeg mpo":
        assert behind_signature == {RejectCode.TRUNCATED}
        assert len(codes) == len(cuts)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", RejectCode.EMPTY),
        (b"<!DOCTYPE html><html><body>404<svg></svg></body></html>", RejectCode.NOT_AN_IMAGE),
        (b'{"error": "not found"}', RejectCode.NOT_AN_IMAGE),
        (b"PK\x03\x04" + b"\0" * 60, RejectCode.NOT_AN_IMAGE),
        (b"%PDF-1.7\n", RejectCode.NOT_AN_IMAGE),
        (b"BM is how this text begins, and it is no bitmap", RejectCode.NOT_AN_IMAGE),
        (b"\0" * 1000, RejectCode.NOT_AN_IMAGE),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', RejectCode.UNSUPPORTED),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 90\n", RejectCode.UNSUPPORTED),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40, RejectCode.UNSUPPORTED),
        (b"8BPS\0\x01" + b"\0" * 40, RejectCode.UNSUPPORTED),
        (b"\xff\xd8\xff", RejectCode.TRUNCATED),
        (b"\x89PNG\r\n\x1a\n", RejectCode.TRUNCATED),
    ],
)
def test_what_is_no_image_is_named(data, code):
    assert code_of(data) == code


def test_formats_that_pillow_would_open_are_not_tried():
    for image_format in ("ICO", "PPM", "TGA", "EPS", "PDF", "JPEG2000", "SGI"):
        assert code_of(encoded(scene(), image_format)) in (RejectCode.UNSUPPORTED, RejectCode.NOT_AN_IMAGE)


def test_a_bomb_is_rejected_from_its_header():
    compressed = zlib.compressobj(9)
    row = b"\0" + bytes(60_000)
    pixels = b"".join(compressed.compress(row) for _ in range(200)) + compressed.flush()  # enough for the header to be honest
    header = (20_000).to_bytes(4) * 2 + b"\x08\x02\0\0\0"
    bomb = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    sized_webp = CORPUS["webp animated"][:24] + b"\xff\xff\xff" * 2 + CORPUS["webp animated"][30:]
    sized_gif = CORPUS["gif animated"][:6] + b"\xff" * 4 + CORPUS["gif animated"][10:]
    tracemalloc.start()
    try:
        for data in (bomb, sized_webp, sized_gif):
            assert code_of(data) == RejectCode.TOO_MANY_PIXELS
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_limits():
    data = CORPUS["jpeg"]
    assert code_of(data, max_bytes=len(data)) is None
    assert code_of(data, max_bytes=len(data) - 1) == RejectCode.TOO_MANY_BYTES
    assert code_of(data, max_pixels=70 * 90) is None
    for name in ("jpeg", "png", "gif animated", "webp", "avif", "bmp", "tiff"):
        assert code_of(CORPUS[name], max_pixels=70 * 90 - 1) == RejectCode.TOO_MANY_PIXELS
        assert code_of(CORPUS[name], min_side_px=71) == RejectCode.TOO_SMALL
        assert code_of(CORPUS[name], min_side_px=70) is None
    assert code_of(encoded(Image.new("RGB", (1, 1)), "GIF")) == RejectCode.TOO_SMALL


def test_inks_become_the_right_colours():
    """Adobe's inverted CMYK and YCCK are what Photoshop writes; without the Adobe marker 255 means full ink."""
    rgb = Image.new("RGB", (64, 64), (200, 40, 90))
    cmyk = rgb.convert("CMYK")
    inverted = encoded(cmyk, "JPEG", quality=95)
    assert b"Adobe" in inverted
    assert mean_difference(decode(inverted), rgb) < 2
    at = inverted.index(b"\xff\xee")
    length = int.from_bytes(inverted[at + 2 : at + 4])
    bare = inverted[:at] + inverted[at + 2 + length :]
    assert mean_difference(decode(bare), Image.eval(cmyk, lambda v: 255 - v).convert("RGB")) < 3
    # YCCK: cyan, magenta and yellow as if they were RGB, in YCbCr. Pillow inverts what it saves, so they go in inverted
    luma_chroma = [Image.eval(c, lambda v: 255 - v) for c in Image.merge("RGB", cmyk.split()[:3]).convert("YCbCr").split()]
    ycck = bytearray(encoded(Image.merge("CMYK", [*luma_chroma, cmyk.getchannel("K")]), "JPEG", quality=95))
    ycck[ycck.index(b"Adobe") + 11] = 2
    assert mean_difference(decode(bytes(ycck)), rgb) < 4
    assert mean_difference(decode(bytes(ycck)), Image.open(io.BytesIO(ycck)).convert("RGB")) < 1


def test_sixteen_bits_are_scaled_not_clipped():
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    expected = np.repeat(np.round(values / 257).astype(np.uint8)[..., None], 3, axis=2)
    for image_format in ("PNG", "TIFF"):
        assert np.array_equal(decode(encoded(Image.fromarray(values), image_format)), expected)
    rgb_rows = [np.repeat(row[:, None], 3, axis=1).astype(">u2").tobytes() for row in values]
    assert np.abs(decode(png(64, 64, 16, 2, rgb_rows)).astype(int) - expected).max() <= 1


def test_transparency_is_composited_on_white():
    palette = Image.new("P", (32, 32), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    palette.paste(2, (0, 0, 16, 32))
    image = decode(encoded(palette, "PNG", transparency=1))
    assert image[5, 20].tolist() == [255, 255, 255]
    assert image[5, 5].tolist() == [0, 0, 255]
    assert decode(encoded(palette, "GIF", transparency=1))[5, 20].tolist() == [255, 255, 255]
    for mode, pixel, expected in (("RGBA", (200, 0, 0, 51), [244, 204, 204]), ("LA", (0, 128), [127, 127, 127])):
        assert decode(encoded(Image.new(mode, (32, 32), pixel), "PNG"))[0, 0].tolist() == expected
    keyed = png(32, 32, 16, 2, [b"\0\0\xff\xff\0\0" * 32] * 32, png_chunk(b"tRNS", b"\0\0\xff\xff\0\0"))
    assert decode(keyed)[0, 0].tolist() == [255, 255, 255]
    grey_keyed = png(32, 32, 16, 0, [b"\x12\x34" * 32] * 32, png_chunk(b"tRNS", b"\x12\x34"))
    assert decode(grey_keyed)[0, 0].tolist() == [255, 255, 255]


def test_the_first_frame_of_an_animation():
    red, blue = (Image.new("RGB", (40, 40), c) for c in ((255, 0, 0), (0, 0, 255)))
    for image_format in ("GIF", "WEBP", "PNG", "TIFF", "MPO", "AVIF"):
        image = decode(encoded(red, image_format, save_all=True, append_images=[blue]))
        assert mean_difference(image, red) < 4, image_format


def test_a_png_that_promises_more_rows_than_it_has():
    rows = [bytes(range(0, 192))] * 64
    assert code_of(png(64, 64, 8, 2, rows)) is None
    assert code_of(png(64, 64, 8, 2, rows[:40])) == RejectCode.TRUNCATED
    damaged = bytearray(png(64, 64, 8, 2, rows))
    damaged[damaged.index(b"IDAT") + 12] ^= 0xFF
    assert code_of(bytes(damaged)) in (RejectCode.CORRUPT, RejectCode.TRUNCATED)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA"])
def test_interlaced_pngs_are_measured_right(mode):
    """Adam7 passes of odd sizes: a wrong sum of their rows would reject a good image."""
    for width, height in ((16, 17), (33, 21), (19, 64)):
        image = scene(width, height).convert(mode)
        interlaced = _interlaced(np.asarray(image.convert("L")))
        assert np.array_equal(decode(interlaced)[..., 0], np.asarray(image.convert("L")))
        assert decode(encoded(image, "PNG")).shape == (height, width, 3)


def _interlaced(grey: np.ndarray) -> bytes:
    height, width = grey.shape
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = [b"\0" + row.tobytes() for x, y, dx, dy in passes for row in grey[y::dy, x::dx] if row.size]
    header = png_chunk(b"IHDR", width.to_bytes(4) + height.to_bytes(4) + b"\x08\0\0\0\x01")
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"".join(rows))) + png_chunk(b"IEND", b"")


def test_metadata_bombs_cost_nothing():
    bomb = zlib.compress(bytes(50_000_000), 9)
    row = bytes(96)
    for chunk in (b"zTXt", b"iCCP"):
        data = png(32, 32, 8, 2, [row] * 32, png_chunk(chunk, b"name\0\0" + bomb))
        tracemalloc.start()
        try:
            assert code_of(data) in (None, RejectCode.CORRUPT)
            assert tracemalloc.get_traced_memory()[1] < 10_000_000
        finally:
            tracemalloc.stop()
    plain = CORPUS["jpeg"]
    padded = plain[:2] + jpeg_segment(0xE5, bytes(65_000)) * 200 + plain[2:]
    assert np.array_equal(decode(padded), decode(plain))


def test_jpegs_that_viewers_show_whole_are_not_rejected():
    plain = CORPUS["jpeg"]
    whole = decode(plain)
    assert np.array_equal(decode(plain + b"\0" * 500 + b"trailing garbage"), whole)
    assert np.array_equal(decode(plain[:-2] + b"\0" * 40 + plain[-2:]), whole), "padding before the end marker"
    odd = bytearray(plain)
    odd[plain.index(b"\xff\xda") + 12] = 0  # end of the spectral range, which sequential JPEGs do not use
    assert np.array_equal(decode(bytes(odd)), whole), "odd scan parameters"
    assert code_of(bytes(odd[: len(odd) // 2])) == RejectCode.TRUNCATED
    assert code_of(bytes(odd[: len(odd) // 2]) + b"\xff\xd9") == RejectCode.CORRUPT, "half an image behind odd parameters"
    assert code_of(plain[: len(plain) // 2] + b"\xff\xd9") == RejectCode.CORRUPT


JUNK = (b"\0\0\0\0", b"abc", b"\xff\0\xff\0", b"\xff\xd3", b"x" * 5000)
ODD_SEGMENTS = {
    "a part of the profile is missing": jpeg_segment(0xE2, b"ICC_PROFILE\0\1\2" + bytes(50)),
    "a part of the profile comes twice": jpeg_segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(50)) * 2,
    "no part of no profile": jpeg_segment(0xE2, b"ICC_PROFILE\0\0\0"),
    "Adobe cut short": jpeg_segment(0xEE, b"Adobe"),
    "Adobe of an unknown transform": jpeg_segment(0xEE, b"Adobe\0\x64\0\0\0\0\x07"),
    "JFIF of another age": jpeg_segment(0xE0, b"JFIF\0\x07\1\0\0\1\0\1\0\0"),
    "JFIF without its thumbnail": jpeg_segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\x05\x05"),
    "EXIF of nothing": jpeg_segment(0xE1, b"Exif\0\0junk"),
    "number of lines, too early": jpeg_segment(0xDC, b"\0\x60"),
    "a length of none": b"\xff\xe5\0\1",
}


def with_odd_headers(plain: bytes) -> dict[str, bytes]:
    """The file with junk before each marker from the second on, and with odd segments behind the first."""
    found, at = {}, 2
    while plain[at + 1] != 0xDA:
        at += 2 + int.from_bytes(plain[at + 2 : at + 4])
        found |= {f"{junk[:4]!r} before {plain[at + 1]:x} at {at}": plain[:at] + junk + plain[at:] for junk in JUNK}
    return found | {name: plain[:20] + segment + plain[20:] for name, segment in ODD_SEGMENTS.items()}


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}])
def test_what_is_odd_before_the_first_scan_costs_no_pixel(options):
    plain = encoded(scene(), "JPEG", quality=90, **options)
    whole, half = decode(plain), len(plain) // 2
    for name, odd in with_odd_headers(plain).items():
        assert np.array_equal(decode(odd), whole), name
        assert (probe(odd).width, probe(odd).height) == (70, 90), name
        assert code_of(odd[:-half]) == RejectCode.TRUNCATED, name


def test_what_stands_behind_junk_in_a_header_is_read():
    turned = encoded(scene(), "JPEG", exif=oriented(6))
    exif = turned.index(b"\xff\xe1")
    assert np.array_equal(decode(turned[:exif] + b"junk" + turned[exif:]), decode(turned))
    assert probe(turned[:exif] + b"junk" + turned[exif:]).orientation == 6


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("every", [1, 3, 10])
def test_a_few_bytes_too_many_before_a_restart_marker(mode, every):
    plain = encoded(scene().convert(mode), "JPEG", quality=90, restart_marker_blocks=every)
    whole, half = decode(plain), len(plain) // 2
    scan = plain.index(b"\xff\xda")
    places = [m.start() for m in re.finditer(rb"\xff[\xd0-\xd7]", plain) if m.start() > scan]
    assert len(places) >= 2
    for at in places[:: max(1, len(places) // 8)]:
        for junk in (b"a", b"\x12\x34\x56", b"sixteen bytes ok"):
            odd = plain[:at] + junk + plain[at:]
            assert np.array_equal(decode(odd), whole), (at, junk)
            assert code_of(odd[:-half]) == RejectCode.TRUNCATED
        assert code_of(plain[:at] + bytes(range(65, 105)) + plain[at:]) == RejectCode.CORRUPT
        assert code_of(plain[: at - 6] + plain[at:]) == RejectCode.CORRUPT, "six bytes are missing there"


def test_a_jpeg_of_a_sampling_that_the_fast_decoder_refuses():
    """The four blocks of a CMYK file, relabelled: one of luma, two of blue, one of red."""
    cmyk = encoded(scene(32, 64).convert("CMYK"), "JPEG", quality=95)
    scan = cmyk.index(b"\xff\xda")
    tables = cmyk[cmyk.index(b"\xff\xdb") : cmyk.index(b"\xff\xc0")]
    huffman = cmyk[cmyk.index(b"\xff\xc4") : scan]
    frame = jpeg_segment(0xC0, bytes([8, 0, 64, 0, 64, 3, 1, 0x11, 0, 2, 0x21, 0, 3, 0x11, 0]))
    start = jpeg_segment(0xDA, bytes([3, 1, 0, 2, 0, 3, 0, 0, 63, 0]))
    unusual = b"\xff\xd8" + tables + frame + huffman + start + cmyk[scan + 2 + int.from_bytes(cmyk[scan + 2 : scan + 4]) :]
    assert np.array_equal(decode(unusual), np.asarray(Image.open(io.BytesIO(unusual)).convert("RGB")))
    assert {code_of(unusual[:-cut]) for cut in (1, 2, 3, 100, 500)} == {RejectCode.TRUNCATED}


def test_a_jpeg_of_many_scans_is_refused():
    progressive = CORPUS["jpeg progressive"]
    last = progressive.rindex(b"\xff\xda")
    with pytest.raises(Reject, match="scans"):
        probe(progressive[:-2] + progressive[last:-2] * 100 + progressive[-2:])
    assert code_of(progressive + b"\xff\xda" * 500) is None, "markers behind the image are no scans"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_scaled_decoding_keeps_the_wanted_side(options):
    data = encoded(scene(801, 643), "JPEG", quality=95, **options)
    for wanted, expected in ((None, 643), (400, 643), (322, 322), (321, 322), (161, 161), (100, 161), (81, 81), (10, 81)):
        image = decode(data, min_side_px_wanted=wanted)
        assert image.shape[0] == expected
        reference = scene(801, 643).resize(image.shape[1::-1], Image.Resampling.BOX)
        assert mean_difference(image, reference) < 4
    turned = encoded(scene(801, 643), "JPEG", exif=oriented(6))
    assert decode(turned, min_side_px_wanted=300).shape == (401, 322, 3)


def test_curves_of_profiles():
    """None is a line, one number a power, more are samples; ICC.1:2022, 10.6."""
    x = np.linspace(0, 1, 1024)

    def curve(*numbers: int) -> np.ndarray:
        return colour._curve(b"curv" + bytes(4) + struct.pack(f">I{len(numbers)}H", len(numbers), *numbers))

    assert np.array_equal(curve(), x)
    assert np.allclose(curve(2 * 256), x**2)
    assert curve(0, 13107, 65535).tolist() == [0, 0.2, 1]


def test_wide_gamut_photos_are_converted():
    """Against LittleCMS with the same profile. The sRGB profile itself changes nothing."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    assert np.array_equal(decode(encoded(scene(), "PNG", icc_profile=srgb.tobytes())), np.asarray(scene()))
    wide = _matrix_profile(srgb.tobytes())
    data = encoded(scene(), "PNG", icc_profile=wide)
    expected = ImageCms.profileToProfile(scene(), ImageCms.ImageCmsProfile(io.BytesIO(wide)), srgb)
    assert mean_difference(np.asarray(scene()), expected) > 4
    assert mean_difference(decode(data), expected) < 1
    assert mean_difference(decode(encoded(scene(), "JPEG", quality=98, icc_profile=wide)), expected) < 3
    for cut in range(0, len(wide), 7):  # a damaged profile is no profile
        assert (
            decode(encoded(scene(16, 16), "BMP")).shape == decode(encoded(scene(16, 16), "PNG", icc_profile=wide[:cut])).shape
        )


def _matrix_profile(srgb: bytes) -> bytes:
    """The sRGB profile with the D50-adapted primaries of Display P3."""
    profile = bytearray(srgb)
    primaries = {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
    }
    for i in range(int.from_bytes(profile[128:132])):
        entry = 132 + 12 * i
        offset = int.from_bytes(profile[entry + 4 : entry + 8])
        if xyz := primaries.get(bytes(profile[entry : entry + 4])):
            profile[offset + 8 : offset + 20] = b"".join(round(v * 65536).to_bytes(4, signed=True) for v in xyz)
    return bytes(profile)


@pytest.mark.parametrize("threads", [1, 3])
def test_many_keeps_order_and_holds_no_bytes_of_the_rejected(threads):
    blobs = [CORPUS["jpeg"], b"", CORPUS["png"], None, CORPUS["jpeg"][:400], CORPUS["gif animated"]]
    codes = [None, RejectCode.EMPTY, None, RejectCode.EMPTY, RejectCode.TRUNCATED, None]
    for given in (blobs, pa.array(blobs, pa.binary()), pa.chunked_array([pa.array(blobs[:2]), pa.array(blobs[2:])])):
        results = decode_many(given, threads=threads)
        assert [getattr(r, "code", None) for r in results] == codes
        rejects = [r for r in results if isinstance(r, Reject)]
        assert all(r.__traceback__ is None and r.__context__ is None for r in rejects)
        assert np.array_equal(results[2], decode(CORPUS["png"]))
    assert decode_many([], threads=threads) == []


def test_probe_reads_headers_only():
    data = CORPUS["jpeg exif"]
    assert probe(data) == ImageInfo("jpeg", 70, 90, 6)
    with pytest.raises(Reject) as e:
        probe(data, DecodeLimits(max_pixels=100))
    assert e.value.code == RejectCode.TOO_MANY_PIXELS


def test_real_photos_are_as_pillow_decodes_them(real_images):
    for folder in ("catalog/images", "user_photos/images", "views/images", "street/photos"):
        for path in sorted((real_images / folder).iterdir())[:12]:
            expected = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
            assert mean_difference(decode(path.read_bytes()), expected) < 0.5
