"""Detect: the garments in every photo that this detector has not processed yet."""

from dataclasses import dataclass, field, replace
from typing import Literal

from w2w import ids, schema
from w2w.engine.job import JobConfig, Run
from w2w.engine.run import run_pending
from w2w.engine.source import pending_rows
from w2w.errors import UsageError
from w2w.garments.detector import DetectorConfig, detector_version, try_detector
from w2w.garments.flow import COLUMNS, decode_stage, detect_stages
from w2w.garments.stage import ITEMS
from w2w.images.decode import DecodeLimits
from w2w.models.earlier import left_out
from w2w.results import Summary
from w2w.stage import Pool
from w2w.table.current import current_posts
from w2w.table.delta import need_table
from w2w.table.parts import Output
from w2w.table.pending import Keys, rejected_keys, table_keys

STAGE_CODE = 4  # bump when the same boxes would be cut differently


@dataclass(frozen=True)
class DetectConfig:
    """What is looked for, and in which images."""

    LEAST = {"longest_px": 32}

    of: Literal["images", "posts"] = "images"
    """Which images: all, or only the photos of posts that are active."""
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    """The model."""
    longest_px: int = 1600
    """Longest side, in pixels, to which photos are shrunk first."""
    crop_px: int = 384
    """Longest side of a stored crop."""
    crop_padding: float = 0.0
    """Each side of a crop grows by this share of the box."""
    on_white: bool = False
    """Crops show the garment's own pixels on white, where the detector tells them (w2w-lite0 does)."""
    pool: Pool = Pool(batch_rows=8)
    """Workers that decode; on a CPU they also run the model."""
    gpu_pool: Pool | None = None
    """Separate workers for the model, for example {num_gpus: 1, num_cpus: 1, batch_rows: 32}."""


@dataclass(frozen=True)
class Config(DetectConfig, JobConfig):
    """Find the garments in every image of table `images`: one row each in `garments`, one a photo in `looks`."""

    SHOWN = "store of detector.name detector.threshold longest_px crop_px pool.workers gpu_pool limit dry_run"

    decode: DecodeLimits = DecodeLimits()
    """Limits of an image."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Result for one detector version."""

    detector: str
    stage_version: str
    pending: int
    left_out: str | None = None
    """Photos whose garments `w2w embed --of=garments` and `w2w mine` leave out, as an earlier detector has found them and the
    newest has not looked."""


def check(config: DetectConfig) -> None:
    """Raises UsageError for sizes that cannot be."""
    if not 32 <= config.crop_px <= config.longest_px:
        raise UsageError(f"crop_px={config.crop_px}: between 32 and longest_px={config.longest_px}")


def main(config: Config) -> Result:
    check(config)
    run = Run("detect", config)
    need_table(run.store, schema.IMAGES, "ingest")
    crops = {"crop_px": config.crop_px, "padding": config.crop_padding, "on_white": config.on_white}
    version = ids.digest(STAGE_CODE, detector_version(config.detector), config.longest_px, crops)
    done = [
        table_keys(run.store, schema.LOOKS, schema.IMAGE_ID, stage_version=version),
        rejected_keys(run.store, "detect", version),
    ]
    among = None
    if config.of == "posts":
        need_table(run.store, schema.POSTS, "crawl")
        posts = current_posts(run.store, [schema.IMAGE_ID, schema.ACTIVE])
        photos = posts.filter(posts.column(schema.ACTIVE)).column(schema.IMAGE_ID)
        among = Keys([photos], len(photos))
    how = (schema.SOURCE_URI, config.item_rows, among, config.limit, config.full_scan)
    work = pending_rows(run.store, schema.IMAGES, COLUMNS, done, *how)
    told = {"detector": config.detector.name, "stage_version": version}
    result = run.result(Result, **told, pending=work.num_rows, skipped=work.skipped)
    if work.num_rows:
        try_detector(config.detector)
    stages = [
        decode_stage(config.decode, config.longest_px),
        *detect_stages(config.detector, {"stage_version": version} | crops, config.pool, config.gpu_pool),
    ]
    outputs = [Output(schema.GARMENTS, unique=schema.GARMENT_ID, nested=ITEMS), Output(schema.LOOKS)]
    done = run_pending(run, result, work, stages, outputs, version, [schema.IMAGES], config.pool)
    return done if config.dry_run else replace(done, left_out=left_out(run.store))
