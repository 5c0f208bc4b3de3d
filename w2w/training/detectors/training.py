"""Batches and validation of a detector for the training loop."""

from collections.abc import Sequence

import cv2
import numpy as np

from w2w.garments.detector import DetectorConfig
from w2w.garments.found import Model
from w2w.training.detectors.augment import Sample
from w2w.training.detectors.config import TrainConfig, loop_of, steps_an_epoch
from w2w.training.detectors.judge import judge, lines, measuring, precision
from w2w.training.detectors.photos import Photo
from w2w.training.loop import Recipe, Training


def training(
    recipe: Recipe, mine: Sequence[Sample], config: TrainConfig, num_photos: int, rank: int = 0, num_workers: int = 1
) -> Training:
    """The Training of one process, which has the photos ``mine`` of ``num_photos``."""
    cv2.setNumThreads(1)
    draws = Draws(mine, config, steps_an_epoch(config, num_photos, num_workers), rank)
    return Training(recipe, draws, loop_of(config, num_photos, num_workers))


class Draws:
    """Batches of photos drawn with replacement, those with rare classes more often."""

    def __init__(self, photos: Sequence[Sample], config: TrainConfig, steps: int, rank: int):
        weights = draw_weights(photos, config.rare)
        self._photos, self._config, self._steps, self._rank = photos, config, steps, rank
        self._weights = weights / weights.sum()

    def __call__(self, number: int) -> list[Sample]:
        epoch, step = divmod(number, self._steps)
        size = self._config.batch_images
        rng = np.random.default_rng([self._config.seed, epoch, self._rank])
        order = rng.choice(len(self._photos), self._steps * size, p=self._weights)
        return [self._photos[i] for i in order[step * size : (step + 1) * size]]


def draw_weights(photos: Sequence[Sample], rare: float) -> np.ndarray:
    """Relative sampling weight of each photo, (N,): sqrt(``rare`` / frequency) of its rarest class, at least 1 (Gupta et al.
    2019, "LVIS", repeat factor sampling)."""
    kinds = [set(s.labels_N.tolist()) for s in photos]
    counts: dict[int, int] = {}
    for found in kinds:
        for kind in found:
            counts[kind] = counts.get(kind, 0) + 1
    return np.array([max([1.0, *((rare * len(photos) / counts[k]) ** 0.5 for k in found)]) for found in kinds])


def held_out(model: Model, val: Sequence[Photo]) -> dict[str, float]:
    """mAP, AP50 and AP75, averaged over the classes; {} without photos."""
    if not val:
        return {}
    _, figures, _ = next(iter(lines(precision(judge(measuring(DetectorConfig()), val, model)))))
    return figures
