"""A body of joints, the parts of it that a garment covers, and painting cloth onto them.

A part is a polygon in its own frame (u across, v along, each 0 to 1 where it is as long as the bone), so the same garment is
drawn on a hanger pose for its thumbnail and on any pose for a street photo.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from w2w.wardrobe.garment import Garment

Polygon = list[tuple[float, float]]


@dataclass(frozen=True)
class Part:
    """A polygon in the frame origin + u * across + v * along (image coordinates)."""

    origin: np.ndarray
    across: np.ndarray
    along: np.ndarray
    polygon: Polygon
    plain: bool = False  # sleeves and legs: the pattern without the print

    def points(self) -> Polygon:
        return [tuple(self.origin + u * self.across + v * self.along) for u, v in self.polygon]


@dataclass(frozen=True)
class Body:
    """Joints by name, image coordinates; ``unit`` is the length of the head."""

    joints: dict[str, np.ndarray]
    unit: float

    def limb(self, a: str, b: str, width_a: float, width_b: float, reach: float = 1.0, start: float = 0.0) -> Part:
        """A tapered limb from joint a to joint b; widths in units, ``reach`` and ``start`` along the bone."""
        along = self.joints[b] - self.joints[a]
        across = np.array([along[1], -along[0]]) / max(1e-6, np.hypot(*along)) * self.unit
        wa, wb = width_a / 2, width_b / 2
        end = wa + (wb - wa) * reach
        return Part(self.joints[a], across, along, [(-wa, start), (wa, start), (end, reach), (-end, reach)], plain=True)

    def trunk(self, top: float, hem: float, shoulder: float, waist: float, hip: float) -> Part:
        """From the shoulders (0) to the hips (1) and beyond; widths as shares of the shoulders'."""
        left, right = self.joints["shoulder_l"], self.joints["shoulder_r"]
        origin, down = (left + right) / 2, (self.joints["hip_l"] + self.joints["hip_r"]) / 2 - (left + right) / 2
        s, w, h = shoulder / 2, waist / 2, hip / 2
        polygon = [
            (-s, top),
            (-s * 0.35, top - 0.06),
            (0, top),
            (s * 0.35, top - 0.06),
            (s, top),
            (w, 0.6),
            (h, hem),
            (-h, hem),
            (-w, 0.6),
        ]
        return Part(origin, right - left, down, polygon)


def make_body(pelvis: tuple[float, float], height_px: float, rng: np.random.Generator | None) -> Body:
    """A figure of that height. Without ``rng`` it hangs straight, arms slightly apart: the pose of thumbnails."""
    unit = height_px / 7.6
    spread = (lambda low, high, still: still) if rng is None else (lambda low, high, still: float(rng.uniform(low, high)))
    hip, shoulder = 0.62 * spread(0.9, 1.1, 1), 1.0 * spread(0.9, 1.1, 1)
    lean = spread(-0.12, 0.12, 0)
    joints = {"pelvis": np.array(pelvis, float)}
    neck = joints["pelvis"] + unit * np.array([lean * 2.4, -2.5])
    joints |= {"neck": neck, "head": neck + unit * np.array([lean * 0.5, -0.75])}
    for side, sign in (("l", -1), ("r", 1)):
        joints[f"shoulder_{side}"] = neck + unit * np.array([sign * shoulder * 0.85, 0.2])
        joints[f"hip_{side}"] = joints["pelvis"] + unit * np.array([sign * hip, 0.0])
        arm = spread(0.05, 0.75, 0.38)
        bend = spread(-1.3, 0.5, 0.0)
        elbow = joints[f"shoulder_{side}"] + unit * 1.35 * np.array([sign * np.sin(arm), np.cos(arm)])
        joints[f"elbow_{side}"] = elbow
        joints[f"hand_{side}"] = elbow + unit * 1.25 * np.array([sign * np.sin(arm + bend), np.cos(arm + bend)])
        leg = spread(-0.05, 0.28, 0.05)
        knee = joints[f"hip_{side}"] * 0.7 + joints["pelvis"] * 0.3 + unit * 1.8 * np.array([sign * np.sin(leg), np.cos(leg)])
        joints[f"knee_{side}"] = knee
        shin = leg - spread(0.0, 0.35, 0.0)
        joints[f"foot_{side}"] = knee + unit * 1.75 * np.array([sign * np.sin(shin), np.cos(shin)])
    return Body(joints, unit)


def skin_parts(body: Body) -> list[Part]:
    parts = [body.trunk(0.0, 1.05, 0.95, 0.75, 0.8)]
    for s in "lr":
        parts += [
            body.limb(f"shoulder_{s}", f"elbow_{s}", 0.42, 0.34, 1.05),
            body.limb(f"elbow_{s}", f"hand_{s}", 0.34, 0.24, 1.1),
        ]
        parts += [body.limb(f"hip_{s}", f"knee_{s}", 0.8, 0.5, 1.05), body.limb(f"knee_{s}", f"foot_{s}", 0.5, 0.3, 1.0)]
    parts.append(body.limb("neck", "head", 0.4, 0.36, 0.6, -0.3))
    return parts


def garment_parts(garment: Garment, body: Body) -> list[Part]:
    """The parts that the garment covers, back to front."""
    wide, long, kind = garment.fit, garment.length, garment.kind
    sleeve = {"t-shirt": 0.6, "tank top": 0.0, "summer dress": 0.0, "long dress": 0.25, "shirt dress": 0.6}.get(kind, 2.0)
    thick = {"hoodie": 1.2, "jacket": 1.25, "coat": 1.3, "cardigan": 1.2}.get(kind, 1.0) * wide

    def sleeves() -> list[Part]:
        if sleeve == 0:
            return []
        upper = [body.limb(f"shoulder_{s}", f"elbow_{s}", 0.66 * thick, 0.52 * thick, min(1.08, sleeve), -0.06) for s in "lr"]
        lower = [body.limb(f"elbow_{s}", f"hand_{s}", 0.52 * thick, 0.4 * thick, 0.92, -0.06) for s in "lr"]
        return upper + (lower if sleeve > 1 else [])

    def flared(top: float, waist: float, hem: float, width: float) -> Part:
        part = body.trunk(0.0, 1.0, 1.0, 1.0, 1.0)
        w, h = waist * wide / 2, width * wide / 2
        return Part(part.origin, part.across, part.along, [(-w, top), (w, top), (h, hem), (-h, hem)])

    def legs(reach: float, upper: float, lower: float) -> list[Part]:
        parts = [flared(0.84, 0.86, 1.24, 0.98)]
        parts += [body.limb(f"hip_{s}", f"knee_{s}", upper * wide, lower * wide, min(1.05, reach), -0.12) for s in "lr"]
        if reach > 1.05:
            parts += [body.limb(f"knee_{s}", f"foot_{s}", lower * wide, lower * 0.85 * wide, reach - 1.0, -0.04) for s in "lr"]
        return parts

    if garment.category in ("top", "outer"):
        hem = {"coat": 1.75, "cardigan": 1.25, "tank top": 1.0}.get(kind, 1.08) * long
        return [*sleeves(), body.trunk(-0.02, hem, 1.06 * thick, 0.86 * thick, 0.92 * thick)]
    if garment.category == "dress":
        hem = {"long dress": 2.5, "shirt dress": 1.75}.get(kind, 1.7) * long
        return [*sleeves(), flared(0.55, 0.84, hem, 1.5), body.trunk(0.0, 0.62, 0.98 * wide, 0.8 * wide, 0.8 * wide)]
    if kind in ("skirt", "long skirt"):
        return [flared(0.84, 0.9, (1.55 if kind == "skirt" else 2.3) * long, 1.45)]
    if garment.category == "bottom":
        return {
            "shorts": lambda: legs(0.72 * long, 0.86, 0.8),
            "jeans": lambda: legs(1.9, 0.8, 0.5),
            "trousers": lambda: legs(1.92, 0.86, 0.68),
        }[kind]()
    if garment.category == "shoes":
        high, low = {"boots": (-0.45, 0.5), "heels": (-0.08, 0.3), "sneakers": (-0.16, 0.42)}[kind]
        parts = []
        for s, sign in (("l", -1), ("r", 1)):
            foot, u = body.joints[f"foot_{s}"], body.unit
            toe = 0.62 if kind != "heels" else 0.5
            polygon = [(-0.2, high), (0.2, high), (0.24, 0.05), (toe, 0.14), (toe, low * 0.62), (-0.24, low * 0.62)]
            parts.append(Part(foot, np.array([sign * u, 0.0]), np.array([0.0, u]), polygon))
        return parts
    return [_bag(garment, body)] if garment.category == "bag" else [_hat(garment, body)]


def _bag(garment: Garment, body: Body) -> Part:
    hand, u = body.joints["hand_r"], body.unit * garment.fit
    across, along = np.array([u, 0.0]), np.array([0.0, u])
    tote = [(-0.12, -0.1), (0.12, -0.1), (0.2, 0.25), (0.62, 0.25), (0.7, 1.35), (-0.7, 1.35), (-0.62, 0.25), (-0.2, 0.25)]
    if garment.kind == "tote":
        return Part(hand, across, along, tote)
    if garment.kind == "backpack":
        polygon = [(-0.3, -0.2), (0.3, -0.2), (0.55, 0.1), (0.6, 1.2), (-0.6, 1.2), (-0.55, 0.1)]
        return Part(hand, across, along, polygon)
    polygon = [(-0.05, -1.0), (0.05, -1.0), (0.6, 0.1), (0.75, 0.2), (0.68, 0.95), (-0.68, 0.95), (-0.75, 0.2), (-0.6, 0.1)]
    return Part(body.joints["hip_r"] + np.array([0.35 * body.unit, 0.1 * body.unit]), across, along, polygon)


def _hat(garment: Garment, body: Body) -> Part:
    head, u = body.joints["head"], body.unit
    polygon = {
        "cap": [
            (-0.46, -0.18),
            (-0.4, -0.62),
            (0.0, -0.78),
            (0.4, -0.62),
            (0.46, -0.3),
            (0.95, -0.22),
            (0.95, -0.1),
            (0.4, -0.14),
        ],
        "beanie": [(-0.48, -0.1), (-0.46, -0.6), (-0.15, -0.92), (0.15, -0.92), (0.46, -0.6), (0.48, -0.1)],
        "brim hat": [
            (-0.95, -0.18),
            (-0.42, -0.32),
            (-0.36, -0.85),
            (0.36, -0.85),
            (0.42, -0.32),
            (0.95, -0.18),
            (0.6, -0.06),
            (-0.6, -0.06),
        ],
    }[garment.kind]
    return Part(head, np.array([u * garment.fit, 0.0]), np.array([0.0, u]), polygon)


def paint(canvas: Image.Image, labels: Image.Image, part: Part, texture: Image.Image, label: int, light: float = 0.0) -> None:
    """Draws the part's cloth onto ``canvas`` and its number onto ``labels``. ``light``: shading across, from the left."""
    points = part.points()
    xs, ys = zip(*points)
    left, top = max(0, int(min(xs)) - 1), max(0, int(min(ys)) - 1)
    right, bottom = min(canvas.width, int(max(xs)) + 2), min(canvas.height, int(max(ys)) + 2)
    if right <= left or bottom <= top:
        return
    local = [(x - left, y - top) for x, y in points]
    mask = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(mask).polygon(local, fill=255)
    us, vs = zip(*part.polygon)
    u0, v0, du, dv = min(us), min(vs), max(us) - min(us), max(vs) - min(vs)
    # texture pixel = T @ (x, y): the inverse of origin + u * across + v * along, with (u, v) stretched over the polygon's box
    inverse = np.linalg.inv(np.column_stack([part.across, part.along]))
    offset = inverse @ (np.array([left, top]) - part.origin)
    a, b = inverse[0] * texture.width / du, inverse[1] * texture.height / dv
    c, f = (offset[0] - u0) * texture.width / du, (offset[1] - v0) * texture.height / dv
    piece = texture.transform(mask.size, Image.Transform.AFFINE, (a[0], a[1], c, b[0], b[1], f), Image.Resampling.BILINEAR)
    x = np.linspace(-1, 1, mask.width)[None, :, None]
    shade = 1.0 - 0.22 * np.abs(x) ** 2 + light * x  # cloth curves away at its sides
    piece = Image.fromarray(np.clip(np.asarray(piece, float) * shade, 0, 255).astype(np.uint8))
    canvas.paste(piece, (left, top), mask)
    ImageDraw.Draw(canvas).line([*points, points[0]], fill=tuple(int(v * 0.55) for v in np.asarray(texture)[2, 2]), width=1)
    labels.paste(label, (left, top), mask)
