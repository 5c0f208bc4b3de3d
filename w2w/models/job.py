"""Embed: a vector for every image, garment, slot or look without one of this model."""

from dataclasses import dataclass, replace

from w2w import schema
from w2w.engine.job import JobConfig, Run
from w2w.engine.run import run_pending
from w2w.errors import UsageError
from w2w.images.decode import DecodeLimits
from w2w.models.config import EncoderConfig
from w2w.models.default import check_default, check_default_of_looks
from w2w.models.earlier import CUT_OUT, DETECTED, left_out
from w2w.models.encoder import bridge_of, model_version, try_encoder
from w2w.models.flow import LOOKS, picture_stages, pictures_of, without_vector
from w2w.models.flow_looks import STAGE as LOOKS_STAGE
from w2w.models.flow_looks import look_stages, looks_without_vector, with_persons
from w2w.models.looks import detected_by, look_version
from w2w.results import Summary
from w2w.stage import Budget, Pool
from w2w.table.parts import Output
from w2w.table.published import catalog_made_by

_BATCHES_OF_ITEM = 4
_CUT_BY = {"garments": DETECTED, "slots": CUT_OUT}


@dataclass(frozen=True)
class Config(JobConfig):
    """Give every image in table `images` a vector of this encoder in table `embeddings`; those that have one are skipped."""

    SHOWN = "store of version encoder.name encoder.threads pool.workers gpu_pool limit max_reject_rate dry_run"

    of: str = "images"
    """What is embedded: images, garments (the crops that a detector cut out), slots (top, bottom, shoes of cut-outs), or looks:
    the person of each post's photo, or the whole photo where no detector found one. Images with --encoder.bridge: those that
    have no vector of the model before, by the new model itself."""
    version: str = "auto"
    """For garments and slots: the stage version that cut them out; auto: the newest."""
    encoder: EncoderConfig = EncoderConfig()
    """The model."""
    decode: DecodeLimits = DecodeLimits()
    """Limits of an image."""
    pool: Pool = Pool()
    """Workers that decode; on a CPU they also run the model."""
    gpu_pool: Pool | None = None
    """Separate workers for the model, for example {num_gpus: 1, num_cpus: 1, batch_rows: 256}."""
    budget: Budget = Budget()
    """What this run may spend: a new model's vectors over several nights."""


@dataclass(frozen=True)
class Upgrade:
    """A new model's vectors, over several nights."""

    encoder: EncoderConfig | None = None
    """The new model. Default: the night's own, without its bridge."""
    budget: Budget = Budget()
    """What a night may spend on it."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Of one model version."""

    encoder: str
    model_version: str
    pending: int
    left_out: str | None = None
    """Photos whose garments or slots are not embedded, as the newest detector or segmenter has not looked at them and an
    earlier one has."""
    not_detected: int | None = None
    """Photos of looks that the newest detector has not processed yet: they wait for it."""
    left: int | None = None
    """Rows that the budget left for the next runs."""
    runs_left: int | None = None
    """Further runs with this budget until nothing is left, if each does as much as this one."""


def main(config: Config) -> Result:
    if config.of == LOOKS:
        return _looks(config)
    pictures = pictures_of(config.of)
    run = Run(pictures.stage, config)
    check_default(run.store, config.encoder, catalog_made_by(run.store))
    before = bridge_of(config.encoder).old if config.encoder.bridge and config.of == "images" else None
    if before:
        config = replace(config, encoder=replace(config.encoder, bridge=None))
    version = model_version(config.encoder)
    how = (config.version, _item_rows(config), config.full_scan, before)
    work = without_vector(run.store, pictures, version, *how).first(config.limit)
    told = {"encoder": config.encoder.name, "model_version": version}
    unseen = left_out(run.store, _CUT_BY[config.of]) if config.of in _CUT_BY and config.version == "auto" else None
    result = run.result(Result, **told, pending=work.num_rows, skipped=work.skipped, left_out=unseen)
    if work.num_rows:
        try_encoder(config.encoder)
    stages = picture_stages(pictures, config.encoder, config.decode, config.gpu_pool)
    tables = [pictures.table]
    result = run_pending(run, result, work, stages, [pictures.output], version, tables, config.pool, config.budget)
    return _with_left(run, result)


def _with_left(run: Run, result: Result) -> Result:
    """The result, with what the budget has left."""
    done, left = result.counts.read, result.pending - result.counts.read
    if result.dry_run or not left:
        return result
    return run.done(result, left=left, runs_left=-(-left // done) if done else None)


def _item_rows(config: Config) -> int:
    """Fewer where there is a budget: an item that was begun is finished."""
    few = _BATCHES_OF_ITEM * config.pool.batch_rows
    return config.item_rows if config.budget == Budget() else min(config.item_rows, few)


def _looks(config: Config) -> Result:
    run = Run(LOOKS_STAGE, config)
    check_default_of_looks(run.store, config.encoder)
    if config.version != "auto":
        raise UsageError("--version: looks are cut by the newest detector")
    detected = detected_by(run.store)
    version = look_version(model_version(config.encoder), detected)
    work, num_undetected = looks_without_vector(run.store, version, detected, _item_rows(config))
    work = work.first(config.limit)
    told = {"encoder": config.encoder.name, "model_version": version, "not_detected": num_undetected or None}
    result = run.result(Result, **told, pending=work.num_rows, skipped=work.skipped)
    if work.num_rows:
        try_encoder(config.encoder)
    if work.is_done(config.tolerance) or config.dry_run:
        return result
    run.check_store()
    stages = look_stages(config.encoder, config.decode, version, config.gpu_pool)
    tables = [schema.IMAGES, schema.POSTS, *([schema.LOOKS] if detected else [])]
    with with_persons(work, run.store, detected, run.run_id) as rows:
        outputs = [Output(schema.EMBEDDINGS)]
        return _with_left(run, run_pending(run, result, rows, stages, outputs, version, tables, config.pool, config.budget))
