"""Style: photos -> the most similar looks of your posts, and the products worn in them."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from w2w import schema, storage
from w2w.engine.job import JobConfig, Run
from w2w.engine.progress import Progress
from w2w.errors import UsageError
from w2w.find.inorder import InOrder
from w2w.find.photos import PhotoOptions, listed
from w2w.find.stage import LOOK_GIVES, look
from w2w.garments.detector import DetectorConfig
from w2w.ingest.loading import load_stage
from w2w.ingest.stage import loadable
from w2w.models.config import EncoderConfig
from w2w.models.reasons import Reasons
from w2w.report.page import folder_of
from w2w.results import Summary
from w2w.stage import Counts, Pool, Stage
from w2w.style import answers as told
from w2w.style.answers import Answer
from w2w.style.page import style_report
from w2w.style.stage import STYLE_GIVES, FindLooks, plan_of

LINES, PAGE = "styles.jsonl", "index.html"
_ANSWERED = (schema.KEY, schema.QUERY_ID, schema.WIDTH, schema.HEIGHT, *STYLE_GIVES.names)


@dataclass(frozen=True)
class Config(PhotoOptions, JobConfig):
    """Find the looks most like PHOTO ..., with their posts and the products worn in them. In this process, without Ray. Writes
    a page and JSON lines."""

    SHOWN = "photos store k index encoder.name explain limit out dry_run"
    PLACES = {"PHOTO": "photos"}
    LEAST = {"k": 1}

    photos: list[str] = field(default_factory=list)
    """Photos, folders of photos, URLs, or feeds of photos."""
    index: str = "looks"
    """Name of the index of looks."""
    k: int = 6
    """Looks of each photo; a post counts once."""
    encoder: EncoderConfig = EncoderConfig()
    """The model. Default: the one that the index was made with."""
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    """What finds the person, where the looks of the index were found by one."""
    out: str | None = None
    """Folder of the page and the JSON lines. Default: one below <store>/reports/style."""
    explain: int = 0
    """On the page, for this many of a photo's nearest looks: which regions of both pictures make them similar."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Of one search for looks."""

    photos: int
    without_photos: tuple[str, ...] = ()
    """A sentence for each place that has none."""
    looks: int | None = None
    """Found for them."""
    products: int | None = None
    """Worn in these."""
    index: str
    index_version: str
    encoder: str
    person: bool
    """Whether the person of each photo is searched with; else all of it, as the looks of the index are."""
    answers: tuple[Answer, ...] = field(default=(), repr=False)
    """Of each photo."""
    lines: str | None = None
    """The JSON lines, one a photo."""
    report: str | None = None

    def __rich__(self) -> Any:
        from rich.console import Group

        return Group(*told.tables(self.answers), super().__rich__())


def main(config: Config) -> Result:
    if not config.photos:
        raise UsageError("nothing to search with: name photos, a folder, URLs or a feed")
    run = Run("style", config)
    plan = plan_of(run.store, config.index, config.encoder, config.detector, config.k)
    rows, without = listed(config.photos, config.feed)
    photos = rows.slice(0, config.limit)
    result = run.result(
        Result,
        photos=photos.num_rows,
        index=config.index,
        index_version=plan.index_version,
        encoder=plan.encoder.name,
        person=plan.detected is not None,
        without_photos=without,
    )
    if config.dry_run:
        return result
    folder = folder_of(config.out, run.store, run.job, run.run_id)
    storage.check_writable(folder, "--out")
    rows = loadable(photos)
    steps = [
        load_stage(config.fetch, Pool(batch_rows=8)),
        Stage("decode", look, (schema.BYTES,), LOOK_GIVES, {"limits": config.decode, "longest_px": config.longest_px}),
        Stage("style", FindLooks, tuple(LOOK_GIVES.names), STYLE_GIVES, {"plan": plan.on_all_cores()}),
    ]
    by_person = plan.detected is not None
    through = InOrder(steps, rows.schema, _ANSWERED, lambda r: told.answers(run.store, r, by_person), told.unreadable)
    names = dict(zip(*(photos.column(c).to_pylist() for c in (schema.KEY, schema.QUERY_ID))))
    with Progress("style", photos.num_rows, "photos") as progress:
        found, kept = through(iter([rows]), names, config.shown, progress.update)
    rejects = Counter(answer.reject for answer in found if answer.reject)
    counts = Counts(photos.num_rows, photos.num_rows - rejects.total(), dict(rejects))
    config.tolerance.check(rejects, photos.num_rows, named=[f"{a.photo}: {a.says}" for a in found if a.reject])
    lines = storage.join(folder, LINES)
    storage.write_bytes(lines, "".join(f"{answer.line()}\n" for answer in found).encode())
    page = None
    if config.shown:
        page = storage.join(folder, PAGE)
        shown = list(zip(found[: config.shown], [kept.get(key) for key in photos.column(schema.KEY).to_pylist()]))
        facts = {"index": f"{result.index} {result.index_version}", "encoder": result.encoder, "photos": len(found)}
        style_report(page, plan, shown, len(found), facts, config.explain, Reasons(plan.encoder))
    return run.done(
        result,
        counts=counts,
        looks=sum(len(a.looks) for a in found),
        products=sum(len(look.products) for a in found for look in a.looks),
        answers=tuple(found),
        lines=lines,
        report=page,
    )
