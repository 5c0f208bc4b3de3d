"""Watching a folder: yields photos that appear in it, once they are complete."""

import time
from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.find.photos import of_folder

POLL_S = 0.25


def present(folder: str) -> set[str]:
    """Keys of the photos in the folder, each with its size and time."""
    return set(of_folder(folder).column(schema.KEY).to_pylist())


def appearing(folder: str, there: set[str], sleep: Callable[[float], None] = time.sleep) -> Iterator[pa.Table]:
    """Endless LISTED rows of photos that are added to or changed in the folder, compared with those that were ``present``.

    A photo counts as complete when its size and time are equal in two looks, ``POLL_S`` apart.
    """
    known, growing = set(there), set[str]()
    while True:
        sleep(POLL_S)
        rows = of_folder(folder)
        new = set(rows.column(schema.KEY).to_pylist()) - known
        whole, growing = new & growing, new
        known |= whole
        if whole:
            yield rows.filter(pc.is_in(rows.column(schema.KEY), value_set=pa.array(sorted(whole), pa.string())))
