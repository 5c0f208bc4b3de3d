"""Training a detector on Ray Train, and measuring one: where table `detections`, the recipes and Ray meet."""

import contextlib
import json
import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import ray
import ray.train
import ray.train.torch
from pyarrow import fs
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from w2w import schema, storage
from w2w.errors import JobFailed, Reject, UsageError
from w2w.garments.annotations import TEST, TRAIN, split_of
from w2w.garments.detector import DetectorConfig
from w2w.garments.stage import to_jpeg
from w2w.runtime.memory import keep_memory
from w2w.runtime.run import collect
from w2w.table import delta
from w2w.table.pending import lookup_batches
from w2w.training.config import HISTORY, MODEL, TrainConfig, kind_of
from w2w.training.photos import Photo, photo_of

log = logging.getLogger("w2w")

_CHECKPOINTS_KEPT = 2
_LOOK_EVERY_S = 5.0
_PATIENCE_S = 7200  # that workers wait for each other: the first one measures while the rest stands
_PHOTOS_A_TASK = 500
_LOOK_PX = 1600  # as `w2w detect` shrinks photos
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


@dataclass(frozen=True)
class Workers:
    """How many processes train, and what each of them gets."""

    num_workers: int = 1
    """Processes; several share their gradients (DDP; nccl on GPUs, gloo on CPUs)."""
    num_cpus: float = 1
    """CPUs of each."""
    num_gpus: float = 0
    """GPUs of each: 0 or 1."""
    max_failures: int = 2
    """How often a worker may die before the job fails; each time all go on from the last checkpoint."""

    def __post_init__(self):
        if self.num_workers < 1:
            raise UsageError(f"workers.num_workers={self.num_workers}: must be at least 1")
        if self.num_gpus not in (0, 1):
            raise UsageError(f"workers.num_gpus={self.num_gpus}: 0 or 1")


def list_photos(store: str, sources: Sequence[str] | None, val_share: float) -> Photos:
    """What table `detections` has, newest reading of each source, train split by hash into train and val.

    Raises UsageError for a source that is not there.
    """
    opened = delta.open_table(store, schema.DETECTIONS)
    versions = _newest_versions(opened)
    rows = [delta.read(store, schema.DETECTIONS, list(_NAMES), opened.version(), stage_version=v) for v in versions]
    found = {r[schema.KEY]: r for one in reversed(rows) for r in one.to_pylist()}
    known = sorted({r[schema.SOURCE] for r in found.values()})
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
    )


def _newest_versions(opened) -> list[str]:
    """Stage versions, the one written last first: a photo read twice counts as it was read last."""
    found = [e["w2w"]["stage_version"] for e in delta.history(opened) if e["w2w"] and e["w2w"].get("rows")]
    return list(dict.fromkeys(found))


def read_photos(photos: Photos, keys: Sequence[str], longest_px: int) -> list[Photo]:
    """The photos of these keys, decoded and shrunk, in this order. Runs in a worker. One that no longer decodes is left out."""
    wanted, result = set(keys), {}
    for version in photos.stage_versions:
        asked, only = pa.array(sorted(wanted), pa.string()), {"version": photos.table_version, "stage_version": version}
        for rows in lookup_batches(photos.store, schema.DETECTIONS, asked, _COLUMNS, batch_rows=_FETCHED, **only):
            for row in rows.to_pylist():
                wanted.discard(row[schema.KEY])
                try:
                    result[row[schema.KEY]] = photo_of(row, longest_px)
                except Reject:
                    continue
    return [result[k] for k in keys if k in result]


def train(
    photos: Photos, recipe: str, config: TrainConfig, workers: Workers, place: str, out: Path, resume: bool
) -> list[dict]:
    """Trains, checkpoints below ``place`` each epoch, and copies the model to ``out``. Returns the epochs' figures.

    A run with the same ``place`` goes on where its last checkpoint stands; ``resume=False`` begins anew.
    """
    system, path = storage.filesystem(place)
    if not resume and storage.exists(place):
        system.delete_dir(path)
    parent, _, name = path.rpartition("/")
    trainer = TorchTrainer(
        _loop,
        train_loop_config={"photos": photos, "recipe": recipe, "config": config},
        scaling_config=ScalingConfig(
            num_workers=workers.num_workers,
            use_gpu=workers.num_gpus > 0,
            resources_per_worker={"CPU": workers.num_cpus, **({"GPU": workers.num_gpus} if workers.num_gpus else {})},
        ),
        torch_config=TorchConfig(backend="nccl" if workers.num_gpus else "gloo", timeout_s=_PATIENCE_S),
        run_config=RunConfig(
            name=name,
            storage_path=parent,
            storage_filesystem=system,
            failure_config=FailureConfig(max_failures=workers.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=_CHECKPOINTS_KEPT),
        ),
    )
    try:
        with _told(place, config.epochs):
            result = trainer.fit()
    except ray.train.TrainingFailedError as e:
        raise JobFailed(f"training failed: {_reason(e)}") from e
    with result.checkpoint.as_directory() as folder:
        shutil.copytree(Path(folder, MODEL), out, dirs_exist_ok=True)
        return json.loads(Path(folder, HISTORY).read_text(encoding="utf-8"))


@contextlib.contextmanager
def _told(place: str, epochs: int) -> Iterator[None]:
    """Logs a line an epoch, read from the checkpoints: Ray Train keeps what workers print to itself."""
    stop = threading.Event()

    def watch() -> None:
        said = 0
        while not stop.wait(_LOOK_EVERY_S):
            history = _newest_history(place)
            for h in history[said:]:
                val = "".join(f", {name} {v:.3f}" for name, v in h.get("val", {}).items())
                log.info("epoch %d of %d: loss %.3f%s", h["epoch"], epochs, h["losses"]["loss"], val)
            said = max(said, len(history))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _newest_history(place: str) -> list[dict]:
    """Of the last checkpoint that is whole; [] before the first."""
    system, path = storage.filesystem(place)
    found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
    for folder in sorted((f.path for f in found if "/checkpoint_" in f.path), reverse=True):
        try:
            with system.open_input_file(f"{folder}/{HISTORY}") as f:
                return json.loads(f.read())
        except (OSError, ValueError):  # being written, or just removed
            continue
    return []


def _reason(error: Exception) -> str:
    """The last line of what the first worker to fail said."""
    failures = getattr(error, "worker_failures", {})
    text = str(next(iter(failures.values()), error))
    return [line for line in text.splitlines() if line.strip()][-1].strip()


def _loop(settings: dict) -> None:
    """One worker of a training run."""
    from w2w.training.loop import fit
    from w2w.training.recipes import make_recipe

    keep_memory()
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    photos, config = settings["photos"], settings["config"]
    mine = [p.sample for p in read_photos(photos, photos.train[rank::world], config.longest_px)]
    val = read_photos(photos, photos.val, config.longest_px) if rank == 0 else []
    recipe = make_recipe(settings["recipe"], config)
    device = ray.train.torch.get_device()

    def report(figures: dict, write: Callable[[Path], None]) -> None:
        shown = {"epoch": figures["epoch"], **figures["losses"]}
        if rank:
            return ray.train.report(shown)
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            ray.train.report(shown, checkpoint=ray.train.Checkpoint.from_directory(folder))

    last = ray.train.get_checkpoint()
    with last.as_directory() if last else contextlib.nullcontext() as folder:
        fit(recipe, mine, val, config, report, Path(folder) if folder else None, device)


def train_yolo(photos: Photos, recipe: str, config: TrainConfig, workers: Workers, out: Path) -> str:
    """ultralytics' own training in one Ray task; returns the name for ``--detector.name``."""
    start = kind_of(recipe)[1]
    task = ray.remote(num_cpus=workers.num_cpus, num_gpus=workers.num_gpus)(_yolo)
    (data,) = collect([task.remote(photos, start, config)], "train")
    out.mkdir(parents=True, exist_ok=True)
    file = out / "model.pt"
    file.write_bytes(data)
    return f"yolo:{file}"


def _yolo(photos: Photos, start: str, config: TrainConfig) -> bytes:
    from w2w.training import yolo

    parts = [read_photos(photos, keys, config.longest_px) for keys in (photos.train, photos.val)]
    with tempfile.TemporaryDirectory(prefix="w2w-yolo-") as folder:
        return yolo.train(start, *parts, config, Path(folder)).read_bytes()


def judge_photos(photos: Photos, keys: Sequence[str], detector: DetectorConfig, num_shown: int, num_cpus: float = 1):
    """What the detector finds in these photos beside the truth (a list of Judged), and the first few as (key, JPEG, Judged)."""
    task = ray.remote(num_cpus=num_cpus)(_judge)
    chunks = [keys[i : i + _PHOTOS_A_TASK] for i in range(0, len(keys), _PHOTOS_A_TASK)]
    done = collect([task.remote(photos, c, detector, 0 if i else num_shown) for i, c in enumerate(chunks)], "judge")
    return [j for judged, _ in done for j in judged], done[0][1]


def _judge(photos: Photos, keys: Sequence[str], detector: DetectorConfig, num_shown: int):
    from w2w.training.judge import judge, measuring

    keep_memory()
    read = read_photos(photos, keys, _LOOK_PX)
    judged = judge(measuring(detector), read)
    return judged, [(p.key, to_jpeg(p.sample.image), j) for p, j in zip(read[:num_shown], judged)]
