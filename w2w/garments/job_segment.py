"""Segment: the person of every photo on white, guided by detected garments."""

from dataclasses import dataclass, replace

from w2w import ids, schema
from w2w.engine.job import JobConfig, Run
from w2w.engine.run import run_stages
from w2w.engine.source import pending_rows, with_beside
from w2w.errors import UsageError
from w2w.garments.flow import COLUMNS, decode_stage, segment_stages
from w2w.garments.guides import guides_of
from w2w.garments.masks import MaskRules
from w2w.garments.segmenter import SegmenterConfig, segmenter_version, try_segmenter
from w2w.images.decode import DecodeLimits
from w2w.models.earlier import CUT_OUT, left_out
from w2w.results import Summary
from w2w.stage import Pool
from w2w.table import work as work_files
from w2w.table.delta import need_table, newest_version
from w2w.table.parts import Output
from w2w.table.pending import rejected_keys, table_keys

STAGE_CODE = 4  # bump when the same masks would be cut out differently


@dataclass(frozen=True)
class SegmentConfig:
    """How a person is cut out."""

    LEAST = {"longest_px": 32, "crop_px": 16}

    segmenter: SegmenterConfig = SegmenterConfig()
    """The model."""
    guide: str = "auto"
    """Whose garments guide it: a stage version of table `looks`, none, or auto: the newest version where there is one."""
    guide_score: float = 0.0
    """Ignore garments that score less, for detectors run with a low threshold."""
    rules: MaskRules = MaskRules()
    """What is repaired in a mask, and what is rejected."""
    longest_px: int = 1600
    """Photos, masks and cut-outs are shrunk to this."""
    crop_px: int = 384
    """Longest side of a slot's crop."""
    pool: Pool = Pool(batch_rows=8)
    """Workers that decode; on a CPU they also run the model."""
    gpu_pool: Pool | None = None
    """Separate workers for the model, for example {num_gpus: 1, num_cpus: 1, batch_rows: 8}."""


@dataclass(frozen=True)
class Config(SegmentConfig, JobConfig):
    """Cut the person out of every image of table `images`: JPEG on white, mask, and crops of top, bottom and shoes."""

    SHOWN = "store segmenter.name guide guide_score longest_px pool.workers gpu_pool max_reject_rate limit dry_run"

    decode: DecodeLimits = DecodeLimits()
    """Limits of an image."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Result for one segmenter version, guided by one detector version or none."""

    segmenter: str
    guide: str | None
    stage_version: str
    pending: int
    left_out: str | None = None
    """Photos whose slots `w2w embed --of=slots` and `w2w compose` leave out, as an earlier segmenter has cut them out and the
    newest has not looked."""


def main(config: Config) -> Result:
    run = Run("segment", config)
    need_table(run.store, schema.IMAGES, "ingest")
    guide = newest_version(run.store, schema.LOOKS) if config.guide == "auto" else config.guide
    guide = None if guide == "none" else guide
    crops = {"crop_px": config.crop_px, "feather_px": config.rules.feather_px}
    version = ids.digest(
        STAGE_CODE, segmenter_version(config.segmenter), guide, config.guide_score, config.rules, config.longest_px, crops
    )
    done = [
        table_keys(run.store, schema.CUTOUTS, schema.IMAGE_ID, stage_version=version),
        rejected_keys(run.store, "segment", version),
    ]
    seen = table_keys(run.store, schema.LOOKS, schema.IMAGE_ID, stage_version=guide) if guide else None
    if seen is not None and not seen.count:
        raise UsageError(f"guide={guide}: table 'looks' has no rows of that version: run 'w2w detect', or give --guide=none")
    how = (schema.SOURCE_URI, config.item_rows, seen, config.limit, config.full_scan)
    work = pending_rows(run.store, schema.IMAGES, COLUMNS, done, *how)
    told = {"segmenter": config.segmenter.name, "guide": guide, "stage_version": version}
    result = run.result(Result, **told, pending=work.num_rows, skipped=work.skipped)
    if work.num_rows:
        try_segmenter(config.segmenter)
    if work.is_done(config.tolerance) or config.dry_run:
        return result if config.dry_run else replace(result, left_out=left_out(run.store, CUT_OUT))
    if guide is None and config.segmenter.name != "u2netp":
        raise UsageError(f"segmenter.name={config.segmenter.name}: needs boxes: run 'w2w detect' first, or use u2netp")
    run.begin()
    cut = {"stage_version": version} | crops
    stages = segment_stages(config.segmenter, config.rules, guide is not None, cut, config.pool, config.gpu_pool)
    try:
        if guide:
            folder = work_files.folder(run.store, run.run_id)
            work = with_beside(work, run.store, schema.IMAGES, guides_of(run.store, guide, config.guide_score), folder)
        counts, versions = run_stages(
            run.store,
            work,
            [decode_stage(config.decode, config.longest_px), *stages],
            [Output(schema.CUTOUTS)],
            run.lineage(version, [schema.IMAGES, *([schema.GARMENTS, schema.LOOKS] if guide else [])]),
            pool=config.pool,
            tolerance=config.tolerance,
            commit_every_s=config.commit_every_s,
        )
    finally:
        work_files.clean(run.store, run.run_id)
    return run.done(result, counts=counts, versions=versions, left_out=left_out(run.store, CUT_OUT))
