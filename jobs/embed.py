"""Embed: a vector for every image that has none of this model yet."""

from dataclasses import dataclass

from w2w import schema
from w2w.images.decode import DecodeLimits
from w2w.images.stage import pixels_field, to_pixels
from w2w.models.encoder import EncoderConfig, encoder_input, model_version
from w2w.models.stage import EMBED_GIVES, Embed
from w2w.runtime.job import JobConfig, Run, Summary, need_table, start
from w2w.runtime.run import run_stages
from w2w.runtime.source import pending_rows
from w2w.runtime.stage import Pool, Stage
from w2w.table.pending import rejected_keys, table_keys
from w2w.table.sink import Output


@dataclass(frozen=True)
class Config(JobConfig):
    """Give every image in table `images` a vector of this encoder in table `embeddings`; those that have one are skipped."""

    encoder: EncoderConfig = EncoderConfig()
    """The model."""
    decode: DecodeLimits = DecodeLimits()
    """What an image may be."""
    pool: Pool = Pool()
    """Workers that decode, and on a CPU also run the model."""
    gpu_pool: Pool | None = None
    """Workers of their own for the model: for example {num_gpus: 1, num_cpus: 1, batch_rows: 256}."""


def main(config: Config) -> Summary:
    run = Run("embed", config)
    need_table(run.store, schema.IMAGES, "ingest")
    version, shape = model_version(config.encoder), encoder_input(config.encoder)
    done = [
        table_keys(run.store, schema.EMBEDDINGS, schema.OWNER_ID, model_version=version),
        rejected_keys(run.store, "embed", version),
    ]
    work = pending_rows(run.store, schema.IMAGES, [schema.IMAGE_ID, schema.BYTES, schema.SOURCE_URI], done, schema.SOURCE_URI)
    work = work.first(config.limit)
    facts = {"encoder": config.encoder.name, "model version": version, "pending": f"{work.num_rows:,}"}
    if config.dry_run or not work.num_rows:
        return run.summary(skipped=work.skipped, facts=facts)
    run.begin()
    pixels = {"limits": config.decode, "size_px": shape.size_px, "mode": shape.mode, "resample": shape.resample}
    stages = [
        Stage("decode", to_pixels, (schema.BYTES,), pixels_field(shape.size_px), pixels | {"decode_side_px": shape.decode_side_px}),
        Stage("encode", Embed, ("pixels",), EMBED_GIVES, {"config": config.encoder, "owner_kind": "image"}, config.gpu_pool),
    ]
    counts, versions = run_stages(
        run.store,
        work,
        stages,
        [Output(schema.EMBEDDINGS)],
        run.lineage(version, [schema.IMAGES]),
        pool=config.pool,
        max_reject_rate=config.max_reject_rate,
        commit_every_s=config.commit_every_s,
    )
    return run.summary(counts=counts, versions=versions, skipped=work.skipped, facts=facts)


if __name__ == "__main__":
    start(main, Config)
