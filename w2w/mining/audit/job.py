"""Audit: fails if anything is in two splits, or training has a benchmark's images."""

from dataclasses import dataclass, field

import pyarrow as pa

from w2w import schema, storage
from w2w.engine.job import JobConfig, Run
from w2w.errors import JobFailed, UsageError
from w2w.images.decode import DecodeLimits
from w2w.mining.audit.flow import audit, audit_against, fingerprint_folder, gallery, print_leaks, read_uses
from w2w.mining.audit.page import audit_report
from w2w.mining.audit.rules import check_tables, counts
from w2w.mining.catalog import check_product_key
from w2w.mining.duplicates.flow import fingerprints_due, make_fingerprints
from w2w.mining.duplicates.rules import LikenessRules, check_rules
from w2w.report.page import page_of
from w2w.results import Summary, words
from w2w.stage import Counts, Pool
from w2w.table import delta
from w2w.table.delta import need_table

_MADE_BY = {"splits": "split", "pairs": "mine", "outfits": "compose"}


@dataclass(frozen=True)
class Config(JobConfig):
    """Check the splits in tables `splits`, `pairs` and `outfits` for leaks, by id and on the pictures, and write a page. Exit
    code 1 if something leaks."""

    tables: list[str] = field(default_factory=lambda: ["splits", "pairs", "outfits"])
    """Which tables; missing ones are skipped."""
    source: str = schema.OWN
    """Whose pairs and outfits: own, or the name of a public set."""
    product_key: list[str] = field(default_factory=list)
    """Attributes that together make one product, as for `w2w split`."""
    against: str = ""
    """Also check one split against the images below this folder (a public benchmark), local or s3://."""
    against_split: str = "train"
    """That split."""
    out: str = ""
    """The page. Default: index.html in <store>/reports/audit/<run>."""
    examples: int = 60
    """Leaks of each kind on the page."""
    rules: LikenessRules = LikenessRules()
    """When two pictures are the same."""
    decode: DecodeLimits = DecodeLimits()
    """Limits of an image."""
    pool: Pool = Pool()
    """Workers that decode images without a fingerprint."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """For a store in which nothing leaks; a dry run stops before it can tell."""

    tables: tuple[str, ...]
    images_to_fingerprint: int
    appearances: int | None = None
    images: int | None = None
    pairs_compared: int | None = None
    images_without_a_fingerprint: int | None = None
    benchmark: str | None = None
    benchmark_images: int | None = None
    benchmark_files_unread: int | None = None
    leaks: int | None = None
    report: str | None = None


def main(config: Config) -> Result:
    run = Run("audit", config)
    check_rules(config.rules)
    if config.examples < 1:
        raise UsageError(f"--examples={config.examples}: must be at least 1")
    tables = [t for t in config.tables if t in schema.TABLES and delta.open_table(run.store, schema.TABLES[t])]
    check_tables(config.tables, tables)
    for table in tables:
        check_product_key(run.store, schema.TABLES[table], config.product_key, _MADE_BY[table])
    against = storage.absolute(config.against) if config.against else ""
    if against and not storage.list_files(against):
        raise UsageError(f"--against={config.against}: there is no file below it")
    need_table(run.store, schema.IMAGES, "ingest")
    due = fingerprints_due(run.store, config.decode, config.item_rows, config.full_scan)
    result = run.result(Result, tables=tuple(tables), images_to_fingerprint=due.num_rows)
    if config.dry_run:
        return result
    run.begin()
    if due.num_rows:
        make_fingerprints(run, due, config.decode, config.pool)
    uses = read_uses(run.store, tables, config.product_key, config.source)
    found = audit(run.store, uses, config.rules, config.decode)
    leaks = found.leaks
    result = run.done(
        result,
        appearances=found.num_uses,
        images=found.num_images,
        pairs_compared=found.num_candidates,
        images_without_a_fingerprint=found.num_unseen,
    )
    if against:
        foreign, unread = fingerprint_folder(against, config.decode)
        theirs = audit_against(run.store, uses, config.against_split, foreign, config.rules, config.decode)
        leaks = pa.concat_tables([leaks, theirs.leaks])
        told = {"benchmark_images": foreign.num_rows, "benchmark_files_unread": len(unread)}
        result = run.done(result, benchmark=against, **told)
    table = counts(leaks)
    page = storage.absolute(config.out) if config.out else page_of(run.store, run.job, run.run_id)
    shown = gallery(run.store, leaks, uses, against or None, config.examples)
    audit_report(page, "Leak audit", words(result), [(*key, n) for key, n in table.items()], shown, leaks.num_rows)
    if not leaks.num_rows:
        rows = uses.num_rows
        return run.done(result, counts=Counts(rows, rows), leaks=0, report=page)
    print_leaks(table, shown)
    raise JobFailed(
        f"{leaks.num_rows:,} leaks between splits: look at {page}, then run 'w2w deduplicate' and 'w2w split' again"
    )
