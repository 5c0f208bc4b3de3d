"""Our own detector's network: EfficientNet-Lite0, a feature pyramid, a box and seven scores per location, a class per pixel.

Anchor-free like FCOS (Tian et al. 2019, section 3): every location of strides 8, 16 and 32 regresses its distances to the four
sides of its box. Scores are trained to combine class and overlap (Li et al. 2020, "Generalized Focal Loss", section 3), so
there is no centre-ness. A second head labels pixels; its output feeds the box head.
"""

import torch
from torch import nn
from torch.nn import functional

from w2w.garments.grid import STRIDES
from w2w.garments.taxonomy import CATEGORIES
from w2w.models import sources

_TAPS = {2: 40, 4: 112, 6: 320}  # blocks of EfficientNet-Lite0 at the end of a stride -> channels
_PRIOR = 0.01  # initial score of every location (Lin et al. 2017, "Focal Loss", section 4.1)
_FIRST_STRIDES = 2.0  # and initial distances to the sides
_MOST = 6.0  # exp of it: 400 strides, more than any photo has


class Dense(nn.Module):
    """(N, 3, H, W) RGB in 0..255, H and W multiples of 32 -> scores (N, A, 7) as logits; sides (N, A, 4): distances in input
    pixels to the left, upper, right and lower side of the box; pixel classes (N, 8, H / 8, W / 8) as logits, the first
    "nothing". A = locations of all strides (grid.places)."""

    def __init__(self, width: int = 96, pretrained: bool = False):
        super().__init__()
        self.backbone = _backbone(pretrained)
        self.laterals = nn.ModuleList(_unit(nn.Conv2d(c, width, 1, bias=False), width) for c in _TAPS.values())
        self.smooths = nn.ModuleList(_separable(width, width) for _ in STRIDES)
        self.downs = nn.ModuleList(_separable(width, width, 2) for _ in STRIDES[1:])
        self.pixels = nn.Sequential(_separable(width, width), nn.Conv2d(width, len(CATEGORIES) + 1, 1))
        shown = width + len(CATEGORIES) + 1
        self.trunks = nn.ModuleDict(
            {head: nn.Sequential(_separable(shown, width), _separable(width, width)) for head in ("scores", "sides")}
        )
        self.scores, self.sides = nn.Conv2d(width, len(CATEGORIES), 1), nn.Conv2d(width, 4, 1)
        self.scales = nn.Parameter(torch.ones(len(STRIDES)))
        nn.init.normal_(self.scores.weight, std=0.01)
        nn.init.normal_(self.sides.weight, std=0.01)
        nn.init.constant_(self.scores.bias, -torch.log(torch.tensor((1 - _PRIOR) / _PRIOR)).item())
        nn.init.constant_(self.sides.bias, torch.log(torch.tensor(_FIRST_STRIDES)).item())

    def forward(self, pixels_NCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        levels = self._pyramid((pixels_NCHW - 127.5) / 127.5)
        classes = self.pixels(levels[0])
        seen = functional.softmax(classes, 1)
        scores, sides = [], []
        for i, (level, stride) in enumerate(zip(levels, STRIDES)):
            shown = torch.cat([level, functional.avg_pool2d(seen, stride // STRIDES[0])], 1)
            scores.append(self.scores(self.trunks["scores"](shown)).flatten(2))
            far = self.sides(self.trunks["sides"](shown)) * self.scales[i]
            sides.append((far.clamp(max=_MOST).exp() * stride).flatten(2))
        return torch.cat(scores, 2).transpose(1, 2), torch.cat(sides, 2).transpose(1, 2), classes

    def _pyramid(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Top-down (Lin et al. 2017, "Feature Pyramid Networks"), then bottom-up again (Liu et al. 2018, PANet)."""
        x = self.backbone.bn1(self.backbone.conv_stem(x))
        taken = []
        for i, block in enumerate(self.backbone.blocks):
            x = block(x)
            if i in _TAPS:
                taken.append(self.laterals[len(taken)](x))
        for i in (1, 0):
            taken[i] = taken[i] + functional.interpolate(taken[i + 1], scale_factor=2.0, mode="nearest")
        levels = [smooth(level) for smooth, level in zip(self.smooths, taken)]
        for i in (1, 2):
            levels[i] = levels[i] + self.downs[i - 1](levels[i - 1])
        return levels


def _backbone(pretrained: bool) -> nn.Module:
    import timm

    if pretrained:
        network = sources.BUILT_IN["efficientnet-lite0"]().network()
    else:
        network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0)
    for name in ("conv_head", "bn2", "global_pool", "classifier"):
        setattr(network, name, nn.Identity())
    return network


def _unit(conv: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def _separable(before: int, after: int, stride: int = 1) -> nn.Sequential:
    """A depthwise 3 x 3 convolution, then a pointwise one: a ninth of the work (Howard et al. 2017, section 3.1)."""
    each = nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False)
    return nn.Sequential(each, *_unit(nn.Conv2d(before, after, 1, bias=False), after))
