"""Find: photos -> their garments -> your products that look like them; or words."""

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

import numpy as np

from w2w import storage
from w2w.engine.job import JobConfig, Run, options_of
from w2w.engine.progress import Progress
from w2w.errors import UsageError
from w2w.find.answers import Answer, Catalog, Written, of_words, tables, write_lines
from w2w.find.crops import Crops
from w2w.find.explained import Explained
from w2w.find.finder import Models, Plan, Shelves, plan_of
from w2w.find.flow import Asked, Here, How, asked_of_table, finished, on_workers, photo_bytes, stored_answers
from w2w.find.page import find_report
from w2w.find.photos import PhotoOptions, listed
from w2w.find.rules import FindOptions
from w2w.find.watch import appearing, present
from w2w.garments.detector import DetectorConfig, try_detector
from w2w.garments.segmenter import SegmenterConfig, try_segmenter
from w2w.index.manifest import index_uri
from w2w.index.publish import current_version
from w2w.models.config import EncoderConfig
from w2w.models.encoder import try_encoder
from w2w.models.reasons import Reasons
from w2w.models.text import embed_words
from w2w.report.page import folder_of
from w2w.results import Summary
from w2w.shown import terminal
from w2w.stage import Counts, Pool

LINES, PAGE = "found.jsonl", "index.html"


@dataclass(frozen=True)
class Config(FindOptions, PhotoOptions, JobConfig):
    """Find the products that look like the garments of PHOTO ..., each in its own category. A few photos are answered in this
    process, without Ray; from --workers_from on by workers, into table `found`. Writes a page and JSON lines."""

    SHOWN = "photos store text garment whole filter k watch out dry_run"
    PLACES = {"PHOTO": "photos"}

    photos: list[str] = field(default_factory=list)
    """Photos, folders of photos, URLs, or feeds of photos."""
    of: Literal["photos", "images", "posts"] = "photos"
    """What is searched with: the photos that are named, all of table `images`, or the photos of active posts."""
    watch: str = ""
    """A folder: answer each new photo as it appears, until Ctrl-C."""
    encoder: EncoderConfig = EncoderConfig()
    """The model. Default: the one that the index was made with."""
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    """The garment detector."""
    segmenter: SegmenterConfig = SegmenterConfig()
    """The segmenter that cuts out the person, with --cut_out or --cut_out_by=person."""
    workers_from: int = 200
    """Number of photos from which Ray is started; fewer are answered in this process."""
    pool: Pool = Pool(batch_rows=8)
    """Workers."""
    gpu_pool: Pool | None = None
    """Separate workers for the models, for example {num_gpus: 1, num_cpus: 1, batch_rows: 32}."""
    out: str | None = None
    """Folder of the page and the JSON lines. Default: one below <store>/reports/find."""
    explain: int = 0
    """On the page, for this many of a garment's nearest products: which regions of both pictures make them similar."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Of one search: an index's version, models and options."""

    photos: int
    without_photos: tuple[str, ...] = ()
    """A sentence for each place that has none."""
    garments: int | None = None
    """In the photos; not known before they are looked at."""
    products: int | None = None
    """Found for them."""
    where: str
    """In this process, or on workers."""
    pending: int
    index: str
    index_version: str
    encoder: str
    search_version: str
    passing: int | None = None
    """Products that the filter lets through."""
    answers: tuple[Answer, ...] = field(default=(), repr=False)
    """Of each photo, where they were made in this process."""
    lines: str | None = None
    """The JSON lines, one a photo."""
    report: str | None = None

    def __rich__(self) -> Any:
        from rich.console import Group

        return Group(*tables(self.answers), super().__rich__())


def main(config: Config) -> Result:
    _check(config)
    there = present(config.watch) if config.watch else set[str]()  # what comes while the models load is new
    run = Run("find", config)
    models = Models(config.encoder, config.detector, config.segmenter)
    plan = plan_of(run.store, FindOptions(**options_of(config, FindOptions)), models)
    if config.of == "photos":
        rows, without = listed(config.photos, config.feed)
        asked = Asked(rows).first(config.limit)
    else:
        asked = asked_of_table(run.store, config.of).first(config.limit)
        without = () if asked.num else (f"there is no photo in table `{config.of}`",)
    here = asked.num < config.workers_from
    done = 0 if here else asked.num_of(finished(run.store, plan))
    result = run.result(
        Result,
        photos=asked.num,
        where="this process" if here else "workers",
        pending=asked.num - done,
        skipped=done,
        index=config.index,
        index_version=plan.index_version,
        encoder=plan.models.encoder.name,
        search_version=plan.search_version,
        passing=len(plan.passing.product_ids) if plan.passing else None,
        without_photos=without,
    )
    words = embed_words(plan.models.encoder, config.text) if config.text else None
    if done < asked.num and not here:
        _try(plan)
    if config.dry_run:
        return result
    storage.check_writable(folder_of(config.out, run.store, run.job, run.run_id), "--out")
    how = How(config.fetch, config.decode, config.longest_px, config.pool, config.gpu_pool)
    if config.watch:
        return _watch(run, config, plan, words, how, result, there)
    catalog, kept = Catalog(run.store), {}
    if not here:
        result = on_workers(run, result, plan, words, how, asked)
        told = stored_answers(run.store, plan, catalog, asked)
        kept = photo_bytes(run.store, asked, how, config.shown)
    elif asked.num or words is None:
        finder = Here(plan.on_all_cores(), words, how, run.run_id, catalog, asked.from_table)
        with Progress("find", asked.num, "photos") as progress:
            told, kept = finder(run.store, asked, config.shown, progress.update)
        result = run.done(result, answers=tuple(told))
    else:
        told = [of_words(config.text, Shelves(plan).products_of(words), catalog, plan.options)]
        result = run.done(result, answers=tuple(told))
    folder = folder_of(config.out, run.store, run.job, run.run_id)
    written = write_lines(storage.join(folder, LINES), told)
    if here:
        result = run.done(result, counts=Counts(asked.num, asked.num - written.rejects.total(), dict(written.rejects)))
        config.tolerance.check(written.rejects, asked.num, named=written.unreadable)
    photos = [kept.get(key) for key in asked.names]
    return _reported(run, config, plan, catalog, _explained(config, plan), result, written, photos, folder)


def _check(config: Config) -> None:
    if config.watch and (config.photos or config.of != "photos"):
        raise UsageError("--watch answers what appears in its folder: omit PHOTO and --of")
    if config.of != "photos" and config.photos:
        raise UsageError(f"--of={config.of}: searches with the store's own photos; omit PHOTO")
    if not (config.photos or config.text or config.watch) and config.of == "photos":
        raise UsageError("nothing to search with: name photos, a folder, URLs or a feed; or give --text, --of or --watch")
    if config.text and config.whole and not (config.photos or config.watch) and config.of == "photos":
        raise UsageError("--whole: there is no photo")
    if config.watch and not os.path.isdir(storage.local(config.watch)):
        raise UsageError(f"--watch={config.watch}: there is no such folder on this machine")
    if config.watch and storage.is_s3(config.out or config.store):
        raise UsageError("--watch appends to the JSON lines: name a local folder with --out")


def _try(plan: Plan) -> None:
    """Raises UsageError for faults in the models' files before workers start."""
    try_encoder(plan.models.encoder)
    if not plan.options.whole:
        try_detector(plan.models.detector)
    if plan.options.by_person:
        try_segmenter(plan.models.segmenter)


def _reported(
    run: Run,
    config: Config,
    plan: Plan,
    catalog: Catalog,
    explained: Explained | None,
    result: Result,
    written: Written,
    photos: Sequence[bytes | None],
    folder: str,
) -> Result:
    """The result, and the page of the first answers. ``photos``: the encoded ones, in order."""
    page = None
    if config.shown:
        page = storage.join(folder, PAGE)
        facts = {"photos": written.photos, "index": f"{result.index} {result.index_version}", "encoder": result.encoder}
        shown = list(zip(written.first[: config.shown], [*photos, None]))
        find_report(page, run.store, catalog, shown, written.photos, facts, plan.options, explained)
    found = {"garments": written.garments, "products": written.products, "lines": storage.join(folder, LINES), "report": page}
    return run.done(result, **found)


def _explained(config: Config, plan: Plan) -> Explained | None:
    """Why products were found, by models that are loaded when the first is explained."""
    if not config.explain:
        return None
    crops = cache(lambda: Crops(plan.options, plan.models.detector, plan.models.segmenter))
    reasons = Reasons(plan.models.encoder)
    return Explained(config.explain, reasons, lambda photo: crops().by_number(photo, config.longest_px))


def _watch(run: Run, config: Config, plan: Plan, words: np.ndarray | None, how: How, result: Result, there: set[str]) -> Result:
    """Answers photos other than those ``there`` until Ctrl-C: prints each answer, appends its line, and rewrites the page of
    the latest ones. Once a new version of the index is published, the next photo is searched for in that."""
    folder, total = folder_of(config.out, run.store, run.job, run.run_id), Written()
    last: deque[tuple[Answer, bytes | None]] = deque(maxlen=max(1, config.shown))
    os.makedirs(folder, exist_ok=True)
    catalog, explained = Catalog(run.store), _explained(config, plan)
    finder = Here(plan.on_all_cores(), words, how, run.run_id, catalog)
    left = f" ({len(there):,} photos were there before; w2w find {config.watch} answers those)" if there else ""
    try:
        with open(storage.join(folder, LINES), "a", encoding="utf-8") as lines:
            terminal().print(f"watching {config.watch}: Ctrl-C ends it{left}")
            for rows in appearing(config.watch, there):
                if current_version(index_uri(run.store, config.index)) != plan.index_version:
                    plan = plan_of(run.store, plan.options, plan.models)
                    catalog = Catalog(run.store)
                    finder = Here(plan.on_all_cores(), words, how, run.run_id, catalog)
                asked = Asked(rows)
                answers, kept = finder(run.store, asked, asked.num)
                for key, answer in zip(asked.names, answers):
                    terminal().print(*tables([answer]))
                    lines.write(f"{answer.line()}\n")
                    lines.flush()
                    total.add(answer)
                    last.appendleft((answer, kept.get(key)))
                total.first = [answer for answer, _ in last]
                result = replace(result, index_version=plan.index_version, search_version=plan.search_version)
                photos = [data for _, data in last]
                result = _reported(run, config, plan, catalog, explained, result, total, photos, folder)
    except KeyboardInterrupt:
        pass
    counts = Counts(total.photos, total.photos - total.rejects.total(), dict(total.rejects))
    return run.done(result, photos=total.photos, counts=counts, pending=0)
