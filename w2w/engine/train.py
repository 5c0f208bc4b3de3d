"""Training on the cluster: the loop runs in one process or several, checkpoints go to the store, a killed run resumes."""

import contextlib
import json
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from pyarrow import fs

from w2w import storage
from w2w.engine import alone
from w2w.engine.cluster import is_own
from w2w.engine.training import Trackers, Training, Workers
from w2w.stage import HISTORY, MODEL

log = logging.getLogger("w2w")

_LOOK_EVERY_S = 5.0


def train(
    make: Callable[[int, int], Training],
    workers: Workers,
    place: str,
    out: Path,
    resume: bool = True,
    trackers: Callable[[], Trackers] | None = None,
) -> list[dict]:
    """Runs the training that ``make(rank, num_workers)`` returns in each worker, with checkpoints below ``place``; copies the
    model to ``out``.

    ``make`` travels to the workers: a module-level function with plain values (functools.partial). A run with the same
    ``place`` resumes from its last checkpoint; ``resume=False`` starts over. ``trackers`` opens the experiment trackers.
    Returns the run's figures, one entry per report.
    """
    system, path = storage.filesystem(place)
    if not resume and storage.exists(place):
        system.delete_dir(path)
    if is_own() and workers.num_workers == 1:
        run, place = alone.train, storage.join(place, "alone")
    else:
        from w2w.engine import ddp  # imports Ray Train: 5 s of CPU

        run = ddp.train
    with _told(place, trackers() if trackers else None):
        last = run(make, workers, place)
    with alone.local(system, last) as folder:
        shutil.copytree(folder / MODEL, out, dirs_exist_ok=True)
        return json.loads((folder / HISTORY).read_text(encoding="utf-8"))


@contextlib.contextmanager
def _told(place: str, trackers: Trackers | None) -> Iterator[None]:
    """Logs a line per report and feeds the trackers, reading the checkpoints: Ray Train swallows what workers print."""
    stop = threading.Event()
    said = len(_newest_history(place))

    def tell() -> None:
        nonlocal said
        history = _newest_history(place)
        for h in history[said:]:
            val = "".join(f", {name} {v:.3f}" for name, v in h.get("val", {}).items())
            log.info("step %d of %d: loss %.3f%s", h["step"], h["steps"], h["losses"]["loss"], val)
        said = max(said, len(history))
        if trackers:
            try:
                trackers.tell(history)
            except Exception as e:  # a failing tracker must not end the training
                log.warning("the figures could not be shown: %s", e)

    def watch() -> None:
        while not stop.wait(_LOOK_EVERY_S):
            tell()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        tell()
        if trackers:
            trackers.close()


def _newest_history(place: str) -> list[dict]:
    """The history of the last complete checkpoint; [] before the first."""
    system, path = storage.filesystem(place)
    found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
    for folder in sorted((f.path for f in found if "/checkpoint_" in f.path), reverse=True):
        try:
            with system.open_input_file(f"{folder}/{HISTORY}") as f:
                return json.loads(f.read())
        except (OSError, ValueError):  # being written, or just removed
            continue
    return []
