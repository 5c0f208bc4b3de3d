"""What was seen in photos: boxes and masks drawn on them, cut-outs, how often each class, and what was rejected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from w2w.errors import Reject
from w2w.images.decode import decode
from w2w.report.page import data_uri, thumbnail, write_page

_PHOTO_PX = 420
# Okabe and Ito 2008: told apart by all common kinds of colour vision
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999")
_DARK = 340  # sum of red, green and blue under which black letters cannot be read
_MASK_TINT = (46, 125, 90)


@dataclass(frozen=True)
class Box:
    """A garment in a photo: box (xyxy) in the photo's pixels."""

    category: str
    label: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Seen:
    """One photo and what was made of it. ``mask``: bool of any size, drawn over the whole photo."""

    image_id: str
    image: bytes
    boxes: Sequence[Box] = ()
    person: tuple[float, float, float, float] | None = None
    mask: np.ndarray | None = None
    cutout: bytes | None = None
    crops: Sequence[tuple[str, bytes]] = ()
    note: str = ""


@dataclass(frozen=True)
class Refused:
    """One photo that was rejected, and why."""

    key: str
    stage: str
    code: str
    detail: str
    image: bytes | None


@dataclass(frozen=True)
class Histogram:
    """How many of each: numbers in their order, words by how many."""

    name: str
    counts: dict[str, int] = field(default_factory=dict)


def draw(seen: Seen, colours: dict[str, str], longest_px: int = _PHOTO_PX) -> Image.Image | None:
    """The photo with its mask tinted, boxes in their class's colour, the person's box dashed. None where it is unreadable."""
    try:
        pixels = decode(seen.image)
    except Reject:
        return None
    height, width = pixels.shape[:2]
    picture = Image.fromarray(pixels)
    picture.thumbnail((longest_px, longest_px))
    if seen.mask is not None:
        mask = Image.fromarray(np.where(seen.mask, 110, 0).astype(np.uint8)).resize(picture.size)
        picture.paste(Image.new("RGB", picture.size, _MASK_TINT), (0, 0), mask)
    pen = ImageDraw.Draw(picture)
    x, y = picture.width / width, picture.height / height
    if seen.person:
        _dashed(pen, tuple(v * s for v, s in zip(seen.person, (x, y, x, y))))
    for box in seen.boxes:
        left, top, right, bottom = (v * s for v, s in zip(box.box, (x, y, x, y)))
        colour = colours.get(box.category, COLOURS[-1])
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=2)
        text = f"{box.category} {box.score:.2f}"
        at = (left + 2, max(0, top - 12) if top > 12 else top + 2)
        pen.rectangle(pen.textbbox(at, text), fill=colour)
        pen.text(at, text, fill="white" if sum(ImageColor.getrgb(colour)) < _DARK else "black")
    return picture


def _ordered(counts: dict[str, int]) -> list[tuple[str, int]]:
    if all(label.isdigit() for label in counts):
        return sorted(counts.items(), key=lambda kv: int(kv[0]))
    return sorted(counts.items(), key=lambda kv: -kv[1])


def _dashed(pen: ImageDraw.ImageDraw, box: tuple[float, ...], dash_px: int = 8) -> None:
    left, top, right, bottom = map(int, box)
    for start in range(left, right, 2 * dash_px):
        for y in (top, bottom - 1):
            pen.line((start, y, min(start + dash_px, right), y), fill="white", width=2)
    for start in range(top, bottom, 2 * dash_px):
        for x in (left, right - 1):
            pen.line((x, start, x, min(start + dash_px, bottom)), fill="white", width=2)


def garment_report(
    out: str,
    title: str,
    headline: Mapping[str, object],
    facts: Mapping[str, object],
    histograms: Sequence[Histogram],
    photos: Sequence[Seen],
    rejects: Sequence[Refused],
    reject_counts: Sequence[tuple[str, str, int]],
) -> None:
    """Writes the page to ``out``. ``reject_counts``: (stage, code, how many), of all rejects and not only those shown."""
    categories = sorted({b.category for p in photos for b in p.boxes} | {c for h in histograms[:1] for c in h.counts})
    colours = {c: COLOURS[i % len(COLOURS)] for i, c in enumerate(categories)}
    shown = []
    for photo in photos:
        picture = draw(photo, colours)
        shown.append(
            {
                "id": photo.image_id,
                "image": data_uri(picture) if picture else None,
                "cutout": thumbnail(photo.cutout),
                "crops": [(label, thumbnail(data)) for label, data in photo.crops],
                "note": photo.note,
                "boxes": [(b.category, b.label, b.score, colours[b.category]) for b in photo.boxes],
            }
        )
    bars = [{"name": h.name, "rows": _ordered(h.counts), "most": max(h.counts.values())} for h in histograms if h.counts]
    refused = [
        {"key": r.key, "stage": r.stage, "code": r.code, "detail": r.detail, "image": thumbnail(r.image)} for r in rejects
    ]
    write_page(
        out,
        "garments/page.html.j2",
        title=title,
        headline=headline,
        facts=facts,
        bars=bars,
        colours=colours,
        photos=shown,
        rejects=refused,
        reject_counts=list(reject_counts),
    )
