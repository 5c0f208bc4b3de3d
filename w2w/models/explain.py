"""Why two pictures are similar: what each patch of both contributes to the cosine of their vectors.

If the vector is a mean of patch features followed by linear maps, the cosine is a sum over pairs of patches, one of each
picture, and is decomposed exactly (Stylianou, Souvenir and Pless 2019, "Visualizing Deep Similarity Networks"; linear layers
after the mean and the pairs themselves: Zhu, Yang and Chen 2019, "Visual Explanation for Deep Metric Learning"). Others are
explained by gradient times activation, of the cosine: of a convolutional network's last feature map (Selvaraju et al. 2017,
"Grad-CAM", element-wise as in Draelos and Carin 2020, "HiResCAM"), of the tokens before every block of a transformer.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, normalize

from w2w.models import sources
from w2w.models.colour import WithColour
from w2w.models.config import EncoderConfig, Input
from w2w.models.device import torch_device
from w2w.models.engines import pixels_module
from w2w.models.fashion import Fashion
from w2w.models.network import Embedder, ImageTower
from w2w.models.sources import Source

EXACT, GRADIENT, PIXELS = "sum over patches", "gradient x activation", "gradient x pixel"
_CLOSE = 1e-4  # of a vector's length: tolerance for a sum of parts to count as exact; float32 gives about 1e-6
_GRID = 14  # patches per side if a network has no feature map


@dataclass(frozen=True)
class Explanation:
    """What each patch of two pictures contributes to ``cosine``, the cosine of their vectors.

    ``query`` and ``result``: float32 (h, w), one value per patch of the picture as the network sees it (``Input``). ``exact``:
    each of the two sums to ``cosine``; otherwise they are gradients, of which only order and sign are meaningful. ``pairs``:
    float32 (h * w, h * w), of query patch and result patch, if exact.
    """

    cosine: float
    exact: bool
    method: str
    query: np.ndarray
    result: np.ndarray
    pairs: np.ndarray | None = None

    @property
    def query_heat(self) -> np.ndarray:
        """float32 (h, w) in [0, 1]: the largest contribution is 1, negative ones are 0."""
        return heat(self.query)

    @property
    def result_heat(self) -> np.ndarray:
        """As ``query_heat``."""
        return heat(self.result)


def load_explainer(config: EncoderConfig) -> "Explainer":
    """Raises UsageError as ``load_encoder`` does."""
    return Explainer(sources.of(config), config)


def heat(contributions: np.ndarray) -> np.ndarray:
    """float32 in [0, 1]: contributions relative to the largest, negative ones as 0; all 0 if none is positive."""
    positive = np.maximum(contributions, 0)
    most = positive.max(initial=0)
    return (positive / most if most > 0 else positive).astype(np.float32)


class Explainer:
    """A network that says which patches made two pictures similar. In float32, by torch, whatever the encoder runs on."""

    def __init__(self, source: Source, config: EncoderConfig):
        self.input: Input = source.input
        self._device = torch_device(config.device, config.threads, "encoder.device")
        self._module = pixels_module(source).requires_grad_(False).to(self._device)

    def __call__(self, query: np.ndarray, results: Sequence[np.ndarray]) -> list[Explanation]:
        """The query with each of ``results``; all uint8 (S, S, 3), as from ``Encoder.prepare``."""
        if not len(results):
            return []
        pictures = torch.from_numpy(np.stack([query, *results])).to(self._device)
        found = self._exact(pictures)
        return found or [self._by_gradients(pictures[[0, n]]) for n in range(1, len(pictures))]

    @torch.no_grad()
    def _exact(self, pictures_NHWC: torch.Tensor) -> list[Explanation]:
        """Empty if the vectors are not a sum over patches."""
        seen = self._module.normalised(pictures_NHWC)
        vectors_ND = self._module.network(seen).float()
        parts_NPD = sum_of_patches(self._module.network, seen, vectors_ND)
        if parts_NPD is None:
            return []
        units_ND = normalize(vectors_ND, dim=1)
        parts_NPD = parts_NPD / vectors_ND.norm(dim=1)[:, None, None]
        (query, query_PD), found = (units_ND[0], parts_NPD[0]), []
        for unit, parts_PD in zip(units_ND[1:], parts_NPD[1:]):
            sides = _square(query_PD @ unit), _square(parts_PD @ query)
            pairs = (query_PD @ parts_PD.T).cpu().numpy()
            found.append(Explanation(float(query @ unit), True, EXACT, *sides, pairs))
        return found

    def _by_gradients(self, pictures_2HWC: torch.Tensor) -> Explanation:
        maps: list[torch.Tensor] = []

        def keep(module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor) and output.requires_grad and _is_map(module, output):
                output.retain_grad()
                maps.append(output)

        hooks = [module.register_forward_hook(keep) for module in self._module.network.modules()]
        try:
            with torch.enable_grad():
                seen = self._module.normalised(pictures_2HWC).requires_grad_()
                query, result = normalize(self._module.network(seen).float(), dim=1)
                cosine = query @ result
                cosine.backward()
        finally:
            for hook in hooks:
                hook.remove()
        told = [(m.ndim, _by_place(m.detach(), m.grad)) for m in maps if m.grad is not None]
        told = [(ndim, by_place) for ndim, by_place in told if by_place is not None]
        if told:
            ndim, last = told[-1]
            same = [v for n, v in told if n == ndim and v.shape == last.shape] if ndim == 3 else [last]
            return Explanation(cosine.item(), False, GRADIENT, *map(_square, torch.stack(same).sum(0)))
        by_pixel = (seen.detach() * seen.grad).sum(1, keepdim=True)
        return Explanation(cosine.item(), False, PIXELS, *map(_square, adaptive_avg_pool2d(by_pixel, _GRID).flatten(1)))


def sum_of_patches(network: nn.Module, seen_NCHW: torch.Tensor, vectors_ND: torch.Tensor) -> torch.Tensor | None:
    """(N, P, D): parts of the vectors, one per patch, row by row, which sum to ``vectors_ND``, the network's output; None if
    the network does more than average its patches and map them linearly.

    Tried and verified by the sum, so nothing is assumed about the network. A norm after the mean, or scaling to length 1, is
    linear once its factor is fixed to that of this picture.
    """
    if isinstance(network, WithColour):
        return _with_colours(network, seen_NCHW)
    if isinstance(network, Fashion):
        return _with_kind(network, seen_NCHW)
    if isinstance(network, Embedder) and isinstance(network.backbone, WithColour):
        told = sum_of_patches(network.backbone, seen_NCHW, network.backbone(seen_NCHW))
        for layer in [*([None] if network.normalised else []), *network.head, None]:
            told = _through(layer, told) if told is not None else None
        return told
    behind: list[nn.Module | None] = []
    if isinstance(network, Embedder):
        behind = [*([None] if network.normalised else []), *network.head, None]
        network = network.backbone
    for features_NPC in _last_maps(network, seen_NCHW):
        width = (features_NPC.shape[2],)
        norms = [m for m in network.modules() if isinstance(m, nn.LayerNorm) and tuple(m.normalized_shape) == width][-1:]
        for norm in [[], norms] if norms else [[]]:
            parts: torch.Tensor | None = features_NPC.float() / features_NPC.shape[1]
            for layer in [*norm, *behind]:
                parts = _through(layer, parts) if parts is not None else None
            if parts is not None and parts.shape[2] == vectors_ND.shape[1]:
                off = (parts.sum(1) - vectors_ND).norm(dim=1)
                if bool((off <= _CLOSE * vectors_ND.norm(dim=1)).all()):
                    return parts
    return None


def _with_colours(network: WithColour, seen_NCHW: torch.Tensor) -> torch.Tensor | None:
    """As ``sum_of_patches``: the colours of a patch count as its own."""
    vectors_ND = network.network(seen_NCHW).float()
    parts_NPD = sum_of_patches(network.network, seen_NCHW, vectors_ND)
    if parts_NPD is None:
        return None
    colours_NPD = network.colour.by_patch(seen_NCHW, math.isqrt(parts_NPD.shape[1]))
    return torch.cat([parts_NPD / vectors_ND.norm(dim=1)[:, None, None], network.weight * colours_NPD], 2)


def _with_kind(network: Fashion, seen_NCHW: torch.Tensor) -> torch.Tensor | None:
    """As ``sum_of_patches``: what a garment is, no patch says alone, so all have an even share of that."""
    features_ND = network.backbone(seen_NCHW)
    parts_NPD = sum_of_patches(network.backbone, seen_NCHW, features_ND)
    for layer in (None, network.shape, None):
        parts_NPD = _through(layer, parts_NPD) if parts_NPD is not None else None
    if parts_NPD is None:
        return None
    kind_N1D = network.weight * network.kind_of(normalize(features_ND, dim=1))[:, None]
    return torch.cat([parts_NPD, kind_N1D.expand(-1, parts_NPD.shape[1], -1) / parts_NPD.shape[1]], 2)


def _last_maps(network: nn.Module, seen_NCHW: torch.Tensor) -> Iterator[torch.Tensor]:
    """(N, P, C): candidates for the features that are averaged."""
    if hasattr(network, "forward_features"):  # timm
        features = network.forward_features(seen_NCHW)
        channels_last = str(getattr(network, "output_fmt", "")).endswith("NHWC")
    elif isinstance(network, ImageTower) and not hasattr(network.model, "get_image_features"):
        features, channels_last = network.tokens(seen_NCHW), False
    else:
        return
    if not isinstance(features, torch.Tensor):
        return
    if features.ndim == 4:
        yield features.flatten(1, 2) if channels_last else features.flatten(2).transpose(1, 2)
    elif features.ndim == 3:
        yield features[:, features.shape[1] - math.isqrt(features.shape[1]) ** 2 :]


def _through(layer: nn.Module | None, parts_NPC: torch.Tensor) -> torch.Tensor | None:
    """The parts of ``layer``'s output, given those of its input; constants are shared evenly. A layer of None scales the sum to
    length 1. Returns None if the layer is not linear."""
    num_parts, whole = parts_NPC.shape[1], parts_NPC.sum(1, keepdim=True)
    if layer is None:
        return parts_NPC / whole.norm(dim=2, keepdim=True)
    if isinstance(layer, nn.Linear):
        return parts_NPC @ layer.weight.T + (0 if layer.bias is None else layer.bias / num_parts)
    if isinstance(layer, nn.LayerNorm):
        scale = (whole.var(2, correction=0, keepdim=True) + layer.eps).rsqrt()
        centred = (parts_NPC - parts_NPC.mean(2, keepdim=True)) * scale
        return centred * layer.weight + layer.bias / num_parts
    return None


def _is_map(module: nn.Module, output: torch.Tensor) -> bool:
    """Whether a module's output has one location per patch. Of tokens, those after a norm: a norm is scale-invariant, so the
    gradient of its input is orthogonal to the input, and their product is 0. Measured on small ViT, CLIP and SigLIP towers, the
    sum over all norms is more faithful than the last alone."""
    if output.ndim == 4:  # channels first or last; queries and keys of attention are not square
        return output.shape[2] > 1 and output.shape[2] in (output.shape[1], output.shape[3])
    return output.ndim == 3 and "norm" in type(module).__name__.lower() and math.isqrt(output.shape[1]) > 1


def _by_place(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor | None:
    """(2, P), P a square number; None if most locations have no gradient, as after the last attention of a class token."""
    product = activation * gradient
    if product.ndim == 4:
        by_place = product.sum(1 if product.shape[2] == product.shape[3] else 3).flatten(1)
    else:
        by_place = product.sum(2)
        by_place = by_place[:, by_place.shape[1] - math.isqrt(by_place.shape[1]) ** 2 :]
    return by_place if bool(((by_place != 0).float().mean(1) > 0.5).all()) else None


def _square(values_P: torch.Tensor) -> np.ndarray:
    side = math.isqrt(len(values_P))
    return values_P.reshape(side, side).float().cpu().numpy()
