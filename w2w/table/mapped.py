"""Arrays on disk that are mapped into memory: what a run looks up without reading it.

Files are written once, before what names their folder. Each is as it was written if its size and the time of its last change
are those that were noted when it was last hashed, at most a week ago; otherwise it is hashed again.
"""

import hashlib
import io
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from w2w import storage
from w2w.errors import StorageFailed

_ABOUT, _CHECKED = "about.json", "checked.json"
_WEEK_S = 7 * 24 * 3600.0


@dataclass(frozen=True)
class Streamed:
    """A matrix of so many rows, written as its ``blocks`` of rows come; it is never held."""

    num_rows: int
    blocks: Iterable[np.ndarray]

    def write(self, file: Any) -> None:
        left: Iterator[np.ndarray] = iter(self.blocks)
        first = next(left, np.empty((0, 0), np.float32))
        told = {"descr": first.dtype.str, "fortran_order": False, "shape": (self.num_rows, first.shape[1])}
        np.lib.format.write_array_header_1_0(file, told)
        num = 0
        for block in chain([first], left):
            assert block.shape[1:] == first.shape[1:]
            assert block.dtype == first.dtype
            file.write(np.ascontiguousarray(block).data)
            num += len(block)
        assert num == self.num_rows


def write(folder: str, arrays: Mapping[str, np.ndarray | Streamed], about: Mapping[str, Any]) -> None:
    """``about``: plain values, told by ``read``."""
    sums = {}
    for name, array in arrays.items():
        hashed = _Hashed()
        with storage.writer(storage.join(folder, f"{name}.npy")) as file:
            hashed.file = file
            if isinstance(array, Streamed):
                array.write(hashed)
            else:
                np.lib.format.write_array(hashed, np.ascontiguousarray(array), allow_pickle=False)
        sums[name] = hashed.sha256.hexdigest()
    storage.write_bytes(storage.join(folder, _ABOUT), json.dumps({"about": about, "sha256": sums}).encode())
    note(folder, {f"{name}.npy" for name in sums})


def read(folder: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """The arrays and ``about``; None if a file is missing or damaged."""
    try:
        told = json.loads(storage.read_bytes(storage.join(folder, _ABOUT)))
        sums = {f"{name}.npy": sha256 for name, sha256 in told["sha256"].items()}
        if not intact(folder, sums):
            return None
        return {name: _array(storage.join(folder, f"{name}.npy")) for name in told["sha256"]}, told["about"]
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def intact(folder: str, sums: Mapping[str, str]) -> bool:
    """Whether the files of a folder, by name, have these sha256."""
    noted = _noted(folder)
    due = [name for name in sums if name not in noted or noted[name] != _stamp(storage.join(folder, name))]
    if any(storage.sha256(storage.join(folder, name)) != sums[name] for name in due):
        return False
    if due:
        note(folder, set(sums))
    return True


class _Hashed(io.RawIOBase):
    """Writes to ``file``, and hashes what it writes."""

    file: Any = None

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        return self.file.write(data)


def _array(uri: str) -> np.ndarray:
    if storage.scheme(uri):
        return np.load(io.BytesIO(storage.read_bytes(uri)), allow_pickle=False)
    return np.load(storage.absolute(uri), mmap_mode="r", allow_pickle=False).view(np.ndarray)


def _stamp(uri: str) -> list[int] | None:
    """Changes whenever the file does; None where nothing tells that."""
    if storage.scheme(uri):
        return None
    try:
        about = os.stat(storage.absolute(uri))
    except OSError:
        return None
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]


def _noted(folder: str) -> dict[str, list[int]]:
    """Stamps of the files that were hashed of late."""
    if storage.scheme(folder):
        return {}
    try:
        told = json.loads(storage.read_bytes(storage.join(folder, _CHECKED)))
        fresh = 0 <= time.time() - told["at"] < _WEEK_S
        return {str(name): list(stamp) for name, stamp in told["files"].items()} if fresh else {}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def note(folder: str, names: set[str]) -> None:
    """Files of a folder are as they were hashed: written just now, or read. Nothing where the folder cannot be written."""
    if not storage.scheme(folder):
        files = {name: _stamp(storage.join(folder, name)) for name in sorted(names)}
        with suppress(StorageFailed):
            storage.write_bytes(storage.join(folder, _CHECKED), json.dumps({"at": time.time(), "files": files}).encode())
