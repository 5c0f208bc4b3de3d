"""The page of photos: boxes and masks drawn on them, cut-outs, class counts, and rejects."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageFilter

from w2w.errors import Reject
from w2w.images.decode import decode
from w2w.report.page import data_uri, thumbnail, write_page

_PHOTO_PX = 420
_DIMMED = 0.35  # of the background's brightness, if a mask is drawn
_WHITE = (255, 255, 255)
_LEAST_NUMBER_PX = 13
# Okabe and Ito 2008: distinguishable with all common kinds of colour vision
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999")
_DARK = 340  # sum of red, green and blue below which black letters are unreadable


@dataclass(frozen=True)
class Box:
    """A garment in a photo: box (xyxy) in the photo's pixels; ``mask``: bool of any size, over the whole photo."""

    category: str
    label: str
    score: float
    box: tuple[float, float, float, float]
    mask: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Seen:
    """One photo with its results. ``mask``: bool of any size, drawn over the whole photo."""

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
    """A rejected photo, and the reason."""

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


@dataclass(frozen=True)
class Key:
    """A line of a photo's legend: the number at a box, its colour, and the detected class."""

    number: int
    text: str
    colour: str

    @property
    def dark(self) -> bool:
        return _is_dark(self.colour)


def colours_of(categories: Iterable[str]) -> dict[str, str]:
    """A colour per class; classes beyond the palette share colours, and are told apart by their numbers."""
    return {c: COLOURS[i % len(COLOURS)] for i, c in enumerate(sorted(categories))}


def legend_of(seen: Seen, colours: Mapping[str, str]) -> list[Key]:
    """The entries that ``draw`` numbers, highest score first."""
    keys = []
    for number, box in enumerate(_surest(seen.boxes), 1):
        label = "" if box.label == box.category else f" ({box.label})"
        keys.append(Key(number, f"{box.category}{label} {box.score:.2f}", colours.get(box.category, COLOURS[-1])))
    return keys


def draw(seen: Seen, colours: Mapping[str, str], longest_px: int = _PHOTO_PX) -> Image.Image | None:
    """The photo with numbered boxes in their class's colour and the person's box dashed; outside a mask it is dimmed, and the
    mask is outlined, so that the clothes keep their colours. None if the photo is unreadable."""
    try:
        pixels = decode(seen.image)
    except Reject:
        return None
    height, width = pixels.shape[:2]
    picture = Image.fromarray(pixels)
    picture.thumbnail((longest_px, longest_px))
    if seen.mask is not None:
        picture = _outlined(picture, seen.mask)
    for box in seen.boxes:
        if box.mask is not None:
            picture.paste(colours.get(box.category, COLOURS[-1]), (0, 0), _edge(_inside(box.mask, picture.size), 3))
    pen = ImageDraw.Draw(picture)
    x, y = picture.width / width, picture.height / height
    if seen.person:
        _dashed(pen, tuple(v * s for v, s in zip(seen.person, (x, y, x, y))))
    size_px = max(_LEAST_NUMBER_PX, longest_px // 28)
    numbered = list(enumerate(_surest(seen.boxes), 1))
    for number, box in reversed(numbered):  # highest score on top
        left, top, right, bottom = (v * s for v, s in zip(box.box, (x, y, x, y)))
        colour = colours.get(box.category, COLOURS[-1])
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=2)
        text = str(number)
        at = (min(left + 4, picture.width - size_px), max(0.0, top + 3))
        x0, y0, x1, y1 = pen.textbbox(at, text, font_size=size_px)
        pen.rectangle((x0 - 3, y0 - 3, x1 + 3, y1 + 3), fill=colour)
        pen.text(at, text, fill="white" if _is_dark(colour) else "black", font_size=size_px)
    return picture


def _surest(boxes: Sequence[Box]) -> list[Box]:
    return sorted(boxes, key=lambda box: -box.score)


def _is_dark(colour: str) -> bool:
    return sum(ImageColor.getrgb(colour)) < _DARK


def _outlined(picture: Image.Image, mask: np.ndarray) -> Image.Image:
    inside = _inside(mask, picture.size)
    drawn = Image.composite(picture, picture.point(lambda value: int(value * _DIMMED)), inside)
    drawn.paste(_WHITE, (0, 0), _edge(inside, 5))
    return drawn


def _inside(mask: np.ndarray, size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).resize(size, Image.Resampling.NEAREST)


def _edge(inside: Image.Image, width_px: int) -> Image.Image:
    """The pixels around it."""
    return ImageChops.subtract(inside.filter(ImageFilter.MaxFilter(width_px)), inside)


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
    explained: str = "",
) -> None:
    """Writes the page to ``out``. ``reject_counts``: (stage, code, count) over all rejects, not only those shown;
    ``explained``: a sentence above the photos."""
    colours = colours_of({b.category for p in photos for b in p.boxes} | {c for h in histograms[:1] for c in h.counts})
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
                "legend": legend_of(photo, colours),
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
        photos=shown,
        explained=explained,
        rejects=refused,
        reject_counts=list(reject_counts),
    )
