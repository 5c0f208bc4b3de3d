"""Garments: a product of the synthetic shop, drawn from a seed, and its cloth as a texture."""

import colorsys
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from w2w.ids import digest

CATEGORIES = ("bag", "bottom", "dress", "hat", "outer", "shoes", "top")
KINDS = {
    "top": ("t-shirt", "long sleeve", "tank top", "shirt", "hoodie"),
    "bottom": ("trousers", "jeans", "shorts", "skirt", "long skirt"),
    "dress": ("summer dress", "long dress", "shirt dress"),
    "outer": ("jacket", "coat", "cardigan"),
    "shoes": ("sneakers", "boots", "heels"),
    "bag": ("tote", "shoulder bag", "backpack"),
    "hat": ("cap", "beanie", "brim hat"),
}
PATTERNS = ("solid", "stripes", "bars", "checks", "dots", "flowers", "camouflage", "gradient", "blocks")
PRINTS = ("none", "disc", "star", "triangle", "letter", "rings", "bolt")
STYLES = ("casual", "street", "classic", "sporty", "romantic")
# the planted compatibility rule: a style likes these patterns, and an outfit shares style and a hue or a neutral
_STYLE_PATTERNS = {
    "casual": ("solid", "stripes", "gradient"),
    "street": ("camouflage", "blocks", "solid"),
    "classic": ("solid", "checks", "bars"),
    "sporty": ("blocks", "stripes", "gradient"),
    "romantic": ("flowers", "dots", "solid"),
}
_HUES = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink")
_NEUTRALS = {
    "black": (32, 31, 34),
    "grey": (128, 128, 132),
    "white": (236, 233, 226),
    "beige": (206, 184, 150),
    "brown": (104, 72, 48),
}
_TEXTURE_PX = 192

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Garment:
    """One product. ``fit`` scales widths (0.9 slim to 1.15 wide), ``length`` hems (0.85 to 1.15)."""

    product_id: str
    category: str
    kind: str
    colour_name: str
    colour: Colour
    second: Colour
    pattern: str
    pattern_scale: float
    print: str
    print_colour: Colour
    style: str
    fit: float
    length: float
    buttons: bool
    texture_seed: int


def generator(*parts: object) -> np.random.Generator:
    """A generator determined by the parts alone, the same in every process."""
    return np.random.default_rng(int(digest(*parts), 16))


def make_garment(seed: int, number: int) -> Garment:
    """Product ``number`` of the shop with that seed. One in three is a look-alike of the product seven before it: the same
    silhouette with another print, pattern or colour."""
    rng = generator("garment", seed, number)
    if number >= 7 and rng.random() < 1 / 3:
        twin = make_garment(seed, number - 7)
        change = rng.choice(["print", "pattern", "colour"])
        colour_name, colour, second = _colours(rng)
        return Garment(
            f"w{seed}-{number:06d}",
            twin.category,
            twin.kind,
            colour_name if change == "colour" else twin.colour_name,
            colour if change == "colour" else twin.colour,
            second if change == "colour" else twin.second,
            str(rng.choice(PATTERNS)) if change == "pattern" else twin.pattern,
            twin.pattern_scale,
            str(rng.choice(PRINTS[1:])) if change == "print" else twin.print,
            twin.print_colour,
            twin.style,
            twin.fit,
            twin.length,
            twin.buttons,
            int(rng.integers(2**31)),
        )
    category = CATEGORIES[number % 7]
    style = str(rng.choice(STYLES))
    colour_name, colour, second = _colours(rng)
    printed = category in ("top", "bag", "outer", "hat") and rng.random() < 0.45
    return Garment(
        f"w{seed}-{number:06d}",
        category,
        str(rng.choice(KINDS[category])),
        colour_name,
        colour,
        second,
        str(rng.choice(_STYLE_PATTERNS[style])),
        float(rng.uniform(0.6, 1.6)),
        str(rng.choice(PRINTS[1:])) if printed else "none",
        _hsv(rng.random(), rng.uniform(0.5, 0.9), rng.uniform(0.5, 1.0)),
        style,
        float(rng.uniform(0.9, 1.15)),
        float(rng.uniform(0.85, 1.15)),
        bool(rng.random() < 0.5),
        int(rng.integers(2**31)),
    )


def _hsv(h: float, s: float, v: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(h % 1.0, s, v)
    return int(255 * red), int(255 * green), int(255 * blue)


def _colours(rng: np.random.Generator) -> tuple[str, Colour, Colour]:
    if rng.random() < 0.4:
        name = str(rng.choice(list(_NEUTRALS)))
        base = np.array(_NEUTRALS[name]) + rng.integers(-8, 9, 3)
        red, green, blue = np.clip(base, 0, 255).tolist()
        colour = red, green, blue
    else:
        i = int(rng.integers(len(_HUES)))
        name = _HUES[i]
        colour = _hsv(i / len(_HUES) + rng.uniform(-0.03, 0.03), rng.uniform(0.45, 0.9), rng.uniform(0.45, 0.95))
    second = _hsv(rng.random(), rng.uniform(0.1, 0.8), rng.uniform(0.3, 1.0))
    return name, colour, second


def cloth(garment: Garment, plain: bool = False) -> Image.Image:
    """The garment's texture: pattern, print in the upper middle and buttons (not if ``plain``), weave; RGB, 192 x 192."""
    rng = np.random.default_rng(garment.texture_seed)
    n, step = _TEXTURE_PX, max(6, int(22 * garment.pattern_scale))
    image = Image.new("RGB", (n, n), garment.colour)
    draw = ImageDraw.Draw(image)
    if garment.pattern == "stripes":
        for y in range(0, n, step):
            draw.rectangle((0, y, n, y + step // 2), fill=garment.second)
    elif garment.pattern == "bars":
        for x in range(0, n, step):
            draw.rectangle((x, 0, x + step // 4, n), fill=garment.second)
    elif garment.pattern == "checks":
        mixed = tuple((a + b) // 2 for a, b in zip(garment.colour, garment.second))
        for a in range(0, n, step):
            draw.rectangle((a, 0, a + step // 3, n), fill=mixed)
        for a in range(0, n, step):
            draw.rectangle((0, a, n, a + step // 3), fill=garment.second)
    elif garment.pattern == "dots":
        for i, y in enumerate(range(0, n, step)):
            for x in range(step // 2 * (i % 2), n, step):
                draw.ellipse((x, y, x + step // 2, y + step // 2), fill=garment.second)
    elif garment.pattern == "flowers":
        for x, y in rng.integers(0, n, (int(40 / garment.pattern_scale), 2)).tolist():
            r = step // 3
            for a in np.arange(5) * 2 * np.pi / 5:
                cx, cy = x + r * np.cos(a), y + r * np.sin(a)
                draw.ellipse((cx - r * 0.7, cy - r * 0.7, cx + r * 0.7, cy + r * 0.7), fill=garment.second)
            draw.ellipse((x - r / 2, y - r / 2, x + r / 2, y + r / 2), fill=garment.print_colour)
    elif garment.pattern == "camouflage":
        tones = [garment.second, tuple(c // 2 for c in garment.colour), tuple((c + 60) % 256 for c in garment.colour)]
        for i, (x, y) in enumerate(rng.integers(-10, n, (60, 2)).tolist()):
            w, h = rng.integers(step, 3 * step, 2).tolist()
            draw.ellipse((x, y, x + w, y + h // 2), fill=tones[i % 3])
    elif garment.pattern == "gradient":
        ramp = np.linspace(0, 1, n)[:, None, None]
        mixed = (1 - ramp) * np.array(garment.colour) + ramp * np.array(garment.second)
        image = Image.fromarray(np.broadcast_to(mixed, (n, n, 3)).astype(np.uint8))
        draw = ImageDraw.Draw(image)
    elif garment.pattern == "blocks":
        draw.rectangle((0, int(n * rng.uniform(0.4, 0.6)), n, n), fill=garment.second)
        draw.rectangle((0, 0, n // 8, n), fill=garment.print_colour)
    if not plain:
        _draw_print(draw, garment, rng)
    if not plain and garment.buttons and garment.kind in ("shirt", "shirt dress", "cardigan", "coat", "jacket"):
        draw.line((n // 2, 0, n // 2, n), fill=tuple(c // 2 for c in garment.colour), width=2)
        for y in range(n // 10, n, n // 8):
            draw.ellipse((n // 2 - 4, y - 4, n // 2 + 4, y + 4), fill=garment.second)
    weave = rng.normal(0, 4, (n, n, 1)) + rng.normal(0, 3, (1, n, 1))
    return Image.fromarray(np.clip(np.asarray(image, float) + weave, 0, 255).astype(np.uint8))


def _draw_print(draw: ImageDraw.ImageDraw, garment: Garment, rng: np.random.Generator) -> None:
    if garment.print == "none":
        return
    n, fill = _TEXTURE_PX, garment.print_colour
    x, y, r = n / 2 + rng.uniform(-12, 12), n * rng.uniform(0.3, 0.42), n * rng.uniform(0.13, 0.2)
    box = (x - r, y - r, x + r, y + r)

    def ring(num: int, inner: float) -> list[tuple[float, float]]:
        angles = np.arange(num) * 2 * np.pi / num - np.pi / 2
        radii = np.where(np.arange(num) % 2, r * inner, r)
        return [(x + q * np.cos(a), y + q * np.sin(a)) for a, q in zip(angles, radii)]

    if garment.print == "disc":
        draw.ellipse(box, fill=fill)
    elif garment.print == "star":
        draw.polygon(ring(10, 0.4), fill=fill)
    elif garment.print == "triangle":
        draw.polygon(ring(3, 1.0), fill=fill)
    elif garment.print == "rings":
        for q in (1.0, 0.66, 0.33):
            draw.ellipse((x - r * q, y - r * q, x + r * q, y + r * q), outline=fill, width=5)
    elif garment.print == "bolt":
        draw.polygon(
            [
                (x, y - r),
                (x - r * 0.6, y + r * 0.1),
                (x, y),
                (x - r * 0.1, y + r),
                (x + r * 0.6, y - r * 0.2),
                (x, y - r * 0.1),
            ],
            fill=fill,
        )
    else:
        strokes = rng.integers(0, 2, 6)
        for i, on in enumerate(strokes):
            if on or i == 0:
                a, b = i % 3, i // 3
                draw.rectangle(
                    (x - r + a * r * 0.7, y - r + b * r, x - r + a * r * 0.7 + r * 0.4, y - r + b * r + r * 0.9), fill=fill
                )
