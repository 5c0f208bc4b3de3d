"""Which pages of a store are old: a page lies in the folder of its run, <store>/reports/<job>/<run>."""

import re
from collections.abc import Iterator

from w2w import storage

KEEP = 30  # runs of each job
_RUN = re.compile(r"[a-z][a-z-]*-(\d{8}T\d{6})-[0-9a-f]{6}")  # as engine/job.py names them


def old_reports(store: str, keep: int) -> Iterator[str]:
    """The folders of all runs but the newest ``keep`` of each job. What is not named like a run is nobody's to delete."""
    for job in storage.list_folders(storage.join(store, "reports")):
        folder = storage.join(store, "reports", job)
        runs = sorted((found[1], name) for name in storage.list_folders(folder) if (found := _RUN.fullmatch(name)))
        yield from (storage.join(folder, name) for _, name in runs[: max(0, len(runs) - keep)])
