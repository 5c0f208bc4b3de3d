"""Training in a single worker on a local cluster: a plain Ray task, without Ray Train's controller and worker group."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from pyarrow import fs

from w2w import storage
from w2w.engine.tasks import raise_user_errors
from w2w.engine.training import CHECKPOINTS_KEPT, Training, Workers
from w2w.errors import JobFailed
from w2w.memory import keep_memory
from w2w.stage import HISTORY


def train(make: Callable[[int, int], Training], workers: Workers, place: str) -> str:
    """Trains and returns the path of the last checkpoint. A worker that dies is replaced and resumes from it."""
    task = ray.remote(num_cpus=workers.num_cpus, num_gpus=workers.num_gpus, max_retries=workers.max_failures)(_work)
    try:
        with raise_user_errors():
            return ray.get(task.remote(make, place, workers.num_gpus > 0))
    except ray.exceptions.RayError as e:
        raise JobFailed(f"training failed: {[line for line in str(e).splitlines() if line.strip()][-1].strip()}") from e


def _work(make: Callable[[int, int], Training], place: str, on_gpu: bool) -> str:
    import torch

    keep_memory()
    system, path = storage.filesystem(place)
    system.create_dir(path)

    def report(figures: dict, write: Callable[[Path], None]) -> None:
        known = _checkpoints(system, path)
        number = int(known[-1].rpartition("_")[2]) + 1 if known else 0
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            _save(system, Path(folder), f"{path}/checkpoint_{number:06d}")
        for old in known[: 1 - CHECKPOINTS_KEPT]:
            system.delete_dir(old)

    training, known = make(0, 1), _checkpoints(system, path)
    device = torch.device("cuda" if on_gpu else "cpu")
    if known:
        with local(system, known[-1]) as folder:
            training.fit(report, folder, device)
    else:
        training.fit(report, None, device)
    return _checkpoints(system, path)[-1]


def _checkpoints(system: fs.FileSystem, path: str) -> list[str]:
    """The complete checkpoints, newest last: the history file is written last."""
    found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
    folders = sorted(f.path for f in found if "/checkpoint_" in f.path)
    return [f for f in folders if system.get_file_info(f"{f}/{HISTORY}").type == fs.FileType.File]


def _save(system: fs.FileSystem, folder: Path, path: str) -> None:
    if system.get_file_info(path).type == fs.FileType.Directory:
        system.delete_dir(path)  # left incomplete by a worker that died
    files = [f for f in sorted(folder.rglob("*")) if f.is_file()]
    for file in sorted(files, key=lambda f: f == folder / HISTORY):
        target = f"{path}/{file.relative_to(folder).as_posix()}"
        system.create_dir(target.rpartition("/")[0])
        fs.copy_files(str(file), target, source_filesystem=fs.LocalFileSystem(), destination_filesystem=system)


@contextmanager
def local(system: fs.FileSystem, path: str) -> Iterator[Path]:
    """The checkpoint's files in a local folder, removed on exit."""
    with tempfile.TemporaryDirectory() as folder:
        fs.copy_files(path, folder, source_filesystem=system, destination_filesystem=fs.LocalFileSystem())
        yield Path(folder)
