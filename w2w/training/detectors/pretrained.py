"""Recipe of published detectors: any AutoModelForObjectDetection of transformers, by its own loss and its own processor."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from w2w.errors import UsageError
from w2w.garments.detector import DetectorConfig, Transformers, takes_mask
from w2w.garments.found import Model
from w2w.garments.taxonomy import CATEGORIES
from w2w.training.detectors.augment import Sample, augment
from w2w.training.detectors.config import TrainConfig
from w2w.training.detectors.photos import Photo
from w2w.training.detectors.training import held_out
from w2w.training.loop import parameter_groups


class Pretrained:
    """``folder``: config, weights and processor in the hub's layout. Its last layer is made anew for our seven classes.

    These losses know neither regions to ignore nor classes that a source does not label: such photos teach that what has no box
    is background (the job warns).
    """

    select = "AP50"

    def __init__(self, config: TrainConfig, folder: Path, val: Sequence[Photo] = ()):
        from transformers import AutoConfig, AutoImageProcessor, AutoModelForObjectDetection

        torch.manual_seed(config.seed)
        self._config, self._folder, self._val = config, folder, val
        settings = AutoConfig.from_pretrained(folder, local_files_only=True)
        if getattr(settings, "use_pretrained_backbone", False):
            settings.use_pretrained_backbone = False  # the checkpoint has the backbone
        settings.id2label = dict(enumerate(CATEGORIES))
        settings.label2id = {c: i for i, c in enumerate(CATEGORIES)}
        try:
            self._processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
            self.network = AutoModelForObjectDetection.from_pretrained(
                folder,
                config=settings,
                ignore_mismatched_sizes=True,
                weights_only=True,
                local_files_only=True,
                dtype=torch.float32,
            )
        except ValueError as e:
            raise UsageError(f"recipe=hf: {folder} is no object detection model: {str(e).splitlines()[0]}") from e

    def parameter_groups(self) -> list[dict]:
        return parameter_groups(self.network.named_parameters(), self._config.backbone_rate, self._config.weight_decay)

    def prepare(self, samples: Sequence[Sample], rngs: Sequence[np.random.Generator]) -> dict:
        """On a canvas as large as each photo, so that all that the processor's resizing expects stays true."""
        seen = [augment(s, s.image.shape[0], s.image.shape[1], self._config.augment, rng) for s, rng in zip(samples, rngs)]
        annotations = [
            {
                "image_id": i,
                "annotations": [
                    {"bbox": [x0, y0, x1 - x0, y1 - y0], "category_id": label, "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}
                    for (x0, y0, x1, y1), label in zip(s.boxes_N4.tolist(), s.labels_N.tolist())
                ],
            }
            for i, s in enumerate(seen)
        ]
        return self._processor(
            images=[s.image for s in seen], annotations=annotations, return_tensors="pt", input_data_format="channels_last"
        )

    def losses(self, network: nn.Module, batch: dict) -> dict[str, torch.Tensor]:
        device = next(self.network.parameters()).device
        labels = [{k: v.to(device) for k, v in one.items()} for one in batch["labels"]]
        inputs = {k: batch[k].to(device) for k in ("pixel_values", "pixel_mask") if k in batch}
        if not takes_mask(self.network):
            inputs.pop("pixel_mask", None)
        return {"model": network(**inputs, labels=labels).loss}

    def train_mode(self, network: nn.Module) -> None:
        network.train()

    def measure(self, network: nn.Module) -> dict[str, float]:
        return held_out(self._model(network), self._val)

    def _model(self, network: nn.Module) -> Model:
        device = "cuda" if next(network.parameters()).is_cuda else "cpu"
        config = replace(DetectorConfig(), name=str(self._folder), device=device, threads=self._config.threads)
        return Transformers(self._folder, config, network)

    def save(self, network: nn.Module, folder: Path) -> None:
        network.save_pretrained(folder)
        self._processor.save_pretrained(folder)
