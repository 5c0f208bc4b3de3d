"""The image format of some bytes, by their signature alone; and the suffixes of image files."""

from w2w.errors import Reject, RejectCode

JPEG, PNG, GIF, WEBP, AVIF, BMP, TIFF = "jpeg", "png", "gif", "webp", "avif", "bmp", "tiff"
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".avif", ".bmp", ".tif", ".tiff")  # of their files

_SIGNATURES = {
    b"\xff\xd8\xff": JPEG,
    b"\x89PNG\r\n\x1a\n": PNG,
    b"GIF87a": GIF,
    b"GIF89a": GIF,
    b"II*\0": TIFF,
    b"MM\0*": TIFF,
}
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # sizes of the DIB header: too many texts start with "BM"
# image formats that are refused on purpose: rare in shops, or programs (PostScript, SVG) rather than pixels
_REFUSED = {
    b"\0\0\x01\0": "ICO",
    b"8BPS": "Photoshop",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"\0\0\0\x0cjP  \r\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL \r\n": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"II+\0": "BigTIFF",
    b"MM\0+": "BigTIFF",
    b"II\xbc\x01": "JPEG XR",
    b"qoif": "QOI",
    b"FLIF": "FLIF",
    b"DDS ": "DDS",
    b"\xd7\xcd\xc6\x9a": "WMF",
    b"gimp xcf": "GIMP",
}
_AVIF_BRANDS, _HEIF_BRANDS = {b"avif", b"avis"}, {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
_TEXT_BYTES = 2048  # how far into the file an SVG's first tag may be


def image_format(data: bytes) -> str:
    """One of the names above. Raises Reject: NOT_AN_IMAGE, or UNSUPPORTED for an image format that w2w does not decode."""
    head = data[:64]
    for signature, name in _SIGNATURES.items():
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WEBP
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return BMP
    if head[4:8] == b"ftyp":
        brands = {head[i : i + 4] for i in (8, *range(16, min(int.from_bytes(head[:4]), 64), 4))}
        if brands & _AVIF_BRANDS:
            return AVIF
        if brands & _HEIF_BRANDS:
            raise Reject(RejectCode.UNSUPPORTED, "HEIF image")
    for signature, name in _REFUSED.items():
        if head.startswith(signature):
            raise Reject(RejectCode.UNSUPPORTED, f"{name} image")
    text = data[:_TEXT_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<svg", b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in text and b"<html" not in text:
        raise Reject(RejectCode.UNSUPPORTED, "SVG image")
    shown = head[:24].decode("latin-1").encode("unicode_escape").decode()
    raise Reject(RejectCode.NOT_AN_IMAGE, f"no image signature; begins with '{shown}'")
