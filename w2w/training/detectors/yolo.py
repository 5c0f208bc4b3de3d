"""Recipe of ultralytics' YOLO (AGPL-3.0): photos and labels as files in its layout, its own training, best.pt out."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import yaml

from w2w.errors import UsageError
from w2w.garments.taxonomy import CATEGORIES
from w2w.models import weights
from w2w.training.detectors.augment import UNKNOWN
from w2w.training.detectors.config import TrainConfig
from w2w.training.detectors.photos import Photo


def write_layout(folder: Path, train: Sequence[Photo], val: Sequence[Photo]) -> Path:
    """images/ and labels/ for train and val, and data.yaml, whose path is returned. YOLO has no ignored regions: they are
    greyed out where their pixels are known."""
    for split, photos in (("train", train), ("val", val)):
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for i, photo in enumerate(photos):
            s = photo.sample
            image = s.image.copy()
            if s.labelled.all():
                image[s.classes_HW == UNKNOWN] = 114
            cv2.imwrite(str(images / f"{i:06d}.png"), image[..., ::-1])
            (labels / f"{i:06d}.txt").write_text(
                "".join(_line(box, label, s.image.shape) for box, label in zip(s.boxes_N4, s.labels_N))
            )
    file = folder / "data.yaml"
    names = dict(enumerate(CATEGORIES))
    file.write_text(yaml.safe_dump({"path": str(folder), "train": "images/train", "val": "images/val", "names": names}))
    return file


def _line(box, label: int, shape: tuple[int, ...]) -> str:
    height, width = shape[:2]
    x0, y0, x1, y1 = (float(v) for v in box)
    values = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
    return f"{int(label)} " + " ".join(f"{v:.6f}" for v in values) + "\n"


def train(
    start: str, train_photos: Sequence[Photo], val_photos: Sequence[Photo], config: TrainConfig, folder: Path
) -> tuple[Path, list[dict]]:
    """Trains from ``start`` (FILE.pt, or an ultralytics .yaml for weights from scratch); returns the best weights' file, and
    the figures of each epoch in the training loop's form.

    Raises UsageError for a file that is not a detection model.
    """
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):  # it would wait for processes that it did not start
        os.environ.pop(name, None)
    os.environ["ULTRALYTICS_SAFE_LOAD"] = "true"
    os.environ.setdefault("YOLO_OFFLINE", "true")
    from ultralytics import YOLO
    from ultralytics.nn import tasks

    tasks.SAFE_LOAD = True
    try:
        model = YOLO(start, task="detect")
    except Exception as e:  # pickle, zip and torch raise many classes for a file that is not a checkpoint
        raise UsageError(f"detector.start=yolo:{start}: cannot be loaded safely: {weights.line(e)}") from e
    if Path(start).is_file():
        weights.check_finite(model.model.float(), f"detector.start=yolo:{start}")
    data = write_layout(folder / "photos", train_photos, val_photos or train_photos)
    model.train(
        data=str(data),
        epochs=config.epochs,
        batch=config.batch_images,
        imgsz=max(config.height_px, config.width_px),
        seed=config.seed,
        workers=0,
        project=str(folder),
        name="run",
        exist_ok=True,
        plots=False,
        verbose=False,
        amp=False,  # its check of AMP downloads a model
        device=None,
    )
    with open(folder / "run" / "results.csv", encoding="utf-8", newline="") as f:
        rows = [{name.strip(): value for name, value in row.items()} for row in csv.DictReader(f)]
    return folder / "run" / "weights" / "best.pt", [_figures(row, config.epochs) for row in rows]


def _figures(row: dict[str, str], epochs: int) -> dict:
    parts = {name.removeprefix("train/").removesuffix("_loss"): float(row[name]) for name in row if name.startswith("train/")}
    losses = {"loss": sum(parts.values()), **parts}
    return {"step": int(row["epoch"]), "steps": epochs, "rate": float(row["lr/pg0"]), "losses": losses}
