"""Which pages of a store are old. The page of a run is in its folder, <store>/reports/<job>/<run>."""

import re
from collections.abc import Iterator

from w2w import storage

KEEP = 30  # runs of each job
_RUN = re.compile(r"[a-z][a-z-]*-(\d{8}T\d{6})-[0-9a-f]{6}")  # named by engine/job.py


def old_reports(store: str, keep: int) -> Iterator[str]:
    """The folders of all runs except the newest ``keep`` of each job. Folders with other names are never deleted."""
    for job in storage.list_folders(storage.join(store, "reports")):
        folder = storage.join(store, "reports", job)
        runs = sorted((found[1], name) for name in storage.list_folders(folder) if (found := _RUN.fullmatch(name)))
        yield from (storage.join(folder, name) for _, name in runs[: max(0, len(runs) - keep)])
