"""Check: what is wrong in the catalog, the morning's list for a merchandiser."""

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema, storage
from w2w.check import flow, rules, stage
from w2w.check.flow_links import ask_links, due_links
from w2w.check.flow_vectors import Known, known_tagger, model_of
from w2w.check.kinds import KINDS
from w2w.check.page import PAGE, check_report, chosen, write_lines
from w2w.check.rules_pictures import LEAST_PX
from w2w.config import nearest
from w2w.engine.job import JobConfig, Run
from w2w.engine.run import run_stages
from w2w.engine.snapshot import replace_rows
from w2w.errors import JobFailed, UsageError
from w2w.images.decode import DecodeLimits
from w2w.report.page import folder_of
from w2w.results import Summary
from w2w.stage import Counts, Pool
from w2w.table import delta
from w2w.table.parts import Output
from w2w.table.pending import values_by_key
from w2w.web.fetch import FetchConfig
from w2w.web.politeness import PolitenessConfig

log = logging.getLogger("w2w")
_INPUTS = (schema.PRODUCTS, schema.IMAGES, schema.QUALITY, schema.DUPLICATES, schema.EMBEDDINGS, schema.LOOKS, schema.WARNINGS)


@dataclass(frozen=True)
class CheckConfig:
    """What is looked for, and shown."""

    LEAST = {"least_px": 1, "examples": 1}

    only: list[str] = field(default_factory=list)
    """Kinds to look for, for example [blurred, tiny]; none: all. Findings of other kinds stay as they are."""
    fail_on: list[str] = field(default_factory=list)
    """Kinds of which a finding makes the exit code 1; one that could not be looked for is named in the log."""
    least_px: int = LEAST_PX
    """Least length of a picture's shorter side."""
    examples: int = 24
    """Of each kind, on the page; all are in the table and in findings.jsonl."""


@dataclass(frozen=True)
class Config(CheckConfig, JobConfig):
    """List what is wrong in the catalog: placeholder, shared, blurred and tiny pictures, those that contradict their category
    or colour, odd prices, missing values; into table `checks`, and a page. Works on any store, and says what it could not look
    at. New pictures are measured once (table `quality`), on Ray; all else runs here."""

    SHOWN = "store only fail_on links fetch.contact encoder least_px examples dry_run"
    LEAST = JobConfig.LEAST | CheckConfig.LEAST | {"links": 0}

    encoder: str = "auto"
    """Whose vectors tell what a category looks like: a model version of `embeddings`, none, or auto: the newest."""
    out: str = ""
    """Folder of index.html and findings.jsonl. Default: <store>/reports/check/<run>."""
    links: int = 0
    """Ask so many of the products' links tonight, those never asked first; what was asked earlier still counts."""
    fetch: FetchConfig = FetchConfig()
    """How a link is asked for. A public host needs fetch.contact."""
    politeness: PolitenessConfig = PolitenessConfig()
    """How the shop's servers are treated."""
    decode: DecodeLimits = DecodeLimits()
    """Limits of an image."""
    pool: Pool = Pool()
    """Workers that measure pictures."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Of one morning."""

    products: int
    pictures: int
    to_measure: int
    """Pictures that have not been measured."""
    to_ask: int | None = None
    """Links to ask for tonight."""
    findings: dict[str, int] | None = None
    """By kind."""
    new: int | None = None
    """Of them, those that the last run had not."""
    gone: int | None = None
    """Findings of the last run that are none now."""
    left_out: tuple[str, ...] = ()
    """Kinds that were not looked for, or not wholly, and why."""
    report: str | None = None


def main(config: Config) -> Result:
    run = Run("check", config)
    kinds = kinds_of(config)
    delta.need_table(run.store, schema.PRODUCTS, "ingest")
    version = ids.digest(stage.CODE, config.decode)
    model = model_of(run.store, config.encoder)
    tagger = known_tagger(run.store) if "wrong_value" in kinds else ""
    lineage = run.lineage(ids.digest("check"), _INPUTS)
    catalog = flow.read_catalog(run.store, list(tagger.heads) if isinstance(tagger, Known) else ())
    work = flow.pictures_to_look_at(run.store, catalog, version, config.item_rows, config.limit)
    if not any(KINDS[kind].needs == "pictures" for kind in kinds):
        work = work.first(0)
    num = catalog.goods.num_rows
    links = due_links(run.store, catalog.goods, config.links if "broken_link" in kinds else 0)
    result = run.result(
        Result,
        products=num,
        pictures=catalog.pictures.num_rows,
        to_measure=work.num_rows,
        to_ask=len(links) or None,
        skipped=work.skipped,
    )
    if config.dry_run:
        return result
    folder = folder_of(config.out, run.store, run.job, run.run_id)
    run.check_store()
    if config.out:
        storage.check_writable(folder, "--out")
    counts, versions = Counts(), {}
    if links:
        asking = run.lineage(ids.digest("links"), [schema.PRODUCTS], "links")
        versions = ask_links(run.store, catalog.goods, links, config.fetch, config.politeness, asking)
    if not work.is_done(config.tolerance):
        run.begin()
        counts, measured = run_stages(
            run.store,
            work,
            [flow.look_stage(version, config.decode)],
            [Output(schema.QUALITY)],
            run.lineage(version, [schema.IMAGES]),
            pool=config.pool,
            tolerance=config.tolerance,
            commit_every_s=config.commit_every_s,
        )
        versions |= measured
    seen = flow.look(run.store, catalog, kinds, version, model, tagger, config.least_px)
    looked_at = [kind for kind in kinds if kind not in seen.left_out]
    left = (work.in_all or work.num_rows) - work.num_rows
    waiting = {"blurred": f"{left:,} pictures that are not measured yet: --limit"} if left and "blurred" in kinds else {}
    why_not = seen.left_out | seen.partly | waiting
    before, now = flow.read_before(run.store), datetime.now(UTC)
    rows = rules.with_since(seen.found, catalog.goods, before, looked_at, now, run.run_id)
    new = pc.sum(pc.equal(rows.column(schema.SINCE), pa.scalar(now, schema.TIME))).as_py() or 0
    counted = {row["values"]: row["counts"] for row in pc.value_counts(rows.column(schema.KIND)).to_pylist()}
    result = run.done(
        result,
        counts=counts,
        findings={kind: counted[kind] for kind in KINDS if kind in counted},
        new=new,
        gone=before.num_rows - (rows.num_rows - new),
        left_out=tuple(f"{kind}: {why}" for kind, why in why_not.items()),
        report=storage.join(folder, PAGE),
    )
    # before the table: after a run that was killed in between, what is new is new again
    write_lines(folder, rows)
    cards = chosen(rows, now, config.examples)
    on_cards = [row for some in cards.values() for card in some for row in card]
    images = [image for row in on_cards for image in row[schema.IMAGE_LIST][:1]]
    pictures = values_by_key(run.store, schema.IMAGES, images, schema.BYTES)
    products = flow.products_of(run.store, {row[schema.PRODUCT_ID] for row in on_cards})
    facts = {"products": num, "pictures": result.pictures, "store": run.store, "run": run.run_id}
    check_report(folder, rows, cards, products, pictures, now, flow.last_run(run.store), result.gone or 0, why_not, facts)
    _, written = replace_rows(run.store, schema.CHECKS, [rows], lineage)
    result = run.done(result, versions=versions | written)
    for kind in config.fail_on:
        if kind in seen.left_out:
            log.warning("--fail_on=%s was not looked for: %s", kind, seen.left_out[kind])
    failed = [f"{counted[kind]:,} {kind}" for kind in config.fail_on if kind in counted]
    if failed:
        error = JobFailed(f"--fail_on: {', '.join(failed)}: look at {result.report}")
        error.result = result
        raise error
    return result


def kinds_of(config: CheckConfig) -> list[str]:
    """The kinds to look for. Raises UsageError for a name that is none."""
    for option, asked in (("only", config.only), ("fail_on", config.fail_on)):
        for name in asked:
            if name not in KINDS:
                raise UsageError(
                    f"--{option}={name}: no kind of finding.{nearest(name, list(KINDS))} Known: {', '.join(KINDS)}"
                )
    return [kind for kind in KINDS if not config.only or kind in config.only]
