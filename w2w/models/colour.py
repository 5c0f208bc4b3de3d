"""What colours a garment has, as a part of any encoder's vector: networks that learnt to name things, or to match captions, see
little of it.

The descriptor is a joint histogram in CIELAB (CIE 15:2004, section 8.2.1; of sRGB under D65) with soft bins, a and b on the
scale of their signed roots, so that greys and pastels lie apart. The roots of its entries (Hellinger's distance: Arandjelovic
and Zisserman 2012, "Three things everyone should know to improve object retrieval") go through a fixed projection.

Counted is the foreground: on a white ground what is not white, elsewhere the middle of the picture; never the padding. The
brightest of each channel is taken for white (Land 1977, "The retinex theory of color vision"), so that other light
changes little (`python -m tests.bench.fashion`: re-lit).
"""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import avg_pool3d, interpolate, max_pool3d, normalize, one_hot

from w2w.models import weights
from w2w.models.config import COLOUR_DIM, COLOUR_FILE, Input

_SIDE = 56  # pixels a side that are looked at
_BINS = (6, 10, 10)
_ENDS = ((0.0, 100.0), (-9.0, 9.0), (-9.5, 9.5))  # of L and the signed roots of a and b: centres of the first and last bin
_LEAST_WHITE = 0.8  # a maximum below this is not white: the picture is dark, or lacks the colour
_NEAR_WHITE, _PURE_WHITE = (0.92, 0.96), 0.998  # of the darkest channel
_EDGE = 0.45  # beyond this share of the half side is the picture's edge, which shows the ground
_ON_WHITE = (0.3, 0.7)  # shares of white at the edge: up to the first the background is not white, from the second on it is
_MIDDLE = 0.35  # standard deviation of the positional weight, in sides
_LEFT = 1e-4  # of the weight is spread over all pixels: a white garment on white has colours too
# linear sRGB to XYZ (IEC 61966-2-1), each row over that of the white D65
_TO_XYZ = ((0.433953, 0.376219, 0.189828), (0.212673, 0.715152, 0.072175), (0.017756, 0.109471, 0.872773))


class Colour(nn.Module):
    """Normalised pixels (N, 3, S, S) -> unit vectors (N, 64). ``mean`` and ``std`` are those of the pixels' normalisation; with
    ``centre`` and ``projection`` they are its weights, none of which is trained."""

    def __init__(self) -> None:
        super().__init__()
        count = _BINS[0] * _BINS[1] * _BINS[2]
        shapes = {"mean": (1, 3, 1, 1), "std": (1, 3, 1, 1), "centre": (count,), "projection": (COLOUR_DIM, count)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("to_xyz", torch.tensor(_TO_XYZ), persistent=False)

    def forward(self, seen_NCHW: torch.Tensor) -> torch.Tensor:
        return normalize((self.roots(seen_NCHW) - self.centre) @ self.projection.T, dim=1)

    def roots(self, seen_NCHW: torch.Tensor) -> torch.Tensor:
        """Of the histogram's entries, (N, 600)."""
        light_NPL, hue_NPC = self._bins(seen_NCHW)
        counts_NB = (light_NPL.transpose(1, 2) @ hue_NPC).flatten(1)
        return counts_NB * torch.rsqrt(counts_NB + 1e-8)

    def by_patch(self, seen_NCHW: torch.Tensor, side: int) -> torch.Tensor:
        """(N, side * side, dim): each patch's contribution to the vector; they sum to it. Roots and length are those of the
        whole picture."""
        light_NPL, hue_NPC = self._bins(seen_NCHW)
        place = torch.arange(_SIDE, device=seen_NCHW.device) * side // _SIDE
        patch_PG = one_hot((place[:, None] * side + place).flatten(), side * side).float()
        counts_NGB = torch.einsum("pg,npl,npc->nglc", patch_PG, light_NPL, hue_NPC).flatten(2)
        roots_NGB = counts_NGB * torch.rsqrt(counts_NGB.sum(1, keepdim=True) + 1e-8)
        parts_NGD = (roots_NGB - self.centre / side**2) @ self.projection.T
        return parts_NGD / parts_NGD.sum(1, keepdim=True).norm(dim=2, keepdim=True)

    def dominant(self, pixels_NHWC: np.ndarray) -> np.ndarray:
        """uint8 (N, S, S, 3) -> uint8 (N, 3): the foreground's most frequent colour, the mean of the pixels of the histogram's
        fullest bin and of those beside it."""
        seen = (torch.from_numpy(pixels_NHWC).permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        light_NPL, hue_NPC = self._bins(seen)
        counts_NLab = (light_NPL.transpose(1, 2) @ hue_NPC).unflatten(2, _BINS[1:])
        around = avg_pool3d(counts_NLab[:, None], 3, 1, 1, count_include_pad=True).flatten(1)
        near_NLab = max_pool3d(one_hot(around.argmax(1), around.shape[1]).float().view(-1, 1, *_BINS), 3, 1, 1)[:, 0]
        weight_NP = torch.einsum("npl,nlc,npc->np", light_NPL, near_NLab.flatten(2), hue_NPC)
        rgb_N3P = torch.from_numpy(pixels_NHWC).permute(0, 3, 1, 2).float()
        rgb_N3P = interpolate(rgb_N3P, (_SIDE, _SIDE), mode="nearest").flatten(2)
        mean_N3 = (rgb_N3P * weight_NP[:, None]).sum(2) / weight_NP.sum(1, keepdim=True)
        return mean_N3.round().clamp(0, 255).to(torch.uint8).numpy()

    def _bins(self, seen_NCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Each pixel's contribution to the bins of lightness, by its weight, and to those of hue: (N, P, 6) and (N, P, 100)."""
        looked_N3HW = interpolate(seen_NCHW, (_SIDE, _SIDE), mode="nearest")  # a mean of pixels has a colour of its own
        rgb_N3HW = (looked_N3HW * self.std + self.mean).clamp(0, 1)
        pure_NHW = rgb_N3HW.amin(1) >= _PURE_WHITE
        rows_NH, columns_NW = (_inner(~pure_NHW.all(axis)) for axis in (2, 1))
        inner_NHW = rows_NH[:, :, None] * columns_NW[:, None, :]
        white_N3 = (rgb_N3HW * inner_NHW[:, None]).amax((2, 3)).clamp(min=_LEAST_WHITE)
        rgb_N3HW = (rgb_N3HW / white_N3[:, :, None, None]).clamp(max=1)
        weight_NP = self._weights(rgb_N3HW.amin(1), rows_NH, columns_NW).flatten(1)
        bins = [_soft(v.flatten(1), ends, count) for v, ends, count in zip(self._lab(rgb_N3HW), _ENDS, _BINS)]
        hue_NPC = (bins[1][..., :, None] * bins[2][..., None, :]).flatten(2)
        return bins[0] * weight_NP[..., None], hue_NPC

    def _weights(self, darkest_NHW: torch.Tensor, rows_NH: torch.Tensor, columns_NW: torch.Tensor) -> torch.Tensor:
        """(N, H, W), summing to 1 per picture."""
        y_NH1, x_N1W = _from_middle(rows_NH)[:, :, None], _from_middle(columns_NW)[:, None, :]
        inner_NHW = rows_NH[:, :, None] * columns_NW[:, None, :]
        white_NHW = _ramp(darkest_NHW, *_NEAR_WHITE)
        edge_NHW = (torch.maximum(y_NH1.abs() + 0 * x_N1W, x_N1W.abs() + 0 * y_NH1) > _EDGE) * inner_NHW
        share_N11 = (white_NHW * edge_NHW).sum((1, 2), keepdim=True) / edge_NHW.sum((1, 2), keepdim=True).clamp(min=1)
        on_white = _ramp(share_N11, *_ON_WHITE)
        middle_NHW = torch.exp(-(y_NH1**2 + x_N1W**2) / (2 * _MIDDLE**2))
        weights_NHW = ((1 - white_NHW) * (on_white + (1 - on_white) * middle_NHW) + _LEFT * middle_NHW) * inner_NHW
        return weights_NHW / weights_NHW.sum((1, 2), keepdim=True)

    def _lab(self, rgb_N3HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """L, and the signed roots of a and b."""
        curved = ((rgb_N3HW.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
        linear = torch.where(rgb_N3HW <= 0.04045, rgb_N3HW / 12.92, curved)
        xyz = torch.einsum("ij,njhw->nihw", self.to_xyz, linear)
        f = torch.where(xyz > 216 / 24389, xyz.clamp(min=216 / 24389) ** (1 / 3), (24389 / 27 * xyz + 16) / 116)
        a, b = 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])
        return 116 * f[:, 1] - 16, *(v * torch.rsqrt(v.abs() + 1e-3) for v in (a, b))


class WithColour(nn.Module):
    """A network's unit vector, followed by that of the colours times ``weight``: (N, D + dim)."""

    def __init__(self, network: nn.Module, colour: Colour, weight: float):
        super().__init__()
        self.network, self.colour, self.weight = network, colour, weight

    def forward(self, seen_NCHW: torch.Tensor) -> torch.Tensor:
        return torch.cat([normalize(self.network(seen_NCHW).float(), dim=1), self.weight * self.colour(seen_NCHW)], 1)


def bare(network: nn.Module) -> nn.Module:
    """The network without its part for colours, if it has one."""
    return network.network if isinstance(network, WithColour) else network


def load_colour(shape: Input) -> Colour:
    """With w2w's own projection, for pixels normalised according to ``shape``."""
    read = {name: value.float() for name, value in weights.read([COLOUR_FILE], "encoder.colour").items()}
    found = Colour()
    weights.fill(found, read | seen_as(shape), f"encoder.colour: {COLOUR_FILE}")
    return found


def seen_as(shape: Input) -> dict[str, torch.Tensor]:
    """The buffers that hold the pixels' normalisation."""
    return {name: torch.tensor(value).view(1, 3, 1, 1) for name, value in (("mean", shape.mean), ("std", shape.std))}


def _soft(value_NP: torch.Tensor, ends: tuple[float, float], count: int) -> torch.Tensor:
    """(N, P, count): a value's share in the two bins whose centres it lies between; beyond the ends it is all in the last."""
    low, high = ends
    place = ((value_NP - low) * ((count - 1) / (high - low))).clamp(0, count - 1)
    return (1 - (place[..., None] - torch.arange(count, device=value_NP.device)).abs()).clamp(min=0)


def _ramp(value: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """0 up to ``low``, 1 from ``high`` on."""
    return ((value - low) / (high - low)).clamp(0, 1)


def _inner(shown_NS: torch.Tensor) -> torch.Tensor:
    """1 for rows with content, 0 for those of pure white: padding, or background that does not count. A picture of nothing else
    counts as a whole."""
    shown_NS = shown_NS.float()
    return torch.maximum(shown_NS, 1 - shown_NS.amax(1, keepdim=True))


def _from_middle(shown_NS: torch.Tensor) -> torch.Tensor:
    """Positions relative to the middle of the content, in its lengths: -.5 to .5."""
    places_S = torch.arange(shown_NS.shape[1], device=shown_NS.device).float()
    length_N1 = shown_NS.sum(1, keepdim=True)
    return (places_S - (shown_NS * places_S).sum(1, keepdim=True) / length_N1) / length_N1
