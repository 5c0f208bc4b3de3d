"""Pictures of garments: product thumbnails, and street photos of people who wear them, with pixel-exact ground truth."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from w2w.wardrobe.figure import Part, garment_parts, make_body, paint, skin_parts
from w2w.wardrobe.garment import Garment, cloth, generator

_ORDER = ("bottom", "top", "dress", "shoes", "outer", "bag", "hat")  # drawing order
_SKIN = ((241, 206, 178), (224, 176, 140), (190, 138, 100), (140, 94, 64), (92, 60, 42))
_HAIR = ((30, 24, 22), (70, 46, 30), (150, 110, 60), (200, 170, 110), (110, 40, 30))


@dataclass(frozen=True)
class Item:
    """A garment in a street photo: its visible pixels, their bounding box, and the visible share."""

    product_id: str
    category: str
    mask: np.ndarray  # bool (H, W)
    box_xyxy: tuple[int, int, int, int]
    visible_fraction: float


@dataclass(frozen=True)
class StreetPhoto:
    """uint8 (H, W, 3), what is worn, and the person's pixels, bool (H, W)."""

    image: np.ndarray
    items: list[Item]
    person_mask: np.ndarray


def thumbnail(garment: Garment, size_px: int = 384) -> np.ndarray:
    """The product shot: the garment alone on a near-white background, with a soft shadow. uint8 (size_px, size_px, 3)."""
    rng = generator("thumbnail", garment.product_id)
    big = 2 * size_px
    body = make_body((big / 2, big * 0.5), big * 1.6, None)
    for side, sign in (("l", -1), ("r", 1)):  # a pair of shoes, close together
        body.joints[f"foot_{side}"] = body.joints["pelvis"] + np.array([sign * 0.34 * body.unit, 3.5 * body.unit])
    parts = (
        garment_parts(garment, body)
        if garment.category == "shoes"
        else garment_parts(garment, make_body((big / 2, big / 2), big * 1.6, None))
    )
    points = np.array([p for part in parts for p in part.points()])
    low, high = points.min(0), points.max(0)
    scale = big * rng.uniform(0.74, 0.84) / max(high - low)
    shift = np.array([big / 2, big / 2]) - (low + high) / 2 * scale + rng.uniform(-0.02, 0.02, 2) * big
    texture, plain = cloth(garment), cloth(garment, plain=True)
    ground = int(rng.integers(243, 256))
    canvas, labels = Image.new("RGB", (big, big), (ground,) * 3), Image.new("L", (big, big))
    layer, shadow = canvas.copy(), Image.new("L", (big, big))
    for part in parts:
        placed = Part(part.origin * scale + shift, part.across * scale, part.along * scale, part.polygon)
        paint(layer, labels, placed, plain if part.plain else texture, 1, rng.uniform(-0.06, 0.06))
    alpha = labels.point(lambda v: 255 if v else 0)
    shadow.paste(90, (int(big * 0.012), int(big * 0.018)), alpha)
    canvas.paste((ground - 60,) * 3, (0, 0), shadow.filter(ImageFilter.BoxBlur(big * 0.015)))
    canvas.paste(layer, (0, 0), alpha)
    return np.asarray(canvas.resize((size_px, size_px), Image.Resampling.BOX))


def street_photo(seed: int, number: int, garments: list[Garment], width_px: int = 400, height_px: int = 600) -> StreetPhoto:
    """Photo ``number``: somebody wears the garments (one per category) in a street. Drawn at twice the size."""
    rng = generator("street", seed, number)
    w, h = 2 * width_px, 2 * height_px
    canvas, labels = _street(rng, w, h), Image.new("L", (w, h))
    tall = h * rng.uniform(0.74, 0.86)
    body = make_body((w * rng.uniform(0.4, 0.6), h * 0.93 - tall * 0.47), tall, rng)
    skin = Image.new("RGB", (8, 8), _SKIN[int(rng.integers(len(_SKIN)))])
    hair = _HAIR[int(rng.integers(len(_HAIR)))]
    light = rng.uniform(-0.22, 0.22)
    foot = max(body.joints["foot_l"][1], body.joints["foot_r"][1])
    shadow = Image.new("L", (w, h))
    x, u = body.joints["pelvis"][0], body.unit
    ImageDraw.Draw(shadow).ellipse(
        (x - 1.5 * u - 2 * u * light, foot - 0.1 * u, x + 1.5 * u - 2 * u * light, foot + 0.45 * u), fill=110
    )
    canvas.paste((20, 20, 24), (0, 0), shadow.filter(ImageFilter.BoxBlur(u * 0.12)))
    person = 1
    for part in skin_parts(body):
        paint(canvas, labels, part, skin, person, light)
    worn = sorted(garments, key=lambda g: _ORDER.index(g.category))
    whole: dict[int, int] = {}
    covered = [g.category for g in worn]
    for label, garment in enumerate(worn, start=2):
        texture, plain = cloth(garment), cloth(garment, plain=True)
        if garment.category == "hat":
            _head(canvas, labels, body, skin, hair, person, rng)
        alone = Image.new("L", (w, h))
        for part in garment_parts(garment, body):
            paint(canvas, labels, part, plain if part.plain else texture, label, light)
            ImageDraw.Draw(alone).polygon(part.points(), fill=1)
        whole[label] = int(np.asarray(alone).sum())
    if "hat" not in covered:
        _head(canvas, labels, body, skin, hair, person, rng)
    if rng.random() < 0.35:
        _occluder(canvas, labels, rng, w, h)
    picture = _light(canvas, rng, light).resize((width_px, height_px), Image.Resampling.BOX)
    picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.8)))
    noisy = np.asarray(picture, float) + rng.normal(0, rng.uniform(1, 6), (height_px, width_px, 1))
    image = np.clip(noisy, 0, 255).astype(np.uint8)
    seen = np.asarray(labels)[::2, ::2]
    items = [_item(g, seen == label, whole[label] / 4) for label, g in enumerate(worn, start=2)]
    return StreetPhoto(image, [i for i in items if i is not None], (seen > 0) & (seen < 255))


def _item(garment: Garment, mask: np.ndarray, whole_px: float) -> Item | None:
    ys, xs = np.nonzero(mask)
    if len(xs) == 0:
        return None
    box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
    return Item(garment.product_id, garment.category, mask, box, min(1.0, len(xs) / max(1.0, whole_px)))


def _head(canvas, labels, body, skin: Image.Image, hair, person: int, rng: np.random.Generator) -> None:
    x, y = body.joints["head"]
    u, draw, mark = body.unit, ImageDraw.Draw(canvas), ImageDraw.Draw(labels)
    long_hair = rng.random() < 0.45
    for target, fill in ((draw, hair), (mark, person)):
        target.ellipse((x - 0.52 * u, y - 0.68 * u, x + 0.52 * u, y + 0.3 * u), fill=fill)
        for side in (-1, 1) if long_hair else ():
            inner, outer = sorted((x + side * 0.3 * u, x + side * 0.56 * u))
            target.rounded_rectangle((inner, y - 0.3 * u, outer, y + 1.1 * u), radius=0.12 * u, fill=fill)
    face = (x - 0.4 * u, y - 0.5 * u, x + 0.4 * u, y + 0.55 * u)
    for target, fill in ((draw, skin.getpixel((0, 0))), (mark, person)):
        target.ellipse(face, fill=fill)
    draw.chord((x - 0.44 * u, y - 0.66 * u, x + 0.44 * u, y + 0.3 * u), 190, 350, fill=hair)
    for side in (-1, 1):
        draw.ellipse((x + side * 0.17 * u - 3, y - 3, x + side * 0.17 * u + 3, y + 4), fill=(30, 26, 24))
    draw.arc((x - 0.16 * u, y + 0.1 * u, x + 0.16 * u, y + 0.34 * u), 20, 160, fill=(120, 50, 44), width=2)


def _street(rng: np.random.Generator, w: int, h: int) -> Image.Image:
    """Sky or wall, houses with windows, pavement."""
    horizon = int(h * rng.uniform(0.62, 0.8))
    sky, wall, ground = (rng.integers(low, high) + rng.integers(-18, 19, 3) for low, high in ((170, 235), (90, 200), (90, 170)))
    ramp = np.linspace(0.85, 1.1, h)[:, None, None]
    rows = np.where(np.arange(h)[:, None, None] < horizon, sky, ground) * ramp
    image = Image.fromarray(np.clip(np.broadcast_to(rows, (h, w, 3)), 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    x = int(-rng.integers(0, 120))
    while x < w:
        width, top = int(rng.integers(w // 5, w // 2)), int(rng.uniform(0, 0.4) * horizon)
        tone = tuple(int(v) for v in np.clip(wall + rng.integers(-45, 45) + rng.integers(-14, 15, 3), 0, 255))
        draw.rectangle((x, top, x + width, horizon), fill=tone)
        pane = tuple(int(v * 0.6) for v in tone)
        for wy in range(top + 30, horizon - 70, 90):
            for wx in range(x + 24, x + width - 40, 80):
                draw.rectangle((wx, wy, wx + 36, wy + 52), fill=pane)
        x += width
    for _ in range(int(rng.integers(0, 6))):
        cx, r = int(rng.integers(0, w)), int(rng.integers(20, 90))
        draw.ellipse((cx - r, horizon - r, cx + r, horizon + r // 2), fill=tuple(rng.integers(20, 200, 3).tolist()))
    for _ in range(6):
        y = int(rng.integers(horizon, h))
        draw.line((0, y, w, y + int(rng.integers(-30, 30))), fill=tuple(int(v * 0.85) for v in ground), width=2)
    return image.filter(ImageFilter.BoxBlur(rng.uniform(1, 5)))


def _occluder(canvas: Image.Image, labels: Image.Image, rng: np.random.Generator, w: int, h: int) -> None:
    """A post, a bush or a passer-by's shoulder in front; its pixels belong to no garment (255)."""
    tone = tuple(rng.integers(30, 180, 3).tolist())
    if rng.random() < 0.5:
        x = w * rng.uniform(0.3, 0.7)
        box = (x, 0, x + w * rng.uniform(0.03, 0.07), h)
        shapes = [("rectangle", box)]
    else:
        x, y, r = (
            w * rng.choice([rng.uniform(0, 0.3), rng.uniform(0.7, 1)]),
            h * rng.uniform(0.75, 1),
            w * rng.uniform(0.15, 0.3),
        )
        shapes = [("ellipse", (x - r, y - r, x + r, y + r))]
    for shape, box in shapes:
        getattr(ImageDraw.Draw(canvas), shape)(box, fill=tone)
        getattr(ImageDraw.Draw(labels), shape)(box, fill=255)


def _light(canvas: Image.Image, rng: np.random.Generator, side: float) -> Image.Image:
    """Colour temperature, exposure and light from one side."""
    warmth = rng.uniform(-0.1, 0.1)
    tint = np.array([1 + warmth, 1.0, 1 - warmth]) * rng.uniform(0.75, 1.15)
    across = 1 + side * np.linspace(-0.5, 0.5, canvas.width)[None, :, None]
    return Image.fromarray(np.clip(np.asarray(canvas, float) * tint * across, 0, 255).astype(np.uint8))
