"""The steps of a night: what its config asks of each, in which order they run, and what would end one before the first."""

import dataclasses
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from w2w import schema
from w2w.check import job as check
from w2w.check.job import CheckConfig
from w2w.check.job import Result as Checked
from w2w.crawl import job as crawl
from w2w.crawl.job import CrawlConfig
from w2w.crawl.job import Result as Crawled
from w2w.engine.job import options_of
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
from w2w.index.filters import reads_tags
from w2w.index.flow import LOOKS
from w2w.index.job import Result as Indexed
from w2w.index.spec import IndexConfig
from w2w.ingest import job as ingest
from w2w.ingest.job import Result as Ingested
from w2w.models import job as embed
from w2w.models.config import EncoderConfig
from w2w.models.default import check_default, check_default_of_looks
from w2w.models.encoder import model_version, spaces
from w2w.models.job import Result as Embedded
from w2w.models.job import Upgrade
from w2w.nightly.rules import in_the_night
from w2w.recommend import job as recommend
from w2w.recommend.job import Result as Recommended
from w2w.recommend.job import Wanted
from w2w.results import Summary
from w2w.similar import job as similar
from w2w.similar.flow import SimilarConfig
from w2w.similar.job import Result as Similar
from w2w.stage import Pool
from w2w.table import delta
from w2w.table.published import made_by
from w2w.training.tags import job as tag
from w2w.training.tags.job import Result as Tagged
from w2w.training.tags.job import TagConfig, find_tagger

STEPS = ("crawl", "ingest", "detect", "segment", "embed", "tag", "index", "embed_looks", "index_looks", "recommend", "similar")
STEPS += ("check", "export", "upgrade")
_OF_PICTURES = ("detect", "segment", "embed", "tag", "embed_looks")
EMBEDDED = ("index",)  # steps whose options have the same names in a night
Step = tuple[str, ModuleType, dict[str, Any]]  # its name, its job, and options that differ from the night's


@dataclass(frozen=True)
class StepsConfig(ingest.Config):
    """What a night asks of its steps."""

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


@dataclass(frozen=True, kw_only=True)
class StepsResult(Summary):
    """Rows and rejects of all steps together, and each step's own result."""

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

    OF_ROWS = False

    def _of_rows(self) -> list[tuple[str, str]]:
        """Of each step: a row goes through several, so that their sum counts nothing."""
        steps = {name: step for name in STEPS if (step := getattr(self, name)) is not None and step.counts.read}
        return [(name.replace("_", " of "), _rows_said(step)) for name, step in steps.items()]


def _rows_said(step: Summary) -> str:
    counts, done = step.counts, f", {step.skipped:,} done before" if step.skipped else ""
    return f"{counts.read:,} rows in, {counts.out:,} out, {counts.rejected:,} rejected{done}"


def _steps(config: StepsConfig) -> Iterator[Step]:
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
        yield "upgrade", embed, {"encoder": _new_encoder(config), "budget": config.upgrade.budget}


def _new_encoder(config: StepsConfig) -> EncoderConfig:
    """The model that the nights change to: the one that the upgrade names, or the one before the bridge."""
    assert config.upgrade
    return config.upgrade.encoder or replace(config.encoder, bridge=None)


def chosen(config: StepsConfig, first: str, last: str) -> list[Step]:
    """The steps that are on, from ``first`` to ``last`` where these are not empty."""
    steps = list(_steps(config))
    names = [name for name, _, _ in steps]
    for option, name in (("--from", first), ("--until", last)):
        if name and name not in names:
            known = "is not on in this config" if name in STEPS else "is no step of a night"
            raise UsageError(f"{option}={name}: {known}. Steps that are on: {', '.join(names)}")
    begin, end = names.index(first) if first else 0, names.index(last) if last else len(names) - 1
    if end < begin:
        raise UsageError(f"--until={last} comes before --from={first}: the order is {', '.join(names)}")
    return steps[begin : end + 1]


def check_steps(store: str, config: StepsConfig, steps: Collection[str]) -> None:
    """Raises UsageError or JobFailed for what would end one of the steps, before the first."""
    check_default(store, config.encoder, made_by(store, config.index.name))
    if config.looks:
        check_default_of_looks(store, config.encoder)
    if set(steps) - {"crawl", "ingest"}:
        model_version(config.encoder)
    if config.tag is not None and "tag" in steps:
        with named_as_of("tag", config):
            find_tagger(store, config.tag.tagger, EncoderConfig())
    if "ingest" in steps:
        ingest.check(config)
    if "index" in steps:
        index.check(store, config.index)
    if config.looks and "crawl" not in steps:
        try:
            delta.need_table(store, schema.POSTS, "crawl")
        except UsageError as e:
            raise UsageError(f"looks: {e}; a shop without posts leaves looks out") from e
    if config.crawl is not None:
        crawl.check(config.crawl, "crawl.profile")
    if config.detect is not None:
        with named_as_of("detect", config):
            detect.check(config.detect)
    if config.recommend is not None:
        with named_as_of("recommend", config):
            recommend.check(config.recommend)
    if config.check is not None:
        with named_as_of("check", config):
            check.kinds_of(config.check)
    if config.export is not None:
        with named_as_of("export", config):
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
        model_version(_new_encoder(config))


@contextmanager
def named_as_of(step: str, config: StepsConfig) -> Iterator[None]:
    """What a step says of its options, as they are called in the night: export.out where it says --out."""
    of = getattr(config, step, None)
    try:
        yield
    except (UsageError, JobFailed) as e:
        if of is not None and dataclasses.is_dataclass(of) and step not in EMBEDDED:
            e.args = (in_the_night(str(e), step, [field.name for field in dataclasses.fields(of)]),)
        raise


def can_tell(step: str, config: StepsConfig, result: StepsResult, store: str, steps: Collection[str]) -> bool:
    """Whether a dry run of this step can tell what it would do, given that the steps before it were dry runs too."""
    if step in ("index", "recommend", "similar", "check", "export"):
        before, vectors = result.ingest, result.embed
        if (before is None and "ingest" in steps) or (vectors is None and "embed" in steps):
            return False
        if (before and (before.pending or before.withdrawn)) or (vectors and vectors.pending):
            return False
        if result.crawl and result.crawl.due:
            return False
        of_tags = step == "export" or (step == "similar" and config.similar is not None and reads_tags(config.similar.filter))
        if of_tags and result.tag and (result.tag.pending or result.tag.switched):
            return False
        return step != "export" or result.similar is None or result.similar.unchanged
    if step == "index_looks":
        return result.embed_looks is not None and result.embed_looks.pending == 0
    return step in ("crawl", "ingest") or delta.open_table(store, schema.IMAGES) is not None


def is_told_in_part(step: str, result: StepsResult) -> bool:
    """Whether a dry run of this step counts only some of its pictures: those that the feed or site will bring come later."""
    brought = (result.crawl and result.crawl.due) or (result.ingest and result.ingest.pending)
    return step in _OF_PICTURES and bool(brought)


def has_nothing_to_do(step: str, result: StepsResult, store: str) -> bool:
    """Whether the steps before brought nothing that this one could work on."""
    if step == "index_looks":  # no post has a picture
        return result.embed_looks is not None and not result.embed_looks.skipped + result.embed_looks.counts.out
    if step in ("recommend", "similar") and result.index and result.index.nothing_to_index:
        return delta.open_table(store, schema.EMBEDDINGS) is None  # as in a first night in which no picture could be loaded
    return False
