"""Recipe of our own detector (garments/dense.py), from a pretrained backbone or an earlier detector of ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from w2w.garments import own
from w2w.garments.dense import Dense
from w2w.garments.found import Model
from w2w.training.detectors.assignment import Target, losses
from w2w.training.detectors.augment import Sample, augment
from w2w.training.detectors.config import TrainConfig
from w2w.training.detectors.photos import Photo
from w2w.training.detectors.training import held_out
from w2w.training.loop import parameter_groups

_FROZEN_STAGES = 2  # of the backbone: 40 % of a step's time, for generic features


@dataclass(frozen=True)
class Batch:
    """Pixels (N, 3, H, W) float32 in 0..255, the truth of each photo, classes of pixels (N, H, W)."""

    pixels_NCHW: torch.Tensor
    targets: list[Target]
    classes_NHW: torch.Tensor


class Ours:
    """``start``: folder of a detector of ours; None is the backbone pretrained on ImageNet. ``val``: held-out photos."""

    select = "AP50"

    def __init__(self, config: TrainConfig, start: Path | None = None, val: Sequence[Photo] = (), channels: int = 96):
        torch.manual_seed(config.seed)
        self._config, self._val = config, val
        if start:
            self._settings = own.read_settings(start, str(start))
            self.network = own.load_network(start, str(start))
        else:
            self._settings = own.Settings(channels=channels)
            self.network = Dense(channels, pretrained=True)
        size = {"height_px": config.height_px, "width_px": config.width_px}
        self._settings = own.Settings(**{**self._settings.__dict__, **size})
        self.network = self.network.to(memory_format=torch.channels_last)
        backbone = self.network.backbone
        for part in (backbone.conv_stem, backbone.bn1, *backbone.blocks[:_FROZEN_STAGES]):
            part.requires_grad_(False)

    def parameter_groups(self) -> list[dict]:
        learning = ((n, p) for n, p in self.network.named_parameters() if p.requires_grad)
        return parameter_groups(learning, self._config.backbone_rate, self._config.weight_decay)

    def prepare(self, samples: Sequence[Sample], rngs: Sequence[np.random.Generator]) -> Batch:
        c = self._config
        seen = [augment(s, c.height_px, c.width_px, c.augment, rng) for s, rng in zip(samples, rngs)]
        pixels = torch.from_numpy(np.stack([s.image for s in seen])).permute(0, 3, 1, 2).float()
        targets = [Target(*(torch.from_numpy(v) for v in (s.boxes_N4, s.labels_N, s.ignore_M4, s.labelled))) for s in seen]
        return Batch(pixels, targets, torch.from_numpy(np.stack([s.classes_HW for s in seen])))

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        device = next(self.network.parameters()).device
        targets = [Target(*(v.to(device) for v in t.__dict__.values())) for t in batch.targets]
        return losses(network(batch.pixels_NCHW.to(device)), targets, batch.classes_NHW.to(device))

    def train_mode(self, network: nn.Module) -> None:
        network.train()
        network.backbone.eval()  # 400 photos are too few for batch statistics

    def measure(self, network: nn.Module) -> dict[str, float]:
        return held_out(self._model(network), self._val)

    def _model(self, network: nn.Module) -> Model:
        device = next(network.parameters()).device
        return own.Own(self._settings, own.torch_run(network, device, torch.float32))

    def save(self, network: nn.Module, folder: Path) -> None:
        own.save(folder, self._settings, network.state_dict())
