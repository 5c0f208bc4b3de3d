"""Training and evaluating a detector from table `detections`, on Ray."""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from w2w import ids, schema
from w2w.engine.tasks import collect, submit
from w2w.errors import Reject, UsageError
from w2w.garments.annotations import TEST, TRAIN, split_of
from w2w.garments.detector import DetectorConfig
from w2w.garments.stage import to_jpeg
from w2w.memory import keep_memory
from w2w.metrics.detection import Judged
from w2w.stage import HISTORY, MODEL
from w2w.table import delta
from w2w.table.pending import holding, lookup_batches
from w2w.table.permitted import TRAINING, permitted
from w2w.training.detectors.config import TrainConfig, kind_of
from w2w.training.detectors.photos import Photo, photo_of

if TYPE_CHECKING:
    from w2w.training.loop import Training

YOLO_WEIGHTS = "model.pt"  # in the folder of an ultralytics model
_PHOTOS_A_TASK = 500
LOOK_PX = 1600  # the size to which `w2w detect` shrinks photos
_NAMES = (schema.KEY, schema.SOURCE, schema.SPLIT, schema.LABELLED)
_COLUMNS = (*_NAMES, schema.BYTES, schema.OBJECTS)
_FETCHED = 64  # rows in memory at once while photos are decoded


@dataclass(frozen=True)
class Photos:
    """Keys of annotated photos of one table version."""

    store: str
    table_version: int
    stage_versions: tuple[str, ...]
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    partly_labelled: tuple[str, ...]  # sources that do not label every class
    refused: int = 0  # photos left out because training may not use them


def list_photos(store: str, sources: Sequence[str] | None, val_share: float) -> Photos:
    """The photos in table `detections`, in each source's newest reading; the train split is divided by hash into train and val.

    Raises UsageError for a missing source.
    """
    opened = delta.existing(store, schema.DETECTIONS)
    versions = _newest_versions(opened)
    names, may = [*_NAMES, schema.IMAGE_ID], permitted(store, TRAINING)
    rows = [delta.read(store, schema.DETECTIONS, names, opened.version(), stage_version=v) for v in versions]
    found = {r[schema.KEY]: r for one in reversed(rows) for r in one.to_pylist()}
    usable = {key: row for key, row in found.items() if may.allows(row[schema.IMAGE_ID])}
    known = sorted({r[schema.SOURCE] for r in found.values()})
    refused, found = len(found) - len(usable), usable
    for source in sources or []:
        if source not in known:
            raise UsageError(f"--sources: table `detections` has no {source!r}, only {', '.join(known)}")
    mine = [r for _, r in sorted(found.items()) if not sources or r[schema.SOURCE] in sources]
    train = [r[schema.KEY] for r in mine if r[schema.SPLIT] == TRAIN]
    held = dict(zip(train, split_of([f"val/{key}" for key in train], val_share)))
    return Photos(
        store,
        opened.version(),
        tuple(versions),
        tuple(k for k in train if held[k] == TRAIN),
        tuple(k for k in train if held[k] == TEST),
        tuple(r[schema.KEY] for r in mine if r[schema.SPLIT] == TEST),
        tuple(sorted({r[schema.SOURCE] for r in mine if len(r[schema.LABELLED]) < 7})),
        refused,
    )


def _newest_versions(opened) -> list[str]:
    """Stage versions, most recently written first: of a photo read twice, the last reading counts."""
    found = [e["w2w"]["stage_version"] for e in delta.history(opened) if e["w2w"] and e["w2w"].get("rows")]
    return list(dict.fromkeys(found))


def read_photos(photos: Photos, keys: Sequence[str], longest_px: int) -> list[Photo]:
    """These keys' photos, decoded and shrunk, in this order. Runs in a worker. Those that no longer decode are left out."""
    wanted, result = set(keys), {}
    for version in photos.stage_versions:
        asked = pa.array(sorted(wanted), pa.string())
        for rows in lookup_batches(
            photos.store, schema.DETECTIONS, asked, _COLUMNS, photos.table_version, _FETCHED, stage_version=version
        ):
            for row in rows.to_pylist():
                wanted.discard(row[schema.KEY])
                try:
                    result[row[schema.KEY]] = photo_of(row, longest_px)
                except Reject:
                    continue
    return [result[k] for k in keys if k in result]


def rows_digest(photos: Photos, keys: Sequence[str]) -> str:
    """Digest of where these photos' newest readings are stored: identifies boxes, classes, masks and pixels unread."""
    wanted, told = set(keys), []
    for version in photos.stage_versions:
        asked, only = pa.array(sorted(wanted), pa.string()), {"stage_version": version}
        found, parts = holding(photos.store, schema.DETECTIONS, asked, photos.table_version, **only)
        wanted -= set(found.to_pylist())
        told += parts
    return ids.digest(told)


def make_training(photos: Photos, recipe: str, config: TrainConfig, rank: int, num_workers: int) -> "Training":
    """What one worker trains (a Training): its share of the photos; the first one also evaluates on the held-out photos."""
    from w2w.training.detectors.recipes import make_recipe
    from w2w.training.detectors.training import training

    mine = [p.sample for p in read_photos(photos, photos.train[rank::num_workers], config.longest_px)]
    val = read_photos(photos, photos.val, config.longest_px) if rank == 0 else []
    return training(make_recipe(recipe, config, val), mine, config, len(photos.train), rank, num_workers)


class YoloTraining:
    """ultralytics' own training, as a single report: it cannot resume when interrupted."""

    def __init__(self, photos: Photos, config: TrainConfig):
        self._photos, self._config = photos, config

    def fit(self, report: Callable[[dict, Callable[[Path], None]], None], resume: Path | None, device: object) -> None:
        from w2w.training.detectors import yolo

        if resume:  # a checkpoint exists only once it is finished
            return
        photos, config = self._photos, self._config
        train, val = (read_photos(photos, keys, config.longest_px) for keys in (photos.train, photos.val))
        with tempfile.TemporaryDirectory(prefix="w2w-yolo-") as folder:
            best, history = yolo.train(kind_of(config.start)[1], train, val, config, Path(folder))

            def write(checkpoint: Path) -> None:
                (checkpoint / MODEL).mkdir()
                shutil.copyfile(best, checkpoint / MODEL / YOLO_WEIGHTS)
                (checkpoint / HISTORY).write_text(json.dumps(history), encoding="utf-8")

            report(history[-1], write)


def judge_photos(
    photos: Photos, keys: Sequence[str], detector: DetectorConfig, num_shown: int, num_cpus: float = 1
) -> tuple[list[Judged], list[tuple[str, bytes, Judged]]]:
    """The detections in these photos with the ground truth (a list of Judged), and the first few as (key, JPEG, Judged). All
    keys must exist."""
    chunks = [keys[i : i + _PHOTOS_A_TASK] for i in range(0, len(keys), _PHOTOS_A_TASK)]
    asked = [submit(_judge, photos, c, detector, 0 if i else num_shown, num_cpus=num_cpus) for i, c in enumerate(chunks)]
    done = collect(asked, "judge")
    return [j for judged, _ in done for j in judged], done[0][1]


def _judge(photos: Photos, keys: Sequence[str], detector: DetectorConfig, num_shown: int):
    from w2w.training.detectors.judge import judge, measuring

    keep_memory()
    read = read_photos(photos, keys, LOOK_PX)
    judged = judge(measuring(detector), read)
    return judged, [(p.key, to_jpeg(p.sample.image), j) for p, j in zip(read[:num_shown], judged)]
