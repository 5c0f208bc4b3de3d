"""Nightly: ingest, embed and index in one run; only what changed since the last night is computed."""

from dataclasses import dataclass

from w2w import schema
from w2w.engine.job import Run, options_of, show
from w2w.errors import JobFailed
from w2w.index import job as index
from w2w.index.job import Result as Indexed
from w2w.index.spec import IndexConfig
from w2w.ingest import job as ingest
from w2w.ingest.job import Result as Ingested
from w2w.models import job as embed
from w2w.models.config import EncoderConfig
from w2w.models.job import Result as Embedded
from w2w.results import Summary
from w2w.stage import Counts, Pool
from w2w.table import delta


@dataclass(frozen=True)
class Config(ingest.Config):
    """Run `w2w ingest`, `w2w embed` and `w2w index` from one config. A failed step stops the night: the published index stays
    as it was, and the next run resumes where this one stopped."""

    SHOWN = "store feed.uri feed.columns feed.category_map feed.full encoder.name index.target_recall gpu_pool dry_run"
    PLACES = {}

    encoder: EncoderConfig = EncoderConfig()
    """The model."""
    index: IndexConfig = IndexConfig()
    """What the index has to meet."""
    pool: Pool = Pool()
    """Workers of every step."""
    gpu_pool: Pool | None = None
    """Separate workers for the model."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Rows and rejects of all steps together, and each step's own result. A dry run ends where it cannot tell more."""

    ingest: Ingested | None = None
    embed: Embedded | None = None
    index: Indexed | None = None
    then: str | None = None
    """Of a dry run: what would come next, and depends on the steps before."""


def main(config: Config) -> Result:
    run = Run("nightly", config)
    result = run.result(Result)
    for name, job in (("ingest", ingest), ("embed", embed), ("index", index)):
        if config.dry_run and not _can_tell(name, result, run.store):
            then = "embed and index of what comes in" if name == "embed" else "an index of what is embedded then"
            return run.done(result, then=then)
        try:
            step = job.main(job.Config(**options_of(config, job.Config)))
        except JobFailed as e:
            e.result = run.done(result)
            raise
        show(step)
        counts = Counts()
        for some in (result.counts, step.counts):
            counts.add(some)
        done = {name: step, "counts": counts, "versions": result.versions | step.versions}
        result = run.done(result, **done, skipped=result.skipped + step.skipped)
    return result


def _can_tell(step: str, result: Result, store: str) -> bool:
    """Whether a dry run of this step knows what it will have to do, although those before it were dry as well."""
    if step == "index":
        return result.ingest.pending == result.embed.pending == 0 and not result.ingest.withdrawn
    return step == "ingest" or delta.open_table(store, schema.IMAGES) is not None
