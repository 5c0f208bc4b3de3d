"""Embed: a vector for every image that has none of this model yet."""

from dataclasses import dataclass

from w2w import schema
from w2w.images.decode import DecodeLimits
from w2w.models.encoder import EncoderConfig, model_version
from w2w.runtime.embedding import embed_stages
from w2w.runtime.job import JobConfig, Run, Summary, need_table, start
from w2w.runtime.run import run_stages
from w2w.runtime.source import pending_rows
from w2w.runtime.stage import Pool
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
    version = model_version(config.encoder)
    done = [
        table_keys(run.store, schema.EMBEDDINGS, schema.OWNER_ID, model_version=version),
        rejected_keys(run.store, "embed", version),
    ]
    columns = [schema.IMAGE_ID, schema.BYTES, schema.SOURCE_URI]
    work = pending_rows(run.store, schema.IMAGES, columns, done, schema.SOURCE_URI, config.item_rows).first(config.limit)
    facts = {"encoder": config.encoder.name, "model version": version, "pending": f"{work.num_rows:,}"}
    if config.dry_run or not work.num_rows:
        return run.summary(skipped=work.skipped, facts=facts)
    run.begin()
    stages = embed_stages(config.encoder, config.decode, schema.IMAGE_ID, "image", config.gpu_pool)
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
