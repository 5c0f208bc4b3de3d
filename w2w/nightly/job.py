"""Nightly: ingest, embed, index and what else its config asks for, in one run, for what changed only."""

import dataclasses
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

from w2w import schema, storage
from w2w.check import job as check
from w2w.check.job import CheckConfig
from w2w.check.job import Result as Checked
from w2w.crawl import job as crawl
from w2w.crawl.job import CrawlConfig
from w2w.crawl.job import Result as Crawled
from w2w.engine.cluster import num_cpus
from w2w.engine.job import STOPPED, Run, options_of, show
from w2w.errors import JobFailed, UsageError
from w2w.export import job as export
from w2w.export.job import ExportConfig
from w2w.export.job import Result as Exported
from w2w.garments import job_detect as detect
from w2w.garments import job_segment as segment
from w2w.garments.job_detect import DetectConfig
from w2w.garments.job_detect import Result as Detected
from w2w.garments.job_segment import Result as Segmented
from w2w.garments.job_segment import SegmentConfig
from w2w.index import job as index
from w2w.index.flow import LOOKS
from w2w.index.job import Result as Indexed
from w2w.index.publish import made_by
from w2w.index.spec import IndexConfig
from w2w.ingest import job as ingest
from w2w.ingest.job import Result as Ingested
from w2w.models import job as embed
from w2w.models.config import EncoderConfig
from w2w.models.default import check_default
from w2w.models.encoder import model_version, spaces
from w2w.models.job import Result as Embedded
from w2w.models.job import Upgrade
from w2w.nightly import flow, tell
from w2w.nightly.page import morning_page
from w2w.nightly.rules import headline, in_the_night, sentence
from w2w.nightly.says import answers_changed, notices, what_became
from w2w.nightly.tell import Tell
from w2w.nightly.tidy import Tidy, tidy
from w2w.recommend import job as recommend
from w2w.recommend.job import Result as Recommended
from w2w.recommend.job import Wanted
from w2w.report.page import folder_of
from w2w.results import Summary, to_json
from w2w.shown import line
from w2w.similar import job as similar
from w2w.similar.flow import SimilarConfig
from w2w.similar.job import Result as Similar
from w2w.stage import Counts, Pool
from w2w.table import delta, lease
from w2w.training.tags import job as tag
from w2w.training.tags.job import Result as Tagged
from w2w.training.tags.job import TagConfig

STEPS = ("crawl", "ingest", "detect", "segment", "embed", "tag", "index", "embed_looks", "index_looks", "recommend", "similar")
STEPS += ("check", "export", "upgrade")
EMBEDDED = ("index",)  # steps whose options have the same names in a night
_NIGHTS_SHOWN = 13  # before this one
log = logging.getLogger("w2w")


@dataclass(frozen=True)
class Config(ingest.Config):
    """Run `w2w ingest`, `w2w embed` and `w2w index` from one config; where it asks for them, a crawl, garments, tags, looks,
    recommendations, similar products, a check and an export too. A failed step stops the night: the published index stays as it
    was, and the next run resumes where this one stopped. One night at a time works on a store; each leaves a page."""

    SHOWN = "store feed.uri crawl detect tag looks recommend similar check export tidy from_ until dry_run"
    PLACES = {}
    KNOWN = {"from_": STEPS, "until": STEPS}
    LEAST = ingest.Config.LEAST | {"examples": 1}

    encoder: EncoderConfig = EncoderConfig()
    """The model."""
    index: IndexConfig = IndexConfig()
    """What the index must meet."""
    accept: bool = False
    """Publish although what shoppers see has changed, as w2w index --accept does."""
    pool: Pool = Pool()
    """Workers of every step."""
    gpu_pool: Pool | None = None
    """Separate workers for the model."""
    crawl: CrawlConfig | None = None
    """Visit a site first, as w2w crawl does: {profile: shop.yaml}. Without feed.uri nothing else is ingested."""
    detect: DetectConfig | None = None
    """Find the garments in new photos; {of: posts} for those of posts alone."""
    segment: SegmentConfig | None = None
    """Cut persons out of new photos."""
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
    upgrade: Upgrade | None = None
    """Last, compute more of a new model's vectors: {encoder: {name: NEW}, budget: {minutes: 120}}."""
    tidy: Tidy | None = None
    """At the end, merge small parts, and delete old files and pages; {} for 60 parts, 7 days and 30 pages."""
    from_: str = ""
    """Begin with this step, for example index."""
    until: str = ""
    """End after this step."""
    tell: Tell = Tell()
    """Who is told how the night ended."""
    examples: int = 24
    """New, changed and withdrawn products on the page, of each."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Rows and rejects of all steps together, and each step's own result. A dry run says which steps depend on others."""

    crawl: Crawled | None = None
    ingest: Ingested | None = None
    detect: Detected | None = None
    segment: Segmented | None = None
    embed: Embedded | None = None
    index: Indexed | None = None
    embed_looks: Embedded | None = None
    index_looks: Indexed | None = None
    recommend: Recommended | None = None
    similar: Similar | None = None
    tag: Tagged | None = None
    check: Checked | None = None
    export: Exported | None = None
    upgrade: Embedded | None = None
    taken_out: int | None = None
    """Pictures that search may no longer use and that left the published index without its step."""
    parts_merged: dict[str, int] = field(default_factory=dict)
    """Of tables that were tidied: the parts that they had."""
    files_deleted: int | None = None
    then: str | None = None
    """Of a dry run: the steps that depend on what those before them bring."""
    notices: tuple[str, ...] = ()
    """What a person should know though the night went well: pictures that search may not use, an index that is held back."""
    says: str | None = None
    """The night in a sentence, and one for each notice."""
    report: str | None = None

    OF_ROWS = False

    def _of_rows(self) -> list[tuple[str, str]]:
        """Of each step: a row goes through several, so that their sum counts nothing."""
        steps = {name: step for name in STEPS if (step := getattr(self, name)) is not None and step.counts.read}
        return [(name.replace("_", " of "), _rows_said(step)) for name, step in steps.items()]


def _rows_said(step: Summary) -> str:
    counts, done = step.counts, f", {step.skipped:,} done before" if step.skipped else ""
    return f"{counts.read:,} rows in, {counts.out:,} out, {counts.rejected:,} rejected{done}"


Step = tuple[str, ModuleType, dict[str, Any]]


@dataclass
class _SoFar:
    """The steps of a night that began, and what those that are done have said."""

    begun: list[str]
    result: Result


def main(config: Config) -> Result:
    run = Run("nightly", replace(config, export=config.export and export.recorded(config.export)))
    named = replace(config, encoder=config.encoder.named)  # for the steps: _check asks whether it is to be that one
    steps = _chosen(named)
    names = {name for name, _, _ in steps}
    tell.check(config.tell)
    if config.dry_run:
        _check(run, config, names)
        return _night(run, named, steps, _SoFar([], run.result(Result)))
    try:
        _check(run, config, names)
        run.check_store()
        if config.export is not None and "export" in names:
            with _named_as_of("export", config):
                export.check_out(config.export)
    except Exception as e:
        _not_begun(run, config, e)
        raise
    with lease.hold(run.store, run.run_id, log.warning):
        return _night_and_morning(run, named, steps)


def _check(run: Run, config: Config, steps: Collection[str]) -> None:
    """Raises UsageError or JobFailed for what would end one of the steps, before the first."""
    check_default(run.store, config.encoder, made_by(run.store, config.index.name))
    if "ingest" in steps:
        ingest.check(config)
    if "index" in steps:
        index.check(run.store, config.index)
    if config.looks and "crawl" not in steps:
        delta.need_table(run.store, schema.POSTS, "crawl")
    if config.crawl is not None:
        crawl.check(config.crawl, "crawl.profile")
    if config.detect is not None:
        with _named_as_of("detect", config):
            detect.check(config.detect)
    if config.recommend is not None:
        with _named_as_of("recommend", config):
            recommend.check(config.recommend)
    if config.check is not None:
        with _named_as_of("check", config):
            check.kinds_of(config.check)
    if config.export is not None:
        with _named_as_of("export", config):
            export.check(config.export)
    if config.encoder.bridge:
        spaces(config.encoder)
        one_model = [name for name in ("looks", "recommend", "similar") if getattr(config, name)]
        one_model += ["export.vectors"] if config.export and config.export.vectors else []
        if one_model:
            raise UsageError(
                f"encoder.bridge: {', '.join(one_model)} of this config compare stored vectors of one model: name the old one "
                f"as encoder, and the new one in upgrade.encoder, until all vectors are new"
            )
    if config.upgrade is not None:
        model_version(new_encoder(config))


@contextmanager
def _named_as_of(step: str, config: Config) -> Iterator[None]:
    """What a step says of its options, as they are called in the night: export.out where it says --out."""
    of = getattr(config, step, None)
    try:
        yield
    except (UsageError, JobFailed) as e:
        if of is not None and dataclasses.is_dataclass(of) and step not in EMBEDDED:
            e.args = (in_the_night(str(e), step, [field.name for field in dataclasses.fields(of)]),)
        raise


def _not_begun(run: Run, config: Config, error: Exception) -> None:
    """Tells of a night that was refused before its first step, such as one whose feed is gone; on a page, too, where the store
    has had nights."""
    told_up_to = flow.evening(run.store, run.run_id)
    _morning(run, config, run.result(Result), flow.Told(), error, [], told_up_to, page=bool(told_up_to))


def _chosen(config: Config) -> list[Step]:
    """The steps that are on, from ``from_`` to ``until``."""
    steps = list(_steps(config))
    names = [name for name, _, _ in steps]
    for option, name in (("--from", config.from_), ("--until", config.until)):
        if name and name not in names:
            known = "is not on in this config" if name in STEPS else "is no step of a night"
            raise UsageError(f"{option}={name}: {known}. Steps that are on: {', '.join(names)}")
    first = names.index(config.from_) if config.from_ else 0
    last = names.index(config.until) if config.until else len(names) - 1
    if last < first:
        raise UsageError(f"--until={config.until} comes before --from={config.from_}: the order is {', '.join(names)}")
    return steps[first : last + 1]


def _night_and_morning(run: Run, config: Config, steps: Sequence[Step]) -> Result:
    evening, told, so_far = flow.evening(run.store, run.run_id), None, _SoFar([], run.result(Result))
    begun = so_far.begun
    try:
        so_far.result = run.done(so_far.result, taken_out=_take_out(run.store, config) or None)
        result = _night(run, config, steps, so_far)
        told = _told(run.store, evening, config.examples)
        if config.tidy is not None and not config.until:
            begun.append("tidy")
            done = tidy(run.store, config.tidy, lambda: lease.check(run.store), run.run_id)
            result = run.done(result, parts_merged=done.merged, files_deleted=done.files_deleted)
    except (Exception, KeyboardInterrupt) as e:
        failed = e.result if isinstance(e, JobFailed) and isinstance(e.result, Result) else so_far.result
        failed = run.done(failed, taken_out=(failed.taken_out or 0) + _take_out_or_say(run.store, config) or None)
        failed = _morning(
            run, config, failed, told or _told(run.store, evening, config.examples), e, begun, flow.versions(run.store)
        )
        if isinstance(e, JobFailed):
            e.result = failed
        raise
    return _morning(run, config, result, told, None, begun, flow.versions(run.store))


def _take_out(store: str, config: Config) -> int:
    """Pictures that search may no longer use leave what is published: before the steps, as a night that was killed may have
    heard of them, and where one of the steps fails."""
    return sum(index.take_out(store, name) for name in (config.index.name, *([LOOKS] if config.looks else [])))


def _take_out_or_say(store: str, config: Config) -> int:
    try:
        return _take_out(store, config)
    except Exception as e:
        log.warning("pictures that search may no longer use may still be found: %s", line(e))
        return 0


def _told(store: str, evening: Mapping[str, int], examples: int) -> flow.Told:
    """What changed; that it cannot be read, with a line in the log, where so: the work is done, or failed, before."""
    try:
        return flow.since(store, evening, examples)
    except Exception as e:
        log.warning("the page of the morning cannot tell what changed: %s", line(e))
        return flow.Told(unread=True)


def _morning(
    run: Run,
    config: Config,
    result: Result,
    told: flow.Told,
    error: BaseException | None,
    begun: Sequence[str],
    tables: Mapping[str, int],
    page: bool = True,
) -> Result:
    """Writes the page, and tells how the night ended. A page that cannot be written is logged. ``tables``: up to which versions
    the page tells."""
    code = 0 if error is None else 2 if isinstance(error, UsageError) else 1
    why = None if error is None else line(str(error) or type(error).__name__)
    if isinstance(error, KeyboardInterrupt):
        code, why = STOPPED, "it was stopped"
    folder, ended = folder_of(None, run.store, run.job, run.run_id), datetime.now(UTC)
    became = what_became(result.index, result.taken_out or 0, flow.published_before(run.store, run.run_id))
    seen = answers_changed(result.index) + became
    to_know = tuple(map(line, notices(result.crawl, (result.index, result.index_looks), result.upgrade)))
    says = headline(ended, None if told.unread else told.counts(), seen, why, begun[-1] if begun else None)
    whole, page_at = " ".join([says, *map(sentence, to_know)]), storage.join(folder, "index.html") if page else None
    result = run.done(result, notices=to_know, says=whole, report=page_at)
    of = {"began": list(begun), "indexes": {"index": config.index.name, "index_looks": LOOKS}, "cpus": num_cpus()}
    more = {"exit": code, "error": why, "ended": ended.timestamp()} | of
    night = to_json(result, told=told.counts(), tables=dict(tables), **more)
    try:
        if page:
            storage.write_bytes(storage.join(folder, flow.NIGHT), night)
            results = [(name, getattr(result, name, None)) for name in begun]
            morning_page(folder, says, why, result, results, told, flow.earlier(run.store, run.run_id, _NIGHTS_SHOWN), ended)
    except Exception as e:
        log.warning("the page of the morning was not written: %s", line(e))
        result = replace(result, report=None)
    tell.tell_all(config.tell, run.store, whole, code, result.report, night)
    return result


def _night(run: Run, config: Config, steps: Sequence[Step], so_far: _SoFar) -> Result:
    """``so_far`` is kept up to date."""
    result, later = so_far.result, list[str]()
    for name, job, more in steps:
        if name == "index_looks" and result.embed_looks and not result.embed_looks.skipped + result.embed_looks.counts.out:
            continue  # no post has a picture
        if name in ("recommend", "similar") and result.index and result.index.nothing_to_index and _has_no_vector(run.store):
            continue  # as in the first night of a shop none of whose pictures could be loaded
        if config.dry_run and not _can_tell(name, result, run.store, {name for name, _, _ in steps}):
            later.append(name.replace("_", " of "))
            continue
        so_far.begun.append(name)
        try:
            lease.check(run.store)
            with _named_as_of(name, config):
                step = job.main(job.Config(**options_of(config, job.Config) | more))
        except JobFailed as e:
            own = {name: e.result} if isinstance(e.result, Summary) else {}
            e.result = run.done(result, **own)
            raise
        show(step)
        counts = Counts()
        for some in (result.counts, step.counts):
            counts.add(some)
        done = {name: step, "counts": counts, "versions": result.versions | step.versions}
        result = so_far.result = run.done(result, **done, skipped=result.skipped + step.skipped)
    return run.done(result, then=f"{', '.join(later)}: of what the steps before them bring" if later else None)


def _has_no_vector(store: str) -> bool:
    return delta.open_table(store, schema.EMBEDDINGS) is None


def _steps(config: Config) -> Iterator[Step]:
    """Names of the steps (fields of the result), their jobs, and options that differ from the night's."""
    if config.crawl is not None:
        yield "crawl", crawl, options_of(config.crawl, CrawlConfig)
    if config.feed.uri or config.crawl is None:
        yield "ingest", ingest, {}
    if config.detect is not None:
        yield "detect", detect, options_of(config.detect, DetectConfig)
    if config.segment is not None:
        yield "segment", segment, options_of(config.segment, SegmentConfig)
    yield "embed", embed, {}
    if config.tag is not None:
        yield "tag", tag, options_of(config.tag, TagConfig) | {"encoder": EncoderConfig()}  # a tagger names its own
    yield "index", index, {}
    if config.looks:
        yield "embed_looks", embed, {"of": LOOKS}
        yield "index_looks", index, {"of": LOOKS, "index": replace(config.index, name=LOOKS, golden="", golden_judged=False)}
    if config.recommend is not None:
        yield "recommend", recommend, options_of(config.recommend, Wanted)
    if config.similar is not None:
        yield "similar", similar, options_of(config.similar, SimilarConfig)
    if config.check is not None:
        yield "check", check, options_of(config.check, CheckConfig) | {"encoder": "auto"}
    if config.export is not None:
        yield "export", export, options_of(config.export, ExportConfig)
    if config.upgrade is not None:
        yield "upgrade", embed, {"encoder": new_encoder(config), "budget": config.upgrade.budget}


def new_encoder(config: Config) -> EncoderConfig:
    """The model that the nights change to: the one that the upgrade names, or the one before the bridge."""
    assert config.upgrade
    return config.upgrade.encoder or replace(config.encoder, bridge=None)


def _can_tell(step: str, result: Result, store: str, steps: Collection[str]) -> bool:
    """Whether a dry run of this step can tell what it would do, given that the steps before it were dry runs too."""
    if step in ("index", "recommend", "similar", "check", "export"):
        before, vectors = result.ingest, result.embed
        if (before is None and "ingest" in steps) or (vectors is None and "embed" in steps):
            return False
        if (before and (before.pending or before.withdrawn)) or (vectors and vectors.pending):
            return False
        if result.crawl and result.crawl.due:
            return False
        others = (result.tag is None or not result.tag.pending) and (result.similar is None or result.similar.unchanged)
        return step != "export" or others
    if step == "index_looks":
        return result.embed_looks is not None and result.embed_looks.pending == 0
    return step in ("crawl", "ingest") or delta.open_table(store, schema.IMAGES) is not None
