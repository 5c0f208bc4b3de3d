"""Recipes of encoders: the whole network on pictures, or the head alone on stored embeddings."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from w2w import plugins
from w2w.errors import UsageError
from w2w.images.decode import decode
from w2w.images.resize import fit
from w2w.models import saved
from w2w.models.colour import bare
from w2w.models.config import Input
from w2w.models.network import Embedder, Head, feature_dim
from w2w.models.sources import Source
from w2w.training.encoders.augment import augment
from w2w.training.encoders.config import LOSSES, LearnConfig
from w2w.training.encoders.losses import Pairs, Temperature, in_chunks
from w2w.training.encoders.pairs import SHRUNK, Row, figures, gallery, relevance
from w2w.training.loop import parameter_groups

_AT_ONCE = 64  # pictures per forward pass without gradients
_LOOKED_AT = 1024  # pictures whose principal components initialise a head


@dataclass(frozen=True)
class Batch:
    """Anchors, positives and mined negatives in this order, and what they show; -1 is unknown."""

    inputs: torch.Tensor  # uint8 (R, S, S, 3) or float (R, D)
    products_N: torch.Tensor
    clusters_N: torch.Tensor
    negative_products_N: torch.Tensor | None
    negative_clusters_N: torch.Tensor | None


class Pixels(nn.Module):
    """uint8 (N, S, S, 3) -> normalised float (N, 3, S, S)."""

    def __init__(self, shape: Input):
        super().__init__()
        for name, values in (("mean", shape.mean), ("std", shape.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, pictures_NHWC: torch.Tensor) -> torch.Tensor:
        return (pictures_NHWC.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std


class PairNetwork(nn.Module):
    """The module whose gradients the processes share: an encoder and the temperature. Inputs -> (vectors, temperature).

    ``pixels``: applied before the encoder, chunk by chunk: floats are four times as large as the pictures.
    """

    def __init__(self, encoder: nn.Module, chunk: int, pixels: nn.Module | None = None):
        super().__init__()
        self.encoder, self.temperature, self._chunk = encoder, Temperature(), chunk
        self.pixels = pixels or nn.Identity()

    def vectors(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.encoder(self.pixels(inputs))

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return in_chunks(self.vectors, inputs, self._chunk), self.temperature()


class _Recipe:
    """What both recipes share: losses, and figures on the held-out pairs."""

    network: PairNetwork
    select = "Recall@10"

    def __init__(self, config: LearnConfig, network: PairNetwork, val: Sequence[Row]):
        self._config, self.network, self._val = config, network, val
        self._loss = plugins.find("loss", config.loss, LOSSES)
        self._start = copy.deepcopy(network.encoder.state_dict()) if config.interpolate < 1 else None
        self._gallery, self._shown = gallery(val)

    def parameter_groups(self) -> list[dict]:
        learning = ((n, p) for n, p in self.network.named_parameters() if p.requires_grad)
        return parameter_groups(learning, self._config.backbone_rate, self._config.weight_decay)

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        device = next(self.network.parameters()).device
        vectors, scale = network(batch.inputs.to(device, non_blocking=True))
        a, p, *n = vectors.split(len(batch.products_N))
        kinds = [None if v is None else v.to(device) for v in (batch.negative_products_N, batch.negative_clusters_N)]
        pairs = Pairs(a, p, batch.products_N.to(device), batch.clusters_N.to(device), n[0] if n else None, *kinds)
        parts = {plugins.short(self._config.loss): self._loss(pairs, scale, self._config)}
        # an unused temperature is still a parameter of every process
        return parts if self._config.loss == "info_nce" else {**parts, "temperature": scale * 0}

    @torch.inference_mode()
    def measure(self, network: PairNetwork) -> dict[str, float]:
        """Recall and MRR of the held-out anchors among the held-out pairs' pictures, with the weights that would be saved."""
        if not self._val:
            return {}
        network = self._between(network).eval()
        anchors_QD = self._vectors(network, [r.anchor for r in self._val])
        gallery_GD = self._vectors(network, self._gallery)
        return figures(relevance(anchors_QD, gallery_GD, [r.product for r in self._val], self._shown))

    def _between(self, network: PairNetwork) -> PairNetwork:
        """The network to keep: interpolated from the starting weights to the current ones by ``interpolate``."""
        if self._start is None:
            return network
        between, share = copy.deepcopy(network), self._config.interpolate
        state = between.encoder.state_dict()
        start = {k: v.to(state[k].device) for k, v in self._start.items()}
        mixed = {k: torch.lerp(v, state[k], share) if v.is_floating_point() else state[k] for k, v in start.items()}
        between.encoder.load_state_dict(mixed)
        return between

    def _vectors(self, network: PairNetwork, inputs: Sequence) -> np.ndarray:
        device = next(network.parameters()).device
        found = []
        for start in range(0, len(inputs), _AT_ONCE):
            part = torch.from_numpy(np.stack([self._plain(v) for v in inputs[start : start + _AT_ONCE]])).to(device)
            found.append(nn.functional.normalize(network.vectors(part).float(), dim=1))
        return torch.cat(found).cpu().numpy()

    def _plain(self, value) -> np.ndarray:
        """An anchor or positive as at inference."""
        return value


def _batch(inputs: Sequence[np.ndarray], rows: Sequence[Row]) -> Batch:
    def codes(name: str) -> torch.Tensor:
        return torch.tensor([getattr(r, name) for r in rows])

    mined = len(inputs) > 2 * len(rows)
    more = (codes("negative_product"), codes("negative_cluster")) if mined else (None, None)
    return Batch(torch.from_numpy(np.stack(inputs)), codes("product"), codes("cluster"), *more)


def _inputs_of(rows: Sequence[Row]) -> list:
    """Anchors, positives and, if negatives are mined, one per pair."""
    found = [[r.anchor for r in rows], [r.positive for r in rows], [r.negative for r in rows]]
    return [v for part in found[: 2 if rows[0].negative is None else 3] for v in part]


class HeadRecipe(_Recipe):
    """Trains the head on unit vectors, float32 (D,), of the source's encoder; saves that encoder with the head."""

    def __init__(self, config: LearnConfig, source: Source, examples: Sequence[Row], val: Sequence[Row], seed: int):
        torch.manual_seed(seed)
        self._source = source
        head = Head([len(examples[0].anchor), *config.head.dims])
        if _starts_from_features(config):
            head.start_from(torch.from_numpy(np.stack([v for r in examples[:_LOOKED_AT] for v in (r.anchor, r.positive)])))
        super().__init__(config, PairNetwork(head, 0), val)

    def prepare(self, rows: Sequence[Row], rngs: Sequence[np.random.Generator]) -> Batch:
        return _batch(_inputs_of(rows), rows)

    def train_mode(self, network: nn.Module) -> None:
        network.train()

    def save(self, network: PairNetwork, folder: Path) -> None:
        head = self._between(network).encoder.cpu()
        blueprint = {"library": "w2w", "backbone": self._source.blueprint, "head": list(head.dims), "normalised": True}
        saved.save(folder, Embedder(self._source.network(), head, True), blueprint, self._source.input, "")


class EncoderRecipe(_Recipe):
    """Trains backbone and head on encoded pictures. The head of a source that has one is trained further."""

    def __init__(self, config: LearnConfig, source: Source, examples: Sequence[Row], val: Sequence[Row], seed: int):
        torch.manual_seed(seed)
        cv2.setNumThreads(1)
        self._input = _trained_input(source, config)
        self._pixels = Pixels(self._input)
        network = source.network()
        if isinstance(network, Embedder):
            self._blueprint = _blueprint(source)
        else:
            dims = [feature_dim(network, self._input.size_px), *config.head.dims]
            normalised = not _is_swin(source, config)
            self._blueprint = {"library": "w2w", "backbone": source.blueprint, "head": dims, "normalised": normalised}
            network = Embedder(network, Head(dims), normalised)
            if _starts_from_features(config):
                self._start_head(network, examples)
        _freeze(bare(network.backbone), config.frozen)
        if config.checkpointing:
            _keep_few_activations(bare(network.backbone))
        network = network.to(memory_format=torch.channels_last)
        super().__init__(config, PairNetwork(network, config.chunk, self._pixels), val)
        learning = {n: p for n, p in network.backbone.named_parameters() if p.requires_grad}
        self._anchored = {n: p.detach().clone() for n, p in learning.items()} if config.stay else {}

    def prepare(self, rows: Sequence[Row], rngs: Sequence[np.random.Generator]) -> Batch:
        config, n = self._config.augment, len(rows)
        images = [self._decoded(v) for v in _inputs_of(rows)]
        seen = []
        for i, image in enumerate(images):
            side = "anchors" if i < n else "positives"
            if config.changes(side):
                image = augment(image, config, rngs[i % n], side == "anchors", images[n + (i + 1) % n])
            seen.append(self._fitted(image))
        return _batch(seen, rows)

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        parts = super().losses(network, batch)
        if self._anchored:
            now = dict(self.network.encoder.backbone.named_parameters())
            moved = sum((now[n] - p.to(now[n].device)).square().sum() for n, p in self._anchored.items())
            parts["stay"] = self._config.stay * moved
        return parts

    def train_mode(self, network: nn.Module) -> None:
        network.train()
        for part in network.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()  # batches of one category have other statistics than the data at inference

    def save(self, network: PairNetwork, folder: Path) -> None:
        saved.save(folder, self._between(network).encoder.cpu(), self._blueprint, self._input, "")

    def _decoded(self, picture: bytes) -> np.ndarray:
        return decode(picture, SHRUNK, self._input.resize_px)

    def _fitted(self, image: np.ndarray) -> np.ndarray:
        shape = self._input
        return fit(image, shape.size_px, shape.mode, shape.resample, shape.resize_px)

    def _plain(self, value: bytes) -> np.ndarray:
        return self._fitted(self._decoded(value))

    @torch.inference_mode()
    def _start_head(self, network: Embedder, examples: Sequence[Row]) -> None:
        pictures = [v for r in examples[: _LOOKED_AT // 2] for v in (r.anchor, r.positive)]
        network.eval()
        found = []
        for start in range(0, len(pictures), _AT_ONCE):
            part = np.stack([self._plain(v) for v in pictures[start : start + _AT_ONCE]])
            found.append(network.features(self._pixels(torch.from_numpy(part))))
        network.head.start_from(torch.cat(found))


def _starts_from_features(config: LearnConfig) -> bool:
    return config.head.start == "pca" and len(config.head.dims) == 1


def _blueprint(source: Source) -> dict:
    if source.blueprint is None:
        raise ValueError(f"only its own code can build {source.architecture}")  # flow.inspect has said so
    return source.blueprint


def _is_swin(source: Source, config: LearnConfig) -> bool:
    """Whether the published form of a Swin with one linear layer can hold the trained network."""
    backbone = _blueprint(source)
    return len(config.head.dims) == 1 and backbone["library"] == "transformers" and backbone["config"]["model_type"] == "swin"


def _trained_input(source: Source, config: LearnConfig) -> Input:
    shape = source.input
    if _blueprint(source)["library"] != "w2w" and _is_swin(source, config):
        return Input(shape.size_px, shape.size_px, "squash", "bilinear", shape.mean, shape.std)  # as published
    return shape


def _freeze(backbone: nn.Module, names: Sequence[str]) -> None:
    parameters = {n.removeprefix("backbone."): p for n, p in backbone.named_parameters()}  # w2w-fashion has one inside
    for name in names:
        if not any(n.startswith(name) for n in parameters):
            parts = ", ".join(dict.fromkeys(n.rpartition(".")[0].partition(".")[0] for n in parameters))
            raise UsageError(f"learn.frozen: the backbone has no {name!r}, its parts are {parts}")
    for n, parameter in parameters.items():
        if n.startswith(tuple(names)) and names:
            parameter.requires_grad_(False)


def _keep_few_activations(backbone: nn.Module) -> None:
    """Gradient checkpointing by the library's own switch, in the variant that works with DDP."""
    inner = getattr(backbone, "model", backbone)
    if hasattr(inner, "gradient_checkpointing_enable"):
        inner.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    elif hasattr(backbone, "set_grad_checkpointing"):
        from timm.layers import set_reentrant_ckpt

        set_reentrant_ckpt(False)
        backbone.set_grad_checkpointing(True)
    else:
        raise UsageError("learn.checkpointing: not supported by this backbone: leave it off, or use learn.chunk")
