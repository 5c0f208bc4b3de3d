"""Recipe detector of `w2w train`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from w2w import schema
from w2w.engine.training import Training, Workers
from w2w.errors import UsageError
from w2w.garments.detector import DetectorConfig
from w2w.stage import Counts
from w2w.table.delta import need_table
from w2w.table.permitted import explained, why_refused
from w2w.training.card import model_card
from w2w.training.detectors import flow, flow_results
from w2w.training.detectors.config import (
    DETECTOR,
    OURS,
    PRETRAINED,
    YOLO,
    TrainConfig,
    check_recipe,
    filled,
    kind_of,
    start_digest,
)
from w2w.training.flow import OF_DATA
from w2w.training.page import charts_of

_SHOWN = 12  # photos in the report


@dataclass(frozen=True)
class DetectorPlan:
    """Recipe detector, from table `detections`."""

    photos: flow.Photos
    settings: TrainConfig
    folder: str = "detectors"

    @classmethod
    def of(
        cls, store: str, detector: TrainConfig, workers: Workers, sources: Sequence[str] | None, limit: int | None
    ) -> "DetectorPlan":
        """Raises UsageError if the photos or the starting weights are missing."""
        kind, _ = kind_of(detector.start)
        need_table(store, schema.DETECTIONS, "annotate")
        check_recipe(detector.start)
        photos = flow.list_photos(store, sources, detector.val_share)
        photos = replace(photos, train=photos.train[:limit])
        with explained(lambda: why_refused(photos.refused, what="photos")):
            if not photos.train:
                raise UsageError("table `detections` has no train photos: annotate some with --annotations.split=train")
            if not photos.test:
                raise UsageError("table `detections` has no test photos to measure on: see --annotations.test_share")
            if detector.val_share and not photos.val:
                raise UsageError(f"detector.val_share={detector.val_share}: holds out none of {len(photos.train)} train photos")
        if len(photos.train) < workers.num_workers:
            raise UsageError(f"--workers.num_workers={workers.num_workers}: there are only {len(photos.train)} train photos")
        if kind == YOLO and workers.num_workers > 1:
            raise UsageError(f"--workers.num_workers={workers.num_workers}: ultralytics trains in one process here")
        return cls(photos, filled(detector, kind))

    @property
    def rows(self) -> Counts:
        total = len(self.photos.train) + len(self.photos.val) + len(self.photos.test)
        return Counts(total, total)

    def identity(self) -> list[object]:
        photos, settings = self.photos, asdict(replace(self.settings, start=""))  # independent of the weights' path
        read = flow.rows_digest(photos, photos.train + photos.val)
        return [DETECTOR, start_digest(self.settings.start), settings, photos.train, photos.val, read]

    def facts(self) -> dict[str, Any]:
        photos, kind = self.photos, kind_of(self.settings.start)[0]
        told = {"start": self.settings.start, "table_version": photos.table_version}
        told["examples"] = {split: len(getattr(photos, split)) for split in ("train", "val", "test")}
        told["not_permitted"] = photos.refused or None
        if photos.partly_labelled and kind != OURS:
            told["warning"] = f"{kind} takes everything that {', '.join(photos.partly_labelled)} does not label for background"
        return told

    def training(self, rank: int, num_workers: int) -> Training:
        if kind_of(self.settings.start)[0] == YOLO:
            return flow.YoloTraining(self.photos, self.settings)
        return flow.make_training(self.photos, self.settings.start, self.settings, rank, num_workers)

    def measure(self, model: Path, out: Path, history: Sequence[dict], facts: Mapping[str, str]) -> dict[str, Any]:
        detector = DetectorConfig(name=_name(model), threads=self.settings.threads)
        use = self.use(model)
        if self.photos.val:
            detector = replace(detector, threshold=flow_results.chosen_threshold(self.photos, detector))
            use += f" --detector.threshold={detector.threshold:g}"
        charts = charts_of(history)
        return flow_results.measure(self.photos, self.photos.test, detector, _SHOWN, str(out), facts, charts) | {"use": use}

    def card(self, facts: Mapping[str, str], figures: Mapping[str, str], git_revision: str | None) -> str:
        start = self.settings.start
        weights = {
            OURS: "EfficientNet-Lite0 as backbone, ImageNet weights, Apache-2.0",
            PRETRAINED: f"those of {start}: see its card",
            YOLO: f"{start}, trained by ultralytics (AGPL-3.0)",
        }[kind_of(start)[0]]
        what = [f"Finds garments of seven classes; started from {start}.", "Use: `w2w detect --detector.name=FOLDER`."]
        licence = f"Weights: {weights}. {OF_DATA}"
        return model_card("Garment detector", what, facts, figures, licence, {"detector": self.settings}, git_revision)

    def use(self, model: Path) -> str:
        return f"w2w detect --detector.name={_name(model)}"


def _name(model: Path) -> str:
    """For ``--detector.name``."""
    file = model / flow.YOLO_WEIGHTS
    return f"yolo:{file}" if file.is_file() else str(model)
