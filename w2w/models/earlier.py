"""Photos that only an earlier detector or segmenter has looked at: what reads the newest one's rows leaves them out."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema
from w2w.models.looks import look_posts
from w2w.table import delta
from w2w.table.pending import rejected_keys


@dataclass(frozen=True)
class Made:
    """What a stage makes of photos: its table; the photos that have rows of earlier versions alone, in a sentence; and how the
    newest gets to see them. ``among``: the photos of a store that count, by their image ids; None for all."""

    table: schema.Table
    stage: str
    says: str
    mend: str
    among: Callable[[str], pa.ChunkedArray] | None = None


DETECTED = Made(
    schema.LOOKS,
    "detect",
    "photos with garments of an earlier detector alone",
    "run 'w2w detect' with its options, without --limit and --of=posts",
)
POSTED = Made(
    schema.LOOKS,
    "detect",
    "photos of posts with garments of an earlier detector alone",
    "run 'w2w detect' with its options, without --limit",
    lambda store: look_posts(store, [schema.IMAGE_ID]).column(schema.IMAGE_ID),
)
CUT_OUT = Made(
    schema.CUTOUTS,
    "segment",
    "photos with cut-outs of an earlier segmenter or detector alone",
    "run 'w2w detect', if it guides them, and 'w2w segment' with their options, without --limit and --of=posts",
)


def left_out(store: str, of: Made = DETECTED) -> str | None:
    """Says how many photos have rows of earlier versions alone, as the newest has seen some only; None for none. Where it has
    seen all, by its watermark, only logs are read; else keys, of which 8 bytes a photo are held."""
    opened = delta.open_table(store, of.table)
    told = [e["w2w"] for e in delta.history(opened) if e["w2w"]] if opened is not None else []
    newest = delta.newest_version(store, of.table)
    since = itertools.takewhile(lambda run: run["stage_version"] == newest, told)
    if newest is None or any(run.get("mark") for run in since):
        return None
    listed: dict[bool, list[delta.Part]] = {True: [], False: []}
    for part in delta.parts(opened):
        listed[dict(part.partition)[schema.STAGE_VERSION] == newest].append(part)
    if not listed[False]:
        return None
    refused = ids.hash_keys(rejected_keys(store, of.stage, newest).read())
    seen = np.concatenate([_photos(store, of, listed[True], 0), refused])
    earlier = _photos(store, of, listed[False], 1)
    left = np.setdiff1d(earlier, seen)
    if of.among and len(left):
        left = np.intersect1d(left, ids.hash_keys(of.among(store)))
    return f"{of.says}: {len(left):,}; the newest ({newest}) has not looked at them: {of.mend}" if len(left) else None


def _photos(store: str, of: Made, listed: Sequence[delta.Part], least: int) -> np.ndarray:
    """uint64: a hash of each photo in these parts that has at least so many garments, where the table counts them."""
    found = [np.empty(0, np.uint64)]
    columns = [schema.IMAGE_ID, *({schema.NUM_GARMENTS} & set(of.table.schema.names))]
    for rows in delta.read_batches(store, of.table, columns, listed):
        images = rows.column(0)
        found.append(ids.hash_keys(images.filter(pc.greater_equal(rows.column(1), least)) if len(columns) > 1 else images))
    return np.unique(np.concatenate(found))
