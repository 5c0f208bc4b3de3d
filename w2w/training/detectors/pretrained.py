"""Recipe of published detectors: any AutoModelForObjectDetection of transformers, with its own loss and processor."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from w2w.garments.detector import DetectorConfig, Transformers, takes_mask
from w2w.garments.found import Model
from w2w.garments.taxonomy import CATEGORIES
from w2w.models import hub, weights
from w2w.training.detectors.augment import Sample, augment
from w2w.training.detectors.config import TrainConfig
from w2w.training.detectors.photos import Photo
from w2w.training.detectors.training import held_out
from w2w.training.loop import parameter_groups


class Pretrained:
    """``folder``: config, weights and processor in the hub's layout. Its last layer is replaced for our seven classes.

    These losses support neither ignored regions nor partly labelled sources: such photos teach that anything without a box is
    background (the job warns).
    """

    select = "AP50"

    def __init__(self, config: TrainConfig, folder: Path, val: Sequence[Photo] = ()):
        from transformers import AutoModelForObjectDetection

        torch.manual_seed(config.seed)
        self._config, self._folder, self._val = config, folder, val
        option = f"recipe=hf:{folder}"
        settings = hub.settings(folder, weights.read_json(folder / "config.json", option), option)
        before = settings.num_labels
        settings.id2label = dict(enumerate(CATEGORIES))
        settings.label2id = {c: i for i, c in enumerate(CATEGORIES)}
        self._processor = hub.processor("AutoImageProcessor", folder, option)
        files = weights.files_of(folder, option)
        where, tensors = f"{option}: {files[0]}", weights.read(files, option)

        def of_classes(there: Sequence[int], wanted: Sequence[int]) -> bool:
            """Whether a tensor has one row per class (and possibly one for "none"): such tensors are reinitialised."""
            more = there[0] - before
            return more in (0, 1) and wanted[0] == len(CATEGORIES) + more and there[1:] == wanted[1:]

        self.network, missing = weights.pretrained(AutoModelForObjectDetection, settings, tensors, where, of_classes)
        if missing:
            probe = Transformers(folder, replace(DetectorConfig(), name=str(folder), device="cpu"), self.network)
            weights.need(self.network, missing, probe.probed, where)

    def parameter_groups(self) -> list[dict]:
        return parameter_groups(self.network.named_parameters(), self._config.backbone_rate, self._config.weight_decay)

    def prepare(self, samples: Sequence[Sample], rngs: Sequence[np.random.Generator]) -> dict:
        """On a canvas of each photo's size, so that the assumptions of the processor's resizing hold."""
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
