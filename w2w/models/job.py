"""Embed: a vector for every image, garment or slot of an outfit that has none of this model yet."""

from dataclasses import dataclass

from w2w.engine.job import JobConfig, Run
from w2w.engine.run import run_pending
from w2w.images.decode import DecodeLimits
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version, try_encoder
from w2w.models.flow import picture_stages, pictures_of, without_vector
from w2w.results import Summary
from w2w.stage import Pool


@dataclass(frozen=True)
class Config(JobConfig):
    """Give every image in table `images` a vector of this encoder in table `embeddings`; those that have one are skipped."""

    SHOWN = "store of version encoder.name encoder.threads pool.workers gpu_pool limit max_reject_rate dry_run"

    of: str = "images"
    """What is embedded: images, garments (the crops that a detector cut out), or slots (top, bottom, shoes of cut-outs)."""
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


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Of one model version."""

    encoder: str
    model_version: str
    pending: int


def main(config: Config) -> Result:
    pictures = pictures_of(config.of)
    run = Run(pictures.stage, config)
    version = model_version(config.encoder)
    work = without_vector(run.store, pictures, version, config.version, config.item_rows).first(config.limit)
    told = {"encoder": config.encoder.name, "model_version": version}
    result = run.result(Result, **told, pending=work.num_rows, skipped=work.skipped)
    if work.num_rows:
        try_encoder(config.encoder)
    stages = picture_stages(pictures, config.encoder, config.decode, config.gpu_pool)
    return run_pending(run, result, work, stages, [pictures.output], version, [pictures.table], config.pool)
