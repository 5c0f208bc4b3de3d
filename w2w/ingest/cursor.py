"""Which files of a folder of changes are still to be applied."""

from collections.abc import Iterable, Mapping
from datetime import datetime

import pyarrow as pa

from w2w import schema
from w2w.errors import BadInput

APPLIED = (schema.FILE, schema.NUM_BYTES, schema.APPLIED_AT)


def name_of(uri: str) -> str:
    return uri.rpartition("/")[2]


def pending(folder: str, files: Iterable[tuple[str, int]], applied: pa.Table) -> dict[str, int]:
    """Those of ``files`` (URI and size, in order) that are not applied, with their sizes. ``applied``: rows of CHANGE_FILES.

    Raises UsageError for a file that comes before one that is applied, and for one that has changed since: applied now, its
    older values would replace newer ones.
    """
    known = {row[schema.FILE]: row for row in applied.to_pylist()}
    last = max(known, default="")
    left = {}
    for uri, size in files:
        name = name_of(uri)
        if name not in known:
            if name < last:
                what = f"{name} is new, but its name comes before {last}, applied on {_day(known[last])}"
                raise BadInput(f"feed.uri={folder}: {what}: give it a name that comes last, or remove it")
            left[uri] = size
        elif known[name][schema.NUM_BYTES] != size:
            was = f"{name} was applied on {_day(known[name])} with {known[name][schema.NUM_BYTES]:,} bytes, now {size:,}"
            hint = "Write a file under a name that begins with . or _, and rename it when it is whole"
            raise BadInput(f"feed.uri={folder}: {was}: give it a new name that comes last. {hint}")
    return left


def rows(files: Mapping[str, int], feed: str, now: int, run_id: str) -> pa.Table:
    """CHANGE_FILES of files that have been applied."""
    told = [
        {
            schema.SOURCE: feed,
            schema.FILE: name_of(uri),
            schema.NUM_BYTES: size,
            schema.APPLIED_AT: now,
            schema.RUN_ID: run_id,
        }
        for uri, size in files.items()
    ]
    return pa.Table.from_pylist(told, schema=schema.CHANGE_FILES.schema)


def _day(row: Mapping) -> str:
    at = row[schema.APPLIED_AT]
    assert isinstance(at, datetime), "a time of Arrow"
    return f"{at:%Y-%m-%d %H:%M} UTC"
