"""Annotate: a published data set's photos and boxes into table `detections`.

A photo whose boxes have changed since its file was read is read again and replaced.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, plugins, schema
from w2w.engine.job import JobConfig, Run
from w2w.engine.run import run_stages
from w2w.engine.source import file_rows
from w2w.garments.annotations import RELATIVE, SETTLE_GIVES, settle
from w2w.garments.formats import FORMATS, AnnotationsConfig, read_annotations
from w2w.images.decode import DecodeLimits
from w2w.images.stage import INSPECT_GIVES, inspect
from w2w.ingest.loading import load_stage
from w2w.ingest.stage import loadable
from w2w.results import Summary
from w2w.stage import Pool, Stage
from w2w.table import delta, work
from w2w.table.maintain import take_out
from w2w.table.parts import Output
from w2w.table.pending import rejected_keys
from w2w.web.fetch import ListedFetchConfig

STAGE_CODE = 2  # bump when the same file would be read differently
_RECORD = "record"  # a photo as described by its file: read again when anything about it changes


@dataclass(frozen=True)
class Config(JobConfig):
    """Read annotations into table `detections`: photo, boxes, our classes, the labels they had, split and source."""

    SHOWN = "store annotations.path annotations.format annotations.images annotations.split annotations.source dry_run"
    PLACES = {"FILE": "annotations.path"}

    annotations: AnnotationsConfig = field(default_factory=AnnotationsConfig)
    """The data set."""
    decode: DecodeLimits = DecodeLimits()
    """Limits of an image."""
    fetch: ListedFetchConfig = ListedFetchConfig()
    """How images on the web are fetched."""
    pool: Pool = Pool()
    """Workers that read and check photos."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Of one data set."""

    format: str
    photos: int
    pending: int
    changed: int | None = None
    """Photos whose annotations differ from those in the table."""
    pending_splits: dict[str, int] = field(default_factory=dict)


def main(config: Config) -> Result:
    run = Run("annotate", config)
    rows = read_annotations(config.annotations)
    own = plugins.version_of("annotations", config.annotations.format, FORMATS)
    settings = {k: v for k, v in asdict(config.annotations).items() if k not in ("path", "images")}
    version = ids.digest(STAGE_CODE, settings, config.decode, *own)
    stored = delta.read(run.store, schema.DETECTIONS, [schema.KEY, schema.ROW_DIGEST], stage_version=version)
    rows = rows.append_column(_RECORD, _records(rows))
    made = pc.is_in(rows.column(_RECORD), value_set=_records(stored))
    failed = pc.and_not(pc.is_in(rows.column(_RECORD), value_set=rejected_keys(run.store, "annotate", version).read()), made)
    pending = rows.filter(pc.invert(pc.or_(made, failed))).slice(0, config.limit)
    now = pa.chunked_array(pending.column(schema.KEY).chunks + rows.filter(failed).column(schema.KEY).chunks, pa.string())
    changed = stored.column(schema.KEY).filter(pc.is_in(stored.column(schema.KEY), value_set=now))
    splits = {v["values"]: v["counts"] for v in pc.value_counts(pending.column(schema.SPLIT)).to_pylist()}
    result = run.result(
        Result,
        format=config.annotations.format,
        photos=rows.num_rows,
        pending=pending.num_rows,
        changed=len(changed) or None,
        pending_splits=dict(sorted(splits.items())),
        skipped=rows.num_rows - pending.num_rows,
    )
    num_failed = pc.sum(failed).as_py() or 0
    if len(changed) and not config.dry_run:
        take_out(run.store, schema.DETECTIONS, lambda listed: _among(run.store, listed, changed, version))
    if not pending.num_rows:
        config.tolerance.check({}, rows.num_rows, num_failed)
    if config.dry_run or not pending.num_rows:
        return result
    run.begin()
    pending = loadable(pending)
    needs = (schema.OBJECTS, RELATIVE, schema.WIDTH, schema.HEIGHT)
    stages = [
        load_stage(config.fetch, config.pool),
        Stage("inspect", inspect, (schema.BYTES,), INSPECT_GIVES, {"limits": config.decode}),
        Stage("settle", settle, needs, SETTLE_GIVES, {"stage_version": version}),
    ]
    try:
        work.write(run.store, run.run_id, [pending], pending.schema, config.item_rows)
        counts, versions = run_stages(
            run.store,
            file_rows(
                work.folder(run.store, run.run_id), _RECORD, schema.IMAGE_URI, config.item_rows, result.skipped, num_failed
            ),
            stages,
            [Output(schema.DETECTIONS)],
            run.lineage(version, []),
            pool=config.pool,
            tolerance=config.tolerance,
            commit_every_s=config.commit_every_s,
        )
    finally:
        work.clean(run.store, run.run_id)
    return run.done(result, counts=counts, versions=versions)


def _records(rows: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(rows.column(schema.KEY), rows.column(schema.ROW_DIGEST), "@")


def _among(store: str, listed: Sequence[delta.Part], keys: pa.ChunkedArray, version: str) -> np.ndarray:
    """bool: for each row of these parts, whether it has this version and one of these keys."""
    columns = [schema.KEY, schema.STAGE_VERSION]
    batches = delta.read_batches(store, schema.DETECTIONS, columns, listed)
    found = [pc.and_(pc.is_in(b.column(0), value_set=keys), pc.equal(b.column(1), version)).to_numpy() for b in batches]
    return np.concatenate([np.empty(0, bool), *found])
