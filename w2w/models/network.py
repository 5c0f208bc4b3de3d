"""Networks of encoders: a library's backbone, and on top of it the head that training adds."""

import inspect
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from w2w.errors import UsageError
from w2w.models import hub, weights
from w2w.models.colour import Colour, WithColour
from w2w.models.config import COLOUR, FASHION
from w2w.models.fashion import Fashion


class ImageTower(nn.Module):
    """(N, 3, S, S) -> (N, D): projected image features if the model has them, otherwise its pooled output, otherwise its class
    token, otherwise the mean of its tokens."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self._has_token = any(n.rpartition(".")[2] == "cls_token" for n, _ in model.named_parameters())
        self._hides = "noise" in inspect.signature(model.forward).parameters  # a masked autoencoder hides patches at random
        if self._hides:
            model.config.mask_ratio = 0.0

    def without_pooler(self, missing: Sequence[str]) -> None:
        """Removes a pooler that is missing from the file: a checkpoint of a classifier or an autoencoder has none.

        ``missing``: names of the model's tensors that the file lacks.
        """
        pooler = getattr(self.model, "pooler", None)
        own = {f"pooler.{n}" for n, _ in pooler.named_parameters()} if isinstance(pooler, nn.Module) else set()
        if own and own <= set(missing):
            self.model.pooler = None

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        if hasattr(self.model, "get_image_features"):
            features = self.model.get_image_features(pixel_values=pixel_values)
            return features if isinstance(features, torch.Tensor) else features.pooler_output
        out = self.model(pixel_values=pixel_values, **(self._in_order(pixel_values) if self._hides else {}))
        pooled = getattr(out, "pooler_output", None)
        if pooled is not None:
            return pooled.flatten(1)
        tokens = out.last_hidden_state
        if tokens.ndim == 4:
            return tokens.mean((2, 3))
        return tokens[:, 0] if self._has_token else tokens.mean(1)

    def tokens(self, pixel_values: torch.Tensor) -> torch.Tensor | None:
        """The last feature map before pooling, (N, T, C) or (N, C, h, w), of a model that has one."""
        return getattr(self.model(pixel_values=pixel_values), "last_hidden_state", None)

    def _in_order(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """Patches are sorted by this noise, and none is hidden: they keep their order."""
        count = self.model.embeddings.patch_embeddings.num_patches
        return {"noise": torch.arange(count, device=pixel_values.device).float().expand(len(pixel_values), -1)}


def image_tower(settings: Any, tensors: dict[str, torch.Tensor], size_px: int, where: str, **local: Any) -> ImageTower:
    """The image tower of a transformers model, pooled by what ``tensors`` contain.

    Raises UsageError if it computes with a tensor that they lack. ``where``: as in ``weights.pretrained``.
    """
    from transformers import AutoModel

    model, missing = weights.pretrained(AutoModel, settings, tensors, where, **local)
    tower = ImageTower(image_side(model))
    tower.without_pooler(missing)
    seen = torch.rand(1, 3, size_px, size_px, generator=torch.Generator().manual_seed(0))
    weights.need(tower, [f"model.{n}" for n in missing], lambda: [tower(seen)], where)
    return tower


class Head(nn.Sequential):
    """(N, D) -> (N, dims[-1]): a linear map, or several with GELU in between. ``dims`` starts with D."""

    def __init__(self, dims: Sequence[int]):
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(dims):
            layers += [nn.Linear(before, after), nn.GELU()]
        super().__init__(*layers[:-1])
        self.dims = tuple(dims)

    @torch.no_grad()
    def start_from(self, features_ND: torch.Tensor) -> None:
        """A linear head becomes the projection onto the features' first principal components, centred: training then starts
        from the backbone's neighbours. If there are fewer components, the remaining dimensions stay random."""
        (layer,) = self
        wide = features_ND.double()
        mean_D = wide.mean(0)
        centred = wide - mean_D
        # by the covariance: half the time of a singular value decomposition of 2,048 x 1,280
        components = torch.linalg.eigh(centred.T @ centred).eigenvectors.T.flip(0)[: min(self.dims[-1], len(wide))]
        # the largest entry of each component is positive, so that the signs do not depend on the library
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        components = components * largest.sign()
        layer.weight[: len(components)] = components.to(layer.weight.dtype)
        layer.bias[: len(components)] = (-components @ mean_D).to(layer.bias.dtype)


class Embedder(nn.Module):
    """Normalised pixels (N, 3, S, S) -> unit vectors (N, dim). ``normalised``: the head's input features are normalised too."""

    def __init__(self, backbone: nn.Module, head: Head, normalised: bool):
        super().__init__()
        self.backbone, self.head, self.normalised = backbone, head, normalised

    def features(self, pixels_NCHW: torch.Tensor) -> torch.Tensor:
        """The head's input, (N, D)."""
        features_ND = self.backbone(pixels_NCHW)
        return functional.normalize(features_ND, dim=1) if self.normalised else features_ND

    def forward(self, pixels_NCHW: torch.Tensor) -> torch.Tensor:
        return functional.normalize(self.head(self.features(pixels_NCHW)), dim=1)


def build(blueprint: dict) -> nn.Module:
    """The network of that blueprint (``Source.blueprint``), without weights. Raises UsageError for an unknown one."""
    try:
        return _build(blueprint)
    except UsageError:
        raise
    except Exception as e:  # a stranger's config.json may raise anything in a library's constructors
        raise UsageError(f"config.json: no network can be built of it: {weights.line(e)}") from e


def _build(blueprint: dict) -> nn.Module:
    library = blueprint.get("library")
    if library == COLOUR:
        return WithColour(_build(blueprint["network"]), Colour(), float(blueprint["weight"]))
    if library == FASHION:
        return Fashion(_build(blueprint["backbone"]), *(blueprint[k] for k in ("dim", "groups", "weight")))
    if library == "w2w":
        return Embedder(_build(blueprint["backbone"]), Head(blueprint["head"]), blueprint["normalised"])
    if library == "timm":
        import timm

        pooled = {"global_pool": blueprint["pool"]} if blueprint.get("pool") else {}
        name = hub.timm_name(blueprint.get("architecture"), "config.json")
        return timm.create_model(name, pretrained=False, num_classes=0, **pooled)
    if library == "transformers":
        from transformers import AutoModel

        settings = hub.settings(Path(), blueprint["config"], "backbone")
        return ImageTower(image_side(AutoModel.from_config(settings)))
    if library == "open_clip":
        import open_clip

        if "architecture" in blueprint:
            if blueprint["architecture"] not in open_clip.list_models():
                raise UsageError(f"config.json: open_clip has no model {blueprint['architecture']!r}")
            return open_clip.create_model(blueprint["architecture"]).visual
        from open_clip.model import _build_vision_tower  # the only way to get the image tower alone

        tower = hub.inside(blueprint["tower"], "config.json")
        return _build_vision_tower(tower["embed_dim"], tower["vision_cfg"], tower["quick_gelu"])
    raise UsageError(f"config.json: w2w builds networks of timm, transformers and open_clip, not of {library!r}")


def image_side(model: nn.Module) -> nn.Module:
    """The model without the text tower of a CLIP or SigLIP, which images do not pass."""
    for name in ("text_model", "text_projection"):
        if hasattr(model, name):
            delattr(model, name)
    return model


def feature_dim(backbone: nn.Module, size_px: int) -> int:
    """Length of a backbone's features for pictures of that size."""
    training = backbone.training
    backbone.eval()
    with torch.no_grad():
        dim = backbone(torch.zeros(1, 3, size_px, size_px)).shape[1]
    backbone.train(training)
    return dim
