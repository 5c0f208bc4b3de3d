"""Nightly: ingest, embed, index and what else its config asks for, in one run, for what changed only."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from w2w import storage
from w2w.engine.cluster import num_cpus
from w2w.engine.job import STOPPED, Run, options_of, show
from w2w.errors import JobFailed, UsageError
from w2w.export import job as export
from w2w.index import job as index
from w2w.index.flow import LOOKS
from w2w.ingest import job as ingest
from w2w.nightly import flow, tell
from w2w.nightly.flow_steps import (
    STEPS,
    Step,
    StepsConfig,
    StepsResult,
    can_tell,
    check_steps,
    chosen,
    has_nothing_to_do,
    is_told_in_part,
    named_as_of,
)
from w2w.nightly.page import morning_page
from w2w.nightly.rules import headline, sentence
from w2w.nightly.says import answers_changed, notices, what_became
from w2w.nightly.tell import Tell
from w2w.nightly.tidy import Tidy, tidy
from w2w.report.page import folder_of
from w2w.results import Summary, to_json
from w2w.shown import line
from w2w.stage import Counts
from w2w.table import lease

_NIGHTS_SHOWN = 13  # before this one
log = logging.getLogger("w2w")


@dataclass(frozen=True)
class Config(StepsConfig):
    """Run `w2w ingest`, `w2w embed` and `w2w index` from one config; where it asks for them, a crawl, garments, tags, looks,
    recommendations, similar products, a check and an export too. A failed step stops the night: the published index stays as it
    was, and the next run resumes where this one stopped. One night at a time works on a store; each leaves a page."""

    SHOWN = "store feed.uri crawl detect tag looks recommend similar check export tidy from_ until dry_run"
    PLACES = {}
    KNOWN = {"from_": STEPS, "until": STEPS}
    LEAST = ingest.Config.LEAST | {"examples": 1}

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
class Result(StepsResult):
    """Rows and rejects of all steps together, and each step's own result. A dry run says which steps depend on others."""

    taken_out: int | None = None
    """Pictures that search may no longer use and that left the published index without its step."""
    parts_merged: dict[str, int] = field(default_factory=dict)
    """Of tables that were tidied: the parts that they had."""
    files_deleted: int | None = None
    then: str | None = None
    """Of a dry run: the steps that depend on what those before them bring, and those of which it counts a part."""
    notices: tuple[str, ...] = ()
    """What a person should know though the night went well: pictures that search may not use, an index that is held back."""
    says: str | None = None
    """The night in a sentence, and one for each notice."""
    report: str | None = None


@dataclass
class _SoFar:
    """The steps of a night that began, and what those that are done have said."""

    begun: list[str]
    result: Result


def main(config: Config) -> Result:
    run = Run("nightly", replace(config, export=config.export and export.recorded(config.export)))
    named = replace(config, encoder=config.encoder.named)  # for the steps: check_steps asks whether it is to be that one
    steps = chosen(named, config.from_, config.until)
    names = {name for name, _, _ in steps}
    tell.check(config.tell)
    if config.dry_run:
        check_steps(run.store, config, names)
        return _night(run, named, steps, _SoFar([], run.result(Result)))
    try:
        check_steps(run.store, config, names)
        run.check_store()
        if config.export is not None and "export" in names:
            with named_as_of("export", config):
                export.check_out(config.export)
    except Exception as e:
        _not_begun(run, config, e)
        raise
    with lease.hold(run.store, run.run_id, log.warning):
        return _night_and_morning(run, named, steps)


def _not_begun(run: Run, config: Config, error: Exception) -> None:
    """Tells of a night that was refused before its first step, such as one whose feed is gone; on a page, too, where the store
    has had nights."""
    told_up_to = flow.evening(run.store, run.run_id)
    _morning(run, config, run.result(Result), flow.Told(), error, [], told_up_to, page=bool(told_up_to))


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
    result, later, in_part = so_far.result, list[str](), list[str]()
    for name, job, more in steps:
        if has_nothing_to_do(name, result, run.store):
            continue
        if config.dry_run and not can_tell(name, config, result, run.store, {name for name, _, _ in steps}):
            later.append(name.replace("_", " of "))
            continue
        if config.dry_run and is_told_in_part(name, result):
            in_part.append(name.replace("_", " of "))
        so_far.begun.append(name)
        try:
            lease.check(run.store)
            with named_as_of(name, config):
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
    then = [f"{', '.join(in_part)}: also of new pictures that the steps before them bring"] if in_part else []
    then += [f"{', '.join(later)}: of what the steps before them bring"] if later else []
    return run.done(result, then="; ".join(then) or None)
