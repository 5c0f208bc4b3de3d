"""Deduplicate: finds images that are the same picture: resized, mirrored or cropped."""

from dataclasses import dataclass, field

import pyarrow.compute as pc

from w2w import schema
from w2w.engine.job import JobConfig, Run
from w2w.engine.shuffle import list_vectors
from w2w.engine.snapshot import replace_rows
from w2w.errors import UsageError
from w2w.images.decode import DecodeLimits
from w2w.mining.catalog import is_current, snapshot_version
from w2w.mining.duplicates.fingerprints import fingerprint_version
from w2w.mining.duplicates.flow import find_duplicates, fingerprints_due, list_fingerprints, make_fingerprints, snapshot_rows
from w2w.mining.duplicates.rules import RULES_CODE, LikenessRules, check_rules, duplicate_rows
from w2w.results import Summary
from w2w.stage import Pool
from w2w.table.delta import need_table


@dataclass(frozen=True)
class Config(JobConfig):
    """Give every image in table `images` a fingerprint (once), and write table `duplicates`: clusters of one picture."""

    LEAST = {"min_cosine": -1}

    SHOWN = "store model_version min_cosine rules.most_levels pool.workers limit dry_run"

    rules: LikenessRules = LikenessRules()
    """When two pictures are the same."""
    model_version: str | None = None
    """Also compare neighbours in table `embeddings` of this model version: finds crops of more than 5 %."""
    min_cosine: float = 0.95
    """Of such neighbours, at least."""
    decode: DecodeLimits = DecodeLimits()
    """Limits of an image."""
    pool: Pool = Pool()
    """Workers that decode."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """What was fingerprinted, and the clusters, unless they are those of before (``unchanged``)."""

    images_to_fingerprint: int
    images_refused: int | None = None
    unchanged: bool = False
    candidates: int | None = None
    images_with_a_duplicate: int | None = None
    clusters: int | None = None
    found_by: dict[str, int] = field(default_factory=dict)
    in_crowded_buckets: int | None = None


def main(config: Config) -> Result:
    run = Run("deduplicate", config)
    check_rules(config.rules)
    if not 0 < config.min_cosine <= 1:
        raise UsageError(f"--min_cosine={config.min_cosine}: above 0, at most 1")
    need_table(run.store, schema.IMAGES, "ingest")
    vectors = list_vectors(run.store, config.model_version) if config.model_version else None
    if vectors is not None and not len(vectors.places):
        raise UsageError(f"--model_version={config.model_version}: table 'embeddings' has no vectors of it: run 'w2w embed'")
    due = fingerprints_due(run.store, config.decode, config.item_rows, config.full_scan).first(config.limit)
    result = run.result(Result, images_to_fingerprint=due.num_rows, skipped=due.skipped)
    if config.dry_run:
        return result
    begun = not due.is_done(config.tolerance)
    if begun:
        run.begin()
        refused = make_fingerprints(run, due, config.decode, config.pool).rejected
        result = run.done(result, images_refused=refused)
    inputs = [schema.FINGERPRINTS, *([schema.EMBEDDINGS] if vectors is not None else [])]
    cosine = config.min_cosine if vectors is not None else None
    options = (config.rules, fingerprint_version(config.decode), config.model_version, cosine)
    version = snapshot_version(RULES_CODE, options, run.store, inputs)
    if is_current(run.store, schema.DUPLICATES, version):
        return run.done(result, unchanged=True)
    if not begun:
        run.begin()
    fingerprints = list_fingerprints(run.store, config.decode)
    found = find_duplicates(fingerprints, config.rules, vectors, config.min_cosine)
    rows = snapshot_rows(fingerprints, found)
    counts, written = replace_rows(run.store, schema.DUPLICATES, rows, run.lineage(version, inputs))
    several = duplicate_rows(found.images, found.confirmed)
    return run.done(
        result,
        counts=counts,
        versions=written,
        candidates=found.num_candidates,
        images_with_a_duplicate=several.num_rows,
        clusters=pc.count_distinct(several.column(schema.CLUSTER_ID)).as_py(),
        found_by={v["values"]: v["counts"] for v in pc.value_counts(several.column(schema.HOW)).to_pylist()},
        in_crowded_buckets=found.num_crowded or None,
    )
