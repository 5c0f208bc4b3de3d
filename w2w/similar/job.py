"""Similar: for each product those most like it, kept exact from night to night."""

from dataclasses import dataclass, replace

from w2w import schema
from w2w.config import check_name
from w2w.engine.job import JobConfig, Run
from w2w.engine.snapshot import add_rows, replace_rows
from w2w.errors import UsageError
from w2w.index.filters import texts
from w2w.models.config import EncoderConfig
from w2w.models.default import check_default
from w2w.models.encoder import model_version
from w2w.results import Summary
from w2w.similar.base import delete_beside, delete_others, write_base, write_beside
from w2w.similar.flow import (
    SimilarConfig,
    base_of,
    copied,
    made_before,
    plan_of,
    read_catalog,
    rows_of,
    standing,
    stood,
    unchanged,
    version_of,
)
from w2w.similar.flow_layer import Layer, layer
from w2w.similar.flow_search import Searches
from w2w.stage import Counts
from w2w.table.published import catalog_made_by
from w2w.table.sink import Lineage

_INPUTS = (schema.PRODUCTS, schema.EMBEDDINGS, schema.DUPLICATES)


@dataclass(frozen=True)
class Config(SimilarConfig, JobConfig):
    """For every active product the k most alike ones of its category into table `similar`: by exact cosines, as if computed at
    once, though a night compares only what changed. Without Ray where that is seconds."""

    SHOWN = "store k across filter collapse spare name encoder.name dry_run"
    LEAST = JobConfig.LEAST | SimilarConfig.LEAST

    encoder: EncoderConfig = EncoderConfig()
    """Whose vectors are compared."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """Of one name's lists."""

    name: str
    model_version: str
    similar_version: str
    """Of model and options: lists of another are computed anew."""
    products: int
    """Lists: one for each active product with a vector."""
    without_a_vector: int | None = None
    not_permitted: int | None = None
    """Products left out because search may not use their picture (table `permissions`)."""
    not_allowed: int | None = None
    """Products that the filter keeps out of lists."""
    new: int | None = None
    gone: int | None = None
    """Products whose list is dropped."""
    came: int | None = None
    """Products that may enter lists they were not in: new or changed ones, and others of a card that lost one."""
    whole: bool = False
    """All lists are computed, as nothing of use is stored, or too much has changed."""
    unchanged: bool = False
    beside: int | None = None
    """Lists that changed, or went, and were written beside the others."""
    computed: int | None = None
    """Lists computed anew; in a dry run, at least these."""


def main(config: Config) -> Result:
    run = Run("similar", config)
    check_name(config.name, "name")
    if config.limit:
        raise UsageError("--limit: lists are exact only among all products; for a trial, use a smaller store")
    for values in texts(config.filter).items():
        if not values[1]:
            raise UsageError(f"--filter.{values[0]}: name at least one value")
    check_default(run.store, config.encoder, catalog_made_by(run.store))
    # before the catalog is read: that is at least as new
    lineage, before = run.lineage("", _INPUTS), standing(run.store, config)
    model = model_version(config.encoder)
    version = version_of(model, config)
    told = {"name": config.name, "model_version": model, "similar_version": version}
    made = None if config.full_scan else made_before(run.store, version, config)
    if same := unchanged(run.store, made, model):
        none = {"new": 0, "gone": 0, "came": 0, "computed": 0, "unchanged": True}
        names = {"without_a_vector": "without", "not_permitted": "refused", "not_allowed": "not_allowed"}
        found = {name: same.found[short] or None for name, short in names.items()}
        return run.result(Result, **told, **found, **none, products=same.num, skipped=same.num)
    if found := layer(run.store, made, model, version, config, before):
        return _with_layer(run, config, found, lineage, told)
    catalog = read_catalog(run.store, model, config.encoder.name, config)
    plan = plan_of(run.store, catalog, version, config)
    night, num = plan.night, catalog.now.num_rows
    result = run.result(
        Result,
        **told,
        products=num,
        without_a_vector=catalog.without or None,
        not_permitted=catalog.refused or None,
        not_allowed=int((~catalog.goods.allowed_N).sum()) or None,
        new=night.new,
        gone=night.gone,
        came=len(night.came),
        whole=plan.whole,
        unchanged=night.settled and not plan.whole,
        computed=int(night.anew_N.sum()),
        skipped=num if night.settled and not plan.whole else 0,
    )
    if config.dry_run or result.unchanged:
        return result
    run.check_store()
    searches = Searches(catalog, plan)
    if not searches.here:
        run.begin()
    computed = searches.run(config.k)
    rows = rows_of(catalog, plan.kept, model, version, config)
    base = run.run_id if config.layer_share and num >= config.layer_from else None
    if base:
        write_base(run.store, config.name, base, base_of(catalog, plan.kept), copied(catalog, config))
    lineage = replace(lineage, stage_version=version, standing=stood(catalog, before, config, base))
    _, versions = replace_rows(run.store, schema.SIMILAR_PRODUCTS, rows, lineage, config.name)
    delete_others(run.store, config.name, base)
    return run.done(result, counts=Counts(computed, computed), skipped=num - computed, versions=versions, computed=computed)


def _with_layer(run: Run, config: Config, found: Layer, lineage: Lineage, told: dict[str, str]) -> Result:
    """Adds the lists that changed beside the others."""
    stands, skipped = found.standing["found"], found.standing["found"]["products"] - found.computed
    result = run.result(
        Result,
        **told,
        products=stands["products"],
        without_a_vector=stands["without"] or None,
        not_permitted=stands["refused"] or None,
        not_allowed=stands["not_allowed"] or None,
        new=found.new,
        gone=found.gone,
        came=found.came,
        beside=found.rows.num_rows,
        unchanged=not found.rows.num_rows,
        computed=found.computed,
        skipped=skipped,
    )
    if config.dry_run or result.unchanged:
        return result
    run.check_store()
    if found.beside:
        write_beside(run.store, config.name, found.standing["base"], found.beside)
    lineage = replace(lineage, stage_version=told["similar_version"], standing=found.standing)
    versions = add_rows(run.store, schema.SIMILAR_PRODUCTS, found.rows, lineage, config.name, found.at)
    delete_beside(run.store, config.name, found.standing["base"], found.standing["beside"])
    return run.done(result, counts=Counts(found.computed, found.computed), versions=versions)
