"""Nightly: ingest, embed, index (tag, looks, recommend, similar, check, export) in one run, for what changed only."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from w2w import schema
from w2w.check import job as check
from w2w.check.job import CheckConfig
from w2w.check.job import Result as Checked
from w2w.engine.job import Run, options_of, show
from w2w.errors import JobFailed
from w2w.export import job as export
from w2w.export.job import ExportConfig
from w2w.export.job import Result as Exported
from w2w.index import job as index
from w2w.index.flow import LOOKS
from w2w.index.job import Result as Indexed
from w2w.index.spec import IndexConfig
from w2w.ingest import job as ingest
from w2w.ingest.job import Result as Ingested
from w2w.models import job as embed
from w2w.models.config import EncoderConfig
from w2w.models.job import Result as Embedded
from w2w.recommend import job as recommend
from w2w.recommend.job import Result as Recommended
from w2w.recommend.job import Wanted
from w2w.results import Summary
from w2w.similar import job as similar
from w2w.similar.flow import SimilarConfig
from w2w.similar.job import Result as Similar
from w2w.stage import Counts, Pool
from w2w.table import delta, lease
from w2w.training.tags import job as tag
from w2w.training.tags.job import Result as Tagged
from w2w.training.tags.job import TagConfig


@dataclass(frozen=True)
class Config(ingest.Config):
    """Run `w2w ingest`, `w2w embed` and `w2w index` from one config; where it asks for them, tags, looks, recommendations,
    similar products, a check and an export too. A failed step stops the night: the published index stays as it was, and the
    next run resumes where this one stopped. One night at a time works on a store."""

    SHOWN = "store feed.uri feed.columns encoder.name tag looks recommend similar check export dry_run"
    PLACES = {}

    encoder: EncoderConfig = EncoderConfig()
    """The model."""
    index: IndexConfig = IndexConfig()
    """What the index must meet."""
    pool: Pool = Pool()
    """Workers of every step."""
    gpu_pool: Pool | None = None
    """Separate workers for the model."""
    tag: TagConfig | None = None
    """What each picture shows, into table `attributes`; {} for the tagger of w2w tag."""
    looks: bool = False
    """Embed and index the looks of crawled posts, for w2w style."""
    recommend: Wanted | None = None
    """What goes with every product, into table `recommendations`; {} for the default scorer."""
    similar: SimilarConfig | None = None
    """The products most like every product, into table `similar`; {} for those of its category."""
    check: CheckConfig | None = None
    """What is wrong in the catalog, and a page; {} for all kinds. What fail_on finds stops the night before the export."""
    export: ExportConfig | None = None
    """Send what changed, as w2w export does; {} for JSON lines in the store."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Rows and rejects of all steps together, and each step's own result. A dry run says which steps depend on others."""

    ingest: Ingested | None = None
    embed: Embedded | None = None
    index: Indexed | None = None
    embed_looks: Embedded | None = None
    index_looks: Indexed | None = None
    recommend: Recommended | None = None
    similar: Similar | None = None
    tag: Tagged | None = None
    check: Checked | None = None
    export: Exported | None = None
    then: str | None = None
    """Of a dry run: the steps that depend on what those before them bring."""


def main(config: Config) -> Result:
    run = Run("nightly", replace(config, export=config.export and export.recorded(config.export)))
    ingest.check(config)
    if config.looks:
        delta.need_table(run.store, schema.POSTS, "crawl")
    if config.recommend is not None:
        recommend.check(config.recommend)
    if config.check is not None:
        check.kinds_of(config.check)
    if config.export is not None:
        export.check(config.export)
    if config.dry_run:
        return _night(run, config)
    run.check_store()
    with lease.hold(run.store, run.run_id, logging.getLogger("w2w").warning):
        return _night(run, config)


def _night(run: Run, config: Config) -> Result:
    result, later = run.result(Result), list[str]()
    for name, job, more in _steps(config):
        if name == "index_looks" and result.embed_looks and not result.embed_looks.skipped + result.embed_looks.counts.out:
            continue  # no post has a picture
        if config.dry_run and not _can_tell(name, result, run.store):
            later.append(name.replace("_", " of "))
            continue
        try:
            lease.check(run.store)
            step = job.main(job.Config(**options_of(config, job.Config) | more))
        except JobFailed as e:
            e.result = run.done(result)
            raise
        show(step)
        counts = Counts()
        for some in (result.counts, step.counts):
            counts.add(some)
        done = {name: step, "counts": counts, "versions": result.versions | step.versions}
        result = run.done(result, **done, skipped=result.skipped + step.skipped)
    return run.done(result, then=f"{', '.join(later)}: of what the steps before them bring" if later else None)


def _steps(config: Config) -> Iterator[tuple[str, ModuleType, dict[str, Any]]]:
    """Names of the steps (fields of the result), their jobs, and options that differ from the night's."""
    yield from (("ingest", ingest, {}), ("embed", embed, {}))
    if config.tag is not None:
        yield "tag", tag, options_of(config.tag, TagConfig) | {"encoder": EncoderConfig()}  # a tagger names its own
    yield "index", index, {}
    if config.looks:
        yield "embed_looks", embed, {"of": LOOKS}
        yield "index_looks", index, {"of": LOOKS, "index": replace(config.index, name=LOOKS)}
    if config.recommend is not None:
        yield "recommend", recommend, options_of(config.recommend, Wanted)
    if config.similar is not None:
        yield "similar", similar, options_of(config.similar, SimilarConfig)
    if config.check is not None:
        yield "check", check, options_of(config.check, CheckConfig) | {"encoder": "auto"}
    if config.export is not None:
        yield "export", export, options_of(config.export, ExportConfig)


def _can_tell(step: str, result: Result, store: str) -> bool:
    """Whether a dry run of this step can tell what it would do, given that the steps before it were dry runs too."""
    if step in ("index", "recommend", "similar", "check", "export"):
        before, vectors = result.ingest, result.embed
        if before is None or vectors is None or before.pending or vectors.pending or before.withdrawn:
            return False
        others = (result.tag is None or not result.tag.pending) and (result.similar is None or result.similar.unchanged)
        return step != "export" or others
    if step == "index_looks":
        return result.embed_looks is not None and result.embed_looks.pending == 0
    return step == "ingest" or delta.open_table(store, schema.IMAGES) is not None
